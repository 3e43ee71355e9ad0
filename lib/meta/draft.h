/* SPDX-License-Identifier: BSD-3-Clause */
/* Training a model with sharded tables: a batch is computed by a working model, whose sharded tables have the rows that
 * the batch touches and no others, on a working data set with the batch's users and items, whose ids are numbers of
 * those rows. What computes gradients does not know of it. */
#ifndef MELU__DRAFT_H
#define MELU__DRAFT_H

#include "base/row_map.h"
#include "data/batch.h"
#include "model/model.h"

/* One sharded table in a batch. */
struct melu__draft_table {
  struct melu__row_map map; /* of its rows, but the last one */
  uint32_t *rows;           /* those that are touched: the map's, and the last one */
  size_t n_rows, rows_capacity;
  uint32_t *order; /* their numbers by the rank that has them, */
  size_t *first;   /* (n_ranks + 1): those of rank r from first[r] on */
  size_t order_capacity;
  real *values; /* (map.n + 1, cols) */
  size_t values_capacity;
  int has_last;
};

/* A batch, what it refers to, and the rows that it touches. */
struct melu__draft {
  melu_dataset data;
  melu_batch batch;
  struct melu__draft_table *tables; /* per table of the model; of those that are sharded */
  uint32_t *items;                  /* the batch's items, by number: their positions in the source's data set */
  size_t n_items, items_capacity, start_capacity, rated_capacity, rating_capacity;
};

struct melu__draft_model {
  const melu_model *whole;
  melu_model model;
  struct melu__param *params; /* of `model` */
  uint32_t *number;           /* by item of the source's data set: 1 + its number, 0 if it has none; scratch */
  size_t number_capacity;
};

/* Return 0 if there is no memory; working model and draft are then to be freed all the same. */
int melu__draft_model_init(struct melu__draft_model *w, const melu_model *model);
int melu__draft_init(struct melu__draft *d, const melu_model *model);
void melu__draft_model_free(struct melu__draft_model *w);
void melu__draft_free(struct melu__draft *d, const melu_model *model);

/* Makes a draft of a batch of the source's. Returns 0 if there is no memory. */
int melu__draft_make(struct melu__draft *d, struct melu__draft_model *w, const melu_batch *batch);

/* The working model becomes that of the draft, whose rows have come. */
void melu__draft_model_take(struct melu__draft_model *w, const struct melu__draft *d);

#endif
