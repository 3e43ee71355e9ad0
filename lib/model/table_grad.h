/* SPDX-License-Identifier: BSD-3-Clause */
/* The rows of one table's gradient that something came to. With more slots than one a row has an entry for each node of
 * the tree over slots (base/slots.h) that something came from, until they are summed up. */
#ifndef MELU__TABLE_GRAD_H
#define MELU__TABLE_GRAD_H

#include "base/slots.h"
#include "tensor/kernels.h"

/* Beside an entry, with more slots than one. */
struct melu__met {
  struct melu__slots node; /* which it belongs to */
  uint32_t older;          /* 1 + the entry of the same row before it, 0 if there is none */
};

/* A row's entries while they are summed up. */
struct melu__chain {
  size_t n;
  uint32_t *entries;         /* by ascending node */
  struct melu__slots *nodes; /* theirs */
  size_t entries_capacity, nodes_capacity;
};

struct melu__table_grad {
  size_t cols;
  uint32_t *rows; /* of the entries, in the order in which they were first met */
  size_t n, capacity;
  real *values; /* (n, cols) */
  size_t values_capacity;
  uint32_t *place; /* per row of the table: 1 + its last entry, 0 if it has none */
  size_t n_places;
  size_t n_slots; /* 1: there is but one node, and the rest says nothing */
  struct melu__met *met;
  size_t met_capacity;
  size_t first;            /* entries from there on may be summed up with new ones */
  size_t current;          /* those from there on are of `node` */
  struct melu__slots node; /* what comes now belongs to */
  struct melu__chain chain;
};

void melu__table_grad_free(struct melu__table_grad *r, const struct melu_allocator *a);

/* Makes room for so many rows of the table, while there is no entry. Returns 0 if there is no memory. */
int melu__table_grad_fit(struct melu__table_grad *r, const struct melu_allocator *a, size_t n_rows);

/* Takes all entries away; those that follow come from nodes of so many slots. */
void melu__table_grad_empty(struct melu__table_grad *r, size_t n_slots);

/* What comes from here on comes from that node. No row may come from two nodes one of which is inside the other. */
void melu__table_grad_enter(struct melu__table_grad *r, struct melu__slots node);

/* The entry of that row and the present node, zeros if there was none; MELU__NO_PLACE if there is no memory. */
#define MELU__NO_PLACE UINT32_MAX
uint32_t melu__table_grad_meet(struct melu__table_grad *r, const struct melu_allocator *a, uint32_t row);

/* Sums up each row's entries since the last such call along the tree, to one that belongs to `node`. Returns 0 if there
 * is no memory. */
int melu__table_grad_sum(struct melu__table_grad *r, const melu_context *ctx, struct melu__slots node);

/* Of a row that has one entry. */
static inline real *melu__table_grad_row(const struct melu__table_grad *r, uint32_t row) {
  return r->values + (size_t)(r->place[row] - 1) * r->cols;
}

#endif
