/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes that cannot wrap around: the result saturates at SIZE_MAX, which no allocation can satisfy. */
#ifndef MELU__CHECKED_H
#define MELU__CHECKED_H

#include <stddef.h>
#include <stdint.h>

static inline size_t melu__size_add(size_t a, size_t b) {
  return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

static inline size_t melu__size_mul(size_t a, size_t b) {
  return b != 0 && a > SIZE_MAX / b ? SIZE_MAX : a * b;
}

/* The next multiple of a power of two. */
static inline size_t melu__size_align(size_t a, size_t power_of_two) {
  return melu__size_add(a, power_of_two - 1) & ~(power_of_two - 1);
}

#endif
