/* SPDX-License-Identifier: BSD-3-Clause */
/* The fused sum of products and matrices, and the transpose, against naive loops: random shapes with random subsets of
 * all features, for every kernel set that this CPU can run. Matrices are allocated to the last element and their gaps
 * are guarded. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/sum.h"
#include "kernel_sets.h"
#include "run_suite.h"
#include "support.h"

typedef long double wide;

/* Relative to the sum of the sizes of all that is added. */
static const wide tolerance = sizeof(real) == sizeof(float) ? 1e-5 : 1e-13;

/* ---------------------------------------------------------------------------------------------- helpers */

static real random_scale(void) {
  static const real scales[] = {1, 1, -1, (real)-0.01, (real)0.5, 0};
  return scales[random_below(6)];
}

/* Shapes around the edges of vectors and tiles, and anything below 100. */
static size_t random_size(void) {
  static const size_t edges[] = {0,  1,  1,  2,  3,  4,  5,  6,  7,  8,   9,   15, 16,
                                 17, 31, 32, 33, 63, 64, 64, 65, 80, 127, 128, 129};
  return random_below(3) ? edges[random_below(sizeof edges / sizeof *edges)] : random_below(100);
}

static struct matrix random_matrix(size_t rows, size_t cols) {
  struct matrix a = {rows, cols, cols + (random_below(2) ? 0 : random_below(20)), NULL};
  a.p = malloc(length(a) ? length(a) * sizeof *a.p : 1);
  ck_assert_ptr_nonnull(a.p);
  fill_matrix(a);
  return a;
}

static struct matrix copy_of(struct matrix a) {
  struct matrix b = a;
  if (!a.p) return a;
  b.p = malloc(length(a) ? length(a) * sizeof *b.p : 1);
  ck_assert_ptr_nonnull(b.p);
  memcpy(b.p, a.p, length(a) * sizeof *b.p);
  return b;
}

static wide at(struct matrix a, size_t i, size_t j) {
  return (wide)a.p[i * a.ld + j];
}

/* ---------------------------------------------------------------------------------------- a random sum */

/* The matrices, of which those of the shape of the result come in two copies: as they were, and as they become. */
enum { TERM_0, TERM_1, TERM_2, MASK, POST, N_INPUTS, OUT = N_INPUTS, PRE, RAW, N_SAME_SHAPE };

struct problem {
  struct melu__sum s;
  struct matrix a[2], b[2], row, number, by, term_by[MELU__SUM_TERMS];
  struct matrix before[N_SAME_SHAPE], after[N_SAME_SHAPE];
  int out, pre; /* which of `after` they are */
};

static struct melu__cmat in(struct matrix a) {
  return (struct melu__cmat){a.p, a.ld};
}

static void add_products(struct problem *x) {
  x->s.n_products = random_below(3);
  for (size_t n = 0; n < x->s.n_products; n++) {
    const size_t k = random_size();
    const int trans_a = (int)random_below(2), ones = random_below(5) == 0;
    if (!ones) x->a[n] = trans_a ? random_matrix(k, x->s.rows) : random_matrix(x->s.rows, k);
    x->b[n] = random_matrix(k, x->s.cols);
    x->s.product[n].a = in(x->a[n]);
    x->s.product[n].b = in(x->b[n]);
    x->s.product[n].k = k;
    x->s.product[n].trans_a = trans_a;
    x->s.product[n].scale = random_scale();
  }
}

static void add_terms(struct problem *x) {
  x->s.n_terms = random_below(MELU__SUM_TERMS + 1);
  for (size_t t = 0; t < x->s.n_terms; t++) {
    const int whole = x->s.rows == 1 && x->s.n_products == 0 && random_below(2);
    x->term_by[t] = random_matrix(1, whole ? x->s.cols : x->s.rows);
    x->s.term[t].m = in(x->after[TERM_0 + t]);
    x->s.term[t].whole = whole;
    if (whole || random_below(3) == 0) x->s.term[t].by = x->term_by[t].p;
    x->s.term[t].scale = random_scale();
  }
}

