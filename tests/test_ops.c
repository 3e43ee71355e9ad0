/* SPDX-License-Identifier: BSD-3-Clause */
/* Every op of the table: its values against naive loops; its first derivative, by a plan, against central differences
 * of the naive loops; its second derivative, by a plan, against central differences of the first derivative, computed
 * naively from the recording. 100 random shapes each. Then the same for random programs of all ops. */
#include "programs.h"
#include "run_suite.h"

enum { N_SHAPES = 100, SLOT_A = 0, SLOT_B, SLOT_G, SLOT_WEIGHTS, N_WRT = 3 };

/* In double as precise as asked; in float as precise as a float can be. Differences are always taken in double. */
static const double value_tolerance = sizeof(real) == sizeof(float) ? 1e-5 : 1e-13;
static const double first_tolerance = sizeof(real) == sizeof(float) ? 1e-4 : 1e-7;
static const double second_tolerance = sizeof(real) == sizeof(float) ? 1e-3 : 1e-6;

static melu_context *ctx;

static void open_context(void) {
  ck_assert_int_eq(melu_context_new(&ctx, NULL, NULL), MELU_OK);
}

static void close_context(void) {
  melu_context_free(ctx);
}

/* ------------------------------------------------------------------------------------------ samples of an op */

/* What an operand's entries may be. */
enum domain { ANY, POSITIVE, NONZERO, POSITIVE_DEFINITE };

struct sample {
  uint64_t random;
  size_t a_rows, a_cols, b_rows, b_cols;
  struct melu__node node; /* what is to be recorded, but for its operands */
  int same;               /* b is a */
  struct setting setting;
};

/* The first shapes are the edges; two more sizes come from the same draw. */
struct sizes {
  uint32_t m, n, k;
};

static uint32_t draw_size(struct sample *s) {
  static const uint32_t sizes[] = {0, 1, 1, 2, 3, 4, 5, 7};
  return sizes[random_below(&s->random, 8)];
}

static struct sizes draw_sizes(struct sample *s, size_t number) {
  static const struct sizes edges[] = {{0, 3, 2}, {1, 3, 2}, {3, 1, 2}, {3, 2, 1}, {3, 0, 2},
                                       {3, 2, 0}, {1, 1, 1}, {0, 0, 0}, {0, 1, 1}, {1, 8, 9}};
  if (number < sizeof edges / sizeof *edges) return edges[number];
  return (struct sizes){draw_size(s), draw_size(s), draw_size(s)};
}

static void shape_unary(struct sample *s, struct sizes z) {
  s->a_rows = z.m;
  s->a_cols = z.n;
  s->node.s = random_number(&s->random);
}

static void shape_binary(struct sample *s, struct sizes z) {
  s->a_rows = s->b_rows = z.m;
  s->a_cols = s->b_cols = z.n;
  s->same = random_below(&s->random, 4) == 0;
}

static void shape_const(struct sample *s, struct sizes z) {
  s->node.s = random_number(&s->random);
  s->node.rows = z.m;
  s->node.cols = z.n;
}

static void shape_matmul(struct sample *s, struct sizes z) {
  s->node.trans_a = random_below(&s->random, 2) != 0;
  s->node.trans_b = random_below(&s->random, 2) != 0;
  s->a_rows = s->node.trans_a ? z.k : z.m;
  s->a_cols = s->node.trans_a ? z.m : z.k;
  s->b_rows = s->node.trans_b ? z.n : z.k;
  s->b_cols = s->node.trans_b ? z.k : z.n;
  s->same = s->a_rows == s->b_rows && s->a_cols == s->b_cols && random_below(&s->random, 2);
}

static void shape_add_row(struct sample *s, struct sizes z) {
  shape_binary(s, z);
  s->b_rows = 1;
  s->same = z.m == 1 && s->same;
}

static void shape_row(struct sample *s, struct sizes z) {
  s->a_rows = 1;
  s->a_cols = z.n;
  s->node.rows = z.m;
}

/* Sums of rows, and the column or row of which there are as many as said. */
static void shape_sum_cols(struct sample *s, struct sizes z) {
  shape_unary(s, z);
  s->node.trans_a = random_below(&s->random, 2) != 0;
}

