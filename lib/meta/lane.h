/* SPDX-License-Identifier: BSD-3-Clause */
/* A lane: some tasks of a batch, computed one after another by one thread. What the first layer makes of their rows
 * before any step, and what comes back through it, are products over the rows of all of them; in between, each task has
 * its own plan. Tasks in DIRECT form, whose first layer moves, do everything in their plan. */
#ifndef MELU__LANE_H
#define MELU__LANE_H

#include "meta/parts.h"
#include "meta/task.h"

/* One task's place in the arrays of the batch. */
struct melu__lane_task {
  const struct melu__plan *plan;
  size_t lane;
  size_t row;  /* of its support rows, its query rows following */
  size_t user; /* its row of what there is one of per task */
};

/* Plans for so many rows: as many full blocks as there are, and one for the rest. */
struct melu__blocks {
  size_t n, most;
  const struct melu__plan *full, *full_grad, *rest, *rest_grad; /* NULL where there are none */
};

struct melu__lane {
  size_t part;        /* whose tasks it has some of */
  size_t row, n_rows; /* of the tasks in DUAL form; to full vectors, those beyond the last being zeros */
  size_t user, n_users;
  struct melu__blocks items, users;
  real *sums; /* gradient of the decision layers over the lane's tasks, laid out like gradient->dense */
};

struct melu__lanes {
  enum melu__plan_kind kind; /* of the tasks' plans: META, META_SCORES, META_LINEAR or NOISE */
  /* A host's own loss, by the batch's positions: the scores of query rows, or its derivatives by them. */
  real *scores, *slopes;
  const melu_model *model;
  const melu_batch *batch;
  struct melu__batch_parts whole;
  struct melu__part *parts;
  size_t n_parts;
  struct melu__lane_task *tasks; /* in the order of the batch */
  struct melu__lane *lanes;
  size_t n_lanes, n_rows, n_users, arena; /* n_users: at least the number of tasks; arena: the largest of all plans */
  real *y;                                /* ratings, (n_rows, 1) */
  real *x, *z, *grad_x, *grad_z;          /* (n_rows, item_width) and (n_rows, h) */
  real *xu, *row, *kappa, *grad_xu, *grad_row, *grad_kappa; /* (n_users, user_width), (n_users, h), (n_users, 1) */
  real *memory;                                             /* of all these */
  size_t parts_capacity, tasks_capacity, lanes_capacity, memory_capacity;
  size_t plans;     /* numbers of the arena that plans take; MELU_ADAPT_ITEMS: a task's overlaps follow */
  real *zeros;      /* laid out like gradient->dense: what a lane's first task adds to */
  real *transposed; /* the weights' transposes */
};

/* Finds the plans of so many rows; *arena becomes no smaller than what they need. */
melu_status melu__find_blocks(struct melu__blocks *b, size_t *arena, const melu_model *model, enum melu__plan_kind kind,
                              enum melu__plan_kind grad, size_t n, size_t most, melu_error *err);

/* Where the address of a matrix goes, and its size. */
struct melu__array {
  real **p;
  size_t rows, cols;
};

/* One block of memory for all of them, each on a cache line of its own. Returns 0 if there is none. */
int melu__place_arrays(const struct melu_allocator *a, real **memory, size_t *capacity,
                       const struct melu__array *arrays, size_t n);

/* Finds the plans and places of tasks whose lane is set, and makes room. */
melu_status melu__lanes_prepare(struct melu__lanes *lanes, melu_error *err);

/* Computes one lane: its sums, the tasks' losses, and grad_x, grad_xu of its tasks. `arena`: the thread's, lanes->arena
 * numbers. Cannot fail. */
void melu__lane_run(const struct melu__lanes *lanes, size_t lane, real *arena, double *losses);

#endif
