/* SPDX-License-Identifier: BSD-3-Clause */
/* A gradient of the model's shape: whole for the decision layers, the touched rows only for the tables. */
#ifndef MELU__GRADIENT_H
#define MELU__GRADIENT_H

#include "model/model.h"
#include "model/table_grad.h"

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

/* melu_gradient_new of a model that may be sharded: the gradient is of the rows that are stored. */
melu_status melu__gradient_new(melu_gradient **out, const melu_model *model, melu_error *err);

/* Makes room for the rows that the model has by now; the gradient becomes empty. Returns 0 if there is no memory. */
int melu__gradient_fit(melu_gradient *g);

/* Where parameter `i` (n_tables <= i) begins in an array laid out like `dense`. */
size_t melu__dense_offset(const melu_model *model, size_t i);

/* Where the dense numbers of slot `slot` begin: those of all slots follow each other. */
static inline size_t melu__dense_begin(const melu_gradient *g, size_t slot, size_t n_slots) {
  const size_t line = MELU__ALIGN / sizeof(real);
  return slot == n_slots ? g->n_dense : g->n_dense / line * slot / n_slots * line;
}

/* The gradient of one parameter: n rows of it, and which they are (NULL: 0, 1, 2 ...). */
struct melu__gradient_part {
  const real *values;
  const uint32_t *rows;
  size_t n;
};
struct melu__gradient_part melu__gradient_part(const melu_gradient *g, size_t param);

/* Empties the gradient and makes room for the losses of n_tasks, of n_slots slots. Returns 0 if there is no memory. */
int melu__gradient_begin(melu_gradient *g, size_t n_tasks, size_t n_slots);

#endif
