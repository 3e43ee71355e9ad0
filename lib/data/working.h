/* SPDX-License-Identifier: BSD-3-Clause */
/* A frozen data set whose users come and go: what a batch is of, where not all users are in memory. */
#ifndef MELU__WORKING_H
#define MELU__WORKING_H

#include "data/dataset.h"

struct melu__working {
  melu_dataset *data; /* beside the items of another one; its users have values, ids and ratings, and nothing else */
  size_t start_capacity, items_capacity, ratings_capacity;
};

/* Without users; `items` is frozen and borrowed. 0 if there is no memory; there is something to free all the same. */
int melu__working_init(struct melu__working *w, const melu_dataset *items);
void melu__working_free(struct melu__working *w);

/* Removes all users, and keeps the memory. */
void melu__working_clear(struct melu__working *w);

/* Copies a user of another frozen set of the same schema and items; she is the last one. Errors: MELU_ENOMEM. */
melu_status melu__working_add(struct melu__working *w, const melu_dataset *from, uint32_t user, melu_error *err);

#endif