/* What is the same for all: matrices of the result's shape, and the vector that products may be multiplied by. */
static struct problem new_problem(size_t rows, size_t cols) {
  struct problem x = {.s = {.rows = rows, .cols = cols, .by_scale = 1}, .out = OUT, .pre = PRE};
  for (int i = 0; i < N_SAME_SHAPE; i++) {
    x.before[i] = random_matrix(rows, cols);
    x.after[i] = copy_of(x.before[i]);
  }
  x.by = random_matrix(1, rows);
  x.row = random_matrix(1, cols);
  x.number = random_matrix(1, 1);
  x.s.out = (struct melu__mat){x.after[OUT].p, x.after[OUT].ld};
  return x;
}

/* Row, number, activation and all that is written. */
static void add_rest(struct problem *problem) {
  struct problem x = *problem;
  const int plain = random_below(4) == 0;
  if (!plain && random_below(2)) x.s.row = x.row.p, x.s.row_scale = random_scale();
  if (!plain && random_below(2)) x.s.number = x.number.p, x.s.number_scale = random_scale();
  if (!plain && random_below(3) == 0) x.s.relu = 1;
  if (!plain && !x.s.relu && random_below(4) == 0) x.s.step = 1;
  if (!plain && !x.s.relu && !x.s.step && random_below(2)) x.s.mask = in(x.after[MASK]);
  if (!plain && random_below(2)) x.s.post = in(x.after[POST]), x.s.post_scale = random_scale();
  x.out = random_below(2) ? OUT : (int)random_below(N_INPUTS);
  x.pre = random_below(2) ? PRE : TERM_0 + (int)random_below(MELU__SUM_TERMS);
  if (x.pre == x.out) x.pre = PRE;
  x.s.out = (struct melu__mat){x.after[x.out].p, x.after[x.out].ld};
  if (!plain && random_below(2)) x.s.pre = (struct melu__mat){x.after[x.pre].p, x.after[x.pre].ld};
  *problem = x;
}

static struct problem random_problem(size_t rows, size_t cols) {
  struct problem x = new_problem(rows, cols);
  add_products(&x);
  if (x.s.n_products && random_below(3) == 0) x.s.by = x.by.p;
  add_terms(&x);
  add_rest(&x);
  return x;
}

static void free_problem(struct problem *x) {
  for (int n = 0; n < 2; n++) free(x->a[n].p), free(x->b[n].p);
  for (int i = 0; i < N_SAME_SHAPE; i++) free(x->before[i].p), free(x->after[i].p);
  for (int t = 0; t < MELU__SUM_TERMS; t++) free(x->term_by[t].p);
  free(x->row.p), free(x->number.p), free(x->by.p);
}

/* The p-th of the numbers that product n of one element is the sum of. */
static wide naive_factors(const struct problem *x, size_t n, size_t i, size_t p, size_t j) {
  const size_t row = x->s.cols == 1 ? i : j; /* of diagonals */
  if (x->s.product[n].diagonal) return at(x->a[n], row, p) * (x->b[n].p ? at(x->b[n], row, p) : 1);
  const wide a = !x->a[n].p ? 1 : x->s.product[n].trans_a ? at(x->a[n], p, i) : at(x->a[n], i, p);
  return a * at(x->b[n], p, j);
}

