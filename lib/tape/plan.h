/* SPDX-License-Identifier: BSD-3-Clause */
/* A plan: a finished recording made runnable. Equal nodes are shared, dead ones dropped, and every intermediate result
 * has its place in one arena, reused when its last reader is done. A plan depends on shapes alone; it is const, and any
 * number of threads may run it at once, each on its own arena. */
#ifndef MELU__PLAN_H
#define MELU__PLAN_H

#include "tape/tape.h"
#include "tensor/kernels.h"

struct melu__plan;

/* Where a node's value goes at the end of a run: to the matrix in that slot; with `add`, plus what is in slot `base`,
 * which may be the same one. */
struct melu__output {
  melu__ref node;
  uint32_t slot;
  int add;
  uint32_t base;
};

/* What all runs of a plan have in common, by slot. */
struct melu__plan_setting {
  const struct melu_allocator *alloc;
  const struct melu__kernels *kernels;
  const size_t *ld;           /* the leading dimension of its matrix; 0, or a NULL array: that there are no gaps */
  const uint32_t *transposed; /* the slot that holds its transpose; 0, or a NULL array: that there is none */
  int tag;                    /* for melu__plan_tag: whatever the maker wants to know again */
  int joins_rows;             /* rows multiplied element by element are rounded once with the sum that they are in */
};

/* Makes a plan of a tape whose status is MELU_OK. The tape and the setting may go afterwards, not what it points to for
 * allocator and kernels. */
melu_status melu__plan_new(struct melu__plan **out, const struct melu__plan_setting *setting,
                           const struct melu__tape *tape, const struct melu__output *outputs, size_t n_outputs,
                           melu_error *err);
void melu__plan_free(struct melu__plan *plan);

size_t melu__plan_arena_size(const struct melu__plan *plan); /* in numbers */
double melu__plan_flops(const struct melu__plan *plan);      /* of the matrix products and solves of a run */
int melu__plan_tag(const struct melu__plan *plan);
size_t melu__plan_n_steps(const struct melu__plan *plan);

/* Runs the plan: slots[i] is the matrix of slot i, laid out as the setting said (outputs must not overlap inputs),
 * `bags` those of all bag slots (NULL if there are none), `arena` at least arena_size numbers, aligned to MELU__ALIGN.
 * Cannot fail, allocates nothing, takes no lock. */
void melu__plan_run(const struct melu__plan *plan, real *const *slots, const struct melu__bags *bags, real *arena);

/* For tests and benchmarks: what the i-th step is, and a run of that step alone, after those before it. */
struct melu__step_info {
  const char *op; /* "sum", or the op's name */
  size_t rows, cols, k[2];
  int trans_a[2];
  int n_products, n_terms, relu, mask, post, pre, raw, sums, row;
  double flops, bytes; /* multiplications and additions of its products; what it reads and writes, once */
};
void melu__plan_step_info(const struct melu__plan *plan, size_t i, struct melu__step_info *info);
void melu__plan_run_step(const struct melu__plan *plan, size_t i, real *const *slots, const struct melu__bags *bags,
                         real *arena);

/* Plans by key, made on first use and kept: a lock is held only to look one up. */
struct melu__plan_cache;

typedef melu_status (*melu__plan_maker)(struct melu__plan **out, const void *arg, uint64_t key, melu_error *err);

struct melu__plan_cache *melu__plan_cache_new(const melu_context *ctx); /* NULL if there is no memory */
void melu__plan_cache_free(struct melu__plan_cache *cache);

/* The plan of a key; make(out, arg, key) is called if there is none yet. Belongs to the cache. */
melu_status melu__plan_cache_get(const struct melu__plan **out, struct melu__plan_cache *cache, uint64_t key,
                                 melu__plan_maker make, const void *arg, melu_error *err);

#endif
