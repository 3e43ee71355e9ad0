/* SPDX-License-Identifier: BSD-3-Clause */
/* A small pool of threads that serves as the default melu_runner. */
#ifndef MELU__PARALLEL_H
#define MELU__PARALLEL_H

#include <melu.h>

struct melu__pool;

/* A pool of n_threads - 1 threads; the caller of run is the last one. Tasks are taken from a queue in ascending order
 * of index, so put long ones first. Concurrent calls of run take turns; a run inside a run of the same pool is done by
 * the calling thread alone, under the number it has already. Tasks have the caller's floating-point state, on every
 * thread. After a fork the child's calls do their runs alone. n_threads is at least 2. Errors: MELU_ENOMEM,
 * MELU_ESYSTEM. */
melu_status melu__pool_new(struct melu__pool **out, const struct melu_allocator *a, size_t n_threads, melu_error *err);
void melu__pool_free(const struct melu_allocator *a, struct melu__pool *pool);

/* The functions of a struct melu_runner: for a pool (arg: the pool), and for no threads at all (arg: NULL). */
void melu__pool_run(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                    size_t n_tasks);
void melu__serial_run(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                      size_t n_tasks);

#endif
