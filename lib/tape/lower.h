/* SPDX-License-Identifier: BSD-3-Clause */
/* The planner's second pass: from nodes to instructions. Sums of products and matrices, biases, ReLUs and their masks
 * become single instructions (struct melu__sum); every other node is an instruction of its own. */
#ifndef MELU__LOWER_H
#define MELU__LOWER_H

#include "tape/tape.h"

struct melu__factor {
  melu__ref a, b; /* a: MELU__NO_NODE for ones */
  int trans_a;
  double scale;
};

struct melu__addend {
  melu__ref value; /* MELU__NO_NODE: none */
  double scale;
};

/* A value is a node's, by the node's number, or a partial sum's, numbered from n_nodes on. */
struct melu__instr {
  int is_sum;         /* else: the op of node `out` */
  melu__ref out, pre; /* pre: MELU__NO_NODE if not wanted */
  size_t n_products, n_terms;
  struct melu__factor product[2];
  struct melu__addend term[2], row, number, post;
  int relu;
  melu__ref mask;
};

struct melu__code {
  const struct melu_allocator *alloc;
  struct melu__instr *instrs; /* in the order of the run */
  size_t n, capacity;
  melu__ref *partial_of; /* of value n_nodes + i: the node whose shape it has */
  size_t n_partials, partials_capacity;
};

/* Instructions for what the nodes `keep` of a simplified tape need. Returns 0 if there is no memory. */
int melu__lower(struct melu__code *code, const struct melu__tape *t, const melu__ref *keep, size_t n_keep);
void melu__code_free(struct melu__code *code);

/* Calls visit for every value that the instruction reads. */
void melu__instr_reads(const struct melu__instr *in, const struct melu__tape *t,
                       void (*visit)(void *arg, melu__ref value), void *arg);

#endif
