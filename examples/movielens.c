/* SPDX-License-Identifier: BSD-3-Clause
 *
 * movielens - the experiment of the MeLU paper: people and films, known and new, on MovieLens-1M.
 *
 * DIR is a folder in the form that the MeLU reference code uses (users.dat, movies_extrainfos.dat, m_*.txt, and the
 * .json files of four states). MovieLens may be used for research but not passed on, so nothing of it is here.
 *
 *     W    known users, known films: trained anew for each split without the ratings that are asked for
 *     UC   new users, known films        IC   known users, new films        UIC   new users, new films
 *     +H   the last two with what else the users rated
 *     V1, V2IC, V2UIC   warm users and films that act as new: what settings are chosen by
 *
 * Ten ratings of each user are asked for, after all others of hers in the state, or the first k of them, were seen.
 * The bias model answers the same questions.
 *
 *     --preset NAME       one of the library's presets
 *     --preset ablation   what each part of "best" is worth: one training for each, on V1 and V2IC if not told else
 *     --clicks            four stars and more are a click, less is none
 *
 *     cc movielens.c common/[a-z]*.c $(pkg-config --cflags --libs melu) -lm
 */
#include <melu.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/args.h"
#include "common/baselines.h"
#include "common/states.h"
#include "common/svg.h"

enum { N_SUPPORTS = 7, ALL = N_SUPPORTS - 1 };
static const size_t supports[N_SUPPORTS] = {MELU_NONE, 1, 3, 5, 10, 20, 0}; /* as melu_evaluate has it: 0 is all */
static const char *const support_names[N_SUPPORTS] = {"0", "1", "3", "5", "10", "20", "all"};

enum { MAX_METHODS = 32, MAX_SPLITS = 20, MAX_WARM_SPLITS = 5 };

/* A kind of model: what is trained, and on what. */
struct method {
  const char *name;
  struct melu_model_options model;
  struct melu_fit_options fit;
  const char *without; /* fields that it does not see */
};

/* All that is measured. The last method is the bias model. */
static struct melu_metrics results[MAX_METHODS + 1][N_STATES][N_SUPPORTS][MAX_SPLITS];

static melu_error err;

/* ------------------------------------------------------------------------------------------------ choices */

struct choices {
  uint64_t n_splits, seed, n_threads, n_epochs, curves, clicks;
  const char *preset, *only, *csv, *per_split, *svg, *variant, *states, *dir;
  int wanted[N_STATES];
};

static void choose_states(struct choices *c, const struct usage *usage) {
  const char *rest = c->states;
  for (;;) {
    const size_t length = strcspn(rest, ",");
    int found = 0;
    for (int s = 0; s < N_STATES; s++) {
      if (strlen(state_names[s]) == length && strncmp(rest, state_names[s], length) == 0) found = c->wanted[s] = 1;
    }
    if (!found)
      bad_usage(usage, "--states takes names out of W,UC,IC,UIC,IC+H,UIC+H,V1,V2IC,V2UIC,V2IC+H,V2UIC+H, not '%.*s'",
                (int)length, rest);
    if (!rest[length]) return;
    rest += length + 1;
  }
}

static void read_choices(struct choices *c, int argc, char **argv) {
  *c = (struct choices){.n_splits = 5, .seed = 1, .n_threads = 2, .preset = "best", .curves = 1};
  const struct option options[] = {
      {"--preset", "NAME", "kind of model: best, melu, or ablation", NULL, 0, 0, &c->preset},
      {"--only", "TEXT", "of the ablation, those with this in their name", NULL, 0, 0, &c->only},
      {"--splits", "N", "how often each user's ratings are split (W: 5 at most)", &c->n_splits, 1, MAX_SPLITS, NULL},
      {"--seed", "N", "seed of parameters and draws", &c->seed, 0, UINT64_MAX, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &c->n_threads, 1, 256, NULL},
      {"--epochs", "N", "passes over the users; 0: the preset's", &c->n_epochs, 0, 1000, NULL},
      {"--curves", "0|1", "whether fewer ratings are tried too", &c->curves, 0, 1, NULL},
      {"--clicks", "0|1", "1: four stars and more are a click, less is none", &c->clicks, 0, 1, NULL},
      {"--csv", "FILE", "write all results: method,state,metric,value,sd,splits", NULL, 0, 0, &c->csv},
      {"--per-split", "FILE", "write the results of each split: method,state,split,mae,rmse,ndcg3", NULL, 0, 0,
       &c->per_split},
      {"--svg", "FILE", "draw the error against the number of ratings (of the first of the states)", NULL, 0, 0,
       &c->svg},
      {"--variant", "A|B", "A: train on users with 13 to 100 ratings, as the paper; B: on all; melu: A, others: B",
       NULL, 0, 0, &c->variant},
      {"--states", "LIST", "what to evaluate", NULL, 0, 0, &c->states},
  };
  const struct usage usage = {
      .program = "movielens",
      .operand = "DIR",
      .about = "Meta-trains on MovieLens-1M in the form of the MeLU reference code and evaluates warm and cold starts.",
      .options = options,
      .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &c->dir, argc, argv);
  if (!c->dir) bad_usage(&usage, "which folder is the data in?");
  if (!c->variant) c->variant = strcmp(c->preset, "melu") == 0 ? "A" : "B";
  if (strcmp(c->variant, "A") != 0 && strcmp(c->variant, "B") != 0) {
    bad_usage(&usage, "--variant takes A or B, not '%s'", c->variant);
  }
  if (!c->states) c->states = strcmp(c->preset, "ablation") == 0 ? "V1,V2IC" : "W,UC,IC,UIC";
  choose_states(c, &usage);
}

