/* SPDX-License-Identifier: BSD-3-Clause */
/* A batch of MELU_FACTORS in three stages: the batch's items, each once, and users are encoded; the tasks are computed,
 * lane by lane; what came back to an item from all rows with it is summed up and goes back through the encoder. */
#ifndef MELU__FACTOR_LANE_H
#define MELU__FACTOR_LANE_H

#include "meta/lane.h"

/* A row with some item: where its gradient is, and that of the task's pooled rows if it is one of those. */
struct melu__occurrence {
  uint32_t row, pooled; /* pooled: 1 + the user's row, 0 for a query row */
};

/* Rows [first, end) of the items' or the users' arrays, of which the first n are not padding. */
struct melu__factor_block {
  size_t first, n, end;
  int is_items;
  const struct melu__plan *plan, *grad;
};

struct melu__factor_lanes {
  struct melu__lanes
      *l;           /* tasks and their lanes, rows, sums; of its arrays grad_x, xu, row, grad_xu, grad_row, arena */
  uint32_t *number; /* by item of the data set: 1 + its place among the items of a part; scratch, all zeros */
  uint32_t *items;  /* each part's, in the order of their first row */
  size_t n;
  uint32_t *item_row; /* by position of the batch: the item's row */
  size_t *start;      /* of each item's occurrences; n + 1 */
  struct melu__occurrence *occurrences;
  size_t n_item_rows, n_user_rows;
  real *x, *z, *grad_x, *grad_z; /* (n_item_rows, item_width), (n_item_rows, melu__encoded_cols) */
  real *pooled;                  /* gradient of the tasks' pooled rows, (n_user_rows, melu__user_cols) */
  size_t number_capacity, items_capacity, row_capacity, start_capacity, occurrences_capacity, memory_capacity;
  real *memory;
  struct melu__factor_block *blocks;
  size_t n_blocks, blocks_capacity;
  real weight;  /* of a query row: all of the batch weigh the same */
  size_t plans; /* numbers of the arena that plans take; the rows of a task follow */
};

melu_status melu__factor_prepare(struct melu__factor_lanes *f, melu_error *err);
void melu__factor_free(struct melu__factor_lanes *f, const struct melu_allocator *a);

/* The stages, block by block or lane by lane, those of a stage at the same time; `arena` is the thread's. */
void melu__factor_encode(const struct melu__factor_lanes *f, size_t block, real *arena);
void melu__factor_tasks(const struct melu__factor_lanes *f, size_t lane, real *arena, double *losses);
void melu__factor_collect(const struct melu__factor_lanes *f, size_t lane, real *arena);

#endif
