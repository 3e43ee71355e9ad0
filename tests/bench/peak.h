/* SPDX-License-Identifier: BSD-3-Clause */
/* The most that this core can do: multiply-adds on registers, by instruction set. */
#ifndef MELU_BENCH_PEAK_H
#define MELU_BENCH_PEAK_H

#include "tensor/kernels.h"
#include "world.h"

/* Independent chains of multiply-adds: more than latency times units, fewer than registers. Written out, since arrays
 * would stay in memory in a build that does not unroll. */
#define CHAINS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9)
enum { N_CHAINS = 10 };
#define CHAIN_START(i) vec s##i = x * (float)i;
#define CHAIN_STEP(i) s##i = s##i * x + y;
#define CHAIN_SUM(i) +s##i

/* n rounds on vectors of so many bytes; the result keeps the compiler from leaving them out. */
#define PEAK(name, bytes, attributes)                      \
  attributes static float name(long n, float factor) {     \
    typedef float vec __attribute__((vector_size(bytes))); \
    const vec x = factor - (vec){0}, y = 1 - x;            \
    CHAINS(CHAIN_START)                                    \
    for (; n > 0; n--) {                                   \
      CHAINS(CHAIN_STEP)                                   \
    }                                                      \
    const vec sum = CHAINS(CHAIN_SUM);                     \
    return sum[0];                                         \
  }

PEAK(peak_base, 16, )
#ifdef MELU__HAVE_V3
PEAK(peak_avx2, 32, __attribute__((target("avx2,fma"))))
#endif
#ifdef MELU__HAVE_V4
PEAK(peak_avx512, 64, __attribute__((target("avx512f"))))
#endif

static const struct {
  const struct melu__kernels *set;
  float (*run)(long n, float factor);
  int width;
} peaks[] = {
#ifdef MELU__HAVE_V4
    {&melu__kernels_avx512, peak_avx512, 16},
#endif
#ifdef MELU__HAVE_V3
    {&melu__kernels_avx2, peak_avx2, 8},
#endif
    {&melu__kernels_base, peak_base, 4},
};

static volatile float sink;

static double peak_of(const struct melu__kernels *set, double seconds) {
  const long n = 20000;
  double best = 0;
  for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++) {
    if (peaks[i].set != set) continue;
    for (double end = now() + 4 * seconds; now() < end;) {
      const double start = now();
      sink = peaks[i].run(n, 0.999f);
      const double rate = 2.0 * N_CHAINS * peaks[i].width * (double)n / (now() - start);
      if (rate > best) best = rate;
    }
  }
  return best;
}

#endif
