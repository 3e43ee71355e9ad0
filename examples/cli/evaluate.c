/* SPDX-License-Identifier: BSD-3-Clause */
/* melu evaluate: how well strangers are predicted after so many of their ratings. */
#include <math.h>
#include <string.h>

#include "../common/svg.h"
#include "data.h"
#include "output.h"

enum { MAX_POINTS = 64 };
static melu_error err;

struct choices {
  struct files files;
  struct form_option form;
  const char *model, *support, *curve, *svg, *max_ratings;
  uint64_t n_query, min_ratings, n_splits, n_threads;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){
      .support = "all", .n_query = 10, .n_splits = 1, .max_ratings = "100", .n_threads = n_processors()};
  add_file_options(&list, &c->files, "table of ratings to be judged by: user, item, rating", "table of the users");
  const struct option options[] = {
      {"--model", "FILE", "the model", NULL, 0, 0, &c->model},
      {"--support", "N", "ratings of a user that the model sees, or all but the queries", NULL, 0, 0, &c->support},
      {"--curve", "N,...", "a row for each of several such numbers", NULL, 0, 0, &c->curve},
      {"--queries", "N", "ratings of each user that are predicted", &c->n_query, 1, 4096, NULL},
      {"--splits", "N", "how often each user's ratings are split; means are printed", &c->n_splits, 1, 1000, NULL},
      {"--min-ratings", "N", "leave out users with fewer; 0: the queries and 3", &c->min_ratings, 0, 65536, NULL},
      {"--max-ratings", "N", "leave out users with more, or all", NULL, 0, 0, &c->max_ratings},
      {"--threads", "N", "threads; the result is the same for any number", &c->n_threads, 1, 256, NULL},
      {"--svg", "FILE", "draw the errors of a curve", NULL, 0, 0, &c->svg},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  add_form_options(&list, &c->form);
  read_options(
      usage, "melu evaluate",
      "Adapts the model to some ratings of each user and judges its predictions of some others. That is honest\n"
      "if the users were not in training: keep their ratings in a file of their own.",
      &list, argc, argv);
  const struct needed needed[] = {{"--model", c->model, "model.melu"},
                                  {"--items", c->files.items, "items.csv"},
                                  {"--ratings", c->files.ratings, "strangers.csv"}};
  need_options(usage, needed, sizeof needed / sizeof needed[0]);
}

/* Means over splits. */
static struct melu_metrics judge(const melu_model *model, const melu_dataset *set, const struct choices *c,
                                 size_t support, size_t max_ratings, int intervals) {
  struct melu_metrics sum = {0};
  const double share = 1 / (double)c->n_splits;
  for (uint64_t split = 0; split < c->n_splits; split++) {
    struct melu_metrics m;
    const struct melu_evaluate_options options = {.size = sizeof options,
                                                  .split = split,
                                                  .n_query = (size_t)c->n_query,
                                                  .min_ratings = (size_t)c->min_ratings,
                                                  .max_ratings = max_ratings,
                                                  .max_support = support == 0           ? MELU_NONE
                                                                 : support == MELU_NONE ? 0
                                                                                        : support,
                                                  .intervals = intervals};
    check(melu_evaluate(&m, model, set, &options, &err), &err);
    sum.n_users = m.n_users;
    sum.mae += m.mae * share;
    sum.rmse += m.rmse * share;
    for (int k = 0; k < 4; k++) sum.ndcg_linear[k] += m.ndcg_linear[k] * share;
    sum.coverage += m.coverage * share;
    sum.log_loss += m.log_loss * share;
    sum.auc += m.auc * share;
  }
  return sum;
}

