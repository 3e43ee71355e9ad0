/* SPDX-License-Identifier: BSD-3-Clause */
/* The tape's and the plan's promises: what is refused, what is shared, folded and dropped, that no two living values
 * share memory, what happens without memory, and the cache with many threads. */
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>

#include "programs.h"
#include "run_suite.h"
#include "tape/simplify.h"

static const double tolerance = sizeof(real) == sizeof(float) ? 2e-4 : 1e-12;

static melu_context *ctx;

static void open_context(void) {
  ck_assert_int_eq(melu_context_new(&ctx, NULL, NULL), MELU_OK);
}

static void close_context(void) {
  melu_context_free(ctx);
}

static struct melu__tape new_tape(void) {
  struct melu__tape t;
  melu__tape_init(&t, &ctx->allocator);
  return t;
}

/* ------------------------------------------------------------------------------------------------- recording */

/* The recordings that must be refused: x is (2, 3), square (3, 3), number (1, 1), empty (0, 3). */
static melu__ref record_wrong(struct melu__tape *t, int which) {
  const melu__ref x = melu__tape_input(t, 0, 2, 3), square = melu__tape_input(t, 1, 3, 3);
  const melu__ref number = melu__tape_input(t, 2, 1, 1), empty = melu__tape_input(t, 3, 0, 3);
  switch (which) {
    case 0:
      return melu__tape_matmul(t, x, x, 0, 0);
    case 1:
      return melu__tape_matmul(t, x, square, 1, 0);
    case 2:
      return melu__tape_matmul(t, square, x, 0, 0);
    case 3:
      return melu__tape_add(t, x, square);
    case 4:
      return melu__tape_sub(t, x, number);
    case 5:
      return melu__tape_mul(t, empty, x);
    case 6:
      return melu__tape_add_row(t, x, square);
    case 7:
      return melu__tape_add_row(t, x, number);
    case 8:
      return melu__tape_rows(t, x, 4);
    case 9:
      return melu__tape_rows(t, empty, 4);
    case 10:
      return melu__tape_fill(t, x, 4, 4);
    case 11:
      return melu__tape_concat(t, x, square);
    case 12:
      return melu__tape_slice(t, x, 0, 4);
    case 13:
      return melu__tape_slice(t, x, 4, 0);
    case 14:
      return melu__tape_slice(t, x, 2, 2);
    case 15:
      return melu__tape_slice(t, x, 1, UINT32_MAX);
    case 16:
      return melu__tape_solve(t, x, x);
    case 17:
      return melu__tape_solve(t, square, x);
    case 18:
      return melu__tape_relu(t, empty + 1);
    case 19:
      return melu__tape_relu(t, MELU__NO_NODE);
    case 20:
      return melu__tape_add(t, x, MELU__NO_NODE);
    case 21:
      return melu__tape_diag(t, square);
    case 22:
      return melu__tape_diag(t, melu__tape_slice(t, x, 0, 1));
    case 23:
      return melu__tape_diag(t, empty);
    case 24:
      return melu__tape_diagonal(t, x);
    case 25:
      return melu__tape_diagonal(t, melu__tape_transpose(t, x));
    case 26:
      return melu__tape_diagonal(t, empty);
    case 27:
      return melu__tape_add(t, x, melu__tape_slice(t, x, 0, 2));
    case 28:
      return melu__tape_fill(t, melu__tape_sum_rows(t, x), 4, 4);
    case 29:
      return melu__tape_cols(t, x, 0, 4);
    case 30:
      return melu__tape_cols(t, x, 1, 4);
    case 31:
      return melu__tape_cols(t, melu__tape_slice(t, x, 0, 1), 1, 4);
    case 32:
      return melu__tape_cols(t, melu__tape_sum_cols(t, x, 1), 0, 4);
    /* From here on wider than 32 bits. */
    case 33:
      return melu__tape_slice(t, x, (size_t)UINT32_MAX + 2, 1);
    case 34:
      return melu__tape_input(t, 0, (size_t)UINT32_MAX + 1, 1);
    case 35:
      return melu__tape_const(t, 1, (size_t)UINT32_MAX + 1, 0);
    default:
      return x;
  }
}

enum { N_WRONG = SIZE_MAX > UINT32_MAX ? 36 : 33 };

START_TEST(wrong_shapes) {
  struct melu__tape t = new_tape();
  melu_error err;
  ck_assert_uint_eq(record_wrong(&t, _i), MELU__NO_NODE);
  ck_assert_int_eq(melu__tape_status(&t, &err), MELU_EINVAL);
  ck_assert_int_eq(err.status, MELU_EINVAL);
  ck_assert_uint_gt(strlen(err.message), 10);
  /* It stays so, whatever is recorded. */
  const size_t n = t.n;
  ck_assert_uint_eq(record_wrong(&t, -1), MELU__NO_NODE);
  melu__ref x = 0, grad = 1;
  melu__tape_grad(&t, x, &x, 1, &grad);
  ck_assert_uint_eq(grad, MELU__NO_NODE);
  ck_assert_uint_eq(t.n, n);
  ck_assert_int_eq(melu__tape_status(&t, NULL), MELU_EINVAL);
  melu__tape_free(&t);
}
END_TEST