/* s at one element; *size receives the sum of the sizes of what is added. */
static wide naive_sum(const struct problem *x, size_t i, size_t j, wide *size) {
  wide sum = 0;
  *size = 0;
#define ADD(value)           \
  do {                       \
    const wide v_ = (value); \
    sum += v_;               \
    *size += fabsl(v_);      \
  } while (0)
  for (size_t n = 0; n < x->s.n_products; n++)
    for (size_t p = 0; p < x->s.product[n].k; p++) {
      const wide by = (wide)x->s.by_scale * (x->s.by ? at(x->by, 0, i) : 1);
      ADD(by * (wide)x->s.product[n].scale * naive_factors(x, n, i, p, j));
    }
  for (size_t t = 0; t < x->s.n_terms; t++) {
    const wide by = x->s.term[t].by ? at(x->term_by[t], 0, x->s.term[t].whole ? j : i) : 1;
    ADD(by * (wide)x->s.term[t].scale * at(x->before[TERM_0 + t], i, j));
  }
  if (x->s.row) ADD((wide)x->s.row_scale * at(x->row, 0, j));
  if (x->s.number) ADD((wide)x->s.number_scale * at(x->number, 0, 0));
#undef ADD
  return sum;
}

static void check_near(real got, wide want, wide size, const char *what, const struct problem *x) {
  if (fabsl((wide)got - want) <= tolerance * size) return;
  ck_abort_msg("%s: %.9g instead of %.9g in (%zu, %zu), k %zu, %zu", what, (double)got, (double)want, x->s.rows,
               x->s.cols, x->s.product[0].k, x->s.product[1].k);
}

static void check_problem(const struct melu__kernels *set, struct problem x) {
  const size_t rows = x.s.rows, cols = x.s.cols;
  set->sum(&x.s);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++) {
      wide size, sum = naive_sum(&x, i, j, &size);
      if (x.s.step && fabsl(sum) <= tolerance * size) continue; /* either side is right */
      if (x.s.pre.p) check_near(x.s.pre.p[i * x.s.pre.ld + j], sum, size, set->name, &x);
      if (x.s.relu && sum < 0) sum = 0;
      if (x.s.step) sum = sum > 0, size += 1;
      if (x.s.mask.p && !(at(x.before[MASK], i, j) > 0)) sum = 0;
      const wide post = x.s.post.p ? (wide)x.s.post_scale * at(x.before[POST], i, j) : 0;
      check_near(x.s.out.p[i * x.s.out.ld + j], sum + post, size + fabsl(post), set->name, &x);
    }
  for (int i = 0; i < N_SAME_SHAPE; i++) {
    check_guards(x.after[i]);
    if (i != x.out && (i != x.pre || !x.s.pre.p) && (i != RAW || !x.s.raw.p)) /* an input, or not used */
      ck_assert(!memcmp(x.after[i].p, x.before[i].p, length(x.after[i]) * sizeof(real)));
  }
  free_problem(&x);
}

START_TEST(sums) {
  const struct melu__kernels *set;
  EACH_SET(set) {
    for (size_t i = test_trials(3000); i--;) check_problem(set, random_problem(random_size(), random_size()));
    for (size_t i = test_trials(300); i--;) {
      check_problem(set, random_problem(1, random_size()));
      check_problem(set, random_problem(random_size(), 1));
      check_problem(set, random_problem(random_size(), 64));
    }
  }
}
END_TEST

/* Sums of rows multiplied element by element: a column, with what other products of rows there are, or a row. */
static struct problem random_diagonals(int as_row) {
  const size_t n = random_size();
  struct problem x = as_row ? new_problem(1, n) : new_problem(n, 1);
  x.s.n_products = 1 + random_below(2);
  for (size_t i = 0; i < x.s.n_products; i++) {
    const size_t k = random_below(4) ? random_size() : 1;
    const int diagonal = as_row || i == 0 || random_below(2), ones = diagonal && random_below(3) == 0;
    x.a[i] = random_matrix(n, k);
    if (!diagonal) x.b[i] = (struct matrix){k, 1, 1, random_matrix(1, k).p};
    if (diagonal && !ones) x.b[i] = random_matrix(n, k);
    x.s.product[i].a = in(x.a[i]);
    x.s.product[i].b = in(x.b[i]);
    x.s.product[i].k = k;
    x.s.product[i].diagonal = diagonal;
    x.s.product[i].scale = random_scale();
  }
  if (random_below(4) == 0) return x;
  if (!as_row && random_below(3) == 0) x.s.by = x.by.p;
  add_terms(&x);
  for (size_t t = 0; t < x.s.n_terms; t++)
    if (as_row) x.s.term[t].by = NULL;
  add_rest(&x);
  if (as_row) x.s.row = NULL;
  return x;
}

