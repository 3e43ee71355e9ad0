/* SPDX-License-Identifier: BSD-3-Clause */
/* The weights that an update is about to change, so that it can be taken back: the rows that its gradient touches. */
#ifndef MELU__UNDO_H
#define MELU__UNDO_H

#include "model/gradient.h"

struct melu__undo {
  const melu_model *model;
  size_t *n_rows; /* one per parameter */
  uint32_t *rows; /* of all parameters, one after another */
  real *values;
  size_t rows_capacity, values_capacity;
  int filled;
};

/* 0 if there is no memory; the undo is then to be freed all the same. */
int melu__undo_init(struct melu__undo *undo, const melu_model *model);
void melu__undo_free(struct melu__undo *undo);

/* Keeps what an update by this gradient would change. 0 if there is no memory: nothing is kept then. */
int melu__undo_save(struct melu__undo *undo, const melu_gradient *g);

/* Puts back what was kept last, if anything was. */
void melu__undo_restore(struct melu__undo *undo, melu_model *model);

#endif
