/* SPDX-License-Identifier: BSD-3-Clause */
/* PyTorch's numbers (tests/oracle, made by oracle.py in float64) against ours: losses, fast weights after each inner
 * step, predictions, meta-gradients of first and second order, two Adam updates. Once by the recorded inner loop in
 * both of its forms, once by the path that a host takes; with every kernel set that this CPU can run. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "data/batch.h"
#include "meta/task.h"
#include "model/embed.h"
#include "model/gradient.h"
#include "run_suite.h"

enum { MAX_FIELDS = 8, MAX_TASKS = 4, MAX_ROWS = 64, MAX_IDS = 8, MAX_TENSORS = 512 };

/* The oracle's tensors have no row for unknown ids; ours comes last, and nothing here uses it. */
struct tensor {
  char name[48];
  size_t n;
  double *v;
};

struct problem {
  char name[48];
  double lr;
  size_t n_tasks, n_support[MAX_TASKS], n_query[MAX_TASKS], n_steps, n_tensors;
  struct tensor tensors[MAX_TENSORS];
  melu_context *ctx;
  melu_dataset *data;
  melu_batch *batch;
  melu_model *model, *first_order;
};

static melu_error err;
static const char *kernels_of[8];

#define TRY(call)                                                                        \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

/* ------------------------------------------------------------------------------------------------- reading */

static double number(FILE *f) {
  double x;
  ck_assert_int_eq(fscanf(f, "%lf", &x), 1);
  return x;
}

static size_t count(FILE *f) {
  return (size_t)number(f);
}

static void skip(FILE *f, const char *word) {
  char got[64];
  ck_assert_int_eq(fscanf(f, "%63s", got), 1);
  ck_assert_str_eq(got, word);
}

/* The values of one user or item: for each of its fields, a list of ids. */
static void read_values(FILE *f, size_t n_fields, struct melu_value *values, uint32_t ids[MAX_FIELDS][MAX_IDS]) {
  for (size_t i = 0; i < n_fields; i++) {
    values[i] = (struct melu_value){.ids = ids[i], .n_ids = count(f)};
    ck_assert_uint_le(values[i].n_ids, MAX_IDS);
    for (size_t k = 0; k < values[i].n_ids; k++) ids[i][k] = (uint32_t)count(f);
  }
}

/* Each row of a task is an item of its own, so that positions are rows: the support set, then the query set. */
static void read_task(struct problem *p, FILE *f, size_t t, const size_t n_fields[2], uint64_t *next_item) {
  struct melu_value values[MAX_FIELDS];
  uint32_t ids[MAX_FIELDS][MAX_IDS];
  skip(f, "task");
  p->n_support[t] = count(f);
  p->n_query[t] = count(f);
  const size_t n = p->n_support[t] + p->n_query[t];
  ck_assert_uint_le(n, MAX_ROWS);
  read_values(f, n_fields[MELU_USER], values, ids);
  TRY(melu_dataset_add_user(p->data, t, values, NULL, &err));
  for (size_t i = 0; i < n; i++) {
    read_values(f, n_fields[MELU_ITEM], values, ids);
    TRY(melu_dataset_add_item(p->data, *next_item + i, values, NULL, &err));
  }
  for (size_t i = 0; i < n; i++) TRY(melu_dataset_add_rating(p->data, t, (*next_item)++, (float)number(f), &err));
}

static void read_tensors(struct problem *p, FILE *f) {
  char word[48];
  while (fscanf(f, "%47s", word) == 1 && strcmp(word, "end") != 0) {
    ck_assert_uint_lt(p->n_tensors, MAX_TENSORS);
    struct tensor *t = &p->tensors[p->n_tensors++];
    ck_assert_int_eq(fscanf(f, "%47s", t->name), 1);
    t->n = 1;
    for (size_t d = count(f); d > 0; d--) t->n *= count(f);
    t->v = malloc((t->n + 1) * sizeof *t->v);
    ck_assert_ptr_nonnull(t->v);
    for (size_t i = 0; i < t->n; i++) t->v[i] = number(f);
  }
}

static const struct tensor *find(const struct problem *p, const char *name) {
  for (size_t i = 0; i < p->n_tensors; i++)
    if (strcmp(p->tensors[i].name, name) == 0) return &p->tensors[i];
  return NULL;
}

static void set_params(const struct problem *p, melu_model *model) {
  for (size_t i = 0; i < model->n_params; i++) {
    char name[80];
    snprintf(name, sizeof name, "p/%s", model->params[i].name);
    const struct tensor *t = find(p, name);
    ck_assert_msg(t != NULL, "%s is missing", name);
    for (size_t k = 0; k < t->n; k++) model->params[i].data[k] = (real)t->v[k];
  }
}

