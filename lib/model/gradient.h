/* SPDX-License-Identifier: BSD-3-Clause */
/* A gradient of the model's shape: whole for the decision layers, the touched rows only for the tables. */
#ifndef MELU__GRADIENT_H
#define MELU__GRADIENT_H

#include "model/model.h"

/* The rows of one table's gradient. */
struct melu__table_grad {
  size_t cols;
  uint32_t *rows; /* in the order in which they were first met */
  size_t n, capacity;
  real *values; /* (n, cols) */
  size_t values_capacity;
  uint32_t *place; /* per row of the table: 1 + its place in `rows`, 0 if untouched */
};

struct melu_gradient {
  const melu_model *model;
  struct melu__table_grad *tables; /* one per table */
  real *dense;                     /* W1, b1, W2, ... one after another, each laid out as in the model */
  size_t n_dense;
  int filled;
  real largest;         /* no entry is larger */
  double loss, *losses; /* mean, and one per task */
  size_t n_tasks, losses_capacity;
  struct melu__outer *outer; /* scratch of the outer loop (meta/outer.c), made on first use */
  void (*free_outer)(struct melu__outer *outer, const melu_model *model);
};

/* Where parameter `i` (n_tables <= i) begins in an array laid out like `dense`. */
size_t melu__dense_offset(const melu_model *model, size_t i);

/* The gradient of one parameter: n rows of it, and which they are (NULL: 0, 1, 2 ...). */
struct melu__gradient_part {
  const real *values;
  const uint32_t *rows;
  size_t n;
};
struct melu__gradient_part melu__gradient_part(const melu_gradient *g, size_t param);

/* Empties the gradient and makes room for the losses of n_tasks. Returns 0 if there is no memory. */
int melu__gradient_begin(melu_gradient *g, size_t n_tasks);

/* The place of that row in the gradient, zeros if it was not there before; MELU__NO_PLACE if there is no memory. */
#define MELU__NO_PLACE UINT32_MAX
uint32_t melu__table_grad_meet(struct melu__table_grad *r, const struct melu_allocator *a, uint32_t row);

/* Of a row that is there. */
static inline real *melu__table_grad_row(const struct melu__table_grad *r, uint32_t row) {
  return r->values + (size_t)(r->place[row] - 1) * r->cols;
}

#endif
