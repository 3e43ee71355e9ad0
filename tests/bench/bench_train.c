/* SPDX-License-Identifier: BSD-3-Clause */
/* Speed of meta-training: second-order meta-gradients of batches of 32 tasks, 256-64-64-1, 5 inner steps, 10 queries,
 * with everything that belongs to an update (gathering, summing, Adam), beside the peak of the core in the same run.
 *
 *     bench_train [--support N] [--threads T] [--seconds S] [--gradient-only] [--json]
 *
 * Rounds of training and of the peak take turns; the figures are the medians of the rounds. Useful floating-point
 * operations are those of the dual form, by the formula in docs/performance.md. */
#include <math.h>

#include "base/context.h"
#include "args.h"
#include "peak.h"
#include "world.h"

enum { N_TASKS = 32, N_QUERY = 10, N_ITEMS = 4000, N_ROUNDS = 9 };

struct bench {
  size_t n_support, n_threads;
  double seconds;
  int json, gradient_only; /* without the optimizer's step */
  struct world w;
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
};

static void prepare(struct bench *b) {
  uint32_t positions[4096];
  world_open(&b->w, b->n_threads, N_ITEMS, N_TASKS, b->n_support + N_QUERY);
  TRY(melu_gradient_new(&b->gradient, b->w.model, &err));
  TRY(melu_optimizer_new(&b->optimizer, b->w.model, NULL, &err));
  TRY(melu_batch_new(&b->batch, b->w.ctx, b->w.data, &err));
  for (uint32_t i = 0; i < b->n_support + N_QUERY; i++) positions[i] = i;
  for (uint32_t u = 0; u < N_TASKS; u++)
    TRY(melu_batch_add(b->batch, u, positions, b->n_support, positions + b->n_support, N_QUERY, &err));
}

/* Of one task in the dual form; docs/performance.md. */
static double useful_flops(double m) {
  const double q = N_QUERY, r = m + q, item = 128, h = 64;
  const double first_layer = 3 * 2 * r * item * h, upper = 45 * 2 * m * h * h + 3 * 2 * q * h * h;
  const double gram = 2 * r * m * item + 2 * m * m * item + 4 * q * m * item;
  return first_layer + upper + gram + 3 * 8 * m * m * h + 6 * q * m * h;
}

/* Tasks a second; *best receives the shortest time of an update. */
static double round_rate(struct bench *b, double seconds, double *best) {
  size_t n = 0;
  const double start = now();
  double end = start;
  do {
    const double begin = end;
    TRY(melu_meta_gradient(b->gradient, b->w.model, b->batch, &err));
    if (!b->gradient_only) TRY(melu_optimizer_step(b->optimizer, b->w.model, b->gradient, &err));
    n += N_TASKS;
    end = now();
    if (end - begin < *best) *best = end - begin;
  } while (end - start < seconds);
  return (double)n / (end - start);
}

static int read_args(struct bench *b, int argc, char **argv) {
  *b = (struct bench){.n_support = 20, .n_threads = 1, .seconds = 2};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--json"))
      b->json = 1;
    else if (!strcmp(argv[i], "--gradient-only"))
      b->gradient_only = 1;
    else if (!strcmp(argv[i], "--support") && read_size(&b->n_support, argv[i + 1], 0, 4000))
      i++;
    else if (!strcmp(argv[i], "--threads") && read_size(&b->n_threads, argv[i + 1], 1, 1024))
      i++;
    else if (!strcmp(argv[i], "--seconds") && read_seconds(&b->seconds, argv[i + 1]))
      i++;
    else
      return 0;
  }
  return 1;
}

int main(int argc, char **argv) {
  struct bench b;
  double rates[N_ROUNDS], peaks_seen[N_ROUNDS], best = HUGE_VAL;
  if (!read_args(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_train [--support N] [--threads T] [--seconds S] [--gradient-only] [--json]\n");
    return 2;
  }
  prepare(&b);
  round_rate(&b, 0.1, &best); /* makes the plans */
  for (size_t i = 0; i < N_ROUNDS; i++) {
    rates[i] = round_rate(&b, b.seconds / N_ROUNDS, &best);
    peaks_seen[i] = peak_of(b.w.ctx->kernels, b.seconds / N_ROUNDS / 16) * (double)b.n_threads;
  }
  const double rate = quantile(rates, N_ROUNDS, 0.5), peak = quantile(peaks_seen, N_ROUNDS, 0.5);
  const double flops = useful_flops((double)b.n_support) * rate;
  if (b.json)
    printf(
        "{\"support\": %zu, \"threads\": %zu, \"tasks_per_s\": %.0f, \"gflops\": %.2f, \"peak_gflops\": %.2f,\n"
        " \"fraction_of_peak\": {\"value\": %.4f}, \"build\": \"%s\"}\n",
        b.n_support, b.n_threads, rate, 1e-9 * flops, 1e-9 * peak, flops / peak, melu_build_info(b.w.ctx));
  else
    printf(
        "%s\nsupport %zu, %zu thread(s): %.0f tasks/s, %.1f us a task (best %.1f), %.1f of %.1f GFLOP/s\n"
        "fraction_of_peak %.3f\n",
        melu_build_info(b.w.ctx), b.n_support, b.n_threads, rate, 1e6 / rate, 1e6 * best / N_TASKS, 1e-9 * flops,
        1e-9 * peak, flops / peak);
  melu_batch_free(b.batch);
  melu_optimizer_free(b.optimizer);
  melu_gradient_free(b.gradient);
  world_close(&b.w);
  return 0;
}
