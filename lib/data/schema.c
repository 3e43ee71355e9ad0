/* SPDX-License-Identifier: BSD-3-Clause */
#include "data/schema.h"

#include <math.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"

const char *const melu__owner_names[2] = {"user", "item"};
const char *const melu__kind_names[MELU__N_KINDS] = {"one", "many", "numeric"};
const struct melu__kind melu__kinds[MELU__N_KINDS] = {
    [MELU_ONE] = {.has_numbers = 0, .is_list = 0},
    [MELU_MANY] = {.has_numbers = 0, .is_list = 1},
    [MELU_NUMERIC] = {.has_numbers = 1, .is_list = 0},
};

/* ------------------------------------------------------------------------------------------------- making one */

melu_status melu_schema_new(melu_schema **out, const melu_context *ctx, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx) return melu__fail(err, MELU_EINVAL, "ctx is NULL");
  melu_schema *schema = melu__calloc(&ctx->allocator, 1, sizeof *schema);
  if (!schema) return melu__fail_memory(err);
  schema->ctx = ctx;
  *out = schema;
  return MELU_OK;
}

static void field_free(struct melu__field *field, const struct melu_allocator *a) {
  melu__free(a, field->name);
  melu__vocab_free(field->texts);
}

void melu_schema_free(melu_schema *schema) {
  if (!schema) return;
  const struct melu_allocator *a = &schema->ctx->allocator;
  for (size_t i = 0; i < schema->n_fields; i++) field_free(&schema->fields[i], a);
  melu__free(a, schema->fields);
  melu__free(a, schema);
}

melu_status melu__schema_copy(melu_schema **out, const melu_context *ctx, const melu_schema *schema, melu_error *err) {
  const struct melu_allocator *a = &ctx->allocator;
  melu_schema *copy;
  const melu_status status = melu_schema_new(&copy, ctx, err);
  *out = NULL;
  if (status) return status;
  if (!melu__grow(a, &copy->fields, &copy->capacity, 0, schema->n_fields, sizeof *copy->fields)) goto fail;
  for (size_t i = 0; i < schema->n_fields; i++) {
    const struct melu__field *from = &schema->fields[i];
    struct melu__field *to = &copy->fields[copy->n_fields++];
    *to = *from;
    to->name = melu__strdup(a, from->name);
    to->texts = from->texts ? melu__vocab_copy(from->texts, a) : NULL;
    if (!to->name || (from->texts && !to->texts)) goto fail;
  }
  *out = copy;
  return MELU_OK;
fail:
  melu_schema_free(copy);
  return melu__fail_memory(err);
}

/* ---------------------------------------------------------------------------------------------------- its fields */

static int is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static melu_status check_name(const melu_schema *schema, const char *name, melu_error *err) {
  if (!name) return melu__fail(err, MELU_EINVAL, "the name of a field is NULL");
  size_t n = 0;
  while (n <= MELU__MAX_NAME && is_name_char(name[n])) n++;
  if (n > MELU__MAX_NAME)
    return melu__fail(err, MELU_EINVAL, "field \"%.64s...\": the name is longer than %d", name, MELU__MAX_NAME);
  if (name[n] != '\0')
    return melu__fail(err, MELU_EINVAL, "field \"%.*s\": character %zu of the name is not a letter, digit, '_' or '-'",
                      (int)n, name, n);
  if (n == 0) return melu__fail(err, MELU_EINVAL, "the name of a field is empty");
  if (melu__schema_find(schema, name)) return melu__fail(err, MELU_EINVAL, "field \"%s\": the name is taken", name);
  return MELU_OK;
}