/* ------------------------------------------------------------------------------------------------ methods */

/* The parts of "best", one left out or replaced at a time. */
static size_t list_ablation(struct method *methods) {
  static const size_t none = 0;
  /* MeLU's layers on the same fields and users; ten epochs are nearly as good as the paper's thirty. */
  static const struct melu_fit_options layers = {.max_support = 90, .n_epochs = 10};
  const struct method list[] = {
      {.name = "best"},
      {.name = "no history", .model = {.history = -1}},
      {.name = "no names of films", .without = "movie"},
      {.name = "no attributes", .without = "rate,genre,director,actor,year"},
      {.name = "no profiles", .without = "gender,age,occupation,zip"},
      {.name = "no hidden layer", .model = {.hidden = &none, .n_hidden = MELU_NONE}},
      {.name = "rank 16", .model = {.rank = 16}},
      {.name = "squared loss", .model = {.loss = MELU_SQUARED}},
      {.name = "Huber loss", .model = {.loss = MELU_HUBER}},
      {.name = "pairwise loss", .model = {.loss = MELU_PAIRWISE}},
      {.name = "learnt precision", .model = {.learn_precision = 1}},
      {.name = "a tenth of priors",
       .fit = {.prior_vectors = 80, .prior_offsets = 30, .prior_pooled = 0.3, .prior_dense = 3}},
      {.name = "whole support sets", .fit = {.random_support = -1, .n_query = 10, .min_ratings = 11}},
      {.name = "constant rate", .fit = {.cosine = -1}},
      {.name = "5 steps", .model = {.rule = MELU_STEPS, .rates = MELU_RATE_PER_ENTRY}},
      {.name = "5 steps, 1 rate", .model = {.rule = MELU_STEPS, .rates = MELU_RATE_PER_TENSOR}},
      {.name = "5 steps, multi-step", .model = {.rule = MELU_STEPS, .rates = MELU_RATE_PER_ENTRY, .multi_step = 1}},
      {.name = "5 steps, 1st order", .model = {.rule = MELU_STEPS, .rates = MELU_RATE_PER_ENTRY, .first_order = 1}},
      {.name = "no inner step", .model = {.rule = MELU_STEPS, .inner_steps = MELU_NONE}},
      {.name = "MeLU", .model = {.preset = "melu"}, .fit = layers},
      {.name = "MeLU, 1st order", .model = {.preset = "melu", .first_order = 1}, .fit = layers},
      {.name = "MeLU, rates an entry", .model = {.preset = "melu", .rates = MELU_RATE_PER_ENTRY}, .fit = layers},
      {.name = "MeLU, multi-step", .model = {.preset = "melu", .multi_step = 1}, .fit = layers},
      {.name = "MeLU, head (ANIL)", .model = {.preset = "melu", .adapt = MELU_ADAPT_HEAD}, .fit = layers},
      {.name = "MeLU, closed form", .model = {.preset = "melu", .rule = MELU_CLOSED_FORM}, .fit = layers},
      {.name = "MeLU, all adapts", .model = {.preset = "melu", .adapt = 15}, .fit = layers},
  };
  memcpy(methods, list, sizeof list);
  for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
    if (!methods[i].model.preset) methods[i].model.preset = "best";
  return sizeof list / sizeof list[0];
}