static void shape_cols(struct sample *s, struct sizes z) {
  s->node.trans_a = random_below(&s->random, 2) != 0;
  s->a_rows = s->node.trans_a ? 1 : z.m;
  s->a_cols = s->node.trans_a ? z.m : 1;
  s->node.cols = z.n;
}

static void shape_square(struct sample *s, struct sizes z) {
  s->a_rows = s->a_cols = z.n;
}

static void shape_number(struct sample *s, struct sizes z) {
  s->a_rows = s->a_cols = 1;
  s->node.rows = z.m;
  s->node.cols = z.n;
}

static void shape_concat(struct sample *s, struct sizes z) {
  shape_binary(s, z);
  s->b_cols = z.k;
  s->same = z.n == z.k && s->same;
}

static void shape_slice(struct sample *s, struct sizes z) {
  shape_unary(s, z);
  s->node.index = random_below(&s->random, z.n + 1);
  s->node.cols = random_below(&s->random, z.n - s->node.index + 1);
}

static void shape_bag(struct sample *s, struct sizes z) {
  shape_unary(s, z);
  s->node.rows = z.k;
  s->node.index = 1;
  s->setting.bags[1] = s->node.op == MELU__BAG ? random_bags(&s->random, z.k, z.m) : random_bags(&s->random, z.m, z.k);
}

static void shape_solve(struct sample *s, struct sizes z) {
  s->a_rows = s->a_cols = s->b_rows = z.m;
  s->b_cols = z.n;
  s->same = z.m == z.n && random_below(&s->random, 2);
}

static const struct op_case {
  void (*shape)(struct sample *s, struct sizes z);
  enum domain domain; /* of a */
} cases[MELU__N_OPS] = {
    [MELU__CONST] = {shape_const, ANY},
    [MELU__MATMUL] = {shape_matmul, ANY},
    [MELU__ADD] = {shape_binary, ANY},
    [MELU__SUB] = {shape_binary, ANY},
    [MELU__MUL] = {shape_binary, ANY},
    [MELU__SCALE] = {shape_unary, ANY},
    [MELU__ADD_ROW] = {shape_add_row, ANY},
    [MELU__SUM_ROWS] = {shape_unary, ANY},
    [MELU__ROWS] = {shape_row, ANY},
    [MELU__SUM_COLS] = {shape_sum_cols, ANY},
    [MELU__COLS] = {shape_cols, ANY},
    [MELU__SUM_ALL] = {shape_unary, ANY},
    [MELU__FILL] = {shape_number, ANY},
    [MELU__RELU] = {shape_unary, NONZERO},
    [MELU__STEP] = {shape_unary, NONZERO},
    [MELU__SIGMOID] = {shape_unary, ANY},
    [MELU__LOG] = {shape_unary, POSITIVE},
    [MELU__RECIP] = {shape_unary, NONZERO},
    [MELU__SQRT] = {shape_unary, POSITIVE},
    [MELU__TRANSPOSE] = {shape_unary, ANY},
    [MELU__CONCAT] = {shape_concat, ANY},
    [MELU__SLICE] = {shape_slice, ANY},
    [MELU__DIAG] = {shape_row, ANY},
    [MELU__DIAGONAL] = {shape_square, ANY},
    [MELU__BAG] = {shape_bag, ANY},
    [MELU__BAG_T] = {shape_bag, ANY},
    [MELU__SOLVE] = {shape_solve, POSITIVE_DEFINITE},
    [MELU__DETACH] = {shape_unary, ANY},
};

static void into_domain(struct matrix m, enum domain domain) {
  for (size_t i = 0; i < size_of(m); i++) {
    if (domain == POSITIVE) m.v[i] = fabs(m.v[i]) + 0.25;
    if (domain == NONZERO) m.v[i] += m.v[i] < 0 ? -0.25 : 0.25;
    if (domain == POSITIVE_DEFINITE && i / m.cols == i % m.cols) m.v[i] += 2.0 * (double)m.rows + 4;
  }
}

