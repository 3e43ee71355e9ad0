/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the tape, its gradients and its plans are held against: a tape computed by plain loops in double, in the order
 * of recording, every node in memory of its own. And a plan of some nodes, run so that whatever it reads or writes
 * without a right shows: the arena is filled with NaN, everything is surrounded by guards.
 *
 * Nothing is checked by ck_assert, which is a system call also when all is well. */
#ifndef MELU_TESTS_NAIVE_H
#define MELU_TESTS_NAIVE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "tape/ops.h"
#include "tape/plan.h"

/* How a fault is reported; a program without Check has its own way. */
#ifndef TEST_WRONG
#include <check.h>
#define TEST_WRONG ck_abort_msg
#endif

enum { NAIVE_SLOTS = 64, NAIVE_BAGS = 2, NAIVE_GUARD = 16 };

struct matrix {
  size_t rows, cols;
  double *v; /* dense */
};

/* What a run is given. Slots that no node reads are all zeros. */
struct setting {
  struct matrix slot[NAIVE_SLOTS];
  struct melu__bags bags[NAIVE_BAGS];
};

/* --------------------------------------------------------------------------------------------- small things */

static inline uint32_t random_below(uint64_t *state, uint32_t n) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((*state >> 33) % n);
}

/* In [-2, 2], and the same number in float and double. */
static inline double random_number(uint64_t *state) {
  return ((double)random_below(state, 4097) - 2048) / 1024;
}

static inline void *test_memory(size_t n, size_t size) {
  void *p = calloc(n ? n : 1, size);
  if (!p) TEST_WRONG("no memory for a test");
  return p;
}

static inline struct matrix new_matrix(size_t rows, size_t cols) {
  return (struct matrix){rows, cols, test_memory(rows * cols, sizeof(double))};
}

static inline struct matrix random_matrix(uint64_t *state, size_t rows, size_t cols) {
  const struct matrix m = new_matrix(rows, cols);
  for (size_t i = 0; i < rows * cols; i++) m.v[i] = random_number(state);
  return m;
}

static inline size_t size_of(struct matrix m) {
  return m.rows * m.cols;
}

/* Bags of at most three rows each of a table; some are empty, some name a row twice. */
static inline struct melu__bags random_bags(uint64_t *state, size_t n_bags, size_t n_rows) {
  uint32_t *offsets = test_memory(n_bags + 1, sizeof *offsets), *ids = test_memory(3 * n_bags, sizeof *ids);
  for (size_t i = 0; i < n_bags; i++) {
    const uint32_t n = n_rows ? random_below(state, 4) : 0;
    for (uint32_t k = 0; k < n; k++) ids[offsets[i] + k] = random_below(state, (uint32_t)n_rows);
    offsets[i + 1] = offsets[i] + n;
  }
  return (struct melu__bags){offsets, ids};
}

/* The i-th of the kernel sets that this CPU can run, NULL after the last. */
static inline const struct melu__kernels *usable_kernels(size_t i) {
  for (size_t k = 0; melu__kernel_sets[k]; k++)
    if (melu__kernels_usable(melu__kernel_sets[k]) && i-- == 0) return melu__kernel_sets[k];
  return NULL;
}

static inline void setting_free(struct setting *s) {
  for (size_t i = 0; i < NAIVE_SLOTS; i++) free(s->slot[i].v);
  for (size_t i = 0; i < NAIVE_BAGS; i++) {
    free((void *)(uintptr_t)s->bags[i].offsets);
    free((void *)(uintptr_t)s->bags[i].ids);
  }
  memset(s, 0, sizeof *s);
}

/* The largest distance of two arrays, relative to the largest entry of `b` or to `floor`. Infinite where one of them is
 * not finite. */
static inline double worst_error(const double *a, const double *b, size_t n, double floor) {
  double worst = 0, largest = floor;
  for (size_t i = 0; i < n; i++) {
    if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
    if (fabs(a[i] - b[i]) > worst) worst = fabs(a[i] - b[i]);
    if (fabs(b[i]) > largest) largest = fabs(b[i]);
  }
  return worst == 0 ? 0 : worst / largest;
}

/* ------------------------------------------------------------------------------------------ the naive machine */

