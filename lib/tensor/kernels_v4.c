/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernels for AVX-512 (compiled with -march=x86-64-v4 -mprefer-vector-width=512): 24 of 32 registers are the tile.
 */
#if defined(__AVX512F__)

#define MELU__VECTOR_BYTES 64
#define MELU__TILE_VECTORS 4
#define MELU__BLAS 0 /* BLIS has AVX2 on most CPUs that this set is for */
#define MELU__SET melu__kernels_avx512
#define MELU__SET_NAME "avx512"
#include "tensor/kernels.inc"

#else

typedef int melu__kernels_v4_empty; /* ISO C wants something in every unit */

#endif
