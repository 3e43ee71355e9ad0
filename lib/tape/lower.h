/* SPDX-License-Identifier: BSD-3-Clause */
/* The planner's second pass: from nodes to instructions. Sums of products and matrices, biases, ReLUs and their masks
 * become single instructions (struct melu__sum); every other node is an instruction of its own. */
#ifndef MELU__LOWER_H
#define MELU__LOWER_H

#include "tape/tape.h"
#include "tensor/sum.h"

struct melu__factor {
  melu__ref a, b; /* MELU__NO_NODE for ones */
  int trans_a;
  int diagonal; /* of a b', whose sums are those of the rows of a and b multiplied element by element */
  double scale;
};

struct melu__addend {
  melu__ref value; /* MELU__NO_NODE: none */
  melu__ref by;    /* a vector: its row i is multiplied by number i of that; MELU__NO_NODE: by nothing */
  int whole;       /* it is a row, as is `by`, and they are multiplied element by element */
  double scale;
};

/* Of the sums of the rows of a and b multiplied element by element; a: MELU__NO_NODE for the products. */
struct melu__pair {
  melu__ref a, b;
  double scale;
};

/* A value is a node's, by the node's number, or a partial sum's, numbered from n_nodes on. */
struct melu__instr {
  int is_sum;                    /* else: the op of node `out` */
  melu__ref out, pre, raw, sums; /* those but `out` MELU__NO_NODE if not wanted */
  size_t n_products, n_terms, n_pairs;
  struct melu__factor product[2];
  melu__ref by; /* of the products, as in an addend */
  double by_scale;
  struct melu__pair pair[2];
  struct melu__addend term[MELU__SUM_TERMS], row, number, post;
  int relu, step; /* what becomes of the sum */
  melu__ref mask;
};

struct melu__code {
  const struct melu_allocator *alloc;
  struct melu__instr *instrs; /* in the order of the run */
  size_t n, capacity;
  melu__ref *partial_of; /* of value n_nodes + i: the node whose shape it has */
  size_t n_partials, partials_capacity;
};

/* Instructions for what the nodes `keep` of a simplified tape need; joins_rows is struct melu__plan_setting's. Returns
 * 0 if there is no memory. */
int melu__lower(struct melu__code *code, const struct melu__tape *t, const melu__ref *keep, size_t n_keep,
                int joins_rows);
void melu__code_free(struct melu__code *code);

/* Calls visit for every value that the instruction reads. */
void melu__instr_reads(const struct melu__instr *in, const struct melu__tape *t,
                       void (*visit)(void *arg, melu__ref value), void *arg);

#endif
