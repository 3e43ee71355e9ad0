/* SPDX-License-Identifier: BSD-3-Clause */
/* What several test programs need: an allocator that counts and fails, a comparison of floating-point numbers, and how
 * often to try. */
#ifndef MELU_TESTS_SUPPORT_H
#define MELU_TESTS_SUPPORT_H

#include <math.h>
#include <melu.h>
#include <stdatomic.h>
#include <stdlib.h>

/* A host's allocator. Its `live` must be 0 when all is freed; `made` counts the requests. Request number fail_at
 * (1-based; 0: none) is refused, and every later one too if `from_there_on`. To fail each position once:
 *
 *     for (size_t n = 1; failed; n++) {
 *       struct test_heap heap = {.fail_at = n};
 *       const struct melu_allocator allocator = test_allocator(&heap);
 *       ...
 *     }
 */
struct test_heap {
  atomic_size_t made, live;
  size_t fail_at;
  int from_there_on;
};

static inline void *test_alloc(void *arg, size_t n_bytes) {
  struct test_heap *heap = arg;
  const size_t number = atomic_fetch_add(&heap->made, 1) + 1;
  if (heap->fail_at && (heap->from_there_on ? number >= heap->fail_at : number == heap->fail_at)) return NULL;
  void *memory = malloc(n_bytes ? n_bytes : 1);
  if (memory) atomic_fetch_add(&heap->live, 1);
  return memory;
}

static inline void test_free(void *arg, void *memory) {
  struct test_heap *heap = arg;
  atomic_fetch_sub(&heap->live, 1);
  free(memory);
}

static inline struct melu_allocator test_allocator(struct test_heap *heap) {
  return (struct melu_allocator){heap, test_alloc, test_free};
}

/* How many random trials to make instead of n. A checker that makes them slow divides them by the number in
 * MELU_TEST_DIVISOR. */
static inline size_t test_trials(size_t n) {
  const char *text = getenv("MELU_TEST_DIVISOR");
  const size_t divisor = text ? strtoul(text, NULL, 10) : 1;
  return divisor ? (n + divisor - 1) / divisor : n;
}

/* |a - b| relative to the larger of |b| and `floor`, which keeps numbers near zero from counting as all wrong. Not
 * finite if a or b is not, so that `error < tolerance` fails. */
static inline double test_relative_error(double a, double b, double floor) {
  const double scale = fabs(b) > floor ? fabs(b) : floor;
  return isfinite(a) && isfinite(b) ? fabs(a - b) / scale : INFINITY;
}

#endif
