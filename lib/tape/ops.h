/* SPDX-License-Identifier: BSD-3-Clause */
/* The op table: everything that the tape and the plan know about an operation is one row of it. To add an op, add its
 * name to enum melu__op and its row to the table in ops.c. */
#ifndef MELU__OPS_H
#define MELU__OPS_H

#include "tape/tape.h"
#include "tensor/kernels.h"

/* What a kernel is given: the node, its operands and where the result goes. */
struct melu__run {
  const struct melu__kernels *kernels;
  const struct melu__node *node;
  size_t a_rows, a_cols, b_cols;
  struct melu__cmat a, b;
  struct melu__mat out;
  const struct melu__bags *bags; /* all bag slots */
  real *scratch;                 /* op's scratch_size numbers */
};

struct melu__op_info {
  const char *name;
  int arity;

  /* Sets the node's shape from its operands' (or checks it, where the caller sets it); 0 if they do not fit. */
  int (*shape)(const struct melu__tape *t, struct melu__node *node);

  /* Records the gradient of the operands, given that of the result: d[0] for a if want[0], d[1] for b if want[1]. Only
   * records, so the result can be differentiated again. NULL: the derivative is zero everywhere. */
  void (*grad)(struct melu__tape *t, melu__ref y, melu__ref g, const int want[2], melu__ref d[2]);

  /* NULL: no instruction is of this op alone. Simplification takes it out, or a sum computes it (lower.c). */
  void (*run)(const struct melu__run *r);

  /* Numbers of scratch that `run` needs; NULL: none. */
  size_t (*scratch)(const struct melu__node *node, size_t a_rows);

  /* Multiplications and additions of a run; NULL: too few to count. */
  double (*flops)(const struct melu__node *node, size_t a_rows, size_t a_cols);
};

extern const struct melu__op_info melu__ops[MELU__N_OPS];

#endif
