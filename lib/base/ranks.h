/* SPDX-License-Identifier: BSD-3-Clause */
/* The host's collective as one call that takes long sees it. Once a function of it has failed the ranks are out of
 * step, and none is called any more: everything ends with that failure. */
#ifndef MELU__RANKS_H
#define MELU__RANKS_H

#include "base/context.h"

struct melu__ranks {
  const struct melu_collective *collective;
  melu_error lost; /* its status is 0 as long as nothing has failed */
};

struct melu__ranks melu__ranks_begin(const melu_context *ctx);

/* As the collective's functions of these names. */
melu_status melu__ranks_gather(struct melu__ranks *ranks, void *all, const size_t *counts, melu_error *err);
melu_status melu__ranks_send(struct melu__ranks *ranks, const struct melu_message *out, struct melu_message *in,
                             melu_error *err);
melu_status melu__ranks_receive(struct melu__ranks *ranks, melu_error *err);
melu_status melu__ranks_reduce(struct melu__ranks *ranks, void *value, size_t n, melu_fold_fn fold, melu_error *err);
melu_status melu__ranks_barrier(struct melu__ranks *ranks, melu_error *err);

/* Replaces *x by the largest of all ranks' numbers, none of which is NaN. */
melu_status melu__ranks_largest(struct melu__ranks *ranks, double *x, melu_error *err);

/* Every rank brings how its part went, `mine`, with what *err says if that is no success, and gets that of the first
 * rank that failed, MELU_OK if none did. `err` is not NULL. */
melu_status melu__ranks_agree(struct melu__ranks *ranks, melu_status mine, melu_error *err);

#endif
