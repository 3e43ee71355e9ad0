/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/gemm.h"

#include <stdalign.h>

#include "tensor/blas.h"

/* Where op(B) is much larger than a second-level cache, packing both operands is earned back. */
enum { LARGE_SIDE = 512, LARGE_AREA = 1 << 19 };

/* What is packed lies on the stack, which may be small: rows of A, and the columns of one tile. */
enum { BLOCK_K = 128, BLOCK_ROWS = 64, LINE = 64 };

int melu__blas_takes(size_t n, size_t k) {
  if (n < LARGE_SIDE || k < LARGE_SIDE || n < LARGE_AREA / k) return 0;
  const struct melu__tile t = melu__blas_tile();
  return melu__blas_is_fast(&t);
}

static size_t min_size(size_t a, size_t b) {
  return a < b ? a : b;
}

/* to (k, panel) := op(from) (k, n), zeros beyond n. */
static void pack(const struct melu__kernels *kernels, int transpose, size_t k, size_t n, struct melu__cmat from,
                 size_t panel, real *to) {
  if (transpose)
    kernels->transpose(n, k, from, (struct melu__mat){to, panel});
  else
    kernels->copy(k, n, from, (struct melu__mat){to, panel});
  kernels->fill(k, panel - n, 0, (struct melu__mat){to + n, panel});
}

/* C (rows, cols) := alpha A B of packed A, all its tiles, and B. A whole tile goes the way of those at the edges: a row
 * has the same bits everywhere. */
static void run_tiles(const struct melu__tile *t, size_t rows, size_t cols, size_t k, real alpha, real *a, real *b,
                      int accumulate, real *c, size_t ld) {
  alignas(LINE) real aside[MELU__TILE_SIDE * MELU__TILE_SIDE];
  for (size_t first = 0; first < rows; first += t->rows, a += t->panel_rows * BLOCK_K) {
    t->run(t, k, a, b, aside);
    for (size_t i = 0; i < min_size(t->rows, rows - first); i++, c += ld)
      for (size_t j = 0; j < cols; j++) {
        const real x = alpha * aside[i * t->row_stride + j * t->col_stride];
        c[j] = accumulate ? c[j] + x : x;
      }
  }
}

void melu__blas_gemm(const struct melu__kernels *kernels, int trans_a, int trans_b, size_t m, size_t n, size_t k,
                     real alpha, struct melu__cmat a, struct melu__cmat b, int accumulate, struct melu__mat c) {
  alignas(LINE) real pack_a[BLOCK_ROWS * BLOCK_K + MELU__TILE_BEYOND],
      pack_b[MELU__TILE_SIDE * BLOCK_K + MELU__TILE_BEYOND];
  const struct melu__tile t = melu__blas_tile();
  const size_t block_rows = BLOCK_ROWS / t.panel_rows * t.rows;
  const size_t a_row = trans_a ? 1 : a.ld, a_k = trans_a ? a.ld : 1;
  const size_t b_col = trans_b ? b.ld : 1, b_k = trans_b ? 1 : b.ld;
  for (size_t steps, p = 0; p < k; p += steps) {
    steps = min_size(BLOCK_K, k - p);
    for (size_t rows, first = 0; first < m; first += rows) {
      rows = min_size(block_rows, m - first);
      for (size_t i = 0; i < rows; i += t.rows)
        pack(kernels, !trans_a, steps, min_size(t.rows, rows - i),
             (struct melu__cmat){a.p + (first + i) * a_row + p * a_k, a.ld}, t.panel_rows,
             pack_a + i / t.rows * t.panel_rows * BLOCK_K);
      for (size_t cols, j = 0; j < n; j += cols) {
        cols = min_size(t.cols, n - j);
        pack(kernels, trans_b, steps, cols, (struct melu__cmat){b.p + p * b_k + j * b_col, b.ld}, t.panel_cols, pack_b);
        run_tiles(&t, rows, cols, steps, alpha, pack_a, pack_b, accumulate, c.p + first * c.ld + j, c.ld);
      }
    }
    accumulate = 1;
  }
}
