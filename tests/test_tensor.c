/* SPDX-License-Identifier: BSD-3-Clause */
/* The tensor floor against naive loops, over random shapes and for every kernel set that this CPU can run. Matrices are
 * allocated to the last element and their gaps are guarded, so that a sanitizer or a comparison sees every step aside.
 */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "tensor/blas.h"
#include "tensor/gemm.h"
#include "kernel_sets.h"
#include "run_suite.h"
#include "support.h"

typedef long double wide;
#ifdef MELU__DOUBLE
#define REAL_EPSILON DBL_EPSILON
#else
#define REAL_EPSILON FLT_EPSILON
#endif

/* Check writes a message for every assertion: too slow for one per element. */
#define REQUIRE(condition)                            \
  do {                                                \
    if (!(condition)) ck_abort_msg("%s", #condition); \
  } while (0)

/* ---------------------------------------------------------------------------------------------- helpers */

/* Shapes around the edges of vectors and tiles, and anything below 100. */
static size_t random_size(void) {
  static const size_t edges[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 80, 127, 128, 129};
  return random_below(3) ? edges[random_below(sizeof edges / sizeof *edges)] : random_below(100);
}

static struct matrix matrix_of(size_t rows, size_t cols, size_t gap) {
  struct matrix a = {rows, cols, cols + gap, NULL};
  if (length(a) == 0) return a;
  a.p = malloc(length(a) * sizeof *a.p);
  ck_assert_ptr_nonnull(a.p);
  fill_matrix(a);
  return a;
}

static struct matrix random_matrix(size_t rows, size_t cols) {
  return matrix_of(rows, cols, random_below(2) ? 0 : random_below(20));
}

static struct matrix copy_of(struct matrix a) {
  struct matrix b = matrix_of(a.rows, a.cols, a.ld - a.cols);
  if (a.p) memcpy(b.p, a.p, length(a) * sizeof *a.p);
  return b;
}

static struct melu__cmat in(struct matrix a) {
  return (struct melu__cmat){a.p, a.ld};
}

static struct melu__mat out(struct matrix a) {
  return (struct melu__mat){a.p, a.ld};
}

static real at(struct matrix a, size_t i, size_t j) {
  return a.p[i * a.ld + j];
}

/* NaN equals NaN, and an infinity itself. Not isinf(want): Valgrind has no numbers between a double's largest and
 * wide's. */
static void check_near(real got, wide want, wide tolerance, const char *what) {
  const int is_near = (wide)got == want || (tolerance < INFINITY && fabsl((wide)got - want) <= tolerance);
  if (isnan(want) ? isnan(got) : is_near) return;
  ck_abort_msg("%s: %.17g instead of %.17g", what, (double)got, (double)want);
}

static const struct melu__kernels *blas_packer; /* the set that packs for kernels_blas */
static int no_memory;                           /* malloc has none for the library */

static void setup(void) {
  find_sets();
  blas_packer = sets[0];
}

/* ---------------------------------------------------------------------------------------------- products */

/* One product in the naive way; `size` receives the sum of the sizes of all terms, which rounding is relative to. */
static wide naive_element(int ta, int tb, size_t i, size_t j, size_t k, wide alpha, struct matrix a, struct matrix b,
                          wide beta, struct matrix c, wide *size) {
  wide sum = 0, sizes = 0;
  for (size_t p = 0; p < k; p++) {
    const wide term = (wide)(ta ? at(a, p, i) : at(a, i, p)) * (wide)(tb ? at(b, j, p) : at(b, p, j));
    sum += term;
    sizes += fabsl(term);
  }
  const wide before = beta != 0 ? beta * (wide)at(c, i, j) : 0;
  *size = fabsl(alpha) * sizes + fabsl(before);
  return alpha * sum + before;
}

static void check_product(const struct melu__kernels *set, size_t m, size_t n, size_t k) {
  static const real factors[] = {0, 1, -1, (real)0.5};
  for (int flags = 0; flags < 4; flags++) {
    const int ta = flags & 1, tb = flags >> 1;
    const real alpha = factors[random_below(4)], beta = factors[random_below(4)];
    struct matrix a = ta ? random_matrix(k, m) : random_matrix(m, k);
    struct matrix b = tb ? random_matrix(n, k) : random_matrix(k, n);
    struct matrix c = random_matrix(m, n);
    if (beta == 0) /* not to be read */
      for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) c.p[i * c.ld + j] = (real)NAN;
    struct matrix got = copy_of(c);
    set->gemm(ta, tb, m, n, k, alpha, in(a), in(b), beta, out(got));
    for (size_t i = 0; i < m; i++)
      for (size_t j = 0; j < n; j++) {
        wide size;
        const wide want = naive_element(ta, tb, i, j, k, alpha, a, b, beta, c, &size);
        check_near(at(got, i, j), want, (wide)(k + 2) * REAL_EPSILON * size, set->name);
      }
    check_guards(got);
    free(a.p), free(b.p), free(c.p), free(got.p);
  }
}

