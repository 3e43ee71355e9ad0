/* SPDX-License-Identifier: BSD-3-Clause */
/* MELU_FACTORS, recorded on a tape: items' vectors, and a user's vector that is fitted to her support set. The
 * equations are at melu_model_new in melu.h. */
#ifndef MELU__FACTORS_H
#define MELU__FACTORS_H

#include "base/checked.h"
#include "meta/inner.h"

/* Rows of a support or query set are padded to a multiple of this with rows of zeros, so that there are few shapes. */
enum { MELU__FACTOR_ROWS = 8 };
static inline size_t melu__padded(size_t n) {
  return melu__size_align(n, MELU__FACTOR_ROWS);
}

/* How much more a unit of the squared error's curvature weighs than one of the loss's. */
static inline double melu__curvature(const melu_model *model) {
  return model->options.loss == MELU_LOGISTIC ? 4 : 1;
}

/* An encoded item is [phi (rank), o, y (melu__user_cols), is new]. */
size_t melu__encoded_cols(const melu_model *model);

/* A row of a task is [phi, 1, is new, o], so many numbers apart; the 1 is a 0 in a row of padding. o is at
 * melu__user_cols. */
size_t melu__task_row(const melu_model *model);

void melu__set_task_row(const melu_model *model, const real *encoded, real *row);

/* Adds an encoded item's y to the sum of a support set's, (1, melu__user_cols). */
void melu__add_to_pool(const melu_model *model, const real *encoded, real *pooled);

/* The dense parameters as inputs of a recording, where the model has them. */
struct melu__factor_inputs {
  melu__ref at[MELU__N_FACTOR_PARAMS];
};
struct melu__factor_inputs melu__factor_inputs(struct melu__tape *t, const melu_model *model);

/* Of rows x (n, item_width), the sums of an item's fields: the encoded items. */
melu__ref melu__encode_items(struct melu__tape *t, const melu_model *model, const struct melu__factor_inputs *params,
                             melu__ref x);

/* Of rows xu (n, user_width): m_u (n, melu__user_cols). */
melu__ref melu__encode_users(struct melu__tape *t, const melu_model *model, const struct melu__factor_inputs *params,
                             melu__ref xu);

/* One task being recorded. */
struct melu__factors {
  struct melu__tape *tape;
  const melu_model *model;
  size_t n_support;
  struct melu__factor_inputs params;
  melu__ref f, o, y;   /* inputs, of the support rows: [phi, 1, is new], o, ratings */
  melu__ref counts;    /* (n_support, 1): how often each row counts; MELU__NO_NODE: once */
  melu__ref pooled;    /* input: sum y_i */
  melu__ref m_user;    /* input: m_u */
  melu__ref precision; /* (1, melu__user_cols) */
  melu__ref m;         /* the prior's mean, likewise */
  melu__ref w;         /* the user's vector so far */
};

/* Begins a task: w is the prior's mean. */
void melu__factors_begin(struct melu__factors *f, struct melu__tape *tape, const melu_model *model, size_t n_support,
                         melu__ref counts);

/* Records one inner step, n_support not being 0. */
void melu__factors_step(struct melu__factors *f);

/* F'F + P; with MELU_LOGISTIC F'F + 4 P. */
melu__ref melu__factors_gram(struct melu__factors *f);

/* Records the adaptation that the model's options say. `after`, if not NULL, is called after each inner step. */
void melu__factors_adapt(struct melu__factors *f, void (*after)(void *arg, struct melu__factors *f), void *arg);

/* o + F w for rows f (n, melu__user_cols), o (n, 1). */
melu__ref melu__factors_predict(struct melu__factors *f, melu__ref rows, melu__ref offsets);

#endif