/* One row for each size of the support set. Clicks have no intervals. */
static void print_rows(enum form form, const size_t *sizes, const struct melu_metrics *m, size_t n, int intervals,
                       int clicks) {
  const struct column of_ratings[] = {{"support", 7, 0}, {"users", 7, 0},  {"mae", 8, 4},
                                      {"rmse", 8, 4},    {"ndcg1", 8, 4},  {"ndcg3", 8, 4},
                                      {"ndcg5", 8, 4},   {"ndcg10", 8, 4}, {"coverage", 8, 4}};
  const struct column of_clicks[] = {{"support", 7, 0}, {"users", 7, 0}, {"log_loss", 8, 4}, {"auc", 8, 4}};
  struct output o;
  output_begin(&o, stdout, form, clicks ? of_clicks : of_ratings, clicks ? 4 : intervals ? 9 : 8);
  for (size_t i = 0; i < n; i++) {
    if (sizes[i] == MELU_NONE) {
      output_text(&o, "all");
    } else {
      output_whole(&o, sizes[i]);
    }
    output_whole(&o, m[i].n_users);
    output_real(&o, clicks ? m[i].log_loss : m[i].mae);
    output_real(&o, clicks ? m[i].auc : m[i].rmse);
    for (int k = 0; k < 4 && !clicks; k++) output_real(&o, m[i].ndcg_linear[k]);
    if (intervals) output_real(&o, m[i].coverage);
  }
  output_end(&o);
}

static void draw(const char *path, const size_t *sizes, const struct melu_metrics *m, size_t n, int clicks) {
  double x[MAX_POINTS], first[MAX_POINTS], second[MAX_POINTS];
  for (size_t i = 0; i < n; i++) {
    x[i] = (double)sizes[i];
    first[i] = clicks ? m[i].log_loss : m[i].mae;
    second[i] = m[i].rmse;
  }
  const struct svg_line lines[] = {{.name = clicks ? "log loss" : "MAE", .y = first}, {.name = "RMSE", .y = second}};
  const struct svg_chart chart = {.title = "How well strangers are known, rating by rating",
                                  .x_label = "ratings seen",
                                  .y_label = clicks ? "log loss (less is better)" : "error (less is better)",
                                  .x = x,
                                  .n_points = n,
                                  .lines = lines,
                                  .n_lines = clicks ? 1 : 2};
  svg_write(path, &chart);
}

int cmd_evaluate(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  struct data data;
  struct melu_metrics metrics[MAX_POINTS];
  size_t sizes[MAX_POINTS], max_ratings;
  read_choices(&c, &usage, argc, argv);
  const enum form form = read_form(&usage, &c.form);
  const size_t n = c.curve ? sizes_option(sizes, MAX_POINTS, &usage, "--curve", c.curve, 0, 1)
                           : sizes_option(sizes, 1, &usage, "--support", c.support, 0, 1);
  sizes_option(&max_ratings, 1, &usage, "--max-ratings", c.max_ratings, 1, 1);
  for (size_t i = 0; c.svg && i < n; i++) {
    if (n < 2 || sizes[i] == MELU_NONE || (i > 0 && sizes[i] <= sizes[i - 1]))
      bad_usage(&usage, "--svg draws a --curve of at least two ascending numbers, without \"all\"");
  }
  melu_context *ctx = new_context(c.n_threads, show_progress);
  melu_model *model = load_model(ctx, c.model);
  const struct melu_model_options options = options_of(model);
  const int clicks = options.loss == MELU_LOGISTIC;
  const int intervals = !clicks && options.network == MELU_FACTORS && options.rule == MELU_CLOSED_FORM;
  data_open(&data, ctx, melu_model_schema(model), &c.files);
  if (clicks) check_clicks(data.set, c.files.ratings);
  for (size_t i = 0; i < n; i++) metrics[i] = judge(model, data.set, &c, sizes[i], max_ratings, intervals);
  print_rows(form, sizes, metrics, n, intervals, clicks);
  if (c.svg) draw(c.svg, sizes, metrics, n, clicks);
  data_free(&data);
  melu_model_free(model);
  melu_context_free(ctx);
  return 0;
}
