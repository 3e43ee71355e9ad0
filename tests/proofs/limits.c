/* SPDX-License-Identifier: BSD-3-Clause */
/* Whatever has a limit, one above it. Not tried are limits that only a machine of many gigabytes reaches: 2^32 - 2
 * users, items, texts and ids of a field. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "linear.h"

static struct scene scene;

/* A model of one field with such options. */
static melu_status make_model(const struct melu_field *field, const struct melu_model_options *options,
                              melu_error *why) {
  melu_error err;
  melu_schema *schema;
  melu_model *model = NULL;
  PROOF_TRY(melu_schema_new(&schema, scene.ctx, &err));
  melu_status status = melu_schema_add(schema, field, why);
  if (!status && options) status = melu_model_new(&model, scene.ctx, schema, options, why);
  melu_model_free(model);
  melu_schema_free(schema);
  return status;
}

#define FIELD(...) (&(const struct melu_field){.size = sizeof(struct melu_field), .owner = MELU_ITEM, __VA_ARGS__})
#define OPTIONS(...) (&(const struct melu_model_options){.size = sizeof(struct melu_model_options), __VA_ARGS__})
#define TRY_MODEL(name, field, options)           \
  static melu_status name(melu_error *err) {      \
    return make_model((field), (options), (err)); \
  }
#define ONE FIELD(.name = "a", .n_values = 1, .width = 1)

static const size_t nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, wide[1] = {65537};

TRY_MODEL(columns_of_a_table, FIELD(.name = "a", .n_values = 1, .width = 4097), NULL)
TRY_MODEL(rows_of_a_table, FIELD(.name = "a", .n_values = (size_t)1 << 31, .width = 1), NULL)
TRY_MODEL(length_of_a_name,
          FIELD(.name = "a234567890123456789012345678901234567890123456789012345678901234", .n_values = 1), NULL)
TRY_MODEL(numbers_of_a_model, FIELD(.name = "a", .n_values = 0x7ffffffe, .width = 4096), OPTIONS(.seed = 1))
TRY_MODEL(inner_steps, ONE, OPTIONS(.inner_steps = 65))
TRY_MODEL(hidden_layers, ONE, OPTIONS(.hidden = nine, .n_hidden = 9))
TRY_MODEL(hidden_width, ONE, OPTIONS(.hidden = wide, .n_hidden = 1))
TRY_MODEL(rank, ONE, OPTIONS(.preset = "best", .rank = 256))

static melu_status fields(melu_error *why) {
  melu_error err;
  melu_schema *schema;
  melu_status status = MELU_OK;
  PROOF_TRY(melu_schema_new(&schema, scene.ctx, &err));
  for (int i = 0; i < 257 && !status; i++) {
    char name[8];
    snprintf(name, sizeof name, "f%d", i);
    PROOF_NEEDS(i < 256 || melu_schema_n_fields(schema, MELU_ITEM) == 256, "fewer fields than were added");
    status = melu_schema_add(schema, FIELD(.name = name, .n_values = 1, .width = 1), why);
  }
  melu_schema_free(schema);
  return status;
}

static melu_status make_context(const struct melu_context_options *options, melu_error *err) {
  melu_context *ctx;
  const melu_status status = melu_context_new(&ctx, options, err);
  melu_context_free(ctx);
  return status;
}

static melu_status threads(melu_error *err) {
  return make_context(
      &(const struct melu_context_options){.size = sizeof(struct melu_context_options), .n_threads = 1025}, err);
}

static void run_nothing(void *arg, void (*task)(void *, size_t, size_t), void *task_arg, size_t n_tasks) {
  (void)arg;
  (void)task;
  (void)task_arg;
  (void)n_tasks;
}

static melu_status runner_threads(melu_error *err) {
  const struct melu_runner runner = {.n_threads = 1025, .run = run_nothing};
  return make_context(
      &(const struct melu_context_options){.size = sizeof(struct melu_context_options), .runner = &runner}, err);
}

/* ------------------------------------------------------------------------------------------------------ files */

/* A file that begins so and has n bytes, the others being zeros that take no room on the disk. */
static const char *write_large(const void *bytes, size_t n_bytes, off_t n) {
  proof_write_file(linear_path("large"), bytes, n_bytes);
  PROOF_NEEDS(truncate(linear_path("large"), n) == 0, "cannot write a large file");
  return linear_path("large");
}

static melu_status load_large(const void *bytes, size_t n_bytes, off_t n, melu_error *err) {
  melu_model *model;
  const melu_status status = melu_model_load(&model, scene.ctx, write_large(bytes, n_bytes, n), err);
  unlink(linear_path("large"));
  return status;
}

static melu_status bytes_of_a_model(melu_error *err) {
  return load_large("x", 1, ((off_t)1 << 32) + 1, err);
}

static melu_status bytes_of_a_header(melu_error *err) {
  const unsigned char length[8] = {0x01, 0xe1, 0xf5, 0x05}; /* 100 million and 1 */
  return load_large(length, sizeof length, 100000016, err);
}

static melu_status bytes_of_a_table(melu_error *why) {
  melu_error err;
  melu_dataset *data;
  PROOF_TRY(melu_dataset_new(&data, scene.ctx, scene.schema, &err));
  const melu_status status = melu_dataset_read_users(data, write_large("user", 4, ((off_t)1 << 32) + 1), NULL, why);
  melu_dataset_free(data);
  unlink(linear_path("large"));
  return status;
}

/* ---------------------------------------------------------------------------------------------------- calls */

static uint32_t many[65537];
static float ratings[65537];

static melu_status rows_of_a_task(melu_error *why) {
  melu_error err;
  melu_batch *batch;
  PROOF_TRY(melu_batch_new(&batch, scene.ctx, scene.data, &err));
  const melu_status status = melu_batch_add(batch, 0, many, 65535, many, 1, why);
  melu_batch_free(batch);
  return status;
}

