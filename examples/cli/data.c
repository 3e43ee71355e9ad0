/* SPDX-License-Identifier: BSD-3-Clause */
#include "data.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static melu_error err;

void add_file_options(struct option_list *list, struct files *files, const char *ratings_help, const char *users_help) {
  files->item_column = "item";
  files->user_column = "user";
  files->rating_column = "rating";
  const struct option options[] = {
      {"--items", "FILE", "table of the items: an id and a column for each field", NULL, 0, 0, &files->items},
      {"--ratings", "FILE", ratings_help, NULL, 0, 0, &files->ratings},
      {"--users", "FILE", users_help, NULL, 0, 0, &files->users},
      {"--item-column", "NAME", "column of the items' ids", NULL, 0, 0, &files->item_column},
      {"--user-column", "NAME", "column of the users' ids", NULL, 0, 0, &files->user_column},
      {"--rating-column", "NAME", "column of the ratings", NULL, 0, 0, &files->rating_column},
  };
  add_options(list, options, sizeof options / sizeof options[0]);
}

/* -------------------------------------------------------------------------------------------- items and users */

/* The ids in a column of a file, in its order. */
struct names {
  char **at;
  uint64_t *ids;
  size_t n;
};

/* Reads them, and which columns of the file are neither the id nor a field of the schema. */
static void read_names(struct names *names, struct names *skip, const char *path, const char *column,
                       const melu_schema *schema, melu_owner owner) {
  struct table table;
  size_t capacity = 0, id_capacity = 0, skip_capacity = 0;
  table_open(&table, path);
  const size_t id = table_column(&table, column, owner == MELU_ITEM ? "--item-column" : "--user-column");
  for (size_t c = 0; c < table.n_columns; c++) {
    int is_field = c == id;
    for (size_t f = 0; f < melu_schema_n_fields(schema, owner) && !is_field; f++) {
      struct melu_field field = {.size = sizeof field};
      check(melu_schema_field(&field, schema, owner, f, &err), &err);
      is_field = strcmp(field.name, table.names[c]) == 0;
    }
    if (is_field) continue;
    skip->at = grow(skip->at, skip->n, &skip_capacity, sizeof *skip->at);
    skip->at[skip->n++] = copy_text(table.names[c]);
  }
  while (table_next(&table)) {
    names->at = grow(names->at, names->n, &capacity, sizeof *names->at);
    names->ids = grow(names->ids, names->n, &id_capacity, sizeof *names->ids);
    names->ids[names->n] = id_of(&table, table.cells[id]);
    names->at[names->n++] = copy_text(table.cells[id]);
  }
  table_free(&table);
}

static void names_free(struct names *names) {
  for (size_t i = 0; i < names->n; i++) free(names->at[i]);
  free(names->at);
  free(names->ids);
}

/* Lets the library read users or items into `read`, by which they are checked and vocabularies learnt. */
static void read_entities(struct names *names, melu_dataset *read, melu_owner owner, const char *path,
                          const char *column) {
  struct names skip = {0};
  read_names(names, &skip, path, column, melu_dataset_schema(read), owner);
  const struct melu_table_options options = {
      .size = sizeof options, .id = column, .skip = (const char *const *)skip.at, .n_skip = skip.n};
  check(owner == MELU_ITEM ? melu_dataset_read_items(read, path, &options, &err)
                           : melu_dataset_read_users(read, path, &options, &err),
        &err);
  const size_t n = owner == MELU_ITEM ? melu_dataset_n_items(read) : melu_dataset_n_users(read);
  if (n != names->n) give_up("%s: the file changed while it was read, or cannot be read twice", path);
  if (n == 0) bad_data("%s: there are no %s in it", path, owner == MELU_ITEM ? "items" : "users");
  names_free(&skip);
}

/* Copies them under the ids of this program: those that the library gives to texts depend on the order of the files,
 * and a user who was written down remembers items by id. */
static void copy_entities(melu_dataset *set, const melu_dataset *read, melu_owner owner, const struct names *names) {
  struct melu_value *values = get_memory(melu_schema_n_fields(melu_dataset_schema(read), owner), sizeof *values);
  for (uint32_t i = 0; i < names->n; i++) {
    if (owner == MELU_ITEM) {
      check(melu_dataset_item_values(values, read, i, &err), &err);
      check(melu_dataset_add_item(set, names->ids[i], values, NULL, &err), &err);
    } else {
      check(melu_dataset_user_values(values, read, i, &err), &err);
      check(melu_dataset_add_user(set, names->ids[i], values, NULL, &err), &err);
    }
  }
  free(values);
}

/* ------------------------------------------------------------------------------------------------------ ratings */

void rating_rows_open(struct rating_rows *rows, const struct files *files, const melu_dataset *set, int is_piecewise) {
  *rows = (struct rating_rows){.files = files, .set = set};
  (is_piecewise ? table_open_piecewise : table_open)(&rows->table, files->ratings);
  rows->item_column = table_column(&rows->table, files->item_column, "--item-column");
  rows->rating_column = table_column(&rows->table, files->rating_column, "--rating-column");
  rows->user_column = table_column(&rows->table, files->user_column, files->user_is_optional ? NULL : "--user-column");
}

void rating_rows_free(struct rating_rows *rows) {
  table_free(&rows->table);
}

