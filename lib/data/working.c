/* SPDX-License-Identifier: BSD-3-Clause */
#include "data/working.h"

#include <string.h>

#include "base/error.h"

int melu__working_init(struct melu__working *w, const melu_dataset *items) {
  *w = (struct melu__working){0};
  if (melu__dataset_beside(&w->data, items, NULL)) return 0;
  w->data->frozen = 1;
  if (!melu__grow(&w->data->ctx->allocator, &w->data->user_start, &w->start_capacity, 0, 1, sizeof(size_t))) return 0;
  w->data->user_start[0] = 0;
  return 1;
}

void melu__working_free(struct melu__working *w) {
  melu_dataset_free(w->data);
}

void melu__working_clear(struct melu__working *w) {
  melu__table_truncate(&w->data->tables[MELU_USER], 0);
  w->data->n_ratings = 0;
}

/* The values of a frozen set's user, ids being rows of tables. */
static void rows_of(struct melu_value *values, const struct melu__table *table, uint32_t user) {
  melu__table_values(values, table, user);
  for (size_t i = 0; i < table->n_columns; i++)
    if (values[i].n_ids) values[i].ids = melu__column_ids(&table->columns[i], user, &values[i].n_ids);
}

melu_status melu__working_add(struct melu__working *w, const melu_dataset *from, uint32_t user, melu_error *err) {
  melu_dataset *data = w->data;
  const struct melu_allocator *a = &data->ctx->allocator;
  struct melu__table *table = &data->tables[MELU_USER];
  struct melu_value values[MELU__MAX_FIELDS];
  const uint32_t *items;
  const float *ratings;
  const size_t n = melu_dataset_ratings(from, user, &items, &ratings), used = data->n_ratings;
  if (!melu__grow(a, &data->user_start, &w->start_capacity, table->n + 1, table->n + 2, sizeof *data->user_start) ||
      !melu__grow(a, &data->rating_item, &w->items_capacity, used, used + n, sizeof *data->rating_item) ||
      !melu__grow(a, &data->rating, &w->ratings_capacity, used, used + n, sizeof *data->rating))
    return melu__fail_memory(err);
  rows_of(values, &from->tables[MELU_USER], user);
  const melu_status status = melu__table_add(table, a, melu_dataset_user_id(from, user), values, err);
  if (status) return status;
  memcpy(data->rating_item + used, items, n * sizeof *items);
  memcpy(data->rating + used, ratings, n * sizeof *ratings);
  data->n_ratings = data->user_start[table->n] = used + n;
  return MELU_OK;
}
