/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/shard_sorted.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

enum { RATING_TENSORS = 3 };

/* -------------------------------------------------------------------------------------------------- the records */

/* Those of one bucket, by user. */
struct records {
  struct melu__record *at;
  size_t n, next; /* `next`: the first one that was not looked at */
};

static melu_status load(struct records *r, const struct melu__spill *spill, size_t bucket, const char *what,
                        melu_error *err) {
  const struct melu_allocator *a = &spill->ctx->allocator;
  *r = (struct records){.n = melu__spill_count(spill, bucket)};
  if (r->n > MELU__MOST_OF_FILE)
    return melu__fail(err, MELU_ELIMIT, "a file would have %zu %s, more than %zu: there should be more files", r->n,
                      what, MELU__MOST_OF_FILE);
  r->at = melu__alloc(a, r->n, sizeof *r->at);
  struct melu__record *scratch = melu__alloc(a, r->n, sizeof *scratch);
  melu_status status = r->at && scratch ? melu__spill_copy(r->at, spill, bucket, err) : melu__fail_memory(err);
  if (!status) melu__records_sort(r->at, scratch, r->n);
  melu__free(a, scratch);
  return status;
}

/* How many of the next ones are this user's. */
static size_t n_of(const struct records *r, uint64_t user) {
  size_t n = 0;
  while (r->next + n < r->n && r->at[r->next + n].key == user) n++;
  return n;
}

/* The smallest user of whom there is something left; 0 if there is none. */
static int next_user(uint64_t *user, const struct records *profiles, const struct records *ratings) {
  const int has_profile = profiles->next < profiles->n, has_rating = ratings->next < ratings->n;
  if (has_profile) *user = profiles->at[profiles->next].key;
  if (has_rating && (!has_profile || ratings->at[ratings->next].key < *user)) *user = ratings->at[ratings->next].key;
  return has_profile || has_rating;
}

/* -------------------------------------------------------------------------------------------------- a profile */

/* The one among a user's records that ends the profile, n if none does. *n_ends: how many do. */
static size_t find_end(size_t *n_ends, const struct melu__record *records, size_t n) {
  size_t end = n;
  *n_ends = 0;
  for (size_t i = n; i-- > 0;) {
    if (records[i].what != MELU__PROFILE_END) continue;
    end = i;
    ++*n_ends;
  }
  return end;
}

/* Makes values of the records of cells. */
static int take_cells(struct melu_value *values, struct melu__sorted_shard *s, const struct melu__record *cells,
                      size_t n) {
  size_t n_ids = 0, n_numbers = 0;
  if (!melu__grow(s->alloc, &s->ids, &s->ids_capacity, 0, n, sizeof *s->ids) ||
      !melu__grow(s->alloc, &s->numbers, &s->numbers_capacity, 0, n, sizeof *s->numbers))
    return 0;
  for (size_t f = 0; f < s->users.n_columns; f++)
    values[f] = (struct melu_value){.ids = s->ids, .numbers = s->numbers}; /* NULL if there are no cells at all */
  for (size_t i = 0; i < n; i++) {
    struct melu_value *v = &values[cells[i].what];
    if (melu__has_numbers(s->users.columns[cells[i].what].field)) {
      if (!v->n_numbers++) v->numbers = s->numbers + n_numbers;
      s->numbers[n_numbers++] = melu__bits_float(cells[i].value);
    } else {
      if (!v->n_ids++) v->ids = s->ids + n_ids;
      s->ids[n_ids++] = cells[i].value;
    }
  }
  return 1;
}

/* Adds a user; n_ratings: hers. One whose profile has no end was not added. */
static melu_status add_user(struct melu__sorted_shard *s, uint64_t user, struct records *profiles, size_t n_ratings,
                            int all_may_rate, melu_error *err) {
  struct melu_value values[MELU__MAX_FIELDS];
  const struct melu__record *records = profiles->at + profiles->next;
  size_t n_ends, begin = 0;
  const size_t n = n_of(profiles, user), end = find_end(&n_ends, records, n);
  profiles->next += n;
  if (n_ends > 1) return melu__fail(err, MELU_ESTATE, "user %llu: the id is taken", (unsigned long long)user);
  if (n_ends == 0 && n_ratings && !all_may_rate)
    return melu__fail(err, MELU_ENOTFOUND, "there is no user %llu, but ratings by that user", (unsigned long long)user);
  if (n_ends == 0 && !n_ratings) return MELU_OK;
  for (size_t i = 0; i < end; i++)
    if (records[i].what == MELU__PROFILE_BEGIN) begin = i;
  if (n_ends && !take_cells(values, s, records + begin + 1, end - begin - 1)) return melu__fail_memory(err);
  return melu__table_add(&s->users, s->alloc, user, n_ends ? values : NULL, err);
}

/* -------------------------------------------------------------------------------------------------- the file */

