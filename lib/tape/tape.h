/* SPDX-License-Identifier: BSD-3-Clause */
/* The tape: a recording of matrix operations. Recording checks shapes and appends a node; nothing is computed until a
 * plan (plan.h) runs it. The gradient of a recording is more recording, so the gradient of a gradient is just another
 * call of melu__tape_grad: second order through the fast weights needs no code of its own. */
#ifndef MELU__TAPE_H
#define MELU__TAPE_H

#include <melu.h>

#include "base/alloc.h"

/* A node of the tape, by number. After a failure (shapes that do not fit, no memory) the tape only hands out
 * MELU__NO_NODE and remembers the first cause: record freely, ask melu__tape_status once at the end. */
typedef uint32_t melu__ref;
#define MELU__NO_NODE ((melu__ref)0xffffffffu)

enum melu__op {
  MELU__INPUT,     /* a matrix that the run is given in slot `index` */
  MELU__CONST,     /* every entry is s */
  MELU__MATMUL,    /* op(a) op(b), with a transpose flag each */
  MELU__ADD,       /* a + b */
  MELU__SUB,       /* a - b */
  MELU__MUL,       /* a b, element-wise */
  MELU__SCALE,     /* s a */
  MELU__ADD_ROW,   /* a + 1 b, b being one row */
  MELU__SUM_ROWS,  /* 1' a: one row */
  MELU__ROWS,      /* 1 a: the row a, n times; adjoint of SUM_ROWS */
  MELU__SUM_COLS,  /* a 1: one column; as a row if trans_a */
  MELU__COLS,      /* a 1': the column a, or the row a as one if trans_a, n times; adjoint of SUM_COLS */
  MELU__SUM_ALL,   /* 1' a 1: one number */
  MELU__FILL,      /* 1 a 1': the number a everywhere; adjoint of SUM_ALL */
  MELU__RELU,      /* max(a, 0) */
  MELU__STEP,      /* 1 where a > 0, else 0: the derivative of RELU, 0 at 0; its own is 0 */
  MELU__SIGMOID,   /* 1 / (1 + exp(-a)) */
  MELU__LOG,       /* natural logarithm */
  MELU__RECIP,     /* 1 / a */
  MELU__SQRT,      /* square root */
  MELU__TRANSPOSE, /* a' */
  MELU__CONCAT,    /* [a, b]: columns side by side */
  MELU__SLICE,     /* columns index .. index + n of a; with CONCAT its own adjoint */
  MELU__DIAG,      /* the diagonal matrix of the row a */
  MELU__DIAGONAL,  /* the diagonal of the square matrix a, as a row; adjoint of DIAG */
  MELU__BAG,       /* means of rows of the table a, by the lists in bag slot `index` */
  MELU__BAG_T,     /* adjoint of BAG: rows of a scattered to a table */
  MELU__SOLVE,     /* ((a + a') / 2)^-1 b, the bracket being positive definite */
  MELU__DETACH,    /* a, taken as a constant by gradients */
  MELU__N_OPS
};

struct melu__node {
  uint8_t op;
  uint8_t trans_a, trans_b;
  melu__ref a, b; /* operands, MELU__NO_NODE where there is none */
  uint32_t rows, cols;
  uint32_t index; /* slot, or first column */
  double s;
};

struct melu__tape {
  const struct melu_allocator *alloc;
  struct melu__node *nodes; /* an operand's number is below its user's */
  size_t n, capacity;
  melu_status status;
};

void melu__tape_init(struct melu__tape *t, const struct melu_allocator *alloc);
void melu__tape_free(struct melu__tape *t); /* the nodes, not the struct */

/* MELU_OK, MELU_ENOMEM, or MELU_EINVAL for shapes that do not fit (an error of ours, not of the host). */
melu_status melu__tape_status(const struct melu__tape *t, melu_error *err);

/* Recording. Shapes are (rows, cols) of the result. */
melu__ref melu__tape_input(struct melu__tape *t, uint32_t slot, size_t rows, size_t cols);
melu__ref melu__tape_const(struct melu__tape *t, size_t rows, size_t cols, double s);
melu__ref melu__tape_matmul(struct melu__tape *t, melu__ref a, melu__ref b, int trans_a, int trans_b);
melu__ref melu__tape_add(struct melu__tape *t, melu__ref a, melu__ref b);
melu__ref melu__tape_sub(struct melu__tape *t, melu__ref a, melu__ref b);
melu__ref melu__tape_mul(struct melu__tape *t, melu__ref a, melu__ref b);
melu__ref melu__tape_scale(struct melu__tape *t, melu__ref a, double s);
melu__ref melu__tape_add_row(struct melu__tape *t, melu__ref a, melu__ref row);
melu__ref melu__tape_sum_rows(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_rows(struct melu__tape *t, melu__ref row, size_t rows);
melu__ref melu__tape_sum_cols(struct melu__tape *t, melu__ref a, int as_row);
melu__ref melu__tape_cols(struct melu__tape *t, melu__ref vector, int is_row, size_t cols);
melu__ref melu__tape_sum_all(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_fill(struct melu__tape *t, melu__ref number, size_t rows, size_t cols);
melu__ref melu__tape_relu(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_step(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_sigmoid(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_log(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_recip(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_sqrt(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_transpose(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_concat(struct melu__tape *t, melu__ref a, melu__ref b);
melu__ref melu__tape_slice(struct melu__tape *t, melu__ref a, size_t first_col, size_t n_cols);
melu__ref melu__tape_diag(struct melu__tape *t, melu__ref row);
melu__ref melu__tape_diagonal(struct melu__tape *t, melu__ref a);
melu__ref melu__tape_bag(struct melu__tape *t, melu__ref table, uint32_t bag_slot, size_t n_bags);
melu__ref melu__tape_bag_t(struct melu__tape *t, melu__ref a, uint32_t bag_slot, size_t n_table_rows);
melu__ref melu__tape_solve(struct melu__tape *t, melu__ref a, melu__ref b);
melu__ref melu__tape_detach(struct melu__tape *t, melu__ref a);

/* Appends any node whose operands, flags, index and s are set; its shape rule sets or checks rows and cols. */
melu__ref melu__tape_push(struct melu__tape *t, struct melu__node node);

/* Records d sum(y) / d wrt[i] as grad[i], in reverse mode. Nothing that does not lead to one of `wrt` is recorded: the
 * inner loop never makes a gradient of an embedding table. grad[i] is a constant zero where y does not depend on it. */
void melu__tape_grad(struct melu__tape *t, melu__ref y, const melu__ref *wrt, size_t n, melu__ref *grad);

#endif
