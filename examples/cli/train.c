/* SPDX-License-Identifier: BSD-3-Clause */
/* melu train: a model from tables of items, users and ratings, or from a folder that melu shard made of them. */
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "infer.h"
#include "output.h"

enum { MAX_HIDDEN = 8, PRESET_BEST = 0 };
static const char *const presets[] = {"best", "melu"};
static melu_error err;

struct choices {
  struct files files;
  struct overrides overrides;
  const char *shards, *model, *preset, *hidden, *inner_lr, *lr, *validation, *rating_min, *rating_max, *checkpoint;
  uint64_t n_epochs, seed, n_threads, rank, inner_steps, patience, clicks, first_order, resume, json;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){.preset = presets[PRESET_BEST], .seed = 1, .n_threads = n_processors(), .validation = "0"};
  add_file_options(&list, &c->files, "table of ratings to learn from: user, item, rating",
                   "table of the users; without it nothing is known of them but ratings");
  const struct option options[] = {
      {"--shards", "DIR", "learn from a folder that melu shard made, instead of tables", NULL, 0, 0, &c->shards},
      {"--model", "FILE", "write the trained model there", NULL, 0, 0, &c->model},
      {"--preset", "NAME", "best, the most accurate, or melu, the paper's network", NULL, 0, 0, &c->preset},
      {"--field", "NAME=KIND[:WIDTH]", "a column is one, many, numeric or skip; may be repeated", NULL, 0,
       MAX_OVERRIDES, c->overrides.texts},
      {"--epochs", "N", "passes over the users; 0: the preset's", &c->n_epochs, 0, 100000, NULL},
      {"--seed", "N", "seed of parameters and draws", &c->seed, 0, UINT64_MAX, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &c->n_threads, 1, 256, NULL},
      {"--validation", "SHARE", "share of the users who are kept to find the best epoch", NULL, 0, 0, &c->validation},
      {"--patience", "N", "end after N epochs that were not better; 0: do not", &c->patience, 0, 100000, NULL},
      {"--rating-min", "X", "smallest rating there can be; else the smallest there is", NULL, 0, 0, &c->rating_min},
      {"--rating-max", "X", "largest rating there can be; else the largest there is", NULL, 0, 0, &c->rating_max},
      {"--clicks", NULL, "ratings are clicks, 1 or 0; scores are their chances", &c->clicks, 0, 0, NULL},
      {"--rank", "N", "numbers in an item's vector (best); 0: the preset's", &c->rank, 0, 255, NULL},
      {"--hidden", "N,...", "widths of the hidden layers; else the preset's", NULL, 0, 0, &c->hidden},
      {"--inner-steps", "N", "inner steps (melu); 0: the preset's", &c->inner_steps, 0, 64, NULL},
      {"--inner-lr", "X", "inner learning rate (melu); else the preset's", NULL, 0, 0, &c->inner_lr},
      {"--lr", "X", "outer learning rate; else the preset's", NULL, 0, 0, &c->lr},
      {"--first-order", NULL, "take inner gradients as constants", &c->first_order, 0, 0, NULL},
      {"--checkpoint", "FILE", "write the training there after every epoch and when it is interrupted", NULL, 0, 0,
       &c->checkpoint},
      {"--resume", NULL, "go on from the checkpoint, if there is one", &c->resume, 0, 0, NULL},
      {"--json", NULL, "print the summary as JSON", &c->json, 0, 0, NULL},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  read_options(
      usage, "melu train",
      "Meta-trains a model. What a column of items or users is, is found out: numeric if all its cells are\n"
      "numbers, many if there is a '|' in one (a list), else one (a word of a vocabulary). A column that is the\n"
      "same for all, or text that is never the same twice, is skipped. --field says otherwise. With the preset\n"
      "best, the item's id is a field, too, so that items are known by name; --field item=skip leaves it out.\n"
      "Ratings that are larger than memory: melu shard sorts them into a folder, and --shards trains from it.",
      &list, argc, argv);
  c->overrides.usage = usage;
  const struct needed of_tables[] = {{"--items", c->files.items, "items.csv"},
                                     {"--ratings", c->files.ratings, "ratings.csv"},
                                     {"--model", c->model, "model.melu"}};
  const struct needed of_shards[] = {{"--shards", c->shards, "ratings.shards"}, {"--model", c->model, "model.melu"}};
  if (c->shards)
    need_options(usage, of_shards, sizeof of_shards / sizeof of_shards[0]);
  else
    need_options(usage, of_tables, sizeof of_tables / sizeof of_tables[0]);
  if (c->shards && (c->files.items || c->files.ratings || c->files.users || c->overrides.texts[0]))
    bad_usage(usage,
              "--shards has its items, users and ratings in it: leave out --items, --ratings, --users and --field");
}

