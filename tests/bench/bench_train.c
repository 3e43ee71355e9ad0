/* SPDX-License-Identifier: BSD-3-Clause */
/* Speed of meta-training: second-order meta-gradients of batches of 32 tasks, 256-64-64-1, 5 inner steps, 10 queries,
 * with everything that belongs to an update (gathering, summing, Adam), beside the peak of the core in the same run.
 *
 *     bench_train [--support N] [--threads T] [--seconds S] [--json]
 *
 * Rounds of training and of the peak take turns; the figures are the medians of the rounds. Useful floating-point
 * operations are those of the dual form, by the formula in docs/performance.md. */
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "peak.h"

enum { N_TASKS = 32, N_QUERY = 10, N_ITEMS = 4000, N_ROUNDS = 9 };

static melu_error err;

#define TRY(call)                                        \
  do {                                                   \
    if ((call) != MELU_OK) {                             \
      fprintf(stderr, "bench_train: %s\n", err.message); \
      exit(1);                                           \
    }                                                    \
  } while (0)

struct bench {
  size_t n_support, n_threads;
  double seconds;
  int json;
  melu_context *ctx;
  melu_dataset *data;
  melu_batch *batch;
  melu_model *model;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
};

static uint32_t draw(uint64_t *state, uint32_t n) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((*state >> 33) % n);
}

/* The paper's eight fields of width 32, with vocabularies as large as MovieLens-1M has them. */
static const struct melu_field fields[] = {
    {.name = "rate", .owner = MELU_ITEM, .n_values = 6},
    {.name = "genre", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 25},
    {.name = "director", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 2186},
    {.name = "actor", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 7978},
    {.name = "gender", .owner = MELU_USER, .n_values = 2},
    {.name = "age", .owner = MELU_USER, .n_values = 7},
    {.name = "occupation", .owner = MELU_USER, .n_values = 21},
    {.name = "zip", .owner = MELU_USER, .n_values = 3402},
};

static void add_entity(struct bench *b, melu_owner owner, uint64_t id, uint64_t *random) {
  static const uint32_t lengths[4] = {1, 4, 2, 8};
  struct melu_value values[4];
  uint32_t ids[4][8];
  for (size_t i = 0; i < 4; i++) {
    const struct melu_field *field = &fields[owner == MELU_ITEM ? i : 4 + i];
    values[i] = (struct melu_value){.ids = ids[i], .n_ids = 1};
    if (field->kind == MELU_MANY) values[i].n_ids = 1 + draw(random, lengths[i]);
    for (size_t k = 0; k < values[i].n_ids; k++) ids[i][k] = draw(random, (uint32_t)field->n_values);
  }
  if (owner == MELU_ITEM)
    TRY(melu_dataset_add_item(b->data, id, values, NULL, &err));
  else
    TRY(melu_dataset_add_user(b->data, id, values, NULL, &err));
}

static void prepare(struct bench *b) {
  const struct melu_context_options options = {.size = sizeof options, .n_threads = b->n_threads};
  melu_schema *schema;
  uint64_t random = 1;
  uint32_t positions[4096];
  TRY(melu_context_new(&b->ctx, &options, &err));
  TRY(melu_schema_new(&schema, b->ctx, &err));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    struct melu_field field = fields[i];
    field.size = sizeof field;
    TRY(melu_schema_add(schema, &field, &err));
  }
  TRY(melu_dataset_new(&b->data, b->ctx, schema, &err));
  for (uint64_t i = 0; i < N_ITEMS; i++) add_entity(b, MELU_ITEM, i, &random);
  for (uint64_t u = 0; u < N_TASKS; u++) {
    add_entity(b, MELU_USER, u, &random);
    for (size_t i = 0; i < b->n_support + N_QUERY; i++)
      TRY(melu_dataset_add_rating(b->data, u, draw(&random, N_ITEMS), (float)(1 + draw(&random, 5)), &err));
  }
  TRY(melu_dataset_freeze(b->data, &err));
  TRY(melu_model_new(&b->model, b->ctx, schema, NULL, &err));
  TRY(melu_gradient_new(&b->gradient, b->model, &err));
  TRY(melu_optimizer_new(&b->optimizer, b->model, NULL, &err));
  TRY(melu_batch_new(&b->batch, b->ctx, b->data, &err));
  for (uint32_t i = 0; i < b->n_support + N_QUERY; i++) positions[i] = i;
  for (uint32_t u = 0; u < N_TASKS; u++)
    TRY(melu_batch_add(b->batch, u, positions, b->n_support, positions + b->n_support, N_QUERY, &err));
  melu_schema_free(schema);
}