static struct problem *open_problem(const char *name, const char *kernels) {
  const struct melu_context_options with = {.size = sizeof with, .kernels = kernels};
  char path[512], word[64];
  size_t emb, hidden[MELU__MAX_HIDDEN], n_hidden, n_fields[2] = {0, 0};
  uint64_t next_item = 0;
  melu_schema *schema;
  struct problem *p = calloc(1, sizeof *p);
  ck_assert_ptr_nonnull(p);
  snprintf(path, sizeof path, "%s/%s.txt", ORACLE_DIR, name);
  FILE *f = fopen(path, "r");
  ck_assert_msg(f != NULL, "cannot open %s", path);
  TRY(melu_context_new(&p->ctx, &with, &err));
  TRY(melu_schema_new(&schema, p->ctx, &err));
  ck_assert_int_eq(fscanf(f, "case %47s", p->name), 1);
  skip(f, "emb");
  emb = count(f);
  skip(f, "nhidden");
  n_hidden = count(f);
  for (size_t l = 0; l < n_hidden; l++) hidden[l] = count(f);
  skip(f, "K");
  p->n_steps = count(f);
  skip(f, "lr");
  p->lr = number(f);
  skip(f, "nfields");
  for (size_t i = count(f); i > 0; i--) {
    ck_assert_int_eq(fscanf(f, "%63s", word), 1);
    struct melu_field field = {.size = sizeof field, .name = word, .width = emb};
    field.owner = count(f) ? MELU_USER : MELU_ITEM;
    field.kind = count(f) ? MELU_MANY : MELU_ONE;
    field.n_values = count(f);
    n_fields[field.owner]++;
    TRY(melu_schema_add(schema, &field, &err));
  }
  TRY(melu_dataset_new(&p->data, p->ctx, schema, &err));
  skip(f, "ntasks");
  p->n_tasks = count(f);
  ck_assert_uint_le(p->n_tasks, MAX_TASKS);
  for (size_t t = 0; t < p->n_tasks; t++) read_task(p, f, t, n_fields, &next_item);
  TRY(melu_dataset_freeze(p->data, &err));
  read_tensors(p, f);
  fclose(f);

  struct melu_model_options options = {.size = sizeof options,
                                       .hidden = hidden,
                                       .n_hidden = n_hidden,
                                       .inner_steps = p->n_steps ? p->n_steps : MELU_NONE,
                                       .inner_lr = p->lr};
  TRY(melu_model_new(&p->model, p->ctx, schema, &options, &err));
  options.first_order = 1;
  TRY(melu_model_new(&p->first_order, p->ctx, schema, &options, &err));
  set_params(p, p->model);
  set_params(p, p->first_order);
  TRY(melu_batch_new(&p->batch, p->ctx, p->data, &err));
  uint32_t positions[MAX_ROWS];
  for (uint32_t i = 0; i < MAX_ROWS; i++) positions[i] = i;
  for (size_t t = 0; t < p->n_tasks; t++)
    TRY(melu_batch_add(p->batch, (uint32_t)t, positions, p->n_support[t], positions + p->n_support[t], p->n_query[t],
                       &err));
  melu_schema_free(schema);
  return p;
}

static void close_problem(struct problem *p) {
  for (size_t i = 0; i < p->n_tensors; i++) free(p->tensors[i].v);
  melu_batch_free(p->batch);
  melu_model_free(p->first_order);
  melu_model_free(p->model);
  melu_dataset_free(p->data);
  melu_context_free(p->ctx);
  free(p);
}

/* ----------------------------------------------------------------------------------------------- comparing */

static double tolerance(const struct problem *p) {
  if (sizeof(real) == sizeof(double)) return 1e-10;
  return strcmp(p->name, "big_lr") == 0 ? 5e-5 : 1e-5;
}

static double largest_of(const struct tensor *t) {
  double largest = 0;
  for (size_t i = 0; i < t->n; i++) largest = fmax(largest, fabs(t->v[i]));
  return largest;
}

/* By how much `step` of Adam's, each of them about 1e-3 g / (|g| + 1e-8), may be off in entry i, if the gradient is, by
 * a tenth of the tolerance: a gradient below that has no certain sign. "adam1/NAME", "adam2/NAME"; others: 0. */
