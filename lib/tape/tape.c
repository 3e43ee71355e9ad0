/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/tape.h"

#include <string.h>

#include "base/error.h"
#include "tape/ops.h"

void melu__tape_init(struct melu__tape *t, const struct melu_allocator *alloc) {
  memset(t, 0, sizeof *t);
  t->alloc = alloc;
}

void melu__tape_free(struct melu__tape *t) {
  melu__free(t->alloc, t->nodes);
  t->nodes = NULL;
  t->n = t->capacity = 0;
}

melu_status melu__tape_status(const struct melu__tape *t, melu_error *err) {
  if (t->status == MELU_ENOMEM) return melu__fail_memory(err);
  if (t->status) return melu__fail(err, t->status, "tape: shapes of operands do not fit");
  return MELU_OK;
}

static melu__ref fail(struct melu__tape *t, melu_status status) {
  if (!t->status) t->status = status;
  return MELU__NO_NODE;
}

melu__ref melu__tape_push(struct melu__tape *t, struct melu__node node) {
  if (t->status) return MELU__NO_NODE;
  const struct melu__op_info *op = &melu__ops[node.op];
  if (op->arity < 2) node.b = MELU__NO_NODE;
  if (op->arity < 1) node.a = MELU__NO_NODE;
  if ((op->arity > 0 && node.a >= t->n) || (op->arity > 1 && node.b >= t->n)) return fail(t, MELU_EINVAL);
  if (!op->shape(t, &node)) return fail(t, MELU_EINVAL);
  if (!melu__grow(t->alloc, &t->nodes, &t->capacity, t->n, t->n + 1, sizeof *t->nodes)) return fail(t, MELU_ENOMEM);
  t->nodes[t->n] = node;
  return (melu__ref)t->n++;
}

static melu__ref push(struct melu__tape *t, enum melu__op op, melu__ref a, melu__ref b) {
  return melu__tape_push(t, (struct melu__node){.op = (uint8_t)op, .a = a, .b = b});
}

/* Nodes whose shape the caller gives. A size that no 32-bit number holds cannot fit anything. */
static melu__ref push_sized(struct melu__tape *t, struct melu__node node, size_t rows, size_t cols) {
  if (rows > UINT32_MAX || cols > UINT32_MAX) return fail(t, MELU_EINVAL);
  node.rows = (uint32_t)rows;
  node.cols = (uint32_t)cols;
  return melu__tape_push(t, node);
}

melu__ref melu__tape_input(struct melu__tape *t, uint32_t slot, size_t rows, size_t cols) {
  return push_sized(t, (struct melu__node){.op = MELU__INPUT, .index = slot}, rows, cols);
}

melu__ref melu__tape_const(struct melu__tape *t, size_t rows, size_t cols, double s) {
  return push_sized(t, (struct melu__node){.op = MELU__CONST, .s = s}, rows, cols);
}

melu__ref melu__tape_matmul(struct melu__tape *t, melu__ref a, melu__ref b, int trans_a, int trans_b) {
  return melu__tape_push(
      t, (struct melu__node){.op = MELU__MATMUL, .a = a, .b = b, .trans_a = trans_a != 0, .trans_b = trans_b != 0});
}

melu__ref melu__tape_add(struct melu__tape *t, melu__ref a, melu__ref b) {
  return push(t, MELU__ADD, a, b);
}

melu__ref melu__tape_sub(struct melu__tape *t, melu__ref a, melu__ref b) {
  return push(t, MELU__SUB, a, b);
}

melu__ref melu__tape_mul(struct melu__tape *t, melu__ref a, melu__ref b) {
  return push(t, MELU__MUL, a, b);
}

melu__ref melu__tape_scale(struct melu__tape *t, melu__ref a, double s) {
  return melu__tape_push(t, (struct melu__node){.op = MELU__SCALE, .a = a, .s = s});
}

melu__ref melu__tape_add_row(struct melu__tape *t, melu__ref a, melu__ref row) {
  return push(t, MELU__ADD_ROW, a, row);
}

melu__ref melu__tape_sum_rows(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__SUM_ROWS, a, MELU__NO_NODE);
}

melu__ref melu__tape_rows(struct melu__tape *t, melu__ref row, size_t rows) {
  return push_sized(t, (struct melu__node){.op = MELU__ROWS, .a = row}, rows, 0);
}

melu__ref melu__tape_sum_cols(struct melu__tape *t, melu__ref a, int as_row) {
  return melu__tape_push(t, (struct melu__node){.op = MELU__SUM_COLS, .a = a, .trans_a = as_row != 0});
}

melu__ref melu__tape_cols(struct melu__tape *t, melu__ref vector, int is_row, size_t cols) {
  return push_sized(t, (struct melu__node){.op = MELU__COLS, .a = vector, .trans_a = is_row != 0}, 0, cols);
}

melu__ref melu__tape_sum_all(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__SUM_ALL, a, MELU__NO_NODE);
}

melu__ref melu__tape_fill(struct melu__tape *t, melu__ref number, size_t rows, size_t cols) {
  return push_sized(t, (struct melu__node){.op = MELU__FILL, .a = number}, rows, cols);
}

melu__ref melu__tape_relu(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__RELU, a, MELU__NO_NODE);
}

