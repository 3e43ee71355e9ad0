/* SPDX-License-Identifier: BSD-3-Clause */
/* melu train: a model from tables of items, users and ratings. */
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
  const char *model, *preset, *hidden, *inner_lr, *lr, *validation, *rating_min, *rating_max, *checkpoint;
  uint64_t n_epochs, seed, n_threads, rank, inner_steps, patience, clicks, first_order, resume, json;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){.preset = presets[PRESET_BEST], .seed = 1, .n_threads = n_processors(), .validation = "0"};
  add_file_options(&list, &c->files, "table of ratings to learn from: user, item, rating",
                   "table of the users; without it nothing is known of them but ratings");
  const struct option options[] = {
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
      "best, the item's id is a field, too, so that items are known by name; --field item=skip leaves it out.",
      &list, argc, argv);
  c->overrides.usage = usage;
  const struct needed needed[] = {{"--items", c->files.items, "items.csv"},
                                  {"--ratings", c->files.ratings, "ratings.csv"},
                                  {"--model", c->model, "model.melu"}};
  need_options(usage, needed, sizeof needed / sizeof needed[0]);
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

/* ----------------------------------------------------------------------------------------------- the settings */

/* The smallest and largest of all ratings. */
static void rating_range(double *min, double *max, const melu_dataset *set) {
  *min = INFINITY;
  *max = -INFINITY;
  for (uint32_t u = 0; u < melu_dataset_n_users(set); u++) {
    const float *ratings;
    const size_t n = melu_dataset_ratings(set, u, NULL, &ratings);
    for (size_t i = 0; i < n; i++) {
      *min = fmin(*min, (double)ratings[i]);
      *max = fmax(*max, (double)ratings[i]);
    }
  }
}

static void set_rating_range(struct melu_model_options *options, const struct choices *c, const struct usage *usage,
                             const melu_dataset *set) {
  rating_range(&options->rating_min, &options->rating_max, set);
  if (c->rating_min)
    options->rating_min = real_option(usage, "--rating-min", c->rating_min, -INFINITY, options->rating_min);
  if (c->rating_max)
    options->rating_max = real_option(usage, "--rating-max", c->rating_max, options->rating_max, INFINITY);
  if (!(options->rating_min < options->rating_max)) {
    bad_data("%s: all ratings are %g, so there is nothing to learn", c->files.ratings, options->rating_min);
  }
}

static melu_model *new_model(const melu_context *ctx, const struct choices *c, const struct usage *usage,
                             const melu_dataset *set) {
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
  if (!c->clicks) set_rating_range(&options, c, usage, set);
  check(melu_model_new(&model, ctx, melu_dataset_schema(set), &options, &err), &err);
  return model;
}

static void fit(melu_model *model, const struct choices *c, const struct usage *usage, const melu_dataset *set) {
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
  const melu_status status = melu_fit(model, set, &options, &err);
  if (status == MELU_ECANCELED) give_up("interrupted; the same command with --resume goes on from %s", c->checkpoint);
  check(status, &err);
}

/* ------------------------------------------------------------------------------------------------ what is printed */

static void print_summary(const struct choices *c, const struct field_plan plans[2], const melu_model *model,
                          const melu_dataset *set) {
  const struct melu_model_options options = options_of(model);
  const melu_schema *schema = melu_model_schema(model);
  json_t *items = plan_json(&plans[MELU_ITEM], schema), *users = plan_json(&plans[MELU_USER], schema);
  if (c->json) {
    print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:o, s:o}", "model", c->model, "preset", options.preset,
                         "users", (json_int_t)melu_dataset_n_users(set), "items", (json_int_t)melu_dataset_n_items(set),
                         "ratings", (json_int_t)melu_dataset_n_ratings(set), "rating_min", options.rating_min,
                         "rating_max", options.rating_max, "item_columns", items, "user_columns", users));
    return;
  }
  print_columns(items, c->files.items);
  if (c->files.users) print_columns(users, c->files.users);
  printf("%s\n  %zu ratings of %zu items by %zu users, from %g to %g\n", c->files.ratings, melu_dataset_n_ratings(set),
         melu_dataset_n_items(set), melu_dataset_n_users(set), options.rating_min, options.rating_max);
  printf("%s\n  written, preset %s\n", c->model, options.preset);
  json_decref(items);
  json_decref(users);
}

int cmd_train(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  struct field_plan plans[2] = {{0}};
  struct data data;
  read_choices(&c, &usage, argc, argv);
  const size_t preset = choice_option(&usage, "--preset", c.preset, presets, sizeof presets / sizeof presets[0]);
  check_place(c.model);
  if (c.resume && !c.checkpoint) bad_usage(&usage, "--resume needs --checkpoint");
  melu_context *ctx = new_context(c.n_threads, show_or_stop);
  melu_schema *schema = infer_schema(plans, ctx, &c.files, preset == PRESET_BEST, &c.overrides);
  data_open(&data, ctx, schema, &c.files);
  if (c.clicks) check_clicks(&data, &c.files);
  melu_model *model = new_model(ctx, &c, &usage, data.set);
  fit(model, &c, &usage, data.set);
  check(melu_model_save(model, c.model, &err), &err);
  print_summary(&c, plans, model, data.set);
  melu_model_free(model);
  data_free(&data);
  melu_schema_free(schema);
  field_plan_free(&plans[MELU_ITEM]);
  field_plan_free(&plans[MELU_USER]);
  melu_context_free(ctx);
  return 0;
}
