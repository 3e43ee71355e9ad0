/* SPDX-License-Identifier: BSD-3-Clause */
/* Adapted users as bytes: docs/file-format.md. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "model/embed.h"
#include "serve/user.h"

#define VERSION 1

static const char magic[8] = {'M', 'E', 'L', 'U', 'U', 'S', 'E', 'R'};

/* The header, the counts and cells of the profile's fields, items, ratings, adapted numbers, checksum. */
enum {
  AT_VERSION = sizeof magic,
  AT_FORM = 12,
  AT_DIGEST = 16,
  AT_RATINGS = 32,
  AT_FIELDS = 36,
  AT_CELLS = 40,
  AT_NUMBERS = 44,
  HEADER = 48,
  CHECKSUM = 8
};

/* --------------------------------------------------------------------------------------- adapted numbers */

/* All that an adapted user consists of but her rows of the first layer's input, which are her items'. */
struct pieces {
  struct {
    real *numbers;
    size_t n;
  } at[MELU__MAX_WEIGHTS + MELU__MAX_RANK + 4];
  size_t n, n_numbers;
};

static void add_piece(struct pieces *p, real *numbers, size_t n) {
  p->at[p->n].numbers = numbers;
  p->at[p->n++].n = n;
  p->n_numbers += n;
}

static void find_pieces(struct pieces *p, const melu_user *user) {
  const melu_model *model = user->model;
  real *parts[MELU__MAX_WEIGHTS];
  size_t rows, cols;
  p->n = p->n_numbers = 0;
  melu__user_parts(parts, user);
  if (melu__is_factors(model)) { /* F'F + P is symmetric */
    const size_t width = melu__user_cols(&model->options);
    add_piece(p, parts[0], width);
    for (size_t i = 0; i < width; i++) add_piece(p, parts[1] + i * width, i + 1);
    return;
  }
  for (size_t i = 2; i < 2 * model->n_layers + 1; i++) {
    melu__weight_shape(model, i, &rows, &cols);
    add_piece(p, parts[i], rows * cols);
  }
  melu__weight_shape(model, 0, &rows, &cols);
  add_piece(p, parts[0], user->n_support == MELU__FORMED ? rows * cols : user->n_support * rows);
  add_piece(p, user->own.numbers, user->own.n_numbers);
}

/* What the pieces leave out. `positions`: of her items. */
static void complete(melu_user *user, melu_workspace *ws, const melu_dataset *data, const uint32_t *positions) {
  const melu_model *model = user->model;
  real *parts[MELU__MAX_WEIGHTS];
  melu__user_parts(parts, user);
  if (melu__is_factors(model)) {
    const size_t width = melu__user_cols(&model->options);
    for (size_t i = 0; i < width; i++)
      for (size_t j = 0; j < i; j++) parts[1][j * width + i] = parts[1][i * width + j];
  } else if (user->n_support != MELU__FORMED && user->n_support) {
    const size_t n = user->n_support, width = model->item_width;
    melu__embed_many(model, data, MELU_ITEM, positions, n, ws->scratch.xs);
    model->ctx->kernels->transpose(n, width, (struct melu__cmat){ws->scratch.xs, width},
                                   (struct melu__mat){parts[1], n});
  }
}

/* ------------------------------------------------------------------------------------------------- writing */

static const unsigned char *model_digest(melu_workspace *ws) {
  if (ws->digest_version != ws->model->version) {
    melu_model_digest(ws->digest, ws->model, NULL);
    ws->digest_version = ws->model->version;
  }
  return ws->digest;
}

/* Saturates on machines whose sizes are too small. */
static size_t total_size(size_t n_ratings, size_t n_fields, size_t n_cells, size_t n_numbers) {
  size_t n = melu__size_add(HEADER + CHECKSUM, melu__size_mul(n_ratings, 12));
  n = melu__size_add(n, melu__size_mul(melu__size_add(n_fields, n_cells), 4));
  return melu__size_add(n, melu__size_mul(n_numbers, sizeof(real)));
}