static void sample_new(struct sample *s, enum melu__op op, size_t number) {
  memset(s, 0, sizeof *s);
  s->random = 1000 * (uint64_t)op + number;
  s->node.op = (uint8_t)op;
  cases[op].shape(s, draw_sizes(s, number));
  s->setting.slot[SLOT_A] = random_matrix(&s->random, s->a_rows, s->a_cols);
  s->setting.slot[SLOT_B] = random_matrix(&s->random, s->b_rows, s->b_cols);
  into_domain(s->setting.slot[SLOT_A], cases[op].domain);
}

/* ------------------------------------------------------------------------------------------- the recordings */

/* The op and its derivatives: g is what the result is weighted by,
 *     first[i] = d sum(g y) / d wrt[i],   second[i] = d sum_j sum(weights_j first[j]) / d wrt[i],   wrt = a, b, g. */
struct recording {
  struct melu__tape tape;
  melu__ref y, gy, scalar;
  size_t n_wrt;
  melu__ref wrt[N_WRT], first[N_WRT], second[N_WRT];
};

static melu__ref weighted_sum(struct melu__tape *t, struct sample *s, const melu__ref *nodes, size_t n) {
  melu__ref sum = melu__tape_const(t, 1, 1, 0);
  for (uint32_t i = 0; i < n; i++) {
    const size_t rows = t->nodes[nodes[i]].rows, cols = t->nodes[nodes[i]].cols;
    s->setting.slot[SLOT_WEIGHTS + i] = random_matrix(&s->random, rows, cols);
    const melu__ref weights = melu__tape_input(t, SLOT_WEIGHTS + i, rows, cols);
    sum = melu__tape_add(t, sum, melu__tape_sum_all(t, melu__tape_mul(t, weights, nodes[i])));
  }
  return sum;
}

static void record(struct recording *r, struct sample *s) {
  struct melu__tape *t = &r->tape;
  const int arity = melu__ops[s->node.op].arity;
  memset(r, 0, sizeof *r);
  melu__tape_init(t, &ctx->allocator);
  if (arity > 0) r->wrt[r->n_wrt++] = melu__tape_input(t, SLOT_A, s->a_rows, s->a_cols);
  if (arity > 1 && !s->same) r->wrt[r->n_wrt++] = melu__tape_input(t, SLOT_B, s->b_rows, s->b_cols);
  s->node.a = r->wrt[0];
  s->node.b = r->wrt[s->same ? 0 : 1];
  r->y = melu__tape_push(t, s->node);
  if (r->y == MELU__NO_NODE) ck_abort_msg("%s: a shape was refused", melu__ops[s->node.op].name);
  const size_t rows = t->nodes[r->y].rows, cols = t->nodes[r->y].cols;
  s->setting.slot[SLOT_G] = random_matrix(&s->random, rows, cols);
  r->wrt[r->n_wrt++] = melu__tape_input(t, SLOT_G, rows, cols);
  r->gy = melu__tape_mul(t, r->wrt[r->n_wrt - 1], r->y);
  melu__tape_grad(t, r->gy, r->wrt, r->n_wrt, r->first);
  r->scalar = weighted_sum(t, s, r->first, r->n_wrt);
  melu__tape_grad(t, r->scalar, r->wrt, r->n_wrt, r->second);
  ck_assert_int_eq(t->status, MELU_OK);
}

static double naive_sum(const struct melu__tape *t, melu__ref node, const struct setting *s) {
  struct matrix *values = naive_run(t, (size_t)node + 1, s);
  double sum = 0;
  for (size_t i = 0; i < size_of(values[node]); i++) sum += values[node].v[i];
  naive_free(values, (size_t)node + 1);
  return sum;
}

/* d sum(node) / d *x: central differences of fourth order. */
static double difference(const struct melu__tape *t, melu__ref node, const struct setting *s, double *x) {
  const double at = *x, h = 1.0 / 1024;
  double f[4];
  for (int i = 0; i < 4; i++) {
    *x = at + (i < 2 ? i - 2 : i - 1) * h;
    f[i] = naive_sum(t, node, s);
  }
  *x = at;
  return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h);
}