START_TEST(products) {
  const struct melu__kernels *set;
  EACH_SET(set) {
    for (size_t i = test_trials(250); i--;) check_product(set, random_size(), random_size(), random_size());
    check_product(set, 13, 70, 0);
    check_product(set, 7, 9, 2100); /* longer than any block of k */
    check_product(set, 7, 90, 1300);
  }
}
END_TEST

/* The tiles of the BLAS, as a set of their own for products of every size. */
static void blas_gemm(int ta, int tb, size_t m, size_t n, size_t k, real alpha, struct melu__cmat a,
                      struct melu__cmat b, real beta, struct melu__mat c) {
  kernels_wide.scale(m, n, beta == 0 ? 1 : beta, (struct melu__cmat){c.p, c.ld}, c);
  if (m > 0 && n > 0 && k > 0)
    melu__blas_gemm(blas_packer, ta, tb, m, n, k, alpha, a, b, beta != 0, c);
  else if (beta == 0)
    kernels_wide.fill(m, n, 0, c);
}

static const struct melu__kernels kernels_blas = {.name = "BLAS", .gemm = blas_gemm};

START_TEST(large_products) {
  const struct melu__kernels *set;
  ck_assert(!melu__blas_takes(64, 1 << 30) && !melu__blas_takes(1 << 30, 64) && !melu__blas_takes(520, 600));
  EACH_SET(set) check_product(set, 5, 1030, 1025);
  check_product(&kernels_wide, 300, 200, 280); /* several blocks of rows, B gathered */
  EACH_SET(blas_packer) {
    for (size_t i = test_trials(100); i--;) check_product(&kernels_blas, random_size(), random_size(), random_size());
    check_product(&kernels_blas, 5, 1030, 1025);
  }
}
END_TEST

/* A row has the same bits whatever rows are computed with it. */
static void check_rows_alone(const struct melu__kernels *set, size_t m, size_t n, size_t k, int ta, int tb) {
  struct matrix a = ta ? random_matrix(k, m) : random_matrix(m, k);
  struct matrix b = tb ? random_matrix(n, k) : random_matrix(k, n);
  struct matrix c = random_matrix(m, n), together = copy_of(c), alone = copy_of(c);
  const real alpha = random_real(), beta = random_below(2) ? (real)0.7 : 1;
  set->gemm(ta, tb, m, n, k, alpha, in(a), in(b), beta, out(together));
  for (size_t i = 0, rows; i < m; i += rows) {
    rows = random_below(2) ? 1 : 1 + random_below((uint32_t)(m - i));
    struct melu__cmat part = {a.p + (ta ? i : i * a.ld), a.ld};
    set->gemm(ta, tb, rows, n, k, alpha, part, in(b), beta, (struct melu__mat){alone.p + i * alone.ld, alone.ld});
  }
  ck_assert_msg(!memcmp(together.p, alone.p, length(together) * sizeof(real)), "%s: %zu %zu %zu %d %d", set->name, m, n,
                k, ta, tb);
  free(a.p), free(b.p), free(c.p), free(together.p), free(alone.p);
}

START_TEST(rows_are_independent) {
  const struct melu__kernels *set;
  EACH_SET(set) {
    for (int i = (int)test_trials(400); i--;)
      check_rows_alone(set, 1 + random_below(100), 1 + random_size(), 1 + random_size(), i & 1, i >> 1 & 1);
    for (int flags = 0; flags < 4; flags++) {
      check_rows_alone(set, 15, 1, 5000, flags & 1, flags >> 1);
      check_rows_alone(set, 15, 40, 1100, flags & 1, flags >> 1);
      check_rows_alone(set, 17, 1024, 1024, flags & 1, flags >> 1);
      check_rows_alone(set, 300, 200, 280, flags & 1, flags >> 1);
    }
  }
  for (int i = 0; i < 40; i++)
    check_rows_alone(&kernels_blas, 1 + random_below(100), 1 + random_size(), 1 + random_size(), i & 1, i >> 1 & 1);
}
END_TEST

/* A NaN or an infinity is seen in its row or column and nowhere else, also where the other factor is zero. */
static void check_bad_number(const struct melu__kernels *set, real bad, int in_b, size_t n) {
  const size_t m = 11, k = 21, i = random_below((uint32_t)m), p = random_below((uint32_t)k);
  const size_t j = random_below((uint32_t)n);
  const int tb = (int)random_below(2);
  struct matrix a = random_matrix(m, k), b = tb ? random_matrix(n, k) : random_matrix(k, n), c = random_matrix(m, n);
  if (in_b) {
    b.p[tb ? j * b.ld + p : p * b.ld + j] = bad;
    a.p[i * a.ld + p] = 0;
  } else {
    a.p[i * a.ld + p] = bad;
    b.p[tb ? j * b.ld + p : p * b.ld + j] = 0;
  }
  set->gemm(0, tb, m, n, k, 1, in(a), in(b), 0, out(c));
  ck_assert(isnan(at(c, i, j)));
  for (size_t r = 0; r < m; r++)
    for (size_t s = 0; s < n; s++) REQUIRE((isfinite(at(c, r, s)) != 0) == (in_b ? s != j : r != i));
  free(a.p), free(b.p), free(c.p);
}

