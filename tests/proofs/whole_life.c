/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../tiny_folder.h"
#include "life_parts.h"

/* ---------------------------------------------------------------------------------------------------- settings */

enum { LIFE_RATED = 12 };

static const size_t few[2] = {6, 5}, hidden[1] = {4};
static const size_t wide[2] = {520, 1024}; /* so wide that BLIS computes a product */

#define LIFE_OPTIONS .size = sizeof(struct melu_model_options), .seed = 3
#define LIFE_FEW LIFE_OPTIONS, .hidden = few, .n_hidden = 2, .inner_steps = 3, .inner_lr = 0.05
#define LIFE_RANK LIFE_OPTIONS, .preset = "best", .hidden = hidden, .n_hidden = 1, .rank = 3

static const struct melu_model_options settings[LIFE_SETTINGS] = {
    [LIFE_LAYERS] = {LIFE_FEW, .rating_min = 0.1, .rating_max = 5.7},
    [LIFE_ITEMS] = {LIFE_FEW, .adapt = 15, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_HUBER, .multi_step = 1},
    [LIFE_PAIRS] = {LIFE_OPTIONS, .hidden = few, .n_hidden = 2, .rule = MELU_CLOSED_FORM, .loss = MELU_PAIRWISE,
                    .learn_precision = 1},
    [LIFE_FACTORS] = {LIFE_RANK},
    [LIFE_STEPS] = {LIFE_RANK, .rule = MELU_STEPS, .rates = MELU_RATE_PER_TENSOR, .loss = MELU_MIXED},
    [LIFE_CLICKS] = {LIFE_RANK, .loss = MELU_LOGISTIC},
    [LIFE_WIDE] = {LIFE_OPTIONS, .hidden = wide, .n_hidden = 2, .inner_steps = 1},
    [LIFE_MELU] = {LIFE_OPTIONS, .preset = "melu"},
    [LIFE_BEST] = {LIFE_OPTIONS, .preset = "best"},
};

static const struct melu_field fields[] = {
    {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .n_values = SCENE_ITEMS, .width = 3},
    {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .width = 2},
    {.size = sizeof *fields, .name = "sizes", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2, .scale = 0.3},
    {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .n_values = 4, .width = 2},
    {.size = sizeof *fields, .name = "likes", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 6, .width = 2},
    {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 30.1, .scale = 0.1},
};

/* ------------------------------------------------------------------------------------------------------- files */

/* Ratings that are not whole, and clicks; and one that no float can hold. */
static const char *const ratings_of[2] = {"fine.csv", "clicks.csv"};
static const char huge[] = "user,item,rating\n0,100,1e45\n";

struct life_path life_path(const char *folder, const char *name, const char *tag) {
  struct life_path p;
  snprintf(p.text, sizeof p.text, "%s/%s%s", folder, name, tag);
  return p;
}

struct life_path life_model_file(const char *folder, int setting) {
  const char tag[2] = {(char)('0' + setting), '\0'};
  return life_path(folder, "model-", tag);
}

static void write_ratings(const char *folder, int is_click) {
  FILE *file = fopen(life_path(folder, ratings_of[is_click], "").text, "w");
  PROOF_NEEDS(file, "cannot write in %s", folder);
  fputs("user,item,rating\n", file);
  for (int user = 0; user < SCENE_USERS; user++)
    for (int i = 0; i < LIFE_RATED; i++) {
      const int item = 100 + (user + i * 7) % SCENE_ITEMS, rating = is_click ? 0 : 1 + (user * 5 + i * 3) % 5;
      const char *rest = !is_click ? ".1234567890123" : (user + i) % 3 ? "" : "e0";
      fprintf(file, "%d,%d,%d%s\n", user, item, is_click ? (user + i) % 2 : rating, rest);
    }
  PROOF_NEEDS(fclose(file) == 0, "cannot write in %s", folder);
}

/* ------------------------------------------------------------------------------------------------------ a life */

void life_after(const struct life *l, const char *call) {
  if (l->plan->after) l->plan->after(l->plan->after_arg, call);
}

void life_try(melu_status status, const char *call, const melu_error *err) {
  PROOF_NEEDS(status == MELU_OK, "%s: %s: %s", call, melu_status_name(status), err->message);
}

