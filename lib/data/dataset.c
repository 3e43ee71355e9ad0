/* SPDX-License-Identifier: BSD-3-Clause */
#include "data/dataset.h"

#include <math.h>
#include <string.h>

#include "base/digest.h"
#include "base/error.h"

#define TEXT_KEY_BASE ((uint64_t)1 << 63) /* ids that stand for texts begin here */

static const char *owner_name(melu_owner owner) {
  return owner == MELU_USER ? "user" : "item";
}

/* ------------------------------------------------------------------------------------------------- making one */

melu_status melu_dataset_new(melu_dataset **out, const melu_context *ctx, const melu_schema *schema, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx) return melu__fail(err, MELU_EINVAL, "ctx is NULL");
  if (!schema) return melu__fail(err, MELU_EINVAL, "schema is NULL");
  const struct melu_allocator *a = &ctx->allocator;
  melu_dataset *data = melu__calloc(a, 1, sizeof *data);
  if (!data) return melu__fail_memory(err);
  data->ctx = ctx;
  if (melu__schema_copy(&data->schema, ctx, schema, NULL)) goto fail;
  if (!melu__table_init(&data->tables[MELU_USER], a, data->schema, MELU_USER)) goto fail;
  if (!melu__table_init(&data->tables[MELU_ITEM], a, data->schema, MELU_ITEM)) goto fail;
  data->key_texts = melu__vocab_new(a);
  if (!data->key_texts) goto fail;
  *out = data;
  return MELU_OK;
fail: /* there is but one reason */
  melu_dataset_free(data);
  return melu__fail_memory(err);
}

melu_status melu__dataset_beside(melu_dataset **out, const melu_dataset *base, melu_error *err) {
  const struct melu_allocator *a = &base->ctx->allocator;
  melu_dataset *data = melu__calloc(a, 1, sizeof *data);
  *out = NULL;
  if (!data) return melu__fail_memory(err);
  data->ctx = base->ctx;
  data->base = base;
  data->schema = base->schema;
  data->tables[MELU_ITEM] = base->tables[MELU_ITEM];
  if (!melu__table_init(&data->tables[MELU_USER], a, data->schema, MELU_USER)) {
    melu_dataset_free(data);
    return melu__fail_memory(err);
  }
  *out = data;
  return MELU_OK;
}

void melu_dataset_free(melu_dataset *data) {
  if (!data) return;
  const struct melu_allocator *a = &data->ctx->allocator;
  melu__table_free(&data->tables[MELU_USER], a);
  if (!data->base) melu__table_free(&data->tables[MELU_ITEM], a);
  melu__vocab_free(data->key_texts);
  melu__free(a, data->added);
  melu__free(a, data->user_start);
  melu__free(a, data->rating_item);
  melu__free(a, data->rating);
  if (!data->base) melu_schema_free(data->schema);
  melu__free(a, data);
}

/* -------------------------------------------------------------------------------------------------------- adding */