/* What happened first is what is reported. */
START_TEST(first_cause) {
  struct test_heap heap = {.fail_at = 1};
  const struct melu_allocator allocator = test_allocator(&heap);
  struct melu__tape t;
  melu_error err;
  melu__tape_init(&t, &allocator);
  ck_assert_uint_eq(melu__tape_input(&t, 0, 1, 1), MELU__NO_NODE);
  ck_assert_uint_eq(melu__tape_add(&t, 0, 0), MELU__NO_NODE); /* nor is there a node 0 */
  ck_assert_int_eq(melu__tape_status(&t, &err), MELU_ENOMEM);
  ck_assert_int_eq(err.status, MELU_ENOMEM);
  melu__tape_free(&t);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(right_shapes) {
  struct melu__tape t = new_tape();
  melu_error err = {.status = MELU_OK};
  ck_assert_uint_eq(record_wrong(&t, -1), 0);
  ck_assert_uint_eq(t.n, 4);
  ck_assert_int_eq(melu__tape_status(&t, &err), MELU_OK);
  melu__tape_free(&t);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- gradients */

/* What does not lead to `wrt` gets no gradient: nothing of a table's size is recorded. */
START_TEST(gradient_is_pruned) {
  struct melu__tape t = new_tape();
  const melu__ref table = melu__tape_input(&t, 0, 1000, 3), w = melu__tape_input(&t, 1, 5, 3);
  const melu__ref x = melu__tape_bag(&t, table, 0, 4);
  const melu__ref y = melu__tape_sum_all(&t, melu__tape_relu(&t, melu__tape_matmul(&t, x, w, 0, 1)));
  const size_t n = t.n;
  melu__ref grad;
  melu__tape_grad(&t, y, &w, 1, &grad);
  for (size_t i = n; i < t.n; i++) {
    ck_assert_uint_ne(t.nodes[i].op, MELU__BAG_T);
    ck_assert_uint_ne(t.nodes[i].rows, 1000);
    ck_assert(t.nodes[i].rows != 4 || t.nodes[i].cols != 3); /* of x neither */
  }
  ck_assert_uint_eq(t.nodes[grad].rows, 5);
  melu__tape_grad(&t, y, &table, 1, &grad);
  ck_assert_uint_eq(t.nodes[grad].op, MELU__BAG_T);
  ck_assert_uint_eq(t.nodes[grad].rows, 1000);
  melu__tape_free(&t);
}
END_TEST

/* y itself, a node twice, an inner node, and what y does not depend on. */
START_TEST(gradient_of_any_node) {
  struct setting s = {.slot = {{2, 2, NULL}, {1, 3, NULL}}};
  uint64_t random = 1;
  s.slot[0] = random_matrix(&random, 2, 2);
  s.slot[1] = random_matrix(&random, 1, 3);
  struct melu__tape t = new_tape();
  const melu__ref x = melu__tape_input(&t, 0, 2, 2), other = melu__tape_input(&t, 1, 1, 3);
  const melu__ref square = melu__tape_mul(&t, x, x), y = melu__tape_mul(&t, square, x); /* x^3 */
  const melu__ref wrt[] = {y, square, x, other, x};
  melu__ref grad[5];
  struct matrix g[5];
  melu__tape_grad(&t, y, wrt, 5, grad);
  plan_values(g, ctx->kernels, &t, grad, 5, &s);
  for (size_t i = 0; i < 4; i++) {
    const double v = s.slot[0].v[i];
    ck_assert_double_eq(g[0].v[i], 1);
    ck_assert_double_eq(g[1].v[i], v);
    ck_assert_double_eq_tol(g[2].v[i], 3 * v * v, 1e-5);
    ck_assert_double_eq(g[4].v[i], g[2].v[i]);
  }
  ck_assert_uint_eq(g[3].cols, 3);
  for (size_t i = 0; i < 3; i++) ck_assert_double_eq(g[3].v[i], 0);
  for (size_t i = 0; i < 5; i++) free(g[i].v);
  melu__tape_free(&t);
  setting_free(&s);
}
END_TEST

/* --------------------------------------------------------------------------------------------- simplification */

/* What a recording becomes: nodes of `to` for those of `from`. */
struct simple {
  struct melu__tape from, to;
  melu__ref x, y; /* inputs (3, 4) of from */
};

static struct simple simple_new(void) {
  struct simple s = {.from = new_tape(), .to = new_tape()};
  s.x = melu__tape_input(&s.from, 0, 3, 4);
  s.y = melu__tape_input(&s.from, 1, 3, 4);
  return s;
}

static void simplify(struct simple *s, melu__ref *keep, size_t n) {
  ck_assert_int_eq(s->from.status, MELU_OK);
  melu__tape_free(&s->to);
  melu__simplify(&s->to, &s->from, NULL, keep, n);
  ck_assert_int_eq(s->to.status, MELU_OK);
}

static void simple_free(struct simple *s) {
  melu__tape_free(&s->from);
  melu__tape_free(&s->to);
}

START_TEST(equal_nodes_are_shared) {
  struct simple s = simple_new();
  struct melu__tape *t = &s.from;
  const melu__ref square = melu__tape_input(t, 2, 4, 4);
  melu__ref keep[] = {
      melu__tape_add(t, s.x, s.y),
      melu__tape_add(t, s.y, s.x), /* equal */
      melu__tape_mul(t, s.x, s.y),
      melu__tape_mul(t, s.y, s.x), /* equal */
      melu__tape_matmul(t, s.x, s.y, 0, 1),
      melu__tape_matmul(t, s.x, s.y, 0, 1), /* equal */
      melu__tape_sub(t, s.x, s.y),
      melu__tape_sub(t, s.y, s.x), /* not */
      melu__tape_matmul(t, s.x, s.y, 1, 0),
      melu__tape_matmul(t, s.y, s.x, 1, 0), /* not */
      melu__tape_slice(t, s.x, 0, 2),
      melu__tape_slice(t, s.x, 1, 2), /* not */
      melu__tape_concat(t, s.x, s.y),
      melu__tape_concat(t, s.y, s.x), /* not */
      melu__tape_scale(t, s.x, 2),
      melu__tape_scale(t, s.x, -2), /* not */
      melu__tape_slice(t, s.x, 0, 3),
      melu__tape_slice(t, s.x, 0, 2), /* not */
      melu__tape_input(t, 0, 3, 4),
      s.x, /* equal */
      melu__tape_bag(t, s.x, 0, 2),
      melu__tape_bag(t, s.x, 1, 2), /* not */
      melu__tape_relu(t, melu__tape_relu(t, s.x)),
      melu__tape_relu(t, s.x), /* not */
      melu__tape_matmul(t, square, square, 0, 0),
      melu__tape_matmul(t, square, square, 1, 0), /* not */
  };
  static const int equal[] = {1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0};
  const size_t n = sizeof keep / sizeof *keep;
  ck_assert_uint_eq(2 * sizeof equal / sizeof *equal, n);
  simplify(&s, keep, n);
  for (size_t i = 0; i < n / 2; i++)
    ck_assert_msg((keep[2 * i] == keep[2 * i + 1]) == equal[i], "pair %zu is%s shared", i, equal[i] ? " not" : "");
  simple_free(&s);
}
END_TEST

/* A factor that is a mask comes second, whichever way it was written, and once; of two masks both stay. */
START_TEST(masks_come_second) {
  struct simple s = simple_new();
  struct melu__tape *t = &s.from;
  const melu__ref mask = melu__tape_step(t, s.x), other = melu__tape_step(t, s.y);
  melu__ref keep[] = {melu__tape_mul(t, s.y, mask), melu__tape_mul(t, mask, s.y),
                      melu__tape_mul(t, melu__tape_mul(t, mask, s.y), mask), melu__tape_mul(t, mask, other)};
  simplify(&s, keep, sizeof keep / sizeof *keep);
  const struct melu__node *masked = &s.to.nodes[keep[0]], *both = &s.to.nodes[keep[3]];
  ck_assert(s.to.nodes[masked->a].op == MELU__INPUT && s.to.nodes[masked->b].op == MELU__STEP);
  ck_assert(keep[1] == keep[0] && keep[2] == keep[0]);
  ck_assert(s.to.nodes[both->a].op == MELU__STEP && s.to.nodes[both->b].op == MELU__STEP && both->a != both->b);
  simple_free(&s);
}
END_TEST

START_TEST(what_changes_nothing_is_dropped) {
  struct simple s = simple_new();
  struct melu__tape *t = &s.from;
  const melu__ref zero = melu__tape_const(t, 3, 4, 0), one = melu__tape_const(t, 3, 4, 1);
  const melu__ref row = melu__tape_slice(t, melu__tape_sum_rows(t, s.x), 0, 1);
  melu__ref keep[] = {s.x,
                      melu__tape_add(t, s.x, zero),
                      melu__tape_add(t, zero, s.x),
                      melu__tape_sub(t, s.x, zero),
                      melu__tape_mul(t, s.x, one),
                      melu__tape_mul(t, one, s.x),
                      melu__tape_scale(t, s.x, 1),
                      melu__tape_detach(t, s.x),
                      melu__tape_scale(t, melu__tape_scale(t, s.x, 4), 0.25),
                      row,
                      melu__tape_sum_rows(t, row),
                      melu__tape_sum_all(t, row),
                      melu__tape_rows(t, row, 1),
                      melu__tape_fill(t, row, 1, 1)};
  simplify(&s, keep, sizeof keep / sizeof *keep);
  ck_assert_uint_eq(s.to.nodes[keep[0]].op, MELU__INPUT);
  for (size_t i = 1; i < 9; i++) ck_assert_uint_eq(keep[i], keep[0]);
  ck_assert_uint_ne(keep[9], keep[0]);
  for (size_t i = 10; i < 14; i++) ck_assert_uint_eq(keep[i], keep[9]);
  simple_free(&s);
}
END_TEST

START_TEST(constants_are_folded) {
  struct simple s = simple_new();
  struct melu__tape *t = &s.from;
  const melu__ref two = melu__tape_const(t, 3, 4, 2), three = melu__tape_const(t, 3, 4, 3);
  const melu__ref zero = melu__tape_const(t, 3, 4, 0);
  const struct {
    melu__ref node;
    uint32_t rows, cols;
    double s;
  } expected[] = {
      {melu__tape_scale(t, two, -5), 3, 4, -10},
      {melu__tape_mul(t, two, three), 3, 4, 6},
      {melu__tape_sum_rows(t, two), 1, 4, 6},
      {melu__tape_sum_all(t, two), 1, 1, 24},
      {melu__tape_rows(t, melu__tape_sum_rows(t, two), 7), 7, 4, 6},
      {melu__tape_fill(t, melu__tape_sum_all(t, two), 2, 5), 2, 5, 24},
      {melu__tape_matmul(t, s.x, zero, 0, 1), 3, 3, 0},
      {melu__tape_matmul(t, zero, s.y, 1, 0), 4, 4, 0},
      {melu__tape_detach(t, three), 3, 4, 3},
  };
  enum { N = sizeof expected / sizeof *expected };
  melu__ref keep[N + 2];
  for (size_t i = 0; i < N; i++) keep[i] = expected[i].node;
  keep[N] = melu__tape_mul(t, melu__tape_scale(t, three, 2), melu__tape_scale(t, s.x, 5)); /* 30 x */
  keep[N + 1] = melu__tape_scale(t, melu__tape_scale(t, s.x, -10), -3);
  simplify(&s, keep, N + 2);
  for (size_t i = 0; i < N; i++) {
    const struct melu__node *n = &s.to.nodes[keep[i]];
    ck_assert_uint_eq(n->op, MELU__CONST);
    ck_assert_double_eq(n->s, expected[i].s);
    ck_assert_uint_eq(n->rows, expected[i].rows);
    ck_assert_uint_eq(n->cols, expected[i].cols);
  }
  ck_assert_uint_eq(keep[N], keep[N + 1]);
  ck_assert_uint_eq(s.to.nodes[keep[N]].op, MELU__SCALE);
  ck_assert_double_eq(s.to.nodes[keep[N]].s, 30);
  ck_assert_uint_eq(s.to.nodes[s.to.nodes[keep[N]].a].op, MELU__INPUT);
  simple_free(&s);
}
END_TEST

static struct melu__plan *new_plan(const struct melu__tape *t, const struct melu__output *outputs, size_t n) {
  struct melu__plan *plan;
  melu_error err;
  const struct melu__plan_setting setting = {t->alloc, ctx->kernels, NULL, NULL, 0, 0};
  ck_assert_msg(!melu__plan_new(&plan, &setting, t, outputs, n, &err), "%s", err.message);
  return plan;
}

static size_t count_op(const struct melu__tape *t, enum melu__op op) {
  size_t n = 0;
  for (size_t i = 0; i < t->n; i++) n += t->nodes[i].op == op;
  return n;
}

/* s A X and s A' X somewhere in a sum are one product; not with other scales, other factors, or the same A twice. */
START_TEST(twin_products_are_joined) {
  for (int order = 0; order < 8; order++)
    for (int variant = 0; variant < 4; variant++) {
      struct melu__tape from = new_tape(), to = new_tape();
      const melu__ref a = melu__tape_input(&from, 0, 4, 4), x = melu__tape_input(&from, 1, 4, 7),
                      y = melu__tape_input(&from, 2, 4, 7);
      const melu__ref one = melu__tape_scale(&from, melu__tape_matmul(&from, a, x, 0, 0), 3);
      const melu__ref other = melu__tape_scale(
          &from, melu__tape_matmul(&from, a, variant == 1 ? y : x, variant != 2, 0), variant == 3 ? 2 : 3);
      /* The twin may stand below a sum that has a ReLU on its other side. */
      const melu__ref apart = order / 4 ? melu__tape_relu(&from, y) : y;
      const melu__ref sum = order % 2 ? melu__tape_add(&from, apart, one) : melu__tape_add(&from, one, apart);
      melu__ref keep = order / 2 % 2 ? melu__tape_add(&from, other, sum) : melu__tape_add(&from, sum, other);
      melu__simplify(&to, &from, NULL, &keep, 1);
      ck_assert_int_eq(to.status, MELU_OK);
      size_t live = 0;
      unsigned char needed[64] = {0};
      needed[keep] = 1;
      for (size_t i = to.n; i-- > 0;) {
        if (!needed[i]) continue;
        live += to.nodes[i].op == MELU__MATMUL;
        if (to.nodes[i].a != MELU__NO_NODE) needed[to.nodes[i].a] = 1;
        if (to.nodes[i].b != MELU__NO_NODE) needed[to.nodes[i].b] = 1;
      }
      ck_assert_uint_eq(live, variant == 0 || variant == 2 ? 1 : 2); /* the same product twice is one, too */
      melu__tape_free(&from);
      melu__tape_free(&to);
    }
}
END_TEST

/* A transpose that the run brings along is not made, in either direction. */
START_TEST(known_transposes_are_used) {
  const uint32_t transposed[3] = {0, 2, 1};
  struct melu__tape from = new_tape(), to = new_tape();
  const melu__ref x = melu__tape_input(&from, 0, 3, 4), w = melu__tape_input(&from, 1, 5, 4);
  melu__ref keep[] = {melu__tape_matmul(&from, x, w, 0, 1), melu__tape_transpose(&from, melu__tape_transpose(&from, w)),
                      melu__tape_transpose(&from, x)};
  melu__simplify(&to, &from, transposed, keep, 3);
  ck_assert_int_eq(to.status, MELU_OK);
  const struct melu__node product = to.nodes[keep[0]], factor = to.nodes[product.b];
  ck_assert_int_eq(product.trans_b, 0);
  ck_assert_int_eq(factor.op, MELU__INPUT);
  ck_assert_uint_eq(factor.index, 2);
  ck_assert_uint_eq(factor.rows, 4);
  ck_assert_uint_eq(factor.cols, 5);
  ck_assert_uint_eq(to.nodes[keep[1]].index, 1);
  ck_assert_uint_eq(count_op(&to, MELU__TRANSPOSE), 1); /* of x, which has none */
  melu__tape_free(&from);
  melu__tape_free(&to);
}
END_TEST

/* An output may be added to what is in another slot than its own. */
START_TEST(outputs_on_top_of_others) {
  struct melu__tape t = new_tape();
  real x[6] = {1, 2, 3, 4, 5, 6}, base[6] = {10, 20, 30, 40, 50, 60}, out[6] = {0}, *slots[] = {x, base, out};
  const struct melu__output output = {melu__tape_scale(&t, melu__tape_input(&t, 0, 2, 3), 2), 2, 1, 1};
  struct melu__plan *plan = new_plan(&t, &output, 1);
  real *arena =
      aligned_alloc(MELU__ALIGN, (melu__plan_arena_size(plan) * sizeof *arena / MELU__ALIGN + 1) * MELU__ALIGN);
  for (int run = 0; run < 2; run++) melu__plan_run(plan, slots, NULL, arena);
  for (size_t i = 0; i < 6; i++) ck_assert(out[i] == 2 * x[i] + base[i] && base[i] == 10 * (real)(i + 1));
  free(arena);
  melu__plan_free(plan);
  melu__tape_free(&t);
}
END_TEST

/* A sum may take the place of a matrix that it reads for the last time, but not of one that is also a factor in it. */
START_TEST(factors_are_not_overwritten) {
  enum { N = 40 };
  struct melu__tape t = new_tape();
  const melu__ref x = melu__tape_sigmoid(&t, melu__tape_input(&t, 0, N, N));
  const melu__ref y = melu__tape_add(&t, melu__tape_matmul(&t, x, melu__tape_input(&t, 1, N, N), 0, 0), x);
  const melu__ref z = melu__tape_add(&t, melu__tape_matmul(&t, melu__tape_input(&t, 1, N, N), y, 0, 0), y);
  const struct melu__output output = {melu__tape_sigmoid(&t, z), 2, 0, 0};
  struct melu__plan *plan = new_plan(&t, &output, 1);
  static real in[N * N], w[N * N], out[N * N];
  static double s[N * N], u[N * N];
  real *slots[] = {in, w, out};
  real *arena =
      aligned_alloc(MELU__ALIGN, (melu__plan_arena_size(plan) * sizeof *arena / MELU__ALIGN + 1) * MELU__ALIGN);
  for (size_t i = 0; i < N * N; i++) {
    in[i] = (real)(i % 7) - 3;
    w[i] = (real)(i % 5) / 50 - (real)0.04;
    s[i] = 1 / (1 + exp(-(double)in[i]));
  }
  melu__plan_run(plan, slots, NULL, arena);
  for (size_t i = 0; i < N * N; i++) {
    u[i] = s[i];
    for (size_t k = 0; k < N; k++) u[i] += s[i / N * N + k] * (double)w[k * N + i % N];
  }
  for (size_t i = 0; i < N * N; i++) {
    double v = u[i];
    for (size_t k = 0; k < N; k++) v += (double)w[i / N * N + k] * u[k * N + i % N];
    ck_assert_double_eq_tol((double)out[i], 1 / (1 + exp(-v)), 1e-5);
  }
  free(arena);
  melu__plan_free(plan);
  melu__tape_free(&t);
}
END_TEST

/* What a developer sees of a plan: its steps, and their floating-point operations as counted for the whole. */
START_TEST(steps_are_described) {
  struct melu__tape t = new_tape();
  const melu__ref x = melu__tape_input(&t, 0, 8, 16), w = melu__tape_input(&t, 1, 16, 24);
  const struct melu__output output = {melu__tape_relu(&t, melu__tape_matmul(&t, x, w, 0, 0)), 2, 0, 0};
  struct melu__plan *plan = new_plan(&t, &output, 1);
  struct melu__step_info info;
  ck_assert_uint_eq(melu__plan_n_steps(plan), 1);
  melu__plan_step_info(plan, 0, &info);
  ck_assert_str_eq(info.op, "sum");
  ck_assert(info.rows == 8 && info.cols == 24 && info.n_products == 1 && info.k[0] == 16 && info.relu);
  ck_assert_double_eq(info.flops, 2.0 * 8 * 16 * 24);
  ck_assert_double_eq(info.flops, melu__plan_flops(plan));
  ck_assert_double_eq(info.bytes, sizeof(real) * (8.0 * 16 + 16 * 24 + 8 * 24));
  melu__plan_free(plan);
  melu__tape_free(&t);
}
END_TEST

/* Steps that are no sums; products of nothing but ones, which are no operations worth counting; and what comes along.
 */
START_TEST(steps_of_every_kind_are_described) {
  struct melu__tape t = new_tape();
  const melu__ref x = melu__tape_input(&t, 0, 8, 16), w = melu__tape_input(&t, 1, 8, 24);
  const melu__ref s = melu__tape_input(&t, 2, 16, 16), z = melu__tape_matmul(&t, x, w, 1, 0);
  const melu__ref nodes[] = {z,
                             melu__tape_relu(&t, z),
                             melu__tape_sum_rows(&t, w),
                             melu__tape_solve(&t, s, z),
                             melu__tape_sigmoid(&t, w),
                             melu__tape_sum_cols(&t, melu__tape_mul(&t, w, w), 0)};
  enum { N_NODES = sizeof nodes / sizeof *nodes };
  struct melu__output outputs[N_NODES];
  for (uint32_t i = 0; i < N_NODES; i++) outputs[i] = (struct melu__output){nodes[i], 3 + i, 0, 0};
  struct melu__plan *plan = new_plan(&t, outputs, N_NODES);
  double flops = 0;
  int seen[5] = {0};
  for (size_t i = 0; i < melu__plan_n_steps(plan); i++) {
    struct melu__step_info info;
    melu__plan_step_info(plan, i, &info);
    flops += info.flops;
    if (info.pre) {
      ck_assert(info.relu && info.trans_a[0] && info.k[0] == 8 && info.rows == 16 && info.cols == 24);
      ck_assert_double_eq(info.bytes, sizeof(real) * (8.0 * 16 + 8 * 24 + 2 * 16 * 24));
      seen[0]++;
    } else if (info.n_products && info.cols == 1) {
      ck_assert(info.rows == 8 && info.k[0] == 24 && info.flops == 0);
      seen[4]++;
    } else if (info.n_products) {
      ck_assert(info.rows == 1 && info.cols == 24 && info.k[0] == 8 && info.flops == 0);
      seen[1]++;
    } else if (strcmp(info.op, "solve") == 0) {
      ck_assert_double_eq(info.flops, 16.0 * 16 * (16.0 / 3 + 2 * 24));
      seen[2]++;
    } else {
      ck_assert_str_eq(info.op, "sigmoid");
      ck_assert(info.flops == 0);
      seen[3]++;
    }
  }
  for (int i = 0; i < 5; i++) ck_assert_int_eq(seen[i], 1);
  ck_assert_double_eq(flops, melu__plan_flops(plan));
  melu__plan_free(plan);
  melu__tape_free(&t);
}
END_TEST

START_TEST(dead_nodes_are_dropped) {
  struct simple s = simple_new();
  struct melu__tape *t = &s.from;
  melu__ref keep = melu__tape_matmul(t, s.x, s.y, 1, 0);
  const struct melu__output output = {keep, NAIVE_SLOTS, 0, 0};
  struct melu__plan *alone = new_plan(t, &output, 1);
  for (int i = 0; i < 50; i++) melu__tape_matmul(t, s.y, melu__tape_scale(t, s.x, 2 + i), 0, 1);
  struct melu__plan *with_others = new_plan(t, &output, 1);
  ck_assert_uint_eq(melu__plan_n_steps(with_others), melu__plan_n_steps(alone));
  ck_assert_uint_eq(melu__plan_arena_size(with_others), melu__plan_arena_size(alone));
  ck_assert_double_eq(melu__plan_flops(with_others), melu__plan_flops(alone));
  ck_assert_double_eq(melu__plan_flops(alone), 2 * 4 * 4 * 3);
  melu__plan_free(alone);
  melu__plan_free(with_others);
  simplify(&s, &keep, 1);
  ck_assert_uint_eq(s.to.n, 3);
  simple_free(&s);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- the arena */

/* A chain needs no more memory for being longer; values that are all read at the end do. */
START_TEST(memory_is_reused) {
  size_t size[2];
  for (size_t longer = 0; longer < 2; longer++) {
    struct melu__tape t = new_tape();
    melu__ref x = melu__tape_input(&t, 0, 16, 16);
    const melu__ref w = melu__tape_input(&t, 1, 16, 16);
    for (size_t i = 0; i < (longer ? 100 : 10); i++) x = melu__tape_sigmoid(&t, melu__tape_matmul(&t, x, w, 0, 0));
    const struct melu__output output = {x, NAIVE_SLOTS, 0, 0};
    struct melu__plan *plan = new_plan(&t, &output, 1);
    size[longer] = melu__plan_arena_size(plan);
    melu__plan_free(plan);
    melu__tape_free(&t);
  }
  ck_assert_uint_eq(size[0], size[1]);
  ck_assert_uint_le(size[0], 4 * 16 * 16);
}
END_TEST

/* Values of a program and of its gradients, second derivatives among them. */
static size_t choose_outputs(struct program *p, struct melu__output *outputs) {
  struct melu__tape *t = &p->tape;
  melu__ref grad[2], wrt[2], scalar;
  scalar = melu__tape_sum_all(t, melu__tape_sigmoid(t, (melu__ref)t->n - 1));
  for (size_t order = 0; order < 2; order++) {
    for (size_t i = 0; i < 2; i++) wrt[i] = program_below(p, (uint32_t)t->n);
    melu__tape_grad(t, scalar, wrt, 2, grad);
    scalar = melu__tape_sum_all(t, melu__tape_mul(t, grad[0], grad[0]));
  }
  const size_t n = program_outputs(p, outputs, PROGRAM_OUTPUTS);
  outputs[0].node = scalar;
  return n;
}

static void check_plan(const struct program *p, const struct melu__output *outputs, size_t n, const char *name,
                       const struct melu__kernels *kernels, const struct matrix *naive) {
  struct matrix out[PROGRAM_OUTPUTS];
  program_run(out, p, outputs, n, kernels);
  for (size_t i = 0; i < n; i++) {
    const struct matrix v = naive[outputs[i].node];
    const double error = worst_error(out[i].v, v.v, size_of(v), 1);
    if (!(error < tolerance)) ck_abort_msg("%s, %s: output %zu off by %g", name, kernels->name, i, error);
    free(out[i].v);
  }
}

START_TEST(random_programs) {
  for (uint64_t seed = 0; seed < test_trials(400); seed++) {
    struct program *p = program_new(seed, 10 + seed % 100, 1);
    struct melu__output outputs[PROGRAM_OUTPUTS];
    const struct melu__kernels *kernels;
    char name[32];
    snprintf(name, sizeof name, "program %d", (int)seed);
    const size_t n = choose_outputs(p, outputs);
    struct matrix *naive = naive_run(&p->tape, p->tape.n, &p->setting);
    for (size_t k = 0; (kernels = usable_kernels(k)) != NULL; k++) check_plan(p, outputs, n, name, kernels, naive);
    naive_free(naive, p->tape.n);
    program_free(p);
  }
}
END_TEST

/* ----------------------------------------------------------------------------------- products that many read */

enum { N_READERS = 33, MOST_READERS = 12, N_FACTORS = 8, N_VALUES = N_FACTORS + 4 };

/* Ways to read the product p, (rows, cols), of which some are made with it: sums that take it times a vector, and sums
 * of rows of it times another matrix. q is another product, m and n are matrices, v and w vectors of `rows` numbers, r
 * is a row: the last of `values`. */
static melu__ref record_reader(struct melu__tape *t, int which, melu__ref p, melu__ref q, const melu__ref *values) {
  const melu__ref m = values[4], n = values[5], r = values[7], v = values[8], w = values[9], rows_of_r = values[10],
                  filled = values[11];
  const size_t rows = t->nodes[p].rows, cols = t->nodes[p].cols;
  const melu__ref p_by_v = melu__tape_mul(t, p, melu__tape_cols(t, v, 1, cols));
  const melu__ref p_by_w = melu__tape_mul(t, p, melu__tape_cols(t, w, 1, cols));
  const melu__ref m_by_w = melu__tape_mul(t, m, melu__tape_cols(t, w, 1, cols));
  const melu__ref pm = melu__tape_mul(t, p, m), pn = melu__tape_mul(t, p, n), mn = melu__tape_mul(t, m, n);
  const melu__ref three_n = melu__tape_scale(t, n, 3);
  switch (which) {
    case 0:
      return p;
    case 1:
      return melu__tape_add(t, p_by_v, m);
    case 2:
      return melu__tape_add(t, p_by_v, p_by_w);
    case 3:
      return melu__tape_add(t, p_by_w, p);
    case 4:
      return melu__tape_add(t, melu__tape_scale(t, p_by_w, -2), melu__tape_add(t, m_by_w, n));
    case 5:
      return melu__tape_add(t, melu__tape_add(t, p_by_v, melu__tape_sub(t, m, n)), melu__tape_add(t, m_by_w, q));
    case 6:
      return melu__tape_sum_cols(t, pm, 0);
    case 7:
      return melu__tape_sum_cols(t, melu__tape_mul(t, p, p), 1);
    case 8:
      return melu__tape_sum_cols(t, melu__tape_sub(t, melu__tape_scale(t, pm, 3), melu__tape_add(t, pn, mn)), 0);
    case 9:
      return melu__tape_sum_cols(t, melu__tape_add(t, melu__tape_mul(t, p, q), pn), 1);
    case 10:
      return melu__tape_relu(t, p);
    case 11:
      return melu__tape_mul(t, m, melu__tape_step(t, p));
    case 12:
      return melu__tape_sigmoid(t, melu__tape_add_row(t, p, r));
    case 13:
      return melu__tape_sum_cols(t, melu__tape_mul(t, p, melu__tape_sigmoid(t, p)), 0);
    case 14:
      return melu__tape_add(t, melu__tape_mul(t, p, melu__tape_cols(t, melu__tape_sum_cols(t, pm, 1), 1, cols)), n);
    case 15:
      return melu__tape_add(t, p_by_v, melu__tape_add(t, m_by_w, rows_of_r));
    case 16:
      return melu__tape_sub(t, filled, p_by_w);
    case 17: /* a column of sums of rows times a vector */
      return melu__tape_mul(t, melu__tape_sum_cols(t, pm, 0), melu__tape_cols(t, v, 1, 1));
    case 18:
      return melu__tape_mul(t, melu__tape_sum_cols(t, p, 0), melu__tape_cols(t, w, 1, 1));
    case 19: /* such sums as a row, times a number */
      return melu__tape_add(
          t, melu__tape_mul(t, melu__tape_sum_cols(t, pn, 1), melu__tape_cols(t, melu__tape_sum_all(t, v), 0, rows)),
          w);
    case 20: /* and beside a row times a number */
      return melu__tape_add(t, melu__tape_sum_cols(t, pn, 1),
                            melu__tape_mul(t, v, melu__tape_cols(t, melu__tape_sum_all(t, w), 1, rows)));
    case 21:
      return melu__tape_sum_cols(t, melu__tape_add(t, p_by_v, m), 0); /* of what another reader makes */
    case 22:
      return melu__tape_sum_cols(t, melu__tape_add(t, melu__tape_mul(t, p, melu__tape_sigmoid(t, p)), pm), 0);
    case 23: /* columns scaled instead of rows */
      return melu__tape_matmul(t, v, melu__tape_mul(t, p, melu__tape_cols(t, w, 1, cols)), 0, 0);
    case 24:
      return melu__tape_matmul(t, v, melu__tape_mul(t, m, melu__tape_cols(t, melu__tape_sum_cols(t, n, 0), 0, cols)), 0,
                               0);
    case 25: /* half of these is computed, where that is all */
      return melu__tape_matmul(t, melu__tape_transpose(t, m), m, 0, 0);
    case 26:
      return melu__tape_mul(t, melu__tape_matmul(t, m, m, 0, 1), melu__tape_cols(t, v, 1, rows));
    case 27:
      return melu__tape_step(t, melu__tape_matmul(t, m, m, 0, 1));
    case 28:
      return melu__tape_add(t, melu__tape_mul(t, q, melu__tape_cols(t, v, 1, cols)), p_by_w);
    case 29:
      return melu__tape_add(t, p_by_v, melu__tape_mul(t, m, melu__tape_cols(t, melu__tape_sigmoid(t, w), 1, cols)));
    case 30:
      return melu__tape_sum_cols(t, melu__tape_add(t, melu__tape_add(t, mn, melu__tape_mul(t, m, m)), pm), 0);
    case 31:
      return melu__tape_add(t, melu__tape_relu(t, three_n),
                            melu__tape_cols(t, melu__tape_sum_cols(t, melu__tape_add(t, three_n, pm), 0), 0, cols));
    default:
      return melu__tape_add(t, melu__tape_matmul(t, p, p, 0, 1),
                            melu__tape_fill(t, melu__tape_sum_all(t, pn), rows, rows));
  }
}

/* v, w and what is broadcast: what is made before the products may be made use of with them. */
static void record_others(struct melu__tape *t, melu__ref *values) {
  const size_t rows = t->nodes[values[4]].rows, cols = t->nodes[values[4]].cols;
  values[N_FACTORS] = melu__tape_sigmoid(t, values[6]);
  values[N_FACTORS + 1] = melu__tape_scale(t, melu__tape_sum_cols(t, values[5], 1), 0.5);
  values[N_FACTORS + 2] = melu__tape_rows(t, values[7], rows);
  values[N_FACTORS + 3] = melu__tape_fill(t, melu__tape_sum_all(t, values[6]), rows, cols);
}

static size_t record_readers(struct melu__tape *t, uint64_t *random, const struct setting *s, melu__ref *nodes) {
  melu__ref values[N_VALUES], p, q;
  for (uint32_t i = 0; i < N_FACTORS; i++) values[i] = melu__tape_input(t, i, s->slot[i].rows, s->slot[i].cols);
  const int others_first = random_below(random, 2) == 0;
  if (others_first) record_others(t, values);
  p = melu__tape_matmul(t, values[0], values[1], 0, 0);
  q = melu__tape_matmul(t, values[2], values[3], 1, 0);
  if (!others_first) record_others(t, values);
  const size_t n = 1 + random_below(random, MOST_READERS);
  for (size_t i = 0; i < n; i++) {
    const int turned = random_below(random, 3) == 0; /* the other product */
    nodes[i] = record_reader(t, (int)random_below(random, N_READERS), turned ? q : p, turned ? p : q, values);
  }
  return n;
}

/* However many read a product, and in whatever order, they get what plain loops make. */
START_TEST(products_of_many_readers) {
  static const uint32_t sizes[] = {1, 2, 3, 4, 7, 8, 9, 16, 17, 24, 33};
  enum { N_SIZES = sizeof sizes / sizeof *sizes };
  uint64_t random = 20190804;
  for (size_t trial = test_trials(2000); trial--;) {
    const size_t rows = sizes[random_below(&random, N_SIZES)], cols = sizes[random_below(&random, N_SIZES)],
                 inner = random_below(&random, 4) ? 1 + random_below(&random, (uint32_t)cols) : 40;
    const size_t shapes[N_FACTORS][2] = {{rows, inner}, {inner, cols}, {inner, rows}, {inner, cols},
                                         {rows, cols},  {rows, cols},  {1, rows},     {1, cols}};
    struct melu__tape t = new_tape();
    struct setting s = {.slot = {{0, 0, NULL}}};
    const struct melu__kernels *kernels;
    melu__ref nodes[MOST_READERS];
    for (size_t i = 0; i < N_FACTORS; i++) s.slot[i] = random_matrix(&random, shapes[i][0], shapes[i][1]);
    const size_t n = record_readers(&t, &random, &s, nodes);
    struct matrix *naive = naive_run(&t, t.n, &s);
    for (size_t k = 0; (kernels = usable_kernels(k)) != NULL; k++) {
      struct matrix out[MOST_READERS];
      plan_values(out, kernels, &t, nodes, n, &s);
      for (size_t i = 0; i < n; i++) {
        const double error = worst_error(out[i].v, naive[nodes[i]].v, size_of(out[i]), 1);
        if (!(error < tolerance))
          ck_abort_msg("trial %zu, %s: (%zu, %zu, %zu), output %zu off by %g", trial, kernels->name, rows, inner, cols,
                       i, error);
        free(out[i].v);
      }
    }
    naive_free(naive, t.n);
    setting_free(&s);
    melu__tape_free(&t);
  }
}
END_TEST

/* No node, no output, an output that is an input or a constant. */
START_TEST(small_plans) {
  struct melu__tape t = new_tape();
  struct setting s = {.slot = {{0, 0, NULL}}};
  melu__plan_free(NULL);
  struct melu__plan *plan = new_plan(&t, NULL, 0);
  ck_assert_uint_eq(melu__plan_n_steps(plan), 0);
  ck_assert_uint_eq(melu__plan_arena_size(plan), 0);
  plan_run(plan, &s, NULL, NULL, 0, (real)NAN);
  melu__plan_free(plan);

  uint64_t random = 1;
  struct matrix out[2];
  s.slot[0] = random_matrix(&random, 2, 5);
  const melu__ref nodes[] = {melu__tape_input(&t, 0, 2, 5), melu__tape_const(&t, 5, 1, 0.25)};
  plan_values(out, ctx->kernels, &t, nodes, 2, &s);
  for (size_t i = 0; i < 10; i++) ck_assert_double_eq(out[0].v[i], s.slot[0].v[i]);
  for (size_t i = 0; i < 5; i++) ck_assert_double_eq(out[1].v[i], 0.25);
  free(out[0].v);
  free(out[1].v);
  setting_free(&s);
  melu__tape_free(&t);
}
END_TEST

/* A plan that would need more memory than there are addresses. */
START_TEST(beyond_reason) {
  const uint32_t sizes[2] = {UINT32_MAX, (uint32_t)1 << 20}; /* and one of more vectors than 32 bits count */
  for (int s = 0; s < 2; s++) {
    struct melu__tape t = new_tape();
    struct melu__plan *plan = (struct melu__plan *)&t;
    melu_error err;
    const melu__ref row = melu__tape_input(&t, 0, 1, sizes[s]);
    melu__ref x = melu__tape_rows(&t, row, sizes[s]), sum = melu__tape_const(&t, 1, 1, 0);
    for (int i = 0; i < 4; i++) { /* one alone would fit in a size_t */
      x = melu__tape_sigmoid(&t, x);
      sum = melu__tape_add(&t, sum, melu__tape_sum_all(&t, melu__tape_log(&t, x)));
    }
    const struct melu__output output = {sum, NAIVE_SLOTS, 0, 0};
    const struct melu__plan_setting setting = {t.alloc, ctx->kernels, NULL, NULL, 0, 0};
    ck_assert_int_eq(melu__plan_new(&plan, &setting, &t, &output, 1, &err), MELU_ENOMEM);
    ck_assert_ptr_null(plan);
    ck_assert_int_eq(err.status, MELU_ENOMEM);
    melu__tape_free(&t);
  }
}
END_TEST

/* A matrix that is not positive definite: the run says so by NaN. */
START_TEST(no_solution) {
  struct melu__tape t = new_tape();
  struct setting s = {.slot = {{0, 0, NULL}}};
  struct matrix out;
  s.slot[0] = new_matrix(2, 2);
  s.slot[0].v[0] = s.slot[0].v[3] = 1;
  s.slot[0].v[1] = s.slot[0].v[2] = 2;
  const melu__ref a = melu__tape_input(&t, 0, 2, 2), x = melu__tape_solve(&t, a, a);
  plan_values(&out, ctx->kernels, &t, &x, 1, &s);
  for (size_t i = 0; i < 4; i++) ck_assert(isnan(out.v[i]));
  free(out.v);
  setting_free(&s);
  melu__tape_free(&t);
}
END_TEST

/* -------------------------------------------------------------------------------------------- without memory */

/* A recording with first and second derivatives, and its plan. */
static melu_status make_example(struct melu__plan **out, const struct melu_allocator *allocator, size_t width,
                                melu_error *err) {
  struct melu__tape tape, *t = &tape;
  melu__tape_init(t, allocator);
  *out = NULL;
  const melu__ref x = melu__tape_input(t, 0, 5, width), w = melu__tape_input(t, 1, width, width);
  const melu__ref z = melu__tape_sigmoid(t, melu__tape_matmul(t, x, w, 0, 0));
  const melu__ref solved = melu__tape_solve(t, melu__tape_matmul(t, w, w, 1, 0), melu__tape_matmul(t, z, x, 1, 0));
  melu__ref g, h;
  melu__tape_grad(t, melu__tape_sum_all(t, solved), &w, 1, &g);
  melu__tape_grad(t, melu__tape_sum_all(t, melu__tape_mul(t, g, g)), &w, 1, &h);
  const struct melu__output outputs[] = {{g, 2, 0, 0}, {h, 3, 1, 3}};
  const struct melu__plan_setting setting = {allocator, ctx->kernels, NULL, NULL, 0, 1};
  melu_status status = melu__tape_status(t, err);
  if (!status) status = melu__plan_new(out, &setting, t, outputs, 2, err);
  melu__tape_free(t);
  return status;
}

/* What lies in the arena from before is not computed with, not even beyond the edges of rows, where nobody looks: a
 * host that has traps would be stopped. */
START_TEST(nothing_overflows_beyond_the_edges) {
  for (size_t width = 1; width <= 33; width++) {
    struct melu__plan *plan;
    melu_error err;
    real *slots[4];
    ck_assert_msg(make_example(&plan, &ctx->allocator, width, &err) == MELU_OK, "%s", err.message);
    const size_t n = melu__plan_arena_size(plan);
    real *arena = aligned_alloc(MELU__ALIGN, (n * sizeof *arena / MELU__ALIGN + 1) * MELU__ALIGN);
    for (size_t i = 0; i < n; i++) arena[i] = MELU__REAL_MAX;
    for (size_t i = 0; i < 4; i++) slots[i] = calloc((width + 5) * width, sizeof(real));
    for (size_t i = 0; i < width; i++) slots[0][i] = slots[1][i * width + i] = 1;
    feclearexcept(FE_ALL_EXCEPT);
    melu__plan_run(plan, slots, NULL, arena);
    ck_assert_msg(!fetestexcept(FE_OVERFLOW | FE_INVALID | FE_DIVBYZERO), "width %zu", width);
    for (size_t i = 0; i < 4; i++) free(slots[i]);
    free(arena);
    melu__plan_free(plan);
  }
}
END_TEST

START_TEST(every_allocation_fails_once) {
  const int from_there_on = _i;
  size_t n = 1;
  for (melu_status status = MELU_ENOMEM; status; n++) {
    struct test_heap heap = {.fail_at = n, .from_there_on = from_there_on};
    const struct melu_allocator allocator = test_allocator(&heap);
    struct melu__plan *plan;
    melu_error err = {.status = MELU_OK};
    status = make_example(&plan, &allocator, 4, &err);
    ck_assert(status == MELU_OK || status == MELU_ENOMEM);
    ck_assert_int_eq(err.status, status);
    ck_assert((plan != NULL) == (status == MELU_OK));
    melu__plan_free(plan);
    ck_assert_msg(heap.live == 0, "allocation %zu failed: %zu blocks are lost", n, (size_t)heap.live);
  }
  ck_assert_uint_gt(n, 15);
}
END_TEST

/* ------------------------------------------------------------------------------------------------- the cache */

struct maker {
  const struct melu_allocator *allocator;
  atomic_size_t made[64];
};

static melu_status make_plan(struct melu__plan **out, const void *arg, uint64_t key, melu_error *err) {
  struct maker *maker = (struct maker *)(uintptr_t)arg;
  const melu_status status = make_example(out, maker->allocator, 1 + key % 64, err);
  if (!status) atomic_fetch_add(&maker->made[key % 64], 1);
  return status;
}

START_TEST(cache_keeps_plans) {
  struct maker maker = {.allocator = &ctx->allocator};
  struct melu__plan_cache *cache = melu__plan_cache_new(ctx);
  static const uint64_t keys[] = {7, 3, UINT64_C(7) << 32, 5, 0, UINT64_MAX, 63, 3 + (UINT64_C(1) << 63)};
  enum { N = sizeof keys / sizeof *keys };
  const struct melu__plan *plans[N], *plan;
  melu_error err;
  ck_assert_ptr_nonnull(cache);
  for (size_t i = 0; i < N; i++) {
    ck_assert_int_eq(melu__plan_cache_get(&plans[i], cache, keys[i], make_plan, &maker, &err), MELU_OK);
    for (size_t k = 0; k < i; k++) ck_assert_ptr_ne(plans[k], plans[i]);
  }
  for (size_t i = 0; i < N; i++) {
    ck_assert_int_eq(melu__plan_cache_get(&plan, cache, keys[i], make_plan, &maker, &err), MELU_OK);
    ck_assert_ptr_eq(plan, plans[i]);
  }
  size_t n = 0;
  for (size_t i = 0; i < 64; i++) n += maker.made[i];
  ck_assert_uint_eq(n, N);
  melu__plan_cache_free(cache);
  melu__plan_cache_free(NULL);
}
END_TEST

/* A failure leaves the cache as it was, and the same call succeeds with memory. */
START_TEST(cache_without_memory) {
  for (size_t n = 1, failed = 1; failed; n++) {
    struct test_heap heap = {.fail_at = 0};
    const struct melu_allocator allocator = test_allocator(&heap);
    const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
    struct maker maker = {.allocator = &allocator};
    melu_context *small;
    const struct melu__plan *plan, *old = NULL;
    melu_error err;
    ck_assert_int_eq(melu_context_new(&small, &options, NULL), MELU_OK);
    const size_t before = heap.live;
    heap.fail_at = heap.made + n;
    struct melu__plan_cache *cache = melu__plan_cache_new(small);
    failed = cache == NULL;
    for (uint64_t key = 20; cache && key-- > 0;) {
      melu_status status = melu__plan_cache_get(&plan, cache, key, make_plan, &maker, &err);
      if (status) {
        failed = 1;
        ck_assert_int_eq(status, MELU_ENOMEM);
        ck_assert_int_eq(err.status, MELU_ENOMEM);
        ck_assert_ptr_null(plan);
        status = melu__plan_cache_get(&plan, cache, key, make_plan, &maker, &err);
      }
      ck_assert_int_eq(status, MELU_OK);
      if (key == 19) old = plan;
    }
    if (cache) {
      ck_assert_int_eq(melu__plan_cache_get(&plan, cache, 19, make_plan, &maker, &err), MELU_OK);
      ck_assert_ptr_eq(plan, old);
    }
    melu__plan_cache_free(cache);
    ck_assert_uint_eq(heap.live, before);
    melu_context_free(small);
    ck_assert_uint_eq(heap.live, 0);
  }
}
END_TEST

enum { N_THREADS = 8, N_KEYS = 48 };

struct racer {
  struct melu__plan_cache *cache;
  struct maker *maker;
  pthread_barrier_t *start;
  size_t number;
  const struct melu__plan *plans[N_KEYS];
  double result[N_KEYS]; /* of a run of each plan */
  int failed;
};

static double run_example(const struct melu__plan *plan, size_t width) {
  real *slots[4];
  double sum = 0;
  real *arena =
      aligned_alloc(MELU__ALIGN, (melu__plan_arena_size(plan) * sizeof *arena / MELU__ALIGN + 1) * MELU__ALIGN);
  for (size_t i = 0; i < 4; i++) slots[i] = calloc((width + 5) * width, sizeof(real));
  for (size_t i = 0; i < 5 * width; i++) slots[0][i] = (real)(i % 7) / 7;
  for (size_t i = 0; i < width; i++) slots[1][i * width + i] = 1;
  melu__plan_run(plan, slots, NULL, arena);
  for (size_t i = 0; i < width * width; i++) sum += slots[2][i] + 0.1 * (double)i * slots[3][i];
  for (size_t i = 0; i < 4; i++) free(slots[i]);
  free(arena);
  return sum;
}

static void *race(void *arg) {
  struct racer *r = arg;
  pthread_barrier_wait(r->start);
  for (size_t i = 0; i < N_KEYS; i++) {
    const size_t key = (i * 5 + r->number / 2) % N_KEYS; /* two by two in the same order */
    if (melu__plan_cache_get(&r->plans[key], r->cache, key, make_plan, r->maker, NULL)) r->failed = 1;
    r->result[key] = run_example(r->plans[key], 1 + key);
  }
  return NULL;
}

START_TEST(cache_of_many_threads) {
  struct maker maker = {.allocator = &ctx->allocator};
  struct melu__plan_cache *cache = melu__plan_cache_new(ctx);
  static struct racer racers[N_THREADS];
  pthread_t threads[N_THREADS];
  pthread_barrier_t start;
  ck_assert_ptr_nonnull(cache);
  ck_assert_int_eq(pthread_barrier_init(&start, NULL, N_THREADS), 0);
  for (size_t i = 0; i < N_THREADS; i++) {
    racers[i] = (struct racer){.cache = cache, .maker = &maker, .start = &start, .number = i};
    ck_assert_int_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
  }
  for (size_t i = 0; i < N_THREADS; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
  for (size_t k = 0; k < N_KEYS; k++) {
    ck_assert_uint_eq(maker.made[k], 1);
    for (size_t i = 0; i < N_THREADS; i++) {
      ck_assert_int_eq(racers[i].failed, 0);
      ck_assert_ptr_eq(racers[i].plans[k], racers[0].plans[k]);
      ck_assert(isfinite(racers[i].result[k]));
      ck_assert(memcmp(&racers[i].result[k], &racers[0].result[k], sizeof(double)) == 0);
    }
  }
  pthread_barrier_destroy(&start);
  melu__plan_cache_free(cache);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("plan");
  TCase *tape = tcase_create("tape"), *plan = tcase_create("plan"), *cache = tcase_create("cache");
  TCase *const all[] = {tape, plan, cache};
  for (size_t i = 0; i < 3; i++) {
    tcase_add_checked_fixture(all[i], open_context, close_context);
    tcase_set_timeout(all[i], 120);
    suite_add_tcase(suite, all[i]);
  }
  tcase_add_loop_test(tape, wrong_shapes, 0, N_WRONG);
  tcase_add_test(tape, first_cause);
  tcase_add_test(tape, right_shapes);
  tcase_add_test(tape, gradient_is_pruned);
  tcase_add_test(tape, gradient_of_any_node);
  tcase_add_test(plan, equal_nodes_are_shared);
  tcase_add_test(plan, masks_come_second);
  tcase_add_test(plan, what_changes_nothing_is_dropped);
  tcase_add_test(plan, constants_are_folded);
  tcase_add_test(plan, twin_products_are_joined);
  tcase_add_test(plan, known_transposes_are_used);
  tcase_add_test(plan, outputs_on_top_of_others);
  tcase_add_test(plan, factors_are_not_overwritten);
  tcase_add_test(plan, steps_are_described);
  tcase_add_test(plan, steps_of_every_kind_are_described);
  tcase_add_test(plan, dead_nodes_are_dropped);
  tcase_add_test(plan, memory_is_reused);
  tcase_add_test(plan, random_programs);
  tcase_add_test(plan, products_of_many_readers);
  tcase_add_test(plan, small_plans);
  tcase_add_test(plan, beyond_reason);
  tcase_add_test(plan, no_solution);
  tcase_add_test(plan, nothing_overflows_beyond_the_edges);
  tcase_add_loop_test(plan, every_allocation_fails_once, 0, 2);
  tcase_add_test(cache, cache_keeps_plans);
  tcase_add_test(cache, cache_without_memory);
  tcase_add_test(cache, cache_of_many_threads);
  return run_suite(suite);
}
