/* SPDX-License-Identifier: BSD-3-Clause */
#include "serve/own_rows.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/kernels.h"

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Sorts n ids, each of which then stands once; returns how many there are. */
static size_t sort_ids(uint32_t *ids, size_t n) {
  size_t n_left = 0;
  qsort(ids, n, sizeof *ids, ascending);
  for (size_t i = 0; i < n; i++)
    if (i == 0 || ids[i] != ids[n_left - 1]) ids[n_left++] = ids[i];
  return n_left;
}

/* Appends the ids that n items have in one field. */
static int add_ids(struct melu__own_rows *own, const struct melu_allocator *a, const struct melu__column *column,
                   const uint32_t *items, size_t n, size_t *n_ids) {
  const size_t first = *n_ids;
  for (size_t i = 0; i < n; i++) {
    size_t k;
    const uint32_t *ids = melu__column_ids(column, items[i], &k);
    if (k == 0) continue;
    if (!melu__grow(a, &own->ids, &own->ids_capacity, *n_ids, *n_ids + k, sizeof *own->ids)) return 0;
    memcpy(own->ids + *n_ids, ids, k * sizeof *ids);
    *n_ids += k;
  }
  if (*n_ids > first) *n_ids = first + sort_ids(own->ids + first, *n_ids - first);
  return 1;
}

int melu__own_rows_find(struct melu__own_rows *own, const melu_model *model, const melu_dataset *data,
                        const uint32_t *items, size_t n) {
  const struct melu_allocator *a = &model->ctx->allocator;
  const struct melu__table *known = &data->tables[MELU_ITEM];
  struct melu__own_field *field = own->fields;
  size_t n_ids = 0;
  own->n_numbers = 0;
  memset(own->fields, 0, sizeof own->fields);
  for (size_t i = 0; i < known->n_columns; i++) {
    if (melu__has_numbers(known->columns[i].field)) continue;
    *field = (struct melu__own_field){.first_id = n_ids, .first_number = own->n_numbers};
    if (!add_ids(own, a, &known->columns[i], items, n, &n_ids)) return 0;
    field->n = n_ids - field->first_id;
    own->n_numbers += field->n * known->columns[i].field->width;
    field++;
  }
  if (!melu__grow(a, &own->numbers, &own->numbers_capacity, 0, own->n_numbers, sizeof *own->numbers)) return 0;
  if (own->n_numbers) memset(own->numbers, 0, own->n_numbers * sizeof *own->numbers);
  return 1;
}

/* The row of an id; NULL if the user has none of her own. */
static real *find_row(const struct melu__own_rows *own, const struct melu__own_field *field, size_t width,
                      uint32_t id) {
  if (field->n == 0) return NULL;
  const uint32_t *ids = own->ids + field->first_id;
  size_t low = 0, high = field->n;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (ids[middle] < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < field->n && ids[low] == id ? own->numbers + field->first_number + low * width : NULL;
}

/* to += s from */
static void add(const melu_model *model, size_t width, real s, const real *from, real *to) {
  model->ctx->kernels->axpy(1, width, s, (struct melu__cmat){from, width}, (struct melu__mat){to, width});
}

/* What one item and its rows exchange: with `moved` its row's share goes to them, else theirs come to x. */
static void exchange(const struct melu__own_rows *own, const melu_model *model, const melu_dataset *data, uint32_t item,
                     const real *moved, real *x) {
  const struct melu__table *known = &data->tables[MELU_ITEM];
  const struct melu__own_field *field = own->fields;
  for (size_t i = 0, col = 0; i < known->n_columns; i++) {
    const struct melu__column *column = &known->columns[i];
    const size_t width = column->field->width;
    if (!melu__has_numbers(column->field)) {
      size_t n;
      const uint32_t *ids = melu__column_ids(column, item, &n);
      const real divisor = (real)melu__cell_divisor(column->field, n);
      for (size_t k = 0; k < n; k++) {
        real *row = find_row(own, field, width, ids[k]);
        if (row && moved) add(model, width, -1 / divisor, moved + col, row);
        if (row && x) add(model, width, 1 / divisor, row, x + col);
      }
      field++;
    }
    col += width;
  }
}

void melu__own_rows_move(struct melu__own_rows *own, const melu_model *model, const melu_dataset *data,
                         const uint32_t *items, size_t n, const real *moved) {
  for (size_t i = 0; i < n; i++) exchange(own, model, data, items[i], moved + i * model->item_width, NULL);
}

void melu__own_rows_add(const struct melu__own_rows *own, const melu_model *model, const melu_dataset *data,
                        const uint32_t *items, size_t n, real *x) {
  if (own->n_numbers == 0) return;
  for (size_t i = 0; i < n; i++) exchange(own, model, data, items[i], NULL, x + i * model->item_width);
}

void melu__own_rows_free(struct melu__own_rows *own, const struct melu_allocator *alloc) {
  melu__free(alloc, own->ids);
  melu__free(alloc, own->numbers);
}
