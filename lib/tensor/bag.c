/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/kernels.h"

/* y += s x */
static void add_scaled(size_t n, real s, const real *restrict x, real *restrict y) {
  for (size_t j = 0; j < n; j++) y[j] += s * x[j];
}

static void clear(size_t n, real *x) {
  for (size_t j = 0; j < n; j++) x[j] = 0;
}

void melu__bag(size_t n_bags, size_t cols, struct melu__cmat table, struct melu__bags bags, struct melu__mat out) {
  if (cols == 0) return;
  for (size_t i = 0; i < n_bags; i++) {
    const uint32_t begin = bags.offsets[i], end = bags.offsets[i + 1];
    const real weight = begin < end ? 1 / (real)(end - begin) : 0;
    real *row = out.p + i * out.ld;
    clear(cols, row);
    for (uint32_t k = begin; k < end; k++) add_scaled(cols, weight, table.p + bags.ids[k] * table.ld, row);
  }
}

void melu__bag_t(size_t n_bags, size_t cols, struct melu__cmat a, struct melu__bags bags, size_t n_table_rows,
                 struct melu__mat table) {
  if (cols == 0) return;
  for (size_t r = 0; r < n_table_rows; r++) clear(cols, table.p + r * table.ld);
  for (size_t i = 0; i < n_bags; i++) {
    const uint32_t begin = bags.offsets[i], end = bags.offsets[i + 1];
    for (uint32_t k = begin; k < end; k++)
      add_scaled(cols, 1 / (real)(end - begin), a.p + i * a.ld, table.p + bags.ids[k] * table.ld);
  }
}
