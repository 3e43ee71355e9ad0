/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/schema_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/json_read.h"
#include "io/metadata.h"

/* ---------------------------------------------------------------------------------------------------- writing */

/* A text as JSON; what is no UTF-8, or has a NUL, as a list of its bytes in hexadecimal digits. */
static json_t *text_json(const char *text, size_t n, const struct melu_allocator *a) {
  if (melu__is_text(text, n)) return json_stringn_nocheck(text, n);
  char *digits = melu__alloc(a, melu__size_add(melu__size_mul(n, 2), 1), 1);
  if (!digits) return NULL;
  for (size_t i = 0; i < n; i++) snprintf(digits + 2 * i, 3, "%02x", (unsigned)(unsigned char)text[i]);
  json_t *list = json_pack("[s]", digits);
  melu__free(a, digits);
  return list;
}

static json_t *texts_json(const struct melu__vocab *texts, const struct melu_allocator *a) {
  json_t *list = json_array();
  for (uint32_t i = 0; list && i < melu__vocab_count(texts); i++) {
    size_t n;
    const char *text = melu__vocab_key(texts, i, &n);
    if (json_array_append_new(list, text_json(text, n, a)) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

static json_t *field_json(const struct melu__field *f, const struct melu_allocator *a) {
  json_t *field = json_pack("{s:s, s:s, s:s, s:I}", "name", f->name, "owner", melu__owner_names[f->owner], "kind",
                            melu__kind_names[f->kind], "width", (json_int_t)f->width);
  int failed = !field;
  if (melu__has_numbers(f)) {
    failed = failed || json_object_set_new(field, "shift", json_real(f->shift));
    failed = failed || json_object_set_new(field, "scale", json_real(f->scale));
  } else {
    failed = failed || json_object_set_new(field, "n_values", json_integer((json_int_t)f->n_values));
    if (f->texts) failed = failed || json_object_set_new(field, "texts", texts_json(f->texts, a));
  }
  if (!failed) return field;
  json_decref(field);
  return NULL;
}

json_t *melu__schema_json(const melu_schema *schema, const struct melu_allocator *a) {
  json_t *fields = json_array();
  for (size_t i = 0; fields && i < schema->n_fields; i++) {
    if (json_array_append_new(fields, field_json(&schema->fields[i], a)) == 0) continue;
    json_decref(fields);
    return NULL;
  }
  return fields ? json_pack("{s:o}", "fields", fields) : NULL;
}

/* ---------------------------------------------------------------------------------------------------- reading */

struct melu__byte_text {
  char *bytes;
  size_t n;
};

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound schema: %s", what);
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A text, or a list of one: its bytes in hexadecimal digits, which are decoded where they stand. */
static int take_text(struct melu__json *j, struct melu__byte_text *out) {
  if (!melu__json_mark(j, '[')) return melu__json_string(j, &out->bytes, &out->n);
  if (!melu__json_string(j, &out->bytes, &out->n) || !melu__json_mark(j, ']') || out->n % 2) return 0;
  out->n /= 2;
  for (size_t i = 0; i < out->n; i++) {
    const int high = hex_digit(out->bytes[2 * i]), low = hex_digit(out->bytes[2 * i + 1]);
    if (high < 0 || low < 0) return 0;
    out->bytes[i] = (char)(unsigned char)(16 * high + low);
  }
  return 1;
}

static int by_text(const void *a, const void *b) {
  const struct melu__byte_text *x = *(struct melu__byte_text *const *)a, *y = *(struct melu__byte_text *const *)b;
  if (x->n != y->n) return x->n < y->n ? -1 : 1;
  return memcmp(x->bytes, y->bytes, x->n);
}

/* A vocabulary takes many times the memory of short texts, so it is not made to find out that it is none. */
static melu_status check_distinct(const struct melu__byte_text *texts, size_t n, const struct melu_allocator *a,
                                  melu_error *err) {
  int distinct = 1;
  const struct melu__byte_text **sorted = melu__alloc(a, n, sizeof *sorted);
  if (!sorted) return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) sorted[i] = &texts[i];
  if (n > 1) qsort(sorted, n, sizeof *sorted, by_text);
  for (size_t i = 1; i < n && distinct; i++) distinct = by_text(&sorted[i - 1], &sorted[i]) != 0;
  melu__free(a, sorted);
  return distinct ? MELU_OK : bad(err, "a vocabulary has a text twice");
}

/* The list of the n texts of a field. What the file claims is first held against what it has room for: but for an empty
 * one, distinct texts take four bytes each with marks and comma. */
static melu_status load_texts(struct melu__schema_text *s, struct melu__json *j, size_t field, size_t n,
                              melu_error *err) {
  int more = 1;
  size_t i = 0;
  if (!melu__json_mark(j, '[') || n > (size_t)(j->end - j->at) / 4 + 1)
    return bad(err, "a vocabulary is not a list of n_values texts");
  struct melu__byte_text *texts = melu__alloc(&s->ctx->allocator, n, sizeof *texts);
  if (!texts) return melu__fail_memory(err);
  s->texts[field] = texts;
  for (; i <= n && more > 0; i++) {
    more = melu__json_next(j, i, ']');
    if (more > 0 && (i == n || !take_text(j, &texts[i]))) more = -1;
  }
  if (more < 0 || i != n + 1) return bad(err, "a vocabulary is not a list of n_values texts");
  return check_distinct(texts, n, &s->ctx->allocator, err);
}

static melu_status load_field(struct melu__schema_text *s, struct melu__json *j, melu_error *err) {
  struct melu_field field = {.size = sizeof field};
  char *name;
  int owner, kind;
  if (!melu__json_member(j, '{', "name") || !melu__json_string(j, &name, NULL) || !melu__json_member(j, ',', "owner") ||
      !melu__json_choice(j, melu__owner_names, 2, &owner) || !melu__json_member(j, ',', "kind") ||
      !melu__json_choice(j, melu__kind_names, MELU__N_KINDS, &kind) || !melu__json_member(j, ',', "width") ||
      !melu__json_size(j, &field.width) || field.width == 0)
    return bad(err, "a field has not name, owner, kind and width");
  field.name = name;
  field.owner = (melu_owner)owner;
  field.kind = (melu_field_kind)kind;
  const int has_numbers = melu__kinds[kind].has_numbers;
  if (has_numbers) {
    if (!melu__json_member(j, ',', "shift") || !melu__json_real(j, &field.shift) ||
        !melu__json_member(j, ',', "scale") || !melu__json_real(j, &field.scale) || field.scale == 0)
      return bad(err, "a field of numbers has not shift and scale");
  } else if (!melu__json_member(j, ',', "n_values") || !melu__json_size(j, &field.n_values)) {
    return bad(err, "a field of ids has not n_values");
  }
  const size_t index = s->schema->n_fields;
  melu_status status = melu_schema_add(s->schema, &field, err);
  if (status) return status;
  if (melu__json_mark(j, '}'))
    return has_numbers || field.n_values > 0 ? MELU_OK : bad(err, "a field of ids has no values");
  if (has_numbers || !melu__json_member(j, ',', "texts")) return bad(err, "a field has something unknown");
  status = load_texts(s, j, index, field.n_values, err);
  if (!status && !melu__json_mark(j, '}')) status = bad(err, "a field has something unknown");
  return status;
}

melu_status melu__schema_text_load(struct melu__schema_text *s, const melu_context *ctx,
                                   const struct melu__safetensors *file, melu_error *err) {
  struct melu__json j = melu__metadata_json(file, "schema");
  int more;
  *s = (struct melu__schema_text){.ctx = ctx};
  if (!melu__json_member(&j, '{', "fields") || !melu__json_mark(&j, '['))
    return bad(err, "the schema has no list of fields");
  melu_status status = melu_schema_new(&s->schema, s->ctx, err);
  for (size_t i = 0; !status && (more = melu__json_next(&j, i, ']')) != 0; i++)
    status = more > 0 ? load_field(s, &j, err) : bad(err, "the schema is not a list of fields");
  if (!status && (!melu__json_mark(&j, '}') || !melu__json_end(&j))) status = bad(err, "text follows the schema");
  if (!status) melu__schema_close(s->schema); /* a vocabulary may be empty */
  return status;
}

static melu_status build_texts(const struct melu__schema_text *s, size_t field, melu_schema *schema, melu_error *err) {
  const struct melu__field *f = &schema->fields[field];
  struct melu__vocab *vocab = melu__vocab_new(&s->ctx->allocator);
  int made = vocab != NULL;
  for (size_t i = 0; i < f->n_values && made; i++)
    made = melu__vocab_add(vocab, s->texts[field][i].bytes, s->texts[field][i].n, NULL) != MELU__NO_INDEX;
  const melu_status status = made ? melu__schema_set_texts(schema, f->name, vocab, err) : melu__fail_memory(err);
  melu__vocab_free(vocab);
  return status;
}

melu_status melu__schema_text_finish(const struct melu__schema_text *s, melu_schema *schema, melu_error *err) {
  melu_status status = MELU_OK;
  for (size_t i = 0; i < schema->n_fields && !status; i++)
    if (s->texts[i]) status = build_texts(s, i, schema, err);
  return status;
}

void melu__schema_text_free(struct melu__schema_text *s) {
  if (!s->ctx) return;
  for (size_t i = 0; i < MELU__MAX_FIELDS; i++) melu__free(&s->ctx->allocator, s->texts[i]);
  melu_schema_free(s->schema);
  *s = (struct melu__schema_text){0};
}