void life_served(const struct life *l, const float *numbers, size_t n) {
  struct outcome *o = l->out;
  PROOF_NEEDS(o->n_served + n <= LIFE_NUMBERS, "too many numbers");
  for (size_t i = 0; i < n; i++) o->served[o->n_served++] = (double)numbers[i];
}

void life_trained(const struct life *l, const double *numbers, size_t n) {
  struct outcome *o = l->out;
  PROOF_NEEDS(o->n_trained + n <= LIFE_NUMBERS, "too many numbers");
  for (size_t i = 0; i < n; i++) o->trained[o->n_trained++] = numbers[i];
}

void life_wrote(const struct life *l, const void *bytes, size_t n) {
  l->out->texts = proof_digest(l->out->texts, bytes, n);
}

static void refused(const struct life *l, melu_status status, melu_status expected, const melu_error *err) {
  PROOF_NEEDS(status == expected, "%s instead of %s", melu_status_name(status), melu_status_name(expected));
  life_wrote(l, err->message, strlen(err->message));
  life_after(l, err->message);
}

static const char *ratings_file(const struct life *l) {
  return ratings_of[l->options->loss == MELU_LOGISTIC];
}

struct life_path life_saved(const struct life *l) {
  return life_path(l->plan->folder, "saved-", l->plan->tag);
}

/* -------------------------------------------------------------------------------------------------------- data */

static void live_data(struct life *l) {
  melu_error err;
  struct melu_field described = {.size = sizeof described};
  struct melu_value values[3];
  const uint32_t *rated;
  const float *ratings;
  uint32_t at;
  LIVE_TRY(melu_context_new(&l->ctx, &l->plan->context, &err));
  LIVE_TRY(melu_schema_new(&l->schema, l->ctx, &err));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) LIVE_TRY(melu_schema_add(l->schema, &fields[i], &err));
  LIVE_TRY(melu_dataset_new(&l->data, l->ctx, l->schema, &err));
  for (int t = 0; t < SCENE_TABLES; t++) {
    const char *name = t == SCENE_TABLE_RATINGS ? ratings_file(l) : scene_table_names[t];
    LIVE_TRY(scene_read(l->data, (enum scene_table)t, life_path(l->plan->folder, name, "").text, &err));
  }
  refused(l, scene_read(l->data, SCENE_TABLE_RATINGS, life_path(l->plan->folder, "huge.csv", "").text, &err),
          MELU_ERANGE, &err);
  LIVE_TRY(melu_dataset_freeze(l->data, &err));
  const melu_schema *schema = melu_dataset_schema(l->data);
  LIVE_TRY(melu_schema_field(&described, schema, MELU_ITEM, 2, &err));
  LIVE_TRY(melu_dataset_find_user(&at, l->data, 3, &err));
  LIVE_TRY(melu_dataset_find_item(&at, l->data, 104, &err));
  LIVE_TRY(melu_dataset_item_values(values, l->data, at, &err));
  life_served(l, values[2].numbers, 2);
  LIVE_TRY(melu_dataset_user_values(values, l->data, 3, &err));
  life_served(l, values[2].numbers, 1);
  const size_t n_rated = melu_dataset_ratings(l->data, 3, &rated, &ratings);
  life_served(l, ratings, n_rated);
  PROOF_NEEDS(
      described.scale == 0.3 && melu_schema_value_id(schema, "tags", "red") != MELU_UNKNOWN &&
          strcmp(melu_schema_value_text(schema, "tags", melu_schema_value_id(schema, "tags", "red")), "red") == 0,
      "a field is another one");
}

static void live_melu_folder(const struct life *l) {
  melu_error err;
  melu_schema *schema;
  melu_dataset *data;
  const uint32_t *items;
  const float *ratings;
  for (int with_items = 0; with_items < 2; with_items++) {
    LIVE_TRY(melu_schema_new(&schema, l->ctx, &err));
    LIVE_TRY((with_items ? melu_schema_add_melu_items : melu_schema_add_melu)(schema, l->plan->folder, &err));
    LIVE_TRY(melu_dataset_new(&data, l->ctx, schema, &err));
    LIVE_TRY(melu_dataset_read_melu(data, l->plan->folder, "s", &err));
    LIVE_TRY(melu_dataset_freeze(data, &err));
    const size_t n_rated = melu_dataset_ratings(data, 2, &items, &ratings);
    life_served(l, ratings, n_rated);
    LIVE(melu_dataset_free(data));
    LIVE(melu_schema_free(schema));
  }
}

