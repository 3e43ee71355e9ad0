/* SPDX-License-Identifier: BSD-3-Clause */
/* What gemm.c needs of a BLAS: a product of two packed panels. One of blas_blis.c, blas_cblas.c and blas_none.c is
 * built, by the option "blas" of the build. */
#ifndef MELU__BLAS_H
#define MELU__BLAS_H

#include <stddef.h>

#include "tensor/real.h"

enum {
  MELU__TILE_SIDE = 32,  /* the most rows or columns of a tile; those of BLIS have up to 32 */
  MELU__TILE_BEYOND = 64 /* kernels load the next vectors before they know that there are none */
};

/* C (rows, cols) := A' B of packed A (k, panel_rows) and B (k, panel_cols); C (i, j) is at i row_stride + j col_stride.
 * A row of C has the same bits whichever of its rows it is. */
struct melu__tile {
  void (*run)(const struct melu__tile *tile, size_t k, real *a, real *b, real *c);
  size_t rows, cols, panel_rows, panel_cols;
  size_t row_stride, col_stride;
  void (*kernel)(void); /* of the BLAS, with what it wants to know */
  void *about;
};

/* Writes its name, e.g. "BLIS 0.9.0", to text (n). Needs no start. */
void melu__blas_name(char *text, size_t n);

/* Has the BLAS initialise itself, once in a process however often it is called and from however many threads, and
 * returns what it chose for this CPU, e.g. "zen3". NULL if memory is short: BLIS would end the process, so it is not
 * started then. After it no call here needs memory of BLIS. */
const char *melu__blas_start(void);

struct melu__tile melu__blas_tile(void);

/* Whether its large products are faster than our own. */
int melu__blas_is_fast(const struct melu__tile *tile);

#endif
