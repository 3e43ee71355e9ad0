/* SPDX-License-Identifier: BSD-3-Clause */
/* The way to BLIS: its micro-kernels, for large products on a CPU that is known to BLIS and has no kernel set of its
 * own here. BLIS's products take memory from malloc and end the process if there is none; its micro-kernels take none,
 * so packing and blocking are done here. */
#ifndef MELU__GEMM_H
#define MELU__GEMM_H

#include <stddef.h>

#include "tensor/kernels.h"

const char *melu__blis_version(void); /* e.g. "0.9.0"; needs no start */

/* Has BLIS initialise itself, once in a process however often it is called and from however many threads, and returns
 * the family of kernels that BLIS chose for this CPU, e.g. "zen3". NULL if memory is short: BLIS would end the process,
 * so it is not started then. After it no call here needs memory. */
const char *melu__blis_start(void);

/* Whether a product with this op(B) (k, n) should go through melu__blis_gemm: it is large, and BLIS knows this CPU. The
 * number of rows has no say: a row must have the same bits whatever the number of other rows. */
int melu__blis_takes(size_t n, size_t k);

/* C (m, n) := alpha op(A) op(B), or C += alpha op(A) op(B), by BLIS's micro-kernel; `kernels` pack. The matrices are as
 * in melu__kernels.gemm, with m, n, k > 0. Takes some 50 KB of the stack. */
void melu__blis_gemm(const struct melu__kernels *kernels, int trans_a, int trans_b, size_t m, size_t n, size_t k,
                     real alpha, struct melu__cmat a, struct melu__cmat b, int accumulate, struct melu__mat c);

#endif
