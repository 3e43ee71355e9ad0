/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings as files: docs/file-format.md, "Checkpoints". Random numbers are counted, so a training is a function of
 * model, data, options and of how far it got. The files hold what changes, and of what does not enough to be sure that
 * it is the same. Several ranks write a part each, and then one of them a manifest that names the parts. */
#ifndef MELU__CHECKPOINT_H
#define MELU__CHECKPOINT_H

#include "io/safetensors.h"
#include "meta/fit.h"

#define MELU__CHECKPOINT_FORMAT "melu-checkpoint"
#define MELU__SECOND "second_moment."

enum { MELU__N_CURSOR = 2, MELU__N_LOSSES = 3, MELU__TENSOR_NAME = 96 };

/* Where a tensor's numbers are in the training's memory, or in the checkpoint's. */
struct melu__place {
  void *data;
  size_t cols, size; /* of a row; bytes of a number in memory */
  int is_table;      /* its rows are those of some slots */
  int is_sharded;    /* in memory, of this rank's slots */
};

/* What a part consists of: the table rows of some slots; and with slot 0 all else. */
struct melu__checkpoint {
  const struct melu__fit *f;
  struct melu__share share; /* the part's */
  struct melu__tensor *tensors;
  char (*names)[MELU__TENSOR_NAME]; /* of the tensors */
  struct melu__place *places;
  size_t n;
  uint64_t counts[MELU__N_COUNTS]; /* the values of the options */
  double numbers[MELU__N_NUMBERS];
  uint64_t cursor[MELU__N_CURSOR]; /* tasks done; the best epoch */
  double losses[MELU__N_LOSSES];   /* sum of the epoch so far; of the validation, the last and the best */
};

/* Errors: MELU_ENOMEM, with nothing to release. */
melu_status melu__checkpoint_describe(struct melu__checkpoint *c, const struct melu__fit *f, struct melu__slots slots,
                                      melu_error *err);
void melu__checkpoint_release(struct melu__checkpoint *c);

#endif