/* Fills in the defaults on the way: *known is the field that will be added. */
static melu_status check_field(const melu_schema *schema, struct melu_field *known, melu_error *err) {
  const melu_status status = check_name(schema, known->name, err);
  if (status) return status;
  const char *name = known->name;
  if (known->owner != MELU_USER && known->owner != MELU_ITEM)
    return melu__fail(err, MELU_EINVAL, "field \"%s\": owner %d is none", name, (int)known->owner);
  if ((unsigned)known->kind >= MELU__N_KINDS)
    return melu__fail(err, MELU_EINVAL, "field \"%s\": kind %d is none", name, (int)known->kind);
  if (melu__kinds[known->kind].has_numbers) {
    if (!isfinite(known->shift)) return melu__fail(err, MELU_EINVAL, "field \"%s\": shift is not finite", name);
    if (!isfinite(known->scale)) return melu__fail(err, MELU_EINVAL, "field \"%s\": scale is not finite", name);
    if (known->scale == 0) known->scale = 1;
    if (known->width == 0) known->width = 1;
    known->n_values = 0;
  } else {
    /* What does not apply has one value, so that equal fields are equal in every member. */
    known->shift = 0;
    known->scale = 1;
    if (known->width == 0) known->width = 32;
  }
  if (known->n_values > MELU__MAX_VALUES)
    return melu__fail(err, MELU_ELIMIT, "field \"%s\": %zu values are more than %u", name, known->n_values,
                      MELU__MAX_VALUES);
  if (known->width > MELU__MAX_WIDTH)
    return melu__fail(err, MELU_ELIMIT, "field \"%s\": width %zu is more than %d", name, known->width, MELU__MAX_WIDTH);
  if (schema->n_fields >= MELU__MAX_FIELDS)
    return melu__fail(err, MELU_ELIMIT, "field \"%s\": a schema has at most %d fields", name, MELU__MAX_FIELDS);
  return MELU_OK;
}

melu_status melu_schema_add(melu_schema *schema, const struct melu_field *field, melu_error *err) {
  if (!schema) return melu__fail(err, MELU_EINVAL, "schema is NULL");
  if (!field) return melu__fail(err, MELU_EINVAL, "field is NULL");
  struct melu_field known;
  melu_status status = melu__options(&known, sizeof known, field, "field", err);
  if (status) return status;
  status = check_field(schema, &known, err);
  if (status) return status;

  const struct melu_allocator *a = &schema->ctx->allocator;
  const size_t n = schema->n_fields;
  if (!melu__grow(a, &schema->fields, &schema->capacity, n, n + 1, sizeof *schema->fields))
    return melu__fail_memory(err);
  struct melu__field added = {
      .name = melu__strdup(a, known.name),
      .owner = known.owner,
      .kind = known.kind,
      .learns = !melu__kinds[known.kind].has_numbers && known.n_values == 0,
      .n_values = known.n_values,
      .width = known.width,
      .shift = known.shift,
      .scale = known.scale,
  };
  if (added.name && added.learns) added.texts = melu__vocab_new(a);
  if (!added.name || (added.learns && !added.texts)) {
    field_free(&added, a);
    return melu__fail_memory(err);
  }
  schema->fields[n] = added;
  schema->n_fields = n + 1;
  return MELU_OK;
}

size_t melu_schema_n_fields(const melu_schema *schema, melu_owner owner) {
  size_t n = 0;
  for (size_t i = 0; schema && i < schema->n_fields; i++) n += schema->fields[i].owner == owner;
  return n;
}

const struct melu__field *melu__schema_owner_field(const melu_schema *schema, melu_owner owner, size_t index) {
  for (size_t i = 0; i < schema->n_fields; i++) {
    const struct melu__field *field = &schema->fields[i];
    if (field->owner == owner && index-- == 0) return field;
  }
  return NULL;
}

struct melu__field *melu__schema_find(const melu_schema *schema, const char *name) {
  for (size_t i = 0; i < schema->n_fields; i++) {
    if (strcmp(schema->fields[i].name, name) == 0) return &schema->fields[i];
  }
  return NULL;
}

melu_status melu_schema_field(struct melu_field *field, const melu_schema *schema, melu_owner owner, size_t index,
                              melu_error *err) {
  if (!field) return melu__fail(err, MELU_EINVAL, "field is NULL");
  if (!schema) return melu__fail(err, MELU_EINVAL, "schema is NULL");
  if (owner != MELU_USER && owner != MELU_ITEM) return melu__fail(err, MELU_EINVAL, "owner %d is none", (int)owner);
  const struct melu__field *from = melu__schema_owner_field(schema, owner, index);
  if (!from)
    return melu__fail(err, MELU_ERANGE, "field %zu is not below %zu", index, melu_schema_n_fields(schema, owner));
  const struct melu_field known = {
      .name = from->name,
      .owner = from->owner,
      .kind = from->kind,
      .n_values = from->n_values,
      .width = from->width,
      .shift = from->shift,
      .scale = from->scale,
  };
  return melu__options_out(field, &known, sizeof known, "melu_field", err);
}

size_t melu__schema_width(const melu_schema *schema, melu_owner owner) {
  size_t width = 0;
  for (size_t i = 0; i < schema->n_fields; i++) {
    if (schema->fields[i].owner == owner) width += schema->fields[i].width;
  }
  return width;
}

