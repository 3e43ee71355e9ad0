/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/digest.h"
#include "base/error.h"
#include "model/model.h"

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

static void add_param(struct melu__digest *d, const struct melu__param *p) {
  uint32_t words[1024];
  const size_t n = p->rows * p->cols, n_piece = sizeof words / sizeof *words;
  melu__digest_text(d, p->name);
  melu__digest_bits(d, p->rows);
  melu__digest_bits(d, p->cols);
  for (size_t at = 0; at < n; at += n_piece) {
    const size_t n_now = n - at < n_piece ? n - at : n_piece;
    for (size_t i = 0; i < n_now; i++) words[i] = (uint32_t)melu__float_bits((float)p->data[at + i]);
    melu__digest_words(d, words, n_now);
  }
}

melu_status melu_model_digest(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model, melu_error *err) {
  struct melu__digest d;
  if (!digest || !model) return melu__fail(err, MELU_EINVAL, "%s is NULL", digest ? "model" : "digest");
  melu__digest_begin(&d);
  melu__digest_bits(&d, model->schema->n_fields);
  for (size_t i = 0; i < model->schema->n_fields; i++) add_field(&d, &model->schema->fields[i]);
  add_options(&d, &model->options);
  for (size_t i = 0; i < model->n_params; i++) add_param(&d, &model->params[i]);
  melu__digest_end(digest, &d);
  return MELU_OK;
}

uint64_t melu__model_hash(const melu_model *model) {
  unsigned char digest[MELU_DIGEST_BYTES];
  struct melu__digest d;
  melu__digest_begin(&d);
  for (size_t i = 0; i < model->n_params; i++) add_param(&d, &model->params[i]);
  melu__digest_end(digest, &d);
  return melu__get_bits(digest, 8);
}
