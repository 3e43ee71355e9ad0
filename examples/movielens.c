/* SPDX-License-Identifier: BSD-3-Clause
 *
 * movielens - the experiment of the MeLU paper: people and films, known and new, on MovieLens-1M.
 *
 * DIR is a folder in the form that the MeLU reference code uses (users.dat, movies_extrainfos.dat, m_*.txt, and the
 * .json files of four states). MovieLens may be used for research but not passed on, so nothing of it is here.
 *
 *     W    known users, known films: trained anew for each split without the ratings that are asked for
 *     UC   new users, known films        IC   known users, new films        UIC   new users, new films
 *
 * Ten ratings of each user are asked for, after all others of hers in the state, or the first k of them, were seen.
 * The bias model answers the same questions.
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

enum { W, UC, IC, UIC, N_STATES };
static const char *const state_names[N_STATES] = {"W", "UC", "IC", "UIC"};
static const char *const state_files[N_STATES] = {"warm_state", "user_cold_state", "item_cold_state",
                                                  "user_and_item_cold_state"};

enum { N_SUPPORTS = 7, ALL = N_SUPPORTS - 1 };
static const size_t supports[N_SUPPORTS] = {MELU_NONE, 1, 3, 5, 10, 20, 0}; /* as melu_evaluate has it: 0 is all */
static const char *const support_names[N_SUPPORTS] = {"0", "1", "3", "5", "10", "20", "all"};

enum { PRESET, BIAS, N_METHODS };
enum { N_QUERY = 10, MIN_RATINGS = 13, MAX_RATINGS = 100, MAX_SPLITS = 20 };
static const double rating_min = 1, rating_max = 5;

/* All that is measured. */
static struct melu_metrics results[N_METHODS][N_STATES][N_SUPPORTS][MAX_SPLITS];

static melu_error err;

/* ------------------------------------------------------------------------------------------------ choices */

struct choices {
  uint64_t n_splits, seed, n_threads, n_epochs;
  const char *preset, *csv, *variant, *states, *dir;
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
    if (!found) bad_usage(usage, "--states takes names out of W,UC,IC,UIC, not '%.*s'", (int)length, rest);
    if (!rest[length]) return;
    rest += length + 1;
  }
}

static void read_choices(struct choices *c, int argc, char **argv) {
  *c = (struct choices){.n_splits = 5,
                        .seed = 1,
                        .n_threads = 2,
                        .n_epochs = 30,
                        .preset = "melu",
                        .variant = "A",
                        .states = "W,UC,IC,UIC"};
  const struct option options[] = {
      {"--preset", "NAME", "kind of model", NULL, 0, 0, &c->preset},
      {"--splits", "N", "how often each user's ratings are split", &c->n_splits, 1, MAX_SPLITS, NULL},
      {"--seed", "N", "seed of parameters and draws", &c->seed, 0, UINT64_MAX, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &c->n_threads, 1, 256, NULL},
      {"--epochs", "N", "passes over the users", &c->n_epochs, 1, 1000, NULL},
      {"--csv", "FILE", "write all results: method,state,metric,value,sd,splits", NULL, 0, 0, &c->csv},
      {"--variant", "A|B", "A: train on users with 13 to 100 ratings, as the paper; B: on all", NULL, 0, 0,
       &c->variant},
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
  if (strcmp(c->variant, "A") != 0 && strcmp(c->variant, "B") != 0) {
    bad_usage(&usage, "--variant takes A or B, not '%s'", c->variant);
  }
  choose_states(c, &usage);
}

/* --------------------------------------------------------------------------------------------------- data */

static melu_dataset *read_state(const melu_context *ctx, const melu_schema *schema, const char *dir, int state) {
  melu_dataset *data;
  must(melu_dataset_new(&data, ctx, schema, &err), &err);
  must(melu_dataset_read_melu(data, dir, state_files[state], &err), &err);
  must(melu_dataset_freeze(data, &err), &err);
  return data;
}

/* The items and users of a set with their values, under their old ids. Users come in the same order, so that their
 * positions are the same too. */
static void copy_entities(melu_dataset *copy, const melu_dataset *data) {
  const melu_schema *schema = melu_dataset_schema(data);
  const size_t n_user = melu_schema_n_fields(schema, MELU_USER), n_item = melu_schema_n_fields(schema, MELU_ITEM);
  struct melu_value *values = calloc(n_user > n_item ? n_user : n_item, sizeof *values);
  if (!values) give_up("out of memory");
  for (uint32_t i = 0; i < melu_dataset_n_items(data); i++) {
    must(melu_dataset_item_values(values, data, i, &err), &err);
    must(melu_dataset_add_item(copy, melu_dataset_item_id(data, i), values, NULL, &err), &err);
  }
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    must(melu_dataset_user_values(values, data, u, &err), &err);
    must(melu_dataset_add_user(copy, melu_dataset_user_id(data, u), values, NULL, &err), &err);
  }
  free(values);
}

