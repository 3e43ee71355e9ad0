/* SPDX-License-Identifier: BSD-3-Clause */
/* A training that is under way, and how it is written down. */
#ifndef MELU__FIT_H
#define MELU__FIT_H

#include "base/ranks.h"
#include "meta/exchange.h"
#include "meta/manifest.h"
#include "meta/schedule.h"
#include "meta/source.h"
#include "meta/start.h"
#include "model/optimizer.h"
#include "model/prior.h"
#include "model/undo.h"

/* A batch in the making: what this rank has of it. */
struct melu__step {
  melu_batch *batch;
  size_t *n_tasks; /* up to and with each of this rank's slots */
  struct melu__batch_parts parts;
  struct melu__draft draft; /* with sharded tables: what is computed instead of `batch` */
};

/* What ranks tell each other of the parts of a checkpoint that they have written. */
struct melu__told {
  uint64_t has_failed;
  struct melu__saved saved;
};

/* Of a checkpoint in parts. */
struct melu__fit_parts {
  struct melu__manifest found;      /* what was at options.checkpoint before this training wrote anything */
  struct melu__manifest last, next; /* of this training's: all zeros before the first one */
  struct melu__told *told;          /* (n_ranks) */
  size_t *counts;                   /* (n_ranks): scratch */
  real *moments;                    /* of the dense parameters: scratch */
};

struct melu__fit {
  const melu_context *ctx;
  melu_model *model;
  struct melu_fit_options options;
  struct melu_optimizer_options optimizer_options;
  struct melu__share share;
  struct melu__source source;
  /* Of all ranks, by slot: the users that are trained on, and those left out. */
  uint64_t *users_of_slot, *left_out_of_slot;
  uint64_t n_users, n_left_out;
  struct melu__ratings ratings; /* of those trained on */
  struct melu__schedule schedule, left_out;
  struct melu__step steps[2], *step, *next;
  uint32_t epoch;
  double *by_slot; /* (n_slots): scratch */

  melu_gradient *gradient;              /* of this rank's tasks */
  int is_apart;                         /* the whole gradient is exchange.own, and not that one */
  struct melu__draft_model draft_model; /* with sharded tables */
  struct melu__ranks ranks;
  struct melu__exchange exchange;
  struct melu__numbers numbers;
  melu_optimizer *optimizer;
  struct melu__prior prior;
  struct melu__undo undo; /* of the last update */

  uint64_t n_done;    /* tasks so far: says the epoch, and how far it got */
  uint64_t n_resumed; /* of these, before it was resumed */
  int stopping;       /* was cancelled, and ends with the next checkpoint */
  double loss_sum;    /* of the epoch so far */
  double validation, best_validation;
  uint32_t best_epoch;
  struct melu__fit_parts parts;
  real *best;                               /* all parameters as they were after that epoch */
  char identity[2 * MELU_DIGEST_BYTES + 1]; /* of data and users, if there is a checkpoint */
};

/* Fills in f->options and f->optimizer_options as they are in force. Errors: MELU_EINVAL, MELU_ERANGE, MELU_ELIMIT. */
melu_status melu__fit_resolve(struct melu__fit *f, const struct melu_fit_options *given, melu_error *err);

/* The options that the result depends on, in the order in which files have them. */
enum { MELU__N_COUNTS = 13, MELU__N_NUMBERS = 12 };
struct melu__count {
  const char *name;
  uint64_t value;
};
struct melu__number_option {
  const char *name;
  double value;
};
void melu__fit_list_options(struct melu__count counts[MELU__N_COUNTS],
                            struct melu__number_option numbers[MELU__N_NUMBERS], const struct melu__fit *f);

/* Where the users are. */
struct melu__users_of {
  const melu_dataset *data;
  const melu_shards *shards; /* if it is not there */
};

/* Makes the source, and counts the users and ratings of all ranks. Collective but for `of`, NULL where this rank has
 * failed already, with what *err says. Errors: as of melu__memory_source and melu__shard_source, MELU_ENOTFOUND. */
melu_status melu__fit_find_users(struct melu__fit *f, const struct melu__users_of *of, melu_error *err);

/* Sets `identity`, before the first epoch begins. Collective. Errors: the source's, MELU_ENOMEM. */
melu_status melu__fit_identify(struct melu__fit *f, melu_error *err);

/* Makes room for writing parts, if there are several ranks and a checkpoint. Errors: MELU_ENOMEM. */
melu_status melu__fit_prepare_parts(struct melu__fit *f, melu_error *err);
void melu__fit_free_parts(struct melu__fit *f);

/* Writes the state before the next update to options.checkpoint. Collective. Errors: MELU_EIO, MELU_ELIMIT,
 * MELU_ENOMEM. */
melu_status melu__fit_save(struct melu__fit *f, melu_error *err);

/* Before the first epoch: finds out whether options.checkpoint can be written, and, with options.resume, takes the
 * state from what is there, if anything is. On error all is as before; or, if a file of several could no longer be read
 * when all had been found good, the model is as it was when it was new. Collective. Errors: the source's, MELU_EIO, as
 * of melu_model_load, and MELU_ESCHEMA (of another model), MELU_EINVAL (of another training). */
melu_status melu__fit_open_checkpoint(struct melu__fit *f, melu_error *err);

#endif
