/* SPDX-License-Identifier: BSD-3-Clause */
/* An adapted user, and the scratch that adapting and predicting take. */
#ifndef MELU__USER_H
#define MELU__USER_H

#include "meta/task.h"
#include "serve/own_rows.h"
#include "serve/support.h"

/* What an adapted user differs from the model in: all that predictions take beside it. */
struct melu_user {
  const melu_model *model;
  size_t n_support; /* rows that are kept, or MELU__FORMED */
  real *data;       /* in the order of melu__user_parts */
  size_t n;
  struct melu__own_rows own; /* MELU_ADAPT_ITEMS */
  struct melu__support support;
  uint64_t version; /* of the model, to which she was adapted */
  /* MELU_FACTORS: the sum of her items' y, and the rows of her first n_rows ratings, as that version encoded them. */
  real *encoded;
  size_t n_rows, encoded_capacity;
};

/* What there is to adapt to. The first n_known items are rows of the user's already. */
struct melu__told {
  const struct melu_value *profile; /* NULL: all missing */
  const uint32_t *items;
  const float *ratings;
  size_t n, n_known;
};

/* Adapts the user to arguments that were checked; what she remembers stays. Errors: MELU_ENOMEM
 * (MELU_ADAPT_ITEMS), MELU_EDIVERGED; she is then as before. */
melu_status melu__adapt_user(melu_user *user, melu_workspace *ws, const melu_dataset *data,
                             const struct melu__told *told, melu_error *err);

/* The same; MELU_FACTORS keep the rows that were encoded. */
melu_status melu__adapt_and_keep(melu_user *user, melu_workspace *ws, const melu_dataset *data,
                                 const struct melu__told *told, melu_error *err);

/* Makes the user the one in the making, but for what she remembers. Cannot fail: the memory for a user's own rows
 * changes hands. */
void melu__user_replace(melu_user *user, melu_user *fresh);

static inline int melu__adapts_items(const melu_model *model) {
  return (model->options.adapt & MELU_ADAPT_ITEMS) != 0;
}

/* How many of the numbers in `data` say something: the first layer's place may be larger. */
size_t melu__user_size(const melu_user *user);

int melu__user_is_finite(const melu_user *user);

/* Allocates what a user of the model differs from it in. Returns 0 if there is no memory; what was allocated is then to
 * be freed all the same. */
int melu__user_init(melu_user *user, const melu_model *model);
void melu__user_destroy(melu_user *user);

/* Whether the model can read these items of a data set. Errors: MELU_ESTATE, MELU_ESCHEMA, MELU_ERANGE. */
melu_status melu__check_readable(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n,
                                 melu_error *err);

/* Errors: MELU_ELIMIT (more ratings than the workspace is for). */
melu_status melu__check_count(const melu_workspace *ws, size_t n, melu_error *err);

/* What adapt, predict and so on check alike: handles that belong together, items that exist. */
melu_status melu__check_serving(const melu_model *model, const melu_user *user, const melu_workspace *ws,
                                const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err);

/* Whether these are items of a frozen data set that a catalogue of the model can rank. Errors: MELU_EINVAL (the model
 * adapts items), MELU_ESTATE, MELU_ESCHEMA, MELU_ERANGE. */
melu_status melu__check_items(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n,
                              melu_error *err);

/* Where a user's matrices are, by number of the weights (struct melu__weights): [0] C or the formed W1', [1] X' or
 * nothing, [2] xu W1u' + b1 with its fast weights: what the user adds to every row; [3] ... upper layers. With
 * MELU_FACTORS [0] w and [1] F'F + P. */
void melu__user_parts(real *parts[MELU__MAX_WEIGHTS], const melu_user *user);

/* What a score means on the scale of the ratings, not clipped: itself, or with MELU_LOGISTIC the chance of a click. */
double melu__expected_rating(const melu_model *model, float score);

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
  real *gathered;                          /* a block of a catalogue's rows: x, then z */
  struct melu__ranking *ranking;           /* top.c: too large for a small stack */
  uint32_t *positions;                     /* (max_support) of a user's items */
  unsigned char digest[MELU_DIGEST_BYTES]; /* of that version of the model; 0: not computed yet */
  uint64_t digest_version;
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
