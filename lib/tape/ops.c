/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/ops.h"

#include <math.h>

/* ------------------------------------------------------------------------------------------------- shapes */

static const struct melu__node *node_a(const struct melu__tape *t, const struct melu__node *n) {
  return &t->nodes[n->a];
}

static const struct melu__node *node_b(const struct melu__tape *t, const struct melu__node *n) {
  return &t->nodes[n->b];
}

/* Sets the shape, and returns whether those of a and b fit. */
static int set_if(int fits, struct melu__node *n, uint32_t rows, uint32_t cols) {
  n->rows = rows;
  n->cols = cols;
  return fits;
}

static int set(struct melu__node *n, uint32_t rows, uint32_t cols) {
  return set_if(1, n, rows, cols);
}

static int shape_given(const struct melu__tape *t, struct melu__node *n) {
  (void)t;
  (void)n;
  return 1;
}

static int shape_matmul(const struct melu__tape *t, struct melu__node *n) {
  const struct melu__node *a = node_a(t, n), *b = node_b(t, n);
  const uint32_t inner_a = n->trans_a ? a->rows : a->cols, inner_b = n->trans_b ? b->cols : b->rows;
  return set_if(inner_a == inner_b, n, n->trans_a ? a->cols : a->rows, n->trans_b ? b->rows : b->cols);
}

static int shape_like_a(const struct melu__tape *t, struct melu__node *n) {
  return set(n, node_a(t, n)->rows, node_a(t, n)->cols);
}

static int shape_same(const struct melu__tape *t, struct melu__node *n) {
  const struct melu__node *a = node_a(t, n), *b = node_b(t, n);
  return set_if(a->rows == b->rows && a->cols == b->cols, n, a->rows, a->cols);
}

static int shape_add_row(const struct melu__tape *t, struct melu__node *n) {
  const struct melu__node *a = node_a(t, n), *b = node_b(t, n);
  return set_if(b->rows == 1 && b->cols == a->cols, n, a->rows, a->cols);
}

static int shape_sum_rows(const struct melu__tape *t, struct melu__node *n) {
  return set(n, 1, node_a(t, n)->cols);
}

static int shape_rows(const struct melu__tape *t, struct melu__node *n) {
  return set_if(node_a(t, n)->rows == 1, n, n->rows, node_a(t, n)->cols);
}

static int shape_sum_cols(const struct melu__tape *t, struct melu__node *n) {
  const uint32_t rows = node_a(t, n)->rows;
  return set(n, n->trans_a ? 1 : rows, n->trans_a ? rows : 1);
}

static int shape_cols(const struct melu__tape *t, struct melu__node *n) {
  const struct melu__node *a = node_a(t, n);
  return set_if((n->trans_a ? a->rows : a->cols) == 1, n, n->trans_a ? a->cols : a->rows, n->cols);
}

static int shape_sum_all(const struct melu__tape *t, struct melu__node *n) {
  (void)t;
  return set(n, 1, 1);
}

static int shape_fill(const struct melu__tape *t, struct melu__node *n) {
  return node_a(t, n)->rows == 1 && node_a(t, n)->cols == 1;
}

static int shape_transpose(const struct melu__tape *t, struct melu__node *n) {
  return set(n, node_a(t, n)->cols, node_a(t, n)->rows);
}

static int shape_concat(const struct melu__tape *t, struct melu__node *n) {
  const struct melu__node *a = node_a(t, n), *b = node_b(t, n);
  return set_if(a->rows == b->rows, n, a->rows, a->cols + b->cols);
}

static int shape_slice(const struct melu__tape *t, struct melu__node *n) {
  const uint32_t cols = node_a(t, n)->cols;
  return set_if(n->index <= cols && n->cols <= cols - n->index, n, node_a(t, n)->rows, n->cols);
}

static int shape_diag(const struct melu__tape *t, struct melu__node *n) {
  return set_if(node_a(t, n)->rows == 1, n, node_a(t, n)->cols, node_a(t, n)->cols);
}