START_TEST(bad_numbers_in_products) {
  static const size_t widths[] = {1, 3, 16, 19, 64, 70};
  const struct melu__kernels *set;
  EACH_SET(set) for (int i = 0; i < 6; i++) for (int in_b = 0; in_b < 2; in_b++) {
    check_bad_number(set, (real)NAN, in_b, widths[i]);
    check_bad_number(set, (real)INFINITY, in_b, widths[i]);
  }
}
END_TEST

/* All sets, also those of other widths, agree to rounding. */
START_TEST(sets_agree) {
  const struct melu__kernels *set;
  for (int i = 0; i < 50; i++) {
    const size_t m = 1 + random_below(50), n = 1 + random_size(), k = 1 + random_size();
    struct matrix a = random_matrix(m, k), b = random_matrix(n, k), c = random_matrix(m, n);
    real largest = 0;
    sets[0]->gemm(0, 1, m, n, k, 1, in(a), in(b), 0, out(c));
    for (size_t r = 0; r < m; r++)
      for (size_t j = 0; j < n; j++)
        if ((real)fabs(at(c, r, j)) > largest) largest = (real)fabs(at(c, r, j));
    EACH_SET(set) {
      struct matrix d = random_matrix(m, n);
      set->gemm(0, 1, m, n, k, 1, in(a), in(b), 0, out(d));
      for (size_t r = 0; r < m; r++)
        for (size_t j = 0; j < n; j++) REQUIRE((real)fabs(at(c, r, j) - at(d, r, j)) <= (real)1e-5 * largest);
      free(d.p);
    }
    free(a.p), free(b.p), free(c.p);
  }
}
END_TEST

/* ------------------------------------------------------------------------------------------ element-wise */

enum element_op {
  ADD,
  SUB,
  MUL,
  SCALE,
  AXPY,
  ADD_ROW,
  RELU,
  STEP,
  SIGMOID,
  LOGARITHM,
  RECIP,
  SQUARE_ROOT,
  COPY,
  FILL,
  N_ELEMENT_OPS
};

static void run_element(const struct melu__kernels *k, enum element_op op, size_t rows, size_t cols, real s,
                        struct melu__cmat a, struct melu__cmat b, struct melu__mat to) {
  switch (op) {
    case ADD:
      k->add(rows, cols, a, b, to);
      break;
    case SUB:
      k->sub(rows, cols, a, b, to);
      break;
    case MUL:
      k->mul(rows, cols, a, b, to);
      break;
    case SCALE:
      k->scale(rows, cols, s, a, to);
      break;
    case AXPY:
      k->axpy(rows, cols, s, a, to);
      break;
    case ADD_ROW:
      k->add_row(rows, cols, a, b.p, to);
      break;
    case RELU:
      k->relu(rows, cols, a, to);
      break;
    case STEP:
      k->step(rows, cols, a, to);
      break;
    case SIGMOID:
      k->sigmoid(rows, cols, a, to);
      break;
    case LOGARITHM:
      k->log(rows, cols, a, to);
      break;
    case RECIP:
      k->recip(rows, cols, a, to);
      break;
    case SQUARE_ROOT:
      k->sqrt(rows, cols, a, to);
      break;
    case COPY:
      k->copy(rows, cols, a, to);
      break;
    case FILL:
      k->fill(rows, cols, s, to);
      break;
    case N_ELEMENT_OPS:
      break;
  }
}

static wide naive_sigmoid(wide x) {
  return x >= 0 ? 1 / (1 + expl(-x)) : expl(x) / (1 + expl(x));
}

/* `row` is b's entry of the first row, `before` what was in the output. */
static wide naive_unary(enum element_op op, wide s, wide a, wide before) {
  switch (op) {
    case SCALE:
      return s * a;
    case AXPY:
      return before + s * a;
    case RELU:
      return a > 0 || isnan(a) ? a : 0;
    case STEP:
      return a > 0 ? 1 : 0;
    case SIGMOID:
      return naive_sigmoid(a);
    case LOGARITHM:
      return logl(a);
    case RECIP:
      return 1 / a;
    case SQUARE_ROOT:
      return sqrtl(a);
    case COPY:
      return a;
    default:
      return s;
  }
}

static wide naive_element_op(enum element_op op, wide s, wide a, wide b, wide row, wide before) {
  switch (op) {
    case ADD:
      return a + b;
    case SUB:
      return a - b;
    case MUL:
      return a * b;
    case ADD_ROW:
      return a + row;
    default:
      return naive_unary(op, s, a, before);
  }
}

