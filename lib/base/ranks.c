/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/ranks.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

struct melu__ranks melu__ranks_begin(const melu_context *ctx) {
  return (struct melu__ranks){.collective = &ctx->collective};
}

static int is_alone(const struct melu__ranks *ranks) {
  return ranks->collective->n_ranks == 1;
}

static melu_status already_lost(const struct melu__ranks *ranks, melu_error *err) {
  if (err) *err = ranks->lost;
  return ranks->lost.status;
}

/* What the host's function said, with a status that is the same on all ranks and some message. */
static melu_status hear(struct melu__ranks *ranks, melu_status status, const melu_error *said, melu_error *err) {
  if (status == MELU_OK) return MELU_OK;
  ranks->lost = *said;
  if (!said->message[0]) melu__fail(&ranks->lost, MELU_EPEER, "the host's collective failed");
  ranks->lost.status = MELU_EPEER;
  return already_lost(ranks, err);
}

#define CALL(ranks, err, function, ...)                      \
  const struct melu_collective *c_ = (ranks)->collective;    \
  melu_error said_ = {MELU_OK, 0, 0, 0, ""};                 \
  if (is_alone(ranks)) return MELU_OK;                       \
  if ((ranks)->lost.status) return already_lost(ranks, err); \
  return hear(ranks, c_->function(c_->arg, __VA_ARGS__), &said_, err)

melu_status melu__ranks_gather(struct melu__ranks *ranks, void *all, const size_t *counts, melu_error *err) {
  CALL(ranks, err, all_gather, all, counts, &said_);
}

melu_status melu__ranks_send(struct melu__ranks *ranks, const struct melu_message *out, struct melu_message *in,
                             melu_error *err) {
  CALL(ranks, err, all_to_all_begin, out, in, &said_);
}

melu_status melu__ranks_receive(struct melu__ranks *ranks, melu_error *err) {
  CALL(ranks, err, all_to_all_end, &said_);
}

melu_status melu__ranks_barrier(struct melu__ranks *ranks, melu_error *err) {
  CALL(ranks, err, barrier, &said_);
}

melu_status melu__ranks_reduce(struct melu__ranks *ranks, void *value, size_t n, melu_fold_fn fold, melu_error *err) {
  CALL(ranks, err, reduce, value, n, fold, &said_);
}

static void fold_largest(void *into, const void *from) {
  double a, b;
  memcpy(&a, into, sizeof a);
  memcpy(&b, from, sizeof b);
  if (b > a) memcpy(into, from, sizeof b);
}

melu_status melu__ranks_largest(struct melu__ranks *ranks, double *x, melu_error *err) {
  return melu__ranks_reduce(ranks, x, sizeof *x, fold_largest, err);
}

struct outcome {
  uint32_t rank;
  melu_error err;
};

/* The first failure counts. */
static void fold_outcomes(void *into, const void *from) {
  struct outcome *first = into;
  if (first->err.status == MELU_OK) memcpy(first, from, sizeof *first);
}

melu_status melu__ranks_agree(struct melu__ranks *ranks, melu_status mine, melu_error *err) {
  struct outcome all;
  if (is_alone(ranks)) return mine;
  memset(&all, 0, sizeof all); /* what lies between its members travels too */
  all.rank = ranks->collective->rank;
  if (mine) all.err = *err;
  all.err.status = mine;
  const melu_status status = melu__ranks_reduce(ranks, &all, sizeof all, fold_outcomes, err);
  if (status || all.err.status == MELU_OK) return status;
  *err = all.err;
  const size_t n = (size_t)snprintf(err->message, sizeof err->message, "rank %u: ", (unsigned)all.rank);
  memcpy(err->message + n, all.err.message, sizeof err->message - n);
  err->message[sizeof err->message - 1] = 0;
  return err->status;
}
