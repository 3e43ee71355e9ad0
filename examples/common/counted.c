/* SPDX-License-Identifier: BSD-3-Clause */
#include "counted.h"

#include <stdlib.h>

/* ------------------------------------------------------------------------------------------------- messages */

static melu_status all_gather(void *arg, void *all, const size_t *counts, melu_error *err) {
  struct counted *c = arg;
  c->n_calls++;
  c->n_bytes += counts[c->inner.rank] * (uint64_t)(c->inner.n_ranks - 1);
  return c->inner.all_gather(c->inner.arg, all, counts, err);
}

static melu_status all_to_all_begin(void *arg, const struct melu_message *out, struct melu_message *in,
                                    melu_error *err) {
  struct counted *c = arg;
  c->n_calls++;
  for (uint32_t r = 0; r < c->inner.n_ranks; r++)
    if (r != c->inner.rank) c->n_bytes += out[r].n;
  return c->inner.all_to_all_begin(c->inner.arg, out, in, err);
}

static melu_status all_to_all_end(void *arg, melu_error *err) {
  struct counted *c = arg;
  return c->inner.all_to_all_end(c->inner.arg, err);
}

static melu_status reduce(void *arg, void *value, size_t n, melu_fold_fn fold, melu_error *err) {
  struct counted *c = arg;
  c->n_calls++;
  c->n_bytes += n * (uint64_t)(c->inner.n_ranks - 1);
  return c->inner.reduce(c->inner.arg, value, n, fold, err);
}

static melu_status barrier(void *arg, melu_error *err) {
  struct counted *c = arg;
  c->n_calls++;
  return c->inner.barrier(c->inner.arg, err);
}

struct melu_collective counted_collective(struct counted *c, const struct melu_collective *inner) {
  c->inner = *inner;
  return (struct melu_collective){.size = sizeof(struct melu_collective),
                                  .arg = c,
                                  .rank = inner->rank,
                                  .n_ranks = inner->n_ranks,
                                  .all_gather = all_gather,
                                  .all_to_all_begin = all_to_all_begin,
                                  .all_to_all_end = all_to_all_end,
                                  .reduce = reduce,
                                  .barrier = barrier};
}

/* --------------------------------------------------------------------------------------------------- memory */

/* In front of what is handed out: how much it is. */
union head {
  size_t n_bytes;
  max_align_t aligned;
};

static void *count_alloc(void *arg, size_t n_bytes) {
  struct counted *c = arg;
  union head *head = n_bytes <= SIZE_MAX - sizeof *head ? malloc(sizeof *head + n_bytes) : NULL;
  if (!head) return NULL;
  head->n_bytes = n_bytes;
  const size_t live = atomic_fetch_add(&c->live, n_bytes) + n_bytes;
  size_t most = atomic_load(&c->most);
  while (live > most && !atomic_compare_exchange_weak(&c->most, &most, live)) continue;
  return head + 1;
}

static void count_free(void *arg, void *memory) {
  struct counted *c = arg;
  union head *head = (union head *)memory - 1;
  atomic_fetch_sub(&c->live, head->n_bytes);
  free(head);
}

struct melu_allocator counted_allocator(struct counted *c) {
  return (struct melu_allocator){.arg = c, .alloc = count_alloc, .free = count_free};
}
