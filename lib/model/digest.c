/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "model/model.h"

static void add_bits(XXH3_state_t *hash, uint64_t bits) {
  unsigned char bytes[8];
  melu__put_bits(bytes, bits, sizeof bytes);
  XXH3_128bits_update(hash, bytes, sizeof bytes);
}

static void add_double(XXH3_state_t *hash, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  add_bits(hash, bits);
}

/* Its length goes before it, so that what follows cannot be taken for a part of it. */
static void add_text(XXH3_state_t *hash, const char *text) {
  const size_t n = strlen(text);
  add_bits(hash, n);
  XXH3_128bits_update(hash, text, n);
}

static void add_field(XXH3_state_t *hash, const struct melu__field *f) {
  add_text(hash, f->name);
  add_bits(hash, (uint64_t)f->owner);
  add_bits(hash, (uint64_t)f->kind);
  add_bits(hash, f->n_values);
  add_bits(hash, f->width);
  add_double(hash, f->shift);
  add_double(hash, f->scale);
  add_bits(hash, f->texts != NULL);
  add_bits(hash, f->digest);
}

/* Those that say what is computed; the seed and how to train do not. */
static void add_options(XXH3_state_t *hash, const struct melu_model_options *o) {
  const uint64_t numbers[] = {(uint64_t)o->network, o->rank,           (uint64_t)o->rule,    o->adapt,
                              (uint64_t)o->rates,   (uint64_t)o->loss, (uint64_t)o->history, o->inner_steps,
                              o->n_hidden};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) add_bits(hash, numbers[i]);
  for (size_t i = 0; i < o->n_hidden; i++) add_bits(hash, o->hidden[i]);
  add_double(hash, o->inner_lr);
  add_double(hash, o->rating_min);
  add_double(hash, o->rating_max);
}

static void add_param(XXH3_state_t *hash, const struct melu__param *p) {
  unsigned char bytes[4096];
  const size_t n = p->rows * p->cols, n_piece = sizeof bytes / 4;
  add_text(hash, p->name);
  add_bits(hash, p->rows);
  add_bits(hash, p->cols);
  for (size_t at = 0; at < n; at += n_piece) {
    const size_t n_now = n - at < n_piece ? n - at : n_piece;
    for (size_t i = 0; i < n_now; i++) melu__put_bits(bytes + 4 * i, melu__float_bits((float)p->data[at + i]), 4);
    XXH3_128bits_update(hash, bytes, 4 * n_now);
  }
}

melu_status melu_model_digest(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model, melu_error *err) {
  XXH3_state_t hash;
  XXH128_canonical_t canonical;
  if (!digest || !model) return melu__fail(err, MELU_EINVAL, "%s is NULL", digest ? "model" : "digest");
  XXH3_128bits_reset(&hash);
  add_bits(&hash, model->schema->n_fields);
  for (size_t i = 0; i < model->schema->n_fields; i++) add_field(&hash, &model->schema->fields[i]);
  add_options(&hash, &model->options);
  for (size_t i = 0; i < model->n_params; i++) add_param(&hash, &model->params[i]);
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&hash));
  memcpy(digest, canonical.digest, MELU_DIGEST_BYTES);
  return MELU_OK;
}
