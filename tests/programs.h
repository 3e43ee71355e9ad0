/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Random recordings of any op, with values that stay of moderate size and away from the kinks of RELU and STEP. */
#ifndef MELU_TESTS_PROGRAMS_H
#define MELU_TESTS_PROGRAMS_H

#include "naive.h"
#include "support.h"

enum { PROGRAM_MAX = 512, PROGRAM_TABLE = 4, PROGRAM_BAGS = 3, PROGRAM_INPUTS = 7 };

struct program {
  struct test_heap heap;
  struct melu_allocator allocator;
  struct melu__tape tape;
  struct setting setting;
  struct matrix values[PROGRAM_MAX]; /* of the nodes so far */
  uint64_t random;
  melu__ref positive_definite; /* a node */
};

static inline melu__ref program_keep(struct program *p, melu__ref node) {
  if (p->tape.status || node >= PROGRAM_MAX) ck_abort_msg("a program failed, or is too long");
  for (size_t i = 0; i <= node; i++)
    if (!p->values[i].v) naive_node(p->values, &p->tape, i, &p->setting);
  return node;
}

static inline size_t program_size(struct program *p) {
  static const size_t sizes[] = {1, 1, 2, 2, 3, 3, 4, 4, 5, 0};
  return sizes[random_below(&p->random, sizeof sizes / sizeof *sizes)];
}

/* Inputs of the shapes that some ops ask for, and of any. */
static inline void program_inputs(struct program *p) {
  const size_t n = PROGRAM_BAGS;
  for (uint32_t i = 0; i < PROGRAM_INPUTS; i++) {
    const size_t rows = i == 1             ? PROGRAM_TABLE
                        : i == 2 || i == 5 ? n
                        : i == 3           ? 1
                                           : program_size(p),
                 cols = i == 1 || i == 3 ? 3
                        : i == 2         ? n
                                         : program_size(p);
    p->setting.slot[i] = random_matrix(&p->random, rows, cols);
    if (i == 2)
      for (size_t k = 0; k < n; k++) p->setting.slot[i].v[k * n + k] += 12;
    const melu__ref node = program_keep(p, melu__tape_input(&p->tape, i, rows, cols));
    if (i == 2) p->positive_definite = node;
  }
  p->setting.bags[0] = random_bags(&p->random, PROGRAM_BAGS, PROGRAM_TABLE);
}

static inline int program_all(struct matrix m, double low, double high) {
  for (size_t i = 0; i < size_of(m); i++)
    if (!(fabs(m.v[i]) >= low && m.v[i] > -high && m.v[i] < high)) return 0;
  return 1;
}

/* A node whose shape has these rows and columns, SIZE_MAX standing for any; NO_NODE if a few draws did not find one. */
static inline melu__ref program_find(struct program *p, size_t rows, size_t cols) {
  for (size_t tries = 0; tries < 4 * p->tape.n; tries++) {
    const melu__ref i = random_below(&p->random, (uint32_t)p->tape.n);
    const struct melu__node *n = &p->tape.nodes[i];
    if ((rows == SIZE_MAX || n->rows == rows) && (cols == SIZE_MAX || n->cols == cols)) return i;
  }
  return MELU__NO_NODE;
}

