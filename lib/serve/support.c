/* SPDX-License-Identifier: BSD-3-Clause */
#include "serve/support.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

int melu__support_init(struct melu__support *s, const struct melu_allocator *a, const melu_schema *schema) {
  s->n_fields = melu_schema_n_fields(schema, MELU_USER);
  s->values = melu__calloc(a, s->n_fields, sizeof *s->values);
  return s->values != NULL;
}

void melu__support_free(struct melu__support *s, const struct melu_allocator *a) {
  melu__free(a, s->items);
  melu__free(a, s->ratings);
  melu__free(a, s->values);
  melu__free(a, s->ids);
  melu__free(a, s->numbers);
}

const struct melu_value *melu__support_profile(const struct melu__support *s) {
  return s->n_ids || s->n_numbers ? s->values : NULL;
}

/* The fields' values lie one after another in the arrays, which may have moved. */
static void point(struct melu__support *s) {
  size_t id = 0, number = 0;
  for (size_t i = 0; i < s->n_fields; i++) {
    s->values[i].ids = s->values[i].n_ids ? s->ids + id : NULL;
    s->values[i].numbers = s->values[i].n_numbers ? s->numbers + number : NULL;
    id += s->values[i].n_ids;
    number += s->values[i].n_numbers;
  }
}

int melu__support_reserve(struct melu__support *s, const struct melu_allocator *a, const struct melu_value *profile,
                          size_t n) {
  size_t n_ids = 0, n_numbers = 0;
  for (size_t i = 0; i < s->n_fields && profile; i++) {
    n_ids += profile[i].n_ids;
    n_numbers += profile[i].n_numbers;
  }
  const int made = melu__grow(a, &s->items, &s->items_capacity, s->n, n, sizeof *s->items) &&
                   melu__grow(a, &s->ratings, &s->ratings_capacity, s->n, n, sizeof *s->ratings) &&
                   melu__grow(a, &s->ids, &s->ids_capacity, s->n_ids, n_ids, sizeof *s->ids) &&
                   melu__grow(a, &s->numbers, &s->numbers_capacity, s->n_numbers, n_numbers, sizeof *s->numbers);
  point(s);
  return made;
}

void melu__support_set_profile(struct melu__support *s, const struct melu_value *profile) {
  s->n_ids = s->n_numbers = 0;
  for (size_t i = 0; i < s->n_fields; i++) {
    const struct melu_value value = profile ? profile[i] : (struct melu_value){0};
    if (value.n_ids) memcpy(s->ids + s->n_ids, value.ids, value.n_ids * sizeof *s->ids);
    if (value.n_numbers) memcpy(s->numbers + s->n_numbers, value.numbers, value.n_numbers * sizeof *s->numbers);
    s->values[i] = (struct melu_value){.n_ids = value.n_ids, .n_numbers = value.n_numbers};
    s->n_ids += value.n_ids;
    s->n_numbers += value.n_numbers;
  }
  point(s);
}

void melu__support_set_ratings(struct melu__support *s, const melu_dataset *data, const uint32_t *items,
                               const float *ratings, size_t n) {
  for (size_t i = 0; i < n; i++) s->items[i] = melu_dataset_item_id(data, items[i]);
  if (n) memmove(s->ratings, ratings, n * sizeof *ratings); /* they may be her own */
  s->n = n;
}

size_t melu__support_find(const struct melu__support *s, uint64_t item) {
  for (size_t i = s->n; i > 0; i--)
    if (s->items[i - 1] == item) return i - 1;
  return s->n;
}

void melu__support_to_end(struct melu__support *s, size_t i) {
  const uint64_t item = s->items[i];
  const float rating = s->ratings[i];
  const size_t n_behind = s->n - 1 - i;
  memmove(s->items + i, s->items + i + 1, n_behind * sizeof item);
  memmove(s->ratings + i, s->ratings + i + 1, n_behind * sizeof rating);
  s->items[s->n - 1] = item;
  s->ratings[s->n - 1] = rating;
}

void melu__support_from_end(struct melu__support *s, size_t i) {
  const uint64_t item = s->items[s->n - 1];
  const float rating = s->ratings[s->n - 1];
  const size_t n_behind = s->n - 1 - i;
  memmove(s->items + i + 1, s->items + i, n_behind * sizeof item);
  memmove(s->ratings + i + 1, s->ratings + i, n_behind * sizeof rating);
  s->items[i] = item;
  s->ratings[i] = rating;
}

melu_status melu__support_position(uint32_t *position, const struct melu__support *s, const melu_dataset *data,
                                   size_t i, melu_error *err) {
  *position = melu__table_find(&data->tables[MELU_ITEM], s->items[i]);
  if (*position != MELU__NO_INDEX) return MELU_OK;
  return melu__fail_at(err, MELU_ENOTFOUND, i, "the data set does not have item %" PRIu64 ", which the user rated",
                       s->items[i]);
}
