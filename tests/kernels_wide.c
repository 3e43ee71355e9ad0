/* SPDX-License-Identifier: BSD-3-Clause */
#include "tensor/kernels.h"

extern const struct melu__kernels kernels_wide; /* declared for the tests in kernel_sets.h */

#define MELU__VECTOR_BYTES 64
#define MELU__TILE_VECTORS 4
#define MELU__BLAS 0
#define MELU__SET kernels_wide
#define MELU__SET_NAME "wide"
#include "tensor/kernels.inc"
