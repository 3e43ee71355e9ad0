/* SPDX-License-Identifier: BSD-3-Clause */
/* Latency of serving: adapt a user to N ratings (5 inner steps, 256-64-64-1) and predict 10 items.
 *
 *     bench_adapt [--support N] [--seconds S] [--json]
 *
 * Every call is timed on its own, with users and items that change from call to call; calls to the allocator meanwhile
 * are counted. */
#include "args.h"
#include "world.h"

enum { N_ITEMS = 4000, N_USERS = 1000, N_PREDICTED = 10, MAX_CALLS = 1 << 20 };

static size_t n_allocations;

static void *count_alloc(void *arg, size_t n) {
  (void)arg;
  n_allocations++;
  return malloc(n);
}

static void count_free(void *arg, void *p) {
  (void)arg;
  n_allocations++;
  free(p);
}

/* Seconds of adapting and predicting, by the clock around each pair of calls. */
static size_t run(struct world *w, size_t n_support, double seconds, double *times) {
  melu_workspace *ws;
  melu_user *user;
  uint32_t wanted[N_PREDICTED];
  float scores[N_PREDICTED];
  uint64_t random = 7;
  size_t n = 0;
  TRY(melu_workspace_new(&ws, w->model, n_support, &err));
  TRY(melu_user_new(&user, w->model, &err));
  const uint32_t *items;
  const float *ratings;
  struct melu_value profile[4];
  melu_dataset_ratings(w->data, 0, &items, &ratings);
  TRY(melu_dataset_user_values(profile, w->data, 0, &err));
  TRY(melu_adapt(user, ws, w->model, w->data, profile, items, ratings, n_support, &err)); /* room to remember */
  for (double end = now() + seconds; n < MAX_CALLS && now() < end;) {
    const uint32_t u = (uint32_t)(n % N_USERS);
    melu_dataset_ratings(w->data, u, &items, &ratings);
    TRY(melu_dataset_user_values(profile, w->data, u, &err));
    for (size_t i = 0; i < N_PREDICTED; i++) wanted[i] = draw(&random, N_ITEMS);
    const size_t before = n_allocations;
    const double start = now();
    TRY(melu_adapt(user, ws, w->model, w->data, profile, items, ratings, n_support, &err));
    TRY(melu_predict(scores, ws, w->model, user, w->data, wanted, N_PREDICTED, &err));
    times[n++] = now() - start;
    if (n_allocations != before) {
      fprintf(stderr, "adapt or predict called the allocator\n");
      exit(1);
    }
  }
  melu_user_free(user);
  melu_workspace_free(ws);
  return n;
}

int main(int argc, char **argv) {
  size_t n_support = 20;
  double seconds = 3;
  int json = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--json"))
      json = 1;
    else if (!strcmp(argv[i], "--support") && read_size(&n_support, argv[i + 1], 0, 1000))
      i++;
    else if (!strcmp(argv[i], "--seconds") && read_seconds(&seconds, argv[i + 1]))
      i++;
    else
      return fprintf(stderr, "usage: bench_adapt [--support N] [--seconds S] [--json]\n"), 2;
  }
  const struct melu_allocator counting = {.alloc = count_alloc, .free = count_free};
  const struct melu_context_options options = {.size = sizeof options, .allocator = &counting};
  struct world w;
  double *times = malloc(MAX_CALLS * sizeof *times);
  if (!times) return 1;
  world_open_with(&w, &options, 1, N_ITEMS, N_USERS, n_support);
  run(&w, n_support, 0.1, times);
  const size_t n = run(&w, n_support, seconds, times);
  const double p50 = quantile(times, n, 0.5), p99 = quantile(times, n, 0.99);
  printf(json ? "{\"support\": %zu, \"predicted\": %d, \"calls\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, "
                "\"p99_over_p50\": {\"value\": %.3f}, \"allocations\": 0}\n"
              : "%zu ratings, %d predictions, %zu calls: p50 %.1f us, p99 %.1f us, p99 / p50 %.2f, no allocations\n",
         n_support, (int)N_PREDICTED, n, 1e6 * p50, 1e6 * p99, p99 / p50);
  free(times);
  world_close(&w);
  return 0;
}
