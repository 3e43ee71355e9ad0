/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernels for AVX2 and FMA (compiled with -march=x86-64-v3): 12 of 16 registers are the tile. */
#if defined(__AVX2__) && defined(__FMA__)

#define MELU__VECTOR_BYTES 32
#define MELU__TILE_VECTORS 2
#define MELU__BLAS 0 /* its tile is as fast as that of BLIS, and does not wait for A to be packed */
#define MELU__SET melu__kernels_avx2
#define MELU__SET_NAME "avx2"
#include "tensor/kernels.inc"

#else

typedef int melu__kernels_v3_empty; /* ISO C wants something in every unit */

#endif