static melu_status ratings_of_a_split(melu_error *err) {
  return melu_split_order(many, 1, 0, 65537, err);
}

static melu_status ratings_of_a_workspace(melu_error *err) {
  melu_workspace *ws;
  const melu_status status = melu_workspace_new(&ws, scene.model, 4097, err);
  melu_workspace_free(ws);
  return status;
}

static melu_status ratings_of_a_user(melu_error *err) {
  return melu_adapt(scene.user, scene.ws, scene.model, scene.data, NULL, many, ratings, SCENE_MOST + 1, err);
}

static melu_status ratings_in_bytes(melu_error *why) {
  melu_error err;
  melu_workspace *ws;
  struct proof_bytes b = scene_user_bytes(&scene, MELU_USER_COMPACT);
  PROOF_TRY(melu_workspace_new(&ws, scene.model, SCENE_RATED - 1, &err));
  const melu_status status = melu_user_load(scene.user, ws, scene.model, scene.data, b.at, b.n, why);
  melu_workspace_free(ws);
  free(b.at);
  return status;
}

static melu_status room_of_a_user(melu_error *err) {
  unsigned char bytes[8];
  size_t n = sizeof bytes;
  return melu_user_save(bytes, &n, scene.ws, scene.user, MELU_USER_READY, err);
}

static melu_status number_of_an_item(melu_error *why) {
  melu_error err;
  melu_catalog *catalog;
  const uint32_t item = 0, number = 0x80000000u;
  PROOF_TRY(melu_catalog_new(&catalog, scene.model, scene.data, NULL, 0, &err));
  const melu_status status = melu_catalog_put(catalog, scene.data, &item, &number, 1, why);
  melu_catalog_free(catalog);
  return status;
}

static melu_status fit(const struct melu_fit_options *options, melu_error *err) {
  return melu_fit(scene.model, scene.data, options, err);
}

static melu_status epochs(melu_error *err) {
  return fit(&(const struct melu_fit_options){.size = sizeof(struct melu_fit_options), .n_epochs = UINT32_MAX}, err);
}

static melu_status queries(melu_error *err) {
  return fit(&(const struct melu_fit_options){.size = sizeof(struct melu_fit_options), .n_query = 65536}, err);
}

static melu_status judged_queries(melu_error *err) {
  struct melu_metrics metrics;
  const struct melu_evaluate_options options = {.size = sizeof options, .n_query = 65536};
  return melu_evaluate(&metrics, scene.model, scene.data, &options, err);
}

/* What is asked for, and what melu.h says of it. */
static const struct {
  const char *what;
  melu_status (*exceed)(melu_error *err);
  melu_status status;
  const char *says;
} all[] = {
    {"257 fields", fields, MELU_ELIMIT, "at most 256 fields"},
    {"4,097 columns", columns_of_a_table, MELU_ELIMIT, "more than 4096"},
    {"2^31 values", rows_of_a_table, MELU_ELIMIT, "more than 2147483647"},
    {"a name of 64", length_of_a_name, MELU_EINVAL, "longer than 63"},
    {"2^40 numbers", numbers_of_a_model, MELU_ELIMIT, "2^40 numbers"},
    {"65 inner steps", inner_steps, MELU_ELIMIT, "above 64"},
    {"9 hidden layers", hidden_layers, MELU_EINVAL, "8"},
    {"a width of 65,537", hidden_width, MELU_EINVAL, "65537"},
    {"rank 256", rank, MELU_EINVAL, "255"},
    {"1,025 threads", threads, MELU_ELIMIT, "above 1024"},
    {"1,025 threads of a runner", runner_threads, MELU_ELIMIT, "above 1024"},
    {"a model of 4 GiB and a byte", bytes_of_a_model, MELU_ELIMIT, "more than 4294967296 bytes"},
    {"a header of 100 million and a byte", bytes_of_a_header, MELU_ELIMIT, "100 million"},
    {"a table of 4 GiB and a byte", bytes_of_a_table, MELU_ELIMIT, "larger than 4294967296 bytes"},
    {"a task of 65,536 ratings", rows_of_a_task, MELU_ELIMIT, "more than 65535"},
    {"a split of 65,537 ratings", ratings_of_a_split, MELU_ERANGE, "65536"},
    {"a workspace for 4,097 ratings", ratings_of_a_workspace, MELU_ELIMIT, "above 4096"},
    {"more ratings than the workspace is for", ratings_of_a_user, MELU_ELIMIT, "made for 20"},
    {"bytes of more ratings than the workspace is for", ratings_in_bytes, MELU_ELIMIT, "made for 5"},
    {"bytes for which there is no room", room_of_a_user, MELU_ELIMIT, "room for 8"},
    {"item 2^31 of a catalogue", number_of_an_item, MELU_ERANGE, "2^31"},
    {"2^32 - 1 epochs", epochs, MELU_ELIMIT, "above 2^32 - 2"},
    {"65,536 query ratings", queries, MELU_ELIMIT, "above 65535"},
    {"65,536 query ratings to judge by", judged_queries, MELU_ELIMIT, "above 65535"},
};

size_t limits(void) {
  const size_t n = sizeof all / sizeof *all;
  scene_open(&scene, SCENE_LAYERS, NULL);
  for (size_t i = 0; i < n; i++) {
    melu_error err = {.message = ""};
    const melu_status status = all[i].exceed(&err);
    PROOF_NEEDS(status == all[i].status && strstr(err.message, all[i].says), "%s: %s: \"%s\" does not say \"%s\"",
                all[i].what, melu_status_name(status), status ? err.message : "", all[i].says);
  }
  scene_close(&scene);
  return n;
}
