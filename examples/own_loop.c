/* SPDX-License-Identifier: BSD-3-Clause
 *
 * own_loop - meta-training by a loop of one's own.
 *
 * melu_fit is not the only way to train. A host that has its own schedule, its own update rule or a model that other
 * losses reach too takes the meta-gradient of a task batch, which goes through the inner steps, and does with the
 * parameters what it likes. Here it is momentum, first by hand, then by the library's optimizer.
 *
 *     cc own_loop.c common/[a-z]*.c $(pkg-config --cflags --libs melu) -lm
 */
#include <melu.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/args.h"

static melu_error err;

/* ------------------------------------------------------------------------- listeners and songs, made up */

enum { N_LISTENERS = 400, N_SONGS = 60, N_GENRES = 4, N_RATINGS = 16, N_QUERY = 6 };

/* Uniform in [-1, 1). */
static double draw(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 33) / 1073741824.0 - 1;
}

/* Every listener likes some genres and dislikes others, and every song is a little better or worse than its genre. */
static melu_dataset *new_listeners(const melu_context *ctx, uint64_t seed) {
  melu_schema *schema;
  melu_dataset *data;
  const struct melu_field genre = {
      .size = sizeof genre, .name = "genre", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = N_GENRES, .width = 8};
  const struct melu_field song = {
      .size = sizeof song, .name = "song", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = N_SONGS, .width = 8};
  must(melu_schema_new(&schema, ctx, &err), &err);
  must(melu_schema_add(schema, &genre, &err), &err);
  must(melu_schema_add(schema, &song, &err), &err);
  must(melu_dataset_new(&data, ctx, schema, &err), &err);
  melu_schema_free(schema); /* the data set has its copy */

  double quality[N_SONGS];
  for (uint32_t i = 0; i < N_SONGS; i++) {
    const uint32_t its_genre = i % N_GENRES;
    const struct melu_value values[2] = {{.ids = &its_genre, .n_ids = 1}, {.ids = &i, .n_ids = 1}};
    must(melu_dataset_add_item(data, i, values, NULL, &err), &err);
    quality[i] = draw(&seed);
  }
  for (uint64_t u = 0; u < N_LISTENERS; u++) {
    double taste[N_GENRES];
    for (size_t g = 0; g < N_GENRES; g++) taste[g] = 1.5 * draw(&seed);
    must(melu_dataset_add_user(data, u, NULL, NULL, &err), &err); /* nothing is known of her */
    for (size_t r = 0; r < N_RATINGS; r++) {
      const uint32_t i = (uint32_t)((draw(&seed) + 1) / 2 * N_SONGS);
      const double rating = 3 + taste[i % N_GENRES] + 0.5 * quality[i] + 0.3 * draw(&seed);
      must(melu_dataset_add_rating(data, u, i, (float)fmin(fmax(round(rating), 1), 5), &err), &err);
    }
  }
  must(melu_dataset_freeze(data, &err), &err);
  return data;
}

/* Tasks of some listeners: six ratings are the query set, the others the support set. The positions of an evaluation
 * split serve as a draw: another `turn`, other queries. */
static void draw_tasks(melu_batch *batch, const melu_dataset *data, uint64_t *state, uint64_t turn) {
  melu_batch_clear(batch);
  for (int t = 0; t < 32; t++) {
    const uint32_t user = (uint32_t)((draw(state) + 1) / 2 * N_LISTENERS);
    uint32_t order[N_RATINGS];
    must(melu_split_order(order, melu_dataset_user_id(data, user), turn, N_RATINGS, &err), &err);
    must(melu_batch_add(batch, user, order, N_RATINGS - N_QUERY, order + N_RATINGS - N_QUERY, N_QUERY, &err), &err);
  }
}

/* ---------------------------------------------------------------------------------- an update of one's own */

static const double learning_rate = 0.02, momentum = 0.9;

/* A velocity for every parameter, of the parameter's shape, and room for the gradient of the largest one. */
struct momentum {
  size_t n_params;
  struct melu_param *params;
  float **velocity;
  uint32_t *rows;
  float *slopes, *weights;
};

static void *memory(size_t n, size_t size) {
  void *p = calloc(n, size);
  if (!p) give_up("out of memory");
  return p;
}

static void momentum_init(struct momentum *m, const melu_model *model) {
  size_t most_rows = 0, most_values = 0;
  m->n_params = melu_model_n_params(model);
  m->params = memory(m->n_params, sizeof *m->params);
  m->velocity = memory(m->n_params, sizeof *m->velocity);
  for (size_t p = 0; p < m->n_params; p++) {
    must(melu_model_param(&m->params[p], model, p, &err), &err);
    const size_t n_rows = m->params[p].rows, n_values = n_rows * m->params[p].cols;
    m->velocity[p] = memory(n_values, sizeof **m->velocity);
    if (n_rows > most_rows) most_rows = n_rows;
    if (n_values > most_values) most_values = n_values;
  }
  m->rows = memory(most_rows, sizeof *m->rows);
  m->slopes = memory(most_values, sizeof *m->slopes);
  m->weights = memory(most_values, sizeof *m->weights);
}

