/* SPDX-License-Identifier: BSD-3-Clause */
/* The numeric work, as a table of functions on row-major matrices: one source (kernels.inc), compiled for several
 * instruction sets; the best one that the CPU has is chosen when a context is made (melu__context_choose_kernels).
 *
 * Every matrix is (rows, cols) with a leading dimension `ld` >= cols: element (i, j) is at p[i * ld + j]. Any size may
 * be 0. Outputs may be the very same matrix as an input of the same shape in the element-wise functions, and must not
 * overlap an input in the others. No function allocates, locks or reads anything beyond the stated elements. A result
 * never depends on the number of threads, and a row of a product never on how many other rows there are. */
#ifndef MELU__KERNELS_H
#define MELU__KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/real.h"

struct melu__mat {
  real *p;
  size_t ld;
};
struct melu__cmat {
  const real *p;
  size_t ld;
};

struct melu__adam {
  real scale, clip; /* clip: INFINITY for none */
  real l2, decay;
  real lr, beta1, beta2, c1, c2, epsilon;
};

struct melu__sum; /* tensor/sum.h */
struct melu__sum_job;

struct melu__kernels {
  const char *name;
  size_t width;  /* numbers in a vector */
  int uses_blas; /* its largest products are the BLAS's, which must have been started */

  /* C (m, n) := alpha * op(A) op(B) + beta * C, with op(A) (m, k), op(B) (k, n); op transposes if the flag is set.
   * With beta = 0, C is not read. */
  void (*gemm)(int trans_a, int trans_b, size_t m, size_t n, size_t k, real alpha, struct melu__cmat a,
               struct melu__cmat b, real beta, struct melu__mat c);

  /* Products and matrices summed up, and finished on their way to memory. */
  void (*sum)(const struct melu__sum *s);

  /* The same in two parts: all but the addresses of the matrices once, which reads no matrix but only sees which are
   * NULL; then any number of times with m[], by enum melu__operand, those that are not used being anything. */
  void (*prepare_sum)(struct melu__sum_job *job, const struct melu__sum *s);
  void (*run_sum)(const struct melu__sum_job *job, real *const *m);

  /* Element-wise: out (rows, cols). */
  void (*add)(size_t rows, size_t cols, struct melu__cmat a, struct melu__cmat b, struct melu__mat out);
  void (*sub)(size_t rows, size_t cols, struct melu__cmat a, struct melu__cmat b, struct melu__mat out);
  void (*mul)(size_t rows, size_t cols, struct melu__cmat a, struct melu__cmat b, struct melu__mat out);
  void (*scale)(size_t rows, size_t cols, real s, struct melu__cmat a, struct melu__mat out); /* s a */
  void (*axpy)(size_t rows, size_t cols, real s, struct melu__cmat a, struct melu__mat out);  /* out += s a */
  void (*add_row)(size_t rows, size_t cols, struct melu__cmat a, const real *row, struct melu__mat out);
  void (*relu)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out);    /* max(a, 0); NaN stays NaN */
  void (*step)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out);    /* 1 if a > 0, else 0 */
  void (*sigmoid)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out); /* no overflow for any a */
  void (*log)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out);
  void (*recip)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out); /* 1 / a */
  void (*sqrt)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out);
  void (*copy)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out);
  void (*fill)(size_t rows, size_t cols, real s, struct melu__mat out);
  void (*transpose)(size_t rows, size_t cols, struct melu__cmat a, struct melu__mat out); /* out (cols, rows) := a' */

  /* Reductions and broadcasts. */
  void (*sum_rows)(size_t rows, size_t cols, struct melu__cmat a, real *out); /* out (1, cols) */
  real (*sum_all)(size_t rows, size_t cols, struct melu__cmat a);
  void (*rows)(size_t rows, size_t cols, const real *row, struct melu__mat out); /* each row := row */

  /* Solves A X = B for a symmetric positive definite A (n, n), of which (A + A') / 2 is used, by Cholesky; X (n, m) may
   * be B. `scratch`: n * n numbers. Returns 0, X unchanged, if A is not positive definite to working precision. */
  int (*solve)(size_t n, size_t m, struct melu__cmat a, struct melu__cmat b, struct melu__mat x, real *scratch);

  real (*largest)(size_t n, const real *x); /* max |x|; INFINITY if an entry is not finite */

  /* The mean of the n table rows numbered rows[], zeros if there are none; `last` stands for the numbers above it. */
  void (*mean_rows)(size_t n, size_t cols, const real *table, const uint32_t *rows, uint32_t last, real *out);

  /* The same for n entities: out row i, ld_out apart, is the mean of rows[offsets[entities[i]] .. offsets[.. + 1]). */
  void (*mean_rows_of)(size_t n, const uint32_t *entities, const uint32_t *offsets, size_t cols, const real *table,
                       const uint32_t *rows, uint32_t last, real *out, size_t ld_out);

  /* For the same: the sum of the rows over the root of their count is added to out row i. */
  void (*add_rows_of)(size_t n, const uint32_t *entities, const uint32_t *offsets, size_t cols, const real *table,
                      const uint32_t *rows, uint32_t last, real *out, size_t ld_out);

  /* The adjoint of means: share from (1, cols) is added to each of the n rows numbered rows[]. */
  void (*add_to_rows)(size_t n, const uint32_t *rows, size_t cols, real *table, real share, const real *from);

  /* Adam (Kingma & Ba, 2015) on n rows of w, m, v, those numbered rows[] or, if that is NULL, 0, 1, ...; g has just
   * these rows, in that order. c1 = 1 - beta1^t, c2 = 1 - beta2^t:
   *     g := clamp(scale g, +-clip) + l2 w;  m := beta1 m + (1 - beta1) g;  v := beta2 v + (1 - beta2) g^2
   *     w := w - lr decay w - lr (m / c1) / (sqrt(v / c2) + epsilon) */
  void (*adam)(size_t n, size_t cols, const uint32_t *rows, real *w, real *m, real *v, const real *g,
               const struct melu__adam *step);
};

/* The sets, where the build has them. */
extern const struct melu__kernels melu__kernels_avx512, melu__kernels_avx2, melu__kernels_base;

/* The sets of this build, best first, ending with NULL; whether this CPU can run one. For tests and benchmarks. */
extern const struct melu__kernels *const melu__kernel_sets[];
int melu__kernels_usable(const struct melu__kernels *kernels);

/* Bags: out row i is the mean of the table rows ids[offsets[i] .. offsets[i + 1]), zeros if there are none. An id may
 * repeat. The caller guarantees that ids are rows of the table. out: (n_bags, cols). */
struct melu__bags {
  const uint32_t *offsets; /* n_bags + 1 */
  const uint32_t *ids;
};
void melu__bag(size_t n_bags, size_t cols, struct melu__cmat table, struct melu__bags bags, struct melu__mat out);

/* Its adjoint: table row r := sum over bags i and places of r in it of a row i / size of bag i; other rows zero. */
void melu__bag_t(size_t n_bags, size_t cols, struct melu__cmat a, struct melu__bags bags, size_t n_table_rows,
                 struct melu__mat table);

#endif