/* ----------------------------------------------------------------------------------------------- interrupting */

/* Somebody wants the program to end: a training that has a checkpoint first writes it. */
static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
  (void)number;
  interrupted = 1;
}

static int show_or_stop(void *arg, const struct melu_progress *progress) {
  return interrupted || show_progress(arg, progress);
}

static void stop_on_signals(void) {
  const struct sigaction action = {.sa_handler = interrupt};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

/* ------------------------------------------------------------------------------------------- what is learnt from */

/* Tables, or a folder of shards. */
struct source {
  const char *path; /* of what has the ratings */
  melu_schema *schema;
  struct field_plan plans[2];
  struct data data;
  melu_shards *shards; /* NULL: tables */
  struct melu_shards_info info;
};

/* The numbers of a data set as those of a folder. */
static struct melu_shards_info describe(const melu_dataset *set) {
  struct melu_shards_info info = {.size = sizeof info,
                                  .n_users = melu_dataset_n_users(set),
                                  .n_ratings = melu_dataset_n_ratings(set),
                                  .n_items = melu_dataset_n_items(set),
                                  .rating_min = INFINITY,
                                  .rating_max = -INFINITY};
  for (uint32_t u = 0; u < melu_dataset_n_users(set); u++) {
    const float *ratings;
    const size_t n = melu_dataset_ratings(set, u, NULL, &ratings);
    for (size_t i = 0; i < n; i++) {
      info.rating_min = fminf(info.rating_min, ratings[i]);
      info.rating_max = fmaxf(info.rating_max, ratings[i]);
    }
  }
  return info;
}

static void open_tables(struct source *s, const melu_context *ctx, struct choices *c, int with_ids) {
  s->path = c->files.ratings;
  s->schema = infer_schema(s->plans, ctx, &c->files, with_ids, &c->overrides);
  data_open(&s->data, ctx, s->schema, &c->files);
  if (c->clicks) check_clicks(s->data.set, s->path);
  s->info = describe(s->data.set);
}

static void open_shards(struct source *s, const melu_context *ctx, const struct choices *c) {
  s->path = c->shards;
  s->info.size = sizeof s->info;
  check(melu_shards_open(&s->shards, ctx, c->shards, &err), &err);
  check(melu_shards_describe(&s->info, s->shards, &err), &err);
  if (s->info.n_ratings == 0) bad_data("%s: there are no ratings in it", s->path);
  for (size_t file = 0; c->clicks && file < s->info.n_files; file++) {
    melu_dataset *set;
    check(melu_shards_read(&set, s->shards, file, &err), &err);
    check_clicks(set, s->path);
    melu_dataset_free(set);
  }
}

static const melu_schema *schema_of(const struct source *s) {
  return melu_dataset_schema(s->shards ? melu_shards_items(s->shards) : s->data.set);
}

static void close_source(struct source *s) {
  melu_shards_free(s->shards);
  data_free(&s->data);
  melu_schema_free(s->schema);
  field_plan_free(&s->plans[MELU_ITEM]);
  field_plan_free(&s->plans[MELU_USER]);
}

/* ----------------------------------------------------------------------------------------------- the settings */

static void set_rating_range(struct melu_model_options *options, const struct choices *c, const struct usage *usage,
                             const struct source *s) {
  options->rating_min = (double)s->info.rating_min;
  options->rating_max = (double)s->info.rating_max;
  if (c->rating_min)
    options->rating_min = real_option(usage, "--rating-min", c->rating_min, -INFINITY, options->rating_min);
  if (c->rating_max)
    options->rating_max = real_option(usage, "--rating-max", c->rating_max, options->rating_max, INFINITY);
  if (!(options->rating_min < options->rating_max)) {
    bad_data("%s: all ratings are %g, so there is nothing to learn", s->path, options->rating_min);
  }
}

static melu_model *new_model(const melu_context *ctx, const struct choices *c, const struct usage *usage,
                             const struct source *s) {
  melu_model *model;
  size_t hidden[MAX_HIDDEN];
  struct melu_model_options options = {.size = sizeof options,
                                       .preset = c->preset,
                                       .seed = c->seed,
                                       .rank = c->rank,
                                       .inner_steps = c->inner_steps,
                                       .first_order = c->first_order != 0,
                                       .loss = c->clicks ? MELU_LOGISTIC : 0};
  if (c->hidden) {
    options.n_hidden = sizes_option(hidden, MAX_HIDDEN, usage, "--hidden", c->hidden, 1, 0);
    options.hidden = hidden;
  }
  if (c->inner_lr) options.inner_lr = real_option(usage, "--inner-lr", c->inner_lr, DBL_MIN, INFINITY);
  if (!c->clicks) set_rating_range(&options, c, usage, s);
  check(melu_model_new(&model, ctx, schema_of(s), &options, &err), &err);
  return model;
}

static void fit(melu_model *model, const struct choices *c, const struct usage *usage, const struct source *s) {
  const struct melu_optimizer_options optimizer = {
      .size = sizeof optimizer, .lr = c->lr ? real_option(usage, "--lr", c->lr, DBL_MIN, INFINITY) : 0};
  const struct melu_fit_options options = {.size = sizeof options,
                                           .n_epochs = c->n_epochs,
                                           .seed = c->seed,
                                           .optimizer = c->lr ? &optimizer : NULL,
                                           .validation = real_option(usage, "--validation", c->validation, 0, 0.9),
                                           .patience = c->patience,
                                           .checkpoint = c->checkpoint,
                                           .resume = c->resume != 0};
  if (c->checkpoint) stop_on_signals();
  const melu_status status =
      s->shards ? melu_fit_shards(model, s->shards, &options, &err) : melu_fit(model, s->data.set, &options, &err);
  if (status == MELU_ECANCELED) give_up("interrupted; the same command with --resume goes on from %s", c->checkpoint);
  check(status, &err);
}

/* ------------------------------------------------------------------------------------------------ what is printed */

static void print_as_json(const struct choices *c, const struct source *s, const melu_model *model, json_t *items,
                          json_t *users) {
  const struct melu_model_options options = options_of(model);
  json_t *all =
      json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f}", "model", c->model, "preset", options.preset, "users",
                (json_int_t)s->info.n_users, "items", (json_int_t)s->info.n_items, "ratings",
                (json_int_t)s->info.n_ratings, "rating_min", options.rating_min, "rating_max", options.rating_max);
  if (items) json_object_set_new(all, "item_columns", items);
  if (users) json_object_set_new(all, "user_columns", users);
  print_json(all);
}