static unsigned char *put(unsigned char *to, uint64_t bits, size_t size) {
  melu__put_bits(to, bits, size);
  return to + size;
}

static unsigned char *put_support(unsigned char *to, const struct melu__support *s) {
  for (size_t i = 0; i < s->n_fields; i++) to = put(to, s->values[i].n_ids + s->values[i].n_numbers, 4);
  for (size_t i = 0; i < s->n_fields; i++) {
    for (size_t k = 0; k < s->values[i].n_ids; k++) to = put(to, s->values[i].ids[k], 4);
    for (size_t k = 0; k < s->values[i].n_numbers; k++) to = put(to, melu__float_bits(s->values[i].numbers[k]), 4);
  }
  for (size_t i = 0; i < s->n; i++) to = put(to, s->items[i], 8);
  for (size_t i = 0; i < s->n; i++) to = put(to, melu__float_bits(s->ratings[i]), 4);
  return to;
}

static uint64_t number_bits(real value) {
  melu__real_bits bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static real bits_number(uint64_t bits) {
  const melu__real_bits narrow = (melu__real_bits)bits;
  real value;
  memcpy(&value, &narrow, sizeof value);
  return value;
}

melu_status melu_user_save(unsigned char *bytes, size_t *n, melu_workspace *ws, const melu_user *user,
                           melu_user_form form, melu_error *err) {
  if (!n || !ws || !user) return melu__fail(err, MELU_EINVAL, "%s is NULL", !n ? "n" : !ws ? "workspace" : "user");
  if (ws->model != user->model) return melu__fail(err, MELU_EINVAL, "the workspace was made for another model");
  if (form != MELU_USER_COMPACT && form != MELU_USER_READY) return melu__fail(err, MELU_EINVAL, "form is %d", form);
  if (form == MELU_USER_READY && user->version != user->model->version)
    return melu__fail(err, MELU_ESTATE, "the model was changed since the user was adapted");
  const struct melu__support *s = &user->support;
  const size_t capacity = *n, n_cells = s->n_ids + s->n_numbers;
  struct pieces pieces = {.n = 0};
  if (form == MELU_USER_READY) find_pieces(&pieces, user);
  *n = total_size(s->n, s->n_fields, n_cells, pieces.n_numbers);
  if (!bytes) return MELU_OK;
  if (capacity < *n)
    return melu__fail(err, MELU_ELIMIT, "the user takes %zu bytes, there is room for %zu", *n, capacity);
  memcpy(bytes, magic, sizeof magic);
  melu__put_bits(bytes + AT_VERSION, VERSION, 4);
  melu__put_bits(bytes + AT_FORM, (uint64_t)form, 4);
  memcpy(bytes + AT_DIGEST, model_digest(ws), MELU_DIGEST_BYTES);
  melu__put_bits(bytes + AT_RATINGS, s->n, 4);
  melu__put_bits(bytes + AT_FIELDS, s->n_fields, 4);
  melu__put_bits(bytes + AT_CELLS, n_cells, 4);
  melu__put_bits(bytes + AT_NUMBERS, pieces.n_numbers, 4);
  unsigned char *to = put_support(bytes + HEADER, s);
  for (size_t i = 0; i < pieces.n; i++)
    for (size_t k = 0; k < pieces.at[i].n; k++) to = put(to, number_bits(pieces.at[i].numbers[k]), sizeof(real));
  put(to, XXH3_64bits(bytes, (size_t)(to - bytes)), CHECKSUM);
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------- reading */

/* What the header says. */
struct header {
  melu_user_form form;
  size_t n_ratings, n_fields, n_cells, n_numbers;
};

static melu_status read_header(struct header *h, melu_workspace *ws, const unsigned char *bytes, size_t n,
                               melu_error *err) {
  if (n < HEADER + CHECKSUM || memcmp(bytes, magic, sizeof magic) != 0)
    return melu__fail(err, MELU_EFORMAT, "these bytes are no adapted user");
  const uint64_t version = melu__get_bits(bytes + AT_VERSION, 4), form = melu__get_bits(bytes + AT_FORM, 4);
  if (version != VERSION)
    return melu__fail(err, MELU_EVERSION, "user format %" PRIu64 " is unknown, this version reads %d", version,
                      VERSION);
  *h = (struct header){.form = form ? MELU_USER_READY : MELU_USER_COMPACT,
                       .n_ratings = (size_t)melu__get_bits(bytes + AT_RATINGS, 4),
                       .n_fields = (size_t)melu__get_bits(bytes + AT_FIELDS, 4),
                       .n_cells = (size_t)melu__get_bits(bytes + AT_CELLS, 4),
                       .n_numbers = (size_t)melu__get_bits(bytes + AT_NUMBERS, 4)};
  if (form > MELU_USER_READY || n != total_size(h->n_ratings, h->n_fields, h->n_cells, h->n_numbers))
    return melu__fail(err, MELU_EFORMAT, "the user's bytes are not as many as they say");
  if (XXH3_64bits(bytes, n - CHECKSUM) != melu__get_bits(bytes + n - CHECKSUM, CHECKSUM))
    return melu__fail(err, MELU_ECORRUPT, "the user's bytes were altered: their checksum does not match");
  if (memcmp(bytes + AT_DIGEST, model_digest(ws), MELU_DIGEST_BYTES) != 0)
    return melu__fail(err, MELU_ESCHEMA, "the user belongs to another model");
  if (h->n_fields != melu_schema_n_fields(ws->model->schema, MELU_USER))
    return melu__fail(err, MELU_EFORMAT, "the user has %zu fields, the model %zu", h->n_fields,
                      melu_schema_n_fields(ws->model->schema, MELU_USER));
  if (h->n_ratings <= ws->max_support) return MELU_OK;
  return melu__fail(err, MELU_ELIMIT, "%zu ratings, the workspace was made for %zu", h->n_ratings, ws->max_support);
}

/* The counts of the profile's fields, as an empty profile of that size. */
static melu_status read_counts(struct melu_value *values, const melu_schema *schema, const struct header *h,
                               const unsigned char **from, melu_error *err) {
  size_t n_cells = 0;
  for (size_t i = 0; i < h->n_fields; i++, *from += 4) {
    const struct melu__field *field = melu__schema_owner_field(schema, MELU_USER, i);
    const size_t n = (size_t)melu__get_bits(*from, 4);
    const int is_numeric = melu__has_numbers(field);
    if ((is_numeric && n != 0 && n != field->width) || (!is_numeric && n > 1 && !melu__kinds[field->kind].is_list))
      return melu__fail(err, MELU_EFORMAT, "field \"%s\" of the user cannot have %zu cells", field->name, n);
    values[i] = (struct melu_value){.n_ids = is_numeric ? 0 : n, .n_numbers = is_numeric ? n : 0};
    n_cells = melu__size_add(n_cells, n);
  }
  if (n_cells == h->n_cells) return MELU_OK;
  return melu__fail(err, MELU_EFORMAT, "the fields of the user have %zu cells, not %zu", n_cells, h->n_cells);
}

/* Ids first, numbers then, as the fields come: where melu__support_set_profile puts them. */
static void read_cells(struct melu__support *s, const struct melu_value *counts, const unsigned char **from) {
  s->n_ids = s->n_numbers = 0;
  for (size_t i = 0; i < s->n_fields; i++) {
    s->values[i] = counts[i]; /* of which there may be none, and then no array */
    if (counts[i].n_ids) s->values[i].ids = s->ids + s->n_ids;
    if (counts[i].n_numbers) s->values[i].numbers = s->numbers + s->n_numbers;
    for (size_t k = 0; k < counts[i].n_ids; k++, *from += 4) s->ids[s->n_ids++] = (uint32_t)melu__get_bits(*from, 4);
    for (size_t k = 0; k < counts[i].n_numbers; k++, *from += 4)
      s->numbers[s->n_numbers++] = melu__bits_float(melu__get_bits(*from, 4));
  }
}

static melu_status read_support(melu_workspace *ws, const melu_dataset *data, const struct header *h,
                                const unsigned char **from, melu_error *err) {
  const melu_model *model = ws->model;
  struct melu__support *s = &ws->fresh.support;
  struct melu_value counts[MELU__MAX_FIELDS];
  melu_status status = read_counts(counts, model->schema, h, from, err);
  if (status) return status;
  if (!melu__support_reserve(s, &model->ctx->allocator, counts, h->n_ratings)) return melu__fail_memory(err);
  read_cells(s, counts, from);
  status = melu__values_check(model->schema, MELU_USER, NULL, s->values, err);
  if (status) return status;
  s->n = h->n_ratings;
  for (size_t i = 0; i < s->n; i++, *from += 8) s->items[i] = melu__get_bits(*from, 8);
  for (size_t i = 0; i < s->n; i++, *from += 4) {
    s->ratings[i] = melu__bits_float(melu__get_bits(*from, 4));
    if (!isfinite(s->ratings[i])) return melu__fail_at(err, MELU_ERANGE, i, "rating %zu is not finite", i);
  }
  for (size_t i = 0; i < s->n && !status; i++) status = melu__support_position(&ws->positions[i], s, data, i, err);
  return status;
}

/* The adapted numbers to ws->fresh. */
static melu_status read_numbers(melu_workspace *ws, const melu_dataset *data, const struct header *h,
                                const unsigned char *from, melu_error *err) {
  struct pieces pieces;
  melu_user *fresh = &ws->fresh;
  fresh->n_support = melu__is_factors(ws->model) ? h->n_ratings : melu__kept_rows(ws->model, h->n_ratings);
  if (melu__adapts_items(ws->model) && !melu__own_rows_find(&fresh->own, ws->model, data, ws->positions, h->n_ratings))
    return melu__fail_memory(err);
  find_pieces(&pieces, fresh);
  if (pieces.n_numbers != h->n_numbers)
    return melu__fail(err, MELU_EFORMAT, "the user has %zu adapted numbers, not %zu", h->n_numbers, pieces.n_numbers);
  for (size_t i = 0; i < pieces.n; i++)
    for (size_t k = 0; k < pieces.at[i].n; k++, from += sizeof(real))
      pieces.at[i].numbers[k] = bits_number(melu__get_bits(from, sizeof(real)));
  complete(fresh, ws, data, ws->positions);
  if (melu__user_is_finite(fresh)) return MELU_OK;
  return melu__fail(err, MELU_ERANGE, "an adapted number is not finite");
}

melu_status melu_user_load(melu_user *user, melu_workspace *ws, const melu_model *model, const melu_dataset *data,
                           const unsigned char *bytes, size_t n, melu_error *err) {
  struct header h;
  melu_status status = melu__check_serving(model, user, ws, data, NULL, 0, err);
  if (status) return status;
  if (!bytes) return melu__fail(err, MELU_EINVAL, "bytes is NULL");
  status = read_header(&h, ws, bytes, n, err);
  const unsigned char *from = bytes + HEADER;
  if (!status) status = read_support(ws, data, &h, &from, err);
  if (status) return status;
  if (h.form == MELU_USER_READY) {
    status = read_numbers(ws, data, &h, from, err);
    if (status) return status;
    melu__user_replace(user, &ws->fresh);
    user->n_rows = 0; /* they were not written down */
  } else {
    struct melu__support *s = &ws->fresh.support;
    const struct melu__told told = {
        .profile = melu__support_profile(s), .items = ws->positions, .ratings = s->ratings, .n = s->n};
    if (h.n_numbers) return melu__fail(err, MELU_EFORMAT, "a compact user has adapted numbers");
    status = melu__adapt_and_keep(user, ws, data, &told, err);
    if (status) return status;
  }
  const struct melu__support before = user->support;
  user->support = ws->fresh.support;
  ws->fresh.support = before;
  return MELU_OK;
}
