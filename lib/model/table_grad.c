/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/table_grad.h"

#include <string.h>

void melu__table_grad_free(struct melu__table_grad *r, const struct melu_allocator *a) {
  void *const all[] = {r->rows, r->values, r->place, r->met, r->chain.entries, r->chain.nodes};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

int melu__table_grad_fit(struct melu__table_grad *r, const struct melu_allocator *a, size_t n_rows) {
  if (r->place && n_rows <= r->n_places) return 1;
  uint32_t *place = melu__calloc(a, n_rows, sizeof *place);
  if (!place) return 0;
  melu__free(a, r->place);
  r->place = place;
  r->n_places = n_rows;
  return 1;
}

void melu__table_grad_empty(struct melu__table_grad *r, size_t n_slots) {
  for (size_t k = 0; k < r->n; k++) r->place[r->rows[k]] = 0;
  r->n = r->first = r->current = 0;
  r->n_slots = n_slots;
}

void melu__table_grad_enter(struct melu__table_grad *r, struct melu__slots node) {
  r->current = r->n;
  r->node = node;
}

uint32_t melu__table_grad_meet(struct melu__table_grad *r, const struct melu_allocator *a, uint32_t row) {
  if (r->place[row] > r->current) return r->place[row] - 1;
  const size_t n = r->n, end = (n + 1) * r->cols;
  if (!melu__grow(a, &r->rows, &r->capacity, n, n + 1, sizeof *r->rows) ||
      !melu__grow(a, &r->values, &r->values_capacity, n * r->cols, end, sizeof *r->values) ||
      (r->n_slots > 1 && !melu__grow(a, &r->met, &r->met_capacity, n, n + 1, sizeof *r->met)))
    return MELU__NO_PLACE;
  memset(r->values + n * r->cols, 0, r->cols * sizeof *r->values);
  r->rows[n] = row;
  if (r->n_slots > 1) r->met[n] = (struct melu__met){r->node, r->place[row] > r->first ? r->place[row] : 0};
  r->place[row] = (uint32_t)++r->n;
  return (uint32_t)n;
}

/* ------------------------------------------------------------------------------------------------ summing up */

#define IS_SUMMED UINT32_MAX /* in place of the older entry: what it had is in another one */

struct adding {
  const struct melu__table_grad *r;
  const struct melu__kernels *kernels;
};

static void add_entry(void *arg, size_t into, size_t from) {
  const struct adding *a = arg;
  const size_t cols = a->r->cols;
  const uint32_t *entries = a->r->chain.entries;
  a->kernels->axpy(1, cols, 1, (struct melu__cmat){a->r->values + entries[from] * cols, cols},
                   (struct melu__mat){a->r->values + entries[into] * cols, cols});
}

/* The entries of a row, of which this is the last one. They are nearly in order: those of a rank are, and its messages
 * come one after another. */
static void list_chain(struct melu__table_grad *r, size_t entry) {
  struct melu__chain *c = &r->chain;
  c->n = 0;
  for (uint32_t next = (uint32_t)entry + 1; next; next = r->met[next - 1].older) c->n++;
  for (uint32_t next = (uint32_t)entry + 1, i = (uint32_t)c->n; next; next = r->met[next - 1].older)
    c->entries[--i] = next - 1;
  for (size_t i = 0; i < c->n; i++) {
    const uint32_t e = c->entries[i];
    size_t k = i;
    for (; k > 0 && c->nodes[k - 1].lo > r->met[e].node.lo; k--) {
      c->entries[k] = c->entries[k - 1];
      c->nodes[k] = c->nodes[k - 1];
    }
    c->entries[k] = e;
    c->nodes[k] = r->met[e].node;
  }
}

static void sum_chain(struct melu__table_grad *r, const struct melu__kernels *kernels, size_t entry) {
  struct melu__chain *c = &r->chain;
  struct adding adding = {r, kernels};
  list_chain(r, entry);
  melu__tree_sum(r->n_slots, c->nodes, c->n, add_entry, &adding);
  for (size_t i = 1; i < c->n; i++) r->met[c->entries[i]].older = IS_SUMMED;
  r->met[c->entries[0]].older = 0;
}

/* Closes the gaps that were left. */
static void close_up(struct melu__table_grad *r, struct melu__slots node) {
  const size_t cols = r->cols;
  size_t n = r->first;
  for (size_t e = r->first; e < r->n; e++) {
    if (r->met[e].older == IS_SUMMED) continue;
    if (n != e) memcpy(r->values + n * cols, r->values + e * cols, cols * sizeof *r->values);
    r->rows[n] = r->rows[e];
    r->met[n++].node = node;
    r->place[r->rows[n - 1]] = (uint32_t)n;
  }
  r->n = n;
}

int melu__table_grad_sum(struct melu__table_grad *r, const melu_context *ctx, struct melu__slots node) {
  const struct melu_allocator *a = &ctx->allocator;
  struct melu__chain *c = &r->chain;
  if (r->n_slots > 1) {
    if (!melu__grow(a, &c->entries, &c->entries_capacity, 0, r->n_slots, sizeof *c->entries) ||
        !melu__grow(a, &c->nodes, &c->nodes_capacity, 0, r->n_slots, sizeof *c->nodes))
      return 0;
    for (size_t e = r->first; e < r->n; e++)
      if (r->place[r->rows[e]] == e + 1) sum_chain(r, ctx->kernels, e);
    close_up(r, node);
  }
  r->first = r->current = r->n;
  return 1;
}