melu__ref melu__tape_step(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__STEP, a, MELU__NO_NODE);
}

melu__ref melu__tape_sigmoid(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__SIGMOID, a, MELU__NO_NODE);
}

melu__ref melu__tape_log(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__LOG, a, MELU__NO_NODE);
}

melu__ref melu__tape_recip(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__RECIP, a, MELU__NO_NODE);
}

melu__ref melu__tape_sqrt(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__SQRT, a, MELU__NO_NODE);
}

melu__ref melu__tape_transpose(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__TRANSPOSE, a, MELU__NO_NODE);
}

melu__ref melu__tape_concat(struct melu__tape *t, melu__ref a, melu__ref b) {
  return push(t, MELU__CONCAT, a, b);
}

melu__ref melu__tape_slice(struct melu__tape *t, melu__ref a, size_t first_col, size_t n_cols) {
  if (first_col > UINT32_MAX) return fail(t, MELU_EINVAL);
  return push_sized(t, (struct melu__node){.op = MELU__SLICE, .a = a, .index = (uint32_t)first_col}, 0, n_cols);
}

melu__ref melu__tape_diag(struct melu__tape *t, melu__ref row) {
  return push(t, MELU__DIAG, row, MELU__NO_NODE);
}

melu__ref melu__tape_diagonal(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__DIAGONAL, a, MELU__NO_NODE);
}

melu__ref melu__tape_bag(struct melu__tape *t, melu__ref table, uint32_t bag_slot, size_t n_bags) {
  return push_sized(t, (struct melu__node){.op = MELU__BAG, .a = table, .index = bag_slot}, n_bags, 0);
}

melu__ref melu__tape_bag_t(struct melu__tape *t, melu__ref a, uint32_t bag_slot, size_t n_table_rows) {
  return push_sized(t, (struct melu__node){.op = MELU__BAG_T, .a = a, .index = bag_slot}, n_table_rows, 0);
}

melu__ref melu__tape_solve(struct melu__tape *t, melu__ref a, melu__ref b) {
  return push(t, MELU__SOLVE, a, b);
}

melu__ref melu__tape_detach(struct melu__tape *t, melu__ref a) {
  return push(t, MELU__DETACH, a, MELU__NO_NODE);
}

/* ----------------------------------------------------------------------------------------------- gradient */

/* leads[i]: node i depends on one of wrt through derivatives that are not zero. */
static void mark_leading(const struct melu__tape *t, size_t n, const melu__ref *wrt, size_t n_wrt,
                         unsigned char *leads) {
  memset(leads, 0, n);
  for (size_t i = 0; i < n_wrt; i++) leads[wrt[i]] = 1;
  for (size_t i = 0; i < n; i++) {
    const struct melu__node *v = &t->nodes[i];
    const struct melu__op_info *op = &melu__ops[v->op];
    if (op->grad && (leads[v->a] || (op->arity > 1 && leads[v->b]))) leads[i] = 1;
  }
}

static void accumulate(struct melu__tape *t, melu__ref *adjoint, melu__ref node, melu__ref g) {
  adjoint[node] = adjoint[node] == MELU__NO_NODE ? g : melu__tape_add(t, adjoint[node], g);
}

void melu__tape_grad(struct melu__tape *t, melu__ref y, const melu__ref *wrt, size_t n, melu__ref *grad) {
  for (size_t i = 0; i < n; i++) grad[i] = MELU__NO_NODE;
  if (t->status) return;
  const size_t n_nodes = t->n; /* nodes recorded from here on are the gradient's own */
  unsigned char *leads = melu__alloc(t->alloc, n_nodes, 1);
  melu__ref *adjoint = melu__alloc(t->alloc, n_nodes, sizeof *adjoint);
  if (!leads || !adjoint) {
    fail(t, MELU_ENOMEM);
    goto done;
  }
  mark_leading(t, n_nodes, wrt, n, leads);
  for (size_t i = 0; i < n_nodes; i++) adjoint[i] = MELU__NO_NODE;
  adjoint[y] = melu__tape_const(t, t->nodes[y].rows, t->nodes[y].cols, 1);

  for (size_t i = (size_t)y + 1; i-- > 0 && !t->status;) {
    const struct melu__op_info *op = &melu__ops[t->nodes[i].op];
    if (adjoint[i] == MELU__NO_NODE || !leads[i] || !op->grad) continue;
    const melu__ref a = t->nodes[i].a, b = t->nodes[i].b;
    const int want[2] = {leads[a] != 0, op->arity > 1 && leads[b]};
    melu__ref d[2] = {MELU__NO_NODE, MELU__NO_NODE};
    op->grad(t, (melu__ref)i, adjoint[i], want, d);
    if (want[0]) accumulate(t, adjoint, a, d[0]);
    if (want[1]) accumulate(t, adjoint, b, d[1]);
  }
  for (size_t i = 0; i < n && !t->status; i++) {
    grad[i] = adjoint[wrt[i]];
    if (grad[i] == MELU__NO_NODE) grad[i] = melu__tape_const(t, t->nodes[wrt[i]].rows, t->nodes[wrt[i]].cols, 0);
  }
done:
  melu__free(t->alloc, adjoint);
  melu__free(t->alloc, leads);
}
