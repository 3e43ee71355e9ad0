/* SPDX-License-Identifier: BSD-3-Clause */
/* One file of a shard folder, from what a writer was given in any order. */
#ifndef MELU__SHARD_SORTED_H
#define MELU__SHARD_SORTED_H

#include "base/bytes.h"
#include "io/metadata.h"
#include "io/schema_text.h"
#include "io/shards.h"
#include "io/spill.h"
#include "io/table_tensors.h"

/* A profile is a record that begins it, one for each id or number, `what` being the index of the field, and one that
 * ends it. One without an end is none: it could not be added. Of a rating `what` is the item's position. Numbers and
 * ratings are the bits of floats. */
#define MELU__PROFILE_BEGIN 0xfffffffeu
#define MELU__PROFILE_END 0xffffffffu

struct melu__sorted_shard {
  const struct melu_allocator *alloc;
  struct melu__table users;
  uint32_t *offsets; /* users.n + 1: user u has the ratings [offsets[u], offsets[u + 1]) */
  size_t offsets_capacity;
  uint32_t *items; /* n_ratings, as the two below */
  float *ratings;
  size_t n_ratings;
  /* The profile that is at hand. */
  uint32_t *ids;
  float *numbers;
  size_t ids_capacity, numbers_capacity;
};

/* Makes it of what is in two buckets, profiles in the first and ratings in the next, for users of the schema, which is
 * borrowed. Leaves something to free, whatever it returns. Errors: MELU_ELIMIT, MELU_ESTATE (a user is there twice),
 * MELU_ENOTFOUND (there is no profile of who rated, unless all_may_rate), MELU_EIO, MELU_ENOMEM. */
melu_status melu__shard_sort(struct melu__sorted_shard *shard, const melu_schema *schema,
                             const struct melu__spill *spill, size_t bucket, int all_may_rate, melu_error *err);
void melu__shard_sorted_free(struct melu__sorted_shard *shard);

/* Writes it, and the list's line on it. Errors: MELU_EIO, MELU_ENOMEM. */
melu_status melu__shard_save(struct melu__shard_list *list, size_t file, const struct melu__sorted_shard *shard,
                             const melu_context *ctx, const char *path, melu_error *err);

#endif
