/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>

#include "base/context.h"
#include "base/error.h"
#include "tape/plan.h"

struct entry {
  uint64_t key;
  struct melu__plan *plan;
};

struct melu__plan_cache {
  const struct melu_allocator *alloc;
  pthread_mutex_t lock;
  struct entry *entries; /* by ascending key */
  size_t n, capacity;
};

struct melu__plan_cache *melu__plan_cache_new(const melu_context *ctx) {
  struct melu__plan_cache *cache = melu__calloc(&ctx->allocator, 1, sizeof *cache);
  if (!cache) return NULL;
  cache->alloc = &ctx->allocator;
  if (pthread_mutex_init(&cache->lock, NULL)) {
    melu__free(&ctx->allocator, cache);
    return NULL;
  }
  return cache;
}

void melu__plan_cache_free(struct melu__plan_cache *cache) {
  if (!cache) return;
  for (size_t i = 0; i < cache->n; i++) melu__plan_free(cache->entries[i].plan);
  melu__free(cache->alloc, cache->entries);
  pthread_mutex_destroy(&cache->lock);
  melu__free(cache->alloc, cache);
}

/* Where the key is, or where it belongs. */
static size_t find(const struct melu__plan_cache *cache, uint64_t key) {
  size_t low = 0, high = cache->n;
  while (low < high) {
    const size_t mid = low + (high - low) / 2;
    if (cache->entries[mid].key < key)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}

static melu_status insert(struct melu__plan_cache *cache, size_t at, uint64_t key, melu__plan_maker make,
                          const void *arg, melu_error *err) {
  struct melu__plan *plan;
  if (!melu__grow(cache->alloc, &cache->entries, &cache->capacity, cache->n, cache->n + 1, sizeof *cache->entries))
    return melu__fail_memory(err);
  const melu_status status = make(&plan, arg, key, err);
  if (status) return status;
  for (size_t i = cache->n; i > at; i--) cache->entries[i] = cache->entries[i - 1];
  cache->entries[at] = (struct entry){key, plan};
  cache->n++;
  return MELU_OK;
}

/* The lock is held while a plan is made: it takes well under a millisecond, and nobody else makes the same one. */
melu_status melu__plan_cache_get(const struct melu__plan **out, struct melu__plan_cache *cache, uint64_t key,
                                 melu__plan_maker make, const void *arg, melu_error *err) {
  *out = NULL;
  pthread_mutex_lock(&cache->lock);
  const size_t at = find(cache, key);
  melu_status status = MELU_OK;
  if (at == cache->n || cache->entries[at].key != key) status = insert(cache, at, key, make, arg, err);
  if (!status) *out = cache->entries[at].plan;
  pthread_mutex_unlock(&cache->lock);
  return status;
}