static inline void naive_matmul(const struct melu__node *n, struct matrix a, struct matrix b, double *out) {
  const size_t inner = n->trans_a ? a.rows : a.cols;
  for (size_t i = 0; i < n->rows; i++)
    for (size_t j = 0; j < n->cols; j++) {
      double sum = 0;
      for (size_t k = 0; k < inner; k++)
        sum += (n->trans_a ? a.v[k * a.cols + i] : a.v[i * a.cols + k]) *
               (n->trans_b ? b.v[j * b.cols + k] : b.v[k * b.cols + j]);
      out[i * n->cols + j] = sum;
    }
}

/* Gauss-Jordan with pivots, on the symmetric part of a. */
static inline void naive_solve(struct matrix a, struct matrix b, double *out) {
  const size_t n = a.rows, m = b.cols;
  double *s = test_memory(n * n, sizeof *s);
  memcpy(out, b.v, n * m * sizeof *out);
  for (size_t i = 0; i < n * n; i++) s[i] = (a.v[i] + a.v[i % n * n + i / n]) / 2;
  for (size_t c = 0; c < n; c++) {
    size_t pivot = c;
    for (size_t i = c; i < n; i++)
      if (fabs(s[i * n + c]) > fabs(s[pivot * n + c])) pivot = i;
    for (size_t j = 0; j < n + m; j++) {
      double *x = j < n ? &s[c * n + j] : &out[c * m + j - n], *y = j < n ? &s[pivot * n + j] : &out[pivot * m + j - n];
      const double swap = *x;
      *x = *y;
      *y = swap;
    }
    const double by = s[c * n + c];
    for (size_t j = 0; j < n; j++) s[c * n + j] /= by;
    for (size_t j = 0; j < m; j++) out[c * m + j] /= by;
    for (size_t i = 0; i < n; i++) {
      const double times = s[i * n + c];
      if (i == c) continue;
      for (size_t j = 0; j < n; j++) s[i * n + j] -= times * s[c * n + j];
      for (size_t j = 0; j < m; j++) out[i * m + j] -= times * out[c * m + j];
    }
  }
  free(s);
}

static inline void naive_bag(const struct melu__node *n, struct matrix a, const struct melu__bags *bags, double *out) {
  const size_t n_bags = n->op == MELU__BAG ? n->rows : a.rows;
  for (size_t i = 0; i < n_bags; i++) {
    const uint32_t begin = bags->offsets[i], end = bags->offsets[i + 1];
    for (uint32_t k = begin; k < end; k++)
      for (size_t j = 0; j < n->cols; j++) {
        const double share = 1.0 / (end - begin);
        if (n->op == MELU__BAG)
          out[i * n->cols + j] += share * a.v[bags->ids[k] * a.cols + j];
        else
          out[bags->ids[k] * n->cols + j] += share * a.v[i * a.cols + j];
      }
  }
}

/* Sums and broadcasts: each entry of the wider side belongs to one of the narrower. */
static inline void naive_reduce(const struct melu__node *n, struct matrix a, double *out) {
  for (size_t i = 0; i < a.rows; i++)
    for (size_t j = 0; j < a.cols; j++)
      out[n->op == MELU__SUM_ALL ? 0 : n->op == MELU__SUM_COLS ? i : j] += a.v[i * a.cols + j];
}

static inline double naive_entry(const struct melu__node *n, struct matrix a, struct matrix b, size_t i, size_t j) {
  const double x = i < a.rows && j < a.cols ? a.v[i * a.cols + j] : 0;
  const double y = i < b.rows && j < b.cols ? b.v[i * b.cols + j] : 0;
  switch (n->op) {
    case MELU__CONST:
      return n->s;
    case MELU__ADD:
      return x + y;
    case MELU__SUB:
      return x - y;
    case MELU__MUL:
      return x * y;
    case MELU__SCALE:
      return n->s * x;
    case MELU__ADD_ROW:
      return x + b.v[j];
    case MELU__ROWS:
      return a.v[j];
    case MELU__COLS:
      return a.v[i];
    case MELU__FILL:
      return a.v[0];
    case MELU__RELU:
      return x > 0 ? x : 0;
    case MELU__STEP:
      return x > 0;
    case MELU__SIGMOID:
      return 1 / (1 + exp(-x));
    case MELU__LOG:
      return log(x);
    case MELU__RECIP:
      return 1 / x;
    case MELU__SQRT:
      return sqrt(x);
    case MELU__TRANSPOSE:
      return a.v[j * a.cols + i];
    case MELU__CONCAT:
      return j < a.cols ? x : b.v[i * b.cols + j - a.cols];
    case MELU__SLICE:
      return a.v[i * a.cols + n->index + j];
    case MELU__DIAG:
      return i == j ? a.v[j] : 0;
    case MELU__DIAGONAL:
      return a.v[j * a.cols + j];
    case MELU__DETACH:
      return x;
    default:
      TEST_WRONG("%s has no naive loop: add one", melu__ops[n->op].name);
  }
}