START_TEST(diagonals) {
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t i = test_trials(1000); i--;) check_problem(set, random_diagonals(i % 2));
}
END_TEST

/* A product that is wanted by itself, and for sums of its rows times those of other matrices. */
static void check_more(const struct melu__kernels *set, size_t rows, size_t cols) {
  struct problem x = new_problem(rows, cols);
  struct matrix pair_a = random_matrix(rows, cols), pair_b[2] = {random_matrix(rows, cols), random_matrix(rows, cols)};
  struct matrix row_sums = random_matrix(1, rows);
  do {
    for (int n = 0; n < 2; n++) free(x.a[n].p), free(x.b[n].p), x.a[n].p = x.b[n].p = NULL;
    memset(x.s.product, 0, sizeof x.s.product);
    add_products(&x);
  } while (x.s.n_products != 1);
  x.s.product[0].scale = 1;
  x.s.by_scale = random_scale();
  if (random_below(2)) x.s.by = x.by.p;
  add_terms(&x);
  x.s.n_pairs = random_below(3);
  for (size_t n = 0; n < x.s.n_pairs; n++) {
    if (n == 1) x.s.pair[n].a = in(pair_a);
    x.s.pair[n].b = in(pair_b[n]);
    x.s.pair[n].scale = random_scale();
  }
  if (x.s.n_pairs) x.s.sums = row_sums.p;
  if (x.s.n_pairs == 0 || random_below(2)) x.s.raw = (struct melu__mat){x.after[RAW].p, x.after[RAW].ld};
  set->sum(&x.s);
  for (size_t i = 0; i < rows; i++) {
    wide sum_of_row = 0, size_of_row = 0;
    for (size_t j = 0; j < cols; j++) {
      wide size = 0, p = 0, size_of_p = 0;
      for (size_t k = 0; k < x.s.product[0].k; k++) {
        const wide part = naive_factors(&x, 0, i, k, j);
        p += part;
        size_of_p += fabsl(part);
      }
      const wide sum = naive_sum(&x, i, j, &size);
      check_near(x.s.out.p[i * x.s.out.ld + j], sum, size, set->name, &x);
      if (x.s.raw.p) check_near(x.s.raw.p[i * x.s.raw.ld + j], p, size_of_p, set->name, &x);
      for (size_t n = 0; n < x.s.n_pairs; n++) {
        const wide times = (wide)x.s.pair[n].scale * at(pair_b[n], i, j);
        sum_of_row += times * (n == 0 ? p : at(pair_a, i, j));
        size_of_row += fabsl(times) * (n == 0 ? size_of_p : fabsl(at(pair_a, i, j)));
      }
    }
    if (x.s.n_pairs && cols > 0) check_near(row_sums.p[i], sum_of_row, size_of_row, set->name, &x);
  }
  check_guards(x.after[OUT]);
  check_guards(x.after[RAW]);
  free(pair_a.p), free(pair_b[0].p), free(pair_b[1].p), free(row_sums.p);
  free_problem(&x);
}

START_TEST(products_for_more) {
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t i = test_trials(2000); i--;) {
    check_more(set, random_size(), random_size());
    check_more(set, 1 + random_below(3), random_size());
  }
}
END_TEST

