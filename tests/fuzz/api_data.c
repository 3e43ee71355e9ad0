/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on schemas, data sets and batches. */
#include <string.h>

#include "api.h"

static melu_context *any_context(struct api *a) {
  return a->ctx[api_below(a, API_CONTEXTS)];
}

/* ---------------------------------------------------------------------------------------------------- schemas */

static void new_schema(struct api *a) {
  melu_schema *schema = (melu_schema *)a;
  const melu_context *ctx = api_seldom(a) ? NULL : any_context(a);
  const melu_status status = API_CALL(a, EINVAL_, melu_schema_new(&schema, ctx, a->errp));
  api_put(a, API_SCHEMA, api_below(a, API_SLOTS), schema, 0, status);
}

static void add_field(struct api *a) {
  static const char longest[] = "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz_0123456789";
  const size_t slot = api_pick(a, API_SCHEMA);
  struct melu_field f = {.size = api_size(a, sizeof f)};
  f.name =
      API_ONE_OF(a, const char *, "a", "b", "c", "d", "e", "f", "", "not a name", NULL, longest, longest + 1, "\xff");
  f.owner = (melu_owner)API_ONE_OF(a, int, MELU_ITEM, MELU_USER, 2, -1);
  f.kind = (melu_field_kind)API_ONE_OF(a, int, MELU_ONE, MELU_MANY, MELU_NUMERIC, 3, -1);
  f.n_values = API_ONE_OF(a, size_t, 4, 1, 10, 0, (size_t)1 << 31, SIZE_MAX);
  f.width = API_ONE_OF(a, size_t, 2, 1, 3, 0, 4097, SIZE_MAX);
  f.shift = api_seldom(a) ? api_number(a) : 0;
  f.scale = api_seldom(a) ? api_number(a) : 0;
  api_watch(a, API_SCHEMA, slot, 0);
  (void)API_CALL(a, EINVAL_ | ELIMIT_,
                 melu_schema_add(API_OBJECT(a, melu_schema, API_SCHEMA, slot), api_seldom(a) ? NULL : &f, a->errp));
}

static void look_at_schema(struct api *a) {
  const melu_schema *schema = API_OBJECT(a, melu_schema, API_SCHEMA, api_pick(a, API_SCHEMA));
  struct melu_field f = {.size = api_size(a, sizeof f)};
  const melu_owner owner = (melu_owner)api_below(a, 2);
  const size_t index = api_below(a, 8);
  const melu_status status = API_CALL(a, EINVAL_ | ERANGE_, melu_schema_field(&f, schema, owner, index, a->errp));
  if (!schema || status || f.size != sizeof f) return;
  FUZZ_NEEDS(f.owner == owner && index < melu_schema_n_fields(schema, owner), "a field that is not there");
  FUZZ_NEEDS(melu_schema_value_id(schema, f.name, "no such text") == MELU_UNKNOWN, "an id of no text");
  FUZZ_NEEDS(!melu_schema_value_text(schema, f.name, MELU_UNKNOWN), "a text of no id");
}

/* -------------------------------------------------------------------------------------------------- data sets */

static void new_data(struct api *a) {
  melu_dataset *data = (melu_dataset *)a;
  const melu_schema *schema = API_OBJECT(a, melu_schema, API_SCHEMA, api_pick(a, API_SCHEMA));
  const melu_context *ctx = any_context(a);
  const melu_status status = API_CALL(a, EINVAL_, melu_dataset_new(&data, ctx, schema, a->errp));
  api_put(a, API_DATA, api_below(a, API_SLOTS), data, 0, status);
}

static void add_entity(struct api *a) {
  const size_t slot = api_pick(a, API_DATA);
  melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, slot);
  const melu_owner owner = (melu_owner)api_below(a, 2);
  const struct melu_value *values = api_values(a, data ? melu_dataset_schema(data) : NULL, owner);
  const uint64_t id = api_id(a);
  uint32_t index = MELU_UNKNOWN, *where = api_seldom(a) ? NULL : &index, found;
  api_watch(a, API_DATA, slot, 0);
  const melu_status status =
      API_CALL(a, EINVAL_ | ERANGE_ | ESTATE_ | ELIMIT_,
               (owner == MELU_USER ? melu_dataset_add_user : melu_dataset_add_item)(data, id, values, where, a->errp));
  if (status || !where) return;
  FUZZ_NEEDS(
      !(owner == MELU_USER ? melu_dataset_find_user : melu_dataset_find_item)(&found, data, id, NULL) && found == index,
      "what was added is not found");
}

