/* SPDX-License-Identifier: BSD-3-Clause */
/* Schema, data set and task batch: against naive models, with every refusal and every failing allocation. */
#include <melu.h>

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/batch.h"
#include "run_suite.h"
#include "support.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ------------------------------------------------------------------------------------------ host and its allocator */

/* Counts what the library allocates, and refuses the fail_at-th request. */
struct host {
  size_t n_requests, fail_at, n_live;
};

static void *host_alloc(void *arg, size_t n_bytes) {
  struct host *host = arg;
  if (++host->n_requests == host->fail_at) return NULL;
  host->n_live++;
  return malloc(n_bytes ? n_bytes : 1);
}

static void host_free(void *arg, void *memory) {
  ((struct host *)arg)->n_live--;
  free(memory);
}

static struct host host;
static melu_context *ctx;

static void setup(void) {
  const struct melu_allocator allocator = {.arg = &host, .alloc = host_alloc, .free = host_free};
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  memset(&host, 0, sizeof host);
  ck_assert_int_eq(melu_context_new(&ctx, &options, NULL), MELU_OK);
}

static void teardown(void) {
  melu_context_free(ctx);
  ck_assert_uint_eq(host.n_live, 0);
}

static uint32_t draw(uint64_t *state, uint32_t n) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((*state >> 33) % n);
}

#define OK(call) ck_assert_int_eq((call), MELU_OK)

/* The call, which has `err` in it, fails with this status and index and says `text`. */
#define REFUSED(call, status_, index_, text)                                                        \
  do {                                                                                              \
    err = (melu_error){0};                                                                          \
    ck_assert_int_eq((call), (status_));                                                            \
    ck_assert_int_eq(err.status, (status_));                                                        \
    ck_assert_uint_eq(err.index, (index_));                                                         \
    ck_assert_msg(strstr(err.message, (text)) != NULL, "\"%s\" lacks \"%s\"", err.message, (text)); \
  } while (0)

/* ------------------------------------------------------------------------------------------------ dumps as text */

static void dump_schema(FILE *file, const melu_schema *schema) {
  for (int owner = 0; owner < 2; owner++) {
    for (size_t i = 0; i < melu_schema_n_fields(schema, (melu_owner)owner); i++) {
      struct melu_field f = {.size = sizeof f};
      OK(melu_schema_field(&f, schema, (melu_owner)owner, i, NULL));
      fprintf(file, "%d %s %d %zu %zu %g %g:", owner, f.name, (int)f.kind, f.n_values, f.width, f.shift, f.scale);
      const char *text;
      for (uint32_t id = 0; (text = melu_schema_value_text(schema, f.name, id)) != NULL; id++)
        fprintf(file, " %s", text);
      fputc('\n', file);
    }
  }
}

static void dump_entities(FILE *file, const melu_dataset *data, int owner) {
  const size_t n = owner == MELU_USER ? melu_dataset_n_users(data) : melu_dataset_n_items(data);
  const size_t n_fields = melu_schema_n_fields(melu_dataset_schema(data), (melu_owner)owner);
  struct melu_value values[MELU__MAX_FIELDS + 1];
  for (uint32_t e = 0; e < n; e++) {
    const uint64_t id = owner == MELU_USER ? melu_dataset_user_id(data, e) : melu_dataset_item_id(data, e);
    OK((owner == MELU_USER ? melu_dataset_user_values : melu_dataset_item_values)(values, data, e, NULL));
    fprintf(file, "%d %llu", owner, (unsigned long long)id);
    for (size_t f = 0; f < n_fields; f++) {
      fputs(" [", file);
      for (size_t i = 0; i < values[f].n_ids; i++) fprintf(file, "%d ", (int)values[f].ids[i]);
      for (size_t i = 0; i < values[f].n_numbers; i++) fprintf(file, "%g ", (double)values[f].numbers[i]);
      fputs("]", file);
    }
    fputc('\n', file);
  }
}

/* Ratings as they stand: in the order of adding before, by user after freezing. */
static void dump_ratings(FILE *file, const melu_dataset *data) {
  if (!data->frozen) {
    for (size_t i = 0; i < data->n_ratings; i++)
      fprintf(file, "%u %u %g\n", data->added[i].user, data->added[i].item, (double)data->added[i].rating);
    return;
  }
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
    for (size_t i = 0; i < n; i++) fprintf(file, "%u %u %g\n", u, items[i], (double)ratings[i]);
  }
}

/* All that can be seen of a data set. The caller frees it. */
static char *dump(const melu_dataset *data) {
  char *text = NULL;
  size_t n;
  FILE *file = open_memstream(&text, &n);
  dump_schema(file, melu_dataset_schema(data));
  dump_entities(file, data, MELU_USER);
  dump_entities(file, data, MELU_ITEM);
  dump_ratings(file, data);
  fprintf(file, "%zu texts as ids, frozen %d\n", melu__vocab_count(data->key_texts), data->frozen);
  fclose(file);
  return text;
}

/* REFUSED, and the data set is as before. */
#define UNCHANGED(data, call, status, index, text) \
  do {                                             \
    char *before = dump(data);                     \
    REFUSED(call, status, index, text);            \
    char *after = dump(data);                      \
    ck_assert_str_eq(before, after);               \
    free(before);                                  \
    free(after);                                   \
  } while (0)

/* -------------------------------------------------------------------------------------------------------- schema */

static struct melu_field field(const char *name, int owner, int kind, size_t n_values, size_t width) {
  return (struct melu_field){.size = sizeof(struct melu_field),
                             .name = name,
                             .owner = (melu_owner)owner,
                             .kind = (melu_field_kind)kind,
                             .n_values = n_values,
                             .width = width};
}

static void add_field(melu_schema *schema, const char *name, int owner, int kind, size_t n_values, size_t width) {
  const struct melu_field f = field(name, owner, kind, n_values, width);
  OK(melu_schema_add(schema, &f, NULL));
}

/* User: gender (2 ids), zip (learnt), traits (3 numbers). Item: genre (list, 25 ids), actor (list, learnt). */
static melu_schema *example_schema(void) {
  melu_schema *schema;
  OK(melu_schema_new(&schema, ctx, NULL));
  add_field(schema, "gender", MELU_USER, MELU_ONE, 2, 4);
  add_field(schema, "genre", MELU_ITEM, MELU_MANY, 25, 8);
  add_field(schema, "zip", MELU_USER, MELU_ONE, 0, 0);
  struct melu_field traits = field("traits", MELU_USER, MELU_NUMERIC, 99, 3);
  traits.shift = 3;
  traits.scale = 0.5;
  OK(melu_schema_add(schema, &traits, NULL));
  add_field(schema, "actor", MELU_ITEM, MELU_MANY, 0, 0);
  return schema;
}

static void check_described(const melu_schema *schema, int owner, size_t index, struct melu_field want) {
  struct melu_field got = {.size = sizeof got};
  OK(melu_schema_field(&got, schema, (melu_owner)owner, index, NULL));
  ck_assert_str_eq(got.name, want.name);
  ck_assert_int_eq(got.owner, want.owner);
  ck_assert_int_eq(got.kind, want.kind);
  ck_assert_uint_eq(got.n_values, want.n_values);
  ck_assert_uint_eq(got.width, want.width);
  ck_assert_double_eq(got.shift, want.shift);
  ck_assert_double_eq(got.scale, want.scale != 0 ? want.scale : 1);
}

START_TEST(schema_describes_what_was_added) {
  melu_schema *schema = example_schema();
  struct melu_field traits = field("traits", MELU_USER, MELU_NUMERIC, 0, 3);
  traits.shift = 3;
  traits.scale = 0.5;
  ck_assert_uint_eq(melu_schema_n_fields(schema, MELU_USER), 3);
  ck_assert_uint_eq(melu_schema_n_fields(schema, MELU_ITEM), 2);
  check_described(schema, MELU_USER, 0, field("gender", MELU_USER, MELU_ONE, 2, 4));
  check_described(schema, MELU_USER, 1, field("zip", MELU_USER, MELU_ONE, 0, 32));
  check_described(schema, MELU_USER, 2, traits);
  check_described(schema, MELU_ITEM, 0, field("genre", MELU_ITEM, MELU_MANY, 25, 8));
  check_described(schema, MELU_ITEM, 1, field("actor", MELU_ITEM, MELU_MANY, 0, 32));
  ck_assert_uint_eq(melu__schema_width(schema, MELU_USER), 4 + 32 + 3);
  ck_assert_uint_eq(melu__schema_width(schema, MELU_ITEM), 8 + 32);
  add_field(schema, "plain", MELU_USER, MELU_NUMERIC, 0, 0);
  check_described(schema, MELU_USER, 3, field("plain", MELU_USER, MELU_NUMERIC, 0, 1));
  melu_schema_free(schema);
  melu_schema_free(NULL);
}
END_TEST

