/* SPDX-License-Identifier: BSD-3-Clause */
/* A small world for tests: 12 items in 3 genres, users whose taste is one of the genres, all made from one seed. */
#ifndef MELU_TESTS_WORLD_H
#define MELU_TESTS_WORLD_H

#include <check.h>
#include <melu.h>
#include <stdlib.h>
#include <string.h>

enum { WORLD_ITEMS = 12 };

struct world {
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
};

static uint32_t world_random(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(*state >> 33);
}

#define WORLD_TRY(call)                                                                  \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

static void world_fields(melu_schema *schema) {
  melu_error err;
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "genre", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 3, .width = 4},
      {.size = sizeof *fields, .name = "price", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 1},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 5, .width = 3},
  };
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) WORLD_TRY(melu_schema_add(schema, &fields[i], &err));
}

/* n_users users with 4 to 12 ratings each. */
static void world_fill(melu_dataset *data, size_t n_users) {
  melu_error err;
  uint64_t random = 1;
  for (uint32_t i = 0; i < WORLD_ITEMS; i++) {
    const uint32_t genres[2] = {i % 3, (i + 1) % 3};
    const float price = (float)i / WORLD_ITEMS;
    const struct melu_value values[2] = {{.ids = genres, .n_ids = 1 + i % 2}, {.numbers = &price, .n_numbers = 1}};
    WORLD_TRY(melu_dataset_add_item(data, 100 + i, values, NULL, &err));
  }
  for (uint32_t u = 0; u < n_users; u++) {
    const uint32_t taste = world_random(&random) % 3, age = world_random(&random) % 5;
    const struct melu_value value = {.ids = &age, .n_ids = u % 7 != 0};
    const uint32_t n = 4 + world_random(&random) % (WORLD_ITEMS - 3);
    WORLD_TRY(melu_dataset_add_user(data, u, &value, NULL, &err));
    for (uint32_t i = 0; i < n; i++) {
      const uint32_t item = (i + u) % WORLD_ITEMS;
      const float rating = (float)(item % 3 == taste ? 4 : 2) + (float)(world_random(&random) % 3) - 1;
      WORLD_TRY(melu_dataset_add_rating(data, u, 100 + item, rating, &err));
    }
  }
  WORLD_TRY(melu_dataset_freeze(data, &err));
}

/* Hidden layers of 8 and 6, 3 inner steps. `options` may be NULL. */
static inline void world_model(struct world *w, int first_order) {
  melu_error err;
  const size_t hidden[2] = {8, 6};
  const struct melu_model_options options = {.size = sizeof options,
                                             .seed = 7,
                                             .hidden = hidden,
                                             .n_hidden = 2,
                                             .inner_steps = 3,
                                             .inner_lr = 0.05,
                                             .first_order = first_order};
  WORLD_TRY(melu_model_new(&w->model, w->ctx, melu_dataset_schema(w->data), &options, &err));
}

static inline void world_open(struct world *w, const struct melu_context_options *options, size_t n_users) {
  melu_error err;
  WORLD_TRY(melu_context_new(&w->ctx, options, &err));
  WORLD_TRY(melu_schema_new(&w->schema, w->ctx, &err));
  world_fields(w->schema);
  WORLD_TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  world_fill(w->data, n_users);
  world_model(w, 0);
}

static inline void world_close(struct world *w) {
  melu_model_free(w->model);
  melu_dataset_free(w->data);
  melu_schema_free(w->schema);
  melu_context_free(w->ctx);
}

/* All parameters of the model, one after another; to be freed. */
static inline float *world_weights(const melu_model *model, size_t *n) {
  melu_error err;
  float *all = NULL;
  *n = 0;
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    all = realloc(all, (*n + p.rows * p.cols) * sizeof *all);
    ck_assert_ptr_nonnull(all);
    WORLD_TRY(melu_model_read(all + *n, model, p.name, 0, p.rows, &err));
    *n += p.rows * p.cols;
  }
  return all;
}

#endif
