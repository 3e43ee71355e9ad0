/* SPDX-License-Identifier: BSD-3-Clause */
#include "data/column.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"

/* ------------------------------------------------------------------------------------------------------ checking */

/* Where in the host's argument a check stands. */
struct place {
  melu_owner owner;
  const uint64_t *id;
  const struct melu__field *field;
  size_t index;
};

static melu_status refuse(const struct place *place, melu_error *err, melu_status status, const char *format, ...)
    MELU__PRINTF(4, 5);

static melu_status refuse(const struct place *place, melu_error *err, melu_status status, const char *format, ...) {
  if (!err) return status;
  char reason[112], number[24] = "";
  va_list args;
  va_start(args, format);
  vsnprintf(reason, sizeof reason, format, args);
  va_end(args);
  if (place->id) snprintf(number, sizeof number, " %llu", (unsigned long long)*place->id);
  return melu__fail_at(err, status, place->index, "%s%s: field \"%s\": %s", place->owner == MELU_USER ? "user" : "item",
                       number, place->field->name, reason);
}

static melu_status check_ids(const struct place *place, const struct melu_value *value, melu_error *err) {
  const struct melu__field *field = place->field;
  if (value->n_numbers) return refuse(place, err, MELU_EINVAL, "%zu numbers for a field of ids", value->n_numbers);
  if (value->n_ids && !value->ids) return refuse(place, err, MELU_EINVAL, "ids is NULL, but n_ids is not 0");
  if (!melu__kinds[field->kind].is_list && value->n_ids > 1)
    return refuse(place, err, MELU_EINVAL, "%zu ids are more than one", value->n_ids);
  const size_t n = melu__field_n_ids(field);
  for (size_t i = 0; i < value->n_ids; i++) {
    const uint32_t id = value->ids[i];
    if (id >= n && id != MELU_UNKNOWN)
      return refuse(place, err, MELU_ERANGE, "id %u is not below %zu%s", (unsigned)id, n,
                    field->learns ? ", the number of texts so far" : "");
  }
  return MELU_OK;
}

static melu_status check_numbers(const struct place *place, const struct melu_value *value, melu_error *err) {
  const struct melu__field *field = place->field;
  if (value->n_ids) return refuse(place, err, MELU_EINVAL, "%zu ids for a field of numbers", value->n_ids);
  if (!value->n_numbers) return MELU_OK;
  if (!value->numbers) return refuse(place, err, MELU_EINVAL, "numbers is NULL, but n_numbers is not 0");
  if (value->n_numbers != field->width)
    return refuse(place, err, MELU_EINVAL, "%zu numbers instead of %zu", value->n_numbers, field->width);
  for (size_t i = 0; i < field->width; i++) {
    const float number = value->numbers[i];
    if (!isfinite(number)) return refuse(place, err, MELU_ERANGE, "number %zu is not finite", i);
    if (!(fabs(melu__field_input(field, number)) <= FLT_MAX))
      return refuse(place, err, MELU_ERANGE, "number %zu is %s, which shift and scale make too large", i,
                    melu__number_show((double)number, 6).text);
  }
  return MELU_OK;
}

