/* SPDX-License-Identifier: BSD-3-Clause */
/* What threads bring: tasks a second of training with 1, 2, ... threads, on the same batch as bench_train's, and
 * whether the parameters are the same bits after the same number of updates (exit status 1 if not).
 *
 *     bench_threads [--threads T] [--tasks N] [--support N] [--seconds S] [--json]
 *
 * T: most threads, by default as many as there are cores. N: tasks a batch, 32, and support ratings a task, 20.
 * S: time for one thread in all, 2. The contexts live side by side and their rounds take turns, each of the same number
 * of updates. Rates are medians of the rounds; a speed-up is the median of the rounds' own ratios to one thread.
 * `cores` is how many computed at a time, CPU-seconds a second: where it is well below the threads, the machine had
 * other work, or the threads waited for each other. */
#include <unistd.h>

#include "args.h"
#include "world.h"

enum { N_QUERY = 10, N_ITEMS = 4000, N_ROUNDS = 9, MAX_THREADS = 256, MAX_TASKS = 4096, MAX_SUPPORT = 4000 };

struct bench {
  size_t n_threads, n_tasks, n_support;
  double seconds;
  int json;
};

struct side {
  struct world w;
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  double rates[N_ROUNDS], speedups[N_ROUNDS], cores_seen[N_ROUNDS]; /* ascending once the medians are taken */
  double rate, speedup, cores;
};

static void *must_alloc(size_t n, size_t size) {
  void *memory = calloc(n, size);
  if (memory) return memory;
  fprintf(stderr, "out of memory\n");
  exit(1);
}

static void open_side(struct side *s, const struct bench *b, size_t n_threads) {
  uint32_t positions[MAX_SUPPORT + N_QUERY];
  world_open(&s->w, n_threads, N_ITEMS, b->n_tasks, b->n_support + N_QUERY);
  TRY(melu_batch_new(&s->batch, s->w.ctx, s->w.data, &err));
  TRY(melu_gradient_new(&s->gradient, s->w.model, &err));
  TRY(melu_optimizer_new(&s->optimizer, s->w.model, NULL, &err));
  for (uint32_t i = 0; i < b->n_support + N_QUERY; i++) positions[i] = i;
  for (uint32_t u = 0; u < b->n_tasks; u++)
    TRY(melu_batch_add(s->batch, u, positions, b->n_support, positions + b->n_support, N_QUERY, &err));
}

static void close_side(struct side *s) {
  melu_optimizer_free(s->optimizer);
  melu_gradient_free(s->gradient);
  melu_batch_free(s->batch);
  world_close(&s->w);
}

/* Returns the seconds that so many updates take. */
static double train(struct side *s, size_t n_updates) {
  const double start = now();
  for (size_t i = 0; i < n_updates; i++) {
    TRY(melu_meta_gradient(s->gradient, s->w.model, s->batch, &err));
    TRY(melu_optimizer_step(s->optimizer, s->w.model, s->gradient, &err));
  }
  return now() - start;
}

static void measure(struct side *sides, const struct bench *b) {
  enum { N_TRIAL = 3 };
  double trial = 0;
  for (size_t i = 0; i < b->n_threads; i++) train(&sides[i], N_TRIAL); /* makes the plan */
  for (size_t i = 0; i < b->n_threads; i++) {
    const double time = train(&sides[i], N_TRIAL);
    if (i == 0) trial = time / N_TRIAL;
  }
  const size_t n_updates = 1 + (size_t)(b->seconds / N_ROUNDS / trial);
  for (size_t round = 0; round < N_ROUNDS; round++) {
    for (size_t i = 0; i < b->n_threads; i++) {
      const double cpu_start = cpu_now(), time = train(&sides[i], n_updates);
      sides[i].cores_seen[round] = (cpu_now() - cpu_start) / time;
      sides[i].rates[round] = (double)(n_updates * b->n_tasks) / time;
      sides[i].speedups[round] = sides[i].rates[round] / sides[0].rates[round];
    }
  }
  for (size_t i = 0; i < b->n_threads; i++) {
    sides[i].rate = quantile(sides[i].rates, N_ROUNDS, 0.5);
    sides[i].speedup = quantile(sides[i].speedups, N_ROUNDS, 0.5);
    sides[i].cores = quantile(sides[i].cores_seen, N_ROUNDS, 0.5);
  }
}

