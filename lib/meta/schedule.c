/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/schedule.h"

#include <string.h>

int melu__schedule_init(struct melu__schedule *s, const struct melu_allocator *a, const uint64_t *n, size_t n_slots) {
  *s = (struct melu__schedule){.n_slots = n_slots, .n = n};
  s->first = melu__alloc(a, n_slots, sizeof *s->first);
  s->end = melu__alloc(a, n_slots, sizeof *s->end);
  s->queue = melu__alloc(a, n_slots, sizeof *s->queue);
  return s->first && s->end && s->queue;
}

void melu__schedule_free(struct melu__schedule *s, const struct melu_allocator *a) {
  melu__free(a, s->first);
  melu__free(a, s->end);
  melu__free(a, s->queue);
}

/* When the next user of the slot is due: user k of n at (k + 1/2) / n of the epoch (Webster and Sainte-Lague's rule).
 */
static double due(const struct melu__schedule *s, uint32_t slot) {
  return ((double)s->end[slot] + 0.5) / (double)s->n[slot];
}

static int is_before(const struct melu__schedule *s, uint32_t a, uint32_t b) {
  const double x = due(s, a), y = due(s, b);
  return x != y ? x < y : a < b;
}

/* Makes queue[root ..n) a heap whose first slot is on top, when only the root may be out of place. */
static void sift_down(struct melu__schedule *s, size_t root) {
  const uint32_t moving = s->queue[root];
  for (size_t child; (child = 2 * root + 1) < s->n_queue; root = child) {
    if (child + 1 < s->n_queue && is_before(s, s->queue[child + 1], s->queue[child])) child++;
    if (!is_before(s, s->queue[child], moving)) break;
    s->queue[root] = s->queue[child];
  }
  s->queue[root] = moving;
}

void melu__schedule_begin(struct melu__schedule *s) {
  s->n_queue = 0;
  s->n_left = 0;
  memset(s->first, 0, s->n_slots * sizeof *s->first);
  memset(s->end, 0, s->n_slots * sizeof *s->end);
  for (uint32_t slot = 0; slot < s->n_slots; slot++) {
    s->n_left += s->n[slot];
    if (s->n[slot]) s->queue[s->n_queue++] = slot;
  }
  for (size_t root = s->n_queue / 2; root-- > 0;) sift_down(s, root);
}

size_t melu__schedule_next(struct melu__schedule *s, uint64_t n) {
  if (n > s->n_left) n = s->n_left;
  memcpy(s->first, s->end, s->n_slots * sizeof *s->first);
  for (uint64_t i = 0; i < n; i++) {
    const uint32_t slot = s->queue[0];
    if (++s->end[slot] == s->n[slot]) s->queue[0] = s->queue[--s->n_queue];
    sift_down(s, 0);
  }
  s->n_left -= n;
  return (size_t)n;
}
