/* SPDX-License-Identifier: BSD-3-Clause */
/* The finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), one step: one-to-one. */
#ifndef MELU__MIX_H
#define MELU__MIX_H

#include <stdint.h>

static inline uint64_t melu__mix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

#endif