/* Largest distance of `d`, computed by a plan, from differences of sum(node) by slot `slot`. */
static double derivative_error(const struct recording *r, melu__ref node, struct sample *s, melu__ref wrt,
                               struct matrix d) {
  const struct matrix x = s->setting.slot[r->tape.nodes[wrt].index];
  struct matrix expected = new_matrix(x.rows, x.cols);
  if (d.rows != x.rows || d.cols != x.cols) return INFINITY;
  for (size_t i = 0; i < size_of(x); i++) expected.v[i] = difference(&r->tape, node, &s->setting, &x.v[i]);
  const double error = worst_error(d.v, expected.v, size_of(x), 1e-2);
  free(expected.v);
  return error;
}

/* ---------------------------------------------------------------------------------------------- the ops' tests */

START_TEST(every_op_is_tested) {
  for (int op = 0; op < MELU__N_OPS; op++) {
    ck_assert_ptr_nonnull(melu__ops[op].name);
    ck_assert_msg(op == MELU__INPUT || cases[op].shape, "%s has no case in this test", melu__ops[op].name);
    ck_assert_msg(!melu__ops[op].grad || melu__ops[op].arity > 0, "%s: of what?", melu__ops[op].name);
  }
}
END_TEST

/* With every kernel set, the op alone. */
START_TEST(values_by_plan) {
  const enum melu__op op = (enum melu__op)_i;
  if (op == MELU__INPUT) return; /* every other op's operand */
  const struct melu__kernels *kernels;
  for (size_t number = 0; number < N_SHAPES; number++) {
    struct sample s;
    struct recording r;
    struct matrix value;
    sample_new(&s, op, number);
    record(&r, &s);
    struct matrix *naive = naive_run(&r.tape, (size_t)r.y + 1, &s.setting);
    for (size_t k = 0; (kernels = usable_kernels(k)) != NULL; k++) {
      plan_values(&value, kernels, &r.tape, &r.y, 1, &s.setting);
      const double error = worst_error(value.v, naive[r.y].v, size_of(value), 1);
      ck_assert_msg(error <= value_tolerance, "%s, shape %zu, %s: off by %g", melu__ops[op].name, number, kernels->name,
                    error);
      free(value.v);
    }
    naive_free(naive, (size_t)r.y + 1);
    melu__tape_free(&r.tape);
    setting_free(&s.setting);
  }
}
END_TEST

START_TEST(derivatives) {
  const enum melu__op op = (enum melu__op)_i;
  const char *name = melu__ops[op].name;
  if (!melu__ops[op].grad) return; /* see no_derivative */
  for (size_t number = 0; number < N_SHAPES; number++) {
    struct sample s;
    struct recording r;
    struct matrix d[2 * N_WRT];
    sample_new(&s, op, number);
    record(&r, &s);
    melu__ref nodes[2 * N_WRT];
    memcpy(nodes, r.first, sizeof r.first);
    memcpy(nodes + r.n_wrt, r.second, sizeof r.second);
    plan_values(d, ctx->kernels, &r.tape, nodes, 2 * r.n_wrt, &s.setting);
    for (size_t i = 0; i < r.n_wrt; i++) {
      const double first = derivative_error(&r, r.gy, &s, r.wrt[i], d[i]),
                   second = derivative_error(&r, r.scalar, &s, r.wrt[i], d[r.n_wrt + i]);
      ck_assert_msg(first <= first_tolerance, "%s, shape %zu: gradient %zu off by %g", name, number, i, first);
      ck_assert_msg(second <= second_tolerance, "%s, shape %zu: gradient %zu of the gradient off by %g", name, number,
                    i, second);
    }
    for (size_t i = 0; i < 2 * r.n_wrt; i++) free(d[i].v);
    melu__tape_free(&r.tape);
    setting_free(&s.setting);
  }
}
END_TEST