static int shape_diagonal(const struct melu__tape *t, struct melu__node *n) {
  return set_if(node_a(t, n)->rows == node_a(t, n)->cols, n, 1, node_a(t, n)->cols);
}

static int shape_bag(const struct melu__tape *t, struct melu__node *n) {
  return set(n, n->rows, node_a(t, n)->cols);
}

static int shape_solve(const struct melu__tape *t, struct melu__node *n) {
  const struct melu__node *a = node_a(t, n), *b = node_b(t, n);
  return set_if(a->rows == a->cols && b->rows == a->rows, n, b->rows, b->cols);
}

/* ---------------------------------------------------------------------------------------------- gradients */

#define A (t->nodes[y].a)
#define B (t->nodes[y].b)

static void grad_matmul(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  const int ta = t->nodes[y].trans_a, tb = t->nodes[y].trans_b;
  if (want[0]) d[0] = ta ? melu__tape_matmul(t, B, g, tb, 1) : melu__tape_matmul(t, g, B, 0, !tb);
  if (want[1]) d[1] = tb ? melu__tape_matmul(t, g, A, 1, ta) : melu__tape_matmul(t, A, g, !ta, 0);
}

static void grad_add(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)t, (void)y, (void)want;
  d[0] = d[1] = g;
}

static void grad_sub(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y;
  d[0] = g;
  if (want[1]) d[1] = melu__tape_scale(t, g, -1);
}

static void grad_mul(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  if (want[0]) d[0] = melu__tape_mul(t, g, B);
  if (want[1]) d[1] = melu__tape_mul(t, g, A);
}

static void grad_scale(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_scale(t, g, t->nodes[y].s);
}

static void grad_add_row(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y;
  d[0] = g;
  if (want[1]) d[1] = melu__tape_sum_rows(t, g);
}

static void grad_sum_rows(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_rows(t, g, t->nodes[A].rows);
}

static void grad_rows(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y, (void)want;
  d[0] = melu__tape_sum_rows(t, g);
}

static void grad_sum_cols(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_cols(t, g, t->nodes[y].trans_a, t->nodes[A].cols);
}

static void grad_cols(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_sum_cols(t, g, t->nodes[y].trans_a);
}

static void grad_sum_all(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_fill(t, g, t->nodes[A].rows, t->nodes[A].cols);
}

static void grad_fill(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y, (void)want;
  d[0] = melu__tape_sum_all(t, g);
}

static void grad_relu(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_mul(t, g, melu__tape_step(t, A));
}

/* s' = s (1 - s) */
static void grad_sigmoid(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_mul(t, g, melu__tape_sub(t, y, melu__tape_mul(t, y, y)));
}

static void grad_log(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_mul(t, g, melu__tape_recip(t, A));
}

static void grad_recip(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_scale(t, melu__tape_mul(t, g, melu__tape_mul(t, y, y)), -1);
}

/* r' = 1 / (2 r) */
static void grad_sqrt(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_scale(t, melu__tape_mul(t, g, melu__tape_recip(t, y)), 0.5);
}

static void grad_transpose(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y, (void)want;
  d[0] = melu__tape_transpose(t, g);
}

static void grad_concat(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  const uint32_t a_cols = t->nodes[A].cols, b_cols = t->nodes[B].cols;
  if (want[0]) d[0] = melu__tape_slice(t, g, 0, a_cols);
  if (want[1]) d[1] = melu__tape_slice(t, g, a_cols, b_cols);
}

static void grad_slice(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  const struct melu__node n = t->nodes[y];
  const uint32_t after = t->nodes[n.a].cols - n.index - n.cols;
  if (n.index) g = melu__tape_concat(t, melu__tape_const(t, n.rows, n.index, 0), g);
  if (after) g = melu__tape_concat(t, g, melu__tape_const(t, n.rows, after, 0));
  d[0] = g;
}

static void grad_diag(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y, (void)want;
  d[0] = melu__tape_diagonal(t, g);
}

static void grad_diagonal(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)y, (void)want;
  d[0] = melu__tape_diag(t, g);
}

static void grad_bag(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_bag_t(t, g, t->nodes[y].index, t->nodes[A].rows);
}

