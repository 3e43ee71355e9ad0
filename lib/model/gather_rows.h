/* SPDX-License-Identifier: BSD-3-Clause */
/* All rows of a sharded table in their order, block by block, at rank 0. */
#ifndef MELU__GATHER_ROWS_H
#define MELU__GATHER_ROWS_H

#include "base/mail.h"
#include "model/model.h"

struct melu__gathering {
  const melu_model *model;
  struct melu__ranks ranks;
  struct melu__mail mail;
  size_t n_left; /* blocks that are still to come */
  int is_over;   /* it failed, and all ranks know */
  real *block;
  /* Of the block that is under way. */
  const struct melu__param *table;
  size_t first, n;
};

/* For n_passes over all sharded tables. Collective. Errors: MELU_ENOMEM, with nothing to end. */
melu_status melu__gathering_begin(struct melu__gathering *g, const melu_model *model, size_t n_passes, melu_error *err);

/* Collective. At rank 0 visit(arg, rows, n) is called for the table's rows, n numbers at a time; what it returns if it
 * fails ends the gathering everywhere. */
melu_status melu__gather_rows(struct melu__gathering *g, size_t table,
                              melu_status (*visit)(void *arg, const real *numbers, size_t n, melu_error *err),
                              void *arg, melu_error *err);

/* Collective. `mine`: how it went here, with what *err says; returns how it went for all. */
melu_status melu__gathering_end(struct melu__gathering *g, melu_status mine, melu_error *err);

#endif
