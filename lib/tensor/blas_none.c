/* SPDX-License-Identifier: BSD-3-Clause */
/* No BLAS: our own tiles make all products. The plain one here is for who asks for it by name, as the tests do. */
#include <stdio.h>

#include "tensor/blas.h"

enum { SIDE = 4 };

void melu__blas_name(char *text, size_t n) {
  snprintf(text, n, "no BLAS");
}

const char *melu__blas_start(void) {
  return "not needed";
}

static void run(const struct melu__tile *t, size_t k, real *a, real *b, real *c) {
  (void)t;
  for (size_t i = 0; i < SIDE; i++)
    for (size_t j = 0; j < SIDE; j++) {
      real sum = 0;
      for (size_t p = 0; p < k; p++) sum += a[p * SIDE + i] * b[p * SIDE + j];
      c[i * SIDE + j] = sum;
    }
}

struct melu__tile melu__blas_tile(void) {
  return (struct melu__tile){.run = run,
                             .rows = SIDE,
                             .cols = SIDE,
                             .panel_rows = SIDE,
                             .panel_cols = SIDE,
                             .row_stride = SIDE,
                             .col_stride = 1};
}

int melu__blas_is_fast(const struct melu__tile *t) {
  (void)t;
  return 0;
}
