/* SPDX-License-Identifier: BSD-3-Clause */
/* The way to the BLAS, tensor/blas.h: for large products on a CPU that it knows and that has no kernel set of its own
 * here. Packing and blocking are done here. */
#ifndef MELU__GEMM_H
#define MELU__GEMM_H

#include <stddef.h>

#include "tensor/kernels.h"

/* Whether a product with this op(B) (k, n) should go through melu__blas_gemm: it is large, and the BLAS knows this CPU.
 * The number of rows has no say: a row must have the same bits whatever the number of other rows. */
int melu__blas_takes(size_t n, size_t k);

/* C (m, n) := alpha op(A) op(B), or C += alpha op(A) op(B), by tiles of the BLAS; `kernels` pack. The matrices are as
 * in melu__kernels.gemm, with m, n, k > 0. Takes some 50 KB of the stack. */
void melu__blas_gemm(const struct melu__kernels *kernels, int trans_a, int trans_b, size_t m, size_t n, size_t k,
                     real alpha, struct melu__cmat a, struct melu__cmat b, int accumulate, struct melu__mat c);

#endif
