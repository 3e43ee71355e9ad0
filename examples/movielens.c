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

enum { W, UC, IC, UIC, ICH, UICH, V1, V2IC, V2UIC, N_STATES };
static const char *const state_names[N_STATES] = {"W", "UC", "IC", "UIC", "IC+H", "UIC+H", "V1", "V2IC", "V2UIC"};
static const char *const state_files[N_STATES] = {"warm_state", "user_cold_state", "item_cold_state",
                                                  "user_and_item_cold_state", "item_cold_state",
                                                  "user_and_item_cold_state"};
/* +H: what else a user of the state rated. */
static const char *const history_files[N_STATES] = {[ICH] = "warm_state", [UICH] = "user_cold_state"};

enum { N_SUPPORTS = 7, ALL = N_SUPPORTS - 1 };
static const size_t supports[N_SUPPORTS] = {MELU_NONE, 1, 3, 5, 10, 20, 0}; /* as melu_evaluate has it: 0 is all */
static const char *const support_names[N_SUPPORTS] = {"0", "1", "3", "5", "10", "20", "all"};

enum { PRESET, BIAS, N_METHODS };
enum { N_QUERY = 10, MIN_RATINGS = 13, MAX_RATINGS = 100, MAX_SPLITS = 20, MAX_WARM_SPLITS = 5, MOST_HISTORY = 200 };
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
                        .preset = "best",
                        .variant = "B",
                        .states = "W,UC,IC,UIC"};
  const struct option options[] = {
      {"--preset", "NAME", "kind of model", NULL, 0, 0, &c->preset},
      {"--splits", "N", "how often each user's ratings are split", &c->n_splits, 1, MAX_SPLITS, NULL},
      {"--seed", "N", "seed of parameters and draws", &c->seed, 0, UINT64_MAX, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &c->n_threads, 1, 256, NULL},
      {"--epochs", "N", "passes over the users; 0: the preset's", &c->n_epochs, 0, 1000, NULL},
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

static melu_dataset *read_state(const melu_context *ctx, const melu_schema *schema, const char *dir,
                                const char *state) {
  melu_dataset *data;
  must(melu_dataset_new(&data, ctx, schema, &err), &err);
  must(melu_dataset_read_melu(data, dir, state, &err), &err);
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

/* Which ratings of a data set a part of it has: the k-th of user u, of this item. */
struct part {
  const melu_dataset *data;
  int (*has)(const struct part *part, uint32_t user, size_t k, uint32_t item);
  uint64_t split;
  int capped;
  uint32_t order_user; /* whose `asked` it is */
  int asked[MAX_RATINGS];
};

/* Returns a new data set with the same users and items and that part of the ratings. */
static melu_dataset *take_part(const melu_context *ctx, struct part *part) {
  melu_dataset *rest;
  const melu_dataset *data = part->data;
  must(melu_dataset_new(&rest, ctx, melu_dataset_schema(data), &err), &err);
  copy_entities(rest, data);
  part->order_user = UINT32_MAX;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
    for (size_t k = 0; k < n; k++) {
      if (!part->has(part, u, k, items[k])) continue;
      must(melu_dataset_add_rating(rest, melu_dataset_user_id(data, u), melu_dataset_item_id(data, items[k]),
                                   ratings[k], &err),
           &err);
    }
  }
  must(melu_dataset_freeze(rest, &err), &err);
  return rest;
}

/* W: without the ratings that the split asks for. In variant A the users who are outside 13 to 100 ratings, queries
 * included, have none. */
static int is_not_asked(const struct part *const_part, uint32_t user, size_t k, uint32_t item) {
  struct part *part = (struct part *)const_part;
  const size_t n = melu_dataset_ratings(part->data, user, NULL, NULL);
  const int evaluated = n >= MIN_RATINGS && n <= MAX_RATINGS;
  (void)item;
  if (!evaluated) return !part->capped;
  if (part->order_user != user) {
    uint32_t order[MAX_RATINGS];
    memset(part->asked, 0, sizeof part->asked);
    must(melu_split_order(order, melu_dataset_user_id(part->data, user), part->split, n, &err), &err);
    for (size_t i = n - N_QUERY; i < n; i++) part->asked[order[i]] = 1;
    part->order_user = user;
  }
  return !part->asked[k];
}

/* Settings are chosen without a look at the cold states: a fifth of the warm users (V1) and films from 1996 on (V2) act
 * as new ones. */
static uint64_t mix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static int is_v1(const struct part *part, uint32_t user) {
  return mix64(melu_dataset_user_id(part->data, user) ^ (uint64_t)0x5641 << 48) % 5 == 0;
}

static int is_recent(const struct part *part, uint32_t item) {
  enum { MOST_FIELDS = 8 };
  const melu_schema *schema = melu_dataset_schema(part->data);
  struct melu_value values[MOST_FIELDS];
  struct melu_field field = {.size = sizeof field};
  const size_t n = melu_schema_n_fields(schema, MELU_ITEM);
  must(melu_dataset_item_values(values, part->data, item, &err), &err);
  for (size_t i = 0; i < n; i++) {
    must(melu_schema_field(&field, schema, MELU_ITEM, i, &err), &err);
    if (strcmp(field.name, "year") == 0) return values[i].n_numbers && values[i].numbers[0] >= 1996;
  }
  give_up("V2 needs the films' years");
  return 0;
}

static int is_v1_user(const struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k, (void)item;
  return is_v1(part, user);
}

static int is_other_user(const struct part *part, uint32_t user, size_t k, uint32_t item) {
  return !is_v1_user(part, user, k, item);
}

static int is_v2_training(const struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return !is_v1(part, user) && !is_recent(part, item);
}

static int is_v2_known(const struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return !is_v1(part, user) && is_recent(part, item);
}

static int is_v2_unknown(const struct part *part, uint32_t user, size_t k, uint32_t item) {
  (void)k;
  return is_v1(part, user) && is_recent(part, item);
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

static void evaluate(const struct trained *t, const melu_dataset *data, const melu_dataset *history, int state,
                     uint64_t split) {
  const uint64_t first = state >= V1 ? 100 : 0; /* splits below are for reports */
  for (size_t k = 0; k < N_SUPPORTS; k++) {
    const struct melu_evaluate_options options = {.size = sizeof options,
                                                  .split = first + split,
                                                  .max_support = supports[k],
                                                  .history = history,
                                                  .max_history = MOST_HISTORY};
    const size_t most = supports[k] == MELU_NONE ? 0 : supports[k] == 0 ? MELU_NONE : supports[k];
    must(melu_evaluate(&results[PRESET][state][k][split], t->model, data, &options, &err), &err);
    judge(&results[BIAS][state][k][split], bias_predict, &t->bias, data, first + split, most, rating_min, rating_max);
  }
}

static int any_wanted(const struct choices *c, int first, int last) {
  for (int state = first; state <= last; state++)
    if (c->wanted[state]) return 1;
  return 0;
}

/* One training serves all splits of the cold states. */
static void run_cold(const melu_context *ctx, const struct choices *c, const melu_schema *schema,
                     const melu_dataset *warm) {
  const int capped = strcmp(c->variant, "A") == 0;
  struct trained t;
  train(&t, ctx, c, warm, capped ? MIN_RATINGS : 1, capped ? MAX_RATINGS : MELU_NONE);
  for (int state = UC; state <= UICH; state++) {
    if (!c->wanted[state]) continue;
    melu_dataset *cold = read_state(ctx, schema, c->dir, state_files[state]), *history = NULL;
    if (history_files[state]) history = read_state(ctx, schema, c->dir, history_files[state]);
    for (uint64_t split = 0; split < c->n_splits; split++) evaluate(&t, cold, history, state, split);
    melu_dataset_free(history);
    melu_dataset_free(cold);
  }
  release(&t);
}

/* W is trained anew for each split. */
static void run_warm(const melu_context *ctx, const struct choices *c, const melu_dataset *warm) {
  for (uint64_t split = 0; split < c->n_splits && split < MAX_WARM_SPLITS; split++) {
    struct part part = {
        .data = warm, .has = is_not_asked, .split = split, .capped = strcmp(c->variant, "A") == 0};
    melu_dataset *rest = take_part(ctx, &part);
    struct trained t;
    train(&t, ctx, c, rest, 1, MELU_NONE); /* who may take part was settled before the queries went */
    evaluate(&t, warm, NULL, W, split);
    release(&t);
    melu_dataset_free(rest);
  }
}

typedef int has_fn(const struct part *part, uint32_t user, size_t k, uint32_t item);

static void run_validation(const melu_context *ctx, const struct choices *c, const melu_dataset *warm,
                           has_fn *training, int first, int last, has_fn *const *asked) {
  struct part part = {.data = warm, .has = training};
  melu_dataset *rest = take_part(ctx, &part);
  struct trained t;
  train(&t, ctx, c, rest, 1, MELU_NONE);
  for (int state = first; state <= last; state++) {
    if (!c->wanted[state]) continue;
    part.has = asked[state - first];
    melu_dataset *new_ones = take_part(ctx, &part);
    for (uint64_t split = 0; split < c->n_splits; split++) evaluate(&t, new_ones, NULL, state, split);
    melu_dataset_free(new_ones);
  }
  release(&t);
  melu_dataset_free(rest);
}

static void run(const melu_context *ctx, const struct choices *c, const melu_schema *schema) {
  static has_fn *const v1[] = {is_v1_user}, *const v2[] = {is_v2_known, is_v2_unknown};
  melu_dataset *warm = read_state(ctx, schema, c->dir, state_files[W]);
  if (any_wanted(c, UC, UICH)) run_cold(ctx, c, schema, warm);
  if (c->wanted[W]) run_warm(ctx, c, warm);
  if (c->wanted[V1]) run_validation(ctx, c, warm, is_other_user, V1, V1, v1);
  if (any_wanted(c, V2IC, V2UIC)) run_validation(ctx, c, warm, is_v2_training, V2IC, V2UIC, v2);
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
  must((strcmp(c.preset, "melu") == 0 ? melu_schema_add_melu : melu_schema_add_melu_items)(schema, c.dir, &err), &err);
  run(ctx, &c, schema);
  const char *const methods[N_METHODS] = {c.preset, "bias"};
  print_table(&c, methods);
  if (c.csv) write_csv(&c, methods);
  melu_schema_free(schema);
  melu_context_free(ctx);
  return 0;
}
