/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a training's users come from: a data set, or the files of a shard folder. Each belongs to one of n_slots slots,
 * and is trained on or left out. Those of a slot that are trained on have an order of their own in every epoch; those
 * that are left out have one for good. Orders and draws depend on the seed, the epoch and the slot alone. */
#ifndef MELU__SOURCE_H
#define MELU__SOURCE_H

#include "base/digest.h"
#include "meta/episode.h"

enum melu__part { MELU__TRAINED, MELU__LEFT_OUT, MELU__N_PARTS };

/* Who is in it. */
struct melu__eligible {
  uint64_t seed;
  size_t min_ratings, max_ratings;
  double share;           /* of them who are left out */
  const uint32_t *listed; /* who else is, by position; only of a data set */
  size_t n_listed;
};

/* Receives users of a slot by their positions in `data`, which stays during the call. */
typedef melu_status (*melu__visit_fn)(void *arg, size_t slot, const melu_dataset *data, const uint32_t *users, size_t n,
                                      melu_error *err);

struct melu__source {
  const struct melu__source_kind *kind;
  const melu_context *ctx;
  const melu_dataset *items; /* frozen: schema and items */
  const melu_dataset *users; /* what batches are of: users have their positions in it until the next `begin` */
  size_t n_slots;
  size_t *n_users[MELU__N_PARTS]; /* (n_slots) */
  double n_ratings;               /* of those who are trained on */
  size_t longest;                 /* most ratings of any of them */
};

struct melu__source_kind {
  /* Puts the users of every slot into the order of an epoch. Epochs come in ascending order. */
  void (*order)(struct melu__source *source, uint32_t epoch);

  /* Forgets who was added to batches so far. */
  void (*begin)(struct melu__source *source);

  /* Appends episodes, as drawn for an epoch, of users [first, first + n) of a slot to a batch. On error some of them
   * may have been appended. Errors: MELU_ENOMEM, and those of reading files. */
  melu_status (*add)(struct melu__source *source, melu_batch *batch, const struct melu__episodes *episodes,
                     enum melu__part part, size_t slot, size_t first, size_t n, uint32_t epoch, melu_error *err);

  /* Shows all who are trained on, slot by slot; before the first `order`. Ends with the first error. */
  melu_status (*visit)(struct melu__source *source, melu__visit_fn look, void *arg, melu_error *err);

  /* Adds to a digest who and what is in it; before the first `order`. */
  void (*identify)(const struct melu__source *source, struct melu__digest *d);

  /* NULL is fine. */
  void (*free)(struct melu__source *source);
};

/* How many there are in all slots. */
size_t melu__source_count(const struct melu__source *source, enum melu__part part);

/* Returns a new source: the eligible users of a frozen data set, which is borrowed, in one slot. Errors: MELU_ERANGE
 * (listed), MELU_ENOMEM. */
melu_status melu__source_of_data(struct melu__source **out, const melu_context *ctx, const melu_dataset *data,
                                 const struct melu__eligible *eligible, melu_error *err);

/* Some of all slots: [first, end) of n. */
struct melu__slot_range {
  size_t n, first, end;
};

/* Returns a new source: the eligible users of some slots in a shard folder, which is borrowed; `listed` says nothing.
 * Reads all files of those slots once. Errors: MELU_EINVAL (the folder has no multiple of so many files),
 * MELU_ECANCELED, MELU_ENOMEM, and those of melu_shards_read. */
melu_status melu__source_of_shards(struct melu__source **out, const melu_context *ctx, const melu_shards *shards,
                                   const struct melu__eligible *eligible, struct melu__slot_range range,
                                   melu_error *err);

#endif
