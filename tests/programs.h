/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Random recordings of any op, with values that stay of moderate size and away from the kinks of RELU and STEP, and
 * plans of them. Who has bytes from elsewhere decides by them what is recorded. */
#ifndef MELU_TESTS_PROGRAMS_H
#define MELU_TESTS_PROGRAMS_H

#include "naive.h"
#include "support.h"

enum { PROGRAM_MAX = 512, PROGRAM_TABLE = 4, PROGRAM_BAGS = 3, PROGRAM_INPUTS = 7, PROGRAM_OUTPUTS = 40 };

struct program {
  struct test_heap heap;
  struct melu_allocator allocator;
  struct melu__tape tape;
  struct setting setting;
  struct matrix values[PROGRAM_MAX]; /* of the nodes so far */
  uint64_t random;
  const unsigned char *bytes;                         /* draws come from these while there are any */
  size_t n_bytes, common;                             /* a size */
  melu__ref positive_definite;                        /* a node */
  uint32_t transposed[NAIVE_SLOTS + PROGRAM_OUTPUTS]; /* for plans: the slots with the transposes of these, or 0 */
};

static inline uint32_t program_below(struct program *p, uint32_t n) {
  if (!p->n_bytes) return random_below(&p->random, n);
  p->n_bytes--;
  return *p->bytes++ % n;
}

static inline melu__ref program_keep(struct program *p, melu__ref node) {
  if (p->tape.status || node >= PROGRAM_MAX) TEST_WRONG("a program failed, or is too long");
  for (size_t i = 0; i <= node; i++)
    if (!p->values[i].v) naive_node(p->values, &p->tape, i, &p->setting);
  return node;
}

/* Bytes from elsewhere may ask for larger matrices, and for many of one size, which all ops take. */
static inline size_t program_size(struct program *p) {
  static const size_t sizes[] = {1, 1, 2, 2, 3, 3, 4, 4, 5, 0, 6, 7, 8, 9, 15, 16, 17, 25, 33};
  enum { SMALL = 10, ALL = sizeof sizes / sizeof *sizes };
  const uint32_t i = program_below(p, p->n_bytes ? 2 * ALL : SMALL);
  return i < ALL ? sizes[i] : p->common;
}

