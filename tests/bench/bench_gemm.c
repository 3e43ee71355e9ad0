/* SPDX-License-Identifier: BSD-3-Clause */
/* Speed of the products that a MeLU task is made of, in GFLOP/s, for every kernel set that this CPU can run; first the
 * most that each instruction set can do on this core, measured by multiply-adds on registers. Best of many rounds,
 * since on a shared machine the rest measures the neighbours.
 *
 *     bench_gemm [--seconds S] [--only gemm|sum]      S: time for each figure, 0.05 by default */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peak.h"
#include "tensor/blas.h"
#include "tensor/gemm.h"
#include "tensor/kernels.h"
#include "tensor/sum.h"

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

static void blas_gemm(int trans_a, int trans_b, size_t m, size_t n, size_t k, real alpha, struct melu__cmat a,
                      struct melu__cmat b, real beta, struct melu__mat c) {
  const struct melu__kernels *const *set = melu__kernel_sets;
  while (!melu__kernels_usable(*set)) set++;
  melu__blas_gemm(*set, trans_a, trans_b, m, n, k, alpha, a, b, beta != 0, c);
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
    printf(" %8.1f\n", rate_of(blas_gemm, s, a, b, c, seconds) / 1e9);
    fflush(stdout);
  }
}

/* --------------------------------------------------------------------------------------------- fused sums */

/* What a task's plan does with M support rows; each is a function that fills in one sum. The matrices begin at cache
 * lines, as those of plans do. */
enum { AREA = 16 * 835, N_AREAS = 6 };

struct workload {
  const char *name;
  void (*fill)(struct melu__sum *s, size_t m, real *areas[N_AREAS]);
};

static void set_result(struct melu__sum *s, size_t rows, size_t cols, real *out) {
  s->rows = rows;
  s->cols = cols;
  s->out = (struct melu__mat){out, cols};
}

static void add_product(struct melu__sum *s, int trans_a, size_t k, real scale, const real *a, const real *b) {
  const size_t n = s->n_products++;
  s->product[n].a = (struct melu__cmat){a, trans_a ? s->rows : k};
  s->product[n].b = (struct melu__cmat){b, s->cols};
  s->product[n].k = k;
  s->product[n].trans_a = trans_a;
  s->product[n].scale = scale;
}

static void add_term(struct melu__sum *s, real scale, const real *m) {
  s->term[s->n_terms].m = (struct melu__cmat){m, s->cols};
  s->term[s->n_terms++].scale = scale;
}

static void first_layer(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 64, areas[0]);
  add_product(s, 0, 128, 1, areas[1], areas[2]);
}

static void second_layer(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 64, areas[0]);
  add_product(s, 0, 64, 1, areas[1], areas[2]);
  s->row = areas[3];
  s->row_scale = 1;
  s->relu = 1;
  s->pre = (struct melu__mat){areas[4], 64};
}

static void dual_step(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 64, areas[0]);
  add_product(s, 0, m, (real)-0.01, areas[1], areas[2]);
  add_term(s, 1, areas[3]);
}

static void gradient(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, 64, 64, areas[0]);
  add_product(s, 1, m, (real)-0.01, areas[1], areas[2]);
  add_term(s, 1, areas[0]);
}

static void two_products(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 64, areas[0]);
  add_product(s, 0, 64, 1, areas[1], areas[2]);
  add_product(s, 0, 64, 1, areas[3], areas[4]);
  s->mask = (struct melu__cmat){areas[5], 64};
}

static void two_scales(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  two_products(s, m, areas);
  s->product[1].scale = (real)-0.01;
}

static void gram(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, m, areas[0]);
  add_product(s, 0, 128, 1, areas[1], areas[2]);
}

static void row_times_matrix(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, 1, 64, areas[0]);
  add_product(s, 0, m, 1, areas[1], areas[2]);
}

static void column_sums(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, 1, 64, areas[0]);
  add_product(s, 0, m, 1, NULL, areas[2]);
}

static void head(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 1, areas[0]);
  add_product(s, 0, 64, 1, areas[1], areas[2]);
  s->number = areas[3];
  s->number_scale = 1;
}

static void head_gradient(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, 64, 1, areas[0]);
  add_product(s, 1, m, 1, areas[1], areas[2]);
}

static void outer(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 64, areas[0]);
  add_product(s, 0, 1, 1, areas[1], areas[2]);
  s->mask = (struct melu__cmat){areas[5], 64};
}

static void elements(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 64, areas[0]);
  add_term(s, 1, areas[1]);
  add_term(s, (real)-0.01, areas[2]);
}

static void column_of_elements(struct melu__sum *s, size_t m, real *areas[N_AREAS]) {
  set_result(s, m, 1, areas[0]);
  add_term(s, 1, areas[1]);
  add_term(s, -1, areas[2]);
}

static const struct workload workloads[] = {
    {"(M,128)(128,64)", first_layer},
    {"(M,64)(64,64) + row, ReLU, pre", second_layer},
    {"(M,M)(M,64) + term", dual_step},
    {"(64,M)' of (M,64), (M,64) + term", gradient},
    {"2 of (M,64)(64,64), mask", two_products},
    {"the same, two scales", two_scales},
    {"(M,128)(128,M)", gram},
    {"(1,M)(M,64)", row_times_matrix},
    {"1' (M,64)", column_sums},
    {"(M,64)(64,1) + number", head},
    {"(M,64)' (M,1)", head_gradient},
    {"(M,1)(1,64), mask", outer},
    {"2 terms (M,64)", elements},
    {"2 terms (M,1)", column_of_elements},
};

