/* SPDX-License-Identifier: BSD-3-Clause */
/* A whole life, from the context to a prediction by a model that was saved and loaded, with each allocation refused
 * once, and with all from there on: always MELU_ENOMEM, nothing leaked. */
#include <stdio.h>
#include <unistd.h>

#include "run_suite.h"
#include "support.h"
#include "world.h"

struct life {
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model, *loaded;
  melu_user *user;
  melu_workspace *workspace;
};

static const uint32_t ids[2] = {0, 1};
static const struct melu_value genres = {.ids = ids, .n_ids = 2}, age = {.ids = ids, .n_ids = 1};

/* Runs `call` unless an earlier one failed. */
#define THEN(call) \
  if (!status) status = (call)

static melu_status make_data(struct life *x, const struct melu_allocator *allocator) {
  const struct melu_context_options options = {.size = sizeof options, .allocator = allocator, .n_threads = 2};
  const struct melu_field fields[2] = {
      {.size = sizeof *fields, .name = "genre", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 3, .width = 2},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .n_values = 2, .width = 2}};
  melu_status status = melu_context_new(&x->ctx, &options, NULL);
  THEN(melu_schema_new(&x->schema, x->ctx, NULL));
  for (int i = 0; i < 2; i++) THEN(melu_schema_add(x->schema, &fields[i], NULL));
  THEN(melu_dataset_new(&x->data, x->ctx, x->schema, NULL));
  for (uint64_t i = 0; i < 4; i++) {
    THEN(melu_dataset_add_item(x->data, i, &genres, NULL, NULL));
    THEN(melu_dataset_add_user(x->data, i, &age, NULL, NULL));
  }
  for (uint64_t i = 0; i < 12; i++) THEN(melu_dataset_add_rating(x->data, i / 3, i % 3, (float)(1 + i % 5), NULL));
  THEN(melu_dataset_freeze(x->data, NULL));
  return status;
}

static melu_status live(struct life *x, const struct melu_allocator *allocator, const char *path) {
  const size_t hidden[1] = {3};
  const struct melu_model_options small = {.size = sizeof small, .hidden = hidden, .n_hidden = 1, .inner_steps = 1};
  const struct melu_fit_options fit = {
      .size = sizeof fit, .n_epochs = 1, .batch_tasks = 2, .n_query = 1, .min_ratings = 2};
  const struct melu_evaluate_options judge = {.size = sizeof judge, .n_query = 1, .min_ratings = 2};
  const float ratings[2] = {3, 4};
  struct melu_metrics metrics;
  float scores[2];
  melu_status status = make_data(x, allocator);
  THEN(melu_model_new(&x->model, x->ctx, x->schema, &small, NULL));
  THEN(melu_fit(x->model, x->data, &fit, NULL));
  THEN(melu_evaluate(&metrics, x->model, x->data, &judge, NULL));
  THEN(melu_model_save(x->model, path, NULL));
  THEN(melu_model_load(&x->loaded, x->ctx, path, NULL));
  THEN(melu_user_new(&x->user, x->loaded, NULL));
  THEN(melu_workspace_new(&x->workspace, x->loaded, 2, NULL));
  THEN(melu_adapt(x->user, x->workspace, x->loaded, x->data, &age, ids, ratings, 2, NULL));
  THEN(melu_predict(scores, x->workspace, x->loaded, x->user, x->data, ids, 2, NULL));
  return status;
}

static void end(struct life *x) {
  melu_workspace_free(x->workspace);
  melu_user_free(x->user);
  melu_model_free(x->loaded);
  melu_model_free(x->model);
  melu_dataset_free(x->data);
  melu_schema_free(x->schema);
  melu_context_free(x->ctx);
}

START_TEST(every_allocation_fails) {
  char folder[] = "/tmp/melu-test-XXXXXX", path[64];
  melu_status status = MELU_ENOMEM;
  size_t n = 1;
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/model", folder);
  for (; status == MELU_ENOMEM; n++) {
    struct test_heap heap = {.fail_at = n, .from_there_on = _i};
    const struct melu_allocator allocator = test_allocator(&heap);
    struct life x = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    status = live(&x, &allocator, path);
    end(&x);
    ck_assert_msg(heap.live == 0, "allocation %zu: %zu blocks are left", n, (size_t)heap.live);
  }
  ck_assert_msg(status == MELU_OK, "allocation %zu: %s", n - 1, melu_status_name(status));
  ck_assert_uint_gt(n, 1000); /* or the life was not the one that is meant */
  unlink(path);
  ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

int main(void) {
  Suite *s = suite_create("life");
  TCase *t = tcase_create("memory");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, every_allocation_fails, 0, 2);
  suite_add_tcase(s, t);
  return run_suite(s);
}