/* Returns a new data set: `warm` without the ratings that `split` asks for. In variant A the users who are outside
 * 13 to 100 ratings, queries included, have none. */
static melu_dataset *without_queries(const melu_context *ctx, const melu_dataset *warm, uint64_t split, int capped) {
  melu_dataset *rest;
  must(melu_dataset_new(&rest, ctx, melu_dataset_schema(warm), &err), &err);
  copy_entities(rest, warm);
  for (uint32_t u = 0; u < melu_dataset_n_users(warm); u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(warm, u, &items, &ratings);
    const int evaluated = n >= MIN_RATINGS && n <= MAX_RATINGS;
    if (capped && !evaluated) continue;
    int asked[MAX_RATINGS] = {0};
    if (evaluated) {
      uint32_t order[MAX_RATINGS];
      must(melu_split_order(order, melu_dataset_user_id(warm, u), split, n, &err), &err);
      for (size_t i = n - N_QUERY; i < n; i++) asked[order[i]] = 1;
    }
    for (size_t i = 0; i < n; i++) {
      if (evaluated && asked[i]) continue;
      must(melu_dataset_add_rating(rest, melu_dataset_user_id(warm, u), melu_dataset_item_id(warm, items[i]),
                                   ratings[i], &err),
           &err);
    }
  }
  must(melu_dataset_freeze(rest, &err), &err);
  return rest;
}

/* ------------------------------------------------------------------------------------ training, evaluation */

/* The two models, trained on the same ratings. */
struct trained {
  melu_model *model;
  struct bias bias;
};

/* Users with less than ten ratings to be asked for and three to adapt to cannot be a task; they and their ratings are
 * the bias model's alone. */
static void train(struct trained *t, const melu_context *ctx, const struct choices *c, const melu_dataset *data,
                  size_t bias_least, size_t most) {
  const struct melu_model_options shape = {.size = sizeof shape, .preset = c->preset, .seed = c->seed};
  const struct melu_fit_options fit = {
      .size = sizeof fit, .n_epochs = c->n_epochs, .max_ratings = most, .seed = c->seed};
  must(melu_model_new(&t->model, ctx, melu_dataset_schema(data), &shape, &err), &err);
  must(melu_fit(t->model, data, &fit, &err), &err);
  bias_fit(&t->bias, data, bias_least, most);
}

static void release(struct trained *t) {
  melu_model_free(t->model);
  bias_free(&t->bias);
}

static void evaluate(const struct trained *t, const melu_dataset *data, int state, uint64_t split) {
  for (size_t k = 0; k < N_SUPPORTS; k++) {
    const struct melu_evaluate_options options = {.size = sizeof options, .split = split, .max_support = supports[k]};
    const size_t most = supports[k] == MELU_NONE ? 0 : supports[k] == 0 ? MELU_NONE : supports[k];
    must(melu_evaluate(&results[PRESET][state][k][split], t->model, data, &options, &err), &err);
    judge(&results[BIAS][state][k][split], bias_predict, &t->bias, data, split, most, rating_min, rating_max);
  }
}

/* W is trained anew for each split; one training serves all splits of the cold states. */
static void run(const melu_context *ctx, const struct choices *c, const melu_schema *schema) {
  const int capped = strcmp(c->variant, "A") == 0;
  const size_t most = capped ? MAX_RATINGS : MELU_NONE;
  melu_dataset *warm = read_state(ctx, schema, c->dir, W);
  struct trained t;
  if (c->wanted[UC] || c->wanted[IC] || c->wanted[UIC]) {
    train(&t, ctx, c, warm, capped ? MIN_RATINGS : 1, most);
    for (int state = UC; state < N_STATES; state++) {
      if (!c->wanted[state]) continue;
      melu_dataset *cold = read_state(ctx, schema, c->dir, state);
      for (uint64_t split = 0; split < c->n_splits; split++) evaluate(&t, cold, state, split);
      melu_dataset_free(cold);
    }
    release(&t);
  }
  for (uint64_t split = 0; c->wanted[W] && split < c->n_splits; split++) {
    melu_dataset *rest = without_queries(ctx, warm, split, capped);
    train(&t, ctx, c, rest, 1, MELU_NONE); /* who may take part was settled before the queries went */
    evaluate(&t, warm, W, split);
    release(&t);
    melu_dataset_free(rest);
  }
  melu_dataset_free(warm);
}