/* Computes node i from the nodes before it. */
static inline void naive_node(struct matrix *values, const struct melu__tape *t, size_t i, const struct setting *s) {
  const struct melu__node *n = &t->nodes[i];
  const struct matrix none = {0, 0, NULL}, a = melu__ops[n->op].arity > 0 ? values[n->a] : none,
                      b = melu__ops[n->op].arity > 1 ? values[n->b] : none;
  struct matrix out = new_matrix(n->rows, n->cols);
  values[i] = out;
  if (n->op == MELU__INPUT) {
    if (size_of(s->slot[n->index]) != size_of(out)) TEST_WRONG("slot %u has another size", (unsigned)n->index);
    if (size_of(out)) memcpy(out.v, s->slot[n->index].v, size_of(out) * sizeof *out.v);
  } else if (n->op == MELU__MATMUL) {
    naive_matmul(n, a, b, out.v);
  } else if (n->op == MELU__SOLVE) {
    naive_solve(a, b, out.v);
  } else if (n->op == MELU__BAG || n->op == MELU__BAG_T) {
    naive_bag(n, a, &s->bags[n->index], out.v);
  } else if (n->op == MELU__SUM_ROWS || n->op == MELU__SUM_COLS || n->op == MELU__SUM_ALL) {
    naive_reduce(n, a, out.v);
  } else {
    for (size_t k = 0; k < size_of(out); k++) out.v[k] = naive_entry(n, a, b, k / n->cols, k % n->cols);
  }
}

/* The values of the first n nodes of a tape; to be given to naive_free. */
static inline struct matrix *naive_run(const struct melu__tape *t, size_t n, const struct setting *s) {
  if (t->status) TEST_WRONG("the recording has failed: %s", melu_status_name(t->status));
  struct matrix *values = test_memory(n, sizeof *values);
  for (size_t i = 0; i < n; i++) naive_node(values, t, i, s);
  return values;
}

static inline void naive_free(struct matrix *values, size_t n) {
  for (size_t i = 0; i < n; i++) free(values[i].v);
  free(values);
}

/* ------------------------------------------------------------------------------------------------ a plan's run */

static const real guard = (real)-12345.5;

struct guarded {
  size_t rows, cols, ld;
  real *memory; /* NAIVE_GUARD numbers, rows of ld, NAIVE_GUARD numbers */
};

static inline struct guarded guarded_new(size_t rows, size_t cols, size_t gap) {
  struct guarded g = {rows, cols, cols + gap, NULL};
  const size_t n = rows * g.ld + 2 * NAIVE_GUARD;
  g.memory = test_memory(n, sizeof *g.memory);
  for (size_t i = 0; i < n; i++) g.memory[i] = guard;
  return g;
}

static inline struct melu__mat guarded_mat(struct guarded g) {
  return (struct melu__mat){g.memory + NAIVE_GUARD, g.ld};
}

static inline void guarded_check(struct guarded g) {
  for (size_t i = 0; i < g.rows * g.ld + 2 * NAIVE_GUARD; i++) {
    const size_t k = i - NAIVE_GUARD;
    if (i >= NAIVE_GUARD && k < g.rows * g.ld && k % g.ld < g.cols) continue;
    if (g.memory[i] != guard) TEST_WRONG("a run wrote beside a matrix");
  }
}

/* Fills the slots and outputs of a run. An output that is added to starts from what `out` holds. */
static inline void plan_fill(struct guarded *g, struct melu__mat *mats, const struct setting *s,
                             const struct melu__output *outputs, const struct matrix *out, size_t n) {
  for (size_t k = 0; k < NAIVE_SLOTS; k++) {
    const struct matrix m = s->slot[k];
    g[k] = guarded_new(m.rows, m.cols, k % 3);
    mats[k] = guarded_mat(g[k]);
    for (size_t i = 0; i < size_of(m); i++) mats[k].p[i / m.cols * mats[k].ld + i % m.cols] = (real)m.v[i];
  }
  for (size_t k = 0; k < n; k++) {
    struct melu__mat *to = &mats[outputs[k].slot];
    if (outputs[k].slot != NAIVE_SLOTS + k) TEST_WRONG("output %zu has another slot", k);
    g[NAIVE_SLOTS + k] = guarded_new(out[k].rows, out[k].cols, k % 2);
    *to = guarded_mat(g[NAIVE_SLOTS + k]);
    for (size_t i = 0; i < size_of(out[k]); i++)
      to->p[i / out[k].cols * to->ld + i % out[k].cols] = outputs[k].add ? (real)out[k].v[i] : (real)NAN;
  }
}

