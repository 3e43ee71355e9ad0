/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/overlap.h"

size_t melu__overlap_size(const melu_model *model, size_t n_rows, size_t n_support) {
  if (!(model->options.adapt & MELU_ADAPT_ITEMS)) return 0;
  return melu__size_mul(melu__n_item_tables(model->schema), melu__size_mul(n_rows, n_support));
}

/* Equal pairs of two lists of ids, over the number of all. */
static real share(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b) {
  size_t n = 0;
  for (size_t i = 0; i < n_a; i++)
    for (size_t j = 0; j < n_b; j++) n += a[i] == b[j];
  return n ? (real)n / ((real)n_a * (real)n_b) : 0;
}

static uint32_t item_of(const struct melu__rated *rated, size_t row) {
  return rated->items[rated->positions ? rated->positions[row] : row];
}

static void fill(real *out, const struct melu__column *column, const struct melu__rated *rated, size_t first,
                 size_t n_rows, size_t n_support) {
  for (size_t i = 0; i < n_rows; i++) {
    size_t n_a, n_b;
    const uint32_t *a = melu__column_ids(column, item_of(rated, first + i), &n_a);
    for (size_t j = 0; j < n_support; j++) {
      const uint32_t *b = melu__column_ids(column, item_of(rated, j), &n_b);
      out[i * n_support + j] = share(a, n_a, b, n_b);
    }
  }
}

real *melu__overlap(real **slots, const melu_model *model, const melu_dataset *data, const struct melu__rated *rated,
                    size_t first, size_t n_rows, size_t n_support, real *memory) {
  const struct melu__table *items = &data->tables[MELU_ITEM];
  if (!(model->options.adapt & MELU_ADAPT_ITEMS)) return memory;
  for (size_t i = 0; i < items->n_columns; i++) {
    if (items->columns[i].field->kind == MELU_NUMERIC) continue;
    fill(memory, &items->columns[i], rated, first, n_rows, n_support);
    *slots++ = memory;
    memory += n_rows * n_support;
  }
  return memory;
}
