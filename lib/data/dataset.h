/* SPDX-License-Identifier: BSD-3-Clause */
/* Users, items and ratings in memory. */
#ifndef MELU__DATASET_H
#define MELU__DATASET_H

#include "data/column.h"

struct melu__rating {
  uint32_t user, item; /* positions */
  float rating;
};

struct melu_dataset {
  const melu_context *ctx;
  melu_schema *schema;
  struct melu__table tables[2];  /* by melu_owner */
  struct melu__vocab *key_texts; /* texts that stand for host's ids: id = 2^63 + number */
  int frozen;
  size_t n_ratings;
  /* Before freezing: as added. NULL afterwards. */
  struct melu__rating *added;
  size_t added_capacity;
  /* Once frozen: CSR by user. */
  size_t *user_start;       /* n_users + 1 */
  uint32_t *rating_item;    /* n_ratings */
  float *rating;            /* n_ratings */
  const melu_dataset *base; /* a frozen set whose schema and items this one has, without owning them; NULL: none */
};

/* Returns a new open set with the schema and the items of `base`, a frozen set, which it borrows, and without users.
 * Errors: MELU_ENOMEM. */
melu_status melu__dataset_beside(melu_dataset **out, const melu_dataset *base, melu_error *err);

/* Freezes an open set that has no ratings with these: those of user u are [user_start[u], user_start[u + 1]). On
 * success the arrays, which come from the set's allocator, are the set's. Errors: MELU_ENOMEM. */
melu_status melu__dataset_freeze_with(melu_dataset *data, size_t *user_start, uint32_t *items, float *ratings,
                                      melu_error *err);

/* For readers. The id of a text in a field of texts: a new text is added where the field learns, and is MELU_UNKNOWN
 * where it does not. `column` is the field's index among the owner's. Errors: MELU_ESTATE (frozen), MELU_EINVAL (not a
 * field of texts), MELU_ELIMIT, MELU_ENOMEM. */
melu_status melu__dataset_text_id(uint32_t *id, melu_dataset *data, melu_owner owner, size_t column, const char *text,
                                  size_t n_bytes, melu_error *err);

/* For readers. The host's id that a text stands for: 2^63 + its order of first appearance in this data set, as a user's
 * or an item's. Errors: MELU_ESTATE (frozen), MELU_ELIMIT, MELU_ENOMEM. */
melu_status melu__dataset_key_id(uint64_t *id, melu_dataset *data, const char *text, size_t n_bytes, melu_error *err);

struct melu__digest; /* base/digest.h */

/* Adds all of a frozen set to a digest: host's ids, values and ratings, but not the schema. */
void melu__dataset_digest(struct melu__digest *d, const melu_dataset *data);

/* The XXH3 digest (64 bits) of a user's or an item's id and values, of a frozen set. */
uint64_t melu__entity_hash(const melu_dataset *data, melu_owner owner, uint32_t entity);

/* How much there is at some moment, to return to. */
struct melu__mark {
  size_t n_entities[2], n_ratings, n_key_texts;
  size_t n_texts[MELU__MAX_FIELDS];
};

/* Rewinding takes everything that was added since the mark out of the set, vocabularies included. It cannot fail. The
 * set must not have been frozen, nor rewound to an earlier mark, in between. */
void melu__dataset_mark(const melu_dataset *data, struct melu__mark *mark);
void melu__dataset_rewind(melu_dataset *data, const struct melu__mark *mark);

#endif