/* place: 0 the output is a matrix of its own, 1 it is a, 2 it is b. */
static void check_element(const struct melu__kernels *set, enum element_op op, int place) {
  const size_t rows = random_size(), cols = random_size(), gap = random_below(2) ? 0 : random_below(20);
  struct matrix a = matrix_of(rows, cols, gap), b = matrix_of(op == ADD_ROW ? rows + 1 : rows, cols, gap);
  struct matrix c = matrix_of(rows, cols, random_below(3));
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++)
      if (random_below(20) == 0) a.p[i * a.ld + j] = (real)(random_below(2) ? NAN : INFINITY);
  struct matrix a0 = copy_of(a), b0 = copy_of(b), c0 = copy_of(c);
  struct matrix to = place == 0 ? c : place == 1 ? a : b, before = place == 0 ? c0 : place == 1 ? a0 : b0;
  const real s = random_real();
  run_element(set, op, rows, cols, s, in(a), in(b), out(to));
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++) {
      const wide x = (wide)at(a0, i, j), y = (wide)at(b0, i, j);
      const wide want = naive_element_op(op, (wide)s, x, y, (wide)at(b0, 0, j), (wide)at(before, i, j));
      check_near(at(to, i, j), want, 8 * REAL_EPSILON * (fabsl(want) + 1), set->name);
    }
  check_guards(a), check_guards(b), check_guards(c);
  free(a.p), free(b.p), free(c.p), free(a0.p), free(b0.p), free(c0.p);
}

START_TEST(element_wise) {
  const struct melu__kernels *set;
  EACH_SET(set) for (int i = 0; i < 40; i++) for (int op = 0; op < N_ELEMENT_OPS; op++) {
    check_element(set, (enum element_op)op, 0);
    check_element(set, (enum element_op)op, 1);
    if (op == ADD || op == SUB || op == MUL) check_element(set, (enum element_op)op, 2);
  }
}
END_TEST

START_TEST(extremes) {
  const real x[] = {0,
                    (real)-0.0,
                    (real)INFINITY,
                    (real)-INFINITY,
                    (real)NAN,
                    MELU__REAL_MAX,
                    -MELU__REAL_MAX,
                    1000,
                    -1000,
                    88,
                    -88,
                    110,
                    -110,
                    (real)1e-30,
                    (real)-1e-30,
                    30,
                    -30};
  enum { N = sizeof x / sizeof *x };
  real y[N];
  const struct melu__kernels *set;
  EACH_SET(set) {
    const struct melu__cmat from = {x, N};
    const struct melu__mat to = {y, N};
    set->sigmoid(1, N, from, to);
    for (int i = 0; i < N; i++) {
      check_near(y[i], naive_sigmoid((wide)x[i]), 4 * REAL_EPSILON * naive_sigmoid((wide)x[i]) + FLT_MIN, "sigmoid");
      ck_assert(isnan(x[i]) || (y[i] >= 0 && y[i] <= 1));
    }
    ck_assert(y[2] == 1 && y[3] == 0 && y[5] == 1 && y[6] == 0 && y[7] == 1 && y[8] == 0);
    set->relu(1, N, from, to);
    for (int i = 0; i < N; i++) ck_assert(isnan(x[i]) ? isnan(y[i]) : y[i] == (x[i] > 0 ? x[i] : 0));
    set->step(1, N, from, to);
    for (int i = 0; i < N; i++) ck_assert(y[i] == (x[i] > 0 ? 1 : 0));
    set->log(1, N, from, to);
    ck_assert(isinf(y[0]) && y[0] < 0 && isinf(y[2]) && isnan(y[3]) && isnan(y[4]) && isnan(y[6]));
    set->recip(1, N, from, to);
    ck_assert(isinf(y[0]) && y[2] == 0 && isnan(y[4]));
    set->sqrt(1, N, from, to);
    for (int i = 0; i < N; i++) {
      const wide want = sqrtl((wide)x[i]);
      check_near(y[i], want, REAL_EPSILON * want, "sqrt");
    }
  }
}
END_TEST

/* ------------------------------------------------------------------------------ reductions and broadcasts */

