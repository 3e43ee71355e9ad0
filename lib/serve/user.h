/* SPDX-License-Identifier: BSD-3-Clause */
/* An adapted user, and the scratch that adapting and predicting take. */
#ifndef MELU__USER_H
#define MELU__USER_H

#include "meta/task.h"
#include "serve/own_rows.h"

/* What an adapted user differs from the model in: all that predictions take beside it. */
struct melu_user {
  const melu_model *model;
  size_t n_support; /* rows that are kept, or MELU__FORMED */
  real *data;       /* in the order of melu__user_parts */
  size_t n;
  struct melu__own_rows own; /* MELU_ADAPT_ITEMS */
};

/* Whether these are items of a frozen data set that a catalogue of the model can rank. Errors: MELU_EINVAL (the model
 * adapts items), MELU_ESTATE, MELU_ESCHEMA, MELU_ERANGE. */
melu_status melu__check_items(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n,
                              melu_error *err);

/* With MELU_FACTORS [0] w and [1] F'F + P. Else: */
/* Where a user's matrices are, by number of the weights (struct melu__weights): [0] C or the formed W1', [1] X' or
 * nothing, [2] xu W1u' + b1 with its fast weights: what the user adds to every row; [3] ... upper layers. */
void melu__user_parts(real *parts[MELU__MAX_WEIGHTS], const melu_user *user);

/* Points a PREDICT or RANK plan's slots at a user. */
void melu__user_slots(real *slots[MELU__N_SLOTS], const melu_user *user);

/* Items are predicted in pieces of so many rows, halved until the last piece fits; ranked in blocks of so many. A row
 * has the same bits in all of them. */
enum { MELU__PREDICT_ROWS = 32, MELU__N_PIECES = 6, MELU__RANK_ROWS = 96 };

struct melu_workspace {
  const melu_model *model;
  size_t max_support, max_kept;      /* rows that a user may have, and the most that any keeps */
  const struct melu__plan **adapt;   /* by number of support rows, 0 .. max_support */
  const struct melu__plan **predict; /* (max_kept + 2, N_PIECES): by rows kept, FORMED last; by halvings */
  const struct melu__plan **rank;    /* by rows kept, FORMED last */
  struct melu__scratch scratch;
  real *transposed; /* the weights' transposes, as they were at that version of the model */
  uint64_t transposed_version;
  /* MELU_FACTORS: `adapt` by padded rows, one `rank`, and: */
  const struct melu__plan *items, *profile, *scores, *spread;
  real *rows, *encoding, *pooled; /* of the support set and of a piece; scratch of encoding; pooled rows and m_u */
  /* MELU_ADAPT_ITEMS, as large as any support set so far asked for: MOVED, and the overlaps of support rows. */
  real *moved;
  size_t moved_capacity;
  melu_user fresh; /* a user in the making: an old one is only replaced by a finished one */
};

/* Which plan the user takes, of those by rows kept. */
size_t melu__workspace_row(const melu_workspace *ws, const melu_user *user);

/* Brings the transposes up to date. */
void melu__workspace_refresh(melu_workspace *ws);

#endif
