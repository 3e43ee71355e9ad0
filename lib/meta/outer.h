/* SPDX-License-Identifier: BSD-3-Clause */
/* The outer loop's state, and its parts for those who want something else of it than melu_meta_gradient. */
#ifndef MELU__OUTER_H
#define MELU__OUTER_H

#include "meta/factor_lane.h"
#include "model/gradient.h"

struct task_cost; /* outer.c */

struct melu__outer {
  struct melu__lanes l;
  struct melu__factor_lanes f; /* of MELU_FACTORS */
  struct task_cost *order;     /* by descending cost */
  size_t order_capacity;
  struct melu__slots *slots; /* of the parts */
  size_t slots_capacity;
  struct melu__branch branches[MELU__MAX_NODES];
  size_t n_branches;
  real *sums; /* (n_lanes, n_dense): of the lanes */
  size_t sums_capacity;
  real *arenas; /* one per thread */
  size_t arenas_capacity;
  size_t n_threads;
  real *largest; /* of each chunk and table: its largest entry, or NO_MEMORY */
  size_t largest_capacity;
  melu_gradient *g; /* of the call that is running */
};

/* Checks the arguments, and prepares everything for runs of that kind (META, META_SCORES, META_LINEAR, NOISE). The
 * gradient is empty until melu__outer_complete. *out belongs to it. `parts`: copied, but for `end`; NULL: the batch is
 * whole, and of one slot. */
melu_status melu__outer_begin(struct melu__outer **out, enum melu__plan_kind kind, melu_gradient *g,
                              const melu_model *model, const melu_batch *batch, const struct melu__batch_parts *parts,
                              melu_error *err);

/* Up to the tasks' losses or scores (MELU_LAYERS: to all that META and META_LINEAR make); or all. */
void melu__outer_forward(struct melu__outer *o);
void melu__outer_run(struct melu__outer *o);

/* Whether the first n tasks' losses are finite. */
melu_status melu__outer_check(const melu_gradient *g, size_t n, melu_error *err);

/* From the tasks' losses and sums to a gradient. With parts that are apart the tables have the branches' rows, and
 * their dense sums, not divided by the number of tasks, are at melu__outer_dense after melu__outer_sum_dense. */
melu_status melu__outer_complete(struct melu__outer *o, melu_error *err);
void melu__outer_sum_dense(struct melu__outer *o);
const real *melu__outer_dense(const struct melu__outer *o, size_t branch);

/* melu_meta_gradient of a batch in parts. */
melu_status melu__meta_gradient(melu_gradient *g, const melu_model *model, const melu_batch *batch,
                                const struct melu__batch_parts *parts, melu_error *err);

/* MELU_FACTORS: of each part, in *parts, the sum over its query rows x of e^2 / (1 + x (F'F + P)^-1 x'), e in units of
 * the ratings' spread. The gradient lends its memory and is empty afterwards. */
melu_status melu__noise(melu_gradient *g, const melu_model *model, const melu_batch *batch,
                        const struct melu__batch_parts *parts, melu_error *err);

#endif
