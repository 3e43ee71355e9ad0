/* SPDX-License-Identifier: BSD-3-Clause */
/* Synthetic ratings as a shard folder, training from it, and how near it comes to the truth: for stream.sh.
 *
 *     stream write DIR     makes the folder's files, user by user
 *     stream fit DIR       trains by melu_fit_shards: users a second, and the memory that it took
 *     stream memory DIR    the same by melu_fit, on the users of the first files that are read into memory
 *     stream judge DIR     strangers, of whom 0 to 30 ratings are known: root mean squared distance from the truth
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../examples/common/args.h"
#include "../../examples/common/baselines.h"
#include "../../examples/common/synthetic.h"

static melu_error err;

static struct {
  uint64_t n_users, n_items, n_ratings, n_files, seed, n_epochs, rank, n_in_memory, n_strangers;
  const char *model;
} choices = {.n_users = 100000,
             .n_items = 20000,
             .n_ratings = 100,
             .n_files = 256,
             .seed = 1,
             .n_epochs = 1,
             .rank = 16,
             .n_in_memory = 16,
             .n_strangers = 500,
             .model = "stream.melu"};

static struct synthetic world(void) {
  return (struct synthetic){
      .seed = choices.seed, .n_items = (uint32_t)choices.n_items, .mean_ratings = (uint32_t)choices.n_ratings};
}

/* ------------------------------------------------------------------------------------------------ measuring */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double cpu_now(void) {
  return (double)clock() / CLOCKS_PER_SEC;
}

/* A line of /proc/self/status in MiB: VmPeak, all addresses, which ulimit -v limits; VmHWM, what was in memory. */
static double memory_of(const char *name) {
  char line[256];
  double kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (!file) give_up("there is no /proc/self/status");
  while (fgets(line, sizeof line, file))
    if (strncmp(line, name, strlen(name)) == 0) kib = strtod(line + strlen(name) + 1, NULL);
  fclose(file);
  return kib / 1024;
}

/* When the first and the last update of a training were made. */
static struct {
  double began, began_cpu, ended, ended_cpu, loss;
  uint64_t first, last;
} updates;

static int on_progress(void *arg, const struct melu_progress *progress) {
  if (strcmp(progress->phase, "fit") == 0) {
    updates.ended = now();
    updates.ended_cpu = cpu_now();
    updates.last = progress->done;
    updates.loss = progress->loss;
    if (!updates.first) {
      updates.first = progress->done;
      updates.began = updates.ended;
      updates.began_cpu = updates.ended_cpu;
    }
  }
  return show_progress(arg, progress);
}

static melu_context *new_context(void) {
  melu_context *ctx;
  const struct melu_context_options options = {.size = sizeof options, .progress = on_progress};
  must(melu_context_new(&ctx, &options, &err), &err);
  return ctx;
}

static melu_dataset *new_data(const melu_context *ctx) {
  const struct synthetic w = world();
  melu_schema *schema;
  melu_dataset *data;
  must(melu_schema_new(&schema, ctx, &err), &err);
  synthetic_fields(&w, schema);
  must(melu_dataset_new(&data, ctx, schema, &err), &err);
  synthetic_items(&w, data);
  melu_schema_free(schema);
  return data;
}

/* --------------------------------------------------------------------------------------------------- writing */

static void write_shards(const melu_context *ctx, const char *folder) {
  const struct synthetic w = world();
  static uint32_t items[SYNTHETIC_MOST];
  static float ratings[SYNTHETIC_MOST];
  melu_dataset *data = new_data(ctx);
  melu_shard_writer *writer;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = choices.n_files};
  uint64_t n_all = 0;
  const double start = now();
  must(melu_shard_writer_new(&writer, ctx, folder, data, &options, &err), &err);
  for (uint64_t user = 0; user < choices.n_users; user++) {
    const uint32_t group = synthetic_group(&w, user);
    const struct melu_value value = {.ids = &group, .n_ids = 1};
    const size_t n = synthetic_ratings(items, ratings, &w, user);
    must(melu_shard_writer_add_user(writer, user, &value, &err), &err);
    for (size_t i = 0; i < n; i++) must(melu_shard_writer_add_rating(writer, user, items[i], ratings[i], &err), &err);
    n_all += n;
    const struct melu_progress progress = {.phase = "make", .done = user + 1, .total = choices.n_users};
    if (user % 10000 == 9999) show_progress(NULL, &progress);
  }
  const double made = now();
  must(melu_shard_writer_finish(writer, &err), &err);
  melu_shard_writer_free(writer);
  melu_dataset_free(data);
  printf("{\"users\": %llu, \"ratings\": %llu, \"make_s\": %.1f, \"sort_s\": %.1f, \"peak_mib\": %.0f}\n",
         (unsigned long long)choices.n_users, (unsigned long long)n_all, made - start, now() - made,
         memory_of("VmPeak"));
}

