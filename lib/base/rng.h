/* SPDX-License-Identifier: BSD-3-Clause */
/* Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): a draw is a pure function of its key and
 * counter, so it does not depend on who draws it, in which order, or on how many threads. */
#ifndef MELU__RNG_H
#define MELU__RNG_H

#include <stddef.h>
#include <stdint.h>

/* A stream of numbers named by (seed, purpose, a, b): seed is the user's, purpose tells apart what the numbers are for,
 * a and b are e.g. epoch and user. Copying the struct copies the position. */
struct melu__rng {
  uint64_t seed;
  uint32_t purpose, a;
  uint32_t b;
  uint32_t block; /* the next block of four words */
  uint32_t word[4];
  unsigned n_left;
};

enum melu__rng_purpose {
  MELU__RNG_INIT = 1,
  MELU__RNG_ORDER = 2,
  MELU__RNG_EPISODE = 3,
  MELU__RNG_FILE = 4,
  MELU__RNG_LEFT_OUT = 5
};

struct melu__rng melu__rng(uint64_t seed, uint32_t purpose, uint32_t a, uint32_t b);
uint32_t melu__rng_u32(struct melu__rng *rng);
uint32_t melu__rng_below(struct melu__rng *rng, uint32_t n);               /* uniform in [0, n), n > 0, without bias */
double melu__rng_unit(struct melu__rng *rng);                              /* uniform in [0, 1) with 53 bits */
double melu__rng_normal(struct melu__rng *rng);                            /* standard normal (Box-Muller) */
void melu__rng_shuffle(struct melu__rng *rng, uint32_t *values, size_t n); /* Fisher-Yates */

#endif
