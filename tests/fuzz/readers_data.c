/* SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "../tiny_folder.h"
#include "readers.h"

enum { MOST_FIELDS = 16 };

/* Readers of text say these. */
enum {
  REFUSALS = FUZZ_BIT(MELU_EFORMAT) | FUZZ_BIT(MELU_ERANGE) | FUZZ_BIT(MELU_ENOTFOUND) | FUZZ_BIT(MELU_ESTATE) |
             FUZZ_BIT(MELU_ELIMIT)
};

/* -------------------------------------------------------------------------------------- what was read is usable */

static void check_value(const melu_schema *schema, const struct melu_field *f, const struct melu_value *v) {
  for (size_t i = 0; i < v->n_ids; i++) {
    FUZZ_NEEDS(v->ids[i] < f->n_values || v->ids[i] == MELU_UNKNOWN, "\"%s\": id %u", f->name, (unsigned)v->ids[i]);
    const char *text = melu_schema_value_text(schema, f->name, v->ids[i]);
    FUZZ_NEEDS(!text || melu_schema_value_id(schema, f->name, text) == v->ids[i], "\"%s\": two ids of \"%s\"", f->name,
               text);
  }
  FUZZ_NEEDS(v->n_ids <= 1 || f->kind == MELU_MANY, "\"%s\": %zu ids", f->name, v->n_ids);
  FUZZ_NEEDS(!v->n_numbers || (f->kind == MELU_NUMERIC && v->n_numbers == f->width), "\"%s\": %zu numbers", f->name,
             v->n_numbers);
  for (size_t i = 0; i < v->n_numbers; i++) FUZZ_NEEDS(isfinite(v->numbers[i]), "\"%s\": not finite", f->name);
}

/* Of all users or all items. */
static void check_values(const melu_dataset *data, melu_owner owner, size_t n) {
  const melu_schema *schema = melu_dataset_schema(data);
  struct melu_field fields[MOST_FIELDS];
  struct melu_value values[MOST_FIELDS];
  const size_t n_fields = melu_schema_n_fields(schema, owner);
  FUZZ_NEEDS(n_fields <= MOST_FIELDS, "%zu fields", n_fields);
  for (size_t f = 0; f < n_fields; f++) {
    fields[f].size = sizeof fields[f];
    FUZZ_NEEDS(!melu_schema_field(&fields[f], schema, owner, f, NULL), "field %zu cannot be described", f);
  }
  for (uint32_t i = 0; i < n; i++) {
    uint32_t found = MELU_UNKNOWN;
    const uint64_t id = owner == MELU_USER ? melu_dataset_user_id(data, i) : melu_dataset_item_id(data, i);
    const melu_status missed =
        (owner == MELU_USER ? melu_dataset_find_user : melu_dataset_find_item)(&found, data, id, NULL);
    const melu_status unread =
        (owner == MELU_USER ? melu_dataset_user_values : melu_dataset_item_values)(values, data, i, NULL);
    FUZZ_NEEDS(!missed && found == i && !unread, "number %u has no id, or no values", (unsigned)i);
    for (size_t f = 0; f < n_fields; f++) check_value(schema, &fields[f], &values[f]);
  }
}

void fuzz_check_data(const melu_dataset *data) {
  const size_t n_users = melu_dataset_n_users(data), n_items = melu_dataset_n_items(data);
  size_t n_ratings = 0;
  check_values(data, MELU_USER, n_users);
  check_values(data, MELU_ITEM, n_items);
  for (uint32_t u = 0; u < n_users; u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
    for (size_t i = 0; i < n; i++) FUZZ_NEEDS(items[i] < n_items && isfinite(ratings[i]), "rating %zu", i);
    n_ratings += n;
  }
  FUZZ_NEEDS(n_ratings == melu_dataset_n_ratings(data), "%zu ratings of users, %zu of all", n_ratings,
             melu_dataset_n_ratings(data));
}

static void check_data(melu_dataset *data) {
  melu_error err = {.message = ""};
  FUZZ_NEEDS(!melu_dataset_freeze(data, &err), "cannot be frozen: %s", err.message);
  fuzz_check_data(data);
}

/* ----------------------------------------------------------------------------------------------------- tables */