static double adam_slack(const struct problem *p, const char *name, size_t i) {
  if (strncmp(name, "adam", 4) != 0) return 0;
  char of[96];
  snprintf(of, sizeof of, "g2/%s", name + 6);
  const struct tensor *t = find(p, of);
  const double g = t->v[i], off = tolerance(p) / 10 * largest_of(t), lr = 1e-3, eps = 1e-8;
  const double above = (g + off) / (fabs(g + off) + eps), below = (g - off) / (fabs(g - off) + eps);
  return (name[4] - '0') * lr * (above - below);
}

/* The worst error relative to the largest entry of the tensor; absolute if that is 0. Checked against the tolerance. */
static double compare(const struct problem *p, const char *name, const double *got) {
  const struct tensor *t = find(p, name);
  double worst = 0;
  ck_assert_msg(t != NULL, "%s is missing", name);
  const double largest = largest_of(t);
  for (size_t i = 0; i < t->n; i++) {
    const double e = fabs(got[i] - t->v[i]) - adam_slack(p, name, i);
    if (!(e <= worst)) worst = e; /* NaN included */
  }
  if (largest > 0) worst /= largest;
  ck_assert_msg(worst <= tolerance(p), "%s, %s: relative error %.2e", p->name, name, worst);
  return worst;
}

static double compare_reals(const struct problem *p, const char *name, const real *got, size_t n) {
  double copy[MAX_ROWS * 512];
  ck_assert_uint_le(n, sizeof copy / sizeof *copy);
  for (size_t i = 0; i < n; i++) copy[i] = (double)got[i];
  return compare(p, name, copy);
}

/* --------------------------------------------------------------------------------- level 1: the inner loop */

/* Everything of one task, recorded: losses, fast weights after each step, predictions. */
enum { SLOT_PRED0 = MELU__N_SLOTS, SLOT_PRED, SLOT_LOSSES, SLOT_FAST = SLOT_LOSSES + 8, N_STEP_SLOTS = 20 };

static double compare_fast(const struct problem *p, size_t t, size_t step, const struct melu__mat *fast) {
  double worst = 0;
  for (size_t i = 2 * p->model->n_layers; i-- > 0;) {
    const struct melu__param *param = &p->model->params[p->model->n_tables + i];
    real packed[MAX_ROWS * 512];
    char name[96];
    snprintf(name, sizeof name, "t%zu/fast%zu/%s", t, step, param->name);
    if (!find(p, name)) continue; /* the large problem has the last step only */
    for (size_t r = 0; r < param->rows; r++)
      for (size_t c = 0; c < param->cols; c++) {
        const size_t split = p->model->item_width; /* W1 is in two halves */
        const struct melu__mat m = i > 0 ? fast[i + 1] : c < split ? fast[0] : fast[1];
        packed[r * param->cols + c] = m.p[r * m.ld + (i > 0 || c < split ? c : c - split)];
      }
    worst = fmax(worst, compare_reals(p, name, packed, param->rows * param->cols));
  }
  return worst;
}