static void take_user(struct rating_row *row, const struct rating_rows *rows) {
  const struct table *t = &rows->table;
  row->user = t->cells[rows->user_column];
  if (is_missing(row->user)) bad_data("%s:%zu: the user is missing", t->path, t->line);
  row->user_id = id_of(t, row->user);
  if (rows->files->users && melu_dataset_find_user(&(uint32_t){0}, rows->set, row->user_id, NULL) != MELU_OK)
    bad_data("%s:%zu: there is no user \"%s\" in %s", t->path, t->line, row->user, rows->files->users);
}

int rating_rows_next(struct rating_row *row, struct rating_rows *rows) {
  struct table *t = &rows->table;
  double value;
  *row = (struct rating_row){0};
  if (!table_next(t)) return 0;
  const char *item = t->cells[rows->item_column], *rating = t->cells[rows->rating_column];
  row->item_id = id_of(t, item);
  if (rows->user_column != NO_COLUMN) take_user(row, rows);
  if (melu_dataset_find_item(&(uint32_t){0}, rows->set, row->item_id, NULL) != MELU_OK)
    bad_data("%s:%zu: there is no item \"%s\" in %s", t->path, t->line, item, rows->files->items);
  if (!parse_real(&value, rating)) bad_data("%s:%zu: rating \"%s\" is not a number", t->path, t->line, rating);
  if (fabs(value) > (double)FLT_MAX) bad_data("%s:%zu: rating \"%s\" is too large", t->path, t->line, rating);
  row->rating = (float)value;
  return 1;
}

/* Without a file of users she is added when she comes first. */
static void add_new_user(struct data *data, size_t *capacity, const struct rating_row *row) {
  uint32_t user;
  if (melu_dataset_find_user(&user, data->set, row->user_id, NULL) == MELU_OK) return;
  const size_t n = melu_dataset_n_users(data->set);
  data->users = grow(data->users, n, capacity, sizeof *data->users);
  check(melu_dataset_add_user(data->set, row->user_id, NULL, NULL, &err), &err);
  data->users[n] = copy_text(row->user);
}

static void add_nameless_user(struct data *data) {
  check(melu_dataset_add_user(data->set, 0, NULL, NULL, &err), &err);
}

static void read_ratings(struct data *data, const struct files *files) {
  struct rating_rows rows;
  struct rating_row row;
  size_t capacity = 0;
  rating_rows_open(&rows, files, data->set, 0);
  const int has_users = rows.user_column != NO_COLUMN;
  if (!has_users && melu_dataset_n_users(data->set) > 1) {
    bad_data("%s: whose ratings are they? There is no column \"%s\", and %s has several users", files->ratings,
             files->user_column, files->users);
  }
  if (!has_users && !files->users) add_nameless_user(data);
  const uint64_t only_user = melu_dataset_user_id(data->set, 0);
  while (rating_rows_next(&row, &rows)) {
    if (has_users && !files->users) add_new_user(data, &capacity, &row);
    const uint64_t user_id = has_users ? row.user_id : only_user;
    check(melu_dataset_add_rating(data->set, user_id, row.item_id, row.rating, &err), &err);
  }
  rating_rows_free(&rows);
}

/* ---------------------------------------------------------------------------------------------------- the data set */

void data_open_entities(struct data *data, const melu_context *ctx, const melu_schema *schema,
                        const struct files *files) {
  struct names items = {0}, users = {0};
  melu_dataset *read;
  *data = (struct data){0};
  check(melu_dataset_new(&read, ctx, schema, &err), &err);
  read_entities(&items, read, MELU_ITEM, files->items, files->item_column);
  if (files->users) read_entities(&users, read, MELU_USER, files->users, files->user_column);
  check(melu_dataset_freeze(read, &err), &err);
  check(melu_dataset_new(&data->set, ctx, melu_dataset_schema(read), &err), &err);
  copy_entities(data->set, read, MELU_ITEM, &items);
  copy_entities(data->set, read, MELU_USER, &users);
  melu_dataset_free(read);
  data->items = items.at;
  data->users = users.at;
  free(items.ids);
  free(users.ids);
}

void data_open(struct data *data, const melu_context *ctx, const melu_schema *schema, const struct files *files) {
  data_open_entities(data, ctx, schema, files);
  if (files->ratings) {
    read_ratings(data, files);
  } else if (!files->users) {
    add_nameless_user(data);
  }
  check(melu_dataset_freeze(data->set, &err), &err);
  if (melu_dataset_n_users(data->set) == 0) bad_data("%s: there are no ratings in it", files->ratings);
}

void data_free(struct data *data) {
  for (size_t i = 0; data->items && i < melu_dataset_n_items(data->set); i++) free(data->items[i]);
  for (size_t i = 0; data->users && i < melu_dataset_n_users(data->set); i++) free(data->users[i]);
  free(data->items);
  free(data->users);
  melu_dataset_free(data->set);
  *data = (struct data){0};
}

void check_clicks(const melu_dataset *set, const char *path) {
  for (uint32_t u = 0; u < melu_dataset_n_users(set); u++) {
    const float *ratings;
    const size_t n = melu_dataset_ratings(set, u, NULL, &ratings);
    for (size_t i = 0; i < n; i++) {
      if (ratings[i] != 0 && ratings[i] != 1) {
        bad_data("%s: a rating is %g, but clicks are 1 or 0", path, (double)ratings[i]);
      }
    }
  }
}

const char *user_name(const struct data *data, uint32_t user) {
  return data->users ? data->users[user] : NULL;
}