static size_t keep_some(struct method *methods, size_t n, const char *only) {
  size_t kept = 0;
  for (size_t i = 0; i < n; i++)
    if (!only || strstr(methods[i].name, only)) methods[kept++] = methods[i];
  if (kept == 0) give_up("nothing in the ablation has '%s' in its name", only);
  return kept;
}

static size_t list_methods(struct method *methods, const struct choices *c) {
  size_t n = 1;
  if (strcmp(c->preset, "ablation") == 0)
    n = keep_some(methods, list_ablation(methods), c->only);
  else
    methods[0] = (struct method){.name = c->preset, .model = {.preset = c->preset}};
  for (size_t m = 0; m < n; m++) {
    methods[m].model.size = sizeof methods[m].model;
    methods[m].model.seed = methods[m].fit.seed = c->seed;
    methods[m].fit.size = sizeof methods[m].fit;
    if (c->n_epochs) methods[m].fit.n_epochs = c->n_epochs;
    if (c->clicks) methods[m].model.loss = MELU_LOGISTIC;
  }
  return n;
}

/* ------------------------------------------------------------------------------------ training, evaluation */

struct run {
  const struct choices *choices;
  const struct method *method;
  struct source source;
  melu_model *model;
  struct bias bias;
  int with_bias;
};

/* Variant A is already in the data. Users with less than ten ratings to be asked for and three to adapt to cannot be
 * a task of "melu"; they and their ratings are the bias model's alone. */
static void train(struct run *r, const melu_dataset *data) {
  struct melu_fit_options fit = r->method->fit;
  fit.max_ratings = MELU_NONE;
  must(melu_model_new(&r->model, r->source.ctx, melu_dataset_schema(data), &r->method->model, &err), &err);
  const melu_status status = melu_fit(r->model, data, &fit, &err);
  if (status == MELU_EDIVERGED)
    fprintf(stderr, "%s: %s; judged by the last good weights\n", r->method->name, err.message);
  else
    must(status, &err);
  if (r->with_bias) bias_fit(&r->bias, data, r->choices->clicks != 0);
}

static void release(struct run *r) {
  melu_model_free(r->model);
  if (r->with_bias) bias_free(&r->bias);
}

static size_t first_support(const struct choices *c) {
  return c->curves ? 0 : ALL;
}

static void evaluate(const struct run *r, size_t method, const melu_dataset *data, const melu_dataset *history,
                     enum state state, uint64_t split) {
  const uint64_t number = split + (state >= V1 ? VALIDATION_SPLIT : 0);
  struct melu_model_options model = {.size = sizeof model};
  must(melu_model_get_options(&model, r->model, &err), &err);
  for (size_t k = first_support(r->choices); k < N_SUPPORTS; k++) {
    const struct melu_evaluate_options options = {
        .size = sizeof options,
        .split = number,
        .max_support = supports[k],
        .history = history,
        .max_history = MAX_HISTORY,
        .intervals = model.network == MELU_FACTORS && model.rule == MELU_CLOSED_FORM};
    const size_t most = supports[k] == MELU_NONE ? 0 : supports[k] == 0 ? MELU_NONE : supports[k];
    must(melu_evaluate(&results[method][state][k][split], r->model, data, &options, &err), &err);
    if (r->with_bias)
      judge(&results[MAX_METHODS][state][k][split], r->source.ctx, bias_predict, &r->bias, data, number, most,
            model.rating_min, model.rating_max);
  }
}

/* Everything that one training serves. */
static void run_training(struct run *r, size_t method, enum training training, uint64_t first, uint64_t end) {
  melu_dataset *data = training_data(&r->source, training, first);
  train(r, data);
  for (enum state state = 0; state < N_STATES; state++) {
    if (!r->choices->wanted[state] || state_training[state] != training) continue;
    melu_dataset *asked = asked_data(&r->source, state), *history = history_data(&r->source, state);
    for (uint64_t split = first; split < end; split++) evaluate(r, method, asked, history, state, split);
    melu_dataset_free(history);
    melu_dataset_free(asked);
  }
  release(r);
  melu_dataset_free(data);
}

static uint64_t n_splits(const struct choices *c, enum state state) {
  return state == W && c->n_splits > MAX_WARM_SPLITS ? MAX_WARM_SPLITS : c->n_splits;
}

static void run_method(struct run *r, size_t method) {
  for (enum training training = 0; training < N_TRAININGS; training++) {
    int wanted = 0;
    for (enum state state = 0; state < N_STATES; state++)
      wanted |= r->choices->wanted[state] && state_training[state] == training;
    if (!wanted) continue;
    if (training != TRAIN_WARM) run_training(r, method, training, 0, r->choices->n_splits);
    for (uint64_t split = 0; training == TRAIN_WARM && split < n_splits(r->choices, W); split++)
      run_training(r, method, training, split, split + 1);
  }
}

