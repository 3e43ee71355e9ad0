/* SPDX-License-Identifier: BSD-3-Clause */
/* Training on MovieLens-1M as a user would run it: the paper's network and the library's defaults, on the warm users
 * with 13 to 100 ratings, 10 queries drawn anew for each task, in shuffled batches of 32.
 *
 *     bench_movielens DIR [--seconds S] [--threads T] [--json]
 *
 * DIR is a folder in the form of the MeLU reference code, as for examples/movielens.c. Figures: the seconds from the
 * start of the program to its first update; those of the first epoch, which also makes the plans; tasks a second and a
 * CPU-second, everything included (making batches, gathering, Adam), medians of rounds; and the most memory that the
 * process had. A round is an epoch, so that all rounds are the same work; there are 5, or as many as fill S seconds. */
#include "args.h"
#include "world.h"

enum { N_TASKS = 32, N_QUERY = 10, MIN_RATINGS = 13, MAX_RATINGS = 100, MIN_ROUNDS = 5, MAX_ROUNDS = 10000 };

struct bench {
  const char *dir;
  size_t n_threads;
  double seconds;
  int json;
  melu_context *ctx;
  melu_dataset *data;
  melu_model *model;
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  uint32_t *users; /* the eligible ones, in the epoch's order */
  size_t n_users;
  uint64_t n_support; /* ratings of an epoch */
  uint64_t random;
};

struct figures {
  double load, first_epoch, tasks_per_s, tasks_per_cpu_s, peak_mib;
  size_t n_rounds;
};

/* --------------------------------------------------------------------------------------------------- work */

static void find_users(struct bench *b) {
  const size_t n = melu_dataset_n_users(b->data);
  b->users = calloc(n + 1, sizeof *b->users);
  if (!b->users) {
    fprintf(stderr, "out of memory\n");
    exit(1);
  }
  for (uint32_t u = 0; u < n; u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n_ratings = melu_dataset_ratings(b->data, u, &items, &ratings);
    if (n_ratings < MIN_RATINGS || n_ratings > MAX_RATINGS) continue;
    b->users[b->n_users++] = u;
    b->n_support += n_ratings - N_QUERY;
  }
  if (b->n_users == 0) {
    fprintf(stderr, "%s: no user has between %d and %d ratings\n", b->dir, MIN_RATINGS, MAX_RATINGS);
    exit(1);
  }
}

static void prepare(struct bench *b) {
  const struct melu_context_options options = {.size = sizeof options, .n_threads = b->n_threads};
  const struct melu_model_options shape = {.size = sizeof shape, .preset = "melu"};
  melu_schema *schema;
  TRY(melu_context_new(&b->ctx, &options, &err));
  TRY(melu_schema_new(&schema, b->ctx, &err));
  TRY(melu_schema_add_melu(schema, b->dir, &err));
  TRY(melu_dataset_new(&b->data, b->ctx, schema, &err));
  melu_schema_free(schema);
  TRY(melu_dataset_read_melu(b->data, b->dir, "warm_state", &err));
  TRY(melu_dataset_freeze(b->data, &err));
  find_users(b);
  TRY(melu_model_new(&b->model, b->ctx, melu_dataset_schema(b->data), &shape, &err));
  TRY(melu_batch_new(&b->batch, b->ctx, b->data, &err));
  TRY(melu_gradient_new(&b->gradient, b->model, &err));
  TRY(melu_optimizer_new(&b->optimizer, b->model, NULL, &err));
}

/* The first n of the shuffled array are as they would be if all of it were shuffled. */
static void shuffle(uint32_t *x, size_t size, size_t n, uint64_t *random) {
  for (size_t i = 0; i < n; i++) {
    const size_t k = i + draw(random, (uint32_t)(size - i));
    const uint32_t taken = x[k];
    x[k] = x[i];
    x[i] = taken;
  }
}

static void add_task(struct bench *b, uint32_t user) {
  const uint32_t *items;
  const float *ratings;
  uint32_t positions[MAX_RATINGS];
  const size_t n = melu_dataset_ratings(b->data, user, &items, &ratings);
  for (uint32_t i = 0; i < n; i++) positions[i] = i;
  shuffle(positions, n, N_QUERY, &b->random);
  TRY(melu_batch_add(b->batch, user, positions + N_QUERY, n - N_QUERY, positions, N_QUERY, &err));
}

