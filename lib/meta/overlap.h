/* SPDX-License-Identifier: BSD-3-Clause */
/* MELU_ADAPT_ITEMS: how much items overlap in the ids that they have. Of one field, A (rows, values) holds 1 / n for
 * each of a row's n ids, as often as it occurs; the overlap of rows with support rows is A A_s'. */
#ifndef MELU__OVERLAP_H
#define MELU__OVERLAP_H

#include "data/dataset.h"
#include "meta/inner.h"

/* Rows of a task: row k is of the item items[positions[k]], or items[k] where `positions` is NULL. The support rows
 * come first. */
struct melu__rated {
  const uint32_t *items, *positions;
};

/* The numbers that the overlaps of n_rows rows with n_support rows take in all fields of ids; 0 if the model does not
 * adapt items. */
size_t melu__overlap_size(const melu_model *model, size_t n_rows, size_t n_support);

/* Computes the overlaps of rows [first, first + n_rows) with the support rows, each (n_rows, n_support), in so much
 * memory, and points slots[0], [1], ... to those of the first, second, ... field of ids. Returns what follows. */
real *melu__overlap(real **slots, const melu_model *model, const melu_dataset *data, const struct melu__rated *rated,
                    size_t first, size_t n_rows, size_t n_support, real *memory);

#endif