START_TEST(reductions) {
  const struct melu__kernels *set;
  EACH_SET(set) for (int round = 0; round < 200; round++) {
    struct matrix a = random_matrix(random_size(), random_size()), row = matrix_of(1, a.cols, 0);
    struct matrix spread = random_matrix(a.rows, a.cols);
    wide all = 0, all_size = 0;
    set->sum_rows(a.rows, a.cols, in(a), row.p);
    for (size_t j = 0; j < a.cols; j++) {
      wide sum = 0, size = 0;
      for (size_t i = 0; i < a.rows; i++) sum += (wide)at(a, i, j), size += fabsl((wide)at(a, i, j));
      check_near(at(row, 0, j), sum, (wide)a.rows * REAL_EPSILON * size, set->name);
      all += sum, all_size += size;
    }
    check_near(set->sum_all(a.rows, a.cols, in(a)), all, (wide)(a.rows + a.cols) * REAL_EPSILON * all_size, set->name);
    set->rows(a.rows, a.cols, row.p, out(spread));
    for (size_t i = 0; i < a.rows; i++)
      for (size_t j = 0; j < a.cols; j++) REQUIRE(at(spread, i, j) == at(row, 0, j));
    check_guards(spread);
    if (a.p) {
      a.p[random_below((uint32_t)a.rows) * a.ld] = (real)NAN;
      set->sum_rows(a.rows, a.cols, in(a), row.p);
      ck_assert(isnan(row.p[0]) && (a.cols == 1 || !isnan(row.p[1])));
      ck_assert(isnan(set->sum_all(a.rows, a.cols, in(a))));
    }
    free(a.p), free(row.p), free(spread.p);
  }
}
END_TEST

/* --------------------------------------------------------------------------------------------------- Adam */

/* Means of table rows, one entity and many, and their adjoint. */
START_TEST(rows_of_tables) {
  enum { ROWS = 11, N = 40 };
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t cols = 1; cols < 70; cols += 1 + cols / 9) {
    const struct matrix table = random_matrix(ROWS, cols), g = random_matrix(1, cols);
    uint32_t offsets[N + 1] = {0}, rows[8 * N], entities[N];
    real *dense = malloc(ROWS * cols * sizeof *dense), *sums = malloc(ROWS * cols * sizeof *sums);
    real *means = malloc(N * (cols + 1) * sizeof *means);
    for (size_t i = 0; i < ROWS * cols; i++) dense[i] = sums[i] = table.p[i / cols * table.ld + i % cols];
    for (size_t i = 0; i < N; i++) {
      offsets[i + 1] = offsets[i] + random_below(8); /* some have none */
      for (uint32_t k = offsets[i]; k < offsets[i + 1]; k++) rows[k] = random_below(ROWS + 3);
      entities[i] = random_below((uint32_t)i + 1);
    }
    for (size_t i = 0; i < N * (cols + 1); i++) means[i] = GUARD;
    set->mean_rows_of(N, entities, offsets, cols, dense, rows, ROWS - 1, means, cols + 1);
    for (size_t i = 0; i < N; i++) {
      const uint32_t begin = offsets[entities[i]], n = offsets[entities[i] + 1] - begin;
      real alone[70];
      set->mean_rows(n, cols, dense, rows + begin, ROWS - 1, alone);
      ck_assert(memcmp(alone, means + i * (cols + 1), cols * sizeof *alone) == 0);
      ck_assert(means[i * (cols + 1) + cols] == GUARD);
      for (size_t j = 0; j < cols; j++) {
        wide sum = 0;
        for (uint32_t k = 0; k < n; k++) {
          const size_t row = rows[begin + k] < ROWS ? rows[begin + k] : ROWS - 1;
          sum += (wide)dense[row * cols + j];
        }
        check_near(alone[j], n ? sum / n : 0, 16 * REAL_EPSILON, set->name);
      }
    }
    for (uint32_t k = 0; k < 6; k++) rows[k] = k * k % ROWS; /* a row twice */
    set->add_to_rows(6, rows, cols, sums, (real)0.25, g.p);
    for (size_t i = 0; i < ROWS * cols; i++) {
      wide want = (wide)dense[i];
      for (size_t k = 0; k < 6; k++) want += rows[k] == i / cols ? (wide)0.25 * (wide)g.p[i % cols] : 0;
      check_near(sums[i], want, 16 * REAL_EPSILON, set->name);
    }
    free(table.p), free(g.p), free(dense), free(sums), free(means);
  }
}
END_TEST

START_TEST(largest) {
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t n = 0; n < 50; n++) {
    real x[50];
    for (size_t i = 0; i < n; i++) x[i] = random_real() / 4;
    ck_assert(set->largest(n, x) <= (real)0.25);
    if (n == 0) ck_assert(set->largest(n, x) == 0);
    if (n == 0) continue;
    const size_t at = random_below((uint32_t)n);
    x[at] = -7;
    ck_assert(set->largest(n, x) == 7);
    x[at] = random_below(2) ? (real)NAN : (real)-INFINITY;
    ck_assert(isinf(set->largest(n, x)));
  }
}
END_TEST

