/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking a catalogue for an adapted user with N ratings: the ten best of 4,000 and, with --large, of 1,000,000 items.
 *
 *     bench_rank [--support N] [--large] [--seconds S] [--json]
 *
 * `ratio` is the time over that of the products alone at the peak of the core in the same run; they are those of the
 * dual form, 2 n (m 128 + m 64 + 64 64 + 64) operations for n items and m ratings. */
#include <math.h>

#include "base/context.h"
#include "args.h"
#include "peak.h"

enum { N_ITEMS = 4000, N_LARGE = 1000000, N_ROUNDS = 9, N_BEST = 10 };

struct bench {
  struct world w;
  melu_workspace *ws;
  melu_user *user;
};

static double products(double n, double m) {
  return 2 * n * (m * 128 + m * 64 + 64 * 64 + 64);
}

static melu_catalog *make_catalog(const struct bench *b, size_t n) {
  melu_catalog *catalog;
  uint32_t *items = malloc(n * sizeof *items);
  if (!items) exit(1);
  for (size_t i = 0; i < n; i++) items[i] = (uint32_t)(i % N_ITEMS);
  TRY(melu_catalog_new(&catalog, b->w.model, b->w.data, items, n, &err));
  free(items);
  return catalog;
}

/* The median over rounds of the shortest time in a round; *peak likewise. */
static double time_of(const struct bench *b, const melu_catalog *catalog, double seconds, double *peak) {
  double times[N_ROUNDS], peaks_seen[N_ROUNDS];
  uint32_t items[N_BEST];
  float scores[N_BEST];
  for (size_t i = 0; i < N_ROUNDS; i++) {
    const double end = now() + seconds / N_ROUNDS;
    times[i] = HUGE_VAL;
    do {
      size_t n = N_BEST;
      const double start = now();
      TRY(melu_catalog_top(items, scores, &n, b->ws, catalog, b->user, NULL, &err));
      const double time = now() - start;
      if (time < times[i]) times[i] = time;
    } while (now() < end);
    peaks_seen[i] = peak_of(b->w.ctx->kernels, seconds / N_ROUNDS / 16);
  }
  *peak = quantile(peaks_seen, N_ROUNDS, 0.5);
  return quantile(times, N_ROUNDS, 0.5);
}

static void report(const struct bench *b, size_t n_items, size_t n_support, double seconds, int json) {
  melu_catalog *catalog = make_catalog(b, n_items);
  double peak;
  const double time = time_of(b, catalog, seconds, &peak);
  const double ratio = time / (products((double)n_items, (double)n_support) / peak);
  printf(json
             ? "{\"items\": %zu, \"support\": %zu, \"us\": %.1f, \"peak_gflops\": %.1f, \"ratio\": {\"value\": %.3f}}\n"
             : "%zu items, %zu ratings: %.1f us (peak %.1f GFLOP/s), ratio %.2f\n",
         n_items, n_support, 1e6 * time, 1e-9 * peak, ratio);
  melu_catalog_free(catalog);
}

int main(int argc, char **argv) {
  size_t n_support = 20;
  double seconds = 2;
  int json = 0, large = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--json"))
      json = 1;
    else if (!strcmp(argv[i], "--large"))
      large = 1;
    else if (!strcmp(argv[i], "--support") && read_size(&n_support, argv[i + 1], 0, 1000))
      i++;
    else if (!strcmp(argv[i], "--seconds") && read_seconds(&seconds, argv[i + 1]))
      i++;
    else
      return fprintf(stderr, "usage: bench_rank [--support N] [--large] [--seconds S] [--json]\n"), 2;
  }
  struct bench b;
  const uint32_t *items;
  const float *ratings;
  world_open(&b.w, 1, N_ITEMS, 1, n_support);
  TRY(melu_workspace_new(&b.ws, b.w.model, n_support, &err));
  TRY(melu_user_new(&b.user, b.w.model, &err));
  melu_dataset_ratings(b.w.data, 0, &items, &ratings);
  TRY(melu_adapt(b.user, b.ws, b.w.model, b.w.data, NULL, items, ratings, n_support, &err));
  report(&b, N_ITEMS, n_support, seconds, json);
  if (large) report(&b, N_LARGE, n_support, seconds, json);
  melu_user_free(b.user);
  melu_workspace_free(b.ws);
  world_close(&b.w);
  return 0;
}
