/* SPDX-License-Identifier: BSD-3-Clause */
/* Which users make the next batch: those of all slots in turn, each slot's as evenly as can be over an epoch, so that
 * batches are of one size and every slot is through at the end. Every rank knows it for all slots. */
#ifndef MELU__SCHEDULE_H
#define MELU__SCHEDULE_H

#include "base/alloc.h"

struct melu__schedule {
  size_t n_slots;
  const uint64_t *n; /* (n_slots): users of each slot, borrowed */
  uint64_t *first;   /* (n_slots): of each slot's list, where the batch begins, */
  uint64_t *end;     /* and where it ends */
  uint64_t n_left;   /* users behind the batch */
  uint32_t *queue;   /* slots that have users left, as a heap */
  size_t n_queue;
};

/* Returns 0 if there is no memory; the schedule is then to be freed all the same. */
int melu__schedule_init(struct melu__schedule *s, const struct melu_allocator *a, const uint64_t *n, size_t n_slots);
void melu__schedule_free(struct melu__schedule *s, const struct melu_allocator *a);

/* Back to the beginning, before the first batch. */
void melu__schedule_begin(struct melu__schedule *s);

/* To the next batch of n users, or of as many as are left: returns how many. */
size_t melu__schedule_next(struct melu__schedule *s, uint64_t n);

#endif
