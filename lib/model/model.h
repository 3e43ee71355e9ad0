/* SPDX-License-Identifier: BSD-3-Clause */
/* Parameters and architecture. */
#ifndef MELU__MODEL_H
#define MELU__MODEL_H

#include <melu.h>

#include "base/slots.h"
#include "model/shape.h"

struct melu__plan_cache; /* tape/plan.h */

struct melu_model {
  const melu_context *ctx;
  melu_schema *schema;
  struct melu_model_options options; /* resolved; .hidden points to `hidden`, .preset to a literal */
  size_t hidden[MELU__MAX_HIDDEN];
  /* Numbers that the fields of an item or a user make. MELU_LAYERS: columns of W1, the item's part, then the user's.
   * MELU_FACTORS: melu__item_cols, whether the item is new, and numbers of numeric fields; or melu__user_cols and
   * numbers. */
  size_t item_width, user_width;
  size_t n_params, n_tables, n_layers; /* in the order of shape.h; layers of MELU_LAYERS */
  int is_sharded;                      /* some table is */
  struct melu__param *params;
  /* MELU_FACTORS: by enum melu__factor_param, the data, and the number among the dense parameters. NULL and UINT32_MAX
   * where there is none. */
  real *factors[MELU__N_FACTOR_PARAMS];
  uint32_t factor_weight[MELU__N_FACTOR_PARAMS];
  uint64_t version;               /* 1 at first, and one more with every change of a parameter */
  real largest;                   /* no number of a parameter is larger */
  struct melu__plan_cache *plans; /* locked inside: a const model may add to it */
};

/* Sets all parameters as the options' seed says: those of a new model, of version 1. */
void melu__model_initialise(melu_model *model);

/* The largest number of all parameters, by looking at them. */
double melu__model_largest(const melu_model *model);

/* A digest (64 bits) of the parameters that all ranks have. */
uint64_t melu__model_hash(const melu_model *model);

/* NULL if there is none of that name. */
struct melu__param *melu__model_find(const melu_model *model, const char *name);

static inline int melu__is_factors(const melu_model *model) {
  return model->options.network == MELU_FACTORS;
}

/* Whether predictions of the model have variances: the ridge tells them. */
static inline int melu__has_variances(const melu_model *model) {
  return melu__is_factors(model) && model->options.rule == MELU_CLOSED_FORM;
}

/* The slot of a row that is stored as number `row`; the number of a row that this rank stores. */
static inline size_t melu__slot_of_row(const melu_model *model, size_t table, const struct melu__share *share,
                                       size_t row) {
  const size_t width = share->own.hi - share->own.lo;
  return model->params[table].is_sharded ? share->own.lo + row % width : row % share->n_slots;
}
static inline size_t melu__stored_row(const melu_model *model, size_t table, const struct melu__share *share,
                                      size_t row) {
  return model->params[table].is_sharded ? melu__share_number(share, row) : row;
}

/* Demands that no table is sharded. Errors: MELU_ESTATE. */
melu_status melu__check_whole(const melu_model *model, melu_error *err);

/* The weights (out, in) of layer l = 0, 1, ...; its bias, (1, out), is behind them. */
static inline struct melu__param *melu__model_weight(const melu_model *model, size_t l) {
  return &model->params[model->n_tables + 2 * l];
}

#endif
