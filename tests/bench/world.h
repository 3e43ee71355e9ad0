/* SPDX-License-Identifier: BSD-3-Clause */
/* What the benchmarks work on: a model of the paper's size, 256-64-64-1, and made-up users and items. */
#ifndef MELU_BENCH_WORLD_H
#define MELU_BENCH_WORLD_H

#include <melu.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static melu_error err;

#define TRY(call)                                      \
  do {                                                 \
    if ((call) != MELU_OK) {                           \
      fprintf(stderr, "%s: %s\n", #call, err.message); \
      exit(1);                                         \
    }                                                  \
  } while (0)

static inline double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds that all threads of the process together computed. */
static inline double cpu_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The most memory that was resident so far; 0 where the system does not say. */
static inline double peak_mib(void) {
  char line[256];
  double kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file))
    if (!strncmp(line, "VmHWM:", 6)) kib = strtod(line + 6, NULL);
  fclose(file);
  return kib / 1024;
}

static inline int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of the sorted numbers. */
static inline double quantile(double *x, size_t n, double q) {
  qsort(x, n, sizeof *x, ascending);
  return x[(size_t)(q * (double)(n - 1) + 0.5)];
}

static inline uint32_t draw(uint64_t *state, uint32_t n) {
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

/* Values of the owner's four fields, drawn at random; they point into `ids`. How many numbers are drawn does not depend
 * on the vocabularies. */
static inline void draw_values(struct melu_value values[4], uint32_t ids[4][8], const struct melu_field *all,
                               melu_owner owner, uint64_t *random) {
  static const uint32_t lengths[4] = {1, 4, 2, 8};
  for (size_t i = 0; i < 4; i++) {
    const struct melu_field *field = &all[owner == MELU_ITEM ? i : 4 + i];
    values[i] = (struct melu_value){.ids = ids[i], .n_ids = 1};
    if (field->kind == MELU_MANY) values[i].n_ids = 1 + draw(random, lengths[i]);
    for (size_t k = 0; k < values[i].n_ids; k++) ids[i][k] = draw(random, (uint32_t)field->n_values);
  }
}

struct world {
  melu_context *ctx;
  melu_dataset *data;
  melu_model *model;
  struct melu_field fields[8];
};

/* The context and a data set without users and items; w->fields is there already. */
static inline void world_begin(struct world *w, const struct melu_context_options *options) {
  melu_schema *schema;
  TRY(melu_context_new(&w->ctx, options, &err));
  TRY(melu_schema_new(&schema, w->ctx, &err));
  for (size_t i = 0; i < 8; i++) {
    w->fields[i].size = sizeof w->fields[i];
    TRY(melu_schema_add(schema, &w->fields[i], &err));
  }
  TRY(melu_dataset_new(&w->data, w->ctx, schema, &err));
  melu_schema_free(schema);
}

/* Once all items are there: the users, so many ratings of each, and the model. */
static inline void world_finish(struct world *w, size_t n_users, size_t n_ratings, uint64_t *random) {
  struct melu_value values[4];
  uint32_t ids[4][8];
  const uint32_t n_items = (uint32_t)melu_dataset_n_items(w->data);
  for (uint64_t u = 0; u < n_users; u++) {
    draw_values(values, ids, w->fields, MELU_USER, random);
    TRY(melu_dataset_add_user(w->data, u, values, NULL, &err));
    for (size_t i = 0; i < n_ratings; i++) {
      const uint64_t item = draw(random, n_items);
      TRY(melu_dataset_add_rating(w->data, u, item, (float)(1 + draw(random, 5)), &err));
    }
  }
  TRY(melu_dataset_freeze(w->data, &err));
  TRY(melu_model_new(&w->model, w->ctx, melu_dataset_schema(w->data), NULL, &err));
}

/* `vocabulary` times as many values of each field as MovieLens-1M has; so many items, users, and ratings of each
 * user. */
static inline void world_open_with(struct world *w, const struct melu_context_options *options, size_t vocabulary,
                                   size_t n_items, size_t n_users, size_t n_ratings) {
  struct melu_value values[4];
  uint32_t ids[4][8];
  uint64_t random = 1;
  memcpy(w->fields, fields, sizeof fields);
  for (size_t i = 0; i < 8; i++) w->fields[i].n_values *= vocabulary;
  world_begin(w, options);
  for (uint64_t i = 0; i < n_items; i++) {
    draw_values(values, ids, w->fields, MELU_ITEM, &random);
    TRY(melu_dataset_add_item(w->data, i, values, NULL, &err));
  }
  world_finish(w, n_users, n_ratings, &random);
}

static inline void world_open(struct world *w, size_t n_threads, size_t n_items, size_t n_users, size_t n_ratings) {
  const struct melu_context_options options = {.size = sizeof options, .n_threads = n_threads};
  world_open_with(w, &options, 1, n_items, n_users, n_ratings);
}

static inline void world_close(struct world *w) {
  melu_model_free(w->model);
  melu_dataset_free(w->data);
  melu_context_free(w->ctx);
}

#endif