/* -------------------------------------------------------------------------------------------------- vocabularies */

uint32_t melu_schema_value_id(const melu_schema *schema, const char *field, const char *text) {
  if (!schema || !field || !text) return MELU_UNKNOWN;
  const struct melu__field *found = melu__schema_find(schema, field);
  if (!found || !found->texts) return MELU_UNKNOWN;
  const uint32_t id = melu__vocab_find(found->texts, text, strlen(text));
  return id == MELU__NO_INDEX ? MELU_UNKNOWN : id;
}

const char *melu_schema_value_text(const melu_schema *schema, const char *field, uint32_t id) {
  if (!schema || !field) return NULL;
  const struct melu__field *found = melu__schema_find(schema, field);
  if (!found || !found->texts || id >= melu__vocab_count(found->texts)) return NULL;
  return melu__vocab_key(found->texts, id, NULL);
}

/* Each text is hashed with the digest of those before it as the seed, so that order and boundaries count. */
static uint64_t texts_digest(const struct melu__vocab *texts) {
  uint64_t digest = 0;
  for (size_t i = 0; i < melu__vocab_count(texts); i++) {
    size_t n_bytes;
    const char *text = melu__vocab_key(texts, (uint32_t)i, &n_bytes);
    digest = XXH3_64bits_withSeed(text, n_bytes, digest);
  }
  return digest;
}

melu_status melu__schema_set_texts(melu_schema *schema, const char *name, const struct melu__vocab *texts,
                                   melu_error *err) {
  struct melu__field *field = melu__schema_find(schema, name);
  if (!field) return melu__fail(err, MELU_ENOTFOUND, "there is no field \"%.64s\"", name);
  const size_t n = melu__vocab_count(texts);
  if (melu__has_numbers(field)) return melu__fail(err, MELU_EINVAL, "field \"%s\": numbers have no vocabulary", name);
  if (!field->learns && field->n_values != n)
    return melu__fail(err, MELU_EINVAL, "field \"%s\": %zu texts for %zu values", name, n, field->n_values);
  if (n > MELU__MAX_VALUES)
    return melu__fail(err, MELU_ELIMIT, "field \"%s\": %zu values are more than %u", name, n, MELU__MAX_VALUES);
  struct melu__vocab *copy = melu__vocab_copy(texts, &schema->ctx->allocator);
  if (!copy) return melu__fail_memory(err);
  melu__vocab_free(field->texts);
  field->texts = copy;
  field->digest = texts_digest(copy);
  field->n_values = n;
  field->learns = 0;
  return MELU_OK;
}

size_t melu__field_n_ids(const struct melu__field *field) {
  return field->learns ? melu__vocab_count(field->texts) : field->n_values;
}

int melu__schema_complete(const melu_schema *schema) {
  for (size_t i = 0; i < schema->n_fields; i++) {
    if (schema->fields[i].learns) return 0;
  }
  return 1;
}

void melu__schema_close(melu_schema *schema) {
  for (size_t i = 0; i < schema->n_fields; i++) {
    struct melu__field *field = &schema->fields[i];
    if (!field->learns) continue;
    field->n_values = melu__vocab_count(field->texts);
    field->digest = texts_digest(field->texts);
    field->learns = 0;
  }
}

/* ------------------------------------------------------------------------------------------------------ equality */

static uint64_t digest_now(const struct melu__field *field) {
  return field->learns ? texts_digest(field->texts) : field->digest;
}

/* Of fields of one owner. */
static int fields_equal(const struct melu__field *a, const struct melu__field *b) {
  return strcmp(a->name, b->name) == 0 && a->kind == b->kind && a->learns == b->learns && a->n_values == b->n_values &&
         a->width == b->width && a->shift == b->shift && a->scale == b->scale && !a->texts == !b->texts &&
         digest_now(a) == digest_now(b);
}

/* Users' and items' fields enter the network in two separate parts, so the order counts within an owner only. */
int melu__schema_equal(const melu_schema *a, const melu_schema *b) {
  if (a == b) return 1;
  if (a->n_fields != b->n_fields) return 0;
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++) {
    size_t j = 0;
    for (size_t i = 0; i < a->n_fields; i++) {
      if ((int)a->fields[i].owner != owner) continue;
      while (j < b->n_fields && (int)b->fields[j].owner != owner) j++;
      if (j == b->n_fields || !fields_equal(&a->fields[i], &b->fields[j])) return 0;
      j++;
    }
  }
  return 1;
}
