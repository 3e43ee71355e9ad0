/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernels for any CPU: vectors of 128 bits, which are SSE2 on x86-64 and NEON on aarch64. */
#define MELU__VECTOR_BYTES 16
#if defined(__aarch64__)
#define MELU__TILE_VECTORS 4 /* of 32 registers */
#else
#define MELU__TILE_VECTORS 2
#endif
#define MELU__BLAS 1
#define MELU__SET melu__kernels_base
#define MELU__SET_NAME "base"
#include "tensor/kernels.inc"