START_TEST(adam) {
  const struct melu__kernels *set;
  EACH_SET(set) for (int round = 0; round < 40; round++) {
    const size_t n = random_size();
    struct matrix w = matrix_of(1, n, 0), m = matrix_of(1, n, 0), v = matrix_of(1, n, 0);
    const real clip = round % 2 ? (real)0.3 : (real)INFINITY, l2 = round % 3 ? 0 : (real)0.01;
    wide *want = calloc(3 * n + 1, sizeof *want);
    for (size_t i = 0; i < n; i++) m.p[i] = v.p[i] = 0, want[3 * i] = (wide)w.p[i];
    for (int t = 1; t <= 4; t++) {
      struct matrix g = matrix_of(1, n, 0);
      const struct melu__adam s = {.scale = (real)0.5,
                                   .clip = clip,
                                   .l2 = l2,
                                   .decay = (real)0.02,
                                   .lr = (real)0.01,
                                   .beta1 = (real)0.9,
                                   .beta2 = (real)0.99,
                                   .c1 = (real)(1 - pow(0.9, t)),
                                   .c2 = (real)(1 - pow(0.99, t)),
                                   .epsilon = (real)1e-2};
      set->adam(1, n, NULL, w.p, m.p, v.p, g.p, &s);
      for (size_t i = 0; i < n; i++) {
        wide *e = want + 3 * i, d = (wide)s.scale * (wide)g.p[i];
        d = d > (wide)clip ? (wide)clip : d < -(wide)clip ? -(wide)clip : d;
        d += (wide)l2 * e[0];
        e[1] = (wide)s.beta1 * e[1] + (1 - (wide)s.beta1) * d;
        e[2] = (wide)s.beta2 * e[2] + (1 - (wide)s.beta2) * d * d;
        e[0] -= (wide)s.lr * ((wide)s.decay * e[0] + e[1] / (wide)s.c1 / (sqrtl(e[2] / (wide)s.c2) + (wide)s.epsilon));
        check_near(m.p[i], e[1], 8 * REAL_EPSILON, set->name);
        check_near(v.p[i], e[2], 8 * REAL_EPSILON, set->name);
        check_near(w.p[i], e[0], 32 * REAL_EPSILON, set->name);
      }
      free(g.p);
    }
    free(w.p), free(m.p), free(v.p), free(want);
  }
}
END_TEST

/* The bits of an entry do not depend on its neighbours: threads may cut the work anywhere. */
START_TEST(entries_are_independent) {
  enum { N = 71 };
  const struct melu__adam s = {(real)0.7, (real)0.6,  (real)0.01, (real)0.02, (real)0.1,
                               (real)0.9, (real)0.99, (real)0.3,  (real)0.4,  (real)1e-3};
  const struct melu__kernels *set;
  EACH_SET(set) {
    struct matrix g = matrix_of(1, N, 0), together[3], alone[3];
    for (int i = 0; i < 3; i++) together[i] = matrix_of(1, N, 0);
    for (int j = 0; j < N; j++) together[2].p[j] = (real)fabs(together[2].p[j]);
    for (int i = 0; i < 3; i++) alone[i] = copy_of(together[i]);
    set->adam(1, N, NULL, together[0].p, together[1].p, together[2].p, g.p, &s);
    set->axpy(1, N, s.scale, in(g), out(together[1]));
    for (size_t j = 0, n; j < N; j += n) {
      n = 1 + random_below(N - (uint32_t)j) / 2;
      set->adam(1, n, NULL, alone[0].p + j, alone[1].p + j, alone[2].p + j, g.p + j, &s);
      set->axpy(1, n, s.scale, (struct melu__cmat){g.p + j, n}, (struct melu__mat){alone[1].p + j, n});
    }
    for (int i = 0; i < 3; i++) ck_assert(!memcmp(together[i].p, alone[i].p, N * sizeof(real)));
    for (int i = 0; i < 3; i++) free(together[i].p), free(alone[i].p);
    free(g.p);
  }
}
END_TEST

START_TEST(adam_keeps_nan) {
  const struct melu__adam s = {
      .scale = 1, .clip = 10, .lr = 1, .beta1 = (real)0.9, .beta2 = (real)0.9, .c1 = 1, .c2 = 1, .epsilon = 1};
  const struct melu__kernels *set;
  EACH_SET(set) {
    real w[20] = {0}, m[20] = {0}, v[20] = {0}, g[20] = {0};
    g[3] = g[19] = (real)NAN;
    g[4] = (real)INFINITY; /* clipped */
    set->adam(1, 20, NULL, w, m, v, g, &s);
    for (int i = 0; i < 20; i++) ck_assert_int_eq(isnan(w[i]) != 0, i == 3 || i == 19);
    ck_assert(w[4] < 0 && isfinite(w[4]));
  }
}
END_TEST

/* -------------------------------------------------------------------------------------------------- solve */

/* R R' / n + ridge I, made a little unsymmetric: only (A + A') / 2 counts. */
static struct matrix random_spd(size_t n, real ridge) {
  struct matrix r = random_matrix(n, n), a = random_matrix(n, n);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      wide sum = i == j ? (wide)ridge : 0;
      for (size_t k = 0; k < n; k++) sum += (wide)at(r, i, k) * (wide)at(r, j, k) / (wide)n;
      const wide skew = i < j ? 0.25 : i > j ? -0.25 : 0;
      a.p[i * a.ld + j] = (real)(sum + skew);
    }
  free(r.p);
  return a;
}

