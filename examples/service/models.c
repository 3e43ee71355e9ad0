/* SPDX-License-Identifier: BSD-3-Clause */
#include "models.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_SUPPORT = 4096, PATIENCE_SECONDS = 5 };

struct models {
  const struct world *world;
  const melu_context *ctx;
  char *path;
  pthread_mutex_t reloading; /* one reload at a time; taken before `lock` */
  pthread_mutex_t lock;      /* of what follows */
  pthread_cond_t seat_freed;
  struct generation *current;
  size_t n_seats, n_free;
  size_t *free_seats; /* a stack: the seat that was used last is the one whose memory is in the cache */
};

/* -------------------------------------------------------------------------------------------- generations */

static void generation_free(struct generation *g) {
  if (!g) return;
  for (size_t i = 0; g->users && i < g->n_seats; i++) melu_user_free(g->users[i]);
  for (size_t i = 0; g->workspaces && i < g->n_seats; i++) melu_workspace_free(g->workspaces[i]);
  free(g->users);
  free(g->workspaces);
  melu_catalog_free(g->catalog);
  melu_model_free(g->model);
  free(g);
}

static int make_seats(struct generation *g, melu_error *err, struct problem *problem) {
  g->workspaces = calloc(g->n_seats, sizeof(melu_workspace *));
  g->users = calloc(g->n_seats, sizeof(melu_user *));
  if (!g->workspaces || !g->users) return problem_set(problem, 500, "memory", "out of memory");
  for (size_t i = 0; i < g->n_seats; i++) {
    if (melu_workspace_new(&g->workspaces[i], g->model, g->max_support, err) != MELU_OK ||
        melu_user_new(&g->users[i], g->model, err) != MELU_OK) {
      return problem_of_melu(problem, err);
    }
  }
  return 0;
}

/* All that can be refused about a model is refused here; a catalogue is only made of items that the model knows. */
static int prepare(struct generation *g, const struct world *world, struct problem *problem) {
  melu_error err;
  unsigned char digest[MELU_DIGEST_BYTES];
  struct melu_model_options options = {.size = sizeof options};
  if (melu_model_get_options(&options, g->model, &err) != MELU_OK ||
      melu_catalog_new(&g->catalog, g->model, world->data, NULL, world->n_items, &err) != MELU_OK ||
      melu_model_digest(digest, g->model, &err) != MELU_OK) {
    return problem_of_melu(problem, &err);
  }
  if (options.rating_min != world->rating_min || options.rating_max != world->rating_max) {
    return problem_set(problem, 500, "model", "the model is for ratings from %g to %g, not %g to %g",
                       options.rating_min, options.rating_max, world->rating_min, world->rating_max);
  }
  for (size_t i = 0; i < MELU_DIGEST_BYTES; i++) snprintf(g->digest + 2 * i, 3, "%02x", digest[i]);
  g->has_variances = options.network == MELU_FACTORS && options.rule == MELU_CLOSED_FORM;
  g->max_support = world->n_items < MOST_SUPPORT ? world->n_items : MOST_SUPPORT;
  return make_seats(g, &err, problem);
}

/* Returns a new generation, with one reference, of the model in the file. */
static struct generation *generation_load(const struct models *models, struct problem *problem) {
  melu_error err;
  struct generation *g = calloc(1, sizeof *g);
  if (!g) {
    problem_set(problem, 500, "memory", "out of memory");
    return NULL;
  }
  g->n_seats = models->n_seats;
  g->n_turns = 1;
  int failed;
  if (melu_model_load(&g->model, models->ctx, models->path, &err) != MELU_OK) {
    failed = problem_of_melu(problem, &err);
  } else {
    failed = prepare(g, models->world, problem);
  }
  if (!failed) return g;
  generation_free(g);
  return NULL;
}

/* ------------------------------------------------------------------------------------------------- models */

static int train_first(const struct models *models, struct problem *problem) {
  melu_error err;
  FILE *file = fopen(models->path, "rb");
  if (file) {
    fclose(file);
    return 0;
  }
  fprintf(stderr, "There is no model %s yet: training one.\n", models->path);
  melu_model *model = world_train(models->world, models->ctx, &err);
  if (!model) return problem_of_melu(problem, &err);
  const melu_status status = melu_model_save(model, models->path, &err);
  melu_model_free(model);
  return status == MELU_OK ? 0 : problem_of_melu(problem, &err);
}

struct models *models_open(const struct world *world, const melu_context *ctx, const char *path, size_t n_seats,
                           struct problem *problem) {
  struct models *models = calloc(1, sizeof *models);
  if (!models) {
    problem_set(problem, 500, "memory", "out of memory");
    return NULL;
  }
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&models->reloading, NULL);
  pthread_mutex_init(&models->lock, NULL);
  pthread_cond_init(&models->seat_freed, &monotonic);
  pthread_condattr_destroy(&monotonic);
  models->world = world;
  models->ctx = ctx;
  models->n_seats = models->n_free = n_seats;
  models->path = strdup(path);
  models->free_seats = calloc(n_seats, sizeof *models->free_seats);
  if (!models->path || !models->free_seats) {
    problem_set(problem, 500, "memory", "out of memory");
    goto fail;
  }
  for (size_t i = 0; i < n_seats; i++) models->free_seats[i] = i;
  if (train_first(models, problem)) goto fail;
  models->current = generation_load(models, problem);
  if (models->current) return models;
fail:
  models_close(models);
  return NULL;
}

void models_close(struct models *models) {
  if (!models) return;
  generation_free(models->current);
  pthread_cond_destroy(&models->seat_freed);
  pthread_mutex_destroy(&models->lock);
  pthread_mutex_destroy(&models->reloading);
  free(models->free_seats);
  free(models->path);
  free(models);
}

/* Gives a reference back; under the lock. Returns what is to be freed outside of it, if anything is. */
static struct generation *let_go(struct generation *g) {
  return --g->n_turns == 0 ? g : NULL;
}

int models_reload(struct models *models, char digest[DIGEST_TEXT], struct problem *problem) {
  pthread_mutex_lock(&models->reloading);
  struct generation *next = generation_load(models, problem), *old = NULL;
  if (next) {
    memcpy(digest, next->digest, DIGEST_TEXT);
    pthread_mutex_lock(&models->lock);
    old = let_go(models->current);
    models->current = next;
    pthread_mutex_unlock(&models->lock);
  }
  pthread_mutex_unlock(&models->reloading);
  generation_free(old);
  return next ? 0 : -1;
}

int models_begin(struct turn *turn, struct models *models, struct problem *problem) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += PATIENCE_SECONDS;
  pthread_mutex_lock(&models->lock);
  int waited = 0;
  while (models->n_free == 0 && waited != ETIMEDOUT) {
    waited = pthread_cond_timedwait(&models->seat_freed, &models->lock, &until);
  }
  const int has_seat = models->n_free > 0;
  if (has_seat) {
    *turn = (struct turn){.generation = models->current, .seat = models->free_seats[--models->n_free]};
    turn->generation->n_turns++;
  }
  pthread_mutex_unlock(&models->lock);
  return has_seat ? 0 : problem_set(problem, 503, "busy", "too many requests are being answered: try again later");
}

void models_end(struct models *models, const struct turn *turn) {
  pthread_mutex_lock(&models->lock);
  models->free_seats[models->n_free++] = turn->seat;
  struct generation *old = let_go(turn->generation);
  pthread_cond_signal(&models->seat_freed);
  pthread_mutex_unlock(&models->lock);
  generation_free(old);
}
