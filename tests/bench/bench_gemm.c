/* SPDX-License-Identifier: BSD-3-Clause */
/* Speed of the products that a MeLU task is made of, in GFLOP/s, for every kernel set that this CPU can run; first the
 * most that each instruction set can do on this core, measured by multiply-adds on registers. Best of many rounds,
 * since on a shared machine the rest measures the neighbours.
 *
 *     bench_gemm [--seconds S]      S: time for each figure, 0.05 by default */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensor/gemm.h"
#include "tensor/kernels.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ------------------------------------------------------------------------------------------------- peak */

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

/* ----------------------------------------------------------------------------------------------- products */

struct shape {
  const char *name; /* what a task needs it for */
  int trans_a, trans_b;
  size_t m, n, k;
};

#define TASK(M)                                                                                                   \
  {"first layer, X W'", 0, 1, M, 64, 128}, {"second layer, H W'", 0, 1, M, 64, 64},                               \
      {"the same, W' stored", 0, 0, M, 64, 128}, {"", 0, 0, M, 64, 64}, {"back, D W", 0, 0, M, 128, 64},          \
      {"gradient, D' X", 1, 0, 64, 128, M}, {"gradient, D' H", 1, 0, 64, 64, M}, {"Gram, X X'", 0, 1, M, M, 128}, \
      {"dual step, K D", 0, 0, M, 64, M}, {"head, H w'", 0, 1, M, 1, 64}, {                                       \
    "outer, d w", 0, 0, M, 64, 1                                                                                  \
  }

static const struct shape shapes[] = {
    TASK(3),
    TASK(10),
    TASK(20),
    TASK(50),
    TASK(90),
    {"catalogue", 0, 0, 4000, 64, 128},
    {"catalogue", 0, 1, 4000, 64, 128},
    {"batch gradient", 1, 0, 64, 256, 960},
    {"odd", 0, 0, 101, 67, 99},
    {"odd", 1, 1, 101, 67, 99},
    {"square", 0, 0, 256, 256, 256},
    {"square", 0, 0, 512, 512, 512},
    {"square", 0, 0, 1000, 1000, 1000},
    {"square", 0, 1, 1000, 1000, 1000},
    {"square", 0, 0, 1024, 1024, 1024},
};

typedef void gemm_fn(int trans_a, int trans_b, size_t m, size_t n, size_t k, real alpha, struct melu__cmat a,
                     struct melu__cmat b, real beta, struct melu__mat c);

static void blis_gemm(int trans_a, int trans_b, size_t m, size_t n, size_t k, real alpha, struct melu__cmat a,
                      struct melu__cmat b, real beta, struct melu__mat c) {
  melu__blis_gemm(trans_a, trans_b, m, n, k, alpha, a, b, beta != 0, c);
}

static double rate_of(gemm_fn *gemm, const struct shape *s, const real *a, const real *b, real *c, double seconds) {
  const struct melu__cmat ma = {a, s->trans_a ? s->m : s->k}, mb = {b, s->trans_b ? s->k : s->n};
  const struct melu__mat mc = {c, s->n};
  const double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k;
  const long calls = 1 + (long)(1e6 / flops);
  double best = 0;
  for (double end = now() + seconds; now() < end || best == 0;) {
    const double start = now();
    for (long i = 0; i < calls; i++) gemm(s->trans_a, s->trans_b, s->m, s->n, s->k, 1, ma, mb, 0, mc);
    const double rate = flops * (double)calls / (now() - start);
    if (rate > best) best = rate;
  }
  return best;
}

static void print_shapes(const real *a, const real *b, real *c, double seconds) {
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    const struct shape *s = &shapes[i];
    printf("%-20s %c%c %5zu %5zu %5zu ", s->name, s->trans_a ? 't' : 'n', s->trans_b ? 't' : 'n', s->m, s->n, s->k);
    for (size_t j = 0; melu__kernel_sets[j]; j++)
      if (melu__kernels_usable(melu__kernel_sets[j]))
        printf(" %8.1f", rate_of(melu__kernel_sets[j]->gemm, s, a, b, c, seconds) / 1e9);
    printf(" %8.1f\n", rate_of(blis_gemm, s, a, b, c, seconds) / 1e9);
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  double seconds = 0.05;
  if (argc == 3 && !strcmp(argv[1], "--seconds")) seconds = atof(argv[2]);
  if ((argc != 1 && argc != 3) || !(seconds > 0)) {
    fprintf(stderr, "usage: %s [--seconds S]\n", argv[0]);
    return 2;
  }
  struct melu__blis_info blis;
  melu__blis_start(&blis);
  const size_t n = 1024 * 1024 + 336; /* so that the matrices do not begin at the same place of a page */
  real *a = malloc(3 * n * sizeof *a);
  if (!a) return 1;
  for (size_t i = 0; i < 3 * n; i++) a[i] = (real)(i * 7 % 13) / 13;
  printf("GFLOP/s %39s", "m     n     k ");
  for (size_t j = 0; melu__kernel_sets[j]; j++)
    if (melu__kernels_usable(melu__kernel_sets[j])) printf(" %8s", melu__kernel_sets[j]->name);
  printf(" BLIS %s (%s)\n%-42s", blis.version, blis.arch, "peak of multiply-adds");
  for (size_t j = 0; melu__kernel_sets[j]; j++)
    if (melu__kernels_usable(melu__kernel_sets[j])) printf(" %8.1f", peak_of(melu__kernel_sets[j], seconds) / 1e9);
  printf("\n");
  print_shapes(a, a + n, a + 2 * n, seconds);
  free(a);
  return 0;
}
