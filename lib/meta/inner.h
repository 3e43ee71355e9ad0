/* SPDX-License-Identifier: BSD-3-Clause */
/* The inner loop of MELU_LAYERS, recorded on a tape: adaptation to one user's support set.
 *
 *     theta_{k+1} = theta_k - a dL(theta_k) / dtheta,   L = mean loss over the support rows  (MeLU, eq. 6)
 *
 * theta is what the model's options name. Or the last layer is fitted in closed form: with H the support rows' hidden
 * features and a column of ones, m = [W, b] of the last layer and P = diag(softplus(precision)),
 *
 *     w = m + (H'H + P)^-1 H' (y - H m)
 *
 * A row of the first layer's input is [item part, user part]; the user part is the same in all rows of a task. So the
 * first layer is kept as two matrices, and the user part enters as one row vector.
 *
 * Two forms of the same mathematics. DIRECT keeps the first layer's fast weights. DUAL uses that the input X of the
 * support rows never changes, so that those weights stay in the span of its rows: with D_k = dL/dZ_k at the first
 * layer's pre-activations Z_k, C_k = sum_{t<k} D_t and K = X X' + 1 (the 1 is the bias),
 *
 *     Z_{k+1} = Z_k - a K D_k,    query: Zq = Xq W' + b - a (Xq X' + 1) C,    W_k = W - a C_k' X
 *
 * and the weights, larger than everything else, are never formed. It is exact, and cheaper when there are fewer support
 * rows than inputs. It is for what the paper adapts, all layers and nothing else, at a fixed rate.
 *
 * Embedding rows that are adapted are never formed either. Of a field, X = A E, A (rows, values) holding 1 / n where a
 * row has one of n ids. A step with G = dL/dX of the support rows leaves E - a A_s' G, so that any rows become
 *
 *     X_{k+1} = X_k - a (A A_s') G
 *
 * and A A_s', how much rows overlap the support rows (overlap.h), is given to the plan. */
#ifndef MELU__INNER_H
#define MELU__INNER_H

#include "model/model.h"
#include "tape/tape.h"
#include "tensor/kernels.h"

enum melu__form { MELU__DIRECT, MELU__DUAL };

/* Slots of a task's plans: X (rows, item_width) of support and query, the user's part (1, user_width), ratings
 * (rows, 1), what the first layer makes of them before any step, the weights. */
enum melu__slot {
  MELU__SLOT_XS,
  MELU__SLOT_XQ,
  MELU__SLOT_XU,
  MELU__SLOT_YS,
  MELU__SLOT_YQ,
  MELU__SLOT_ZS,    /* X W1' of the support rows, (n_support, h) */
  MELU__SLOT_ZQ,    /* of the query rows */
  MELU__SLOT_ROW,   /* xu W1u' + b1, (1, h) */
  MELU__SLOT_KAPPA, /* xu xu' + 1 */
  MELU__SLOT_GRAD_XS,
  MELU__SLOT_GRAD_XQ,
  MELU__SLOT_GRAD_XU,
  MELU__SLOT_GRAD_ZS,
  MELU__SLOT_GRAD_ZQ,
  MELU__SLOT_GRAD_ROW,
  MELU__SLOT_GRAD_KAPPA,
  MELU__SLOT_LOSS,
  MELU__SLOT_SCORES,
  MELU__SLOT_POOLED, /* MELU_FACTORS: sum y_i of the support rows, (1, rank + 1) */
  MELU__SLOT_GRAD_POOLED,
  MELU__SLOT_WQ,      /* MELU_FACTORS: weights of the query rows, (n_query, 1) */
  MELU__SLOT_Z,       /* PREDICT of a catalogue: X W1' of the items, (rows, first layer's width) */
  MELU__SLOT_XT,      /* PREDICT: the transpose of the user's support rows */
  MELU__SLOT_TARGETS, /* ASK: the sum of t't over the target rows t, (rank + 2, rank + 2) */
  MELU__SLOT_WEIGHTS, /* n_weights of them: those of struct melu__weights, then learnt rates or the precision */
  MELU__MAX_WEIGHTS = 4 * (MELU__MAX_HIDDEN + 1) + 3,
  MELU__SLOT_TRANSPOSED = MELU__SLOT_WEIGHTS + MELU__MAX_WEIGHTS, /* of those that are matrices */
  MELU__SLOT_GRADS = MELU__SLOT_TRANSPOSED + MELU__MAX_WEIGHTS,
  MELU__SLOT_BASES = MELU__SLOT_GRADS + MELU__MAX_WEIGHTS, /* what gradients of weights are added to */
  /* MELU_ADAPT_ITEMS. Of each field of ids: A A_s' of support rows, and of query rows. ADAPT: the sum of a G,
   * (n_support, item_width). */
  MELU__SLOT_OVERLAP_S = MELU__SLOT_BASES + MELU__MAX_WEIGHTS,
  MELU__SLOT_OVERLAP_Q = MELU__SLOT_OVERLAP_S + MELU__MAX_ADAPTED_FIELDS,
  MELU__SLOT_MOVED = MELU__SLOT_OVERLAP_Q + MELU__MAX_ADAPTED_FIELDS,
  MELU__N_SLOTS
};

/* The decision layers as nodes: [0] W1's item columns, [1] W1's user columns, [2] b1, [3] W2, [4] b2, ... With
 * MELU_FACTORS the dense parameters in their order. */
