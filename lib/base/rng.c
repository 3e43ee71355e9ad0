/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/rng.h"

#include <Random123/philox.h>
#include <math.h>
#include <string.h>

struct melu__rng melu__rng(uint64_t seed, uint32_t purpose, uint32_t a, uint32_t b) {
  return (struct melu__rng){.seed = seed, .purpose = purpose, .a = a, .b = b};
}

uint32_t melu__rng_u32(struct melu__rng *rng) {
  if (rng->n_left == 0) {
    const philox4x32_ctr_t counter = {{rng->block++, rng->b, rng->a, rng->purpose}};
    const philox4x32_key_t key = {{(uint32_t)rng->seed, (uint32_t)(rng->seed >> 32)}};
    const philox4x32_ctr_t words = philox4x32(counter, key);
    memcpy(rng->word, words.v, sizeof rng->word);
    rng->n_left = 4;
  }
  return rng->word[4 - rng->n_left--];
}

/* Lemire's multiplication, with the rejection that makes every value equally likely. */
uint32_t melu__rng_below(struct melu__rng *rng, uint32_t n) {
  const uint32_t too_small = (0u - n) % n; /* 2^32 mod n */
  for (;;) {
    const uint64_t product = (uint64_t)melu__rng_u32(rng) * n;
    if ((uint32_t)product >= too_small) return (uint32_t)(product >> 32);
  }
}

double melu__rng_unit(struct melu__rng *rng) {
  const uint64_t high = melu__rng_u32(rng) >> 5, low = melu__rng_u32(rng) >> 6;
  return (double)(high << 26 | low) * 0x1p-53;
}

double melu__rng_normal(struct melu__rng *rng) {
  const double pi = 3.14159265358979323846;
  const double radius = sqrt(-2 * log(1 - melu__rng_unit(rng))); /* 1 - u is never 0 */
  return radius * cos(2 * pi * melu__rng_unit(rng));
}

void melu__rng_shuffle(struct melu__rng *rng, uint32_t *values, size_t n) {
  for (size_t i = n; i > 1; i--) {
    const size_t j = melu__rng_below(rng, (uint32_t)i);
    const uint32_t swap = values[i - 1];
    values[i - 1] = values[j];
    values[j] = swap;
  }
}
