/* SPDX-License-Identifier: BSD-3-Clause */
/* Which parameters a model of a schema and options has: first the tables, item fields before user fields, each in
 * schema order; then the dense ones. */
#ifndef MELU__SHAPE_H
#define MELU__SHAPE_H

#include "data/schema.h"
#include "model/options.h"
#include "tensor/real.h"

struct melu__param {
  char name[MELU__MAX_NAME + 8]; /* "E.<field>", "W1", "b1", ... */
  size_t rows, cols;             /* a bias is (1, width) */
  int is_table;
  int is_sharded;  /* `rows` are those of this rank's slots, in the order of all rows */
  size_t all_rows; /* of all ranks */
  real *data;      /* (rows, cols); NULL if it is only described */
};

/* The dense parameters of MELU_FACTORS, in this order where a model has them. */
enum melu__factor_param {
  MELU__F_SCALE,
  MELU__F_NOISE,
  MELU__F_NAMES,
  MELU__F_NEW,
  MELU__F_PRIOR,
  MELU__F_POOL,
  MELU__F_POOL_RATED,
  MELU__F_SHRINK,
  MELU__F_PRECISION,
  MELU__F_RATE,
  MELU__F_H1,
  MELU__F_H1_BIAS,
  MELU__F_H2,
  MELU__F_N_ITEM,
  MELU__F_N_USER,
  MELU__N_FACTOR_PARAMS
};

/* Columns of a user's row and vector, which go with an item's [phi, 1, is new]. */
static inline size_t melu__user_cols(const struct melu_model_options *o) {
  return o->rank + 2;
}
/* Columns of an item's row: phi (rank), o, y (melu__user_cols). */
static inline size_t melu__item_cols(const struct melu_model_options *o) {
  return o->rank + 1 + melu__user_cols(o);
}

/* How many numbers a user or an item has, in all its numeric fields. */
size_t melu__schema_numbers(const melu_schema *schema, melu_owner owner);

/* How many tables items have: those are the first ones. */
size_t melu__n_item_tables(const melu_schema *schema);

/* The field of the table with that number; NULL beyond the last. */
const struct melu__field *melu__table_field(const melu_schema *schema, size_t table);

/* What a model of this schema and these options consists of, without making it: its number of parameters, and of
 * floats in all of them (SIZE_MAX if that does not fit). For a reader that wants to know before it allocates. */
melu_status melu__model_measure(size_t *n_params, size_t *n_numbers, const melu_schema *schema,
                                const struct melu_model_options *options, melu_error *err);

/* Describes the parameters of a model of this schema and these options, which melu__model_measure has found good and
 * counted. `params` receives so many of them, in the order of the model, without data. */
void melu__model_describe(struct melu__param *params, const melu_schema *schema,
                          const struct melu_model_options *options);

#endif
