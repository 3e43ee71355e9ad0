/* SPDX-License-Identifier: BSD-3-Clause */
/* A batch by slots: each slot's tasks add to sums of their own, which are then added along the tree over slots. */
#ifndef MELU__PARTS_H
#define MELU__PARTS_H

#include "base/slots.h"

/* What a batch consists of: the tasks of this rank's slots, one slot's behind the other's. */
struct melu__batch_parts {
  size_t n_slots;          /* of all ranks */
  struct melu__slots own;  /* this rank's */
  const size_t *end;       /* (own.hi - own.lo): where each slot's tasks end */
  size_t n_tasks, n_query; /* of all ranks: tasks, and their query rows */
  int is_apart;            /* the branches' sums are not added up here, nor dense ones scaled */
};

/* One slot's tasks, of which there are some. */
struct melu__part {
  struct melu__slots slot; /* one */
  size_t first_task, end_task;
  size_t first_lane, end_lane;
  size_t first_item, end_item;   /* MELU_FACTORS: its items, the first one's row in their arrays, */
  size_t item_row, user_row;     /* the first user's, */
  size_t first_block, end_block; /* and its blocks of both */
  double loss, loss_sum;         /* of its tasks; scratch */
};

/* One of the largest nodes of the tree that are this rank's, with some tasks. */
struct melu__branch {
  struct melu__slots slots;
  size_t first_part, end_part;
};

#endif
