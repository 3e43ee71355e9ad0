/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/slots.h"

#include "base/mix.h"

size_t melu_slot(uint64_t user_id, size_t n_slots) {
  return n_slots ? (size_t)(melu__mix64(user_id) % n_slots) : 0;
}

struct melu__slots melu__slots_of_rank(const melu_context *ctx, size_t rank) {
  const size_t n_ranks = ctx->collective.n_ranks;
  return (struct melu__slots){(uint32_t)(ctx->n_slots * rank / n_ranks),
                              (uint32_t)(ctx->n_slots * (rank + 1) / n_ranks)};
}

size_t melu__rank_of_slot(const melu_context *ctx, size_t slot) {
  return ((slot + 1) * ctx->collective.n_ranks - 1) / ctx->n_slots;
}

static struct melu__slots left_of(struct melu__slots node) {
  return (struct melu__slots){node.lo, node.lo + (node.hi - node.lo) / 2};
}

static struct melu__slots right_of(struct melu__slots node) {
  return (struct melu__slots){node.lo + (node.hi - node.lo) / 2, node.hi};
}

static size_t list_nodes(struct melu__slots *nodes, struct melu__slots node, struct melu__slots range) {
  if (node.hi <= range.lo || range.hi <= node.lo) return 0;
  if (range.lo <= node.lo && node.hi <= range.hi) {
    *nodes = node;
    return 1;
  }
  const size_t n = list_nodes(nodes, left_of(node), range);
  return n + list_nodes(nodes + n, right_of(node), range);
}

size_t melu__largest_nodes(struct melu__slots nodes[MELU__MAX_NODES], size_t n_slots, struct melu__slots range) {
  return list_nodes(nodes, (struct melu__slots){0, (uint32_t)n_slots}, range);
}

struct terms {
  const struct melu__slots *nodes;
  void (*add)(void *arg, size_t into, size_t from);
  void *arg;
};

/* Terms [first, end) lie inside the node. */
static void sum_node(const struct terms *t, struct melu__slots node, size_t first, size_t end) {
  while (end - first > 1) { /* a node that has a term of its own has no other */
    const uint32_t mid = left_of(node).hi;
    size_t right = first;
    while (right < end && t->nodes[right].lo < mid) right++;
    if (right > first && right < end) {
      sum_node(t, left_of(node), first, right);
      sum_node(t, right_of(node), right, end);
      t->add(t->arg, first, right);
      return;
    }
    node = right == end ? left_of(node) : right_of(node);
  }
}

void melu__tree_sum(size_t n_slots, const struct melu__slots *nodes, size_t n,
                    void (*add)(void *arg, size_t into, size_t from), void *arg) {
  const struct terms t = {nodes, add, arg};
  sum_node(&t, (struct melu__slots){0, (uint32_t)n_slots}, 0, n);
}

static double sum_numbers(const double *numbers, struct melu__slots node) {
  if (node.hi - node.lo == 1) return numbers[node.lo];
  return sum_numbers(numbers, left_of(node)) + sum_numbers(numbers, right_of(node));
}

double melu__tree_sum_numbers(const double *numbers, size_t n_slots) {
  return sum_numbers(numbers, (struct melu__slots){0, (uint32_t)n_slots});
}
