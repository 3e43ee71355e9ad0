/* SPDX-License-Identifier: BSD-3-Clause */
/* A world with everything that a model may look at, for tests of what is asked and explained: items with a name and
 * without, with lists and numbers; people with a profile and without, who rated nothing, everything, or some; a model
 * no parameter of which is zero. All made from one seed, in memory that is counted. */
#ifndef MELU_TESTS_PEOPLE_H
#define MELU_TESTS_PEOPLE_H

#include "support.h"
#include "world.h"

enum { PEOPLE_ITEMS = 90, PEOPLE_MOST = 44, PEOPLE_FIELDS = 2 };

struct people {
  struct test_heap heap;
  struct melu_allocator allocator;
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  melu_workspace *ws;
  melu_user *user;
  uint64_t random;
};

#define PEOPLE_OPTIONS .size = sizeof(struct melu_model_options), .seed = 3
#define PEOPLE_LAYERS PEOPLE_OPTIONS, .hidden = people_layers, .n_hidden = 2, .inner_steps = 3, .inner_lr = 0.05
#define PEOPLE_FACTORS PEOPLE_OPTIONS, .preset = "best", .hidden = people_encoder, .n_hidden = 1, .rank = 5
static const size_t people_layers[2] = {8, 6}, people_encoder[1] = {7};

static inline double people_number(struct people *p, double size) {
  return size * ((double)(world_random(&p->random) % 2001) / 1000 - 1);
}

static inline int people_click(const melu_model *model) {
  melu_error err;
  struct melu_model_options o = {.size = sizeof o};
  WORLD_TRY(melu_model_get_options(&o, model, &err));
  return o.loss == MELU_LOGISTIC;
}

static inline float people_rating(struct people *p, int is_click) {
  const uint32_t k = world_random(&p->random) % 9;
  return is_click ? (float)(k % 2) : 1 + (float)k / 2;
}

static inline void people_fields(melu_schema *schema) {
  melu_error err;
  const struct melu_field fields[] = {
      {.size = sizeof *fields,
       .name = "self",
       .owner = MELU_ITEM,
       .kind = MELU_ONE,
       .n_values = PEOPLE_ITEMS,
       .width = 4},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 5, .width = 3},
      {.size = sizeof *fields, .name = "length", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2},
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 4, .width = 3},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 30, .scale = 0.1},
  };
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) WORLD_TRY(melu_schema_add(schema, &fields[i], &err));
}

static inline uint64_t people_item_id(uint32_t item) {
  return 1000 + item;
}

/* Whether it has no name. */
static inline int people_is_new(uint32_t item) {
  return item == 0 || item % 7 == 2 || item + 2 >= PEOPLE_ITEMS;
}

/* Item 0 is nothing at all, and the last two are alike. A test may have added one field, of which nothing is known. */
static inline void people_add_item(melu_dataset *data, uint32_t i) {
  melu_error err;
  const uint32_t like = i + 1 == PEOPLE_ITEMS ? i - 1 : i, tags[2] = {like % 5, like / 5 % 5};
  const float length[2] = {(float)(like % 8) / 8, (float)(like % 3) - 1};
  const struct melu_value values[4] = {{.ids = &like, .n_ids = !people_is_new(like)},
                                       {.ids = tags, .n_ids = like % 3},
                                       {.numbers = length, .n_numbers = 2}};
  WORLD_TRY(melu_dataset_add_item(data, people_item_id(i), i ? values : NULL, NULL, &err));
}

/* A frozen data set of n items, first, first + 1, ... and then 0 again. */
static inline melu_dataset *people_new_data(struct people *p, uint32_t first, uint32_t n) {
  melu_error err;
  melu_dataset *data;
  WORLD_TRY(melu_dataset_new(&data, p->ctx, p->schema, &err));
  for (uint32_t i = 0; i < n; i++) people_add_item(data, (first + i) % PEOPLE_ITEMS);
  WORLD_TRY(melu_dataset_freeze(data, &err));
  return data;
}

/* Number 0 rated nothing, 1 and 2 one and two items, 3 all of them; the others from 5 to 14, more often those of low
 * numbers. */
