/* SPDX-License-Identifier: BSD-3-Clause */
/* What a user told: her profile, and her ratings by the host's ids of the items. */
#ifndef MELU__SUPPORT_H
#define MELU__SUPPORT_H

#include "data/dataset.h"

struct melu__support {
  size_t n, n_fields;
  uint64_t *items; /* (n) */
  float *ratings;  /* (n) */
  /* One a field of users. They point into ids and numbers. */
  struct melu_value *values;
  uint32_t *ids;
  float *numbers;
  size_t n_ids, n_numbers, items_capacity, ratings_capacity, ids_capacity, numbers_capacity;
};

/* Nothing told. Returns 0 if there is no memory; what is all zeros has nothing to free. */
int melu__support_init(struct melu__support *s, const struct melu_allocator *a, const melu_schema *schema);
void melu__support_free(struct melu__support *s, const struct melu_allocator *a);

/* The profile as melu_adapt takes it: NULL when all of it is missing. */
const struct melu_value *melu__support_profile(const struct melu__support *s);

/* Makes room for n ratings and, if it is not NULL, a profile; what was told stays. Returns 0 if there is no memory. */
int melu__support_reserve(struct melu__support *s, const struct melu_allocator *a, const struct melu_value *profile,
                          size_t n);

/* Puts them into the room that was made: a profile, NULL being one of which all is missing, and n ratings. */
void melu__support_set_profile(struct melu__support *s, const struct melu_value *profile);
void melu__support_set_ratings(struct melu__support *s, const melu_dataset *data, const uint32_t *items,
                               const float *ratings, size_t n);

/* Where her last rating of an item is; n if there is none. */
size_t melu__support_find(const struct melu__support *s, uint64_t item);

/* Moves rating i behind all others, and from there back to where it was. */
void melu__support_to_end(struct melu__support *s, size_t i);
void melu__support_from_end(struct melu__support *s, size_t i);

/* The position in `data` of item i of hers. Errors: MELU_ENOTFOUND (`index` is i). */
melu_status melu__support_position(uint32_t *position, const struct melu__support *s, const melu_dataset *data,
                                   size_t i, melu_error *err);

#endif