static void add_rating(struct api *a) {
  const size_t slot = api_pick(a, API_DATA);
  const uint64_t user = api_id(a), item = api_id(a);
  const double rating = api_number(a);
  api_watch(a, API_DATA, slot, 0);
  (void)API_CALL(a, EINVAL_ | ENOTFOUND_ | ERANGE_ | ESTATE_,
                 melu_dataset_add_rating(API_OBJECT(a, melu_dataset, API_DATA, slot), user, item,
                                         rating > -1e30 && rating < 1e30 ? (float)rating : INFINITY, a->errp));
}

static void freeze(struct api *a) {
  const size_t slot = api_pick(a, API_DATA);
  api_watch(a, API_DATA, slot, 0);
  (void)API_CALL(a, EINVAL_ | ESTATE_, melu_dataset_freeze(API_OBJECT(a, melu_dataset, API_DATA, slot), a->errp));
}

static void look_at_data(struct api *a) {
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  uint32_t found = 0;
  const uint64_t id = api_id(a);
  const uint32_t index = api_below(a, 20) ? (uint32_t)api_below(a, 12) : MELU_UNKNOWN;
  struct melu_value values[256];
  melu_status status = API_CALL(a, EINVAL_ | ENOTFOUND_, melu_dataset_find_user(&found, data, id, a->errp));
  FUZZ_NEEDS(status || melu_dataset_user_id(data, found) == id, "another user was found");
  status = API_CALL(a, EINVAL_ | ENOTFOUND_, melu_dataset_find_item(&found, data, id, a->errp));
  FUZZ_NEEDS(status || melu_dataset_item_id(data, found) == id, "another item was found");
  status = API_CALL(a, EINVAL_ | ERANGE_, melu_dataset_user_values(values, data, index, a->errp));
  FUZZ_NEEDS(status || index < melu_dataset_n_users(data), "values of no user");
  status = API_CALL(a, EINVAL_ | ERANGE_, melu_dataset_item_values(values, data, index, a->errp));
  FUZZ_NEEDS(status || index < melu_dataset_n_items(data), "values of no item");
}

/* ---------------------------------------------------------------------------------------------------- batches */

static void new_batch(struct api *a) {
  melu_batch *batch = (melu_batch *)a;
  const size_t data = api_pick(a, API_DATA);
  const melu_context *ctx = any_context(a);
  const melu_status status =
      API_CALL(a, EINVAL_ | ESTATE_, melu_batch_new(&batch, ctx, API_OBJECT(a, melu_dataset, API_DATA, data), a->errp));
  api_put(a, API_BATCH, api_below(a, API_SLOTS), batch, data, status);
}

static void add_task(struct api *a) {
  const size_t slot = api_pick(a, API_BATCH), n_support = api_below(a, 5), n_query = api_below(a, 4);
  const uint32_t *support = api_ids(a, n_support, API_WORLD_RATINGS), *query = api_ids(a, n_query, API_WORLD_RATINGS),
                 user = (uint32_t)api_below(a, 8);
  melu_batch *batch = API_OBJECT(a, melu_batch, API_BATCH, slot);
  const size_t before = batch ? melu_batch_n_tasks(batch) : 0;
  api_watch(a, API_BATCH, slot, 0);
  const melu_status status = API_CALL(a, EINVAL_ | ERANGE_ | ELIMIT_,
                                      melu_batch_add(batch, user, support, n_support, query, n_query, a->errp));
  FUZZ_NEEDS(status || melu_batch_n_tasks(batch) == before + 1, "a task was not added");
}

static void clear_batch(struct api *a) {
  melu_batch *batch = API_OBJECT(a, melu_batch, API_BATCH, api_pick(a, API_BATCH));
  if (!batch) return;
  melu_batch_clear(batch);
  FUZZ_NEEDS(melu_batch_n_tasks(batch) == 0, "a batch was not cleared");
}

/* ----------------------------------------------------------------------------------------------------- a world */

enum { N_KINDS = 6 };

#define TRY(call) FUZZ_NEEDS(!(call), "a world cannot be made: %s", #call)

