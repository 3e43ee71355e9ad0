/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quickstart - from a table of answers to predictions for somebody who was never seen.
 *
 * 2,800 people said of 25 statements about themselves how accurate they are, from 1 to 6. A fifth of the people are
 * held out. The model is meta-trained on the others, and then has to guess ten answers of each stranger after having
 * seen none, one, three, ... of the remaining ones. Beside it stand the plain models that could do the same.
 *
 *     cc quickstart.c common/[a-z]*.c $(pkg-config --cflags --libs melu) -lm
 */
#include <melu.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/args.h"
#include "common/baselines.h"
#include "common/bfi.h"
#include "common/svg.h"

#ifndef EXAMPLE_DATA_DIR
#define EXAMPLE_DATA_DIR "data"
#endif

/* A failure fills it with the details; see must(). */
static melu_error err;

/* ----------------------------------------------------------------------------------------------- training */

/* The mean query loss of each epoch, as the progress callback last heard of it. */
enum { MAX_EPOCHS = 1000 };
struct learning_curve {
  uint64_t n_epochs;
  double loss[MAX_EPOCHS];
};

static int on_progress(void *arg, const struct melu_progress *progress) {
  struct learning_curve *curve = arg;
  if (progress->epoch > 0 && progress->epoch <= MAX_EPOCHS) {
    curve->n_epochs = progress->epoch;
    curve->loss[progress->epoch - 1] = progress->loss;
  }
  return show_progress(NULL, progress); /* 0: go on */
}

static void train(melu_model *model, const melu_dataset *people, uint64_t n_epochs, uint64_t seed) {
  const struct melu_fit_options options = {.size = sizeof options, .n_epochs = n_epochs, .seed = seed};
  must(melu_fit(model, people, &options, &err), &err);
}

static void print_learning_curve(const struct learning_curve *curve) {
  if (curve->n_epochs == 0) return;
  double low = curve->loss[0], high = low;
  for (uint64_t e = 1; e < curve->n_epochs; e++) {
    low = fmin(low, curve->loss[e]);
    high = fmax(high, curve->loss[e]);
  }
  printf("learning curve: mean squared error over the query sets of an epoch\n");
  const uint64_t step = (curve->n_epochs + 9) / 10;
  for (uint64_t e = 1; e <= curve->n_epochs; e++) {
    if (e != 1 && e % step != 0 && e != curve->n_epochs) continue;
    const double loss = curve->loss[e - 1], part = high > low ? (loss - low) / (high - low) : 0;
    printf("  epoch %4llu  %7.4f  |%*s\n", (unsigned long long)e, loss, 1 + (int)lround(40 * part), "*");
  }
  putchar('\n');
}

/* ------------------------------------------------------------------------------- the strangers, all of them */

enum { N_COUNTS = 6, N_METHODS = 4 };
static const size_t counts[N_COUNTS] = {0, 1, 3, 5, 10, 15};
static const char *const names[N_METHODS] = {"melu best", "item mean", "bias model", "Gaussian"};

/* What was measured on ten answers of each stranger, all methods being asked the same: mean absolute errors, and the
 * share of answers inside the model's 80 % interval. */
struct judgement {
  double mae[N_METHODS][N_COUNTS], inside[N_COUNTS];
  size_t n_strangers;
};

static void evaluate(struct judgement *j, const melu_context *ctx, const melu_model *model, const melu_dataset *people,
                     const melu_dataset *strangers) {
  struct bias bias;
  struct gaussian gaussian;
  bias_fit(&bias, people, 0);
  gaussian_fit(&gaussian, people);
  for (size_t c = 0; c < N_COUNTS; c++) {
    struct melu_metrics metrics[N_METHODS];
    const struct melu_evaluate_options options = {
        .size = sizeof options, .max_support = counts[c] ? counts[c] : MELU_NONE, .intervals = 1};
    must(melu_evaluate(&metrics[0], model, strangers, &options, &err), &err);
    judge(&metrics[1], ctx, item_mean_predict, &bias, strangers, 0, counts[c], BFI_MIN, BFI_MAX);
    judge(&metrics[2], ctx, bias_predict, &bias, strangers, 0, counts[c], BFI_MIN, BFI_MAX);
    judge(&metrics[3], ctx, gaussian_predict, &gaussian, strangers, 0, counts[c], BFI_MIN, BFI_MAX);
    for (size_t m = 0; m < N_METHODS; m++) j->mae[m][c] = metrics[m].mae;
    j->inside[c] = metrics[0].coverage;
    j->n_strangers = metrics[0].n_users;
  }
  bias_free(&bias);
}

static void print_row(const char *name, const double *values) {
  printf("  %-22s", name);
  for (size_t c = 0; c < N_COUNTS; c++) printf("%8.4f", values[c]);
  putchar('\n');
}

