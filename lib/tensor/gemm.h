/* SPDX-License-Identifier: BSD-3-Clause */
/* The way to BLIS, for products so large that blocking for the caches and packing both operands pays. */
#ifndef MELU__GEMM_H
#define MELU__GEMM_H

#include <stddef.h>

#include "tensor/kernels.h"

struct melu__blis_info {
  const char *version; /* e.g. "0.9.0" */
  const char *arch;    /* the family of kernels that BLIS chose for this CPU, e.g. "zen3" */
};

/* Has BLIS initialise itself, once in a process however often it is called and from however many threads. */
void melu__blis_start(struct melu__blis_info *info);

/* Whether a product with this op(B) (k, n) should go through melu__blis_gemm: it is large. The number of rows has no
 * say: a row must have the same bits whatever the number of other rows. */
int melu__blis_takes(size_t n, size_t k);

/* C (m, n) := alpha op(A) op(B), or C += alpha op(A) op(B), on the calling thread: BLIS packs and blocks, the set's
 * tile (melu__kernels.micro) computes, so that the speed is the set's even on a CPU that BLIS does not know. The
 * matrices are as in melu__kernels.gemm, with m, n, k > 0. BLIS allocates its packing buffers by itself, some 17 MB a
 * thread that are kept for later, and ends the process if it cannot. */
void melu__blis_gemm(const struct melu__kernels *kernels, int trans_a, int trans_b, size_t m, size_t n, size_t k,
                     real alpha, struct melu__cmat a, struct melu__cmat b, int accumulate, struct melu__mat c);

#endif