/* STEP and DETACH are constants to gradients, of any order. */
START_TEST(no_derivative) {
  const enum melu__op op = (enum melu__op)_i;
  if (melu__ops[op].grad || melu__ops[op].arity == 0) return;
  for (size_t number = 0; number < N_SHAPES; number++) {
    struct sample s;
    struct recording r;
    struct matrix d[2];
    sample_new(&s, op, number);
    record(&r, &s);
    plan_values(d, ctx->kernels, &r.tape, (const melu__ref[]){r.first[0], r.second[0]}, 2, &s.setting);
    for (size_t i = 0; i < 2; i++) {
      ck_assert_uint_eq(size_of(d[i]), s.a_rows * s.a_cols);
      for (size_t k = 0; k < size_of(d[i]); k++)
        if (d[i].v[k] != 0) ck_abort_msg("%s has a derivative", melu__ops[op].name);
      free(d[i].v);
    }
    melu__tape_free(&r.tape);
    setting_free(&s.setting);
  }
}
END_TEST

/* relu'(0) = 0, as in PyTorch; -0 is 0. */
START_TEST(relu_at_zero) {
  struct sample s;
  struct recording r;
  struct matrix d;
  sample_new(&s, MELU__RELU, 1);
  record(&r, &s);
  s.setting.slot[SLOT_A].v[0] = 0;
  s.setting.slot[SLOT_A].v[1] = -0.0;
  s.setting.slot[SLOT_A].v[2] = 1e-30;
  plan_values(&d, ctx->kernels, &r.tape, r.first, 1, &s.setting);
  ck_assert(d.v[0] == 0);
  ck_assert(d.v[1] == 0);
  ck_assert(d.v[2] == s.setting.slot[SLOT_G].v[2]);
  free(d.v);
  melu__tape_free(&r.tape);
  setting_free(&s.setting);
}
END_TEST

/* ------------------------------------------------------------------------------------------- random programs */

/* Which RELUs and STEPs are open, as one number. */
static uint64_t pattern(const struct melu__tape *t, const struct matrix *values, size_t n) {
  uint64_t h = 0;
  for (size_t i = 0; i < n; i++) {
    if (t->nodes[i].op != MELU__RELU && t->nodes[i].op != MELU__STEP) continue;
    const struct matrix a = values[t->nodes[i].a];
    for (size_t k = 0; k < size_of(a); k++) h = (h + (a.v[k] > 0)) * 0x9e3779b97f4a7c15u;
  }
  return h;
}

/* The derivative of the number `node` when all inputs move along `direction`; 0 in *smooth if a kink is too near. */
static double along(struct program *p, melu__ref node, struct matrix *direction, int *smooth) {
  const double h = 1.0 / 32768; /* some programs are steep */
  double f[4];
  uint64_t patterns[4];
  for (int k = 0; k < 4; k++) {
    const double by = (k < 2 ? k - 2 : k - 1) * h;
    for (size_t i = 0; i < PROGRAM_INPUTS; i++)
      for (size_t j = 0; j < size_of(direction[i]); j++) p->setting.slot[i].v[j] += by * direction[i].v[j];
    struct matrix *values = naive_run(&p->tape, (size_t)node + 1, &p->setting);
    f[k] = values[node].v[0];
    patterns[k] = pattern(&p->tape, values, (size_t)node + 1);
    naive_free(values, (size_t)node + 1);
    for (size_t i = 0; i < PROGRAM_INPUTS; i++)
      for (size_t j = 0; j < size_of(direction[i]); j++) p->setting.slot[i].v[j] -= by * direction[i].v[j];
  }
  *smooth = patterns[0] == patterns[1] && patterns[1] == patterns[2] && patterns[2] == patterns[3];
  return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h);
}

/* sum d . direction, and the sum of what it consists of without signs. */
static double dot(const struct matrix *d, const struct matrix *direction, double *size) {
  double sum = 0;
  *size = 0;
  for (size_t i = 0; i < PROGRAM_INPUTS; i++)
    for (size_t j = 0; j < size_of(d[i]); j++) {
      sum += d[i].v[j] * direction[i].v[j];
      *size += fabs(d[i].v[j] * direction[i].v[j]);
    }
  return sum;
}