/* Whether all parameters of both models have the same bits; says which one has not. */
static int same_bits(const melu_model *a, const melu_model *b, size_t n_threads) {
  int same = 1;
  for (size_t i = 0; i < melu_model_n_params(a) && same; i++) {
    struct melu_param p;
    TRY(melu_model_param(&p, a, i, &err));
    const size_t n = p.rows * p.cols;
    float *const x = must_alloc(n, sizeof *x), *const y = must_alloc(n, sizeof *y);
    TRY(melu_model_read(x, a, p.name, 0, p.rows, &err));
    TRY(melu_model_read(y, b, p.name, 0, p.rows, &err));
    same = memcmp(x, y, n * sizeof *x) == 0;
    if (!same) fprintf(stderr, "%s differs between 1 and %zu threads\n", p.name, n_threads);
    free(y);
    free(x);
  }
  return same;
}

static void print_json(const struct side *sides, const struct bench *b, int same) {
  printf("{\"tasks\": %zu, \"support\": %zu, \"same_bits\": %s, \"threads\": [", b->n_tasks, b->n_support,
         same ? "true" : "false");
  for (size_t i = 0; i < b->n_threads; i++)
    printf("%s\n {\"threads\": %zu, \"tasks_per_s\": %.0f, \"speedup\": %.4f, \"cores\": %.3f}", i ? "," : "", i + 1,
           sides[i].rate, sides[i].speedup, sides[i].cores);
  printf("],\n");
  if (b->n_threads >= 2) printf(" \"speedup_2\": {\"value\": %.4f},", sides[1].speedup);
  printf(" \"build\": \"%s\"}\n", melu_build_info(sides[0].w.ctx));
}

static void print_table(const struct side *sides, const struct bench *b, int same) {
  printf("%s\n%zu tasks a batch, %zu support ratings each\n%8s%10s%10s%8s\n", melu_build_info(sides[0].w.ctx),
         b->n_tasks, b->n_support, "threads", "tasks/s", "speed-up", "cores");
  for (size_t i = 0; i < b->n_threads; i++)
    printf("%8zu%10.0f%10.3f%8.2f\n", i + 1, sides[i].rate, sides[i].speedup, sides[i].cores);
  printf("the parameters are %s\n", same ? "the same bits" : "NOT the same bits");
}

static int read_args(struct bench *b, int argc, char **argv) {
  const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
  *b = (struct bench){.n_threads = 1, .n_tasks = 32, .n_support = 20, .seconds = 2};
  if (n_cores > 1) b->n_threads = n_cores < MAX_THREADS ? (size_t)n_cores : MAX_THREADS;
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i];
    if (!strcmp(name, "--json")) {
      b->json = 1;
      continue;
    }
    const char *value = argv[++i]; /* NULL after the last one */
    if (!strcmp(name, "--threads") && read_size(&b->n_threads, value, 1, MAX_THREADS)) continue;
    if (!strcmp(name, "--tasks") && read_size(&b->n_tasks, value, 1, MAX_TASKS)) continue;
    if (!strcmp(name, "--support") && read_size(&b->n_support, value, 0, MAX_SUPPORT)) continue;
    if (!strcmp(name, "--seconds") && read_seconds(&b->seconds, value)) continue;
    return 0;
  }
  return 1;
}

int main(int argc, char **argv) {
  struct bench b;
  int same = 1;
  if (!read_args(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_threads [--threads T] [--tasks N] [--support N] [--seconds S] [--json]\n");
    return 2;
  }
  struct side *sides = must_alloc(b.n_threads, sizeof *sides);
  for (size_t i = 0; i < b.n_threads; i++) open_side(&sides[i], &b, i + 1);
  measure(sides, &b);
  for (size_t i = 1; i < b.n_threads; i++)
    if (!same_bits(sides[0].w.model, sides[i].w.model, i + 1)) same = 0;
  if (b.json)
    print_json(sides, &b, same);
  else
    print_table(sides, &b, same);
  for (size_t i = 0; i < b.n_threads; i++) close_side(&sides[i]);
  free(sides);
  return same ? 0 : 1;
}
