/* SPDX-License-Identifier: BSD-3-Clause */
/* Slots, which users and table rows belong to, the ranks that have them, and the tree along which sums go.
 *
 * The tree's root is all slots, [0, n); a node [lo, hi) of more than one has the children [lo, mid) and [mid, hi) with
 * mid = lo + (hi - lo) / 2. It depends on the number of slots alone. Each rank adds up the largest nodes that lie
 * inside its own slots, and whoever adds up those of all ranks gets the same sum as if one rank had all slots. */
#ifndef MELU__SLOTS_H
#define MELU__SLOTS_H

#include "base/context.h"

enum { MELU__MAX_SLOTS = 65535, MELU__MAX_NODES = 32 };

/* A node of the tree, or any other slots that follow each other. */
struct melu__slots {
  uint32_t lo, hi;
};

/* What one rank has of all slots. */
struct melu__share {
  size_t n_slots;
  struct melu__slots own;
};

/* Of rows 0 .. n - 1, row r being of slot r mod n_slots, those of the share: how many; which is the k-th; and the
 * number of one of them. */
static inline size_t melu__share_rows(const struct melu__share *s, size_t n) {
  const size_t lo = s->own.lo, width = s->own.hi - lo, rest = n % s->n_slots;
  return n / s->n_slots * width + (rest <= lo ? 0 : rest - lo < width ? rest - lo : width);
}
static inline size_t melu__share_row(const struct melu__share *s, size_t k) {
  const size_t width = s->own.hi - s->own.lo;
  return k / width * s->n_slots + s->own.lo + k % width;
}
static inline size_t melu__share_number(const struct melu__share *s, size_t row) {
  return row / s->n_slots * (s->own.hi - s->own.lo) + row % s->n_slots - s->own.lo;
}

struct melu__slots melu__slots_of_rank(const melu_context *ctx, size_t rank);
size_t melu__rank_of_slot(const melu_context *ctx, size_t slot);

static inline struct melu__slots melu__own_slots(const melu_context *ctx) {
  return melu__slots_of_rank(ctx, ctx->collective.rank);
}
static inline struct melu__share melu__own_share(const melu_context *ctx) {
  return (struct melu__share){ctx->n_slots, melu__own_slots(ctx)};
}

/* The largest nodes inside `range`, ascending: returns how many. */
size_t melu__largest_nodes(struct melu__slots nodes[MELU__MAX_NODES], size_t n_slots, struct melu__slots range);

/* Adds up `n` terms that belong to nodes of the tree, ascending and none inside another one: add(arg, into, from) is
 * called to add term number `from` to term number `into`, such that the sum, in term 0, has the bits of the tree. Slots
 * without a term are left out. */
void melu__tree_sum(size_t n_slots, const struct melu__slots *nodes, size_t n,
                    void (*add)(void *arg, size_t into, size_t from), void *arg);

/* The same of one number for each slot. */
double melu__tree_sum_numbers(const double *numbers, size_t n_slots);

#endif
