/* SPDX-License-Identifier: BSD-3-Clause */
/* The weights that an update is about to change, so that it can be taken back: all dense ones, and some table rows. */
#ifndef MELU__UNDO_H
#define MELU__UNDO_H

#include "model/model.h"

struct melu__undo_row {
  uint32_t table, row;
};

struct melu__undo {
  const melu_model *model;
  struct melu__undo_row *rows;
  real *values; /* of the dense parameters, then of the rows */
  size_t n_rows, n_values, rows_capacity, values_capacity;
  int filled;
};

/* The undo of all zeros is that of no update, and may be freed. */
void melu__undo_free(struct melu__undo *undo);

/* Forgets what was kept, keeps the dense parameters, and makes room for n_rows[t] rows of each table t. 0 if there is
 * no memory: nothing is kept then. */
int melu__undo_begin(struct melu__undo *undo, const melu_model *model, const size_t *n_rows);

/* Keeps a row, for which there is room. */
void melu__undo_add(struct melu__undo *undo, size_t table, size_t row);

/* Puts back what was kept last, if anything was. */
void melu__undo_restore(struct melu__undo *undo, melu_model *model);

#endif