/* Reads the outputs, sees that nothing else was changed, and frees the memory. */
static inline void plan_read(struct guarded *g, const struct melu__mat *mats, const struct setting *s,
                             struct matrix *out, size_t n) {
  for (size_t k = 0; k < n; k++) {
    const struct melu__mat from = mats[NAIVE_SLOTS + k];
    for (size_t i = 0; i < size_of(out[k]); i++) out[k].v[i] = from.p[i / out[k].cols * from.ld + i % out[k].cols];
  }
  for (size_t k = 0; k < NAIVE_SLOTS; k++) {
    const struct matrix m = s->slot[k];
    for (size_t i = 0; i < size_of(m); i++)
      if (mats[k].p[i / m.cols * mats[k].ld + i % m.cols] != (real)m.v[i]) TEST_WRONG("a run changed an input");
  }
  for (size_t k = 0; k < NAIVE_SLOTS + n; k++) {
    guarded_check(g[k]);
    free(g[k].memory);
  }
}

/* The leading dimensions of the slots that plan_fill makes, to be freed. */
static inline size_t *plan_gaps(const struct setting *s, const struct matrix *out, size_t n) {
  size_t *ld = test_memory(NAIVE_SLOTS + n, sizeof *ld);
  for (size_t k = 0; k < NAIVE_SLOTS; k++) ld[k] = s->slot[k].cols + k % 3;
  for (size_t k = 0; k < n; k++) ld[NAIVE_SLOTS + k] = out[k].cols + k % 2;
  return ld;
}

/* Runs a plan whose i-th output has slot NAIVE_SLOTS + i. `garbage` is what the arena holds before. */
static inline void plan_run(const struct melu__plan *plan, const struct setting *s, const struct melu__output *outputs,
                            struct matrix *out, size_t n, real garbage) {
  struct guarded *g = test_memory(NAIVE_SLOTS + n, sizeof *g);
  struct melu__mat *mats = test_memory(NAIVE_SLOTS + n, sizeof *mats);
  real **slots = test_memory(NAIVE_SLOTS + n, sizeof *slots);
  const size_t size = melu__plan_arena_size(plan), line = MELU__ALIGN / sizeof(real);
  real *const arena = aligned_alloc(MELU__ALIGN, (size / line + 3) * MELU__ALIGN);
  if (!arena) TEST_WRONG("no memory for a test");
  for (size_t i = 0; i < size + 2 * line; i++) arena[i] = i >= line && i < line + size ? garbage : guard;
  plan_fill(g, mats, s, outputs, out, n);
  for (size_t k = 0; k < NAIVE_SLOTS + n; k++) slots[k] = mats[k].p;
  melu__plan_run(plan, slots, s->bags, arena + line);
  plan_read(g, mats, s, out, n);
  for (size_t i = 0; i < line; i++)
    if (arena[i] != guard || arena[line + size + i] != guard) TEST_WRONG("a run wrote beside its arena");
  free(arena);
  free(slots);
  free(mats);
  free(g);
}

/* The values of some nodes by a plan, to be freed each. */
static inline void plan_values(struct matrix *out, const struct melu__kernels *kernels, const struct melu__tape *t,
                               const melu__ref *nodes, size_t n, const struct setting *s) {
  struct melu__output *outputs = test_memory(n, sizeof *outputs);
  struct melu__plan *plan;
  melu_error err;
  for (size_t i = 0; i < n; i++) {
    outputs[i] = (struct melu__output){nodes[i], NAIVE_SLOTS + (uint32_t)i, 0, 0};
    out[i] = new_matrix(t->nodes[nodes[i]].rows, t->nodes[nodes[i]].cols);
  }
  if (melu__tape_status(t, &err)) TEST_WRONG("%s", err.message);
  size_t *ld = plan_gaps(s, out, n);
  const struct melu__plan_setting setting = {t->alloc, kernels, ld, NULL, 0, 1};
  if (melu__plan_new(&plan, &setting, t, outputs, n, &err)) TEST_WRONG("%s", err.message);
  plan_run(plan, s, outputs, out, n, (real)NAN);
  melu__plan_free(plan);
  free(ld);
  free(outputs);
}

#endif
