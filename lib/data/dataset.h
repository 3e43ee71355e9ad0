/* SPDX-License-Identifier: BSD-3-Clause */
/* Users, items and ratings in memory. */
#ifndef MELU__DATASET_H
#define MELU__DATASET_H

#include "data/schema.h"

/* One field of all users, or of all items. For ids, lists in CSR: those of entity e are ids[offsets[e] .. offsets[e + 1]).
 * An unknown id is stored as n_values, the number of the table's last row, once the set is frozen. For numbers, `width`
 * a entity, already shifted and scaled; zeros where missing. */
struct melu__column {
  uint32_t *offsets; /* n + 1 */
  uint32_t *ids;
  float *numbers;     /* (n, width) as the host gave them; NaN-free: `present` says which are there */
  unsigned char *present;
  size_t n_ids, offsets_capacity, ids_capacity, numbers_capacity, present_capacity;
};

/* All users, or all items. */
struct melu__table {
  size_t n;
  size_t n_columns;
  struct melu__column *columns; /* in the schema's order of that owner */
  struct melu__vocab *keys;     /* host's ids, 8 bytes each: position = number of the key */
  struct melu__vocab *texts;    /* texts that stand for ids: id = 2^63 + number */
};

struct melu_dataset {
  const melu_context *ctx;
  melu_schema *schema;
  struct melu__table tables[2]; /* by melu_owner */
  int frozen;
  /* Before freezing: (user, item, rating) as added. After: CSR by user. */
  size_t n_ratings, ratings_capacity;
  uint32_t *rating_user; /* NULL once frozen */
  uint32_t *rating_item;
  float *rating;
  size_t *user_start; /* n_users + 1, once frozen */
};

#endif
