/* SPDX-License-Identifier: BSD-3-Clause */
/* The task batch: positions of support and query ratings. */
#ifndef MELU__BATCH_H
#define MELU__BATCH_H

#include "data/dataset.h"

#define MELU__MAX_ROWS 65535u /* of a task: support and query together */

struct melu__task {
  uint32_t user;
  uint32_t n_support, n_query;
  size_t start; /* positions[start ..]: the support set, then the query set */
};

struct melu_batch {
  const melu_context *ctx;
  const melu_dataset *data;
  size_t n_tasks, tasks_capacity;
  struct melu__task *tasks;
  size_t n_positions, positions_capacity;
  uint32_t *positions;
};

/* The items of a task's rows [first, first + most), as far as there are so many: returns how many. */
size_t melu__task_items(const melu_batch *batch, const struct melu__task *task, size_t first, size_t most,
                        uint32_t *items);

#endif
