/* SPDX-License-Identifier: BSD-3-Clause */
/* A plan: a finished recording made runnable. Equal nodes are shared, dead ones dropped, and every intermediate result
 * has its place in one arena, reused when its last reader is done. A plan depends on shapes alone; it is const, and any
 * number of threads may run it at once, each on its own arena. */
#ifndef MELU__PLAN_H
#define MELU__PLAN_H

#include "tape/tape.h"
#include "tensor/kernels.h"

struct melu__plan;

/* Where a node's value goes at the end of a run: to the matrix in that slot, or on top of what is there. */
struct melu__output {
  melu__ref node;
  uint32_t slot;
  int add;
};

/* Makes a plan of a tape whose status is MELU_OK. The tape may go afterwards. */
melu_status melu__plan_new(struct melu__plan **out, const struct melu_allocator *alloc, const struct melu__tape *tape,
                           const struct melu__output *outputs, size_t n_outputs, melu_error *err);
void melu__plan_free(struct melu__plan *plan);

size_t melu__plan_arena_size(const struct melu__plan *plan); /* in numbers */
double melu__plan_flops(const struct melu__plan *plan);      /* of the matrix products and solves of a run */
size_t melu__plan_n_nodes(const struct melu__plan *plan);

/* Runs the plan: `slots` holds the matrices of all input and output slots (outputs must not overlap inputs), `bags`
 * those of all bag slots (NULL if there are none), `arena` at least arena_size numbers, aligned to MELU__ALIGN.
 * Cannot fail, allocates nothing, takes no lock. */
void melu__plan_run(const struct melu__plan *plan, const struct melu__kernels *kernels, const struct melu__mat *slots,
                    const struct melu__bags *bags, real *arena);

/* Plans by key, made on first use and kept: a lock is held only to look one up. */
struct melu__plan_cache;

typedef melu_status (*melu__plan_maker)(struct melu__plan **out, const void *arg, uint64_t key, melu_error *err);

struct melu__plan_cache *melu__plan_cache_new(const melu_context *ctx); /* NULL if there is no memory */
void melu__plan_cache_free(struct melu__plan_cache *cache);

/* The plan of a key; make(out, arg, key) is called if there is none yet. Belongs to the cache. */
melu_status melu__plan_cache_get(const struct melu__plan **out, struct melu__plan_cache *cache, uint64_t key,
                                 melu__plan_maker make, const void *arg, melu_error *err);

#endif