static void grad_bag_t(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  (void)want;
  d[0] = melu__tape_bag(t, g, t->nodes[y].index, t->nodes[A].rows);
}

/* X = S^-1 B with S = (A + A') / 2:  dB = S^-1 dX,  dA = -(dB X' + X dB') / 2 */
static void grad_solve(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]) {
  const melu__ref db = melu__tape_solve(t, A, g);
  d[1] = db;
  if (!want[0]) return;
  const melu__ref both = melu__tape_add(t, melu__tape_matmul(t, db, y, 0, 1), melu__tape_matmul(t, y, db, 0, 1));
  d[0] = melu__tape_scale(t, both, -0.5);
}

#undef A
#undef B

/* ------------------------------------------------------------------------------------------------ kernels */

#define ROWS (r->node->rows)
#define COLS (r->node->cols)

static void run_const(const struct melu__run *r) {
  r->kernels->fill(ROWS, COLS, (real)r->node->s, r->out);
}

static void run_mul(const struct melu__run *r) {
  r->kernels->mul(ROWS, COLS, r->a, r->b, r->out);
}

static void run_cols(const struct melu__run *r) {
  const size_t step = r->node->trans_a ? 1 : r->a.ld;
  for (size_t i = 0; i < ROWS; i++)
    r->kernels->fill(1, COLS, r->a.p[i * step], (struct melu__mat){r->out.p + i * r->out.ld, COLS});
}

static void run_sum_all(const struct melu__run *r) {
  *r->out.p = r->kernels->sum_all(r->a_rows, r->a_cols, r->a);
}

static void run_step(const struct melu__run *r) {
  r->kernels->step(ROWS, COLS, r->a, r->out);
}

static void run_sigmoid(const struct melu__run *r) {
  r->kernels->sigmoid(ROWS, COLS, r->a, r->out);
}

static void run_log(const struct melu__run *r) {
  r->kernels->log(ROWS, COLS, r->a, r->out);
}

static void run_recip(const struct melu__run *r) {
  r->kernels->recip(ROWS, COLS, r->a, r->out);
}

static void run_sqrt(const struct melu__run *r) {
  r->kernels->sqrt(ROWS, COLS, r->a, r->out);
}

static void run_transpose(const struct melu__run *r) {
  r->kernels->transpose(r->a_rows, r->a_cols, r->a, r->out);
}

static void run_concat(const struct melu__run *r) {
  const struct melu__mat right = {r->out.p + r->a_cols, r->out.ld};
  r->kernels->copy(ROWS, r->a_cols, r->a, r->out);
  r->kernels->copy(ROWS, r->b_cols, r->b, right);
}

static void run_slice(const struct melu__run *r) {
  const struct melu__cmat part = {r->a.p + r->node->index, r->a.ld};
  r->kernels->copy(ROWS, COLS, part, r->out);
}

static void run_diag(const struct melu__run *r) {
  r->kernels->fill(ROWS, COLS, 0, r->out);
  r->kernels->copy(COLS, 1, (struct melu__cmat){r->a.p, 1}, (struct melu__mat){r->out.p, r->out.ld + 1});
}

static void run_diagonal(const struct melu__run *r) {
  r->kernels->copy(COLS, 1, (struct melu__cmat){r->a.p, r->a.ld + 1}, (struct melu__mat){r->out.p, 1});
}

static void run_bag(const struct melu__run *r) {
  melu__bag(ROWS, COLS, r->a, r->bags[r->node->index], r->out);
}

static void run_bag_t(const struct melu__run *r) {
  melu__bag_t(r->a_rows, COLS, r->a, r->bags[r->node->index], ROWS, r->out);
}

/* A matrix that is not positive definite has no solution; NaN says so to whoever looks at the loss. */
static void run_solve(const struct melu__run *r) {
  if (!r->kernels->solve(ROWS, COLS, r->a, r->b, r->out, r->scratch)) r->kernels->fill(ROWS, COLS, (real)NAN, r->out);
}

#undef ROWS
#undef COLS

