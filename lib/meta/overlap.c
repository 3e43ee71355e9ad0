/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/overlap.h"

size_t melu__overlap_size(const melu_model *model, size_t n_rows, size_t n_support) {
  if (!(model->options.adapt & MELU_ADAPT_ITEMS)) return 0;
  return melu__size_mul(melu__n_item_tables(model->schema), melu__size_mul(n_rows, n_support));
}

/* The ids of an item, in ascending order if the column has them so. */
struct list {
  const uint32_t *ids;
  size_t n;
};

static struct list list_of(const struct melu__column *column, uint32_t item) {
  struct list list;
  list.ids = melu__column_ids(column, item, &list.n);
  if (list.ids && column->sorted) list.ids = column->sorted + column->offsets[item];
  return list;
}

/* As many pairs as the product of two lists' lengths: more than a size_t of 32 bits may hold. */
static uint64_t equal_pairs(struct list a, struct list b) {
  uint64_t n = 0;
  for (size_t i = 0; i < a.n; i++)
    for (size_t j = 0; j < b.n; j++) n += a.ids[i] == b.ids[j];
  return n;
}

/* How often the list has the id that it has at i, which is the first of them. */
static size_t count_equal(struct list list, size_t i) {
  size_t n = 1;
  while (i + n < list.n && list.ids[i + n] == list.ids[i]) n++;
  return n;
}

static uint64_t equal_pairs_sorted(struct list a, struct list b) {
  uint64_t n = 0;
  for (size_t i = 0, j = 0; i < a.n && j < b.n;) {
    const size_t of_a = count_equal(a, i), of_b = count_equal(b, j);
    const uint32_t x = a.ids[i], y = b.ids[j];
    if (x == y) n += (uint64_t)of_a * of_b;
    if (x <= y) i += of_a;
    if (y <= x) j += of_b;
  }
  return n;
}

/* Equal pairs of two items' ids, each for what it counts. */
static real share(const struct melu__column *column, struct list a, struct list b) {
  const uint64_t n = column->sorted ? equal_pairs_sorted(a, b) : equal_pairs(a, b);
  return n ? (real)n / ((real)melu__cell_divisor(column->field, a.n) * (real)melu__cell_divisor(column->field, b.n))
           : 0;
}

static uint32_t item_of(const struct melu__rated *rated, size_t row) {
  return rated->items[rated->positions ? rated->positions[row] : row];
}

static void fill(real *out, const struct melu__column *column, const struct melu__rated *rated, size_t first,
                 size_t n_rows, size_t n_support) {
  for (size_t i = 0; i < n_rows; i++) {
    const struct list list = list_of(column, item_of(rated, first + i));
    for (size_t j = 0; j < n_support; j++)
      out[i * n_support + j] = share(column, list, list_of(column, item_of(rated, j)));
  }
}

real *melu__overlap(real **slots, const melu_model *model, const melu_dataset *data, const struct melu__rated *rated,
                    size_t first, size_t n_rows, size_t n_support, real *memory) {
  const struct melu__table *items = &data->tables[MELU_ITEM];
  if (!(model->options.adapt & MELU_ADAPT_ITEMS)) return memory;
  for (size_t i = 0; i < items->n_columns; i++) {
    if (melu__has_numbers(items->columns[i].field)) continue;
    fill(memory, &items->columns[i], rated, first, n_rows, n_support);
    *slots++ = memory;
    memory += n_rows * n_support;
  }
  return memory;
}
