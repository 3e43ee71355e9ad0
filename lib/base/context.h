/* SPDX-License-Identifier: BSD-3-Clause */
/* The context: what the host gave us, and the kernels that were chosen for this CPU. Immutable once made. */
#ifndef MELU__CONTEXT_H
#define MELU__CONTEXT_H

#include <melu.h>

#include "base/alloc.h"

struct melu__pool;    /* parallel.h */
struct melu__kernels; /* tensor/kernels.h: this floor only carries the pointer */

struct melu_context {
  struct melu_allocator allocator;
  struct melu_runner runner;
  struct melu__pool *pool; /* the runner's own threads; NULL when the host brought a runner or n_threads is 1 */
  melu_log_fn log;
  void *log_arg;
  melu_progress_fn progress;
  void *progress_arg;
  size_t max_file_bytes;
  struct melu_collective collective; /* without the host's: of one rank, and no functions */
  size_t n_slots;
  size_t shard_bytes; /* resolved: SIZE_MAX where no table is sharded */
  const struct melu__kernels *kernels;
  char build_info[160];
};

/* The one thing that this floor asks of the next: choose the kernels by name (NULL: the best for this CPU), start BLIS,
 * and describe both in ctx->build_info. Defined in tensor/kernels.c; MELU_EINVAL if the name is unknown or the CPU
 * lacks the instructions. */
melu_status melu__context_choose_kernels(melu_context *ctx, const char *name, melu_error *err);

/* The host's allocator, or malloc and free. Errors: MELU_EINVAL (a function is missing). */
melu_status melu__allocator(struct melu_allocator *out, const struct melu_allocator *given, melu_error *err);

/* Checks how long ranks are to wait for each other; 0 becomes the default. Errors: MELU_EINVAL. */
melu_status melu__time_limit(double *seconds, melu_error *err);

/* Reports progress; MELU_ECANCELED when the host wants to stop, else MELU_OK. */
melu_status melu__progress(const melu_context *ctx, const struct melu_progress *progress, melu_error *err);

/* Copies the caller's options struct, which may be smaller or larger than the one that this library knows, into *known
 * of known_size bytes: bytes that the caller does not have are zero, bytes that we do not know must be zero.
 * `options` may be NULL. Works for every struct that starts with `size_t size`. */
melu_status melu__options(void *known, size_t known_size, const void *options, const char *name, melu_error *err);

/* Number i of a caller's array of such structs, which lie as far apart as the caller knows them to be large: `size`,
 * that of the first. NULL if there is no array. */
static inline const void *melu__options_at(const void *array, size_t size, size_t i) {
  return array ? (const char *)array + i * size : NULL;
}

/* The other way: fills the caller's struct, whose size the caller has set, from *known; bytes beyond it are zero. */
melu_status melu__options_out(void *options, const void *known, size_t known_size, const char *name, melu_error *err);

#endif
