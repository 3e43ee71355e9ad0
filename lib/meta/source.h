/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a training's tasks come from. Each of a rank's slots has a list of users that are trained on, in an order that
 * is another one in every epoch, and a list of those that are left out for validation. A list depends on the slot's
 * users, seed and epoch, and not on which rank has the slot, or where the users are kept. */
#ifndef MELU__SOURCE_H
#define MELU__SOURCE_H

#include "base/digest.h"
#include "base/slots.h"
#include "data/batch.h"

enum melu__list { MELU__TRAINED, MELU__LEFT_OUT };

/* Of one slot. Ratings are those of the users that are trained on. */
struct melu__source_slot {
  uint64_t n_users, n_left_out; /* the lengths of its lists */
  double n_ratings, sum, squares;
};

/* Adds up the ratings of one user more. */
static inline void melu__source_slot_add(struct melu__source_slot *slot, const float *ratings, size_t n) {
  for (size_t k = 0; k < n; k++) {
    slot->sum += ratings[k];
    slot->squares += (double)ratings[k] * ratings[k];
  }
  slot->n_ratings += (double)n;
}

typedef void (*melu__visit_fn)(void *arg, const melu_dataset *data, uint32_t entity);

struct melu__source {
  void *arg;
  struct melu__slots own;
  struct melu__source_slot *slots; /* (own.hi - own.lo), belongs to the source */

  /* Called once, before the others: moves so many users of each slot, drawn by the seed, from those that are trained on
   * to those that are left out, and finds out about ratings. */
  melu_status (*leave_out)(void *arg, const uint64_t *n, melu_error *err);

  /* A batch that `fill` may fill. Its data set is the source's own, has all that its tasks refer to, and is the batch's
   * as long as that is not filled again. */
  melu_status (*new_batch)(void *arg, melu_batch **out, melu_error *err);
  void (*free_batch)(void *arg, melu_batch *batch);

  /* Brings the lists of those that are trained on into the order of an epoch. Called for 0, 1, 2, ... in turn; of some
   * nothing may be asked. */
  void (*begin_epoch)(void *arg, uint32_t epoch);

  /* Makes the batch consist of the users [first[i], end[i]) of that list of each slot own.lo + i, an episode of each
   * drawn for `draw`, and writes how many tasks there are up to and with that slot to n_tasks[i]. */
  melu_status (*fill)(void *arg, melu_batch *batch, enum melu__list list, uint32_t draw, const uint64_t *first,
                      const uint64_t *end, size_t *n_tasks, melu_error *err);

  /* Calls visit(visit_arg, data, entity) for each user who is trained on, or for each item that one of them rated. */
  melu_status (*visit)(void *arg, melu_owner owner, melu__visit_fn visit, void *visit_arg, melu_error *err);

  /* Adds to a digest all that tasks of one of its slots depend on: of each user, in the order that they have before the
   * first epoch, melu__entity_hash, and of each rating that of the item, and the rating. */
  melu_status (*digest)(void *arg, struct melu__digest *d, size_t slot, melu_error *err);

  void (*free)(void *arg);
};

/* The users of a data set, which is borrowed, by the options of melu_fit, which are in force. Errors: MELU_ERANGE (of
 * those that are listed for validation), MELU_EINVAL (a user of another rank's slot), MELU_ENOMEM. */
melu_status melu__memory_source(struct melu__source *out, const melu_context *ctx, const melu_dataset *data,
                                const struct melu_fit_options *options, melu_error *err);

/* The users of a shard folder, which is borrowed, in files of this rank's slots, all of which are read once. Of each
 * slot about as many are left out as are asked for. Errors: MELU_EINVAL (validation_users; the number of files is no
 * multiple of that of slots), MELU_ECANCELED, MELU_ENOMEM, and those of melu_shards_read. */
melu_status melu__shard_source(struct melu__source *out, const melu_context *ctx, const melu_shards *shards,
                               const struct melu_fit_options *options, melu_error *err);

static inline void melu__source_free(struct melu__source *source) {
  if (source->free) source->free(source->arg);
}

#endif