/* Refusals, with what is in their messages: a number, and the system's reason. */
static void live_errors(const struct life *l) {
  melu_error err;
  melu_model *model;
  struct melu_model_options odd = *l->options;
  struct melu_metrics metrics = {.n_users = 0};
  const float one = 1;
  odd.inner_lr = -0.25;
  refused(l, melu_model_new(&model, l->ctx, melu_dataset_schema(l->data), &odd, &err), MELU_EINVAL, &err);
  odd.inner_lr = 0.05;
  odd.rating_min = 2.5;
  odd.rating_max = 1.5;
  refused(l, melu_model_new(&model, l->ctx, melu_dataset_schema(l->data), &odd, &err), MELU_EINVAL, &err);
  odd.preset = "MELU";
  refused(l, melu_model_new(&model, l->ctx, melu_dataset_schema(l->data), &odd, &err), MELU_EINVAL, &err);
  refused(l, melu_metrics_add(&metrics, &one, &one, 1, 2.5, 1.5, &err), MELU_EINVAL, &err);
  refused(l, melu_model_load(&model, l->ctx, "/no/such/file", &err), MELU_ENOTFOUND, &err);
}

static void live_end(struct life *l) {
  LIVE(melu_user_free(l->user));
  LIVE(melu_workspace_free(l->ws));
  LIVE(melu_model_free(l->model));
  LIVE(melu_dataset_free(l->data));
  LIVE(melu_schema_free(l->schema));
  LIVE(melu_context_free(l->ctx));
}

void whole_life(struct outcome *out, const struct life_plan *plan) {
  struct life life = {.plan = plan, .out = out, .options = &settings[plan->setting]}, *l = &life;
  out->n_served = out->n_trained = out->texts = 0;
  live_data(l);
  if (plan->setting == LIFE_LAYERS) live_melu_folder(l);
  live_errors(l);
  life_keep(l);
  life_serve(l);
  if (plan->setting != LIFE_ITEMS) life_rank(l);
  if (plan->setting != LIFE_PAIRS && plan->setting != LIFE_WIDE) life_ask(l);
  life_train(l);
  if (plan->setting != LIFE_WIDE) life_shard(l);
  live_end(l);
}

/* -------------------------------------------------------------------------------------------------- preparation */

static void prepare_model(const char *folder, int setting) {
  melu_error err;
  const struct life_plan plan = {.folder = folder, .setting = setting, .context = {.size = sizeof plan.context}};
  struct outcome *nothing = malloc(sizeof *nothing);
  struct life life = {.plan = &plan, .out = nothing, .options = &settings[setting]};
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 5, .n_query = 3, .min_ratings = 4};
  PROOF_NEEDS(nothing, "no memory");
  nothing->n_served = nothing->n_trained = nothing->texts = 0;
  live_data(&life);
  PROOF_TRY(melu_model_new(&life.model, life.ctx, melu_dataset_schema(life.data), life.options, &err));
  PROOF_TRY(melu_fit(life.model, life.data, &fit, &err));
  PROOF_TRY(melu_model_save(life.model, life_model_file(folder, setting).text, &err));
  live_end(&life);
  free(nothing);
}

void life_prepare(const char *folder) {
  for (size_t i = 0; i < N_TINY_FILES; i++)
    proof_write_file(life_path(folder, tiny_files[i].name, "").text, tiny_files[i].text, strlen(tiny_files[i].text));
  proof_write_file(life_path(folder, "huge.csv", "").text, huge, sizeof huge - 1);
  for (int is_click = 0; is_click < 2; is_click++) write_ratings(folder, is_click);
  for (int setting = 0; setting < LIFE_SETTINGS; setting++) prepare_model(folder, setting);
}

void life_clean(const char *folder) {
  for (size_t i = 0; i < N_TINY_FILES; i++) unlink(life_path(folder, tiny_files[i].name, "").text);
  unlink(life_path(folder, "huge.csv", "").text);
  for (int is_click = 0; is_click < 2; is_click++) unlink(life_path(folder, ratings_of[is_click], "").text);
  for (int setting = 0; setting < LIFE_SETTINGS; setting++) unlink(life_model_file(folder, setting).text);
}
