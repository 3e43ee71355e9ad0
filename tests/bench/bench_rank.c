/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking a catalogue for an adapted user with N ratings: the ten best of 4,000 and, with --large, of 1,000,000 items,
 * by the presets "melu" and "best".
 *
 *     bench_rank [--support N] [--large] [--seconds S] [--json]
 *
 * In turns with it, round by round: `products_us`, the same products alone, block after block by the kernels, all they
 * read being in the caches; and `reading_us`, reading what the catalogue consists of once. `ratio` is the time over
 * whichever of these takes longer, the median of the rounds'. */
#include <math.h>

#include "args.h"
#include "base/context.h"
#include "serve/catalog.h"
#include "world.h"

enum { N_ITEMS = 4000, N_LARGE = 1000000, N_ROUNDS = 9, N_BEST = 10 };

/* A product of a block: (MELU__RANK_ROWS, k) and (k, cols). */
struct shape {
  size_t k, cols;
};

/* A user before a catalogue, and what is multiplied for her. */
struct bench {
  const melu_model *model;
  const melu_dataset *data;
  melu_workspace *ws;
  melu_user *user;
  melu_catalog *catalog;
  struct shape shapes[MELU__MAX_HIDDEN + 2];
  size_t n_shapes;
  real *a, *b, *c; /* factors and result, large enough for any of them */
};

static volatile float sink;

/* ------------------------------------------------------------------------------------------ what is multiplied */

static void add_shape(struct bench *b, size_t k, size_t cols) {
  b->shapes[b->n_shapes++] = (struct shape){k, cols};
}

static void find_shapes(struct bench *b) {
  const melu_model *model = b->model;
  const size_t n_support = b->user->n_support, width = model->item_width;
  if (melu__is_factors(model)) {
    add_shape(b, melu__user_cols(&model->options), 1);
    return;
  }
  const size_t h = melu__rank_z(model);
  if (n_support == MELU__FORMED) {
    add_shape(b, width, h);
  } else if (n_support) {
    add_shape(b, width, n_support);
    add_shape(b, n_support, h);
  }
  for (size_t l = 1; l < model->n_layers; l++)
    add_shape(b, melu__model_weight(model, l)->cols, melu__model_weight(model, l)->rows);
}

static real *zeros(size_t n) {
  real *p = calloc(n, sizeof *p);
  if (!p) exit(1);
  return p;
}

static void make_factors(struct bench *b) {
  size_t k = 0, cols = 0;
  find_shapes(b);
  for (size_t i = 0; i < b->n_shapes; i++) {
    if (b->shapes[i].k > k) k = b->shapes[i].k;
    if (b->shapes[i].cols > cols) cols = b->shapes[i].cols;
  }
  b->a = zeros(MELU__RANK_ROWS * k);
  b->b = zeros(k * cols);
  b->c = zeros(MELU__RANK_ROWS * cols);
}

/* -------------------------------------------------------------------------------------------- what is timed */

static void rank(const struct bench *b) {
  uint32_t items[N_BEST];
  float scores[N_BEST];
  size_t n = N_BEST;
  TRY(melu_catalog_top(items, scores, &n, b->ws, b->catalog, b->user, NULL, &err));
  sink = scores[0];
}

static void multiply(const struct bench *b) {
  for (size_t first = 0; first < b->catalog->n; first += MELU__RANK_ROWS)
    for (size_t i = 0; i < b->n_shapes; i++) {
      const size_t k = b->shapes[i].k, cols = b->shapes[i].cols;
      b->model->ctx->kernels->gemm(0, 0, MELU__RANK_ROWS, cols, k, 1, (struct melu__cmat){b->a, k},
                                   (struct melu__cmat){b->b, cols}, 0, (struct melu__mat){b->c, cols});
    }
  sink = (float)b->c[0];
}

typedef real wide __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));

static real sum_of(const real *x, size_t n) {
  enum { WIDTH = sizeof(wide) / sizeof(real), CHAINS = 4 };
  wide sum[CHAINS] = {{0}};
  size_t i = 0;
  for (; i + CHAINS * WIDTH <= n; i += CHAINS * WIDTH)
    for (size_t j = 0; j < CHAINS; j++) sum[j] += *(const wide *)(x + i + j * WIDTH);
  const wide all = sum[0] + sum[1] + sum[2] + sum[3];
  real total = all[0];
  for (size_t j = 1; j < WIDTH; j++) total += all[j];
  for (; i < n; i++) total += x[i];
  return total;
}