static const char *const skipped[] = {"note", "x y"};
static const struct melu_table_options table_options[] = {
    {.size = sizeof *table_options},
    {.size = sizeof *table_options, .separator = ';', .list_separator = ' '},
    {.size = sizeof *table_options, .separator = '|', .id = "key", .user = "who", .item = "what", .rating = "how"},
    {.size = sizeof *table_options, .skip = skipped, .n_skip = 2},
};

static size_t count(const melu_dataset *data, enum scene_table table) {
  return table == SCENE_TABLE_ITEMS   ? melu_dataset_n_items(data)
         : table == SCENE_TABLE_USERS ? melu_dataset_n_users(data)
                                      : melu_dataset_n_ratings(data);
}

/* Three parts: items, users, ratings. Readers say what is wrong where it is; the same is tried without a message. */
void fuzz_tables(const struct scene *s, struct fuzz_input in, unsigned flags) {
  static melu_status (*const read[])(melu_dataset *, const char *, const struct melu_table_options *, melu_error *) = {
      melu_dataset_read_items, melu_dataset_read_users, melu_dataset_read_ratings};
  melu_error err = {.message = ""};
  melu_dataset *data;
  const struct melu_table_options *options = &table_options[flags / FUZZ_TABLE_OPTIONS % 4];
  FUZZ_NEEDS(!melu_dataset_new(&data, s->ctx, s->schema, &err), "no data set: %s", err.message);
  for (int table = 0; table < SCENE_TABLES; table++) {
    const struct fuzz_input part = fuzz_part(&in);
    const char *path = scene_path(s, "table");
    proof_write_file(path, part.at, part.n);
    const melu_status status = read[table](data, path, options, &err);
    const int accepted = fuzz_accepted(scene_table_names[table], status, REFUSALS, &err);
    const size_t n = count(data, (enum scene_table)table);
    FUZZ_NEEDS(accepted || n == 0, "%s: refused, but %zu lines were added", scene_table_names[table], n);
    if (!accepted) FUZZ_NEEDS(read[table](data, path, options, NULL) == status, "refused twice, not alike");
  }
  check_data(data);
  melu_dataset_free(data);
}

/* ----------------------------------------------------------------------------------------------------- folders */

/* As many parts as the tiny folder has files. Parts that are missing are its own. */
static void write_folder(const struct scene *s, struct fuzz_input in) {
  for (size_t i = 0; i < N_TINY_FILES; i++) {
    const struct fuzz_input part = fuzz_part(&in);
    const char *path = scene_path(s, tiny_files[i].name);
    if (part.n)
      proof_write_file(path, part.at, part.n);
    else
      proof_write_file(path, tiny_files[i].text, strlen(tiny_files[i].text));
  }
}

void fuzz_melu_folder(const struct scene *s, struct fuzz_input in, unsigned flags) {
  melu_error err = {.message = ""};
  melu_schema *schema;
  melu_dataset *data;
  write_folder(s, in);
  FUZZ_NEEDS(!melu_schema_new(&schema, s->ctx, &err), "no schema: %s", err.message);
  const melu_status added =
      (flags & FUZZ_MELU_ITEMS ? melu_schema_add_melu_items : melu_schema_add_melu)(schema, s->folder, &err);
  const size_t n_fields = melu_schema_n_fields(schema, MELU_ITEM) + melu_schema_n_fields(schema, MELU_USER);
  if (!fuzz_accepted("melu_schema_add_melu", added, REFUSALS, &err)) {
    FUZZ_NEEDS(n_fields == 0, "a folder was refused, but %zu fields were added", n_fields);
  } else {
    FUZZ_NEEDS(!melu_dataset_new(&data, s->ctx, schema, &err), "no data set: %s", err.message);
    const melu_status status = melu_dataset_read_melu(data, s->folder, "s", &err);
    const int accepted = fuzz_accepted("melu_dataset_read_melu", status, REFUSALS, &err);
    FUZZ_NEEDS(accepted || melu_dataset_n_users(data) + melu_dataset_n_items(data) + melu_dataset_n_ratings(data) == 0,
               "a folder was refused, but something was added");
    check_data(data);
    melu_dataset_free(data);
  }
  melu_schema_free(schema);
  for (size_t i = 0; i < N_TINY_FILES; i++) unlink(scene_path(s, tiny_files[i].name));
}