melu_status melu__values_check(const melu_schema *schema, melu_owner owner, const uint64_t *id,
                               const struct melu_value *values, melu_error *err) {
  if (!values) return MELU_OK;
  struct place place = {.owner = owner, .id = id};
  for (size_t i = 0; i < schema->n_fields; i++) {
    place.field = &schema->fields[i];
    if (place.field->owner != owner) continue;
    const struct melu_value *value = &values[place.index];
    const melu_status status =
        melu__has_numbers(place.field) ? check_numbers(&place, value, err) : check_ids(&place, value, err);
    if (status) return status;
    place.index++;
  }
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------- columns */

static size_t count_cells(const struct melu__column *column, const struct melu_value *value) {
  return melu__has_numbers(column->field) ? value->n_numbers != 0 : value->n_ids;
}

/* Room for one more entity, the n-th, with n_cells. */
static melu_status column_reserve(struct melu__column *column, const struct melu_allocator *a, size_t n, size_t n_cells,
                                  melu_error *err) {
  const size_t used = column->offsets[n];
  if (n_cells > MELU__MAX_ENTITIES - used)
    return melu__fail(err, MELU_ELIMIT, "field \"%s\": more than 2^32 - 2 ids in all", column->field->name);
  if (!melu__grow(a, &column->offsets, &column->offsets_capacity, n + 1, n + 2, sizeof *column->offsets))
    return melu__fail_memory(err);
  const int grown =
      melu__has_numbers(column->field)
          ? melu__grow(a, &column->numbers, &column->cells_capacity, used, used + n_cells,
                       melu__size_mul(column->field->width, sizeof *column->numbers))
          : melu__grow(a, &column->ids, &column->cells_capacity, used, used + n_cells, sizeof *column->ids);
  return grown ? MELU_OK : melu__fail_memory(err);
}

static void column_append(struct melu__column *column, size_t n, const struct melu_value *value) {
  const size_t used = column->offsets[n], n_cells = count_cells(column, value);
  const size_t width = column->field->width;
  if (n_cells && melu__has_numbers(column->field))
    memcpy(column->numbers + used * width, value->numbers, width * sizeof *column->numbers);
  else if (n_cells)
    memcpy(column->ids + used, value->ids, n_cells * sizeof *column->ids);
  column->offsets[n + 1] = (uint32_t)(used + n_cells);
}

static int has_unknown(const struct melu__column *column, size_t n_ids) {
  for (size_t i = 0; i < n_ids; i++) {
    if (column->ids[i] == MELU_UNKNOWN) return 1;
  }
  return 0;
}

static int has_long_list(const struct melu__column *column, size_t n) {
  for (size_t e = 0; e < n; e++) {
    if (column->offsets[e + 1] - column->offsets[e] > MELU__SHORT_LIST) return 1;
  }
  return 0;
}

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void sort_lists(struct melu__column *column, size_t n) {
  memcpy(column->sorted, column->ids, column->offsets[n] * sizeof *column->sorted);
  for (size_t e = 0; e < n; e++) {
    const size_t first = column->offsets[e], n_ids = column->offsets[e + 1] - first;
    if (n_ids > 1) qsort(column->sorted + first, n_ids, sizeof *column->sorted, ascending);
  }
}

/* -------------------------------------------------------------------------------------------------------- tables */

int melu__table_init(struct melu__table *table, const struct melu_allocator *a, const melu_schema *schema,
                     melu_owner owner) {
  memset(table, 0, sizeof *table);
  const size_t n = melu_schema_n_fields(schema, owner);
  table->columns = melu__calloc(a, n, sizeof *table->columns);
  if (!table->columns) return 0;
  table->n_columns = n;
  table->keys = melu__vocab_new(a);
  if (!table->keys) return 0;
  for (size_t i = 0; i < n; i++) {
    struct melu__column *column = &table->columns[i];
    column->field = melu__schema_owner_field(schema, owner, i);
    if (!melu__grow(a, &column->offsets, &column->offsets_capacity, 0, 1, sizeof *column->offsets)) return 0;
    column->offsets[0] = 0;
  }
  return 1;
}

void melu__table_free(struct melu__table *table, const struct melu_allocator *a) {
  for (size_t i = 0; i < table->n_columns; i++) {
    melu__free(a, table->columns[i].offsets);
    melu__free(a, table->columns[i].ids);
    melu__free(a, table->columns[i].given);
    melu__free(a, table->columns[i].sorted);
    melu__free(a, table->columns[i].numbers);
  }
  melu__free(a, table->columns);
  melu__vocab_free(table->keys);
}

melu_status melu__table_add(struct melu__table *table, const struct melu_allocator *a, uint64_t id,
                            const struct melu_value *values, melu_error *err) {
  static const struct melu_value missing;
  const size_t n = table->n;
  if (n >= MELU__MAX_ENTITIES) return melu__fail(err, MELU_ELIMIT, "a data set has at most 2^32 - 2 users or items");
  for (size_t i = 0; i < table->n_columns; i++) {
    struct melu__column *column = &table->columns[i];
    const melu_status status = column_reserve(column, a, n, count_cells(column, values ? &values[i] : &missing), err);
    if (status) return status;
  }
  if (melu__vocab_add(table->keys, &id, sizeof id, NULL) == MELU__NO_INDEX) return melu__fail_memory(err);
  for (size_t i = 0; i < table->n_columns; i++) column_append(&table->columns[i], n, values ? &values[i] : &missing);
  table->n = n + 1;
  return MELU_OK;
}

uint32_t melu__table_find(const struct melu__table *table, uint64_t id) {
  return melu__vocab_find(table->keys, &id, sizeof id);
}

uint64_t melu__table_id(const struct melu__table *table, uint32_t position) {
  uint64_t id;
  memcpy(&id, melu__vocab_key(table->keys, position, NULL), sizeof id);
  return id;
}

void melu__table_values(struct melu_value *values, const struct melu__table *table, uint32_t position) {
  for (size_t i = 0; i < table->n_columns; i++) {
    const struct melu__column *column = &table->columns[i];
    values[i] = (struct melu_value){0};
    if (melu__has_numbers(column->field)) {
      values[i].numbers = melu__column_numbers(column, position);
      values[i].n_numbers = values[i].numbers ? column->field->width : 0;
    } else {
      values[i].ids = melu__column_ids(column, position, &values[i].n_ids);
      if (values[i].ids && column->given) values[i].ids = column->given + column->offsets[position];
    }
  }
}

void melu__table_truncate(struct melu__table *table, size_t n) {
  melu__vocab_truncate(table->keys, n);
  table->n = n;
}

int melu__table_prepare(struct melu__table *table, const struct melu_allocator *a) {
  for (size_t i = 0; i < table->n_columns; i++) {
    struct melu__column *column = &table->columns[i];
    const size_t n_ids = column->ids ? column->offsets[table->n] : 0;
    if (n_ids && has_long_list(column, table->n)) {
      column->sorted = melu__alloc(a, n_ids, sizeof *column->sorted);
      if (!column->sorted) return 0;
    }
    if (!has_unknown(column, n_ids)) continue;
    column->given = melu__alloc(a, n_ids, sizeof *column->given);
    if (!column->given) return 0;
    memcpy(column->given, column->ids, n_ids * sizeof *column->given);
  }
  return 1;
}

void melu__table_unprepare(struct melu__table *table, const struct melu_allocator *a) {
  for (size_t i = 0; i < table->n_columns; i++) {
    melu__free(a, table->columns[i].given);
    melu__free(a, table->columns[i].sorted);
    table->columns[i].given = table->columns[i].sorted = NULL;
  }
}

void melu__table_finish(struct melu__table *table) {
  for (size_t i = 0; i < table->n_columns; i++) {
    struct melu__column *column = &table->columns[i];
    const size_t n_ids = column->given ? column->offsets[table->n] : 0;
    for (size_t c = 0; c < n_ids; c++) {
      if (column->ids[c] == MELU_UNKNOWN) column->ids[c] = (uint32_t)column->field->n_values;
    }
    if (column->sorted) sort_lists(column, table->n);
  }
}
