/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/context.h"

#include <string.h>

#include "base/error.h"
#include "base/parallel.h"
#include "base/slots.h"

#define MAX_THREADS 1024
#define SLOTS_OF_RANKS 16
#define SHARD_BYTES ((size_t)64 << 20)
#define DEFAULT_MAX_FILE_BYTES ((uint64_t)4 << 30)

melu_status melu__progress(const melu_context *ctx, const struct melu_progress *progress, melu_error *err) {
  if (!ctx->progress || ctx->progress(ctx->progress_arg, progress) == 0) return MELU_OK;
  return melu__fail(err, MELU_ECANCELED, "%s was cancelled", progress->phase);
}

static melu_status take_collective(struct melu_context_options *o, struct melu_collective *c, melu_error *err) {
  *c = (struct melu_collective){.size = sizeof *c, .n_ranks = 1};
  if (o->n_slots == 0) o->n_slots = o->collective ? SLOTS_OF_RANKS : 1;
  if (o->n_slots > MELU__MAX_SLOTS)
    return melu__fail(err, MELU_ELIMIT, "n_slots is %zu, above %d", o->n_slots, MELU__MAX_SLOTS);
  if (!o->collective) return MELU_OK;
  const melu_status status = melu__options(c, sizeof *c, o->collective, "melu_collective", err);
  if (status) return status;
  if (c->rank >= c->n_ranks)
    return melu__fail(err, MELU_EINVAL, "the collective's rank is %u of %u", (unsigned)c->rank, (unsigned)c->n_ranks);
  if (c->n_ranks > o->n_slots)
    return melu__fail(err, MELU_EINVAL, "there are %u ranks, more than the %zu slots", (unsigned)c->n_ranks,
                      o->n_slots);
  if (c->n_ranks > 1 && !(c->all_gather && c->all_to_all_begin && c->all_to_all_end && c->reduce && c->barrier))
    return melu__fail(err, MELU_EINVAL, "the collective lacks a function");
  return MELU_OK;
}

static melu_status check(const struct melu_context_options *o, melu_error *err) {
  if (o->n_threads > MAX_THREADS)
    return melu__fail(err, MELU_ELIMIT, "n_threads is %zu, above %d", o->n_threads, MAX_THREADS);
  if (o->runner && (!o->runner->run || o->runner->n_threads == 0))
    return melu__fail(err, MELU_EINVAL, "the runner lacks its function or its threads");
  if (o->runner && o->runner->n_threads > MAX_THREADS)
    return melu__fail(err, MELU_ELIMIT, "the runner has %zu threads, above %d", o->runner->n_threads, MAX_THREADS);
  return MELU_OK;
}

/* The host's runner, or a pool, or nobody but the caller. */
static melu_status start_threads(melu_context *ctx, const struct melu_context_options *o, melu_error *err) {
  ctx->runner = (struct melu_runner){NULL, 1, melu__serial_run};
  if (o->runner) ctx->runner = *o->runner;
  if (o->runner || o->n_threads < 2) return MELU_OK;
  const melu_status status = melu__pool_new(&ctx->pool, &ctx->allocator, o->n_threads, err);
  if (!status) ctx->runner = (struct melu_runner){ctx->pool, o->n_threads, melu__pool_run};
  return status;
}

melu_status melu_context_new(melu_context **out, const struct melu_context_options *options, melu_error *err) {
  struct melu_context_options o;
  struct melu_collective collective;
  struct melu_allocator allocator;
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  melu_status status = melu__options(&o, sizeof o, options, "melu_context_options", err);
  if (!status) status = check(&o, err);
  if (!status) status = melu__allocator(&allocator, o.allocator, err);
  if (!status) status = take_collective(&o, &collective, err);
  if (status) return status;
  melu_context *ctx = melu__calloc(&allocator, 1, sizeof *ctx);
  if (!ctx) return melu__fail_memory(err);
  ctx->allocator = allocator;
  ctx->log = o.log;
  ctx->log_arg = o.log_arg;
  ctx->progress = o.progress;
  ctx->progress_arg = o.progress_arg;
  ctx->collective = collective;
  ctx->n_slots = o.n_slots;
  ctx->shard_bytes = collective.n_ranks == 1 ? SIZE_MAX : o.shard_bytes ? o.shard_bytes : SHARD_BYTES;
  ctx->max_file_bytes = o.max_file_bytes;
  if (ctx->max_file_bytes == 0)
    ctx->max_file_bytes = DEFAULT_MAX_FILE_BYTES < SIZE_MAX ? (size_t)DEFAULT_MAX_FILE_BYTES : SIZE_MAX;
  status = melu__context_choose_kernels(ctx, o.kernels, err);
  if (!status) status = start_threads(ctx, &o, err);
  if (status) {
    melu_context_free(ctx);
    return status;
  }
  *out = ctx;
  return MELU_OK;
}

void melu_context_free(melu_context *ctx) {
  if (!ctx) return;
  const struct melu_allocator allocator = ctx->allocator; /* it must outlive the memory it gives back */
  melu__pool_free(&allocator, ctx->pool);
  melu__free(&allocator, ctx);
}

const char *melu_build_info(const melu_context *ctx) {
  return ctx ? ctx->build_info : "libmelu";
}
