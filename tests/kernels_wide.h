/* SPDX-License-Identifier: BSD-3-Clause */
/* The widest tile, in whatever instructions the compiler is allowed: what AVX-512 computes, tested on every machine. */
#ifndef MELU_TESTS_KERNELS_WIDE_H
#define MELU_TESTS_KERNELS_WIDE_H

#include "tensor/kernels.h"

extern const struct melu__kernels kernels_wide;

#endif