static void check_solution(struct matrix a, struct matrix b, struct matrix x) {
  for (size_t i = 0; i < a.rows; i++)
    for (size_t j = 0; j < b.cols; j++) {
      wide sum = 0, size = 0;
      for (size_t k = 0; k < a.rows; k++) {
        const wide term = ((wide)at(a, i, k) + (wide)at(a, k, i)) / 2 * (wide)at(x, k, j);
        sum += term, size += fabsl(term);
      }
      check_near(at(b, i, j), sum, 4 * (wide)(a.rows + 2) * REAL_EPSILON * (size + 1), "residual");
    }
}

/* A right side of one column takes a way of its own. */
START_TEST(solve) {
  const struct melu__kernels *set;
  for (int round = 0; round < 60; round++) {
    const size_t n = random_below(50), m = round % 3 ? random_size() : 1;
    struct matrix a = random_spd(n, (real)0.5), b0 = random_matrix(n, m);
    real *scratch = malloc((n * n + 1) * sizeof *scratch);
    EACH_SET(set) {
      struct matrix b = copy_of(b0), x = random_matrix(n, m);
      ck_assert_int_eq(set->solve(n, m, in(a), in(b), out(x), scratch), 1);
      if (m) check_solution(a, b, x);
      check_guards(x);
      ck_assert_int_eq(set->solve(n, m, in(a), in(b), out(b), scratch), 1); /* X may be B */
      if (m) check_solution(a, b0, b);
      check_guards(b);
      free(b.p), free(x.p);
    }
    free(a.p), free(b0.p), free(scratch);
  }
}
END_TEST

START_TEST(solve_refuses) {
  enum { N = 5 };
  const struct melu__kernels *set;
  const real kinds[] = {0, -1, (real)NAN, (real)INFINITY};
  EACH_SET(set)
  for (int kind = 0; kind < 4; kind++)
    for (size_t at_row = 0; at_row < N; at_row++) {
      struct matrix a = random_spd(N, 1), b = random_matrix(N, 3), x = random_matrix(N, 3), x0 = copy_of(x);
      real scratch[N * N];
      a.p[at_row * a.ld + at_row] = kinds[kind];
      ck_assert_int_eq(set->solve(N, 3, in(a), in(b), out(x), scratch), 0);
      a.p[at_row * a.ld + at_row] = 3;
      a.p[at_row * a.ld + (at_row + 1) % N] = kinds[kind] == 0 ? 20 : kinds[kind] * 20; /* beside the diagonal */
      ck_assert_int_eq(set->solve(N, 3, in(a), in(b), out(x), scratch), 0);
      ck_assert(!memcmp(x.p, x0.p, length(x) * sizeof(real)));
      free(a.p), free(b.p), free(x.p), free(x0.p);
    }
}
END_TEST

/* Rank one: positive semidefinite, so every further pivot is rounding. */
START_TEST(solve_refuses_singular) {
  enum { N = 12 };
  const struct melu__kernels *set;
  for (int round = 0; round < 100; round++) {
    real a[N * N], b[N] = {0}, scratch[N * N], row[N];
    for (int i = 0; i < N; i++) row[i] = random_real() + 2;
    for (int i = 0; i < N * N; i++) a[i] = row[i / N] * row[i % N];
    const struct melu__cmat left = {a, N}, right = {b, 1};
    EACH_SET(set) ck_assert_int_eq(set->solve(N, 1, left, right, (struct melu__mat){b, 1}, scratch), 0);
  }
}
END_TEST

/* --------------------------------------------------------------------------------------------------- bags */

struct random_bags {
  struct melu__bags bags;
  uint32_t offsets[40], ids[40 * 6];
};

static void make_bags(struct random_bags *r, size_t n_bags, size_t n_rows) {
  r->bags = (struct melu__bags){r->offsets, r->ids};
  r->offsets[0] = 0;
  for (size_t i = 0; i < n_bags; i++) {
    r->offsets[i + 1] = r->offsets[i] + (n_rows ? random_below(7) : 0); /* repeats are likely */
    for (uint32_t k = r->offsets[i]; k < r->offsets[i + 1]; k++) r->ids[k] = random_below((uint32_t)n_rows);
  }
}

static wide dot(struct matrix a, struct matrix b) {
  wide sum = 0;
  for (size_t i = 0; i < a.rows; i++)
    for (size_t j = 0; j < a.cols; j++) sum += (wide)at(a, i, j) * (wide)at(b, i, j);
  return sum;
}

