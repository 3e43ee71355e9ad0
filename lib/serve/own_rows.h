/* SPDX-License-Identifier: BSD-3-Clause */
/* MELU_ADAPT_ITEMS: by how much a user's own embedding rows differ from the model's. */
#ifndef MELU__OWN_ROWS_H
#define MELU__OWN_ROWS_H

#include "data/dataset.h"
#include "model/model.h"

/* Of one field: its ids, ascending, and their rows. */
struct melu__own_field {
  size_t first_id, n, first_number;
};

/* All zeros: no row differs. */
struct melu__own_rows {
  struct melu__own_field fields[MELU__MAX_ADAPTED_FIELDS];
  uint32_t *ids;
  real *numbers;
  size_t n_numbers, ids_capacity, numbers_capacity;
};

/* Finds the rows that n items lead to, all zeros so far. Returns 0, nothing but memory being lost, if there is none. */
int melu__own_rows_find(struct melu__own_rows *own, const melu_model *model, const melu_dataset *data,
                        const uint32_t *items, size_t n);

/* Moves them: each item's rows by -moved (n, item_width), every id taking its share. */
void melu__own_rows_move(struct melu__own_rows *own, const melu_model *model, const melu_dataset *data,
                         const uint32_t *items, size_t n, const real *moved);

/* Adds to the input rows x (n, item_width) of n items what the user's own rows differ in. */
void melu__own_rows_add(const struct melu__own_rows *own, const melu_model *model, const melu_dataset *data,
                        const uint32_t *items, size_t n, real *x);

void melu__own_rows_free(struct melu__own_rows *own, const struct melu_allocator *alloc);

#endif
