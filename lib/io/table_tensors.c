/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/table_tensors.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"

/* ---------------------------------------------------------------------------------------------------- names */

static struct melu__tensor_name ids_name(melu_owner owner) {
  struct melu__tensor_name name;
  snprintf(name.text, sizeof name.text, "%s.ids", melu__owner_names[owner]);
  return name;
}

static struct melu__tensor_name column_name(melu_owner owner, const struct melu__field *field, const char *part) {
  struct melu__tensor_name name;
  snprintf(name.text, sizeof name.text, "%s.%s.%s", melu__owner_names[owner], field->name, part);
  return name;
}

/* The cells of a column, as far as they do not depend on the file. */
static struct melu__tensor cells_of(const struct melu__field *field, size_t n) {
  if (melu__has_numbers(field))
    return (struct melu__tensor){.dtype = MELU__FLOAT, .n_dims = 2, .dims = {n, field->width}};
  return (struct melu__tensor){.dtype = MELU__U32, .n_dims = 1, .dims = {n}};
}

static const char *cells_part(const struct melu__field *field) {
  return melu__has_numbers(field) ? "numbers" : "ids";
}

/* ---------------------------------------------------------------------------------------------------- writing */

static void add(struct melu__table_tensors *t, struct melu__tensor_name name, struct melu__tensor tensor,
                const void *data) {
  t->names[t->n] = name;
  tensor.name = t->names[t->n].text;
  tensor.data = data;
  t->at[t->n++] = tensor;
}

static void add_column(struct melu__table_tensors *t, const struct melu__column *column, melu_owner owner, size_t n) {
  const struct melu__tensor offsets = {.dtype = MELU__U32, .n_dims = 1, .dims = {n + 1}};
  const void *cells = column->numbers;
  if (!melu__has_numbers(column->field)) cells = column->given ? column->given : column->ids;
  add(t, column_name(owner, column->field, "offsets"), offsets, column->offsets);
  add(t, column_name(owner, column->field, cells_part(column->field)), cells_of(column->field, column->offsets[n]),
      cells);
}

int melu__table_tensors_make(struct melu__table_tensors *t, const struct melu_allocator *a,
                             const struct melu__table *table, melu_owner owner, size_t n_more) {
  const size_t n = melu__n_table_tensors(table->n_columns);
  const struct melu__tensor ids = {.dtype = MELU__U64, .n_dims = 1, .dims = {table->n}};
  *t = (struct melu__table_tensors){.alloc = a};
  t->at = melu__alloc(a, n + n_more, sizeof *t->at);
  t->names = melu__alloc(a, n, sizeof *t->names);
  t->ids = melu__alloc(a, table->n, sizeof *t->ids);
  if (!t->at || !t->names || !t->ids) return 0;
  for (uint32_t i = 0; i < table->n; i++) t->ids[i] = melu__table_id(table, i);
  add(t, ids_name(owner), ids, t->ids);
  for (size_t c = 0; c < table->n_columns; c++) add_column(t, &table->columns[c], owner, table->n);
  return 1;
}

void melu__table_tensors_free(struct melu__table_tensors *t) {
  melu__free(t->alloc, t->at);
  melu__free(t->alloc, t->names);
  melu__free(t->alloc, t->ids);
}

/* ---------------------------------------------------------------------------------------------------- reading */

melu_status melu__table_ids_load(uint64_t **ids, const struct melu__safetensors *file, melu_owner owner, size_t n,
                                 melu_error *err) {
  const struct melu__tensor_name name = ids_name(owner);
  const struct melu__tensor wanted = {.name = name.text, .dtype = MELU__U64, .n_dims = 1, .dims = {n}};
  *ids = NULL;
  const melu_status status = melu__safetensors_expect(file, &wanted, err);
  if (status) return status;
  *ids = melu__alloc(&file->ctx->allocator, n, sizeof **ids);
  if (!*ids) return melu__fail_memory(err);
  melu__safetensors_copy(*ids, file, name.text);
  return MELU_OK;
}