static double check_task(const struct problem *p, size_t t, enum melu__form form) {
  const melu_model *model = p->model;
  const size_t n_s = p->n_support[t], n_q = p->n_query[t], n_w = 2 * model->n_layers + 1;
  struct melu__tape tape;
  struct melu__inner in;
  struct melu__output outputs[3 + 8 + 8 * MELU__MAX_WEIGHTS];
  size_t n = 0;
  melu__tape_init(&tape, &p->ctx->allocator);
  melu__inner_begin(&in, &tape, model, form, n_s);
  const melu__ref xq = melu__tape_input(&tape, MELU__SLOT_XQ, n_q, model->item_width);
  const melu__ref yq = melu__tape_input(&tape, MELU__SLOT_YQ, n_q, 1);
  outputs[n++] = (struct melu__output){melu__inner_predict(&in, xq, n_q), SLOT_PRED0, 0, 0};
  for (uint32_t k = 0; k < p->n_steps; k++) {
    outputs[n++] = (struct melu__output){melu__inner_step(&in), SLOT_LOSSES + k, 0, 0};
    const struct melu__weights w = melu__inner_weights(&in);
    for (uint32_t i = 0; i < n_w; i++)
      outputs[n++] = (struct melu__output){w.at[i], SLOT_FAST + k * N_STEP_SLOTS + i, 0, 0};
  }
  const melu__ref pred = melu__inner_predict(&in, xq, n_q);
  outputs[n++] = (struct melu__output){pred, SLOT_PRED, 0, 0};
  outputs[n++] = (struct melu__output){melu__squared_error(&tape, pred, yq, n_q), MELU__SLOT_LOSS, 0, 0};
  struct melu__plan *plan;
  TRY(melu__tape_status(&tape, &err));
  size_t ld[SLOT_FAST + 8 * N_STEP_SLOTS] = {0};
  struct melu__slot_layout layout;
  melu__slot_layout(&layout, model, MELU__PLAN_ADAPT);
  memcpy(ld, layout.ld, MELU__SLOT_GRADS * sizeof *ld);
  const struct melu__plan_setting setting = {&p->ctx->allocator, p->ctx->kernels, ld, NULL, 0, 1};
  TRY(melu__plan_new(&plan, &setting, &tape, outputs, n, &err));

  /* Inputs, and room for every output. */
  real *slots[SLOT_FAST + 8 * N_STEP_SLOTS];
  struct melu__mat fast_views[8 * N_STEP_SLOTS];
  struct melu__scratch scratch = {0};
  real *data[2 * (MELU__MAX_HIDDEN + 1)], losses[8], pred0[MAX_ROWS], pred_k[MAX_ROWS], query_loss;
  ck_assert(melu__scratch_reserve(&scratch, model, melu__plan_arena_size(plan), n_s, n_q));
  melu__scratch_slots(&scratch, slots);
  for (size_t i = 0; i < 2 * model->n_layers; i++) data[i] = model->params[model->n_tables + i].data;
  melu__weight_slots(slots + MELU__SLOT_WEIGHTS, model, data);
  const uint32_t *items;
  const float *ratings;
  melu_dataset_ratings(p->data, (uint32_t)t, &items, &ratings);
  melu__embed(model, p->data, MELU_USER, (uint32_t)t, scratch.xu);
  for (size_t i = 0; i < n_s + n_q; i++) {
    real *x = i < n_s ? scratch.xs + i * model->item_width : scratch.xq + (i - n_s) * model->item_width;
    melu__embed(model, p->data, MELU_ITEM, items[i], x);
    *(i < n_s ? scratch.ys + i : scratch.yq + i - n_s) = ratings[i];
  }
  real *fast = calloc(p->n_steps * n_w + 1, 64 * 256 * sizeof *fast), *at = fast;
  ck_assert_ptr_nonnull(fast);
  for (size_t k = 0; k < p->n_steps; k++) {
    slots[SLOT_LOSSES + k] = &losses[k];
    for (size_t i = 0; i < n_w; i++, at += 64 * 256) {
      size_t rows, cols;
      melu__weight_shape(model, i, &rows, &cols);
      slots[SLOT_FAST + k * N_STEP_SLOTS + i] = at;
      fast_views[k * N_STEP_SLOTS + i] = (struct melu__mat){at, cols};
    }
  }
  slots[SLOT_PRED0] = pred0;
  slots[SLOT_PRED] = pred_k;
  slots[MELU__SLOT_LOSS] = &query_loss;
  melu__plan_run(plan, slots, NULL, scratch.arena);

  char name[96];
  double worst = 0;
#define SAME(what, values, n)                                   \
  do {                                                          \
    snprintf(name, sizeof name, "t%zu/" what, t);               \
    worst = fmax(worst, compare_reals(p, name, (values), (n))); \
  } while (0)
  if (p->n_steps) SAME("support_loss", losses, p->n_steps);
  SAME("pred0", pred0, n_q);
  SAME("pred", pred_k, n_q);
  SAME("query_loss", &query_loss, 1);
  for (size_t k = 0; k < p->n_steps; k++) worst = fmax(worst, compare_fast(p, t, k + 1, fast_views + k * N_STEP_SLOTS));
  free(fast);
  melu__scratch_free(&scratch, model);
  melu__plan_free(plan);
  melu__tape_free(&tape);
  return worst;
}

/* -------------------------------------------------------------------------------- level 2: as a host does */

static double compare_gradient(const struct problem *p, const char *prefix, const melu_gradient *g,
                               const melu_model *model) {
  double worst = 0;
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *param = &model->params[i];
    char name[96];
    snprintf(name, sizeof name, "%s/%s", prefix, param->name);
    const struct tensor *t = find(p, name);
    ck_assert_msg(t != NULL, "%s is missing", name);
    double *got = calloc(t->n + 1, sizeof *got);
    ck_assert_ptr_nonnull(got);
    for (size_t k = 0; k < t->n; k++) {
      const struct melu__table_grad *r = &g->tables[i];
      if (!param->is_table)
        got[k] = (double)g->dense[melu__dense_offset(model, i) + k];
      else if (r->place[k / param->cols])
        got[k] = (double)melu__table_grad_row(r, (uint32_t)(k / param->cols))[k % param->cols];
    }
    worst = fmax(worst, compare(p, name, got));
    free(got);
  }
  return worst;
}

