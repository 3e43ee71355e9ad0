/* SPDX-License-Identifier: BSD-3-Clause */
#include "infer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KIND_SKIP = MELU_NUMERIC + 1, N_KINDS };
static melu_error err;
static const char *const kind_names[N_KINDS] = {"one", "many", "numeric", "skip"};

/* All cells of a column that are not missing. */
struct cells {
  size_t n, capacity;
  const char **at;
};

/* -------------------------------------------------------------------------------- what the user said of a field */

/* The override of a column, -1 if there is none; the last of several counts. */
static int find_override(struct overrides *overrides, const char *name) {
  int found = -1;
  const size_t n = strlen(name);
  for (int i = 0; i < MAX_OVERRIDES && overrides->texts[i]; i++) {
    const char *text = overrides->texts[i];
    if (strncmp(text, name, n) != 0 || text[n] != '=') continue;
    overrides->used[i] = 1;
    found = i;
  }
  return found;
}

static void check_overrides(const struct overrides *overrides) {
  for (int i = 0; i < MAX_OVERRIDES && overrides->texts[i]; i++) {
    if (overrides->used[i]) continue;
    bad_usage(overrides->usage, "--field %s: there is no such column (NAME=one, many, numeric or skip)",
              overrides->texts[i]);
  }
}

/* The kind that an override says, and the width if it says one. */
static size_t read_override(size_t *width, const struct overrides *overrides, int index) {
  char kind[16];
  const char *text = strchr(overrides->texts[index], '=') + 1, *colon = strchr(text, ':');
  snprintf(kind, sizeof kind, "%.*s", (int)(colon ? colon - text : 15), text);
  if (colon) sizes_option(width, 1, overrides->usage, "--field", colon + 1, 1, 0);
  return choice_option(overrides->usage, "--field", kind, kind_names, N_KINDS);
}

/* ---------------------------------------------------------------------------------------------- looking at cells */

static int are_numbers(const struct cells *cells) {
  double x;
  for (size_t i = 0; i < cells->n; i++)
    if (!parse_real(&x, cells->at[i])) return 0;
  return cells->n > 0;
}

static int have_lists(const struct cells *cells) {
  for (size_t i = 0; i < cells->n; i++)
    if (strchr(cells->at[i], '|')) return 1;
  return 0;
}