START_TEST(schema_refuses_wrong_fields) {
  char long_name[MELU__MAX_NAME + 2];
  memset(long_name, 'n', sizeof long_name);
  long_name[sizeof long_name - 1] = '\0';
  struct melu_field nan_shift = field("x", MELU_USER, MELU_NUMERIC, 0, 1), inf_scale = nan_shift;
  nan_shift.shift = (double)NAN;
  inf_scale.scale = (double)INFINITY;
  const struct {
    struct melu_field field;
    melu_status status;
    const char *text;
  } cases[] = {
      {field(NULL, MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "name"},
      {field("", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "name"},
      {field("a b", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "character 1"},
      {field("az_AZ-09{", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "character 8"},
      {field("Z[", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "character 1"},
      {field("9:", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "character 1"},
      {field("\xc3\xa9", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "character 0"},
      {field(long_name, MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "longer than 63"},
      {field("gender", MELU_USER, MELU_ONE, 2, 0), MELU_EINVAL, "\"gender\": the name is taken"},
      {field("gender", MELU_ITEM, MELU_MANY, 2, 0), MELU_EINVAL, "\"gender\": the name is taken"},
      {field("x", 2, MELU_ONE, 2, 0), MELU_EINVAL, "\"x\": owner 2"},
      {field("x", MELU_USER, 3, 2, 0), MELU_EINVAL, "\"x\": kind 3"},
      {nan_shift, MELU_EINVAL, "\"x\": shift"},
      {inf_scale, MELU_EINVAL, "\"x\": scale"},
      {field("x", MELU_USER, MELU_ONE, (size_t)MELU__MAX_VALUES + 1, 1), MELU_ELIMIT, "\"x\": 2147483648 values"},
      {field("x", MELU_USER, MELU_ONE, 2, 4097), MELU_ELIMIT, "\"x\": width 4097"},
      {field("x", MELU_USER, MELU_NUMERIC, 0, 4097), MELU_ELIMIT, "\"x\": width 4097"},
  };
  melu_error err;
  melu_schema *schema = example_schema();
  for (size_t i = 0; i < LENGTH(cases); i++) {
    REFUSED(melu_schema_add(schema, &cases[i].field, &err), cases[i].status, 0, cases[i].text);
    ck_assert_int_eq(melu_schema_add(schema, &cases[i].field, NULL), cases[i].status);
    ck_assert_uint_eq(schema->n_fields, 5);
  }
  long_name[MELU__MAX_NAME] = '\0';
  add_field(schema, long_name, MELU_USER, MELU_ONE, MELU__MAX_VALUES, 4096);
  add_field(schema, "x", MELU_USER, MELU_ONE, 2, 0);

  /* Names stay where they are while the schema grows. */
  struct melu_field first = {.size = sizeof first};
  OK(melu_schema_field(&first, schema, MELU_USER, 0, NULL));
  for (int i = 7; i < MELU__MAX_FIELDS; i++) {
    char name[8];
    snprintf(name, sizeof name, "f%d", i);
    add_field(schema, name, i % 2, MELU_NUMERIC, 0, 0);
  }
  ck_assert_str_eq(first.name, "gender");
  const struct melu_field extra = field("extra", MELU_USER, MELU_ONE, 2, 0);
  REFUSED(melu_schema_add(schema, &extra, &err), MELU_ELIMIT, 0, "\"extra\": a schema has at most 256 fields");
  melu_schema_free(schema);
}
END_TEST

START_TEST(schema_checks_arguments) {
  melu_error err;
  melu_schema *schema = example_schema(), *none = schema;
  struct melu_field f = field("x", MELU_USER, MELU_ONE, 2, 0);
  REFUSED(melu_schema_new(NULL, ctx, &err), MELU_EINVAL, 0, "out is NULL");
  REFUSED(melu_schema_new(&none, NULL, &err), MELU_EINVAL, 0, "ctx is NULL");
  ck_assert_ptr_null(none);
  REFUSED(melu_schema_add(NULL, &f, &err), MELU_EINVAL, 0, "schema is NULL");
  REFUSED(melu_schema_add(schema, NULL, &err), MELU_EINVAL, 0, "field is NULL");
  f.size = 0;
  REFUSED(melu_schema_add(schema, &f, &err), MELU_EINVAL, 0, "field");
  REFUSED(melu_schema_field(&f, schema, MELU_USER, 0, &err), MELU_EINVAL, 0, "size");
  f.size = sizeof f;
  REFUSED(melu_schema_field(NULL, schema, MELU_USER, 0, &err), MELU_EINVAL, 0, "field is NULL");
  REFUSED(melu_schema_field(&f, NULL, MELU_USER, 0, &err), MELU_EINVAL, 0, "schema is NULL");
  REFUSED(melu_schema_field(&f, schema, (melu_owner)2, 0, &err), MELU_EINVAL, 0, "owner 2");
  REFUSED(melu_schema_field(&f, schema, MELU_USER, 3, &err), MELU_ERANGE, 0, "field 3 is not below 3");
  ck_assert_uint_eq(melu_schema_n_fields(NULL, MELU_USER), 0);
  ck_assert_uint_eq(melu_schema_n_fields(schema, (melu_owner)2), 0);
  melu_schema_free(schema);
}
END_TEST

START_TEST(schema_takes_older_and_newer_structs) {
  struct {
    struct melu_field known;
    size_t unknown;
  } newer = {field("newer", MELU_USER, MELU_NUMERIC, 0, 2), 7};
  newer.known.size = sizeof newer;
  melu_error err;
  melu_schema *schema = example_schema();
  REFUSED(melu_schema_add(schema, &newer.known, &err), MELU_EINVAL, 0, "field");
  newer.unknown = 0;
  OK(melu_schema_add(schema, &newer.known, NULL));
  newer.unknown = 7;
  OK(melu_schema_field(&newer.known, schema, MELU_USER, 3, NULL));
  ck_assert_uint_eq(newer.known.size, sizeof newer);
  ck_assert_str_eq(newer.known.name, "newer");
  ck_assert_uint_eq(newer.unknown, 0);

  /* Of a time when there were no shift and scale. */
  struct melu_field older = {.size = offsetof(struct melu_field, shift), .shift = 5, .scale = 6};
  OK(melu_schema_field(&older, schema, MELU_USER, 2, NULL));
  ck_assert_str_eq(older.name, "traits");
  ck_assert_double_eq(older.shift, 5);
  ck_assert_double_eq(older.scale, 6);
  older.name = "older";
  OK(melu_schema_add(schema, &older, NULL));
  check_described(schema, MELU_USER, 4, field("older", MELU_USER, MELU_NUMERIC, 0, 3));
  melu_schema_free(schema);
}
END_TEST

static struct melu__vocab *vocab_of(const char *const *texts, size_t n) {
  struct melu__vocab *vocab = melu__vocab_new(&ctx->allocator);
  for (size_t i = 0; i < n; i++) ck_assert_uint_eq(melu__vocab_add(vocab, texts[i], strlen(texts[i]), NULL), i);
  return vocab;
}

START_TEST(schema_equality_compares_fields) {
  melu_schema *schemas[16], *copy;
  size_t n = 0;
  const struct melu_field fields[] = {
      field("x", MELU_USER, MELU_ONE, 2, 4),
      field("y", MELU_USER, MELU_ONE, 2, 4),
      field("x", MELU_ITEM, MELU_ONE, 2, 4),
      field("x", MELU_USER, MELU_MANY, 2, 4),
      field("x", MELU_USER, MELU_ONE, 3, 4),
      field("x", MELU_USER, MELU_ONE, 2, 5),
      field("x", MELU_USER, MELU_ONE, 0, 4),
      field("x", MELU_USER, MELU_NUMERIC, 0, 4),
      {.size = sizeof *fields, .name = "x", .kind = MELU_NUMERIC, .width = 4, .shift = 1},
      {.size = sizeof *fields, .name = "x", .kind = MELU_NUMERIC, .width = 4, .scale = 2},
  };
  for (; n < LENGTH(fields); n++) {
    OK(melu_schema_new(&schemas[n], ctx, NULL));
    OK(melu_schema_add(schemas[n], &fields[n], NULL));
  }
  OK(melu_schema_new(&schemas[n++], ctx, NULL)); /* empty */
  schemas[n++] = example_schema();
  OK(melu__schema_copy(&schemas[n], ctx, schemas[n - 1], NULL)); /* zip learns in one, is complete and empty in this */
  melu__schema_close(schemas[n++]);
  OK(melu__schema_copy(&schemas[n], ctx, schemas[0], NULL)); /* the first of the fields, with texts */
  struct melu__vocab *texts = vocab_of((const char *const[]){"one", "two"}, 2);
  OK(melu__schema_set_texts(schemas[n++], "x", texts, NULL));
  melu__vocab_free(texts);
  for (size_t i = 0; i < n; i++) {
    OK(melu__schema_copy(&copy, ctx, schemas[i], NULL));
    for (size_t j = 0; j < n; j++) ck_assert_int_eq(melu__schema_equal(copy, schemas[j]), i == j);
    add_field(copy, "more", MELU_USER, MELU_ONE, 2, 4);
    ck_assert_int_eq(melu__schema_equal(copy, schemas[i]), 0);
    melu_schema_free(copy);
  }
  for (size_t i = 0; i < n; i++) melu_schema_free(schemas[i]);

  /* Order counts within an owner, and not between the two. */
  for (int i = 0; i < 3; i++) OK(melu_schema_new(&schemas[i], ctx, NULL));
  const char *const order[3][3] = {{"u", "v", "i"}, {"i", "u", "v"}, {"v", "u", "i"}};
  for (int i = 0; i < 3; i++)
    for (int f = 0; f < 3; f++) add_field(schemas[i], order[i][f], order[i][f][0] == 'i', MELU_ONE, 2, 0);
  ck_assert_int_eq(melu__schema_equal(schemas[0], schemas[1]), 1);
  ck_assert_int_eq(melu__schema_equal(schemas[0], schemas[2]), 0);
  for (int i = 0; i < 3; i++) melu_schema_free(schemas[i]);
}
END_TEST

START_TEST(schema_equality_compares_texts) {
  static const char *const lists[][3] = {{"ab", "c", "d"}, {"a", "bc", "d"}, {"c", "ab", "d"}, {"ab", "cd", ""},
                                         {"ab", "c", "e"}, {"", "ab", "cd"}, {"abc", "d", ""}, {"d", "c", "ab"}};
  melu_schema *schemas[2 * LENGTH(lists)]; /* each list learnt, and complete */
  for (size_t i = 0; i < LENGTH(schemas); i++) {
    struct melu__vocab *texts = vocab_of(lists[i / 2], 3);
    schemas[i] = example_schema();
    OK(melu__schema_set_texts(schemas[i], "zip", texts, NULL));
    if (i % 2) {
      for (int k = 0; k < 3; k++)
        melu__vocab_add(melu__schema_find(schemas[i], "actor")->texts, lists[i / 2][k], strlen(lists[i / 2][k]), NULL);
    }
    melu__vocab_free(texts);
  }
  for (int close = 0; close < 2; close++) {
    for (size_t i = 0; i < LENGTH(schemas); i++) {
      if (close) melu__schema_close(schemas[i]);
      ck_assert_int_eq(melu__schema_complete(schemas[i]), close);
    }
    for (size_t i = 0; i < LENGTH(schemas); i++)
      for (size_t j = 0; j < LENGTH(schemas); j++) ck_assert_int_eq(melu__schema_equal(schemas[i], schemas[j]), i == j);
  }
  for (size_t i = 0; i < LENGTH(schemas); i++) melu_schema_free(schemas[i]);
}
END_TEST

START_TEST(schema_gets_texts) {
  static const char *const letters[] = {"a", "b"};
  melu_error err;
  melu_schema *schema = example_schema();
  struct melu__vocab *two = vocab_of(letters, 2), *none = vocab_of(NULL, 0);
  ck_assert_uint_eq(melu_schema_value_id(schema, "zip", "b"), MELU_UNKNOWN);
  ck_assert_uint_eq(melu_schema_value_id(schema, "gender", "b"), MELU_UNKNOWN);
  REFUSED(melu__schema_set_texts(schema, "zap", two, &err), MELU_ENOTFOUND, 0, "\"zap\"");
  REFUSED(melu__schema_set_texts(schema, "traits", two, &err), MELU_EINVAL, 0, "\"traits\"");
  REFUSED(melu__schema_set_texts(schema, "genre", two, &err), MELU_EINVAL, 0, "\"genre\": 2 texts for 25 values");
  OK(melu__schema_set_texts(schema, "zip", two, NULL));
  OK(melu__schema_set_texts(schema, "gender", two, NULL));
  OK(melu__schema_set_texts(schema, "actor", none, NULL));
  melu__vocab_free(two);
  ck_assert_int_eq(melu__schema_complete(schema), 1);
  check_described(schema, MELU_USER, 1, field("zip", MELU_USER, MELU_ONE, 2, 32));
  check_described(schema, MELU_ITEM, 1, field("actor", MELU_ITEM, MELU_MANY, 0, 32));
  for (int i = 0; i < 2; i++) {
    const char *name = i ? "zip" : "gender";
    ck_assert_uint_eq(melu_schema_value_id(schema, name, "b"), 1);
    ck_assert_uint_eq(melu_schema_value_id(schema, name, "c"), MELU_UNKNOWN);
    ck_assert_str_eq(melu_schema_value_text(schema, name, 0), "a");
    ck_assert_ptr_null(melu_schema_value_text(schema, name, 2));
    ck_assert_ptr_null(melu_schema_value_text(schema, name, MELU_UNKNOWN));
  }
  REFUSED(melu__schema_set_texts(schema, "zip", none, &err), MELU_EINVAL, 0, "\"zip\": 0 texts for 2 values");
  ck_assert_uint_eq(melu_schema_value_id(schema, "none", "a"), MELU_UNKNOWN);
  ck_assert_uint_eq(melu_schema_value_id(NULL, "zip", "a"), MELU_UNKNOWN);
  ck_assert_uint_eq(melu_schema_value_id(schema, NULL, "a"), MELU_UNKNOWN);
  ck_assert_uint_eq(melu_schema_value_id(schema, "zip", NULL), MELU_UNKNOWN);
  ck_assert_ptr_null(melu_schema_value_text(schema, "none", 0));
  ck_assert_ptr_null(melu_schema_value_text(NULL, "zip", 0));
  ck_assert_ptr_null(melu_schema_value_text(schema, NULL, 0));
  melu__vocab_free(none);
  melu_schema_free(schema);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- data set */

static melu_dataset *new_dataset(void) {
  melu_schema *schema = example_schema();
  melu_dataset *data;
  OK(melu_dataset_new(&data, ctx, schema, NULL));
  melu_schema_free(schema);
  return data;
}

static uint32_t text_id(melu_dataset *data, int owner, size_t column, const char *text) {
  uint32_t id = 77;
  OK(melu__dataset_text_id(&id, data, (melu_owner)owner, column, text, strlen(text), NULL));
  return id;
}

static struct melu_value ids(const uint32_t *list, size_t n) {
  return (struct melu_value){.ids = list, .n_ids = n};
}

static struct melu_value numbers(const float *list, size_t n) {
  return (struct melu_value){.numbers = list, .n_numbers = n};
}

/* Users 10, 20, 30 (all, some, no values) and items 1, 2, 3; one rating. */
static melu_dataset *small_dataset(void) {
  melu_dataset *data = new_dataset();
  const uint32_t one = 1, unknown = MELU_UNKNOWN, zip = text_id(data, MELU_USER, 1, "10115");
  const uint32_t actors[] = {text_id(data, MELU_ITEM, 1, "Bohm"), MELU_UNKNOWN, text_id(data, MELU_ITEM, 1, "Lorre")};
  const uint32_t genres[] = {24, 0, 24};
  const float traits[] = {1, -2, 3.5f};
  const struct melu_value all[] = {ids(&one, 1), ids(&zip, 1), numbers(traits, 3)};
  const struct melu_value some[] = {ids(&unknown, 1), ids(NULL, 0), numbers(NULL, 0)};
  const struct melu_value item[] = {ids(genres, 3), ids(actors, 3)};
  uint32_t index = 77;
  OK(melu_dataset_add_user(data, 10, all, &index, NULL));
  ck_assert_uint_eq(index, 0);
  OK(melu_dataset_add_user(data, 20, some, NULL, NULL));
  OK(melu_dataset_add_user(data, 30, NULL, &index, NULL));
  ck_assert_uint_eq(index, 2);
  OK(melu_dataset_add_item(data, 1, item, &index, NULL));
  ck_assert_uint_eq(index, 0);
  OK(melu_dataset_add_item(data, 2, NULL, NULL, NULL));
  OK(melu_dataset_add_item(data, UINT64_MAX, NULL, NULL, NULL));
  OK(melu_dataset_add_rating(data, 20, 1, 4.5f, NULL));
  return data;
}

START_TEST(dataset_keeps_what_was_added) {
  static const char *const want =
      "0 gender 0 2 4 0 1:\n0 zip 0 %d 32 0 1: 10115\n0 traits 2 0 3 3 0.5:\n"
      "1 genre 1 25 8 0 1:\n1 actor 1 %d 32 0 1: Bohm Lorre\n"
      "0 10 [1 ] [0 ] [1 -2 3.5 ]\n0 20 [-1 ] [] []\n0 30 [] [] []\n"
      "1 1 [24 0 24 ] [0 -1 1 ]\n1 2 [] []\n1 18446744073709551615 [] []\n"
      "1 0 4.5\n0 texts as ids, frozen %d\n";
  melu_dataset *data = small_dataset();
  for (int frozen = 0; frozen < 2; frozen++) {
    if (frozen) OK(melu_dataset_freeze(data, NULL));
    char expected[512], *got = dump(data);
    snprintf(expected, sizeof expected, want, frozen, 2 * frozen, frozen);
    ck_assert_str_eq(got, expected);
    free(got);
    uint32_t position = 77;
    OK(melu_dataset_find_user(&position, data, 30, NULL));
    ck_assert_uint_eq(position, 2);
    OK(melu_dataset_find_item(&position, data, UINT64_MAX, NULL));
    ck_assert_uint_eq(position, 2);
  }
  /* What the network reads: rows of the tables, the last for an unknown id; nothing where a value is missing. */
  const struct melu__column *users = data->tables[MELU_USER].columns, *items = data->tables[MELU_ITEM].columns;
  static const uint32_t genres[] = {24, 0, 24}, actors[] = {0, 2, 1};
  size_t n;
  ck_assert_uint_eq(*melu__column_ids(&users[0], 0, &n), 1);
  ck_assert_uint_eq(*melu__column_ids(&users[0], 1, &n), 2);
  ck_assert_uint_eq(n, 1);
  ck_assert_ptr_null(melu__column_ids(&users[0], 2, &n));
  ck_assert_uint_eq(n, 0);
  ck_assert_mem_eq(melu__column_ids(&items[0], 0, &n), genres, sizeof genres);
  ck_assert_mem_eq(melu__column_ids(&items[1], 0, &n), actors, sizeof actors);
  ck_assert_uint_eq(n, 3);
  ck_assert_float_eq(melu__column_numbers(&users[2], 0)[2], 3.5f);
  ck_assert_double_eq(melu__field_input(users[2].field, 3.5f), 0.25);
  ck_assert_ptr_null(melu__column_numbers(&users[2], 1));
  melu_dataset_free(data);
}
END_TEST

START_TEST(dataset_refuses_wrong_values) {
  static const uint32_t zeros[] = {0, 0}, genre[] = {3, 25}, text[] = {1}, actor[] = {2};
  static const float good[] = {1, 2, 3}, bad_nan[] = {1, NAN, 3}, bad_inf[] = {1, 2, -INFINITY};
  const struct {
    int owner;
    size_t field;
    struct melu_value value;
    melu_status status;
    const char *text;
  } cases[] = {
      {MELU_USER, 0, ids(zeros, 2), MELU_EINVAL, "user 17: field \"gender\": 2 ids are more than one"},
      {MELU_USER, 0, ids(NULL, 1), MELU_EINVAL, "user 17: field \"gender\": ids is NULL"},
      {MELU_USER, 0, ids(genre, 1), MELU_ERANGE, "user 17: field \"gender\": id 3 is not below 2"},
      {MELU_USER, 0, numbers(good, 1), MELU_EINVAL, "user 17: field \"gender\": 1 numbers for a field of ids"},
      {MELU_USER, 1, ids(text, 1), MELU_ERANGE, "user 17: field \"zip\": id 1 is not below 1, the number of texts"},
      {MELU_USER, 2, numbers(good, 2), MELU_EINVAL, "user 17: field \"traits\": 2 numbers instead of 3"},
      {MELU_USER, 2, numbers(NULL, 3), MELU_EINVAL, "user 17: field \"traits\": numbers is NULL"},
      {MELU_USER, 2, numbers(bad_nan, 3), MELU_ERANGE, "user 17: field \"traits\": number 1 is not finite"},
      {MELU_USER, 2, numbers(bad_inf, 3), MELU_ERANGE, "user 17: field \"traits\": number 2 is not finite"},
      {MELU_USER, 2, ids(zeros, 1), MELU_EINVAL, "user 17: field \"traits\": 1 ids for a field of numbers"},
      {MELU_ITEM, 0, ids(genre, 2), MELU_ERANGE, "item 17: field \"genre\": id 25 is not below 25"},
      {MELU_ITEM, 1, ids(actor, 1), MELU_ERANGE, "item 17: field \"actor\": id 2 is not below 2, the number of texts"},
  };
  melu_error err;
  for (size_t i = 0; i < LENGTH(cases); i++) {
    melu_dataset *data = small_dataset();
    struct melu_value values[3] = {{0}, {0}, {0}};
    uint32_t index = 77;
    values[cases[i].field] = cases[i].value;
    melu_status (*add)(melu_dataset *, uint64_t, const struct melu_value *, uint32_t *, melu_error *) =
        cases[i].owner == MELU_USER ? melu_dataset_add_user : melu_dataset_add_item;
    UNCHANGED(data, add(data, 17, values, &index, &err), cases[i].status, cases[i].field, cases[i].text);
    ck_assert_int_eq(add(data, 17, values, &index, NULL), cases[i].status);
    ck_assert_uint_eq(index, 77);
    values[cases[i].field] = (struct melu_value){0};
    OK(add(data, 17, values, &index, NULL));
    ck_assert_uint_eq(index, 3);
    melu_dataset_free(data);
  }
  /* A profile has no id of its own; shift and scale must not take a number out of float's range. */
  melu_schema *schema = example_schema();
  struct melu_field big = field("big", MELU_ITEM, MELU_NUMERIC, 0, 1);
  big.scale = 1e30;
  OK(melu_schema_add(schema, &big, NULL));
  const float small = 1e7f, large = 1e9f;
  struct melu_value values[3] = {{0}, {0}, numbers(&small, 1)};
  OK(melu__values_check(schema, MELU_ITEM, NULL, values, NULL));
  OK(melu__values_check(schema, MELU_ITEM, NULL, NULL, NULL));
  values[2] = numbers(&large, 1);
  REFUSED(melu__values_check(schema, MELU_ITEM, NULL, values, &err), MELU_ERANGE, 2,
          "item: field \"big\": number 0 is 1e+09, which shift and scale make too large");
  melu_schema_free(schema);
}
END_TEST

START_TEST(dataset_refuses_wrong_calls) {
  melu_error err;
  melu_schema *schema = example_schema();
  melu_dataset *data = small_dataset(), *none = data;
  uint32_t out = 77;
  REFUSED(melu_dataset_new(NULL, ctx, schema, &err), MELU_EINVAL, 0, "out is NULL");
  REFUSED(melu_dataset_new(&none, NULL, schema, &err), MELU_EINVAL, 0, "ctx is NULL");
  ck_assert_ptr_null(none);
  none = data;
  REFUSED(melu_dataset_new(&none, ctx, NULL, &err), MELU_EINVAL, 0, "schema is NULL");
  ck_assert_ptr_null(none);
  REFUSED(melu_dataset_add_user(NULL, 1, NULL, NULL, &err), MELU_EINVAL, 0, "data is NULL");
  REFUSED(melu_dataset_add_item(NULL, 1, NULL, NULL, &err), MELU_EINVAL, 0, "data is NULL");
  REFUSED(melu_dataset_add_rating(NULL, 1, 1, 1, &err), MELU_EINVAL, 0, "data is NULL");
  REFUSED(melu_dataset_freeze(NULL, &err), MELU_EINVAL, 0, "data is NULL");
  UNCHANGED(data, melu_dataset_add_user(data, 20, NULL, &out, &err), MELU_ESTATE, 0, "user 20: the id is taken");
  UNCHANGED(data, melu_dataset_add_item(data, 2, NULL, &out, &err), MELU_ESTATE, 0, "item 2: the id is taken");
  UNCHANGED(data, melu_dataset_add_rating(data, 5, 1, 3, &err), MELU_ENOTFOUND, 0, "there is no user 5");
  UNCHANGED(data, melu_dataset_add_rating(data, 10, 5, 3, &err), MELU_ENOTFOUND, 0, "there is no item 5");
  UNCHANGED(data, melu_dataset_add_rating(data, 10, 2, NAN, &err), MELU_ERANGE, 0,
            "user 10: the rating of item 2 is not finite");
  UNCHANGED(data, melu_dataset_add_rating(data, 10, 2, INFINITY, &err), MELU_ERANGE, 0, "not finite");
  for (int frozen = 0; frozen < 2; frozen++) {
    struct melu_value values[3];
    if (frozen) OK(melu_dataset_freeze(data, NULL));
    REFUSED(melu_dataset_find_user(&out, data, 5, &err), MELU_ENOTFOUND, 0, "there is no user 5");
    REFUSED(melu_dataset_find_item(&out, data, 5, &err), MELU_ENOTFOUND, 0, "there is no item 5");
    REFUSED(melu_dataset_find_user(NULL, data, 10, &err), MELU_EINVAL, 0, "out is NULL");
    REFUSED(melu_dataset_find_item(&out, NULL, 1, &err), MELU_EINVAL, 0, "data is NULL");
    REFUSED(melu_dataset_user_values(values, data, 3, &err), MELU_ERANGE, 0, "user position 3 is not below 3");
    REFUSED(melu_dataset_item_values(values, data, MELU_UNKNOWN, &err), MELU_ERANGE, 0, "item position 4294967295");
    REFUSED(melu_dataset_user_values(NULL, data, 0, &err), MELU_EINVAL, 0, "values is NULL");
    REFUSED(melu_dataset_item_values(values, NULL, 0, &err), MELU_EINVAL, 0, "data is NULL");
    ck_assert_uint_eq(melu_dataset_user_id(data, 3), 0);
    ck_assert_uint_eq(melu_dataset_item_id(data, 3), 0);
  }
  UNCHANGED(data, melu_dataset_add_user(data, 40, NULL, &out, &err), MELU_ESTATE, 0, "frozen");
  UNCHANGED(data, melu_dataset_add_item(data, 40, NULL, &out, &err), MELU_ESTATE, 0, "frozen");
  UNCHANGED(data, melu_dataset_add_rating(data, 10, 1, 3, &err), MELU_ESTATE, 0, "frozen");
  UNCHANGED(data, melu_dataset_freeze(data, &err), MELU_ESTATE, 0, "frozen");
  ck_assert_uint_eq(out, 77);
  ck_assert_ptr_null(melu_dataset_schema(NULL));
  ck_assert_uint_eq(melu_dataset_n_users(NULL) + melu_dataset_n_items(NULL) + melu_dataset_n_ratings(NULL), 0);
  ck_assert_uint_eq(melu_dataset_user_id(NULL, 0) + melu_dataset_item_id(NULL, 0), 0);
  melu_dataset_free(NULL);
  melu_dataset_free(data);
  melu_schema_free(schema);
}
END_TEST

START_TEST(dataset_gives_no_ratings_where_there_are_none) {
  melu_dataset *data = small_dataset();
  static const uint32_t nowhere;
  static const float nothing;
  const uint32_t *items = &nowhere;
  const float *ratings = &nothing;
  ck_assert_uint_eq(melu_dataset_ratings(data, 1, &items, &ratings), 0); /* not frozen */
  ck_assert(items == NULL && ratings == NULL);
  OK(melu_dataset_freeze(data, NULL));
  ck_assert_uint_eq(melu_dataset_ratings(data, 1, &items, &ratings), 1);
  ck_assert_uint_eq(items[0], 0);
  ck_assert_float_eq(ratings[0], 4.5f);
  ck_assert_uint_eq(melu_dataset_ratings(data, 1, NULL, NULL), 1);
  const uint32_t others[] = {0, 2, 3, MELU_UNKNOWN};
  for (size_t i = 0; i < LENGTH(others); i++) {
    items = &nowhere;
    ratings = &nothing;
    ck_assert_uint_eq(melu_dataset_ratings(data, others[i], &items, &ratings), 0);
    ck_assert(items == NULL && ratings == NULL);
  }
  ck_assert_uint_eq(melu_dataset_ratings(NULL, 1, &items, &ratings), 0);
  melu_dataset_free(data);

  /* An empty set can be frozen too. */
  melu_schema *schema;
  OK(melu_schema_new(&schema, ctx, NULL));
  OK(melu_dataset_new(&data, ctx, schema, NULL));
  melu_schema_free(schema);
  OK(melu_dataset_freeze(data, NULL));
  ck_assert_uint_eq(melu_dataset_ratings(data, 0, &items, &ratings), 0);
  melu_dataset_free(data);
}
END_TEST

START_TEST(dataset_numbers_texts) {
  melu_error err;
  melu_dataset *data = small_dataset();
  uint32_t id = 77;
  uint64_t key = 77;
  ck_assert_uint_eq(text_id(data, MELU_ITEM, 1, "Lorre"), 1);
  ck_assert_uint_eq(text_id(data, MELU_ITEM, 1, "Dietrich"), 2);
  OK(melu__dataset_text_id(&id, data, MELU_ITEM, 1, "Bohmer", 4, NULL)); /* only 4 bytes count */
  ck_assert_uint_eq(id, 0);
  ck_assert_uint_eq(melu_schema_value_id(melu_dataset_schema(data), "actor", "Dietrich"), 2);
  id = 77;
  REFUSED(melu__dataset_text_id(&id, data, MELU_ITEM, 0, "x", 1, &err), MELU_EINVAL, 0, "item field 0");
  REFUSED(melu__dataset_text_id(&id, data, MELU_ITEM, 2, "x", 1, &err), MELU_EINVAL, 0, "item field 2");
  REFUSED(melu__dataset_text_id(&id, data, MELU_USER, 2, "x", 1, &err), MELU_EINVAL, 0, "user field 2");
  OK(melu__dataset_key_id(&key, data, "ada", 3, NULL));
  ck_assert_uint_eq(key, (uint64_t)1 << 63);
  OK(melu__dataset_key_id(&key, data, "bob", 3, NULL));
  ck_assert_uint_eq(key, ((uint64_t)1 << 63) + 1);
  OK(melu__dataset_key_id(&key, data, "ada", 3, NULL));
  ck_assert_uint_eq(key, (uint64_t)1 << 63);
  OK(melu_dataset_freeze(data, NULL));
  key = 77;
  UNCHANGED(data, melu__dataset_text_id(&id, data, MELU_ITEM, 1, "Lorre", 5, &err), MELU_ESTATE, 0, "frozen");
  UNCHANGED(data, melu__dataset_key_id(&key, data, "eve", 3, &err), MELU_ESTATE, 0, "frozen");
  ck_assert_uint_eq(id, 77);
  ck_assert_uint_eq(key, 77);

  /* A second set with the first one's vocabularies learns nothing more. */
  melu_dataset *other;
  OK(melu_dataset_new(&other, ctx, melu_dataset_schema(data), NULL));
  ck_assert_int_eq(melu__schema_equal(melu_dataset_schema(other), melu_dataset_schema(data)), 1);
  ck_assert_uint_eq(text_id(other, MELU_ITEM, 1, "Dietrich"), 2);
  ck_assert_uint_eq(text_id(other, MELU_ITEM, 1, "Valentin"), MELU_UNKNOWN);
  ck_assert_uint_eq(text_id(other, MELU_USER, 1, "80331"), MELU_UNKNOWN);
  OK(melu_dataset_freeze(other, NULL));
  ck_assert_int_eq(melu__schema_equal(melu_dataset_schema(other), melu_dataset_schema(data)), 1);

  /* What a set tells about its users can be told to another one: unknown ids are still MELU_UNKNOWN. */
  struct melu_value values[3];
  melu_dataset *third;
  OK(melu_dataset_new(&third, ctx, melu_dataset_schema(data), NULL));
  for (uint32_t u = 0; u < 3; u++) {
    OK(melu_dataset_user_values(values, data, u, NULL));
    OK(melu_dataset_add_user(third, melu_dataset_user_id(data, u), values, NULL, NULL));
    OK(melu_dataset_item_values(values, data, u, NULL));
    OK(melu_dataset_add_item(third, melu_dataset_item_id(data, u), values, NULL, NULL));
  }
  OK(melu_dataset_add_rating(third, 20, 1, 4.5f, NULL));
  OK(melu__dataset_key_id(&key, third, "ada", 3, NULL));
  OK(melu__dataset_key_id(&key, third, "bob", 3, NULL));
  OK(melu_dataset_freeze(third, NULL));
  char *first = dump(data), *second = dump(third);
  ck_assert_str_eq(first, second);
  free(first);
  free(second);
  melu_dataset_free(third);
  melu_dataset_free(other);
  melu_dataset_free(data);
}
END_TEST

/* Sizes that no test can reach are pretended. */
START_TEST(dataset_has_limits) {
  melu_error err;
  melu_dataset *data = small_dataset();
  struct melu__table *items = &data->tables[MELU_ITEM];
  const uint32_t genres[] = {1, 2};
  const struct melu_value values[] = {ids(genres, 2), {0}};
  const size_t n = items->n;
  items->n = MELU__MAX_ENTITIES;
  REFUSED(melu_dataset_add_item(data, 17, NULL, NULL, &err), MELU_ELIMIT, 0, "2^32 - 2");
  items->n = n;
  const uint32_t n_ids = items->columns[0].offsets[n];
  items->columns[0].offsets[n] = MELU__MAX_ENTITIES - 1;
  REFUSED(melu_dataset_add_item(data, 17, values, NULL, &err), MELU_ELIMIT, 0, "field \"genre\": more than 2^32 - 2");
  items->columns[0].offsets[n] = n_ids;
  OK(melu_dataset_add_item(data, 17, values, NULL, NULL));
  melu_dataset_free(data);
}
END_TEST

START_TEST(dataset_rewinds) {
  melu_dataset *data = small_dataset(), *plain = small_dataset();
  struct melu__mark mark;
  uint64_t key, state = 1;
  for (int round = 0; round < 3; round++) {
    char *before = dump(data);
    melu__dataset_mark(data, &mark);
    for (uint64_t id = 100; id < 400; id++) {
      char text[16];
      snprintf(text, sizeof text, "text %u", draw(&state, 1000));
      OK(melu__dataset_key_id(&key, data, text, strlen(text), NULL));
      const uint32_t zip = text_id(data, MELU_USER, 1, text), actor = text_id(data, MELU_ITEM, 1, text);
      const struct melu_value user[] = {{0}, ids(&zip, 1), {0}}, item[] = {ids(&zip, zip < 25), ids(&actor, 1)};
      OK(melu_dataset_add_user(data, id, user, NULL, NULL));
      OK(melu_dataset_add_item(data, id, item, NULL, NULL));
      OK(melu_dataset_add_rating(data, id, 2, 3, NULL));
    }
    host.fail_at = host.n_requests + 1;
    melu__dataset_rewind(data, &mark);
    host.fail_at = 0;
    char *after = dump(data);
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
    ck_assert_uint_eq(text_id(data, MELU_USER, 1, "new"), 1 + (uint32_t)(round > 0));
    melu__dataset_rewind(data, &mark);
    /* The set goes on as one does that never saw the rest. */
    for (int which = 0; which < 2; which++) {
      melu_dataset *set = which ? plain : data;
      const uint32_t zip = text_id(set, MELU_USER, 1, "12043");
      const struct melu_value user[] = {{0}, ids(&zip, 1), {0}};
      OK(melu_dataset_add_user(set, 1000 + (uint64_t)round, user, NULL, NULL));
      OK(melu_dataset_add_rating(set, 1000 + (uint64_t)round, 1, 2, NULL));
    }
  }
  OK(melu_dataset_freeze(data, NULL));
  OK(melu_dataset_freeze(plain, NULL));
  char *one = dump(data), *two = dump(plain);
  ck_assert_str_eq(one, two);
  free(one);
  free(two);
  melu_dataset_free(data);
  melu_dataset_free(plain);
}
END_TEST

/* ------------------------------------------------------------------------------------------------- a naive data set */

enum { N_IDS = 1000, N_OPERATIONS = 100000, MAX_LIST = 5 };

struct naive_entity {
  uint64_t id;
  size_t n[3]; /* ids or numbers, by field */
  uint32_t ids[3][MAX_LIST];
  float numbers[3];
};

struct naive_texts {
  size_t n;
  char text[64][8];
};

struct naive {
  size_t n[2], n_ratings;
  struct naive_entity entities[2][N_IDS];
  struct melu__rating ratings[N_OPERATIONS];
  struct naive_texts zip, actor;
};

static size_t naive_find(const struct naive *naive, int owner, uint64_t id) {
  for (size_t i = 0; i < naive->n[owner]; i++)
    if (naive->entities[owner][i].id == id) return i;
  return SIZE_MAX;
}

static uint32_t naive_text(struct naive_texts *texts, const char *text) {
  for (size_t i = 0; i < texts->n; i++)
    if (strcmp(texts->text[i], text) == 0) return (uint32_t)i;
  snprintf(texts->text[texts->n], sizeof texts->text[0], "%s", text);
  return (uint32_t)texts->n++;
}

static void naive_dump_texts(FILE *file, const struct naive_texts *texts) {
  for (size_t i = 0; i < texts->n; i++) fprintf(file, " %s", texts->text[i]);
}

/* What dump() must give. */
static char *naive_dump(const struct naive *naive, int frozen) {
  char *text = NULL;
  size_t size;
  FILE *file = open_memstream(&text, &size);
  fprintf(file, "0 gender 0 2 4 0 1:\n0 zip 0 %zu 32 0 1:", frozen ? naive->zip.n : 0);
  naive_dump_texts(file, &naive->zip);
  fprintf(file, "\n0 traits 2 0 3 3 0.5:\n1 genre 1 25 8 0 1:\n1 actor 1 %zu 32 0 1:", frozen ? naive->actor.n : 0);
  naive_dump_texts(file, &naive->actor);
  fputc('\n', file);
  for (int owner = 0; owner < 2; owner++) {
    for (size_t e = 0; e < naive->n[owner]; e++) {
      const struct naive_entity *entity = &naive->entities[owner][e];
      fprintf(file, "%d %llu", owner, (unsigned long long)entity->id);
      for (int f = 0; f < 3 - owner; f++) {
        fputs(" [", file);
        for (size_t i = 0; i < entity->n[f]; i++) {
          if (f == 2)
            fprintf(file, "%g ", (double)entity->numbers[i]);
          else
            fprintf(file, "%d ", (int)entity->ids[f][i]);
        }
        fputs("]", file);
      }
      fputc('\n', file);
    }
  }
  for (size_t u = 0; u < (frozen ? naive->n[MELU_USER] : 1); u++) {
    for (size_t i = 0; i < naive->n_ratings; i++) {
      const struct melu__rating *r = &naive->ratings[i];
      if (!frozen || r->user == u) fprintf(file, "%u %u %g\n", r->user, r->item, (double)r->rating);
    }
  }
  fprintf(file, "0 texts as ids, frozen %d\n", frozen);
  fclose(file);
  return text;
}

static uint32_t draw_text(uint64_t *state, melu_dataset *data, int owner, struct naive_texts *texts) {
  char text[8];
  snprintf(text, sizeof text, "t%u", draw(state, 60));
  const uint32_t id = text_id(data, owner, 1, text);
  ck_assert_uint_eq(id, naive_text(texts, text));
  return id;
}

/* An entity with random values, some of them missing or unknown, and now and then one that must be refused. */
static int draw_entity(uint64_t *state, melu_dataset *data, int owner, struct naive *naive, struct naive_entity *e) {
  const int user = owner == MELU_USER;
  struct naive_texts *texts = user ? &naive->zip : &naive->actor;
  const uint32_t n_values = user ? 2 : 25;
  int good = 1;
  memset(e, 0, sizeof *e);
  e->id = draw(state, N_IDS);
  for (int f = 0; f < 2; f++) {
    e->n[f] = draw(state, user ? 2 : MAX_LIST + 1);
    for (size_t i = 0; i < e->n[f]; i++) {
      const int wrong = draw(state, 100) == 0;
      e->ids[f][i] = draw(state, 10) == 0 ? MELU_UNKNOWN
                     : f                  ? draw_text(state, data, owner, texts)
                                          : draw(state, n_values);
      if (wrong) e->ids[f][i] = f ? (uint32_t)texts->n + draw_text(state, data, owner, texts) + 1 : n_values;
      if (wrong) good = 0;
    }
  }
  if (user && draw(state, 2)) {
    e->n[2] = 3;
    for (int i = 0; i < 3; i++) e->numbers[i] = (float)draw(state, 100) / 4;
    if (draw(state, 100) == 0) good = 0, e->numbers[2] = NAN;
  }
  return good;
}

static void random_entity(uint64_t *state, melu_dataset *data, struct naive *naive) {
  struct naive_entity e;
  const int owner = (int)draw(state, 2);
  const int good = draw_entity(state, data, owner, naive, &e);
  const struct melu_value values[] = {ids(e.ids[0], e.n[0]), ids(e.ids[1], e.n[1]), numbers(e.numbers, e.n[2])};
  const size_t taken = naive_find(naive, owner, e.id);
  uint32_t index = 0;
  const melu_status status =
      (owner == MELU_USER ? melu_dataset_add_user : melu_dataset_add_item)(data, e.id, values, &index, NULL);
  ck_assert_int_eq(status, taken != SIZE_MAX ? MELU_ESTATE : good ? MELU_OK : MELU_ERANGE);
  if (status == MELU_OK) {
    ck_assert_uint_eq(index, naive->n[owner]);
    naive->entities[owner][naive->n[owner]++] = e;
  }
}

static void random_rating(uint64_t *state, melu_dataset *data, struct naive *naive) {
  const uint64_t user = draw(state, N_IDS), item = draw(state, N_IDS);
  const size_t u = naive_find(naive, MELU_USER, user), i = naive_find(naive, MELU_ITEM, item);
  const float rating = draw(state, 100) == 0 ? NAN : (float)draw(state, 11) / 2;
  const melu_status want = u == SIZE_MAX || i == SIZE_MAX ? MELU_ENOTFOUND : isnan(rating) ? MELU_ERANGE : MELU_OK;
  ck_assert_int_eq(melu_dataset_add_rating(data, user, item, rating, NULL), want);
  if (want == MELU_OK) naive->ratings[naive->n_ratings++] = (struct melu__rating){(uint32_t)u, (uint32_t)i, rating};
  uint32_t position;
  ck_assert_int_eq(melu_dataset_find_item(&position, data, item, NULL), i == SIZE_MAX ? MELU_ENOTFOUND : MELU_OK);
  if (i != SIZE_MAX) ck_assert_uint_eq(position, i);
}

static void compare_with_naive(const melu_dataset *data, const struct naive *naive) {
  char *got = dump(data), *want = naive_dump(naive, data->frozen);
  ck_assert_msg(strcmp(got, want) == 0, "the data set differs from the naive one");
  free(got);
  free(want);
}

START_TEST(dataset_agrees_with_a_naive_one) {
  const size_t n_operations = test_trials(N_OPERATIONS);
  struct naive *naive = calloc(1, sizeof *naive), *old = calloc(1, sizeof *old);
  uint64_t state = (uint64_t)_i;
  melu_dataset *data = new_dataset();
  struct melu__mark mark;
  int marked = 0;
  for (size_t n = 0; n < n_operations; n++) {
    const uint32_t kind = draw(&state, 2000);
    if (kind < 200)
      random_entity(&state, data, naive);
    else if (kind < 1996)
      random_rating(&state, data, naive);
    else if (!marked) {
      melu__dataset_mark(data, &mark);
      memcpy(old, naive, sizeof *naive);
      marked = 1;
    } else {
      melu__dataset_rewind(data, &mark);
      memcpy(naive, old, sizeof *naive);
      marked = 0;
      compare_with_naive(data, naive);
    }
  }
  compare_with_naive(data, naive);
  OK(melu_dataset_freeze(data, NULL));
  compare_with_naive(data, naive);
  /* Ratings are of those who are there already: few, where there are fewer operations. */
  ck_assert_uint_gt(naive->n_ratings, n_operations == N_OPERATIONS ? n_operations / 8 : 0);
  melu_dataset_free(data);
  free(naive);
  free(old);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- task batch */

/* Four users; user u has 10 u ratings. */
static melu_dataset *rated_dataset(void) {
  melu_dataset *data = new_dataset();
  for (uint64_t id = 0; id < 4; id++) {
    OK(melu_dataset_add_user(data, id, NULL, NULL, NULL));
    OK(melu_dataset_add_item(data, id, NULL, NULL, NULL));
  }
  for (uint64_t i = 0; i < 60; i++) OK(melu_dataset_add_rating(data, i < 10 ? 1 : i < 30 ? 2 : 3, i % 4, 3, NULL));
  return data;
}

static void check_task(const melu_batch *batch, size_t t, uint32_t user, const uint32_t *support, size_t n_support,
                       const uint32_t *query, size_t n_query) {
  const struct melu__task *task = &batch->tasks[t];
  ck_assert_uint_eq(task->user, user);
  ck_assert_uint_eq(task->n_support, n_support);
  ck_assert_uint_eq(task->n_query, n_query);
  for (size_t i = 0; i < n_support; i++) ck_assert_uint_eq(batch->positions[task->start + i], support[i]);
  for (size_t i = 0; i < n_query; i++) ck_assert_uint_eq(batch->positions[task->start + n_support + i], query[i]);
}

START_TEST(batch_holds_its_tasks) {
  melu_dataset *data = rated_dataset();
  melu_batch *batch;
  OK(melu_dataset_freeze(data, NULL));
  OK(melu_batch_new(&batch, ctx, data, NULL));
  ck_assert_uint_eq(melu_batch_n_tasks(batch), 0);
  size_t n_requests = 0;
  for (int round = 0; round < 3; round++) {
    for (uint32_t t = 0; t < 100; t++) {
      uint32_t rows[] = {t % 10, 9 - t % 10, 3, 3}; /* the host's array may go, rows may repeat */
      OK(melu_batch_add(batch, 1 + t % 3, t % 4 ? rows : NULL, t % 4, rows + t % 4, 4 - t % 4, NULL));
      memset(rows, 0xff, sizeof rows);
    }
    ck_assert_uint_eq(melu_batch_n_tasks(batch), 100);
    for (uint32_t t = 0; t < 100; t++) {
      const uint32_t rows[] = {t % 10, 9 - t % 10, 3, 3};
      check_task(batch, t, 1 + t % 3, rows, t % 4, rows + t % 4, 4 - t % 4);
    }
    melu_batch_clear(batch);
    ck_assert_uint_eq(melu_batch_n_tasks(batch), 0);
    if (round > 0) ck_assert_uint_eq(host.n_requests, n_requests); /* clearing keeps the memory */
    n_requests = host.n_requests;
  }
  melu_batch_clear(NULL);
  melu_batch_free(batch);
  melu_batch_free(NULL);
  melu_dataset_free(data);
}
END_TEST

/* REFUSED, and the batch, which has one task, is as before. */
#define BATCH_UNCHANGED(batch, call, status, index, text) \
  do {                                                    \
    REFUSED(call, status, index, text);                   \
    ck_assert_uint_eq(melu_batch_n_tasks(batch), 1);      \
    ck_assert_uint_eq((batch)->n_positions, 2);           \
    check_task(batch, 0, 1, one, 1, one + 1, 1);          \
  } while (0)

START_TEST(batch_refuses_wrong_tasks) {
  static uint32_t many[MELU__MAX_ROWS];
  static const uint32_t one[] = {7, 8, 9, 10};
  melu_error err;
  melu_dataset *data = rated_dataset();
  melu_batch *batch, *none = (melu_batch *)&err;
  REFUSED(melu_batch_new(&none, ctx, data, &err), MELU_ESTATE, 0, "not frozen");
  ck_assert_ptr_null(none);
  OK(melu_dataset_freeze(data, NULL));
  REFUSED(melu_batch_new(NULL, ctx, data, &err), MELU_EINVAL, 0, "out is NULL");
  REFUSED(melu_batch_new(&none, NULL, data, &err), MELU_EINVAL, 0, "ctx is NULL");
  REFUSED(melu_batch_new(&none, ctx, NULL, &err), MELU_EINVAL, 0, "data is NULL");
  ck_assert_ptr_null(none);
  OK(melu_batch_new(&batch, ctx, data, NULL));
  OK(melu_batch_add(batch, 1, one, 1, one + 1, 1, NULL));
  REFUSED(melu_batch_add(NULL, 1, one, 1, one, 1, &err), MELU_EINVAL, 0, "batch is NULL");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, NULL, 1, one, 1, &err), MELU_EINVAL, 0, "support is NULL");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, 1, NULL, 1, &err), MELU_EINVAL, 0, "query is NULL");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, 1, one, 0, &err), MELU_EINVAL, 0, "query set is empty");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, 1, NULL, 0, &err), MELU_EINVAL, 0, "query set is empty");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 4, one, 1, one, 1, &err), MELU_ERANGE, 0,
                  "user position 4 is not below 4");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, 4, one, 1, &err), MELU_ERANGE, 3,
                  "user position 1: support[3] is 10, not below the user's 10 ratings");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, 1, one + 1, 3, &err), MELU_ERANGE, 2, "query[2] is 10");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 0, NULL, 0, one, 1, &err), MELU_ERANGE, 0, "query[0] is 7");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, many, MELU__MAX_ROWS, one, 1, &err), MELU_ELIMIT, 0,
                  "65535 support and 1 query rows are more than 65535");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, 1, many, MELU__MAX_ROWS, &err), MELU_ELIMIT, 0, "65535 query");
  BATCH_UNCHANGED(batch, melu_batch_add(batch, 1, one, SIZE_MAX, one, SIZE_MAX, &err), MELU_ELIMIT, 0, "rows are more");
  OK(melu_batch_add(batch, 1, many, MELU__MAX_ROWS - 1, one, 1, NULL));
  check_task(batch, 1, 1, many, MELU__MAX_ROWS - 1, one, 1);
  ck_assert_uint_eq(melu_batch_n_tasks(NULL), 0);
  melu_batch_free(batch);
  melu_dataset_free(data);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- splits */