/* ------------------------------------------------------------------------------------------------- report */

enum { N_METRICS = 13 };
static const char *const metric_names[N_METRICS] = {
    "mae",          "rmse",         "ndcg1",         "ndcg3",    "ndcg5", "ndcg10",  "ndcg1_linear",
    "ndcg3_linear", "ndcg5_linear", "ndcg10_linear", "log_loss", "auc",   "coverage"};

static double metric(const struct melu_metrics *m, size_t index) {
  if (index == 0) return m->mae;
  if (index == 1) return m->rmse;
  if (index < 6) return m->ndcg_paper[index - 2];
  if (index < 10) return m->ndcg_linear[index - 6];
  return index == 10 ? m->log_loss : index == 11 ? m->auc : m->coverage;
}

/* Mean and sample standard deviation over the splits; one split has no deviation (NaN). */
static double over_splits(double *sd, const struct melu_metrics *splits, uint64_t n, size_t index) {
  double sum = 0, squares = 0;
  for (uint64_t s = 0; s < n; s++) sum += metric(&splits[s], index);
  const double mean = sum / (double)n;
  for (uint64_t s = 0; s < n; s++) squares += pow(metric(&splits[s], index) - mean, 2);
  *sd = n > 1 ? sqrt(squares / (double)(n - 1)) : (double)NAN;
  return mean;
}

static void print_line(const struct choices *c, const char *name, size_t method, enum state state) {
  double sd;
  const uint64_t n = n_splits(c, state);
  struct melu_metrics(*const curve)[MAX_SPLITS] = results[method][state];
  printf("%-7s%-20s", state_names[state], name);
  if (c->clicks)
    printf("%8.4f%8.4f|", over_splits(&sd, curve[ALL], n, 10), over_splits(&sd, curve[ALL], n, 11));
  else
    printf("%8.4f%8.4f|", over_splits(&sd, curve[ALL], n, 0), over_splits(&sd, curve[ALL], n, 1));
  for (size_t i = 2; i < 6; i++) printf("%7.4f", over_splits(&sd, curve[ALL], n, i));
  const double coverage = over_splits(&sd, curve[ALL], n, 12);
  if (coverage > 0)
    printf(" |%7.3f |", coverage);
  else
    printf(" |%7s |", "");
  for (size_t k = first_support(c); k < N_SUPPORTS; k++)
    printf("%7.4f", over_splits(&sd, curve[k], n, c->clicks ? 10 : 0));
  printf("\n");
}

static void print_table(const struct choices *c, const struct method *methods, size_t n_methods) {
  printf("MovieLens-1M, variant %s, seed %llu; means over %llu splits\n\n", c->variant, (unsigned long long)c->seed,
         (unsigned long long)c->n_splits);
  printf("%43s|          nDCG at            | 80 %%   |  %s after so many ratings\n", "",
         c->clicks ? "log loss" : "MAE");
  printf("%-7s%-20s%8s%8s|%7s%7s%7s%7s | inside |", "state", "method", c->clicks ? "logloss" : "MAE",
         c->clicks ? "AUC" : "RMSE", "1", "3", "5", "10");
  for (size_t k = first_support(c); k < N_SUPPORTS; k++) printf("%7s", support_names[k]);
  printf("\n");
  for (enum state state = 0; state < N_STATES; state++) {
    if (!c->wanted[state]) continue;
    for (size_t m = 0; m < n_methods; m++) print_line(c, methods[m].name, m, state);
    print_line(c, "bias", MAX_METHODS, state);
  }
}

static FILE *open_file(const char *path, const char *header) {
  FILE *file = fopen(path, "w");
  if (!file) give_up("%s: %s", path, strerror(errno));
  fprintf(file, "%s\n", header);
  return file;
}

static void close_file(FILE *file, const char *path) {
  const int failed = ferror(file);
  if (fclose(file) != 0 || failed) give_up("%s: %s", path, strerror(errno));
}

static void write_rows(FILE *file, const char *method, const char *state, const struct melu_metrics *splits,
                       uint64_t n_splits) {
  for (size_t i = 0; i < N_METRICS; i++) {
    double sd;
    const double mean = over_splits(&sd, splits, n_splits, i);
    fprintf(file, "\"%s\",%s,%s,%.6f,", method, state, metric_names[i], mean); /* names have commas */
    if (n_splits > 1) fprintf(file, "%.6f", sd); /* empty, not "nan", where there is none */
    fprintf(file, ",%llu\n", (unsigned long long)n_splits);
  }
}