/* --------------------------------------------------------------------------------------------------- training */

static melu_model *new_model(const melu_context *ctx, const melu_dataset *items) {
  melu_model *model;
  const struct melu_model_options options = {
      .size = sizeof options, .preset = "best", .rank = choices.rank, .rating_min = -2, .rating_max = 9};
  must(melu_model_new(&model, ctx, melu_dataset_schema(items), &options, &err), &err);
  return model;
}

static struct melu_fit_options fit_options(void) {
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options), .n_epochs = choices.n_epochs, .seed = 1};
}

static void print_training(double start) {
  const double tasks = (double)(updates.last - updates.first);
  printf(
      "{\"tasks\": %llu, \"before_s\": %.1f, \"fit_s\": %.1f, \"tasks_per_s\": %.0f, \"tasks_per_cpu_s\": %.0f, "
      "\"loss\": %.4f, \"peak_mib\": %.0f, \"resident_mib\": %.0f}\n",
      (unsigned long long)updates.last, updates.began - start, updates.ended - updates.began,
      tasks / (updates.ended - updates.began), tasks / (updates.ended_cpu - updates.began_cpu), updates.loss,
      memory_of("VmPeak"), memory_of("VmHWM"));
}

static melu_shards *open_shards(const melu_context *ctx, const char *folder) {
  melu_shards *shards;
  must(melu_shards_open(&shards, ctx, folder, &err), &err);
  return shards;
}

static void fit(const melu_context *ctx, const char *folder) {
  melu_shards *shards = open_shards(ctx, folder);
  melu_model *model = new_model(ctx, melu_shards_items(shards));
  const struct melu_fit_options options = fit_options();
  const double start = now();
  must(melu_fit_shards(model, shards, &options, &err), &err);
  print_training(start);
  must(melu_model_save(model, choices.model, &err), &err);
  melu_model_free(model);
  melu_shards_free(shards);
}

/* The users of the first n files in one frozen data set. */
static melu_dataset *read_files(const melu_context *ctx, const melu_shards *shards, size_t n) {
  melu_dataset *data = new_data(ctx), *file;
  for (size_t f = 0; f < n; f++) {
    must(melu_shards_read(&file, shards, f, &err), &err);
    for (uint32_t u = 0; u < melu_dataset_n_users(file); u++) {
      const uint64_t id = melu_dataset_user_id(file, u);
      const uint32_t *items;
      const float *ratings;
      struct melu_value value;
      const size_t n_ratings = melu_dataset_ratings(file, u, &items, &ratings);
      must(melu_dataset_user_values(&value, file, u, &err), &err);
      must(melu_dataset_add_user(data, id, &value, NULL, &err), &err);
      for (size_t i = 0; i < n_ratings; i++) must(melu_dataset_add_rating(data, id, items[i], ratings[i], &err), &err);
    }
    melu_dataset_free(file);
  }
  must(melu_dataset_freeze(data, &err), &err);
  return data;
}

static void fit_in_memory(const melu_context *ctx, const char *folder) {
  melu_shards *shards = open_shards(ctx, folder);
  melu_dataset *data = read_files(ctx, shards, choices.n_in_memory);
  melu_model *model = new_model(ctx, data);
  const struct melu_fit_options options = fit_options();
  const double start = now();
  must(melu_fit(model, data, &options, &err), &err);
  print_training(start);
  melu_model_free(model);
  melu_dataset_free(data);
  melu_shards_free(shards);
}

/* ---------------------------------------------------------------------------------------------------- judging */

/* Adds the squared distances from the truth of what is predicted of the items that she rated behind the first `known`,
 * or all but the last ten. */
