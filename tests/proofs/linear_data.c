/* SPDX-License-Identifier: BSD-3-Clause */
/* Data sets and their tables. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../flood.h"
#include "linear.h"

static const struct melu_field tags = {
    .size = sizeof tags, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .width = 2};

static melu_dataset *new_data(const struct melu_field *field, size_t n_fields) {
  melu_error err;
  melu_schema *schema;
  melu_dataset *data;
  PROOF_TRY(melu_schema_new(&schema, linear_ctx, &err));
  for (size_t i = 0; i < n_fields; i++) {
    char name[64];
    struct melu_field named = *field;
    snprintf(name, sizeof name, "%s%.0zu", field->name, i); /* the first one has the name as it is */
    named.name = name;
    PROOF_TRY(melu_schema_add(schema, &named, &err));
  }
  PROOF_TRY(melu_dataset_new(&data, linear_ctx, schema, &err));
  melu_schema_free(schema);
  return data;
}

/* ------------------------------------------------------------------------------------------------- by calls */

/* Items whose ids all have one hash, each of them found again, and rated by the one user. */
static double add_hostile_ids(size_t n) {
  melu_error err;
  uint32_t position;
  melu_dataset *data = new_data(&tags, 0);
  const double start = now_s();
  PROOF_TRY(melu_dataset_add_user(data, 1, NULL, NULL, &err));
  for (size_t i = 0; i < n; i++) PROOF_TRY(melu_dataset_add_item(data, flood_number((uint32_t)i), NULL, NULL, &err));
  for (size_t i = n; i-- > 0;) {
    PROOF_TRY(melu_dataset_find_item(&position, data, flood_number((uint32_t)i), &err));
    PROOF_NEEDS(position == i, "item %zu was found at %" PRIu32, i, position);
    PROOF_TRY(melu_dataset_add_rating(data, 1, flood_number((uint32_t)i), 3, &err));
  }
  PROOF_TRY(melu_dataset_freeze(data, &err));
  const double took = now_s() - start;
  melu_dataset_free(data);
  return took;
}

/* One rating of one item by one user, again and again. */
static double add_equal_ratings(size_t n) {
  melu_error err;
  melu_dataset *data = new_data(&tags, 0);
  PROOF_TRY(melu_dataset_add_user(data, 1, NULL, NULL, &err));
  PROOF_TRY(melu_dataset_add_item(data, 1, NULL, NULL, &err));
  const double start = now_s();
  for (size_t i = 0; i < n; i++) PROOF_TRY(melu_dataset_add_rating(data, 1, 1, 3, &err));
  PROOF_TRY(melu_dataset_freeze(data, &err));
  const double took = now_s() - start;
  melu_dataset_free(data);
  return took;
}

/* ------------------------------------------------------------------------------------------------ by tables */

/* Reads what was written to the file, which is removed. */
static double read_items(melu_dataset *data, melu_status want) {
  melu_error err = {.message = ""};
  const double start = now_s();
  const melu_status status = melu_dataset_read_items(data, linear_path("items.csv"), NULL, &err);
  const double took = now_s() - start;
  PROOF_NEEDS(status == want, "a table: %s: %s", melu_status_name(status), err.message);
  melu_dataset_free(data);
  unlink(linear_path("items.csv"));
  return took;
}

/* A text a line, all with one hash: of the vocabulary; then as ids. */
static struct growing flood_lines(size_t n, const char *format) {
  struct growing text = {NULL, 0, 0};
  for (size_t i = 0; i < n; i++) grow_text(&text, format, hostile_text(i));
  return text;
}

/* Writes the table and frees its lines. */
static void write_items(struct growing *lines, const char *header) {
  struct growing table = {NULL, 0, 0};
  grow_by(&table, header, 1);
  grow_by(&table, "\n", 1);
  if (lines->at) grow_by(&table, lines->at, 1);
  free(lines->at);
  write_text(&table, "items.csv");
}

static void write_texts(size_t n, const char *last) {
  struct growing lines = {NULL, 0, 0};
  for (size_t i = 0; i < n; i++) grow_text(&lines, "%zu,%s\n", i, hostile_text(i));
  grow_by(&lines, last, 1);
  write_items(&lines, "item,tags");
}

static double read_hostile_texts(size_t n) {
  write_texts(n, "");
  return read_items(new_data(&tags, 1), MELU_OK);
}

/* The last line takes all others back. */
static double read_and_take_back(size_t n) {
  write_texts(n, "0,once more\n");
  return read_items(new_data(&tags, 1), MELU_ESTATE);
}

static double read_hostile_names(size_t n) {
  struct growing lines = flood_lines(n, "%s\n");
  write_items(&lines, "item");
  return read_items(new_data(&tags, 0), MELU_OK);
}