static melu_status add_ratings(struct melu__sorted_shard *s, struct records *ratings, size_t n, melu_error *err) {
  const size_t n_users = s->users.n;
  if (!melu__grow(s->alloc, &s->offsets, &s->offsets_capacity, n_users, n_users + 1, sizeof *s->offsets))
    return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) {
    const struct melu__record *r = &ratings->at[ratings->next++];
    s->items[s->n_ratings] = r->what;
    s->ratings[s->n_ratings++] = melu__bits_float(r->value);
  }
  s->offsets[n_users] = (uint32_t)s->n_ratings;
  return MELU_OK;
}

static melu_status merge(struct melu__sorted_shard *s, struct records *profiles, struct records *ratings,
                         int all_may_rate, melu_error *err) {
  uint64_t user = 0;
  s->items = melu__alloc(s->alloc, ratings->n, sizeof *s->items);
  s->ratings = melu__alloc(s->alloc, ratings->n, sizeof *s->ratings);
  if (!s->items || !s->ratings) return melu__fail_memory(err);
  melu_status status = add_ratings(s, ratings, 0, err); /* where those of the first user begin */
  while (!status && next_user(&user, profiles, ratings)) {
    const size_t n = n_of(ratings, user), n_users = s->users.n;
    status = add_user(s, user, profiles, n, all_may_rate, err);
    if (!status && s->users.n > n_users) status = add_ratings(s, ratings, n, err);
  }
  return status;
}

melu_status melu__shard_sort(struct melu__sorted_shard *s, const melu_schema *schema, const struct melu__spill *spill,
                             size_t bucket, int all_may_rate, melu_error *err) {
  const struct melu_allocator *a = &spill->ctx->allocator;
  struct records profiles = {0}, ratings = {0};
  *s = (struct melu__sorted_shard){.alloc = a};
  melu_status status = melu__table_init(&s->users, a, schema, MELU_USER) ? MELU_OK : melu__fail_memory(err);
  if (!status) status = load(&profiles, spill, bucket, "ids, numbers and marks of profiles", err);
  if (!status) status = load(&ratings, spill, bucket + 1, "ratings", err);
  if (!status) status = merge(s, &profiles, &ratings, all_may_rate, err);
  melu__free(a, profiles.at);
  melu__free(a, ratings.at);
  return status;
}

void melu__shard_sorted_free(struct melu__sorted_shard *s) {
  melu__table_free(&s->users, s->alloc);
  melu__free(s->alloc, s->offsets);
  melu__free(s->alloc, s->items);
  melu__free(s->alloc, s->ratings);
  melu__free(s->alloc, s->ids);
  melu__free(s->alloc, s->numbers);
}

/* What the manifest says of it, but for the checksum. */
static void describe(struct melu__shard_list *list, size_t file, const struct melu__sorted_shard *s) {
  float *range = list->range + 2 * file;
  list->users[file] = s->users.n;
  list->ratings[file] = s->n_ratings;
  list->most[file] = 0;
  for (size_t u = 0; u < s->users.n; u++)
    if (s->offsets[u + 1] - s->offsets[u] > list->most[file]) list->most[file] = s->offsets[u + 1] - s->offsets[u];
  range[0] = range[1] = s->n_ratings ? s->ratings[0] : 0;
  for (size_t i = 0; i < s->n_ratings; i++) {
    range[0] = fminf(range[0], s->ratings[i]);
    range[1] = fmaxf(range[1], s->ratings[i]);
  }
}

melu_status melu__shard_save(struct melu__shard_list *list, size_t file, const struct melu__sorted_shard *s,
                             const melu_context *ctx, const char *path, melu_error *err) {
  const struct melu__tensor tensors[RATING_TENSORS] = {
      {.name = "ratings.offsets", .dtype = MELU__U32, .n_dims = 1, .dims = {s->users.n + 1}, .data = s->offsets},
      {.name = "ratings.items", .dtype = MELU__U32, .n_dims = 1, .dims = {s->n_ratings}, .data = s->items},
      {.name = "ratings.values", .dtype = MELU__FLOAT, .n_dims = 1, .dims = {s->n_ratings}, .data = s->ratings}};
  struct melu__table_tensors all;
  json_t *metadata = melu__metadata_new(MELU__SHARD_FORMAT);
  const int made = melu__table_tensors_make(&all, s->alloc, &s->users, MELU_USER, RATING_TENSORS);
  melu_status status = MELU_OK;
  if (made && metadata) {
    memcpy(all.at + all.n, tensors, sizeof tensors);
    describe(list, file, s);
    struct melu__saved saved = {0};
    status = melu__safetensors_save(&saved, ctx, path, metadata, all.at, all.n + RATING_TENSORS, err);
    list->checksums[file] = saved.checksum;
  } else {
    status = melu__fail_memory(err);
  }
  json_decref(metadata);
  melu__table_tensors_free(&all);
  return status;
}