static void read_all(const struct bench *b) {
  const melu_catalog *c = b->catalog;
  sink = (float)(sum_of(c->x, c->n * melu__rank_x(b->model)) + sum_of(c->z, c->n * melu__rank_z(b->model)));
}

/* The shortest of as many as fit into the time. */
static double time_of(void (*run)(const struct bench *), const struct bench *b, double seconds) {
  double best = HUGE_VAL;
  const double end = now() + seconds;
  do {
    const double start = now();
    run(b);
    const double time = now() - start;
    if (time < best) best = time;
  } while (now() < end);
  return best;
}

/* ------------------------------------------------------------------------------------------------ the whole */

static void report(struct bench *b, size_t n_items, double seconds, int json) {
  double ranking[N_ROUNDS], products[N_ROUNDS], reading[N_ROUNDS], ratios[N_ROUNDS];
  uint32_t *items = malloc(2 * n_items * sizeof *items), *numbers = items + n_items;
  if (!items) exit(1);
  for (size_t i = 0; i < n_items; i++) {
    items[i] = (uint32_t)(i % N_ITEMS);
    numbers[i] = (uint32_t)i;
  }
  TRY(melu_catalog_new(&b->catalog, b->model, b->data, items, 0, &err));
  TRY(melu_catalog_put(b->catalog, b->data, items, numbers, n_items, &err));
  free(items);
  for (size_t i = 0; i < N_ROUNDS; i++) {
    ranking[i] = time_of(rank, b, seconds / N_ROUNDS / 3);
    products[i] = time_of(multiply, b, seconds / N_ROUNDS / 3);
    reading[i] = time_of(read_all, b, seconds / N_ROUNDS / 3);
    ratios[i] = ranking[i] / (products[i] > reading[i] ? products[i] : reading[i]);
  }
  const char *preset = melu__is_factors(b->model) ? "best" : "melu";
  printf(json ? "{\"preset\": \"%s\", \"items\": %zu, \"support\": %zu, \"us\": %.1f, \"products_us\": %.1f, "
                "\"reading_us\": %.1f, \"ratio\": {\"value\": %.3f}}\n"
              : "%s, %zu items, %zu ratings: %.1f us; products alone %.1f us, reading %.1f us, ratio %.2f\n",
         preset, n_items, melu_user_ratings(b->user, NULL, NULL), 1e6 * quantile(ranking, N_ROUNDS, 0.5),
         1e6 * quantile(products, N_ROUNDS, 0.5), 1e6 * quantile(reading, N_ROUNDS, 0.5),
         quantile(ratios, N_ROUNDS, 0.5));
  melu_catalog_free(b->catalog);
}

static void bench_model(const melu_model *model, const melu_dataset *data, int large, double seconds, int json) {
  struct bench b = {.model = model, .data = data};
  const uint32_t *items;
  const float *ratings;
  const size_t n_support = melu_dataset_ratings(data, 0, &items, &ratings);
  TRY(melu_workspace_new(&b.ws, model, n_support, &err));
  TRY(melu_user_new(&b.user, model, &err));
  TRY(melu_adapt(b.user, b.ws, model, data, NULL, items, ratings, n_support, &err));
  make_factors(&b);
  report(&b, N_ITEMS, seconds, json);
  if (large) report(&b, N_LARGE, seconds, json);
  free(b.a);
  free(b.b);
  free(b.c);
  melu_user_free(b.user);
  melu_workspace_free(b.ws);
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
  const struct melu_model_options best_options = {.size = sizeof best_options, .preset = "best"};
  struct world w;
  melu_model *best;
  world_open(&w, 1, N_ITEMS, 1, n_support);
  TRY(melu_model_new(&best, w.ctx, melu_dataset_schema(w.data), &best_options, &err));
  bench_model(w.model, w.data, large, seconds, json);
  bench_model(best, w.data, large, seconds, json);
  melu_model_free(best);
  world_close(&w);
  return 0;
}