/* Records one op on nodes that fit; NO_NODE if there were none. */
static inline melu__ref program_op(struct program *p, enum melu__op op) {
  struct melu__tape *t = &p->tape;
  const int ta = random_below(&p->random, 2) != 0, tb = random_below(&p->random, 2) != 0;
  const double s = (double)(int)random_below(&p->random, 5) / 2 - 1;
  const size_t size = program_size(p);
  const melu__ref a = program_find(p,
                                   op == MELU__ROWS || op == MELU__FILL ? 1
                                   : op == MELU__BAG                    ? PROGRAM_TABLE
                                   : op == MELU__BAG_T                  ? PROGRAM_BAGS
                                                                        : SIZE_MAX,
                                   op == MELU__FILL ? 1 : SIZE_MAX);
  if (a == MELU__NO_NODE) return MELU__NO_NODE;
  const size_t rows = t->nodes[a].rows, cols = t->nodes[a].cols, inner = ta ? rows : cols;
  const melu__ref b = op == MELU__MATMUL    ? program_find(p, tb ? SIZE_MAX : inner, tb ? inner : SIZE_MAX)
                      : op == MELU__ADD_ROW ? program_find(p, 1, cols)
                      : op == MELU__CONCAT  ? program_find(p, rows, SIZE_MAX)
                      : op == MELU__SOLVE   ? program_find(p, PROGRAM_BAGS, SIZE_MAX)
                                            : program_find(p, rows, cols);
  if (melu__ops[op].arity > 1 && b == MELU__NO_NODE) return MELU__NO_NODE;
  switch (op) {
    case MELU__CONST:
      return melu__tape_const(t, rows, cols, s);
    case MELU__MATMUL:
      return melu__tape_matmul(t, a, b, ta, tb);
    case MELU__ADD:
      return melu__tape_add(t, a, b);
    case MELU__SUB:
      return melu__tape_sub(t, a, b);
    case MELU__MUL:
      return melu__tape_mul(t, a, b);
    case MELU__SCALE:
      return melu__tape_scale(t, a, s);
    case MELU__ADD_ROW:
      return melu__tape_add_row(t, a, b);
    case MELU__SUM_ROWS:
      return melu__tape_sum_rows(t, a);
    case MELU__ROWS:
      return melu__tape_rows(t, a, size);
    case MELU__SUM_ALL:
      return melu__tape_sum_all(t, a);
    case MELU__FILL:
      return melu__tape_fill(t, a, size, ta ? 2 : 1);
    case MELU__RELU:
    case MELU__STEP:
      if (!program_all(p->values[a], 1e-2, INFINITY)) return MELU__NO_NODE;
      return op == MELU__RELU ? melu__tape_relu(t, a) : melu__tape_step(t, a);
    case MELU__SIGMOID:
      return melu__tape_sigmoid(t, a);
    case MELU__LOG: /* of a number that is above 0 */
      return melu__tape_log(t, melu__tape_add(t, melu__tape_sigmoid(t, a), melu__tape_const(t, rows, cols, 0.25)));
    case MELU__RECIP:
      return program_all(p->values[a], 0.25, INFINITY) ? melu__tape_recip(t, a) : MELU__NO_NODE;
    case MELU__TRANSPOSE:
      return melu__tape_transpose(t, a);
    case MELU__CONCAT:
      return cols + t->nodes[b].cols > 7 ? MELU__NO_NODE : melu__tape_concat(t, a, b);
    case MELU__SLICE: {
      const size_t first = random_below(&p->random, (uint32_t)cols + 1);
      return melu__tape_slice(t, a, first, random_below(&p->random, (uint32_t)(cols - first) + 1));
    }
    case MELU__BAG:
      return melu__tape_bag(t, a, 0, PROGRAM_BAGS);
    case MELU__BAG_T:
      return melu__tape_bag_t(t, a, 0, PROGRAM_TABLE);
    case MELU__SOLVE:
      if (rows == PROGRAM_BAGS && ta) /* a matrix that depends on more than the input */
        p->positive_definite = melu__tape_add(t, p->positive_definite, melu__tape_matmul(t, a, a, 0, 1));
      return melu__tape_solve(t, p->positive_definite, b);
    case MELU__DETACH:
      return melu__tape_detach(t, a);
    case MELU__INPUT:
    case MELU__N_OPS:
      break;
  }
  return MELU__NO_NODE;
}

/* A program of n_ops ops, each op in its turn. Without `detach`, its derivative is what differences say. */
static inline struct program *program_new(uint64_t seed, size_t n_ops, int detach) {
  struct program *p = test_memory(1, sizeof *p);
  p->random = seed;
  p->allocator = test_allocator(&p->heap);
  melu__tape_init(&p->tape, &p->allocator);
  program_inputs(p);
  for (size_t k = 0; k < n_ops; k++) {
    const enum melu__op op = (enum melu__op)random_below(&p->random, MELU__N_OPS);
    if (op == MELU__DETACH && !detach) continue;
    const melu__ref node = program_op(p, op);
    if (node == MELU__NO_NODE) continue;
    program_keep(p, (melu__ref)p->tape.n - 1);
    double s = 1;
    while (!program_all(p->values[node], 0, 8 / s)) s /= 4;
    if (s < 1) program_keep(p, melu__tape_scale(&p->tape, node, s));
  }
  return p;
}

static inline void program_free(struct program *p) {
  for (size_t i = 0; i < PROGRAM_MAX; i++) free(p->values[i].v);
  setting_free(&p->setting);
  melu__tape_free(&p->tape);
  ck_assert_uint_eq(p->heap.live, 0);
  free(p);
}

#endif
