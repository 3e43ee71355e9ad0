/* SPDX-License-Identifier: BSD-3-Clause */
/* Users or items as tensors of a file: docs/file-format.md, "Shard folders". */
#ifndef MELU__TABLE_TENSORS_H
#define MELU__TABLE_TENSORS_H

#include "data/column.h"
#include "io/safetensors.h"

/* --------------------------------------------------------------------------------------------------- writing */

struct melu__tensor_name {
  char text[80];
};

/* A table as tensors, which lie in the table's memory or here. */
struct melu__table_tensors {
  const struct melu_allocator *alloc;
  struct melu__tensor *at; /* room for those of the table, and the caller's own behind them */
  size_t n;
  struct melu__tensor_name *names;
  uint64_t *ids;
};

/* How many tensors a table of so many columns has. */
static inline size_t melu__n_table_tensors(size_t n_columns) {
  return 1 + 2 * n_columns;
}

/* Describes a table, which is borrowed, as the owner's, with room for n_more tensors. 0 if there is no memory; there is
 * something to free all the same. */
int melu__table_tensors_make(struct melu__table_tensors *t, const struct melu_allocator *a,
                             const struct melu__table *table, melu_owner owner, size_t n_more);
void melu__table_tensors_free(struct melu__table_tensors *t);

/* --------------------------------------------------------------------------------------------------- reading */

/* Reads the host's ids of n users or items into an array of its own: *ids, NULL on error. Errors: MELU_EFORMAT,
 * MELU_ENOMEM. */
melu_status melu__table_ids_load(uint64_t **ids, const struct melu__safetensors *file, melu_owner owner, size_t n,
                                 melu_error *err);

/* Makes the table of n users or items of the schema, which is borrowed, with these ids, of which no two may be the
 * same. All is checked before the ids are hashed, which takes many times their memory. Leaves a table to free, whatever
 * it returns. Errors: MELU_EFORMAT, MELU_ERANGE, MELU_EINVAL, MELU_ENOMEM. */
melu_status melu__table_load(struct melu__table *table, const struct melu__safetensors *file, const melu_schema *schema,
                             melu_owner owner, const uint64_t *ids, size_t n, melu_error *err);

/* Reads offsets into a list of *n_all: n + 1 numbers, of which the first is 0 and none is below the one before. `name`
 * is the tensor's. *offsets is NULL on error. Errors: MELU_EFORMAT, MELU_ENOMEM. */
melu_status melu__offsets_load(uint32_t **offsets, size_t *n_all, const struct melu__safetensors *file,
                               const char *name, size_t n, melu_error *err);

#endif