/* Sets every by-th number to zero; by 0: none. */
static inline void program_thin(struct program *p, struct matrix m, uint32_t by) {
  for (size_t i = by ? program_below(p, by) : size_of(m); i < size_of(m); i += by) m.v[i] = 0;
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
    if (p->n_bytes) program_thin(p, p->setting.slot[i], program_below(p, 4));
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

/* Where the search for an operand begins: by bytes mostly at one of the last nodes, so that things depend on each
 * other. */
static inline size_t program_start(struct program *p) {
  const size_t n_nodes = p->tape.n;
  if (!p->n_bytes) return random_below(&p->random, (uint32_t)n_nodes);
  const uint32_t draw = program_below(p, 256);
  return draw < 160 && n_nodes > 8 ? n_nodes - 1 - draw % 8 : draw % n_nodes;
}

/* By bytes more of what is fused. */
static inline enum melu__op program_draw_op(struct program *p) {
  static const uint8_t more[] = {MELU__MATMUL, MELU__MATMUL, MELU__MATMUL, MELU__ADD, MELU__ADD,
                                 MELU__SUB,    MELU__MUL,    MELU__SCALE,  MELU__RELU};
  const uint32_t i = program_below(p, p->n_bytes ? MELU__N_OPS + sizeof more : MELU__N_OPS);
  return (enum melu__op)(i < MELU__N_OPS ? i : more[i - MELU__N_OPS]);
}

/* A node whose shape has these rows and columns, SIZE_MAX standing for any; NO_NODE if there is none. */
static inline melu__ref program_find(struct program *p, size_t rows, size_t cols) {
  const size_t n_nodes = p->tape.n, first = program_start(p);
  for (size_t tries = 0; tries < n_nodes; tries++) {
    const melu__ref i = (melu__ref)((first + tries) % n_nodes);
    const struct melu__node *n = &p->tape.nodes[i];
    if ((rows == SIZE_MAX || n->rows == rows) && (cols == SIZE_MAX || n->cols == cols)) return i;
  }
  return MELU__NO_NODE;
}

/* A node with as many rows as columns. */
static inline melu__ref program_square(struct program *p) {
  const size_t n_nodes = p->tape.n, first = program_start(p);
  for (size_t tries = 0; tries < n_nodes; tries++) {
    const melu__ref i = (melu__ref)((first + tries) % n_nodes);
    if (p->tape.nodes[i].rows == p->tape.nodes[i].cols) return i;
  }
  return MELU__NO_NODE;
}

/* Operands that fit the op. */
static inline melu__ref program_first(struct program *p, enum melu__op op) {
  if (op == MELU__FILL) return program_find(p, 1, 1);
  if (op == MELU__COLS) return program_below(p, 2) ? program_find(p, 1, SIZE_MAX) : program_find(p, SIZE_MAX, 1);
  if (op == MELU__ROWS || op == MELU__DIAG) return program_find(p, 1, SIZE_MAX);
  if (op == MELU__DIAGONAL) return program_square(p);
  if (op == MELU__BAG) return program_find(p, PROGRAM_TABLE, SIZE_MAX);
  if (op == MELU__BAG_T) return program_find(p, PROGRAM_BAGS, SIZE_MAX);
  return program_find(p, SIZE_MAX, SIZE_MAX);
}

static inline melu__ref program_second(struct program *p, enum melu__op op, melu__ref a, int ta, int tb) {
  const size_t rows = p->tape.nodes[a].rows, cols = p->tape.nodes[a].cols, inner = ta ? rows : cols;
  if (op == MELU__MATMUL) return tb ? program_find(p, SIZE_MAX, inner) : program_find(p, inner, SIZE_MAX);
  if (op == MELU__ADD_ROW) return program_find(p, 1, cols);
  if (op == MELU__CONCAT) return cols > 4 ? MELU__NO_NODE : program_find(p, rows, SIZE_MAX);
  if (op == MELU__SOLVE) return program_find(p, PROGRAM_BAGS, SIZE_MAX);
  return program_find(p, rows, cols);
}

/* a, made to be above 0. */
static inline melu__ref program_positive(struct program *p, melu__ref a) {
  struct melu__tape *t = &p->tape;
  const melu__ref quarter = melu__tape_const(t, t->nodes[a].rows, t->nodes[a].cols, 0.25);
  return melu__tape_add(t, melu__tape_sigmoid(t, a), quarter);
}

static inline melu__ref program_slice(struct program *p, melu__ref a) {
  const uint32_t cols = p->tape.nodes[a].cols, first = program_below(p, cols + 1);
  return melu__tape_slice(&p->tape, a, first, program_below(p, cols - first + 1));
}

/* With a matrix that depends on more and more nodes. */
static inline melu__ref program_solve(struct program *p, melu__ref a, melu__ref b) {
  struct melu__tape *t = &p->tape;
  if (t->nodes[a].rows == PROGRAM_BAGS)
    p->positive_definite = melu__tape_add(t, p->positive_definite, melu__tape_matmul(t, a, a, 0, 1));
  return melu__tape_solve(t, p->positive_definite, b);
}

/* Records one op on nodes that fit; NO_NODE if there were none. */
static inline melu__ref program_op(struct program *p, enum melu__op op) {
  struct melu__tape *t = &p->tape;
  const int ta = program_below(p, 2) != 0, tb = program_below(p, 2) != 0;
  const double s = (double)program_below(p, 5) / 2 - 1;
  const size_t size = program_size(p);
  const melu__ref a = program_first(p, op);
  const melu__ref b = a == MELU__NO_NODE ? a : program_second(p, op, a, ta, tb);
  if (a == MELU__NO_NODE || (melu__ops[op].arity > 1 && b == MELU__NO_NODE)) return MELU__NO_NODE;
  const int kink = (op == MELU__RELU || op == MELU__STEP) && t->nodes[a].op != MELU__INPUT; /* there it is exact */
  const double nearest = op == MELU__RECIP ? 0.25 : kink ? 0.01 : 0;
  if (!program_all(p->values[a], nearest, INFINITY)) return MELU__NO_NODE;
  switch (op) {
    case MELU__CONST:
      return melu__tape_const(t, t->nodes[a].rows, t->nodes[a].cols, s);
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
    case MELU__SUM_COLS:
      return melu__tape_sum_cols(t, a, ta);
    case MELU__COLS:
      return melu__tape_cols(t, a, t->nodes[a].rows == 1, ta ? size : p->common);
    case MELU__SUM_ALL:
      return melu__tape_sum_all(t, a);
    case MELU__FILL:
      return melu__tape_fill(t, a, size, ta ? 2 : 1);
    case MELU__RELU:
      return melu__tape_relu(t, a);
    case MELU__STEP:
      return melu__tape_step(t, a);
    case MELU__SIGMOID:
      return melu__tape_sigmoid(t, a);
    case MELU__LOG:
      return melu__tape_log(t, program_positive(p, a));
    case MELU__RECIP:
      return melu__tape_recip(t, a);
    case MELU__SQRT:
      return melu__tape_sqrt(t, program_positive(p, a));
    case MELU__TRANSPOSE:
      return melu__tape_transpose(t, a);
    case MELU__CONCAT:
      return melu__tape_concat(t, a, b);
    case MELU__SLICE:
      return program_slice(p, a);
    case MELU__DIAG:
      return melu__tape_diag(t, a);
    case MELU__DIAGONAL:
      return melu__tape_diagonal(t, a);
    case MELU__BAG:
      return melu__tape_bag(t, a, 0, PROGRAM_BAGS);
    case MELU__BAG_T:
      return melu__tape_bag_t(t, a, 0, PROGRAM_TABLE);
    case MELU__SOLVE:
      return program_solve(p, a, b);
    case MELU__DETACH:
      return melu__tape_detach(t, a);
    case MELU__INPUT:
    case MELU__N_OPS:
      break;
  }
  return MELU__NO_NODE;
}

static inline void program_record(struct program *p, size_t n_ops, int detach) {
  for (size_t k = 0; k < n_ops; k++) {
    const enum melu__op op = program_draw_op(p);
    if (op == MELU__DETACH && !detach) continue;
    const melu__ref node = program_op(p, op);
    if (node == MELU__NO_NODE) continue;
    program_keep(p, (melu__ref)p->tape.n - 1);
    double s = 1;
    while (!program_all(p->values[node], 0, 8 / s)) s /= 4;
    if (s < 1) program_keep(p, melu__tape_scale(&p->tape, node, s));
  }
}

static inline struct program *program_begin(uint64_t seed, const unsigned char *bytes, size_t n_bytes) {
  struct program *p = test_memory(1, sizeof *p);
  p->random = seed;
  p->bytes = bytes;
  p->n_bytes = n_bytes;
  p->allocator = test_allocator(&p->heap);
  melu__tape_init(&p->tape, &p->allocator);
  p->common = program_size(p);
  program_inputs(p);
  return p;
}

/* A program of n_ops ops, each op in its turn. Without `detach`, its derivative is what differences say. */
static inline struct program *program_new(uint64_t seed, size_t n_ops, int detach) {
  struct program *p = program_begin(seed, NULL, 0);
  program_record(p, n_ops, detach);
  return p;
}

static inline void program_free(struct program *p) {
  for (size_t i = 0; i < PROGRAM_MAX; i++) free(p->values[i].v);
  setting_free(&p->setting);
  melu__tape_free(&p->tape);
  if (p->heap.live) TEST_WRONG("a program has lost memory");
  free(p);
}

/* Chooses outputs of a plan, from 1 to `max`: some of the program's values go out, some twice, some to where there is
 * something already. */
static inline size_t program_outputs(struct program *p, struct melu__output *outputs, size_t max) {
  const size_t n = 1 + program_below(p, (uint32_t)max);
  for (uint32_t i = 0; i < n; i++)
    outputs[i] = (struct melu__output){program_below(p, (uint32_t)p->tape.n), NAIVE_SLOTS + i, program_below(p, 3) == 0,
                                       NAIVE_SLOTS + i};
  return n;
}

/* The values of n outputs by a plan, to be freed each, without what they were added to. */
static inline void program_run(struct matrix *out, const struct program *p, const struct melu__output *outputs,
                               size_t n, const struct melu__kernels *kernels) {
  struct melu__plan *plan;
  melu_error err;
  struct matrix *again = test_memory(n, sizeof *again);
  for (size_t i = 0; i < n; i++) {
    const struct melu__node *node = &p->tape.nodes[outputs[i].node];
    out[i] = new_matrix(node->rows, node->cols);
    again[i] = new_matrix(node->rows, node->cols);
    for (size_t k = 0; k < size_of(out[i]); k++) out[i].v[k] = again[i].v[k] = 0.5; /* where the run adds */
  }
  size_t *ld = plan_gaps(&p->setting, out, n);
  const struct melu__plan_setting setting = {p->tape.alloc, kernels, ld, p->transposed, 0, 1};
  if (melu__plan_new(&plan, &setting, &p->tape, outputs, n, &err)) TEST_WRONG("%s", err.message);
  plan_run(plan, &p->setting, outputs, out, n, (real)NAN);
  plan_run(plan, &p->setting, outputs, again, n, (real)1e30);
  for (size_t i = 0; i < n; i++) {
    if (size_of(out[i]) && memcmp(out[i].v, again[i].v, size_of(out[i]) * sizeof *out[i].v) != 0)
      TEST_WRONG("%s: output %zu depends on what was in the arena", kernels->name, i);
    for (size_t k = 0; k < size_of(out[i]); k++) out[i].v[k] -= outputs[i].add ? 0.5 : 0;
    free(again[i].v);
  }
  free(again);
  free(ld);
  melu__plan_free(plan);
}

#endif