static int compare_texts(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* How many different texts there are. Sorts the cells. */
static size_t n_different(struct cells *cells) {
  size_t n = cells->n > 0;
  qsort(cells->at, cells->n, sizeof *cells->at, compare_texts);
  for (size_t i = 1; i < cells->n; i++) n += strcmp(cells->at[i - 1], cells->at[i]) != 0;
  return n;
}

/* Numbers enter the network with a mean of 0 and a spread of 1; those of a wider field are separated by '|' and share
 * shift and scale. What is no number is left to the reader's message, which has the line. */
static void set_scale(struct melu_field *field, const struct cells *cells) {
  double n = 0, mean = 0, squares = 0;
  for (size_t i = 0; i < cells->n; i++) {
    char *end;
    for (const char *at = cells->at[i]; *at; at = *end == '|' ? end + 1 : end) {
      const double x = strtod(at, &end);
      if (end == at || !isfinite(x)) break;
      const double difference = x - mean;
      mean += difference / ++n;
      squares += difference * (x - mean);
    }
  }
  const double spread = n > 0 ? sqrt(squares / n) : 0;
  field->shift = mean;
  field->scale = spread > 0 ? 1 / spread : 1;
}

/* ------------------------------------------------------------------------------------------------------ the plan */

static void decide(struct column_plan *column, struct cells *cells, struct overrides *overrides, int is_id) {
  struct melu_field *field = &column->field;
  const int override = find_override(overrides, column->name);
  size_t kind = are_numbers(cells) && !is_id ? MELU_NUMERIC : have_lists(cells) && !is_id ? MELU_MANY : MELU_ONE;
  if (override >= 0) {
    kind = read_override(&field->width, overrides, override);
    column->skipped = kind == KIND_SKIP ? "as --field says" : NULL;
  } else if (!is_id) {
    const size_t n = n_different(cells);
    if (n < 2) column->skipped = n ? "all the same" : "no values";
    if (n > 1 && n == cells->n && kind == MELU_ONE) column->skipped = "no two the same";
  }
  if (column->skipped) return;
  field->kind = (melu_field_kind)kind;
  if (kind == MELU_NUMERIC) set_scale(field, cells);
}

/* Reads the file once. */
static void infer_fields(struct field_plan *plan, const char *path, const char *id, melu_owner owner, int id_is_field,
                         struct overrides *overrides) {
  struct table table;
  table_open(&table, path);
  const size_t id_column = table_column(&table, id, owner == MELU_ITEM ? "--item-column" : "--user-column");
  struct cells *cells = get_memory(table.n_columns, sizeof *cells);
  while (table_next(&table)) {
    for (size_t c = 0; c < table.n_columns; c++) {
      if (is_missing(table.cells[c])) continue;
      cells[c].at = grow(cells[c].at, cells[c].n, &cells[c].capacity, sizeof *cells[c].at);
      cells[c].at[cells[c].n++] = table.cells[c];
    }
  }
  plan->n_columns = table.n_columns;
  plan->columns = get_memory(table.n_columns, sizeof *plan->columns);
  for (size_t c = 0; c < table.n_columns; c++) {
    struct column_plan *column = &plan->columns[c];
    char *name = copy_text(table.names[c]);
    *column = (struct column_plan){.name = name, .field = {.size = sizeof column->field, .name = name, .owner = owner}};
    if (c == id_column && !id_is_field) column->skipped = "the id";
    decide(column, &cells[c], overrides, c == id_column);
    free(cells[c].at);
  }
  free(cells);
  table_free(&table);
}

void field_plan_free(struct field_plan *plan) {
  for (size_t c = 0; c < plan->n_columns; c++) free(plan->columns[c].name);
  free(plan->columns);
  *plan = (struct field_plan){0};
}

/* Appends the plan's fields to a schema. */
static void add_fields(melu_schema *schema, const struct field_plan *plan) {
  for (size_t c = 0; c < plan->n_columns; c++) {
    if (plan->columns[c].skipped) continue;
    const melu_status status = melu_schema_add(schema, &plan->columns[c].field, &err);
    if (status != MELU_OK) {
      bad_data("column \"%s\" cannot be a field: %s; rename it, or leave it out with --field '%s=skip'",
               plan->columns[c].name, err.message, plan->columns[c].name);
    }
  }
}

melu_schema *infer_schema(struct field_plan plans[2], const melu_context *ctx, const struct files *files,
                          int id_is_field, struct overrides *overrides) {
  melu_schema *schema;
  infer_fields(&plans[MELU_ITEM], files->items, files->item_column, MELU_ITEM, id_is_field, overrides);
  if (files->users) infer_fields(&plans[MELU_USER], files->users, files->user_column, MELU_USER, 0, overrides);
  check_overrides(overrides);
  check(melu_schema_new(&schema, ctx, &err), &err);
  add_fields(schema, &plans[MELU_ITEM]);
  add_fields(schema, &plans[MELU_USER]);
  return schema;
}

/* --------------------------------------------------------------------------------------------- what is printed */

static json_t *column_json(const struct column_plan *column, const melu_schema *schema, size_t *index) {
  const char *owner = column->field.owner == MELU_ITEM ? "item" : "user";
  if (column->skipped) {
    return json_pack("{s:s, s:s, s:s, s:s}", "column", column->name, "owner", owner, "kind", "skip", "why",
                     column->skipped);
  }
  struct melu_field field = {.size = sizeof field};
  check(melu_schema_field(&field, schema, column->field.owner, (*index)++, &err), &err);
  if (field.kind == MELU_NUMERIC) {
    return json_pack("{s:s, s:s, s:s, s:I, s:f, s:f}", "column", column->name, "owner", owner, "kind",
                     kind_names[field.kind], "width", (json_int_t)field.width, "shift", field.shift, "scale",
                     field.scale);
  }
  return json_pack("{s:s, s:s, s:s, s:I, s:I}", "column", column->name, "owner", owner, "kind", kind_names[field.kind],
                   "width", (json_int_t)field.width, "values", (json_int_t)field.n_values);
}

void print_columns(const json_t *columns, const char *path) {
  size_t i;
  const json_t *column;
  printf("%s\n", path);
  json_array_foreach(columns, i, column) {
    const char *kind = json_string_value(json_object_get(column, "kind"));
    printf("  %-20s %-8s", json_string_value(json_object_get(column, "column")), kind);
    if (strcmp(kind, "skip") == 0) {
      printf(" %s\n", json_string_value(json_object_get(column, "why")));
    } else if (strcmp(kind, "numeric") == 0) {
      printf(" (x - %.4g) * %.4g\n", json_number_value(json_object_get(column, "shift")),
             json_number_value(json_object_get(column, "scale")));
    } else {
      printf(" %lld values\n", (long long)json_integer_value(json_object_get(column, "values")));
    }
  }
}

json_t *plan_json(const struct field_plan *plan, const melu_schema *schema) {
  json_t *columns = json_array();
  size_t index = 0;
  for (size_t c = 0; c < plan->n_columns; c++) {
    if (json_array_append_new(columns, column_json(&plan->columns[c], schema, &index)) != 0) give_up("out of memory");
  }
  return columns;
}
