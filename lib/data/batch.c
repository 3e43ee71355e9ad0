/* SPDX-License-Identifier: BSD-3-Clause */
#include "data/batch.h"

#include <string.h>

#include "base/error.h"
#include "base/mix.h"

/* ---------------------------------------------------------------------------------------------------- task batch */

melu_status melu_batch_new(melu_batch **out, const melu_context *ctx, const melu_dataset *data, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx) return melu__fail(err, MELU_EINVAL, "ctx is NULL");
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  melu_batch *batch = melu__calloc(&ctx->allocator, 1, sizeof *batch);
  if (!batch) return melu__fail_memory(err);
  batch->ctx = ctx;
  batch->data = data;
  *out = batch;
  return MELU_OK;
}

void melu_batch_free(melu_batch *batch) {
  if (!batch) return;
  const struct melu_allocator *a = &batch->ctx->allocator;
  melu__free(a, batch->tasks);
  melu__free(a, batch->positions);
  melu__free(a, batch);
}

void melu_batch_clear(melu_batch *batch) {
  if (!batch) return;
  batch->n_tasks = 0;
  batch->n_positions = 0;
}

/* `name` is that of the argument. */
static melu_status check_positions(const char *name, const uint32_t *positions, size_t n, uint32_t user,
                                   size_t n_ratings, melu_error *err) {
  for (size_t i = 0; i < n; i++) {
    if (positions[i] >= n_ratings)
      return melu__fail_at(err, MELU_ERANGE, i, "user position %u: %s[%zu] is %u, not below the user's %zu ratings",
                           (unsigned)user, name, i, (unsigned)positions[i], n_ratings);
  }
  return MELU_OK;
}

melu_status melu_batch_add(melu_batch *batch, uint32_t user, const uint32_t *support, size_t n_support,
                           const uint32_t *query, size_t n_query, melu_error *err) {
  if (!batch) return melu__fail(err, MELU_EINVAL, "batch is NULL");
  if (!support && n_support) return melu__fail(err, MELU_EINVAL, "support is NULL, but n_support is not 0");
  if (!query && n_query) return melu__fail(err, MELU_EINVAL, "query is NULL, but n_query is not 0");
  if (!n_query) return melu__fail(err, MELU_EINVAL, "user position %u: the query set is empty", (unsigned)user);
  if (n_support > MELU__MAX_ROWS || n_query > MELU__MAX_ROWS - n_support)
    return melu__fail(err, MELU_ELIMIT, "user position %u: %zu support and %zu query rows are more than %u",
                      (unsigned)user, n_support, n_query, MELU__MAX_ROWS);
  const size_t n_users = melu_dataset_n_users(batch->data);
  if (user >= n_users)
    return melu__fail(err, MELU_ERANGE, "user position %u is not below %zu", (unsigned)user, n_users);
  const size_t n_ratings = melu_dataset_ratings(batch->data, user, NULL, NULL);
  melu_status status = check_positions("support", support, n_support, user, n_ratings, err);
  if (status) return status;
  status = check_positions("query", query, n_query, user, n_ratings, err);
  if (status) return status;

  const struct melu_allocator *a = &batch->ctx->allocator;
  const size_t start = batch->n_positions, end = start + n_support + n_query;
  if (!melu__grow(a, &batch->tasks, &batch->tasks_capacity, batch->n_tasks, batch->n_tasks + 1, sizeof *batch->tasks) ||
      !melu__grow(a, &batch->positions, &batch->positions_capacity, start, end, sizeof *batch->positions))
    return melu__fail_memory(err);
  if (n_support) memcpy(batch->positions + start, support, n_support * sizeof *support);
  memcpy(batch->positions + start + n_support, query, n_query * sizeof *query);
  batch->tasks[batch->n_tasks++] =
      (struct melu__task){.user = user, .n_support = (uint32_t)n_support, .n_query = (uint32_t)n_query, .start = start};
  batch->n_positions = end;
  return MELU_OK;
}

size_t melu_batch_n_tasks(const melu_batch *batch) {
  return batch ? batch->n_tasks : 0;
}

/* --------------------------------------------------------------------------------------------- evaluation splits */

#define MAX_SPLIT 65536u /* a position has 16 bits in the key */

/* `base` is the part of the key that user and split determine. Keys are computed anew in every comparison: that is a
 * few multiplications, and needs no memory. No two are equal, because melu__mix64 is one-to-one. */
static int comes_before(uint64_t base, uint32_t a, uint32_t b) {
  return melu__mix64(base ^ a) < melu__mix64(base ^ b);
}

/* Makes order[root ..n) a heap whose latest position is on top, when only the root may be out of place. */
static void sift_down(uint32_t *order, size_t root, size_t n, uint64_t base) {
  const uint32_t moving = order[root];
  for (size_t child; (child = 2 * root + 1) < n; root = child) {
    if (child + 1 < n && comes_before(base, order[child], order[child + 1])) child++;
    if (!comes_before(base, moving, order[child])) break;
    order[root] = order[child];
  }
  order[root] = moving;
}

melu_status melu_split_order(uint32_t *order, uint64_t user_id, uint64_t split, size_t n, melu_error *err) {
  if (!order && n) return melu__fail(err, MELU_EINVAL, "order is NULL");
  if (n > MAX_SPLIT) return melu__fail(err, MELU_ERANGE, "n is %zu, more than %u", n, MAX_SPLIT);
  const uint64_t base = (split << 48) ^ (user_id << 16);
  for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
  for (size_t root = n / 2; root-- > 0;) sift_down(order, root, n, base);
  for (size_t end = n; end-- > 1;) {
    const uint32_t latest = order[0];
    order[0] = order[end];
    order[end] = latest;
    sift_down(order, 0, end, base);
  }
  return MELU_OK;
}

size_t melu__task_items(const melu_batch *batch, const struct melu__task *task, size_t first, size_t most,
                        uint32_t *items) {
  const uint32_t *rated;
  const float *ratings;
  const size_t left = task->n_support + task->n_query - first, n = left < most ? left : most;
  melu_dataset_ratings(batch->data, task->user, &rated, &ratings);
  for (size_t k = 0; k < n; k++) items[k] = rated[batch->positions[task->start + first + k]];
  return n;
}