/* Positions of the evaluation protocol's test vectors: the ten query positions, and the first of the support order. */
static const struct split_vector {
  uint64_t user, split, first_key;
  size_t n;
  uint32_t query[10], support[5];
  size_t n_support;
} split_vectors[] = {
    {4, 0, 0xca9c0d0de2fa5bc0, 19, {12, 3, 13, 15, 8, 17, 14, 0, 6, 11}, {4, 7, 18, 16, 1}, 5},
    {4, 1, 0x8b1fe2cecb37d3bb, 19, {5, 1, 0, 16, 6, 14, 15, 17, 12, 2}, {4, 10, 3, 7, 9}, 5},
    {6, 0, 0x0505472b3f6b797f, 56, {5, 6, 8, 26, 2, 25, 16, 11, 35, 9}, {33, 0, 50, 39, 49}, 5},
    {6, 1, 0xc062ae7fedbac60b, 56, {48, 7, 17, 27, 38, 31, 45, 28, 44, 39}, {14, 25, 30, 52, 9}, 5},
    {6034, 0, 0x991d50bbc45160fc, 21, {3, 1, 0, 14, 11, 10, 18, 6, 7, 13}, {16, 5, 12, 4, 9}, 5},
    {6034, 1, 0x0c29b9a8137a64f0, 21, {16, 15, 8, 20, 14, 4, 17, 6, 18, 11}, {0, 5, 9, 2, 12}, 5},
    {1, 0, 0x09aab36cfda2d1b3, 13, {9, 10, 4, 3, 1, 6, 2, 5, 8, 7}, {0, 11, 12}, 3},
    {1, 1, 0xdb7bf4d0c7c27076, 13, {11, 7, 4, 5, 12, 10, 9, 0, 6, 8}, {1, 2, 3}, 3},
    {1, 0, 0x09aab36cfda2d1b3, 40, {18, 29, 31, 36, 20, 8, 37, 7, 28, 21}, {25, 0, 11, 22, 14}, 5},
    {1, 1, 0xdb7bf4d0c7c27076, 40, {23, 28, 22, 0, 6, 20, 31, 8, 14, 17}, {27, 33, 1, 2, 35}, 5},
    {6, 0, 0x0505472b3f6b797f, 15, {1, 4, 13, 7, 5, 6, 8, 2, 11, 9}, {0, 14, 3, 12, 10}, 5},
    {6, 1, 0xc062ae7fedbac60b, 15, {12, 2, 11, 3, 6, 13, 10, 0, 1, 7}, {14, 9, 8, 4, 5}, 5},
};