static melu_status check_open(const melu_dataset *data, melu_error *err) {
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  if (data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is frozen");
  return MELU_OK;
}

static melu_status add(melu_dataset *data, melu_owner owner, uint64_t id, const struct melu_value *values,
                       uint32_t *index, melu_error *err) {
  melu_status status = check_open(data, err);
  if (status) return status;
  struct melu__table *table = &data->tables[owner];
  if (melu__table_find(table, id) != MELU__NO_INDEX)
    return melu__fail(err, MELU_ESTATE, "%s %llu: the id is taken", owner_name(owner), (unsigned long long)id);
  status = melu__values_check(data->schema, owner, &id, values, err);
  if (status) return status;
  status = melu__table_add(table, &data->ctx->allocator, id, values, err);
  if (status) return status;
  if (index) *index = (uint32_t)(table->n - 1);
  return MELU_OK;
}

melu_status melu_dataset_add_user(melu_dataset *data, uint64_t id, const struct melu_value *values, uint32_t *index,
                                  melu_error *err) {
  return add(data, MELU_USER, id, values, index, err);
}

melu_status melu_dataset_add_item(melu_dataset *data, uint64_t id, const struct melu_value *values, uint32_t *index,
                                  melu_error *err) {
  return add(data, MELU_ITEM, id, values, index, err);
}

static melu_status find(uint32_t *out, const melu_dataset *data, melu_owner owner, uint64_t id, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  const uint32_t position = melu__table_find(&data->tables[owner], id);
  if (position == MELU__NO_INDEX)
    return melu__fail(err, MELU_ENOTFOUND, "there is no %s %llu", owner_name(owner), (unsigned long long)id);
  *out = position;
  return MELU_OK;
}

melu_status melu_dataset_add_rating(melu_dataset *data, uint64_t user_id, uint64_t item_id, float rating,
                                    melu_error *err) {
  melu_status status = check_open(data, err);
  if (status) return status;
  struct melu__rating added = {.rating = rating};
  status = find(&added.user, data, MELU_USER, user_id, err);
  if (status) return status;
  status = find(&added.item, data, MELU_ITEM, item_id, err);
  if (status) return status;
  if (!isfinite(rating))
    return melu__fail(err, MELU_ERANGE, "user %llu: the rating of item %llu is not finite", (unsigned long long)user_id,
                      (unsigned long long)item_id);
  const size_t n = data->n_ratings;
  if (!melu__grow(&data->ctx->allocator, &data->added, &data->added_capacity, n, n + 1, sizeof *data->added))
    return melu__fail_memory(err);
  data->added[n] = added;
  data->n_ratings = n + 1;
  return MELU_OK;
}

melu_status melu__dataset_text_id(uint32_t *id, melu_dataset *data, melu_owner owner, size_t column, const char *text,
                                  size_t n_bytes, melu_error *err) {
  const melu_status status = check_open(data, err);
  if (status) return status;
  const struct melu__table *table = &data->tables[owner];
  const struct melu__field *field = column < table->n_columns ? table->columns[column].field : NULL;
  if (!field || !field->texts)
    return melu__fail(err, MELU_EINVAL, "%s field %zu is not one of texts", owner_name(owner), column);
  uint32_t found = melu__vocab_find(field->texts, text, n_bytes);
  if (found == MELU__NO_INDEX && field->learns) {
    if (melu__vocab_count(field->texts) >= MELU__MAX_VALUES)
      return melu__fail(err, MELU_ELIMIT, "field \"%s\": more than %u texts", field->name, MELU__MAX_VALUES);
    found = melu__vocab_add(field->texts, text, n_bytes, NULL);
    if (found == MELU__NO_INDEX) return melu__fail_memory(err);
  }
  *id = found == MELU__NO_INDEX ? MELU_UNKNOWN : found;
  return MELU_OK;
}

melu_status melu__dataset_key_id(uint64_t *id, melu_dataset *data, const char *text, size_t n_bytes, melu_error *err) {
  const melu_status status = check_open(data, err);
  if (status) return status;
  uint32_t number = melu__vocab_find(data->key_texts, text, n_bytes);
  if (number == MELU__NO_INDEX) {
    if (melu__vocab_count(data->key_texts) >= MELU__MAX_ENTITIES)
      return melu__fail(err, MELU_ELIMIT, "more than 2^32 - 2 texts stand for users and items");
    number = melu__vocab_add(data->key_texts, text, n_bytes, NULL);
    if (number == MELU__NO_INDEX) return melu__fail_memory(err);
  }
  *id = TEXT_KEY_BASE + number;
  return MELU_OK;
}

void melu__dataset_mark(const melu_dataset *data, struct melu__mark *mark) {
  memset(mark, 0, sizeof *mark);
  mark->n_entities[MELU_USER] = data->tables[MELU_USER].n;
  mark->n_entities[MELU_ITEM] = data->tables[MELU_ITEM].n;
  mark->n_ratings = data->n_ratings;
  mark->n_key_texts = melu__vocab_count(data->key_texts);
  for (size_t i = 0; i < data->schema->n_fields; i++) {
    const struct melu__vocab *texts = data->schema->fields[i].texts;
    if (texts) mark->n_texts[i] = melu__vocab_count(texts);
  }
}

void melu__dataset_rewind(melu_dataset *data, const struct melu__mark *mark) {
  melu__table_truncate(&data->tables[MELU_USER], mark->n_entities[MELU_USER]);
  melu__table_truncate(&data->tables[MELU_ITEM], mark->n_entities[MELU_ITEM]);
  data->n_ratings = mark->n_ratings;
  melu__vocab_truncate(data->key_texts, mark->n_key_texts);
  for (size_t i = 0; i < data->schema->n_fields; i++) {
    struct melu__field *field = &data->schema->fields[i];
    if (field->learns) melu__vocab_truncate(field->texts, mark->n_texts[i]);
  }
}

/* ------------------------------------------------------------------------------------------------------ freezing */

/* Sorts the ratings by user, each user's in the order of adding, by counting. start: n_users + 2 zeros; the second
 * extra one makes room for counting two places ahead, so that after the placing start[u] is where user u begins. */
static void sort_ratings(const melu_dataset *data, size_t *start, uint32_t *items, float *ratings) {
  const size_t n_users = data->tables[MELU_USER].n;
  for (size_t i = 0; i < data->n_ratings; i++) start[(size_t)data->added[i].user + 2]++;
  for (size_t u = 2; u <= n_users; u++) start[u] += start[u - 1];
  for (size_t i = 0; i < data->n_ratings; i++) {
    const struct melu__rating *rating = &data->added[i];
    const size_t at = start[(size_t)rating->user + 1]++;
    items[at] = rating->item;
    ratings[at] = rating->rating;
  }
}

/* Readies the tables that are the set's own; 0 if there is no memory. */
static int prepare_tables(melu_dataset *data) {
  const struct melu_allocator *a = &data->ctx->allocator;
  if (melu__table_prepare(&data->tables[MELU_USER], a) &&
      (data->base || melu__table_prepare(&data->tables[MELU_ITEM], a)))
    return 1;
  melu__table_unprepare(&data->tables[MELU_USER], a);
  if (!data->base) melu__table_unprepare(&data->tables[MELU_ITEM], a);
  return 0;
}

melu_status melu__dataset_freeze_with(melu_dataset *data, size_t *user_start, uint32_t *items, float *ratings,
                                      melu_error *err) {
  if (!prepare_tables(data)) return melu__fail_memory(err);
  data->n_ratings = user_start[data->tables[MELU_USER].n];
  data->user_start = user_start;
  data->rating_item = items;
  data->rating = ratings;
  if (!data->base) {
    melu__schema_close(data->schema);
    melu__table_finish(&data->tables[MELU_ITEM]);
  }
  melu__table_finish(&data->tables[MELU_USER]);
  data->frozen = 1;
  return MELU_OK;
}

melu_status melu_dataset_freeze(melu_dataset *data, melu_error *err) {
  melu_status status = check_open(data, err);
  if (status) return status;
  const struct melu_allocator *a = &data->ctx->allocator;
  size_t *start = melu__calloc(a, melu__size_add(data->tables[MELU_USER].n, 2), sizeof *start);
  uint32_t *items = melu__alloc(a, data->n_ratings, sizeof *items);
  float *ratings = melu__alloc(a, data->n_ratings, sizeof *ratings);
  status = start && items && ratings ? MELU_OK : melu__fail_memory(err);
  if (!status) {
    sort_ratings(data, start, items, ratings);
    status = melu__dataset_freeze_with(data, start, items, ratings, err);
  }
  if (status) {
    melu__free(a, start);
    melu__free(a, items);
    melu__free(a, ratings);
    return status;
  }
  melu__free(a, data->added);
  data->added = NULL;
  data->added_capacity = 0;
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------- reading */

const melu_schema *melu_dataset_schema(const melu_dataset *data) {
  return data ? data->schema : NULL;
}

size_t melu_dataset_n_users(const melu_dataset *data) {
  return data ? data->tables[MELU_USER].n : 0;
}

size_t melu_dataset_n_items(const melu_dataset *data) {
  return data ? data->tables[MELU_ITEM].n : 0;
}

size_t melu_dataset_n_ratings(const melu_dataset *data) {
  return data ? data->n_ratings : 0;
}

static uint64_t id_of(const melu_dataset *data, melu_owner owner, uint32_t position) {
  return data && position < data->tables[owner].n ? melu__table_id(&data->tables[owner], position) : 0;
}

uint64_t melu_dataset_user_id(const melu_dataset *data, uint32_t user) {
  return id_of(data, MELU_USER, user);
}

uint64_t melu_dataset_item_id(const melu_dataset *data, uint32_t item) {
  return id_of(data, MELU_ITEM, item);
}

melu_status melu_dataset_find_user(uint32_t *out, const melu_dataset *data, uint64_t id, melu_error *err) {
  return find(out, data, MELU_USER, id, err);
}

melu_status melu_dataset_find_item(uint32_t *out, const melu_dataset *data, uint64_t id, melu_error *err) {
  return find(out, data, MELU_ITEM, id, err);
}

size_t melu_dataset_ratings(const melu_dataset *data, uint32_t user, const uint32_t **items, const float **ratings) {
  size_t start = 0, n = 0;
  if (data && data->frozen && user < data->tables[MELU_USER].n) {
    start = data->user_start[user];
    n = data->user_start[user + 1] - start;
  }
  if (items) *items = n ? data->rating_item + start : NULL;
  if (ratings) *ratings = n ? data->rating + start : NULL;
  return n;
}

static melu_status values_of(struct melu_value *values, const melu_dataset *data, melu_owner owner, uint32_t position,
                             melu_error *err) {
  if (!values) return melu__fail(err, MELU_EINVAL, "values is NULL");
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  const size_t n = data->tables[owner].n;
  if (position >= n)
    return melu__fail(err, MELU_ERANGE, "%s position %u is not below %zu", owner_name(owner), (unsigned)position, n);
  melu__table_values(values, &data->tables[owner], position);
  return MELU_OK;
}

melu_status melu_dataset_user_values(struct melu_value *values, const melu_dataset *data, uint32_t user,
                                     melu_error *err) {
  return values_of(values, data, MELU_USER, user, err);
}

melu_status melu_dataset_item_values(struct melu_value *values, const melu_dataset *data, uint32_t item,
                                     melu_error *err) {
  return values_of(values, data, MELU_ITEM, item, err);
}

static void digest_column(struct melu__digest *d, const struct melu__column *column, size_t n) {
  const size_t n_cells = column->offsets[n];
  melu__digest_words(d, column->offsets, n + 1);
  if (column->ids) melu__digest_words(d, column->ids, n_cells);
  if (column->numbers) melu__digest_words(d, column->numbers, n_cells * column->field->width);
}

void melu__dataset_digest(struct melu__digest *d, const melu_dataset *data) {
  for (int owner = 0; owner < 2; owner++) {
    const struct melu__table *table = &data->tables[owner];
    melu__digest_bits(d, table->n);
    for (uint32_t i = 0; i < table->n; i++) melu__digest_bits(d, melu__table_id(table, i));
    for (size_t i = 0; i < table->n_columns; i++) digest_column(d, &table->columns[i], table->n);
  }
  for (size_t i = 0; i <= data->tables[MELU_USER].n; i++) melu__digest_bits(d, data->user_start[i]);
  melu__digest_words(d, data->rating_item, data->n_ratings);
  melu__digest_words(d, data->rating, data->n_ratings);
}

uint64_t melu__entity_hash(const melu_dataset *data, melu_owner owner, uint32_t entity) {
  const struct melu__table *table = &data->tables[owner];
  unsigned char bytes[MELU_DIGEST_BYTES];
  struct melu__digest d;
  melu__digest_begin(&d);
  melu__digest_bits(&d, melu__table_id(table, entity));
  for (size_t i = 0; i < table->n_columns; i++) {
    const struct melu__column *c = &table->columns[i];
    const size_t first = c->offsets[entity], n = c->offsets[entity + 1] - first;
    melu__digest_bits(&d, n);
    if (c->ids && n) melu__digest_words(&d, c->ids + first, n);
    if (c->numbers && n) melu__digest_words(&d, c->numbers + first * c->field->width, n * c->field->width);
  }
  melu__digest_end(bytes, &d);
  return melu__get_bits(bytes, 8);
}
