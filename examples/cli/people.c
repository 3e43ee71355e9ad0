/* SPDX-License-Identifier: BSD-3-Clause */
#include "people.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static melu_error err;

void add_people_options(struct option_list *list, struct people_options *options) {
  const struct option own[] = {
      {"--model", "FILE", "the model", NULL, 0, 0, &options->model},
      {"--user", "FILE", "a user whom melu adapt wrote; --ratings add to hers", NULL, 0, 0, &options->saved},
  };
  add_options(list, own, sizeof own / sizeof own[0]);
  add_file_options(list, &options->files, "table of ratings: item, rating, and user if there are several people",
                   "table of their profiles");
  options->files.user_is_optional = 1;
}

void need_people_options(const struct usage *usage, const struct people_options *options) {
  const struct needed needed[] = {{"--model", options->model, "model.melu"},
                                  {"--items", options->files.items, "items.csv"}};
  need_options(usage, needed, sizeof needed / sizeof needed[0]);
}

/* ------------------------------------------------------------------------------------------------------ adapting */

static void read_saved(struct people *p, const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file && errno == ENOENT) bad_data("%s: there is no such file", path);
  if (!file) give_up("%s: %s", path, strerror(errno));
  size_t capacity = 0;
  for (int byte = getc(file); byte != EOF; byte = getc(file)) {
    p->saved = grow(p->saved, p->n_saved, &capacity, 1);
    p->saved[p->n_saved++] = (unsigned char)byte;
  }
  if (ferror(file)) give_up("%s: %s", path, strerror(errno));
  fclose(file);
  if (p->n_saved == 0) bad_data("%s: the file is empty", path);
}

/* Room for all that anybody rated, for what who was written down may have rated (12 bytes a rating at least), and for
 * one rating more, which melu_ask tries. */
static size_t most_ratings(const struct people *p) {
  enum { BYTES_A_RATING = 12, MOST = 4096 };
  size_t most = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(p->data.set); u++) {
    const size_t n = melu_dataset_ratings(p->data.set, u, NULL, NULL);
    if (n > most) most = n;
  }
  const size_t wanted = most + p->n_saved / BYTES_A_RATING + 1;
  return wanted <= MOST ? wanted : most > MOST ? most : MOST;
}

void people_open(struct people *p, const struct people_options *options, const struct usage *usage) {
  *p = (struct people){.ctx = new_context(1, show_progress)};
  if (options->saved && options->files.users) bad_usage(usage, "a --user brings a profile: --users is one too many");
  if (options->saved) read_saved(p, options->saved);
  p->model = load_model(p->ctx, options->model);
  const struct melu_model_options of_model = options_of(p->model);
  p->clicks = of_model.loss == MELU_LOGISTIC;
  p->has_variances = of_model.network == MELU_FACTORS && of_model.rule == MELU_CLOSED_FORM;
  data_open(&p->data, p->ctx, melu_model_schema(p->model), &options->files);
  if (p->clicks) check_clicks(p->data.set, options->files.ratings);
  p->n = melu_dataset_n_users(p->data.set);
  if (p->saved && p->n > 1) bad_data("%s: ratings of several users for one --user", options->files.ratings);
  check(melu_workspace_new(&p->workspace, p->model, most_ratings(p), &err), &err);
  check(melu_user_new(&p->user, p->model, &err), &err);
}

void people_free(struct people *p) {
  melu_user_free(p->user);
  melu_workspace_free(p->workspace);
  data_free(&p->data);
  melu_model_free(p->model);
  melu_context_free(p->ctx);
  free(p->saved);
}

/* The one who was written down, and what the ratings add. */
static void load_user(struct people *p) {
  const uint32_t *items;
  const float *ratings;
  check(melu_user_load(p->user, p->workspace, p->model, p->data.set, p->saved, p->n_saved, &err), &err);
  const size_t n = melu_dataset_ratings(p->data.set, 0, &items, &ratings);
  for (size_t i = 0; i < n; i++) {
    check(melu_user_rate(p->user, p->workspace, p->model, p->data.set, items[i], ratings[i], &err), &err);
  }
}

const char *people_adapt(struct people *p, uint32_t index) {
  const uint32_t *items;
  const float *ratings;
  if (p->saved) {
    load_user(p);
    return user_name(&p->data, 0);
  }
  const size_t n = melu_dataset_ratings(p->data.set, index, &items, &ratings);
  struct melu_value *profile =
      get_memory(melu_schema_n_fields(melu_model_schema(p->model), MELU_USER), sizeof *profile);
  check(melu_dataset_user_values(profile, p->data.set, index, &err), &err);
  check(melu_adapt(p->user, p->workspace, p->model, p->data.set, profile, items, ratings, n, &err), &err);
  free(profile);
  return user_name(&p->data, index);
}

/* --------------------------------------------------------------------------------------------------- predictions */

static double chance(double logit) {
  return 1 / (1 + exp(-logit));
}

void people_predictions(struct prediction *predictions, const struct people *p, const float *scores,
                        const uint32_t *items, size_t n) {
  const double half_of_80_percent = 1.2816;
  float *variances = get_memory(n, sizeof *variances);
  if (p->has_variances) {
    check(melu_predict_variance(variances, p->workspace, p->model, p->user, p->data.set, items, n, &err), &err);
  }
  for (size_t i = 0; i < n; i++) {
    const double score = (double)scores[i];
    const double half = p->has_variances ? half_of_80_percent * sqrt((double)variances[i]) : NAN;
    predictions[i] = (struct prediction){score, score - half, score + half};
    if (p->clicks) predictions[i] = (struct prediction){chance(score), chance(score - half), chance(score + half)};
  }
  free(variances);
}

/* ----------------------------------------------------------------------------------------------------- the output */

void add_column(struct people_columns *c, const char *name, int width, int decimals) {
  c->at[c->n++] = (struct column){name, width, decimals};
}

/* So wide that names up to 40 characters stand below each other. */
static int name_width(char *const *names, size_t n) {
  size_t width = 4;
  for (size_t i = 0; i < n; i++) {
    const size_t length = strlen(names[i]);
    if (length > width) width = length < 40 ? length : 40;
  }
  return -(int)width;
}

void begin_columns(struct people_columns *c, const struct people *p) {
  c->n = 0;
  if (p->data.users) add_column(c, "user", name_width(p->data.users, melu_dataset_n_users(p->data.set)), 0);
  add_column(c, "item", name_width(p->data.items, melu_dataset_n_items(p->data.set)), 0);
}

void add_prediction_columns(struct people_columns *c, const struct people *p) {
  add_column(c, "score", 8, 4);
  if (!p->has_variances) return;
  add_column(c, "low", 8, 4);
  add_column(c, "high", 8, 4);
}

void output_prediction(struct output *o, const struct people *p, const struct prediction *prediction) {
  output_real(o, prediction->score);
  if (!p->has_variances) return;
  output_real(o, prediction->low);
  output_real(o, prediction->high);
}

void output_user_and_item(struct output *o, const struct people *p, const char *user, uint32_t item) {
  if (user) output_text(o, user);
  output_text(o, p->data.items[item]);
}