static double compare_params(const struct problem *p, const char *prefix, const melu_model *model) {
  double worst = 0;
  for (size_t i = 0; i < model->n_params; i++) {
    char name[96];
    snprintf(name, sizeof name, "%s/%s", prefix, model->params[i].name);
    const struct tensor *t = find(p, name);
    ck_assert_msg(t != NULL, "%s is missing", name);
    worst = fmax(worst, compare_reals(p, name, model->params[i].data, t->n));
  }
  return worst;
}

/* A shortcut that took the inner gradients for constants would be noticed. */
static void check_orders_differ(const struct problem *p) {
  double difference = 0;
  for (size_t i = 0; i < p->n_tensors; i++) {
    char name[96];
    if (strncmp(p->tensors[i].name, "g2/", 3) != 0) continue;
    snprintf(name, sizeof name, "g1/%s", p->tensors[i].name + 3);
    const struct tensor *first = find(p, name);
    for (size_t k = 0; k < first->n; k++) difference = fmax(difference, fabs(first->v[k] - p->tensors[i].v[k]));
  }
  ck_assert_msg((difference > 1e-3) == (p->n_steps > 0), "%s: orders differ by %g", p->name, difference);
}

static const char *const names[] = {"tiny_k1",     "multi_k2",  "full_k5",    "support1",     "dead_relu",
                                    "all_dead",    "k0",        "one_hidden", "three_hidden", "big_lr",
                                    "repeat_rows", "odd_sizes", "paper_size"};
enum { N_NAMES = sizeof names / sizeof *names };

/* Each with each kernel set of this CPU, one set after another. */
static struct problem *open_turn(int i) {
  const char *set = kernels_of[i / N_NAMES];
  printf("%-7s ", set);
  return open_problem(names[i % N_NAMES], set);
}

START_TEST(inner_loop_is_pytorch) {
  struct problem *p = open_turn(_i);
  double worst[2] = {0, 0};
  for (size_t t = 0; t < p->n_tasks; t++) {
    worst[MELU__DIRECT] = fmax(worst[MELU__DIRECT], check_task(p, t, MELU__DIRECT));
    worst[MELU__DUAL] = fmax(worst[MELU__DUAL], check_task(p, t, MELU__DUAL));
  }
  printf("%-12s losses, fast weights, predictions: direct %.1e, dual %.1e\n", p->name, worst[MELU__DIRECT],
         worst[MELU__DUAL]);
  close_problem(p);
}
END_TEST

START_TEST(outer_loop_is_pytorch) {
  struct problem *p = open_turn(_i);
  melu_gradient *g, *g1;
  melu_optimizer *optimizer;
  double adam[2];
  if (strcmp(p->name, "tiny_k1") != 0 && strcmp(p->name, "all_dead") != 0) check_orders_differ(p);
  TRY(melu_gradient_new(&g, p->model, &err));
  TRY(melu_gradient_new(&g1, p->first_order, &err));
  TRY(melu_optimizer_new(&optimizer, p->model, NULL, &err));
  TRY(melu_meta_gradient(g1, p->first_order, p->batch, &err));
  TRY(melu_meta_gradient(g, p->model, p->batch, &err));
  const double loss = melu_gradient_loss(g, NULL), loss_error = compare(p, "meta_loss", &loss);
  const double second = compare_gradient(p, "g2", g, p->model), first = compare_gradient(p, "g1", g1, p->first_order);
  for (int step = 0; step < 2; step++) {
    if (step) TRY(melu_meta_gradient(g, p->model, p->batch, &err));
    TRY(melu_optimizer_step(optimizer, p->model, g, &err));
    adam[step] = compare_params(p, step ? "adam2" : "adam1", p->model);
  }
  printf("%-12s meta-loss %.1e, second order %.1e, first order %.1e, Adam %.1e %.1e\n", p->name, loss_error, second,
         first, adam[0], adam[1]);
  melu_optimizer_free(optimizer);
  melu_gradient_free(g1);
  melu_gradient_free(g);
  close_problem(p);
}
END_TEST

int main(void) {
  int n = 0;
  for (int i = 0; melu__kernel_sets[i]; i++)
    if (melu__kernels_usable(melu__kernel_sets[i])) kernels_of[n++] = melu__kernel_sets[i]->name;
  n *= N_NAMES;
  Suite *s = suite_create(sizeof(real) == sizeof(double) ? "oracle, double" : "oracle, float");
  TCase *t = tcase_create("pytorch");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, inner_loop_is_pytorch, 0, n);
  tcase_add_loop_test(t, outer_loop_is_pytorch, 0, n);
  suite_add_tcase(s, t);
  return run_suite(s);
}