static void momentum_free(struct momentum *m) {
  for (size_t p = 0; p < m->n_params; p++) free(m->velocity[p]);
  free(m->weights);
  free(m->slopes);
  free(m->rows);
  free(m->velocity);
  free(m->params);
}

/* Only the rows that the batch touched have a gradient; a table of a million films is not gone through for thirty. */
static void momentum_step(struct momentum *m, melu_model *model, const melu_gradient *gradient) {
  for (size_t p = 0; p < m->n_params; p++) {
    const char *name = m->params[p].name;
    const size_t cols = m->params[p].cols, n_rows = melu_gradient_n_rows(gradient, name);
    must(melu_gradient_read_rows(m->rows, m->slopes, gradient, name, &err), &err);
    for (size_t r = 0; r < n_rows; r++) {
      const float *slopes = m->slopes + r * cols;
      float *velocity = m->velocity[p] + m->rows[r] * cols;
      must(melu_model_read(m->weights, model, name, m->rows[r], 1, &err), &err);
      for (size_t c = 0; c < cols; c++) {
        velocity[c] = (float)(momentum * (double)velocity[c] + (double)slopes[c]);
        m->weights[c] -= (float)(learning_rate * (double)velocity[c]);
      }
      must(melu_model_write(model, name, m->rows[r], 1, m->weights, &err), &err);
    }
  }
}

/* --------------------------------------------------------------------------------------------- the loops */

/* The gradient as one number, from whole parameters rather than rows. */
static double gradient_norm(const melu_gradient *gradient, struct momentum *m) {
  double sum = 0;
  for (size_t p = 0; p < m->n_params; p++) {
    must(melu_gradient_read(m->slopes, gradient, m->params[p].name, &err), &err);
    const size_t n = m->params[p].rows * m->params[p].cols;
    for (size_t i = 0; i < n; i++) sum += (double)m->slopes[i] * (double)m->slopes[i];
  }
  return sqrt(sum);
}

/* Trains by hand, or by `optimizer` if there is one, and prints every so often the mean loss since the last time. */
static void train(melu_model *model, const melu_context *ctx, const melu_dataset *data, melu_optimizer *optimizer,
                  uint64_t n_steps, uint64_t seed) {
  melu_batch *batch;
  melu_gradient *gradient;
  struct momentum own;
  must(melu_batch_new(&batch, ctx, data, &err), &err);
  must(melu_gradient_new(&gradient, model, &err), &err);
  momentum_init(&own, model);
  const uint64_t every = n_steps < 8 ? 1 : n_steps / 8;
  double sum = 0;
  for (uint64_t step = 1; step <= n_steps; step++) {
    draw_tasks(batch, data, &seed, step);
    must(melu_meta_gradient(gradient, model, batch, &err), &err);
    sum += melu_gradient_loss(gradient, NULL);
    if (step % every == 0) {
      printf("  step %4llu  loss %.4f  gradient %.3f\n", (unsigned long long)step, sum / (double)every,
             gradient_norm(gradient, &own));
      sum = 0;
    }
    if (optimizer) {
      must(melu_optimizer_step(optimizer, model, gradient, &err), &err);
    } else {
      momentum_step(&own, model, gradient);
    }
  }
  momentum_free(&own);
  melu_gradient_free(gradient);
  melu_batch_free(batch);
}

int main(int argc, char **argv) {
  uint64_t seed = 1, n_steps = 400, n_threads = 2;
  const char *nothing = NULL;
  const struct option options[] = {
      {"--seed", "N", "seed of data, parameters and draws", &seed, 0, UINT64_MAX, NULL},
      {"--steps", "N", "updates", &n_steps, 1, 60000, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &n_threads, 1, 256, NULL},
  };
  const struct usage usage = {.program = "own_loop",
                              .operand = "",
                              .about = "Meta-trains on made-up listeners by a loop of its own.",
                              .options = options,
                              .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &nothing, argc, argv);
  if (nothing) bad_usage(&usage, "'%s' is not an option", nothing);

  melu_context *ctx;
  const struct melu_context_options context = {.size = sizeof context, .n_threads = n_threads};
  must(melu_context_new(&ctx, &context, &err), &err);
  melu_dataset *data = new_listeners(ctx, seed);
  const struct melu_model_options shape = {.size = sizeof shape, .seed = seed};
  melu_model *model;

  printf("momentum, written here\n");
  must(melu_model_new(&model, ctx, melu_dataset_schema(data), &shape, &err), &err);
  train(model, ctx, data, NULL, n_steps, seed);
  melu_model_free(model);

  printf("the library's Adam, from the same start\n");
  must(melu_model_new(&model, ctx, melu_dataset_schema(data), &shape, &err), &err);
  melu_optimizer *optimizer;
  const struct melu_optimizer_options adam = {.size = sizeof adam, .kind = MELU_ADAM, .lr = 3e-3};
  must(melu_optimizer_new(&optimizer, model, &adam, &err), &err);
  train(model, ctx, data, optimizer, n_steps, seed);
  melu_optimizer_free(optimizer);
  melu_model_free(model);

  melu_dataset_free(data);
  melu_context_free(ctx);
  return 0;
}