/* ------------------------------------------------------------------------------------------------- report */

enum { N_METRICS = 10 };
static const char *const metric_names[N_METRICS] = {"mae",          "rmse",         "ndcg1",        "ndcg3",
                                                    "ndcg5",        "ndcg10",       "ndcg1_linear", "ndcg3_linear",
                                                    "ndcg5_linear", "ndcg10_linear"};

static double metric(const struct melu_metrics *m, size_t index) {
  if (index == 0) return m->mae;
  if (index == 1) return m->rmse;
  return index < 6 ? m->ndcg_paper[index - 2] : m->ndcg_linear[index - 6];
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

static void print_table(const struct choices *c, const char *const *methods) {
  printf("MovieLens-1M, variant %s, %llu epochs, seed %llu; means over %llu splits\n\n", c->variant,
         (unsigned long long)c->n_epochs, (unsigned long long)c->seed, (unsigned long long)c->n_splits);
  printf("%31s|          nDCG at            |  MAE after so many ratings\n", "");
  printf("%-6s%-9s%8s%8s|%7s%7s%7s%7s |", "state", "method", "MAE", "RMSE", "1", "3", "5", "10");
  for (size_t k = 0; k < N_SUPPORTS; k++) printf("%7s", support_names[k]);
  printf("\n");
  for (int state = 0; state < N_STATES; state++) {
    for (int m = 0; c->wanted[state] && m < N_METHODS; m++) {
      double sd;
      printf("%-6s%-9s", state_names[state], methods[m]);
      for (size_t i = 0; i < 6; i++) {
        printf(i < 2 ? "%8.4f" : "%7.4f", over_splits(&sd, results[m][state][ALL], c->n_splits, i));
        if (i == 1) printf("|");
      }
      printf(" |");
      for (size_t k = 0; k < N_SUPPORTS; k++) printf("%7.4f", over_splits(&sd, results[m][state][k], c->n_splits, 0));
      printf("\n");
    }
  }
}

static void write_rows(FILE *file, const char *method, const char *state, const struct melu_metrics *splits,
                       uint64_t n_splits) {
  for (size_t i = 0; i < N_METRICS; i++) {
    double sd;
    const double mean = over_splits(&sd, splits, n_splits, i);
    fprintf(file, "%s,%s,%s,%.6f,", method, state, metric_names[i], mean);
    if (n_splits > 1) fprintf(file, "%.6f", sd); /* empty, not "nan", where there is none */
    fprintf(file, ",%llu\n", (unsigned long long)n_splits);
  }
}

static void write_csv(const struct choices *c, const char *const *methods) {
  FILE *file = fopen(c->csv, "w");
  if (!file) give_up("%s: %s", c->csv, strerror(errno));
  fprintf(file, "method,state,metric,value,sd,splits\n");
  for (int m = 0; m < N_METHODS; m++) {
    for (int state = 0; state < N_STATES; state++) {
      if (!c->wanted[state]) continue;
      write_rows(file, methods[m], state_names[state], results[m][state][ALL], c->n_splits);
      for (size_t k = 0; k < N_SUPPORTS; k++) {
        char name[16];
        snprintf(name, sizeof name, "%s@%s", state_names[state], support_names[k]);
        write_rows(file, methods[m], name, results[m][state][k], c->n_splits);
      }
    }
  }
  const int failed = ferror(file);
  if (fclose(file) != 0 || failed) give_up("%s: %s", c->csv, strerror(errno));
}

int main(int argc, char **argv) {
  struct choices c;
  read_choices(&c, argc, argv);
  melu_context *ctx;
  melu_schema *schema;
  const struct melu_context_options options = {
      .size = sizeof options, .n_threads = c.n_threads, .progress = show_progress};
  must(melu_context_new(&ctx, &options, &err), &err);
  must(melu_schema_new(&schema, ctx, &err), &err);
  must(melu_schema_add_melu(schema, c.dir, &err), &err);
  run(ctx, &c, schema);
  const char *const methods[N_METHODS] = {c.preset, "bias"};
  print_table(&c, methods);
  if (c.csv) write_csv(&c, methods);
  melu_schema_free(schema);
  melu_context_free(ctx);
  return 0;
}
