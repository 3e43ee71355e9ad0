/* SPDX-License-Identifier: BSD-3-Clause */
/* The number that everything is computed in. The library is float; the tests also build it in double, from the same
 * sources, to compare with references to more digits than float has. The public interface is float in both. */
#ifndef MELU__REAL_H
#define MELU__REAL_H

#include <float.h>
#include <stdint.h>

#ifdef MELU__DOUBLE
typedef double real;
typedef uint64_t melu__real_bits; /* as many */
#define MELU__REAL_MAX DBL_MAX
#else
typedef float real;
typedef uint32_t melu__real_bits;
#define MELU__REAL_MAX FLT_MAX
#endif

#endif