static void print_table(const struct judgement *j) {
  printf("mean absolute error on 10 answers of each of %zu strangers\n", j->n_strangers);
  printf("  %-22s", "answers seen before");
  for (size_t c = 0; c < N_COUNTS; c++) printf("%8zu", counts[c]);
  putchar('\n');
  for (size_t m = 0; m < N_METHODS; m++) print_row(names[m], j->mae[m]);
  double ratio[N_COUNTS];
  for (size_t c = 0; c < N_COUNTS; c++) ratio[c] = j->mae[0][c] / j->mae[1][c];
  print_row("best / item mean", ratio);
  print_row("inside 80 % interval", j->inside);
  putchar('\n');
}

static void draw(const char *path, const struct judgement *j) {
  double x[N_COUNTS];
  struct svg_line lines[N_METHODS];
  for (size_t c = 0; c < N_COUNTS; c++) x[c] = (double)counts[c];
  for (size_t m = 0; m < N_METHODS; m++) lines[m] = (struct svg_line){.name = names[m], .y = j->mae[m]};
  const struct svg_chart chart = {.title = "How well a stranger is known, answer by answer",
                                  .x_label = "answers seen",
                                  .y_label = "mean absolute error (less is better)",
                                  .x = x,
                                  .n_points = N_COUNTS,
                                  .lines = lines,
                                  .n_lines = N_METHODS};
  svg_write(path, &chart);
}

/* --------------------------------------------------------------------------------- one stranger, by herself */

/* The first woman who is held out and answered everything. */
static size_t find_stranger(const struct bfi_person *people, size_t n_people) {
  for (size_t p = 0; p < n_people; p++) {
    size_t n_answers = 0;
    for (size_t i = 0; i < BFI_STATEMENTS; i++) n_answers += people[p].answers[i] > 0;
    if (bfi_held_out(p + 1) && people[p].gender == 2 && n_answers == BFI_STATEMENTS) return p;
  }
  give_up("nobody held out has answered all statements");
}

/* Adapts the model to her first n answers, for n = 0, 1, 2, ..., and prints what it expects of five others: this is
 * what a host does for every new user. `data` describes the items; she need not be in it. */
static void show_stranger(const melu_model *model, const melu_dataset *data, const struct bfi_person *person,
                          uint64_t number) {
  enum { N_ASKED = 5, N_KNOWN = 10 };
  uint32_t order[BFI_STATEMENTS];
  float answers[BFI_STATEMENTS];
  must(melu_split_order(order, number, 0, BFI_STATEMENTS, &err), &err);
  for (size_t i = 0; i < BFI_STATEMENTS; i++) answers[i] = (float)person->answers[order[i]];
  const uint32_t *asked = order + BFI_STATEMENTS - N_ASKED;
  const float *truth = answers + BFI_STATEMENTS - N_ASKED;

  printf("a stranger: person %llu, a woman of %u; 1 is \"very inaccurate\", 6 \"very accurate\"\n",
         (unsigned long long)number, person->age);
  for (size_t i = 0; i < N_ASKED; i++) printf("  %c  %s\n", (int)('a' + i), bfi_statement(data, asked[i]));
  printf("\n  %-42s her%8s%6s%6s%6s%6s   error\n", "after her answers so far, and to", "a", "b", "c", "d", "e");

  melu_user *user;
  melu_workspace *workspace;
  struct bfi_profile profile;
  must(melu_user_new(&user, model, &err), &err);
  must(melu_workspace_new(&workspace, model, N_KNOWN, &err), &err);
  bfi_set_profile(&profile, person);
  for (size_t n = 0; n <= N_KNOWN; n++) {
    float guesses[N_ASKED];
    double error = 0;
    must(melu_adapt(user, workspace, model, data, profile.values, order, answers, n, &err), &err);
    must(melu_predict(guesses, workspace, model, user, data, asked, N_ASKED, &err), &err);
    if (n == 0) {
      printf("  %-42s    ", "(nothing)");
    } else {
      printf("  %-42.42s %3.0f", bfi_statement(data, order[n - 1]), (double)answers[n - 1]);
    }
    printf("  ");
    for (size_t i = 0; i < N_ASKED; i++) {
      const double guess = fmin(fmax((double)guesses[i], BFI_MIN), BFI_MAX);
      printf("%6.1f", guess);
      error += fabs(guess - (double)truth[i]) / N_ASKED;
    }
    printf("%8.2f\n", error);
  }
  printf("  %-42s      ", "what she says herself");
  for (size_t i = 0; i < N_ASKED; i++) printf("%6.0f", (double)truth[i]);
  printf("\n");
  melu_workspace_free(workspace);
  melu_user_free(user);
}

