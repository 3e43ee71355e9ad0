/* SPDX-License-Identifier: BSD-3-Clause */
#include "serving.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDE = 1024, N_POOL = 4 };

static const size_t layers[2] = {4, 3}, encoder[1] = {4}, wide[1] = {512};

const struct service_kind service_kinds[SERVICE_KINDS] = {
    {"layers", {.size = sizeof service_kinds->options, .hidden = layers, .n_hidden = 2}, 0, 0, 0},
    {"factors",
     {.size = sizeof service_kinds->options, .preset = "best", .hidden = encoder, .n_hidden = 1, .rank = 3},
     0,
     1,
     0},
    {"items",
     {.size = sizeof service_kinds->options,
      .hidden = layers,
      .n_hidden = 2,
      .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN | MELU_ADAPT_USER | MELU_ADAPT_ITEMS},
     1,
     0,
     0},
    {"wide", {.size = sizeof service_kinds->options, .hidden = wide, .n_hidden = 1}, 0, 0, 1},
};

const char *service_path(char path[SERVICE_PATH], const struct service *s, const char *kind, size_t number) {
  snprintf(path, SERVICE_PATH, "%s/%s%zu", s->scene.folder, kind, number);
  return path;
}

melu_catalog *service_catalog(const melu_model *model, const melu_dataset *data) {
  melu_error err;
  melu_catalog *catalog;
  uint32_t items[SCENE_ITEMS];
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) items[i] = i;
  PROOF_TRY(melu_catalog_new(&catalog, model, data, items, SCENE_ITEMS / 2, &err));
  PROOF_TRY(melu_catalog_remove(catalog, items, 3, &err));
  PROOF_TRY(melu_catalog_put(catalog, data, items + SCENE_ITEMS / 2, NULL, SCENE_ITEMS / 2, &err));
  PROOF_TRY(melu_catalog_put(catalog, data, items, NULL, 5, &err));
  return catalog;
}

struct version *version_new(const struct service *s, melu_context *ctx, size_t weights) {
  static const uint32_t items[] = {3, 14, 15, 9};
  static const float ratings[] = {2, 5, 4, 1};
  melu_error err;
  char path[SERVICE_PATH];
  melu_workspace *ws;
  struct version *v = malloc(sizeof *v);
  PROOF_NEEDS(v, "no memory");
  *v = (struct version){.service = s, .ctx = ctx, .weights = weights, .n_holders = 1};
  PROOF_TRY(melu_model_load(&v->model, ctx, service_path(path, s, "weights", weights), &err));
  if (!s->kind->adapts_items) v->catalog = service_catalog(v->model, s->data);
  PROOF_TRY(melu_user_new(&v->regular, v->model, &err));
  PROOF_TRY(melu_workspace_new(&ws, v->model, 4, &err));
  PROOF_TRY(melu_adapt(v->regular, ws, v->model, s->data, NULL, items, ratings, 4, &err));
  melu_workspace_free(ws);
  return v;
}

void version_free(struct version *v) {
  melu_user_free(v->regular);
  melu_catalog_free(v->catalog);
  melu_model_free(v->model);
  free(v);
}

struct version *service_take(struct service *s) {
  pthread_mutex_lock(&s->lock);
  struct version *v = s->current;
  v->n_holders++;
  pthread_mutex_unlock(&s->lock);
  return v;
}

void service_give_back(struct service *s, struct version *v) {
  pthread_mutex_lock(&s->lock);
  const int is_last = --v->n_holders == 0;
  pthread_mutex_unlock(&s->lock);
  if (is_last) version_free(v);
}

void service_publish(struct service *s, struct version *v) {
  pthread_mutex_lock(&s->lock);
  struct version *before = s->current;
  s->current = v;
  s->n_published++;
  pthread_mutex_unlock(&s->lock);
  if (before) service_give_back(s, before);
}

/* Items of a thousand numbers, rated as those of the scene. */
static melu_dataset *new_wide_data(const struct scene *scene) {
  const struct melu_field field = {
      .size = sizeof field, .name = "wide", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = WIDE};
  melu_error err;
  melu_schema *schema;
  melu_dataset *data;
  PROOF_TRY(melu_schema_new(&schema, scene->ctx, &err));
  PROOF_TRY(melu_schema_add(schema, &field, &err));
  PROOF_TRY(melu_dataset_new(&data, scene->ctx, schema, &err));
  melu_schema_free(schema);
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) {
    float numbers[WIDE];
    const struct melu_value value = {.numbers = numbers, .n_numbers = WIDE};
    for (uint32_t k = 0; k < WIDE; k++) numbers[k] = (float)((i + 1) * (k + 3) % 17) / 16;
    PROOF_TRY(melu_dataset_add_item(data, melu_dataset_item_id(scene->data, i), &value, NULL, &err));
  }
  for (uint32_t u = 0; u < SCENE_USERS; u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(scene->data, u, &items, &ratings);
    PROOF_TRY(melu_dataset_add_user(data, u, NULL, NULL, &err));
    for (size_t i = 0; i < n; i++)
      PROOF_TRY(melu_dataset_add_rating(data, u, melu_dataset_item_id(scene->data, items[i]), ratings[i], &err));
  }
  PROOF_TRY(melu_dataset_freeze(data, &err));
  return data;
}

void service_open(struct service *s, const struct service_kind *kind) {
  melu_error err;
  const struct melu_context_options pool = {.size = sizeof pool, .n_threads = N_POOL};
  const uint32_t positions[3] = {0, 1, 2};
  *s = (struct service){.kind = kind};
  scene_open(&s->scene, SCENE_LAYERS, NULL);
  if (kind->is_wide) s->wide_data = new_wide_data(&s->scene);
  s->data = kind->is_wide ? s->wide_data : s->scene.data;
  PROOF_TRY(melu_context_new(&s->ctx, &pool, &err));
  PROOF_TRY(melu_batch_new(&s->batch, s->ctx, s->data, &err));
  for (uint32_t u = 0; u < SCENE_USERS; u++)
    PROOF_TRY(melu_batch_add(s->batch, u, positions + 1, u % 3, positions, 1, &err));
  PROOF_NEEDS(pthread_mutex_init(&s->lock, NULL) == 0, "no lock");
}

void service_close(struct service *s) {
  char path[SERVICE_PATH];
  for (size_t k = 0; k < SERVICE_WEIGHTS; k++) unlink(service_path(path, s, "weights", k));
  if (s->current) service_give_back(s, s->current);
  pthread_mutex_destroy(&s->lock);
  melu_batch_free(s->batch);
  melu_dataset_free(s->wide_data);
  melu_context_free(s->ctx);
  scene_close(&s->scene);
}