static void judge_stranger(double sums[2], double *n, const struct bias *bias, melu_user *user, melu_workspace *ws,
                           const melu_model *model, const melu_dataset *items_of, uint64_t id, size_t known) {
  static uint32_t items[SYNTHETIC_MOST];
  static float ratings[SYNTHETIC_MOST], scores[2][SYNTHETIC_MOST];
  const struct synthetic w = world();
  const uint32_t group = synthetic_group(&w, id);
  const struct melu_value profile = {.ids = &group, .n_ids = 1};
  const size_t n_all = synthetic_ratings(items, ratings, &w, id);
  if (n_all < known + 10) return;
  const struct question question = {
      .support = items, .ratings = ratings, .n_support = known, .queries = items + known, .n_queries = n_all - known};
  must(melu_adapt(user, ws, model, items_of, &profile, items, ratings, known, &err), &err);
  must(melu_predict(scores[0], ws, model, user, items_of, question.queries, question.n_queries, &err), &err);
  bias_predict(scores[1], bias, &question);
  for (size_t i = 0; i < question.n_queries; i++) {
    const double truth = synthetic_truth(&w, id, question.queries[i]);
    for (int m = 0; m < 2; m++) sums[m] += pow((double)scores[m][i] - truth, 2);
  }
  *n += (double)question.n_queries;
}

static void judge_all(const melu_context *ctx, const char *folder) {
  static const size_t known[] = {0, 1, 3, 10, 30};
  melu_shards *shards = open_shards(ctx, folder);
  melu_dataset *data = read_files(ctx, shards, choices.n_in_memory);
  melu_model *model;
  melu_workspace *ws;
  melu_user *user;
  struct bias bias;
  must(melu_model_load(&model, ctx, choices.model, &err), &err);
  must(melu_workspace_new(&ws, model, 30, &err), &err);
  must(melu_user_new(&user, model, &err), &err);
  bias_fit(&bias, data, 0);
  for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
    double sums[2] = {0, 0}, n = 0;
    for (uint64_t i = 0; i < choices.n_strangers; i++)
      judge_stranger(sums, &n, &bias, user, ws, model, data, choices.n_users + i, known[k]);
    printf("{\"known\": %zu, \"model_rmse\": %.4f, \"bias_rmse\": %.4f}\n", known[k], sqrt(sums[0] / n),
           sqrt(sums[1] / n));
  }
  bias_free(&bias);
  melu_user_free(user);
  melu_workspace_free(ws);
  melu_model_free(model);
  melu_dataset_free(data);
  melu_shards_free(shards);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(const melu_context *ctx, const char *folder);
  } commands[] = {{"write", write_shards}, {"fit", fit}, {"memory", fit_in_memory}, {"judge", judge_all}};
  const struct option options[] = {
      {"--users", "N", "users; strangers are those behind them", &choices.n_users, 1, 1000000000, NULL},
      {"--items", "N", "items", &choices.n_items, 100, 100000000, NULL},
      {"--ratings", "N", "ratings of a user, in the mean", &choices.n_ratings, 11, 500, NULL},
      {"--files", "N", "files of the folder", &choices.n_files, 1, 65536, NULL},
      {"--seed", "N", "seed of the world", &choices.seed, 0, UINT64_MAX, NULL},
      {"--epochs", "N", "passes over the users", &choices.n_epochs, 1, 1000, NULL},
      {"--rank", "N", "numbers in an item's vector", &choices.rank, 1, 255, NULL},
      {"--in-memory", "N", "files whose users are read into memory", &choices.n_in_memory, 1, 65536, NULL},
      {"--strangers", "N", "strangers to judge by", &choices.n_strangers, 1, 1000000, NULL},
      {"--model", "FILE", "the model that is trained, or judged", NULL, 0, 0, &choices.model},
  };
  const struct usage usage = {"stream COMMAND", "DIR", "Commands: write, fit, memory, judge.", options,
                              sizeof options / sizeof options[0]};
  const char *folder = NULL;
  if (argc < 2) bad_usage(&usage, "there is no command");
  read_args(&usage, &folder, argc - 1, argv + 1);
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
    if (strcmp(argv[1], commands[i].name) != 0) continue;
    if (!folder) bad_usage(&usage, "there is no folder");
    melu_context *ctx = new_context();
    commands[i].run(ctx, folder);
    melu_context_free(ctx);
    finish_output();
    return 0;
  }
  bad_usage(&usage, "there is no command '%s'", argv[1]);
}