/* What columns are was told when shards were made of them. */
static void print_summary(const struct choices *c, const struct source *s, const melu_model *model) {
  const struct melu_model_options options = options_of(model);
  const melu_schema *schema = melu_model_schema(model);
  json_t *items = s->shards ? NULL : plan_json(&s->plans[MELU_ITEM], schema);
  json_t *users = s->shards ? NULL : plan_json(&s->plans[MELU_USER], schema);
  if (c->json) {
    print_as_json(c, s, model, items, users);
    return;
  }
  if (items) print_columns(items, c->files.items);
  if (c->files.users) print_columns(users, c->files.users);
  print_ratings(s->path, &s->info, options.rating_min, options.rating_max);
  printf("%s\n  written, preset %s\n", c->model, options.preset);
  json_decref(items);
  json_decref(users);
}

int cmd_train(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  struct source source = {.path = NULL};
  read_choices(&c, &usage, argc, argv);
  const size_t preset = choice_option(&usage, "--preset", c.preset, presets, sizeof presets / sizeof presets[0]);
  check_place(c.model);
  if (c.resume && !c.checkpoint) bad_usage(&usage, "--resume needs --checkpoint");
  melu_context *ctx = new_context(c.n_threads, show_or_stop);
  if (c.shards)
    open_shards(&source, ctx, &c);
  else
    open_tables(&source, ctx, &c, preset == PRESET_BEST);
  melu_model *model = new_model(ctx, &c, &usage, &source);
  fit(model, &c, &usage, &source);
  check(melu_model_save(model, c.model, &err), &err);
  print_summary(&c, &source, model);
  melu_model_free(model);
  close_source(&source);
  melu_context_free(ctx);
  return 0;
}
