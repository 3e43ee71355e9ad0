/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/digest.h"
#include "base/error.h"
#include "model/gather_rows.h"

static void add_field(struct melu__digest *d, const struct melu__field *f) {
  melu__digest_text(d, f->name);
  melu__digest_bits(d, (uint64_t)f->owner);
  melu__digest_bits(d, (uint64_t)f->kind);
  melu__digest_bits(d, f->n_values);
  melu__digest_bits(d, f->width);
  melu__digest_double(d, f->shift);
  melu__digest_double(d, f->scale);
  melu__digest_bits(d, f->texts != NULL);
  melu__digest_bits(d, f->digest);
}

/* Those that say what is computed; the seed and how to train do not. */
static void add_options(struct melu__digest *d, const struct melu_model_options *o) {
  const uint64_t numbers[] = {(uint64_t)o->network, o->rank,           (uint64_t)o->rule,    o->adapt,
                              (uint64_t)o->rates,   (uint64_t)o->loss, (uint64_t)o->history, o->inner_steps,
                              o->n_hidden};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) melu__digest_bits(d, numbers[i]);
  for (size_t i = 0; i < o->n_hidden; i++) melu__digest_bits(d, o->hidden[i]);
  melu__digest_double(d, o->inner_lr);
  melu__digest_double(d, o->rating_min);
  melu__digest_double(d, o->rating_max);
}

static void keep_first(void *into, const void *from) {
  (void)into;
  (void)from;
}

static melu_status add_numbers(void *arg, const real *numbers, size_t n, melu_error *err) {
  uint32_t words[1024];
  const size_t n_piece = sizeof words / sizeof *words;
  (void)err;
  for (size_t at = 0; at < n; at += n_piece) {
    const size_t n_now = n - at < n_piece ? n - at : n_piece;
    for (size_t i = 0; i < n_now; i++) words[i] = (uint32_t)melu__float_bits((float)numbers[at + i]);
    melu__digest_words(arg, words, n_now);
  }
  return MELU_OK;
}

static void begin_param(struct melu__digest *d, const struct melu__param *p) {
  melu__digest_text(d, p->name);
  melu__digest_bits(d, p->all_rows);
  melu__digest_bits(d, p->cols);
}

static void add_param(struct melu__digest *d, const struct melu__param *p) {
  begin_param(d, p);
  add_numbers(d, p->data, p->rows * p->cols, NULL);
}

static void begin_model(struct melu__digest *d, const melu_model *model) {
  melu__digest_begin(d);
  melu__digest_bits(d, model->schema->n_fields);
  for (size_t i = 0; i < model->schema->n_fields; i++) add_field(d, &model->schema->fields[i]);
  add_options(d, &model->options);
}

/* Rank 0 takes the digest, and tells it. */
static melu_status tell_digest(unsigned char digest[MELU_DIGEST_BYTES], const struct melu__digest *d,
                               const melu_model *model, melu_error *err) {
  struct melu__ranks ranks = melu__ranks_begin(model->ctx);
  struct {
    unsigned char bytes[MELU_DIGEST_BYTES];
  } told;
  melu__digest_end(told.bytes, d);
  const melu_status status = melu__ranks_reduce(&ranks, &told, sizeof told, keep_first, err);
  if (!status) memcpy(digest, told.bytes, sizeof told.bytes);
  return status;
}

static melu_status digest_sharded(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model, melu_error *err) {
  struct melu__digest d;
  struct melu__gathering g;
  melu_status status = melu__gathering_begin(&g, model, 1, err);
  if (status) return status;
  begin_model(&d, model);
  for (size_t i = 0; i < model->n_params && !status; i++) {
    const struct melu__param *p = &model->params[i];
    if (p->is_sharded) {
      begin_param(&d, p);
      status = melu__gather_rows(&g, i, add_numbers, &d, err);
    } else {
      add_param(&d, p);
    }
  }
  status = melu__gathering_end(&g, status, err);
  return status ? status : tell_digest(digest, &d, model, err);
}

melu_status melu_model_digest(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model, melu_error *err) {
  struct melu__digest d;
  melu_error mine;
  if (!digest || !model) return melu__fail(err, MELU_EINVAL, "%s is NULL", digest ? "model" : "digest");
  if (model->is_sharded) {
    const melu_status status = digest_sharded(digest, model, &mine);
    if (status && err) *err = mine;
    return status;
  }
  begin_model(&d, model);
  for (size_t i = 0; i < model->n_params; i++) add_param(&d, &model->params[i]);
  melu__digest_end(digest, &d);
  return MELU_OK;
}

uint64_t melu__model_hash(const melu_model *model) {
  unsigned char digest[MELU_DIGEST_BYTES];
  struct melu__digest d;
  melu__digest_begin(&d);
  for (size_t i = 0; i < model->n_params; i++)
    if (!model->params[i].is_sharded) add_param(&d, &model->params[i]);
  melu__digest_end(digest, &d);
  return melu__get_bits(digest, 8);
}
