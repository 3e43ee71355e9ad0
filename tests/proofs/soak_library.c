/* SPDX-License-Identifier: BSD-3-Clause */
/* For proof 15: a host that loads the library, trains, adapts, and unloads it again, and is linked with nothing of what
 * the library needs, so that this comes and goes too. Usage: soak_library LIBRARY TIMES [LOSE]; it loses memory itself
 * where there is a third argument. */
#include <dlfcn.h>
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "soak.h"

#define EACH_CALL(call)                                                                                              \
  call(context_new) call(context_free) call(schema_new) call(schema_add) call(schema_free) call(dataset_new)         \
      call(dataset_add_user) call(dataset_add_item) call(dataset_add_rating) call(dataset_freeze) call(dataset_free) \
          call(model_new) call(model_free) call(fit) call(workspace_new) call(workspace_free) call(user_new)         \
              call(user_free) call(adapt) call(predict)

#define DECLARE(name) __typeof__(&melu_##name) name;
struct library {
  void *handle;
  EACH_CALL(DECLARE)
};

_Noreturn static void fail(const char *what, const char *why) {
  printf("%s: %s\n", what, why);
  exit(1);
}

static void find(void *function, size_t size, void *handle, const char *name) {
  void *found = dlsym(handle, name);
  if (!found || size != sizeof found) fail(name, "is not in the library");
  memcpy(function, &found, sizeof found); /* POSIX lets a function's address be that of an object */
}

static struct library open_library(const char *path) {
  struct library l = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
  if (!l.handle) fail("dlopen", dlerror());
#define FIND(name) find(&l.name, sizeof l.name, l.handle, "melu_" #name);
  EACH_CALL(FIND)
  return l;
}

#define TRY(call) \
  if (call) fail(#call, err.message)

enum { N = 6 };

static melu_dataset *make_data(const struct library *l, const melu_context *ctx, const melu_schema *schema) {
  melu_error err;
  melu_dataset *data;
  TRY(l->dataset_new(&data, ctx, schema, &err));
  for (uint32_t i = 0; i < N; i++) {
    const struct melu_value value = {.ids = &i, .n_ids = 1};
    TRY(l->dataset_add_item(data, i, &value, NULL, &err));
    TRY(l->dataset_add_user(data, i, NULL, NULL, &err));
  }
  for (uint32_t i = 0; i < N * N; i++) TRY(l->dataset_add_rating(data, i / N, i % N, (float)(1 + i % 5), &err));
  TRY(l->dataset_freeze(data, &err));
  return data;
}

static void live(const struct library *l) {
  static const uint32_t items[3] = {1, 3, 4};
  static const float ratings[3] = {5, 1, 3};
  static const size_t hidden[1] = {4};
  const struct melu_context_options two = {.size = sizeof two, .n_threads = 2};
  const struct melu_field field = {.size = sizeof field, .name = "item", .owner = MELU_ITEM, .n_values = N, .width = 3};
  const struct melu_model_options small = {.size = sizeof small, .hidden = hidden, .n_hidden = 1, .inner_steps = 1};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 1, .n_query = 2};
  melu_error err;
  melu_context *ctx;
  melu_schema *schema;
  melu_model *model;
  melu_workspace *ws;
  melu_user *user;
  float score;
  TRY(l->context_new(&ctx, &two, &err));
  TRY(l->schema_new(&schema, ctx, &err));
  TRY(l->schema_add(schema, &field, &err));
  melu_dataset *data = make_data(l, ctx, schema);
  TRY(l->model_new(&model, ctx, schema, &small, &err));
  TRY(l->fit(model, data, &fit, &err));
  TRY(l->workspace_new(&ws, model, 3, &err));
  TRY(l->user_new(&user, model, &err));
  TRY(l->adapt(user, ws, model, data, NULL, items, ratings, 3, &err));
  TRY(l->predict(&score, ws, model, user, data, items, 1, &err));
  l->user_free(user);
  l->workspace_free(ws);
  l->model_free(model);
  l->dataset_free(data);
  l->schema_free(schema);
  l->context_free(ctx);
}

int main(int argc, char **argv) {
  if (argc != 3 && argc != 4) fail(argv[0], "LIBRARY TIMES [LOSE]");
  const long n = strtol(argv[2], NULL, 10), warm = n / 10 + 1;
  struct soak_levels before = soak_levels();
  for (long i = 0; i < n; i++) {
    const struct library l = open_library(argv[1]);
    live(&l);
    if (dlclose(l.handle)) fail("dlclose", dlerror());
    void *volatile lost = argc == 4 ? malloc(24) : NULL;
    (void)lost;
    if (i + 1 == warm) before = soak_levels();
  }
  const struct soak_levels after = soak_levels();
  const char *grown = soak_grown(&before, &after);
  printf("%zu to %zu KiB of memory, %zu to %zu bytes given out\n", before.resident >> 10, after.resident >> 10,
         before.in_use, after.in_use);
  if (grown) fail(grown, "has grown");
  return 0;
}
