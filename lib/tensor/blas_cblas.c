/* SPDX-License-Identifier: BSD-3-Clause */
/* Any BLAS with a C interface, by products of one size, so that a row has the same bits among any others. What such a
 * library does about memory, threads and the environment is its own affair: docs/packaging.md. */
#include <cblas.h>
#include <stdio.h>

#include "tensor/blas.h"

#ifdef MELU__DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

void melu__blas_name(char *text, size_t n) {
  snprintf(text, n, "CBLAS");
}

const char *melu__blas_start(void) {
  return "used";
}

static void run(const struct melu__tile *t, size_t k, real *a, real *b, real *c) {
  GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)t->rows, (int)t->cols, (int)k, 1, a, (int)t->panel_rows, b,
       (int)t->panel_cols, 0, c, (int)t->row_stride);
}

struct melu__tile melu__blas_tile(void) {
  return (struct melu__tile){.run = run,
                             .rows = MELU__TILE_SIDE,
                             .cols = MELU__TILE_SIDE,
                             .panel_rows = MELU__TILE_SIDE,
                             .panel_cols = MELU__TILE_SIDE,
                             .row_stride = MELU__TILE_SIDE,
                             .col_stride = 1};
}

int melu__blas_is_fast(const struct melu__tile *t) {
  (void)t;
  return 1;
}