enum { N_WORKLOADS = sizeof workloads / sizeof *workloads, N_ROWS = 4, N_TIMES = (N_WORKLOADS + 1) * N_ROWS };
static const size_t row_counts[N_ROWS] = {5, 20, 50, 90};

static struct melu__sum sum_of(int workload, size_t m, real *memory) {
  real *areas[N_AREAS];
  for (int i = 0; i < N_AREAS; i++) areas[i] = memory + i * AREA;
  struct melu__sum s;
  memset(&s, 0, sizeof s);
  workloads[workload].fill(&s, m, areas);
  return s;
}

/* Seconds of one call, at best. Number N_WORKLOADS is the transpose. */
static double time_of(const struct melu__kernels *set, int workload, size_t m, real *memory, double seconds) {
  const int calls = 50;
  const struct melu__sum s = sum_of(workload < N_WORKLOADS ? workload : 0, m, memory);
  double best = 1;
  memset(memory, 0, AREA * sizeof *memory); /* where sums are accumulated */
  for (double end = now() + seconds; now() < end;) {
    const double start = now();
    for (int i = 0; i < calls; i++)
      if (workload < N_WORKLOADS)
        set->sum(&s);
      else
        set->transpose(m, 64, (struct melu__cmat){memory + AREA, 64}, (struct melu__mat){memory, m});
    const double time = (now() - start) / calls;
    if (time < best) best = time;
  }
  return best;
}

/* Everything is measured in turns, and the peak with it, so that all of it has its share of the quiet moments. */
static void print_sums(const struct melu__kernels *set, real *memory, double peak, double seconds) {
  enum { ROUNDS = 10 };
  double times[N_TIMES];
  for (int i = 0; i < N_TIMES; i++) times[i] = 1;
  for (int round = 0; round < ROUNDS; round++) {
    const double again = peak_of(set, seconds / ROUNDS);
    if (again > peak) peak = again;
    for (int i = 0; i < N_TIMES; i++) {
      const double time = time_of(set, i / N_ROWS, row_counts[i % N_ROWS], memory, seconds / ROUNDS);
      if (time < times[i]) times[i] = time;
    }
  }
  printf("\n%s: nanoseconds, GFLOP/s and %% of %.1f for M = 5, 20, 50, 90\n", set->name, peak / 1e9);
  for (int i = 0; i < N_TIMES; i++) {
    const int workload = i / N_ROWS;
    double flops = 0;
    if (i % N_ROWS == 0) printf("%-34s", workload < N_WORKLOADS ? workloads[workload].name : "transpose (M,64)");
    if (workload < N_WORKLOADS) {
      const struct melu__sum s = sum_of(workload, row_counts[i % N_ROWS], memory);
      for (size_t n = 0; n < s.n_products; n++) flops += 2.0 * (double)(s.rows * s.cols * s.product[n].k);
    }
    printf(" |%7.0f %5.1f %3.0f%%", 1e9 * times[i], 1e-9 * flops / times[i], 100 * flops / times[i] / peak);
    if (i % N_ROWS == N_ROWS - 1) printf("\n");
  }
}

static int usage(const char *name) {
  fprintf(stderr, "usage: %s [--seconds S] [--only gemm|sum]\n", name);
  return 2;
}

int main(int argc, char **argv) {
  double seconds = 0.05;
  const char *only = "";
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) return usage(argv[0]);
    if (!strcmp(argv[i], "--seconds") && atof(argv[i + 1]) > 0)
      seconds = atof(argv[i + 1]);
    else if (!strcmp(argv[i], "--only") && (!strcmp(argv[i + 1], "gemm") || !strcmp(argv[i + 1], "sum")))
      only = argv[i + 1];
    else
      return usage(argv[0]);
  }
  char blas[40];
  const char *family = melu__blas_start();
  if (!family) return 1;
  const size_t n = 1024 * 1024 + 336; /* so that the matrices do not begin at the same place of a page */
  real *a = aligned_alloc(64, 3 * n * sizeof *a);
  if (!a) return 1;
  for (size_t i = 0; i < 3 * n; i++) a[i] = (real)(i * 7 % 13) / 13;
  double peak[sizeof peaks / sizeof *peaks] = {0};
  printf("GFLOP/s %39s", "m     n     k ");
  for (size_t j = 0; melu__kernel_sets[j]; j++)
    if (melu__kernels_usable(melu__kernel_sets[j])) printf(" %8s", melu__kernel_sets[j]->name);
  melu__blas_name(blas, sizeof blas);
  printf(" %s (%s)\n%-42s", blas, family, "peak of multiply-adds");
  for (size_t j = 0; melu__kernel_sets[j]; j++) {
    if (!melu__kernels_usable(melu__kernel_sets[j])) continue;
    peak[j] = peak_of(melu__kernel_sets[j], seconds);
    printf(" %8.1f", peak[j] / 1e9);
  }
  printf("\n");
  if (strcmp(only, "sum")) print_shapes(a, a + n, a + 2 * n, seconds);
  for (size_t j = 0; melu__kernel_sets[j] && strcmp(only, "gemm"); j++)
    if (melu__kernels_usable(melu__kernel_sets[j])) print_sums(melu__kernel_sets[j], a, peak[j], seconds);
  free(a);
  return 0;
}
