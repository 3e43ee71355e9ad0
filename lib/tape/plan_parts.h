/* SPDX-License-Identifier: BSD-3-Clause */
/* What a plan is made of, for the three rooms that make one: plan.c, place.c and steps.c. */
#ifndef MELU__PLAN_PARTS_H
#define MELU__PLAN_PARTS_H

#include "tape/lower.h"
#include "tape/plan.h"
#include "tensor/sum.h"

/* Where a value is: in a slot of the run, or in the arena. */
struct place {
  uint32_t rows, cols;
  uint32_t slot;       /* IN_ARENA: at `offset` */
  uint32_t is_overrun; /* whether a sum reads beyond its columns, to the end of whole vectors */
  size_t offset, ld;
};

#define IN_ARENA 0xffffffffu

/* Where a matrix is that a step takes: in a slot, or in the arena at so many lines. */
struct operand {
  uint16_t slot; /* ARENA_SLOT: in the arena */
  uint16_t which;
  uint32_t line;
};

#define ARENA_SLOT 0xffffu
enum { LINE = MELU__ALIGN / sizeof(real) };

/* An output that is made elsewhere. */
struct copy {
  melu__ref from;
  uint32_t slot;
  size_t ld;
};

/* An op that is no sum; its operands are those of enum op_operand. */
struct op_step {
  size_t scratch; /* in the arena */
  uint32_t node, a_rows, a_cols, b_cols, a_ld, b_ld, out_ld;
};
enum op_operand { OP_A, OP_B, OP_OUT, N_OP_OPERANDS };

/* An instruction with everything decided but addresses. Small, since a run reads all of them once. */
struct step {
  uint32_t first_operand;
  uint16_t n_operands;
  uint8_t is_sum;
  uint8_t clears, clears_pre, clears_raw; /* whether the edge of what it writes is to be zero */
  union {
    struct melu__sum_job sum;
    struct op_step op;
  } as;
};

struct melu__plan {
  const struct melu_allocator *alloc;
  const struct melu__kernels *kernels;
  struct melu__node *nodes; /* simplified */
  size_t n_nodes;
  struct melu__code code;
  struct place *places; /* of the values: nodes, then partial sums */
  size_t n_values;
  struct step *steps;       /* as many as the code has instructions */
  size_t *scratch;          /* of each, in the arena, while the plan is made */
  struct operand *operands; /* of all steps */
  size_t n_operands, operands_capacity;
  struct copy *copies; /* outputs that are not where they were made */
  size_t n_copies;
  size_t arena_size;
  double flops;
  int tag;
};

/* place.c: where every value is, and every op's scratch. `copies` and `scratch` have room. Returns 0 if there is no
 * memory. */
int melu__plan_place(struct melu__plan *p, const size_t *ld, const struct melu__output *outputs, const melu__ref *keep,
                     size_t n);

/* The columns of whole vectors, so that sums may compute beyond the end of a row. A column is a vector itself. */
size_t melu__plan_padded(const struct melu__plan *p, size_t cols);

/* Visits what the i-th instruction reads. */
void melu__plan_each_read(const struct melu__plan *p, size_t i, void (*visit)(void *arg, melu__ref value), void *arg);

/* steps.c: the steps, once everything has its place. Returns 0 if there is no memory. */
int melu__plan_prepare_steps(struct melu__plan *p);

#endif