melu_status melu__offsets_load(uint32_t **offsets, size_t *n_all, const struct melu__safetensors *file,
                               const char *name, size_t n, melu_error *err) {
  const struct melu_allocator *a = &file->ctx->allocator;
  const struct melu__tensor wanted = {.name = name, .dtype = MELU__U32, .n_dims = 1, .dims = {n + 1}};
  *offsets = NULL;
  const melu_status status = melu__safetensors_expect(file, &wanted, err);
  if (status) return status;
  uint32_t *at = melu__alloc(a, n + 1, sizeof *at);
  if (!at) return melu__fail_memory(err);
  melu__safetensors_copy(at, file, name);
  size_t i = 0;
  while (at[0] == 0 && i < n && at[i] <= at[i + 1]) i++;
  if (at[0] != 0 || i < n) {
    melu__free(a, at);
    return melu__fail_at(err, MELU_EFORMAT, i, "tensor \"%s\": offset %zu is not from 0 on upwards", name, i);
  }
  *offsets = at;
  *n_all = at[n];
  return MELU_OK;
}

/* The column has the offsets of an empty table. */
static melu_status load_column(struct melu__column *column, const struct melu__safetensors *file, melu_owner owner,
                               size_t n, melu_error *err) {
  const struct melu_allocator *a = &file->ctx->allocator;
  const struct melu__field *field = column->field;
  const struct melu__tensor_name offsets_name = column_name(owner, field, "offsets"),
                                 cells_name = column_name(owner, field, cells_part(field));
  size_t n_cells;
  melu__free(a, column->offsets);
  column->offsets_capacity = 0;
  melu_status status = melu__offsets_load(&column->offsets, &n_cells, file, offsets_name.text, n, err);
  if (status) return status;
  struct melu__tensor cells = cells_of(field, n_cells);
  cells.name = cells_name.text;
  status = melu__safetensors_expect(file, &cells, err);
  if (status || n_cells == 0) return status;
  if (melu__has_numbers(field)) {
    column->numbers = melu__alloc(a, n_cells, field->width * sizeof *column->numbers);
    if (!column->numbers) return melu__fail_memory(err);
    melu__safetensors_copy_floats(column->numbers, file, cells.name);
  } else {
    column->ids = melu__alloc(a, n_cells, sizeof *column->ids);
    if (!column->ids) return melu__fail_memory(err);
    melu__safetensors_copy(column->ids, file, cells.name);
  }
  return MELU_OK;
}

static int ascending(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static melu_status check_distinct(const uint64_t *ids, size_t n, melu_owner owner, const struct melu_allocator *a,
                                  melu_error *err) {
  melu_status status = MELU_OK;
  uint64_t *sorted = melu__alloc(a, n, sizeof *sorted);
  if (!sorted) return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) sorted[i] = ids[i];
  qsort(sorted, n, sizeof *sorted, ascending);
  for (size_t i = 1; i < n && !status; i++)
    if (sorted[i - 1] == sorted[i])
      status = melu__fail(err, MELU_EFORMAT, "%s %llu is there twice", melu__owner_names[owner],
                          (unsigned long long)sorted[i]);
  melu__free(a, sorted);
  return status;
}

/* Host's ids are checked last, and then taken: they are what the table is searched by. */
static melu_status check_values(const struct melu__table *table, const melu_schema *schema, melu_owner owner,
                                const uint64_t *ids, size_t n, melu_error *err) {
  struct melu_value values[MELU__MAX_FIELDS];
  melu_status status = MELU_OK;
  for (size_t i = 0; i < n && !status; i++) {
    melu__table_values(values, table, (uint32_t)i);
    status = melu__values_check(schema, owner, &ids[i], values, err);
  }
  return status;
}

melu_status melu__table_load(struct melu__table *table, const struct melu__safetensors *file, const melu_schema *schema,
                             melu_owner owner, const uint64_t *ids, size_t n, melu_error *err) {
  const struct melu_allocator *a = &file->ctx->allocator;
  melu_status status = melu__table_init(table, a, schema, owner) ? MELU_OK : melu__fail_memory(err);
  for (size_t c = 0; c < table->n_columns && !status; c++)
    status = load_column(&table->columns[c], file, owner, n, err);
  if (!status) status = check_values(table, schema, owner, ids, n, err);
  if (!status) status = check_distinct(ids, n, owner, a, err);
  for (size_t i = 0; i < n && !status; i++)
    if (melu__vocab_add(table->keys, &ids[i], sizeof ids[i], NULL) == MELU__NO_INDEX) status = melu__fail_memory(err);
  if (!status) table->n = n;
  return status;
}