/* Longer in k than any buffer inside. */
START_TEST(long_products) {
  static const size_t cols[] = {1, 3, 20, 70};
  const struct melu__kernels *set;
  EACH_SET(set) for (int c = 0; c < 4; c++) for (int trans_a = 0; trans_a < 2; trans_a++) {
    const size_t rows = 9, k = 9001;
    struct problem x = {.s = {.rows = rows, .cols = cols[c], .n_products = 1, .by_scale = 1}};
    x.a[0] = trans_a ? random_matrix(k, rows) : random_matrix(rows, k);
    x.b[0] = random_matrix(k, cols[c]);
    x.after[OUT] = random_matrix(rows, cols[c]);
    x.s.product[0].a = in(x.a[0]);
    x.s.product[0].b = in(x.b[0]);
    x.s.product[0].k = k;
    x.s.product[0].trans_a = trans_a;
    x.s.product[0].scale = (real)0.5;
    x.s.out = (struct melu__mat){x.after[OUT].p, x.after[OUT].ld};
    set->sum(&x.s);
    for (size_t i = 0; i < rows; i++)
      for (size_t j = 0; j < cols[c]; j++) {
        wide size, sum = naive_sum(&x, i, j, &size);
        check_near(x.s.out.p[i * x.s.out.ld + j], sum, size, set->name, &x);
      }
    check_guards(x.after[OUT]);
    free_problem(&x);
  }
}
END_TEST

/* --------------------------------------------------------------------------------------- special promises */

/* The sum for rows [begin, begin + rows) alone. */
static struct melu__sum part_of(struct melu__sum s, size_t begin, size_t rows) {
  s.rows = rows;
  for (size_t n = 0; n < s.n_products; n++)
    if (s.product[n].a.p) s.product[n].a.p += begin * (s.product[n].trans_a ? 1 : s.product[n].a.ld);
  for (size_t t = 0; t < s.n_terms; t++) {
    s.term[t].m.p += begin * s.term[t].m.ld;
    if (s.term[t].by) s.term[t].by += begin;
  }
  if (s.by) s.by += begin;
  if (s.mask.p) s.mask.p += begin * s.mask.ld;
  if (s.post.p) s.post.p += begin * s.post.ld;
  if (s.pre.p) s.pre.p += begin * s.pre.ld;
  s.out.p += begin * s.out.ld;
  return s;
}

static void check_rows_alone(const struct melu__kernels *set, size_t rows, size_t cols) {
  struct problem x = random_problem(rows, cols);
  struct matrix together[N_SAME_SHAPE];
  set->sum(&x.s);
  for (int i = 0; i < N_SAME_SHAPE; i++) {
    together[i] = copy_of(x.after[i]);
    memcpy(x.after[i].p, x.before[i].p, length(x.after[i]) * sizeof(real));
  }
  for (size_t i = 0, n; i < rows; i += n) {
    n = random_below(2) ? 1 : 1 + random_below((uint32_t)(rows - i));
    const struct melu__sum part = part_of(x.s, i, n);
    set->sum(&part);
  }
  for (int i = 0; i < N_SAME_SHAPE; i++) {
    ck_assert_msg(!memcmp(together[i].p, x.after[i].p, length(x.after[i]) * sizeof(real)), "%s: (%zu, %zu), k %zu, %zu",
                  set->name, rows, cols, x.s.product[0].k, x.s.product[1].k);
    free(together[i].p);
  }
  free_problem(&x);
}

START_TEST(rows_are_independent) {
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t i = test_trials(1000); i--;) {
    check_rows_alone(set, 1 + random_below(100), 1 + random_size());
    check_rows_alone(set, 1 + random_below(100), i % 2 ? 64 : 1 + random_below(4));
  }
}
END_TEST