static inline void people_add_user(struct people *p, melu_dataset *data, uint32_t u, int is_click) {
  melu_error err;
  const uint32_t job = u % 4;
  const float age = 20 + (float)(u * 7 % 40);
  const struct melu_value values[PEOPLE_FIELDS] = {{.ids = &job, .n_ids = u % 5 != 4},
                                                   {.numbers = &age, .n_numbers = u % 3 != 1}};
  const uint32_t n = u == 3 ? PEOPLE_ITEMS : u < 3 ? u : 5 + world_random(&p->random) % 10;
  WORLD_TRY(melu_dataset_add_user(data, 70 + u, values, NULL, &err));
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t item = u == 3 ? i : i * (u % 6 + 1) % PEOPLE_ITEMS;
    WORLD_TRY(melu_dataset_add_rating(data, 70 + u, people_item_id(item), people_rating(p, is_click), &err));
  }
}

/* Every number is something. But it is "self" alone that names items, and clicks remain 0 and 1. */
static inline void people_vary(struct people *p, melu_model *model) {
  melu_error err;
  const int is_click = people_click(model);
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param param;
    WORLD_TRY(melu_model_param(&param, model, i, &err));
    const int is_names = strcmp(param.name, "names") == 0, is_rate = strncmp(param.name, "rate", 4) == 0;
    const int stays = is_names || (is_click && strcmp(param.name, "scale") == 0);
    float *values = malloc(param.rows * param.cols * sizeof *values);
    ck_assert_ptr_nonnull(values);
    WORLD_TRY(melu_model_read(values, model, param.name, 0, param.rows, &err));
    for (size_t k = 0; k < param.rows * param.cols && !stays; k++)
      values[k] += (float)people_number(p, is_rate ? 0.02 : 0.15);
    if (is_names) values[0] = 1;
    WORLD_TRY(melu_model_write(model, param.name, 0, param.rows, values, &err));
    free(values);
  }
}

/* `max_support`: of the workspace. `context`: its allocator is replaced; or NULL. */
static inline void people_open(struct people *p, const struct melu_context_options *context,
                               const struct melu_model_options *options, size_t n_users, size_t max_support) {
  melu_error err;
  struct melu_context_options counting = {.size = sizeof counting};
  if (context) counting = *context;
  *p = (struct people){.random = 1};
  p->allocator = test_allocator(&p->heap);
  counting.allocator = &p->allocator;
  WORLD_TRY(melu_context_new(&p->ctx, &counting, &err));
  WORLD_TRY(melu_schema_new(&p->schema, p->ctx, &err));
  people_fields(p->schema);
  WORLD_TRY(melu_dataset_new(&p->data, p->ctx, p->schema, &err));
  WORLD_TRY(melu_model_new(&p->model, p->ctx, melu_dataset_schema(p->data), options, &err));
  people_vary(p, p->model);
  for (uint32_t i = 0; i < PEOPLE_ITEMS; i++) people_add_item(p->data, i);
  for (uint32_t u = 0; u < n_users; u++) people_add_user(p, p->data, u, people_click(p->model));
  WORLD_TRY(melu_dataset_freeze(p->data, &err));
  WORLD_TRY(melu_workspace_new(&p->ws, p->model, max_support, &err));
  WORLD_TRY(melu_user_new(&p->user, p->model, &err));
}

static inline void people_close(struct people *p) {
  melu_user_free(p->user);
  melu_workspace_free(p->ws);
  melu_model_free(p->model);
  melu_dataset_free(p->data);
  melu_schema_free(p->schema);
  melu_context_free(p->ctx);
  ck_assert_uint_eq(p->heap.live, 0);
}

/* What somebody told, and of what. */
struct told {
  uint32_t items[PEOPLE_MOST];
  float ratings[PEOPLE_MOST];
  size_t n;
  const struct melu_value *profile;
};

/* Every fourth item comes a second time, with another rating. */
static inline struct told people_told(struct people *p, size_t n, int has_profile) {
  static const uint32_t job = 2;
  static const float age = 41;
  static const struct melu_value profile[PEOPLE_FIELDS] = {{.ids = &job, .n_ids = 1},
                                                           {.numbers = &age, .n_numbers = 1}};
  const int is_click = people_click(p->model);
  struct told t = {.n = n, .profile = has_profile ? profile : NULL};
  for (size_t i = 0; i < n; i++) {
    t.items[i] = (uint32_t)((i - (i % 4 == 3)) * 5 % PEOPLE_ITEMS);
    t.ratings[i] = people_rating(p, is_click);
  }
  return t;
}

static inline void people_adapt(struct people *p, melu_user *user, const struct told *t) {
  melu_error err;
  WORLD_TRY(melu_adapt(user, p->ws, p->model, p->data, t->profile, t->items, t->ratings, t->n, &err));
}

#endif