/* --------------------------------------------------------------------------------------------------- main */

struct choices {
  uint64_t seed, n_epochs, n_threads;
  const char *save, *load, *svg, *dir;
};

static void read_choices(struct choices *c, int argc, char **argv) {
  *c = (struct choices){.seed = 1, .n_threads = 2, .dir = EXAMPLE_DATA_DIR};
  const struct option options[] = {
      {"--seed", "N", "seed of parameters and draws", &c->seed, 0, UINT64_MAX, NULL},
      {"--epochs", "N", "passes over the people; 0: the preset's", &c->n_epochs, 0, MAX_EPOCHS, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &c->n_threads, 1, 256, NULL},
      {"--save", "FILE", "write the trained model", NULL, 0, 0, &c->save},
      {"--load", "FILE", "read a model instead of training one", NULL, 0, 0, &c->load},
      {"--svg", "FILE", "draw the errors against the number of answers", NULL, 0, 0, &c->svg},
  };
  const struct usage usage = {
      .program = "quickstart",
      .operand = "[DIR]",
      .about = "Meta-trains on four fifths of the people in DIR/bfi.csv and predicts the others' answers.",
      .options = options,
      .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &c->dir, argc, argv);
}

/* Returns a new model with random parameters, for data of that schema. */
static melu_model *new_model(const melu_context *ctx, const melu_schema *schema, uint64_t seed) {
  melu_model *model;
  const struct melu_model_options options = {
      .size = sizeof options, .preset = "best", .seed = seed, .rating_min = BFI_MIN, .rating_max = BFI_MAX};
  must(melu_model_new(&model, ctx, schema, &options, &err), &err);
  return model;
}

/* Returns a new model that this program saved. The schema comes with it, but it may be another program's. */
static melu_model *load_model(const melu_context *ctx, const char *path) {
  melu_model *model;
  must(melu_model_load(&model, ctx, path, &err), &err);
  melu_schema *ours = bfi_new_schema(ctx);
  const melu_schema *its = melu_model_schema(model);
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++) {
    const size_t n = melu_schema_n_fields(ours, (melu_owner)owner);
    if (melu_schema_n_fields(its, (melu_owner)owner) != n) give_up("%s: a model of other data", path);
    for (size_t i = 0; i < n; i++) {
      struct melu_field a = {.size = sizeof a}, b = {.size = sizeof b};
      must(melu_schema_field(&a, ours, (melu_owner)owner, i, &err), &err);
      must(melu_schema_field(&b, its, (melu_owner)owner, i, &err), &err);
      if (strcmp(a.name, b.name) != 0 || a.kind != b.kind) give_up("%s: a model of other data", path);
    }
  }
  melu_schema_free(ours);
  return model;
}

int main(int argc, char **argv) {
  struct choices choices;
  static struct learning_curve curve;
  read_choices(&choices, argc, argv);
  size_t n_people;
  struct bfi_person *table = bfi_read(&n_people, choices.dir);

  melu_context *ctx;
  const struct melu_context_options context = {
      .size = sizeof context, .n_threads = choices.n_threads, .progress = on_progress, .progress_arg = &curve};
  must(melu_context_new(&ctx, &context, &err), &err);

  melu_model *model = NULL;
  melu_schema *schema = NULL;
  if (choices.load) {
    model = load_model(ctx, choices.load);
  } else {
    schema = bfi_new_schema(ctx);
  }
  melu_dataset *people =
      bfi_new_dataset(ctx, model ? melu_model_schema(model) : schema, choices.dir, table, n_people, 0);
  melu_dataset *strangers = bfi_new_dataset(ctx, melu_dataset_schema(people), choices.dir, table, n_people, 1);
  printf("%s\n%zu people with %zu answers to learn from, %zu strangers\n\n", melu_build_info(ctx),
         melu_dataset_n_users(people), melu_dataset_n_ratings(people), melu_dataset_n_users(strangers));
  if (!model) {
    model = new_model(ctx, melu_dataset_schema(people), choices.seed);
    train(model, people, choices.n_epochs, choices.seed);
    print_learning_curve(&curve);
  }
  if (choices.save) must(melu_model_save(model, choices.save, &err), &err);

  struct judgement judgement;
  evaluate(&judgement, ctx, model, people, strangers);
  print_table(&judgement);
  if (choices.svg) draw(choices.svg, &judgement);
  const size_t her = find_stranger(table, n_people);
  show_stranger(model, strangers, &table[her], her + 1);

  melu_model_free(model);
  melu_dataset_free(strangers);
  melu_dataset_free(people);
  melu_schema_free(schema);
  melu_context_free(ctx);
  free(table);
  return 0;
}
