/* SPDX-License-Identifier: BSD-3-Clause */
/* Parameters and architecture. */
#ifndef MELU__MODEL_H
#define MELU__MODEL_H

#include <melu.h>

#include "data/schema.h"
#include "tensor/real.h"

#define MELU__MAX_HIDDEN 8
#define MELU__MAX_STEPS 64

struct melu__param {
  char name[MELU__MAX_NAME + 3]; /* "E.<field>", "W1", "b1", ... */
  size_t rows, cols;             /* a bias is (1, width) */
  int is_table;
  real *data; /* (rows, cols); NULL if it is only described */
};

struct melu__plan_cache; /* tape/plan.h */

struct melu_model {
  const melu_context *ctx;
  melu_schema *schema;
  struct melu_model_options options; /* resolved; .hidden points to `hidden`, .preset to a literal */
  size_t hidden[MELU__MAX_HIDDEN];
  size_t item_width, user_width; /* columns of W1: the item's part, then the user's */
  /* First the tables, item fields before user fields, each in schema order; then W1, b1, W2, b2, ... */
  size_t n_params, n_tables, n_layers;
  struct melu__param *params;
  uint64_t version;               /* 1 at first, and one more with every change of a parameter */
  real largest;                   /* no number of a parameter is larger */
  struct melu__plan_cache *plans; /* locked inside: a const model may add to it */
};

/* What a model of this schema and these options consists of, without making it: its number of parameters, and of
 * floats in all of them (SIZE_MAX if that does not fit). For a reader that wants to know before it allocates. */
melu_status melu__model_measure(size_t *n_params, size_t *n_numbers, const melu_schema *schema,
                                const struct melu_model_options *options, melu_error *err);

/* Describes the parameters of a model of this schema and these options, which melu__model_measure has found good and
 * counted. `params` receives so many of them, in the order of the model, without data. */
void melu__model_describe(struct melu__param *params, const melu_schema *schema,
                          const struct melu_model_options *options);

/* The largest number of all parameters, by looking at them. */
double melu__model_largest(const melu_model *model);

/* NULL if there is none of that name. */
struct melu__param *melu__model_find(const melu_model *model, const char *name);

/* The parameters of layer l = 0, 1, ...: weights (out, in) and bias (1, out). */
static inline struct melu__param *melu__model_weight(const melu_model *model, size_t l) {
  return &model->params[model->n_tables + 2 * l];
}
static inline struct melu__param *melu__model_bias(const melu_model *model, size_t l) {
  return &model->params[model->n_tables + 2 * l + 1];
}

#endif