static void epoch(struct bench *b) {
  shuffle(b->users, b->n_users, b->n_users, &b->random);
  for (size_t i = 0; i < b->n_users;) {
    melu_batch_clear(b->batch);
    for (size_t k = 0; k < N_TASKS && i < b->n_users; k++) add_task(b, b->users[i++]);
    TRY(melu_meta_gradient(b->gradient, b->model, b->batch, &err));
    TRY(melu_optimizer_step(b->optimizer, b->model, b->gradient, &err));
  }
}

/* ------------------------------------------------------------------------------------------------ figures */

static void measure(struct figures *f, struct bench *b, double program_start) {
  static double rates[MAX_ROUNDS], cpu_rates[MAX_ROUNDS];
  const double first = now();
  f->load = first - program_start;
  epoch(b);
  const double start = now();
  f->first_epoch = start - first;
  while (f->n_rounds < MIN_ROUNDS || (f->n_rounds < MAX_ROUNDS && now() - start < b->seconds)) {
    const double begin = now(), cpu_begin = cpu_now();
    epoch(b);
    rates[f->n_rounds] = (double)b->n_users / (now() - begin);
    cpu_rates[f->n_rounds++] = (double)b->n_users / (cpu_now() - cpu_begin);
  }
  f->tasks_per_s = quantile(rates, f->n_rounds, 0.5);
  f->tasks_per_cpu_s = quantile(cpu_rates, f->n_rounds, 0.5);
  f->peak_mib = peak_mib();
}

static void print_figures(const struct figures *f, const struct bench *b) {
  const double mean_support = (double)b->n_support / (double)b->n_users;
  const char *build = melu_build_info(b->ctx);
  if (b->json)
    printf(
        "{\"threads\": %zu, \"users\": %zu, \"mean_support\": %.2f, \"load_seconds\": %.4f,\n"
        " \"first_epoch_seconds\": %.4f, \"rounds\": %zu, \"tasks_per_cpu_s\": %.1f, \"tasks_per_s\": %.1f,\n"
        " \"peak_mib\": %.1f, \"build\": \"%s\"}\n",
        b->n_threads, b->n_users, mean_support, f->load, f->first_epoch, f->n_rounds, f->tasks_per_cpu_s,
        f->tasks_per_s, f->peak_mib, build);
  else
    printf(
        "%s\n%zu thread(s), %zu users, %.1f support ratings in the mean, %zu epochs\n"
        "ready to train after   %8.3f s\nfirst epoch            %8.3f s\ntasks per CPU-second   %8.0f\n"
        "tasks per second       %8.0f\npeak memory            %8.1f MiB\n",
        build, b->n_threads, b->n_users, mean_support, f->n_rounds, f->load, f->first_epoch, f->tasks_per_cpu_s,
        f->tasks_per_s, f->peak_mib);
}

static int read_args(struct bench *b, int argc, char **argv) {
  *b = (struct bench){.n_threads = 1, .seconds = 2, .random = 1};
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--json"))
      b->json = 1;
    else if (!strcmp(argv[i], "--threads") && read_size(&b->n_threads, argv[i + 1], 1, 1024))
      i++;
    else if (!strcmp(argv[i], "--seconds") && read_seconds(&b->seconds, argv[i + 1]))
      i++;
    else if (*argv[i] != '-' && !b->dir)
      b->dir = argv[i];
    else
      return 0;
  }
  return b->dir != NULL;
}

int main(int argc, char **argv) {
  const double start = now();
  struct bench b;
  struct figures f = {0};
  if (!read_args(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_movielens DIR [--seconds S] [--threads T] [--json]\n");
    return 2;
  }
  prepare(&b);
  measure(&f, &b, start);
  print_figures(&f, &b);
  melu_optimizer_free(b.optimizer);
  melu_gradient_free(b.gradient);
  melu_batch_free(b.batch);
  melu_model_free(b.model);
  melu_dataset_free(b.data);
  melu_context_free(b.ctx);
  free(b.users);
  return 0;
}
