/* SPDX-License-Identifier: BSD-3-Clause */
/* The values of all users, or of all items, field by field. */
#ifndef MELU__COLUMN_H
#define MELU__COLUMN_H

#include "data/schema.h"

#define MELU__MAX_ENTITIES 0xfffffffeu /* users, items, and the ids or numbers' vectors in one column */

/* Of longer lists nothing may be done that takes time like the square of their length. */
#define MELU__SHORT_LIST 64

/* One field of all users, or of all items: a list of cells for each, in CSR. Those of entity e are the cells
 * offsets[e] .. offsets[e + 1] - 1. A cell is an id, or the `width` numbers of a field of numbers, which has one
 * cell, or none where the value is missing. */
struct melu__column {
  const struct melu__field *field; /* in the data set's schema */
  uint32_t *offsets;               /* n + 1 */
  uint32_t *ids;                   /* ids as the host gave them; once frozen, rows of the embedding table, i.e. n_values
                                      for MELU_UNKNOWN. NULL before the first one, and in a column of numbers */
  uint32_t *given;                 /* once frozen, in a column with unknown ids: the ids as given; else NULL */
  uint32_t *sorted; /* once frozen, in a column with a list of more than MELU__SHORT_LIST ids: `ids`, those
                       of each entity in ascending order; else NULL */
  float *numbers;   /* as given, before shift and scale. NULL before the first, and in a column of ids */
  size_t offsets_capacity, cells_capacity;
};

/* All users, or all items. */
struct melu__table {
  size_t n;
  size_t n_columns;
  struct melu__column *columns; /* in the schema's order of that owner */
  struct melu__vocab *keys;     /* host's ids, 8 bytes each: position = number of the key */
};

/* The table rows of entity e in a column of ids of a frozen data set; *n may be 0. */
static inline const uint32_t *melu__column_ids(const struct melu__column *column, size_t e, size_t *n) {
  *n = column->offsets[e + 1] - column->offsets[e];
  return *n ? column->ids + column->offsets[e] : NULL;
}

/* The `width` numbers of entity e as the host gave them; NULL if the value is missing. */
static inline const float *melu__column_numbers(const struct melu__column *column, size_t e) {
  if (column->offsets[e] == column->offsets[e + 1]) return NULL;
  return column->numbers + (size_t)column->offsets[e] * column->field->width;
}

/* By what the sum of the rows of a cell's n ids is divided. */
static inline size_t melu__cell_divisor(const struct melu__field *field, size_t n) {
  (void)field;
  return n;
}

/* What enters the network for a number; a missing one enters as 0. Fits in a float when melu__values_check passed. */
static inline double melu__field_input(const struct melu__field *field, float number) {
  return ((double)number - field->shift) * field->scale;
}

/* Checks one value per field of the owner (`values` NULL: all missing) against the schema. Messages begin with
 * `user 17: field "genre": `, without the number when `id` is NULL; `index` is the field's, among the owner's.
 * Errors: MELU_EINVAL, MELU_ERANGE. */
melu_status melu__values_check(const melu_schema *schema, melu_owner owner, const uint64_t *id,
                               const struct melu_value *values, melu_error *err);

/* Makes an empty table for the owner's fields of `schema`, which is borrowed and must not get more fields. 0 if there
 * is no memory; the table is then to be freed all the same. */
int melu__table_init(struct melu__table *table, const struct melu_allocator *a, const melu_schema *schema,
                     melu_owner owner);
void melu__table_free(struct melu__table *table, const struct melu_allocator *a);

/* Appends an entity whose values were checked and whose id is new. Errors: MELU_ELIMIT, MELU_ENOMEM. */
melu_status melu__table_add(struct melu__table *table, const struct melu_allocator *a, uint64_t id,
                            const struct melu_value *values, melu_error *err);

/* The position of a host's id, MELU__NO_INDEX if there is none; the id of a position below n. */
uint32_t melu__table_find(const struct melu__table *table, uint64_t id);
uint64_t melu__table_id(const struct melu__table *table, uint32_t position);

/* Writes the values of the entity as they were given, one per column. */
void melu__table_values(struct melu_value *values, const struct melu__table *table, uint32_t position);

/* Removes the entities from position n on. Cannot fail. */
void melu__table_truncate(struct melu__table *table, size_t n);

/* Freezing in two steps, so that it can fail as a whole: prepare makes `given` and `sorted` where they are needed (0 if
 * there is no memory); then either unprepare takes them away again, or finish, after the vocabularies were closed,
 * turns `ids` into table rows. */
int melu__table_prepare(struct melu__table *table, const struct melu_allocator *a);
void melu__table_unprepare(struct melu__table *table, const struct melu_allocator *a);
void melu__table_finish(struct melu__table *table);

#endif