START_TEST(bags) {
  for (int round = 0; round < 200; round++) {
    const size_t n_bags = random_below(39), n_rows = random_below(9), cols = random_size();
    struct random_bags r;
    make_bags(&r, n_bags, n_rows);
    struct matrix table = random_matrix(n_rows, cols), means = random_matrix(n_bags, cols);
    struct matrix g = random_matrix(n_bags, cols), back = random_matrix(n_rows, cols);
    melu__bag(n_bags, cols, in(table), r.bags, out(means));
    for (size_t i = 0; i < n_bags; i++)
      for (size_t j = 0; j < cols; j++) {
        wide sum = 0;
        const uint32_t n = r.offsets[i + 1] - r.offsets[i];
        for (uint32_t k = 0; k < n; k++) sum += (wide)at(table, r.ids[r.offsets[i] + k], j) / (wide)n;
        check_near(at(means, i, j), sum, 8 * REAL_EPSILON, "bag");
      }
    melu__bag_t(n_bags, cols, in(g), r.bags, n_rows, out(back));
    const wide there = dot(means, g), again = dot(table, back);
    check_near((real)there, again, (wide)(n_bags * cols + 1) * 8 * REAL_EPSILON, "adjoint");
    check_guards(means), check_guards(back);
    free(table.p), free(means.p), free(g.p), free(back.p);
  }
}
END_TEST

/* ----------------------------------------------------------------------------------------------- choosing */

/* The linker puts this in front of malloc (--wrap): the library's own call of it, which is for BLIS. */
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n) {
  return no_memory ? NULL : __real_malloc(n);
}

/* A BLAS such as BLIS, which would end the process for want of memory, is only started where it is used and there is
 * memory. */
START_TEST(choose_without_memory) {
  char blas[40];
  melu__blas_name(blas, sizeof blas);
  const int is_blis = !strncmp(blas, "BLIS ", 5);
  for (int i = 0; i < n_sets - 1; i++) {
    melu_context ctx;
    memset(&ctx, 0, sizeof ctx);
    no_memory = 1;
    const melu_status status = melu__context_choose_kernels(&ctx, sets[i]->name, NULL);
    no_memory = 0;
    ck_assert_int_eq(status, sets[i]->uses_blas && is_blis ? MELU_ENOMEM : MELU_OK);
    ck_assert_ptr_eq(ctx.kernels, status ? NULL : sets[i]);
  }
  ck_assert(melu__kernels_base.uses_blas);
}
END_TEST

START_TEST(choose) {
  melu_error err;
  melu_context ctx;
  memset(&ctx, 0, sizeof ctx);
  ck_assert_int_eq(melu__context_choose_kernels(&ctx, NULL, &err), MELU_OK);
  ck_assert_ptr_eq(ctx.kernels, sets[0]);
  char blas[40];
  melu__blas_name(blas, sizeof blas);
  ck_assert_msg(strstr(ctx.build_info, "libmelu ") == ctx.build_info && strstr(ctx.build_info, melu_version()) &&
                    strstr(ctx.build_info, blas) && strstr(ctx.build_info, ctx.kernels->name),
                "%s", ctx.build_info);
  for (int i = 0; melu__kernel_sets[i]; i++) {
    memset(&ctx, 0, sizeof ctx);
    const melu_status status = melu__context_choose_kernels(&ctx, melu__kernel_sets[i]->name, &err);
    ck_assert_int_eq(status, melu__kernels_usable(melu__kernel_sets[i]) ? MELU_OK : MELU_EINVAL);
    ck_assert_ptr_eq(ctx.kernels, status == MELU_OK ? melu__kernel_sets[i] : NULL);
  }
  memset(&ctx, 0, sizeof ctx);
  ck_assert_int_eq(melu__context_choose_kernels(&ctx, "altivec", &err), MELU_EINVAL);
  ck_assert(strstr(err.message, "altivec") && !ctx.kernels && !*ctx.build_info);
  ck_assert_int_eq(melu__context_choose_kernels(&ctx, "", NULL), MELU_EINVAL);
  ck_assert(melu__kernels_usable(&melu__kernels_base));
}
END_TEST

int main(void) {
  Suite *s = suite_create("tensor");
  TCase *tc = tcase_create("tensor");
  tcase_add_checked_fixture(tc, setup, NULL);
  tcase_set_timeout(tc, 120);
  tcase_add_test(tc, products);
  tcase_add_test(tc, large_products);
  tcase_add_test(tc, rows_are_independent);
  tcase_add_test(tc, bad_numbers_in_products);
  tcase_add_test(tc, sets_agree);
  tcase_add_test(tc, element_wise);
  tcase_add_test(tc, extremes);
  tcase_add_test(tc, reductions);
  tcase_add_test(tc, rows_of_tables);
  tcase_add_test(tc, largest);
  tcase_add_test(tc, adam);
  tcase_add_test(tc, entries_are_independent);
  tcase_add_test(tc, adam_keeps_nan);
  tcase_add_test(tc, solve);
  tcase_add_test(tc, solve_refuses);
  tcase_add_test(tc, solve_refuses_singular);
  tcase_add_test(tc, bags);
  tcase_add_test(tc, choose);
  tcase_add_test(tc, choose_without_memory);
  suite_add_tcase(s, tc);
  return run_suite(s);
}
