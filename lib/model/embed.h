/* SPDX-License-Identifier: BSD-3-Clause */
/* From the fields of a user or an item to its part of the network's input, and back for gradients. */
#ifndef MELU__EMBED_H
#define MELU__EMBED_H

#include "data/dataset.h"
#include "model/model.h"

/* Writes the input row of one user or item: its fields side by side, the mean of table rows for ids (zeros for none,
 * the last row for an id that is not in the vocabulary), (x - shift) scale for numbers (zeros if missing). `row` has
 * the owner's width. `values` must be valid for the schema.
 *
 * With MELU_FACTORS the fields of ids are summed up, each as the sum of its rows over the root of their count, and the
 * numbers follow. */
void melu__embed_values(const melu_model *model, melu_owner owner, const struct melu_value *values, real *row);
/* The same of a user whose profile may be NULL: all missing. */
void melu__embed_profile(const melu_model *model, const struct melu_value *profile, real *row);
void melu__embed(const melu_model *model, const melu_dataset *data, melu_owner owner, uint32_t entity, real *row);

/* The same for n users or items: row i of `rows` is that of entities[i]. */
void melu__embed_many(const melu_model *model, const melu_dataset *data, melu_owner owner, const uint32_t *entities,
                      size_t n, real *rows);

/* Where the tables' columns are in an input row. */
struct melu__table_use {
  melu_owner owner;
  size_t column;    /* the field's index among the owner's */
  size_t first_col; /* in the owner's part of the input */
};

/* Of the model's table with that number. */
struct melu__table_use melu__embed_use(const melu_model *model, size_t table);

#endif