/* A product that is known to be symmetric has the bits of one that is not. */
START_TEST(symmetric_products) {
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t n = 1; n < 140; n += n < 40 ? 1 : 13) for (int trans_a = 0; trans_a < 2; trans_a++) {
    const size_t k = 1 + random_below(30);
    const struct matrix x = random_matrix(n, k), turned = random_matrix(k, n);
    struct matrix out[2] = {random_matrix(n, n), {0, 0, 0, NULL}};
    const real number = random_real();
    out[1] = copy_of(out[0]);
    for (size_t i = 0; i < n; i++)
      for (size_t p = 0; p < k; p++) turned.p[p * turned.ld + i] = x.p[i * x.ld + p];
    struct melu__sum s = {.rows = n, .cols = n, .n_products = 1, .number = &number, .number_scale = 2};
    s.product[0].a = trans_a ? in(turned) : in(x);
    s.product[0].b = in(turned);
    s.product[0].k = k;
    s.product[0].trans_a = trans_a;
    s.product[0].scale = (real)-0.5;
    for (s.symmetric = 0; s.symmetric < 2; s.symmetric++) {
      s.out = (struct melu__mat){out[s.symmetric].p, out[s.symmetric].ld};
      set->sum(&s);
      check_guards(out[s.symmetric]);
    }
    ck_assert_msg(!memcmp(out[0].p, out[1].p, length(out[0]) * sizeof(real)), "%s: n %zu, k %zu", set->name, n, k);
    free(x.p), free(turned.p), free(out[0].p), free(out[1].p);
  }
}
END_TEST

/* NaN passes through a sum and through ReLU, and not through a mask that is closed; a mask of NaN is closed. */
START_TEST(bad_numbers) {
  enum { ROWS = 9, COLS = 37 };
  const struct melu__kernels *set;
  EACH_SET(set) for (int masked = 0; masked < 2; masked++) {
    struct matrix a = random_matrix(ROWS, 5), b = random_matrix(5, COLS), mask = random_matrix(ROWS, COLS);
    struct matrix to = random_matrix(ROWS, COLS);
    a.p[3 * a.ld + 2] = (real)NAN;
    mask.p[3 * mask.ld + 5] = (real)NAN;
    struct melu__sum s = {.rows = ROWS, .cols = COLS, .n_products = 1, .relu = !masked, .out = {to.p, to.ld}};
    s.product[0].a = in(a);
    s.product[0].b = in(b);
    s.product[0].k = 5;
    s.product[0].scale = 1;
    if (masked) s.mask = in(mask);
    set->sum(&s);
    for (size_t i = 0; i < ROWS; i++)
      for (size_t j = 0; j < COLS; j++) {
        const int open = !masked || at(mask, i, j) > 0;
        ck_assert_int_eq(isnan(at(to, i, j)) != 0, i == 3 && open);
      }
    free(a.p), free(b.p), free(mask.p), free(to.p);
  }
}
END_TEST

START_TEST(transposes) {
  const struct melu__kernels *set;
  EACH_SET(set) for (size_t round = test_trials(500); round--;) {
    struct matrix a = random_matrix(random_size(), random_size()), to = random_matrix(a.cols, a.rows);
    set->transpose(a.rows, a.cols, in(a), (struct melu__mat){to.p, to.ld});
    for (size_t i = 0; i < a.rows; i++)
      for (size_t j = 0; j < a.cols; j++)
        if (at(a, i, j) != at(to, j, i)) ck_abort_msg("%s: (%zu, %zu)", set->name, a.rows, a.cols);
    check_guards(to);
    free(a.p), free(to.p);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("sum");
  TCase *tc = tcase_create("sum");
  tcase_add_checked_fixture(tc, find_sets, NULL);
  tcase_set_timeout(tc, 120);
  tcase_add_test(tc, sums);
  tcase_add_test(tc, diagonals);
  tcase_add_test(tc, products_for_more);
  tcase_add_test(tc, long_products);
  tcase_add_test(tc, rows_are_independent);
  tcase_add_test(tc, symmetric_products);
  tcase_add_test(tc, bad_numbers);
  tcase_add_test(tc, transposes);
  suite_add_tcase(s, tc);
  return run_suite(s);
}