/* The sum of all nodes that nothing else reads. */
static melu__ref sum_of_leaves(struct program *p) {
  struct melu__tape *t = &p->tape;
  const size_t n = t->n;
  melu__ref sum = melu__tape_const(t, 1, 1, 0);
  for (melu__ref i = 0; i < n; i++) {
    int is_read = 0;
    for (size_t k = 0; k < n; k++) is_read |= t->nodes[k].a == i || t->nodes[k].b == i;
    if (!is_read) sum = melu__tape_add(t, sum, melu__tape_sum_all(t, melu__tape_sigmoid(t, i)));
  }
  return sum;
}

/* Returns whether the program was smooth enough to be judged. */
static int check_program(uint64_t seed, size_t n_ops) {
  struct program *p = program_new(seed, n_ops, 0);
  struct melu__tape *t = &p->tape;
  struct matrix d[2 * PROGRAM_INPUTS], direction[PROGRAM_INPUTS];
  melu__ref wrt[PROGRAM_INPUTS], g[2 * PROGRAM_INPUTS];
  for (melu__ref i = 0; i < PROGRAM_INPUTS; i++) wrt[i] = i;
  const melu__ref y = sum_of_leaves(p);
  melu__tape_grad(t, y, wrt, PROGRAM_INPUTS, g);
  melu__ref scalar = melu__tape_const(t, 1, 1, 0);
  for (uint32_t i = 0; i < PROGRAM_INPUTS; i++) {
    const struct matrix x = p->setting.slot[i];
    direction[i] = random_matrix(&p->random, x.rows, x.cols);
    p->setting.slot[PROGRAM_INPUTS + i] = random_matrix(&p->random, x.rows, x.cols);
    const melu__ref weights = melu__tape_input(t, PROGRAM_INPUTS + i, x.rows, x.cols);
    scalar = melu__tape_add(t, scalar, melu__tape_sum_all(t, melu__tape_mul(t, weights, g[i])));
  }
  melu__tape_grad(t, scalar, wrt, PROGRAM_INPUTS, g + PROGRAM_INPUTS);
  plan_values(d, ctx->kernels, t, g, 2 * PROGRAM_INPUTS, &p->setting);

  int smooth;
  double size;
  const double first = along(p, y, direction, &smooth), second = along(p, scalar, direction, &smooth);
  const double by_plan = dot(d, direction, &size), first_error = test_relative_error(by_plan, first, size + 1e-2);
  const double by_plan_2 = dot(d + PROGRAM_INPUTS, direction, &size);
  const double second_error = test_relative_error(by_plan_2, second, size + 1e-2);
  if (smooth) {
    ck_assert_msg(first_error < first_tolerance, "program %d: gradient off by %g", (int)seed, first_error);
    ck_assert_msg(second_error < second_tolerance, "program %d: second derivative off by %g", (int)seed, second_error);
  }
  for (size_t i = 0; i < 2 * PROGRAM_INPUTS; i++) free(d[i].v);
  for (size_t i = 0; i < PROGRAM_INPUTS; i++) free(direction[i].v);
  program_free(p);
  return smooth;
}

START_TEST(random_programs) {
  size_t n = 0;
  for (uint64_t seed = 1; n < test_trials(300); seed++) {
    n += (size_t)check_program(seed, 40 + seed % 80);
    ck_assert_uint_lt(seed, 3000);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("ops");
  TCase *ops = tcase_create("ops"), *programs = tcase_create("programs");
  tcase_add_checked_fixture(ops, open_context, close_context);
  tcase_add_test(ops, every_op_is_tested);
  tcase_add_loop_test(ops, values_by_plan, 0, MELU__N_OPS);
  tcase_add_loop_test(ops, derivatives, 0, MELU__N_OPS);
  tcase_add_loop_test(ops, no_derivative, 0, MELU__N_OPS);
  tcase_add_test(ops, relu_at_zero);
  tcase_set_timeout(ops, 120);
  suite_add_tcase(suite, ops);
  tcase_add_checked_fixture(programs, open_context, close_context);
  tcase_add_test(programs, random_programs);
  tcase_set_timeout(programs, 120);
  suite_add_tcase(suite, programs);
  return run_suite(suite);
}