/* A list of so many texts in one cell. */
static double read_long_list(size_t n) {
  struct growing lines = {NULL, 0, 0}, list = flood_lines(n, "|%s");
  grow_by(&lines, "1,", 1);
  grow_by(&lines, list.at + 1, 1);
  free(list.at);
  write_items(&lines, "item,tags");
  return read_items(new_data(&tags, 1), MELU_OK);
}

static double read_equal_list(size_t n) {
  struct growing lines = {NULL, 0, 0};
  grow_text(&lines, "1,a");
  grow_by(&lines, "|a", n - 1);
  write_items(&lines, "item,tags");
  return read_items(new_data(&tags, 1), MELU_OK);
}

/* One cell of so many quotation marks, of so many lines; so many empty lines. */
static double read_repeated(size_t n, const char *before, const char *text, const char *after) {
  struct growing lines = {NULL, 0, 0};
  grow_by(&lines, before, 1);
  grow_by(&lines, text, n);
  grow_by(&lines, after, 1);
  write_items(&lines, "item,tags");
  return read_items(new_data(&tags, 1), MELU_OK);
}

static double read_quotes(size_t n) {
  return read_repeated(n, "1,\"", "\"\"", "\"\n");
}

static double read_lines_in_a_cell(size_t n) {
  return read_repeated(n, "1,\"", "\n\xc3\xab", "\"\n");
}

static double read_empty_lines(size_t n) {
  return read_repeated(n, "", "\r\n", "");
}

static double read_digits(size_t n) {
  static const struct melu_field year = {
      .size = sizeof year, .name = "tags", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 1};
  struct growing lines = {NULL, 0, 0};
  grow_text(&lines, "1,0.");
  grow_by(&lines, "7", n);
  write_items(&lines, "item,tags");
  return read_items(new_data(&year, 1), MELU_OK);
}

/* So many fields, in the order that is not theirs, in a hundred lines. */
static double read_many_fields(size_t n) {
  struct growing lines = {NULL, 0, 0}, header = {NULL, 0, 0};
  for (size_t i = n; i-- > 0;) grow_text(&header, "tags%.0zu,", i);
  grow_text(&header, "item");
  for (int line = 0; line < 100; line++) {
    for (size_t i = n; i-- > 0;) grow_text(&lines, "a%d|b%zu|c,", line, i);
    grow_text(&lines, "%d\n", line);
  }
  write_items(&lines, header.at);
  free(header.at);
  return read_items(new_data(&tags, n), MELU_OK);
}

/* So many columns that are to be skipped. */
static double read_many_columns(size_t n) {
  static const char *const skip[] = {"one", "two", "three"};
  const struct melu_table_options options = {.size = sizeof options, .skip = skip, .n_skip = 3};
  melu_error err;
  struct growing text = {NULL, 0, 0};
  melu_dataset *data = new_data(&tags, 1);
  grow_by(&text, "three,", n);
  grow_text(&text, "item,tags\n");
  write_text(&text, "items.csv");
  const double start = now_s();
  PROOF_TRY(melu_dataset_read_items(data, linear_path("items.csv"), &options, &err));
  const double took = now_s() - start;
  melu_dataset_free(data);
  unlink(linear_path("items.csv"));
  return took;
}

/* Keys in a table are so few that the caches hold them, or there would be a step where they no longer do. */
enum { FOR_CACHES = 1 << 13, FOR_MEMORY = 1 << 22 };

const struct trap data_traps[] = {
    {"items with ids of one hash", add_hostile_ids, 1000, FOR_CACHES},
    {"equal ratings", add_equal_ratings, 1000, FOR_MEMORY},
    {"texts of one hash", read_hostile_texts, 1000, FOR_CACHES},
    {"texts of one hash that are taken back", read_and_take_back, 1000, FOR_CACHES},
    {"ids that are texts of one hash", read_hostile_names, 1000, FOR_CACHES},
    {"a list of texts of one hash in a cell", read_long_list, 1000, FOR_CACHES},
    {"a list of equal texts in a cell", read_equal_list, 1000, FOR_MEMORY},
    {"quotation marks in a cell", read_quotes, 1000, FOR_MEMORY},
    {"lines in a cell", read_lines_in_a_cell, 1000, FOR_MEMORY},
    {"empty lines", read_empty_lines, 1000, FOR_MEMORY},
    {"digits of a number", read_digits, 1000, FOR_MEMORY},
    {"fields", read_many_fields, 16, 256},
    {"columns", read_many_columns, 1000, 65000},
};
const size_t n_data_traps = sizeof data_traps / sizeof *data_traps;