static melu_schema *world_schema(const melu_context *ctx, unsigned which) {
  static const struct melu_field kinds[N_KINDS] = {
      {.size = sizeof *kinds, .name = "self", .owner = MELU_ITEM, .n_values = API_WORLD_ITEMS, .width = 2},
      {.size = sizeof *kinds, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 4, .width = 3},
      {.size = sizeof *kinds, .name = "sizes", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2},
      {.size = sizeof *kinds, .name = "job", .owner = MELU_USER, .n_values = 3, .width = 2},
      {.size = sizeof *kinds, .name = "likes", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 5, .width = 2},
      {.size = sizeof *kinds, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 3, .scale = 0.5}};
  melu_schema *schema;
  TRY(melu_schema_new(&schema, ctx, NULL));
  for (unsigned i = 0; i < N_KINDS; i++)
    if (!(which >> i & 1)) TRY(melu_schema_add(schema, &kinds[i], NULL));
  return schema;
}

/* Values that are in range, of any schema of a world. */
static void world_values(struct api *a, struct melu_value *values, const melu_schema *schema, melu_owner owner,
                         uint32_t number) {
  const size_t n = melu_schema_n_fields(schema, owner);
  for (size_t i = 0; i < n; i++) {
    struct melu_field f = {.size = sizeof f};
    TRY(melu_schema_field(&f, schema, owner, i, NULL));
    values[i] = (struct melu_value){NULL, 0, NULL, 0};
    if (f.kind == MELU_NUMERIC) {
      float *numbers = api_memory(a, f.width, sizeof *numbers);
      for (size_t k = 0; k < f.width; k++) numbers[k] = (float)((number + k) % 5) - 2;
      values[i].numbers = numbers;
      values[i].n_numbers = (number + i) % 4 ? f.width : 0;
    } else if (f.n_values) {
      uint32_t *ids = api_memory(a, 3, sizeof *ids);
      for (uint32_t k = 0; k < 3; k++) ids[k] = (number + k) % (uint32_t)f.n_values;
      values[i].ids = ids;
      values[i].n_ids = f.kind == MELU_ONE ? 1 : number % 4;
    }
  }
}

void api_world(struct api *a, size_t slot) {
  const unsigned which = fuzz_byte(&a->in), clicks = which >> 6 & 1;
  const melu_context *ctx = any_context(a);
  melu_schema *schema = world_schema(ctx, which % 64);
  melu_dataset *data;
  struct melu_value values[N_KINDS];
  TRY(melu_dataset_new(&data, ctx, schema, NULL));
  for (uint32_t i = 0; i < API_WORLD_ITEMS; i++) {
    world_values(a, values, schema, MELU_ITEM, i);
    TRY(melu_dataset_add_item(data, i, values, NULL, NULL));
  }
  for (uint32_t u = 0; u < API_WORLD_USERS; u++) {
    world_values(a, values, schema, MELU_USER, u);
    TRY(melu_dataset_add_user(data, u, values, NULL, NULL));
    for (uint32_t i = 0; i < API_WORLD_RATINGS + u; i++) {
      const uint32_t rating = clicks ? (u + i) % 2 : 1 + (u * 3 + i * 7) % 5;
      TRY(melu_dataset_add_rating(data, u, (u + 2 * i) % API_WORLD_ITEMS, (float)rating, NULL));
    }
  }
  TRY(melu_dataset_freeze(data, NULL));
  api_put(a, API_SCHEMA, slot, schema, 0, MELU_OK);
  api_put(a, API_DATA, slot, data, 0, MELU_OK);
  melu_batch *batch;
  TRY(melu_batch_new(&batch, ctx, data, NULL));
  for (uint32_t u = 0; u < 3; u++)
    TRY(melu_batch_add(batch, u, (const uint32_t[]){0, 2}, u, (const uint32_t[]){1}, 1, NULL));
  api_put(a, API_BATCH, slot, batch, slot, MELU_OK);
}

static void another_world(struct api *a) {
  api_world(a, api_below(a, API_SLOTS));
}

const api_op api_data_ops[API_DATA_OPS] = {new_schema, add_field,  look_at_schema, new_data,
                                           add_entity, add_rating, look_at_data,   freeze,
                                           new_batch,  add_task,   clear_batch,    another_world};