static size_t scratch_solve(const struct melu__node *n, size_t a_rows) {
  (void)n;
  return a_rows * a_rows;
}

static double flops_matmul(const struct melu__node *n, size_t a_rows, size_t a_cols) {
  return 2.0 * n->rows * n->cols * (double)(n->trans_a ? a_rows : a_cols);
}

static double flops_solve(const struct melu__node *n, size_t a_rows, size_t a_cols) {
  return (double)a_rows * (double)a_cols * ((double)a_rows / 3 + 2.0 * n->cols);
}

const struct melu__op_info melu__ops[MELU__N_OPS] = {
    [MELU__INPUT] = {"input", 0, shape_given, NULL, NULL, NULL, NULL},
    [MELU__CONST] = {"const", 0, shape_given, NULL, run_const, NULL, NULL},
    [MELU__MATMUL] = {"matmul", 2, shape_matmul, grad_matmul, NULL, NULL, flops_matmul},
    [MELU__ADD] = {"add", 2, shape_same, grad_add, NULL, NULL, NULL},
    [MELU__SUB] = {"sub", 2, shape_same, grad_sub, NULL, NULL, NULL},
    [MELU__MUL] = {"mul", 2, shape_same, grad_mul, run_mul, NULL, NULL},
    [MELU__SCALE] = {"scale", 1, shape_like_a, grad_scale, NULL, NULL, NULL},
    [MELU__ADD_ROW] = {"add_row", 2, shape_add_row, grad_add_row, NULL, NULL, NULL},
    [MELU__SUM_ROWS] = {"sum_rows", 1, shape_sum_rows, grad_sum_rows, NULL, NULL, NULL},
    [MELU__ROWS] = {"rows", 1, shape_rows, grad_rows, NULL, NULL, NULL},
    [MELU__SUM_COLS] = {"sum_cols", 1, shape_sum_cols, grad_sum_cols, NULL, NULL, NULL},
    [MELU__COLS] = {"cols", 1, shape_cols, grad_cols, run_cols, NULL, NULL},
    [MELU__SUM_ALL] = {"sum_all", 1, shape_sum_all, grad_sum_all, run_sum_all, NULL, NULL},
    [MELU__FILL] = {"fill", 1, shape_fill, grad_fill, NULL, NULL, NULL},
    [MELU__RELU] = {"relu", 1, shape_like_a, grad_relu, NULL, NULL, NULL},
    [MELU__STEP] = {"step", 1, shape_like_a, NULL, run_step, NULL, NULL},
    [MELU__SIGMOID] = {"sigmoid", 1, shape_like_a, grad_sigmoid, run_sigmoid, NULL, NULL},
    [MELU__LOG] = {"log", 1, shape_like_a, grad_log, run_log, NULL, NULL},
    [MELU__RECIP] = {"recip", 1, shape_like_a, grad_recip, run_recip, NULL, NULL},
    [MELU__SQRT] = {"sqrt", 1, shape_like_a, grad_sqrt, run_sqrt, NULL, NULL},
    [MELU__TRANSPOSE] = {"transpose", 1, shape_transpose, grad_transpose, run_transpose, NULL, NULL},
    [MELU__CONCAT] = {"concat", 2, shape_concat, grad_concat, run_concat, NULL, NULL},
    [MELU__SLICE] = {"slice", 1, shape_slice, grad_slice, run_slice, NULL, NULL},
    [MELU__DIAG] = {"diag", 1, shape_diag, grad_diag, run_diag, NULL, NULL},
    [MELU__DIAGONAL] = {"diagonal", 1, shape_diagonal, grad_diagonal, run_diagonal, NULL, NULL},
    [MELU__BAG] = {"bag", 1, shape_bag, grad_bag, run_bag, NULL, NULL},
    [MELU__BAG_T] = {"bag_t", 1, shape_bag, grad_bag_t, run_bag_t, NULL, NULL},
    [MELU__SOLVE] = {"solve", 2, shape_solve, grad_solve, run_solve, scratch_solve, flops_solve},
    [MELU__DETACH] = {"detach", 1, shape_like_a, NULL, NULL, NULL, NULL},
};