static void write_csv(const struct choices *c, const struct method *methods, size_t n_methods) {
  FILE *file = open_file(c->csv, "method,state,metric,value,sd,splits");
  for (size_t m = 0; m <= n_methods; m++) {
    const char *name = m < n_methods ? methods[m].name : "bias";
    struct melu_metrics(*const states)[N_SUPPORTS][MAX_SPLITS] = results[m < n_methods ? m : MAX_METHODS];
    for (enum state state = 0; state < N_STATES; state++) {
      if (!c->wanted[state]) continue;
      write_rows(file, name, state_names[state], states[state][ALL], n_splits(c, state));
      for (size_t k = first_support(c); k < N_SUPPORTS; k++) {
        char point[24];
        snprintf(point, sizeof point, "%s@%s", state_names[state], support_names[k]);
        write_rows(file, name, point, states[state][k], n_splits(c, state));
      }
    }
  }
  close_file(file, c->csv);
}

static void write_splits(const struct choices *c, const struct method *methods, size_t n_methods) {
  FILE *file = open_file(c->per_split, "method,state,split,mae,rmse,ndcg3");
  for (size_t m = 0; m < n_methods; m++)
    for (enum state state = 0; state < N_STATES; state++)
      for (uint64_t s = 0; c->wanted[state] && s < n_splits(c, state); s++) {
        const struct melu_metrics *r = &results[m][state][ALL][s];
        fprintf(file, "\"%s\",%s,%llu,%.6f,%.6f,%.6f\n", methods[m].name, state_names[state], (unsigned long long)s,
                r->mae, r->rmse, r->ndcg_paper[1]);
      }
  close_file(file, c->per_split);
}

/* The curve of the first state that was asked for; "all" stands where the mean support set would be. */
static void draw(const struct choices *c, const struct method *methods) {
  static const double x[N_SUPPORTS] = {0, 1, 3, 5, 10, 20, 36};
  double y[2][N_SUPPORTS], sd;
  enum state state = 0;
  while (!c->wanted[state]) state++;
  for (size_t k = 0; k < N_SUPPORTS; k++) {
    y[0][k] = over_splits(&sd, results[0][state][k], n_splits(c, state), 0);
    y[1][k] = over_splits(&sd, results[MAX_METHODS][state][k], n_splits(c, state), 0);
  }
  const struct svg_line lines[] = {{.name = methods[0].name, .y = y[0]}, {.name = "bias model", .y = y[1]}};
  char title[64];
  snprintf(title, sizeof title, "MovieLens-1M, %s", state_names[state]);
  const struct svg_chart chart = {.title = title,
                                  .x_label = "ratings seen (36: all, on average)",
                                  .y_label = "mean absolute error (less is better)",
                                  .x = x,
                                  .n_points = N_SUPPORTS,
                                  .lines = lines,
                                  .n_lines = 2};
  svg_write(c->svg, &chart);
}

int main(int argc, char **argv) {
  struct choices c;
  struct method methods[MAX_METHODS] = {0};
  read_choices(&c, argc, argv);
  const size_t n_methods = list_methods(methods, &c);
  melu_context *ctx;
  melu_schema *schema;
  const struct melu_context_options options = {
      .size = sizeof options, .n_threads = c.n_threads, .progress = show_progress};
  must(melu_context_new(&ctx, &options, &err), &err);
  must(melu_schema_new(&schema, ctx, &err), &err);
  const int by_name = strcmp(c.preset, "melu") != 0; /* the paper's model knows films by their attributes alone */
  must((by_name ? melu_schema_add_melu_items : melu_schema_add_melu)(schema, c.dir, &err), &err);
  for (size_t m = 0; m < n_methods; m++) {
    struct run r = {.choices = &c, .method = &methods[m], .with_bias = m == 0};
    r.source = (struct source){.ctx = ctx,
                               .schema = schema,
                               .dir = c.dir,
                               .capped = strcmp(c.variant, "A") == 0,
                               .clicks = c.clicks != 0,
                               .without = methods[m].without};
    run_method(&r, m);
  }
  print_table(&c, methods, n_methods);
  if (c.csv) write_csv(&c, methods, n_methods);
  if (c.per_split) write_splits(&c, methods, n_methods);
  if (c.svg) draw(&c, methods);
  melu_schema_free(schema);
  melu_context_free(ctx);
  return 0;
}
