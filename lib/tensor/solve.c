/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/kernels.h"

#include <math.h>

#ifdef MELU__DOUBLE
#define EPSILON DBL_EPSILON
#define SQRT sqrt
#else
#define EPSILON FLT_EPSILON
#define SQRT sqrtf
#endif

/* y -= s x */
static void subtract(size_t n, real s, const real *restrict x, real *restrict y) {
  for (size_t j = 0; j < n; j++) y[j] -= s * x[j];
}

static void scale(size_t n, real s, real *x) {
  for (size_t j = 0; j < n; j++) x[j] *= s;
}

/* Turns the upper triangle of u, (n, n) without gaps, from that of S into that of U with U' U = S, row by row, since
 * rows are contiguous. On the diagonal it leaves the inverse of U's, which is all that later steps need. */
static int factor(size_t n, struct melu__cmat a, real *u) {
  for (size_t i = 0; i < n; i++) {
    /* A pivot is a diagonal entry of A less i squares that sum up to nearly as much: its error is up to about i
     * roundings of the entry, and one below that could as well be negative. NaN fails every comparison. */
    const real pivot = u[i * n + i], error = (real)(i + 1) * EPSILON * a.p[i * a.ld + i];
    if (!(pivot > error && pivot <= MELU__REAL_MAX)) return 0;
    const real inverse = 1 / SQRT(pivot);
    u[i * n + i] = inverse;
    scale(n - i - 1, inverse, u + i * n + i + 1);
    for (size_t r = i + 1; r < n; r++) subtract(n - r, u[i * n + r], u + i * n + r, u + r * n + r);
  }
  return 1;
}

int melu__solve_spd(size_t n, size_t m, struct melu__cmat a, struct melu__cmat b, struct melu__mat x, real *scratch) {
  real *u = scratch;
  for (size_t i = 0; i < n; i++)
    for (size_t j = i; j < n; j++) u[i * n + j] = a.p[i * a.ld + j] / 2 + a.p[j * a.ld + i] / 2;
  if (!factor(n, a, u)) return 0;
  if (m == 0) return 1;
  /* U' Y = B downwards, then U X = Y upwards, both in the place of X. */
  for (size_t i = 0; i < n; i++) {
    real *row = x.p + i * x.ld;
    for (size_t j = 0; j < m; j++) row[j] = b.p[i * b.ld + j];
    for (size_t k = 0; k < i; k++) subtract(m, u[k * n + i], x.p + k * x.ld, row);
    scale(m, u[i * n + i], row);
  }
  for (size_t i = n; i-- > 0;) {
    real *row = x.p + i * x.ld;
    for (size_t k = i + 1; k < n; k++) subtract(m, u[i * n + k], x.p + k * x.ld, row);
    scale(m, u[i * n + i], row);
  }
  return 1;
}