/* Of one task in the dual form; docs/performance.md. */
static double useful_flops(double m) {
  const double q = N_QUERY, r = m + q, item = 128, h = 64;
  const double first_layer = 3 * 2 * r * item * h, upper = 45 * 2 * m * h * h + 3 * 2 * q * h * h;
  const double gram = 2 * r * m * item + 2 * m * m * item + 4 * q * m * item;
  return first_layer + upper + gram + 3 * 8 * m * m * h + 6 * q * m * h;
}

static double round_rate(struct bench *b, double seconds) {
  size_t n = 0;
  const double start = now();
  double end;
  do {
    TRY(melu_meta_gradient(b->gradient, b->model, b->batch, &err));
    TRY(melu_optimizer_step(b->optimizer, b->model, b->gradient, &err));
    n += N_TASKS;
    end = now();
  } while (end - start < seconds);
  return (double)n / (end - start);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *x, size_t n) {
  qsort(x, n, sizeof *x, ascending);
  return x[n / 2];
}

static int read_args(struct bench *b, int argc, char **argv) {
  *b = (struct bench){.n_support = 20, .n_threads = 1, .seconds = 2};
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--json"))
      b->json = 1;
    else if (!strcmp(argv[i], "--support"))
      b->n_support = strtoul(value, NULL, 10), i++;
    else if (!strcmp(argv[i], "--threads"))
      b->n_threads = strtoul(value, NULL, 10), i++;
    else if (!strcmp(argv[i], "--seconds"))
      b->seconds = strtod(value, NULL), i++;
    else
      return 0;
  }
  return b->n_support <= 4000 && b->n_threads >= 1 && b->seconds > 0;
}

int main(int argc, char **argv) {
  struct bench b;
  double rates[N_ROUNDS], peaks_seen[N_ROUNDS];
  if (!read_args(&b, argc, argv)) {
    fprintf(stderr, "usage: bench_train [--support N] [--threads T] [--seconds S] [--json]\n");
    return 2;
  }
  prepare(&b);
  round_rate(&b, 0.1); /* makes the plans */
  for (size_t i = 0; i < N_ROUNDS; i++) {
    rates[i] = round_rate(&b, b.seconds / N_ROUNDS);
    peaks_seen[i] = peak_of(b.ctx->kernels, b.seconds / N_ROUNDS / 16) * (double)b.n_threads;
  }
  const double rate = median(rates, N_ROUNDS), peak = median(peaks_seen, N_ROUNDS);
  const double flops = useful_flops((double)b.n_support) * rate;
  if (b.json)
    printf(
        "{\"support\": %zu, \"threads\": %zu, \"tasks_per_s\": %.0f, \"gflops\": %.2f, \"peak_gflops\": %.2f,\n"
        " \"fraction_of_peak\": {\"value\": %.4f}, \"build\": \"%s\"}\n",
        b.n_support, b.n_threads, rate, 1e-9 * flops, 1e-9 * peak, flops / peak, melu_build_info(b.ctx));
  else
    printf(
        "%s\nsupport %zu, %zu thread(s): %.0f tasks/s, %.1f us a task, %.1f of %.1f GFLOP/s\nfraction_of_peak %.3f\n",
        melu_build_info(b.ctx), b.n_support, b.n_threads, rate, 1e6 / rate, 1e-9 * flops, 1e-9 * peak, flops / peak);
  melu_batch_free(b.batch);
  melu_optimizer_free(b.optimizer);
  melu_gradient_free(b.gradient);
  melu_model_free(b.model);
  melu_dataset_free(b.data);
  melu_context_free(b.ctx);
  return 0;
}