struct melu__weights {
  size_t n;
  melu__ref at[MELU__MAX_WEIGHTS];
};

size_t melu__n_weights(const melu_model *model);

/* Whether the model's inner loop has a DUAL form. */
int melu__has_dual(const melu_model *model);

/* Whether its steps are recorded with the last layer folded into the one below it, where they are differentiated. */
int melu__folds(const melu_model *model);

/* The decision layers as matrices: views into the arrays `data` of W1, b1, W2, b2, ..., each laid out as in the model.
 * The two halves of W1 are views of one array. */
void melu__weight_views(struct melu__mat views[MELU__MAX_WEIGHTS], const melu_model *model, real *const *data);

/* The same of the model's own. */
void melu__model_views(struct melu__mat views[MELU__MAX_WEIGHTS], const melu_model *model);

/* Their addresses in consecutive slots. */
void melu__weight_slots(real **slots, const melu_model *model, real *const *data);

/* Shape of the i-th of the weights. */
void melu__weight_shape(const melu_model *model, size_t i, size_t *rows, size_t *cols);

/* One task being recorded. */
struct melu__inner {
  struct melu__tape *tape;
  const melu_model *model;
  enum melu__form form;
  size_t n_support;
  int folds;
  melu__ref xs, xu, ys;        /* inputs */
  melu__ref counts;            /* (n_support, 1): how often each row counts; MELU__NO_NODE: once */
  melu__ref zs;                /* the input ZS, if it began from that */
  melu__ref xs_k, xu_k;        /* DUAL: X in the second factor of K: a constant to the outer loop in first order */
  struct melu__weights w;      /* fast weights after the steps so far; DUAL: the first layer's are the initial ones */
  struct melu__weights learnt; /* inputs: learnt rates, or the precision of the closed form */
  melu__ref user_row;          /* xu W1u' + b1 */
  melu__ref xs_now, xu_now;    /* DIRECT: as far as they are adapted */
  melu__ref moved;             /* MELU_ADAPT_ITEMS: the sum of a G; MELU__NO_NODE before the first step */
  melu__ref z;                 /* DUAL: Z_k of the support rows */
  melu__ref k, kappa;          /* DUAL: K, and the part of it that is the same for all rows */
  melu__ref c;                 /* DUAL: C_k; MELU__NO_NODE before the first step */
};

/* Begins a task with n_support rows; inputs and weights are the slots above. */
void melu__inner_begin(struct melu__inner *in, struct melu__tape *tape, const melu_model *model, enum melu__form form,
                       size_t n_support);

/* The same in DUAL form from ZS, ROW and KAPPA instead of XU and the first layer's weights: what depends on these is
 * the same for all tasks and is computed for many at once. */
void melu__inner_begin_from_z(struct melu__inner *in, struct melu__tape *tape, const melu_model *model,
                              size_t n_support);

/* The loss of the support set that steps descend, before any step. n_support must not be 0. */
melu__ref melu__inner_loss(struct melu__inner *in);

/* MELU_ADAPT_ITEMS: how n_rows rows of X move when table rows do as the support rows say: field by field, their overlap
 * (input slots from `overlap` on) times `change`. */
melu__ref melu__inner_spread(struct melu__inner *in, uint32_t overlap, size_t n_rows, melu__ref change);

/* What the inner loop may change, as nodes in wrt[]; returns how many. */
size_t melu__inner_adapted(struct melu__inner *in, melu__ref wrt[MELU__MAX_WEIGHTS]);

/* Records one inner step and returns the support loss before it. n_support must not be 0. */
melu__ref melu__inner_step(struct melu__inner *in);

/* Records the adaptation that the model's options say; nothing without support rows. `after`, if not NULL, is called
 * after each step. */
void melu__inner_adapt(struct melu__inner *in, void (*after)(void *arg, struct melu__inner *in), void *arg);

/* Predictions (n_rows, 1) for rows x (n_rows, item_width) of the same user with the fast weights so far; with
 * MELU_ADAPT_ITEMS for the query rows, those of OVERLAP_Q. */
melu__ref melu__inner_predict(struct melu__inner *in, melu__ref x, size_t n_rows);

/* The same in DUAL form, given z (n_rows, h) = x W1'. */
melu__ref melu__inner_predict_from_z(struct melu__inner *in, melu__ref x, melu__ref z, size_t n_rows);

/* xu xu' + 1 of each row of xu (n, user_width): (n, 1). In first order one factor is a constant. */
melu__ref melu__inner_kappas(struct melu__tape *tape, const melu_model *model, melu__ref xu);

/* The fast weights so far as nodes, the first layer's included; and xu W1u' + b1 with them, which is all that the
 * user's part of the first layer does. */
struct melu__weights melu__inner_weights(struct melu__inner *in);
melu__ref melu__inner_user_row(struct melu__inner *in);

/* Mean squared error of predictions (n, 1) against ratings (n, 1), n > 0; the mean of any loss. */
melu__ref melu__squared_error(struct melu__tape *tape, melu__ref prediction, melu__ref rating, size_t n);
melu__ref melu__mean_loss(struct melu__tape *tape, melu_loss loss, melu__ref prediction, melu__ref rating, size_t n);

/* log(1 + exp(x)) */
melu__ref melu__softplus(struct melu__tape *tape, melu__ref x);

/* From the first layer's pre-activations to the predictions. */
melu__ref melu__upper_layers(struct melu__tape *tape, const struct melu__weights *w, melu__ref z);

#endif