/* The key as the protocol writes it. */
static uint64_t split_key(uint64_t split, uint64_t user, uint64_t position) {
  uint64_t z = ((split << 48) ^ (user << 16) ^ position) + UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

START_TEST(split_order_is_the_protocols) {
  const struct split_vector *v = &split_vectors[_i];
  uint32_t order[56];
  ck_assert_uint_eq(split_key(v->split, v->user, 0), v->first_key);
  OK(melu_split_order(order, v->user, v->split, v->n, NULL));
  for (size_t i = 0; i < 10; i++) ck_assert_uint_eq(order[v->n - 10 + i], v->query[i]);
  for (size_t i = 0; i < v->n_support; i++) ck_assert_uint_eq(order[i], v->support[i]);
}
END_TEST

START_TEST(split_order_sorts_any_length) {
  static uint32_t order[65536];
  static unsigned char seen[65536];
  melu_error err;
  for (size_t n = 0; n <= 65536; n = n < 70 ? n + 1 : n * 2 > 65536 && n < 65536 ? 65536 : n * 2) {
    memset(seen, 0, sizeof seen);
    OK(melu_split_order(n ? order : NULL, UINT64_MAX - n, 1000 + n, n, NULL));
    for (size_t i = 0; i < n; i++) {
      ck_assert_uint_lt(order[i], n);
      ck_assert_uint_eq(seen[order[i]]++, 0);
      if (i)
        ck_assert_uint_lt(split_key(1000 + n, UINT64_MAX - n, order[i - 1]),
                          split_key(1000 + n, UINT64_MAX - n, order[i]));
    }
  }
  order[0] = 77;
  REFUSED(melu_split_order(NULL, 1, 0, 1, &err), MELU_EINVAL, 0, "order is NULL");
  REFUSED(melu_split_order(order, 1, 0, 65537, &err), MELU_ERANGE, 0, "n is 65537");
  ck_assert_uint_eq(order[0], 77);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ failing allocations
 */

/* Makes the call; if there was no memory, nothing may have changed, and the same call must succeed. `data` may be NULL.
 * Two shapes: for calls that change an object, and for those that make one. */
#define CHANGE(data, call)                       \
  do {                                           \
    melu_error err = {0};                        \
    char *before = dump(data);                   \
    if ((call) != MELU_OK) {                     \
      ck_assert_int_eq(err.status, MELU_ENOMEM); \
      char *after = dump(data);                  \
      ck_assert_str_eq(before, after);           \
      free(after);                               \
      OK(call);                                  \
    }                                            \
    free(before);                                \
  } while (0)
#define MAKE(object, call)                       \
  do {                                           \
    melu_error err = {0};                        \
    const size_t n_live = host.n_live;           \
    object = (void *)&err;                       \
    if ((call) != MELU_OK) {                     \
      ck_assert_int_eq(err.status, MELU_ENOMEM); \
      ck_assert_ptr_null(object);                \
      ck_assert_uint_eq(host.n_live, n_live);    \
      OK(call);                                  \
    }                                            \
  } while (0)

static melu_schema *failing_schema(void) {
  melu_schema *schema, *copy;
  MAKE(schema, melu_schema_new(&schema, ctx, &err));
  for (int i = 0; i < 20; i++) {
    char name[8];
    snprintf(name, sizeof name, "f%d", i);
    const struct melu_field f = field(name, i % 2, i % 3, (size_t)(i % 5), 2);
    melu_error err = {0};
    if (melu_schema_add(schema, &f, &err) != MELU_OK) {
      ck_assert_int_eq(err.status, MELU_ENOMEM);
      ck_assert_uint_eq(schema->n_fields, (size_t)i);
      OK(melu_schema_add(schema, &f, NULL));
    }
  }
  /* "f10" learns until now. */
  struct melu__vocab *texts;
  while ((texts = melu__vocab_new(&ctx->allocator)) == NULL) {
  }
  while (melu__vocab_add(texts, "text", 4, NULL) == MELU__NO_INDEX) {
  }
  if (melu__schema_set_texts(schema, "f10", texts, NULL) != MELU_OK) {
    ck_assert_int_eq(melu__schema_find(schema, "f10")->learns, 1);
    OK(melu__schema_set_texts(schema, "f10", texts, NULL));
  }
  melu__vocab_free(texts);
  MAKE(copy, melu__schema_copy(&copy, ctx, schema, &err));
  ck_assert_int_eq(melu__schema_equal(copy, schema), 1);
  melu_schema_free(schema);
  return copy;
}

static void failing_additions(melu_dataset *data) {
  const float two[] = {1, 2};
  uint64_t key;
  for (uint64_t id = 0; id < 20; id++) {
    struct melu_value values[2][10];
    uint32_t list[2][10];
    memset(values, 0, sizeof values);
    for (int owner = 0; owner < 2; owner++) {
      for (size_t f = 0; f < 10; f++) {
        const struct melu__field *described = data->tables[owner].columns[f].field;
        list[owner][f] = MELU_UNKNOWN;
        if (described->learns) {
          char text[16];
          snprintf(text, sizeof text, "%zu of %u", f, (unsigned)id / 2);
          CHANGE(data, melu__dataset_text_id(&list[owner][f], data, (melu_owner)owner, f, text, strlen(text), &err));
        }
        values[owner][f] = described->kind == MELU_NUMERIC ? numbers(two, 2) : ids(&list[owner][f], 1);
      }
    }
    CHANGE(data, melu_dataset_add_user(data, id, values[MELU_USER], NULL, &err));
    CHANGE(data, melu_dataset_add_item(data, id, id % 2 ? values[MELU_ITEM] : NULL, NULL, &err));
    CHANGE(data, melu_dataset_add_rating(data, id, id / 2, 3, &err));
    CHANGE(data, melu__dataset_key_id(&key, data, (const char *)&id, sizeof id, &err));
  }
}

static void failing_batch(const melu_dataset *data) {
  static const uint32_t rows[20];
  melu_batch *batch;
  MAKE(batch, melu_batch_new(&batch, ctx, data, &err));
  for (uint32_t t = 0; t < 20; t++) {
    const size_t n = batch->n_positions;
    melu_error err = {0};
    if (melu_batch_add(batch, t, rows, 1 + t % 4, rows, 3, &err) != MELU_OK) {
      ck_assert_int_eq(err.status, MELU_ENOMEM);
      ck_assert_uint_eq(batch->n_tasks, t);
      ck_assert_uint_eq(batch->n_positions, n);
      OK(melu_batch_add(batch, t, rows, 1 + t % 4, rows, 3, NULL));
    }
  }
  for (uint32_t t = 0; t < 20; t++) check_task(batch, t, t, rows, 1 + t % 4, rows, 3);
  melu_batch_free(batch);
}

START_TEST(every_allocation_may_fail) {
  char *undisturbed = NULL;
  const size_t n_live_before = host.n_live;
  size_t n_failed = 0, n_requests;
  do {
    melu_dataset *data;
    struct melu__mark mark;
    host.n_requests = 0;
    host.fail_at = n_failed;
    melu_schema *schema = failing_schema();
    MAKE(data, melu_dataset_new(&data, ctx, schema, &err));
    melu_schema_free(schema);
    failing_additions(data);
    melu__dataset_mark(data, &mark);
    CHANGE(data, melu_dataset_add_user(data, 99, NULL, NULL, &err));
    melu__dataset_rewind(data, &mark);
    CHANGE(data, melu_dataset_freeze(data, &err));
    failing_batch(data);
    n_requests = host.n_requests;
    host.fail_at = 0;
    char *text = dump(data);
    if (!undisturbed)
      undisturbed = text;
    else {
      ck_assert_str_eq(text, undisturbed);
      free(text);
    }
    melu_dataset_free(data);
    ck_assert_uint_eq(host.n_live, n_live_before);
  } while (n_failed++ <= n_requests);
  free(undisturbed);
}
END_TEST

/* Lists beside a long one are kept sorted too; a data set that has no memory for that is not frozen. */
START_TEST(long_lists_are_kept_sorted) {
  static const size_t sizes[] = {0, 1, MELU__SHORT_LIST + 1, 2, 0, 300};
  enum { MOST = 500 };
  melu_schema *schema;
  melu_dataset *data;
  melu_error err;
  uint64_t state = 3;
  uint32_t list[MOST];
  size_t n_failures = 0;
  OK(melu_schema_new(&schema, ctx, NULL));
  add_field(schema, "tags", MELU_ITEM, MELU_MANY, MOST, 2);
  OK(melu_dataset_new(&data, ctx, schema, NULL));
  for (size_t i = 0; i < LENGTH(sizes); i++) {
    for (size_t k = 0; k < sizes[i]; k++) list[k] = draw(&state, MOST);
    const struct melu_value value = ids(list, sizes[i]);
    OK(melu_dataset_add_item(data, i, &value, NULL, NULL));
  }
  while (host.fail_at = host.n_requests + n_failures + 1, melu_dataset_freeze(data, &err) != MELU_OK) {
    ck_assert_int_eq(err.status, MELU_ENOMEM);
    ck_assert_uint_lt(++n_failures, 20);
  }
  host.fail_at = 0;
  ck_assert_uint_gt(n_failures, 0);
  const struct melu__column *column = &data->tables[MELU_ITEM].columns[0];
  for (size_t i = 0; i < LENGTH(sizes); i++) {
    const uint32_t *const as_given = column->ids + column->offsets[i], *sorted = column->sorted + column->offsets[i];
    for (size_t k = 0; k < sizes[i]; k++) {
      size_t n_given = 0, n_sorted = 0;
      for (size_t j = 0; j < sizes[i]; j++) {
        n_given += as_given[j] == as_given[k];
        n_sorted += sorted[j] == as_given[k];
      }
      ck_assert_uint_eq(n_given, n_sorted);
      ck_assert(k == 0 || sorted[k - 1] <= sorted[k]);
    }
  }
  melu_dataset_free(data);
  melu_schema_free(schema);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- program */

static TCase *new_case(Suite *suite, const char *name) {
  TCase *tc = tcase_create(name);
  tcase_add_checked_fixture(tc, setup, teardown);
  tcase_set_timeout(tc, 120);
  suite_add_tcase(suite, tc);
  return tc;
}

int main(void) {
  Suite *suite = suite_create("data");
  TCase *tc = new_case(suite, "schema");
  tcase_add_test(tc, schema_describes_what_was_added);
  tcase_add_test(tc, schema_refuses_wrong_fields);
  tcase_add_test(tc, schema_checks_arguments);
  tcase_add_test(tc, schema_takes_older_and_newer_structs);
  tcase_add_test(tc, schema_equality_compares_fields);
  tcase_add_test(tc, schema_equality_compares_texts);
  tcase_add_test(tc, schema_gets_texts);
  tc = new_case(suite, "dataset");
  tcase_add_test(tc, dataset_keeps_what_was_added);
  tcase_add_test(tc, dataset_refuses_wrong_values);
  tcase_add_test(tc, dataset_refuses_wrong_calls);
  tcase_add_test(tc, dataset_gives_no_ratings_where_there_are_none);
  tcase_add_test(tc, dataset_numbers_texts);
  tcase_add_test(tc, dataset_has_limits);
  tcase_add_test(tc, dataset_rewinds);
  tcase_add_loop_test(tc, dataset_agrees_with_a_naive_one, 0, 3);
  tc = new_case(suite, "batch");
  tcase_add_test(tc, batch_holds_its_tasks);
  tcase_add_test(tc, batch_refuses_wrong_tasks);
  tcase_add_loop_test(tc, split_order_is_the_protocols, 0, (int)LENGTH(split_vectors));
  tcase_add_test(tc, split_order_sorts_any_length);
  tc = new_case(suite, "memory");
  tcase_add_test(tc, every_allocation_may_fail);
  tcase_add_test(tc, long_lists_are_kept_sorted);

  return run_suite(suite);
}
