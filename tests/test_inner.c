/* SPDX-License-Identifier: BSD-3-Clause */
/* The inner loop as it is recorded: both of its forms agree in values and gradients and with differences; first order
 * is a FOMAML made by hand and second order is not; the edges (no support row, no step, no field of an owner); and the
 * plans that are made of it, also without memory. */
#include <stdio.h>

#include "meta/task.h"
#include "naive.h"
#include "run_suite.h"
#include "support.h"

static const double forms_tolerance = sizeof(real) == sizeof(float) ? 1e-5 : 1e-12; /* of a few steps */
static const double difference_tolerance = sizeof(real) == sizeof(float) ? 1e-4 : 1e-6;

/* Models, and tasks of them. No width is that of a vector register; two owners have no field. */
static const struct shape {
  size_t n_hidden, hidden[3], item_width, user_width, n_steps, n_support, n_query;
} shapes[] = {
    {2, {5, 4}, 6, 3, 3, 4, 5},  {1, {7}, 4, 2, 2, 5, 3},        {3, {4, 3, 5}, 5, 5, 4, 3, 1},
    {2, {6, 5}, 6, 0, 3, 7, 2},  {2, {6, 5}, 0, 6, 3, 4, 2},     {1, {1}, 1, 1, 1, 1, 1},
    {2, {9, 7}, 3, 2, 5, 21, 4}, {2, {17, 13}, 40, 24, 5, 6, 9}, {2, {5, 4}, 6, 3, 0, 4, 5},
    {2, {5, 4}, 6, 3, 3, 0, 5},  {2, {5, 4}, 6, 3, 3, 1, 1},     {1, {3}, 2, 2, 64, 2, 2},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct problem {
  const struct shape *shape;
  melu_context *ctx;
  melu_schema *schema;
  melu_model *second_order, *first_order, *without_steps;
  struct setting setting;
};

static melu_error err;

#define TRY(call)                                                                        \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

static void add_field(melu_schema *schema, const char *name, melu_owner owner, size_t width) {
  const struct melu_field field = {
      .size = sizeof field, .name = name, .owner = owner, .kind = MELU_NUMERIC, .width = width};
  if (width) TRY(melu_schema_add(schema, &field, &err));
}

static melu_model *new_model(const struct problem *p, size_t n_steps, int first_order) {
  melu_model *model;
  const struct melu_model_options options = {.size = sizeof options,
                                             .hidden = p->shape->hidden,
                                             .n_hidden = p->shape->n_hidden,
                                             .inner_steps = n_steps ? n_steps : MELU_NONE,
                                             .inner_lr = 0.05,
                                             .first_order = first_order};
  TRY(melu_model_new(&model, p->ctx, p->schema, &options, &err));
  return model;
}

/* Inputs of the sizes that a network has at the start, and weights that keep its values so. */
static void fill_setting(struct problem *p) {
  uint64_t random = (uint64_t)(p->shape - shapes) + 1;
  const struct shape *s = p->shape;
  struct matrix *slot = p->setting.slot;
  slot[MELU__SLOT_XS] = random_matrix(&random, s->n_support, s->item_width);
  slot[MELU__SLOT_XQ] = random_matrix(&random, s->n_query, s->item_width);
  slot[MELU__SLOT_XU] = random_matrix(&random, 1, s->user_width);
  slot[MELU__SLOT_YS] = random_matrix(&random, s->n_support, 1);
  slot[MELU__SLOT_YQ] = random_matrix(&random, s->n_query, 1);
  for (size_t i = 0; i < 2 * s->n_hidden + 3; i++) {
    size_t rows, cols;
    melu__weight_shape(p->second_order, i, &rows, &cols);
    const struct matrix w = slot[MELU__SLOT_WEIGHTS + i] = random_matrix(&random, rows, cols);
    const size_t inputs = i < 2 ? s->item_width + s->user_width : cols;
    for (size_t k = 0; k < rows * cols; k++) w.v[k] = (real)(w.v[k] * (rows == 1 ? 0.3 : 1 / sqrt((double)inputs)));
  }
}

static struct problem open_problem(size_t number, const struct melu_context_options *options) {
  struct problem p = {.shape = &shapes[number]};
  TRY(melu_context_new(&p.ctx, options, &err));
  TRY(melu_schema_new(&p.schema, p.ctx, &err));
  add_field(p.schema, "item", MELU_ITEM, p.shape->item_width);
  add_field(p.schema, "user", MELU_USER, p.shape->user_width);
  p.second_order = new_model(&p, p.shape->n_steps, 0);
  p.first_order = new_model(&p, p.shape->n_steps, 1);
  p.without_steps = new_model(&p, 0, 0);
  fill_setting(&p);
  return p;
}

static void close_problem(struct problem *p) {
  setting_free(&p->setting);
  melu_model_free(p->without_steps);
  melu_model_free(p->first_order);
  melu_model_free(p->second_order);
  melu_schema_free(p->schema);
  melu_context_free(p->ctx);
}

/* ------------------------------------------------------------------------------------------------ recording */

/* What a task computes: LOSS and PREDICTION of the query, USER_ROW, then the fast weights, then the gradients of the
 * loss by XS, XQ, XU and the weights. */
enum { LOSS, PREDICTION, USER_ROW, FAST, MAX_RESULTS = 3 + 2 * MELU__MAX_WEIGHTS + 3 };

struct task {
  struct melu__tape tape;
  size_t n_weights, n;
  melu__ref node[MAX_RESULTS];
  struct matrix result[MAX_RESULTS];
};

/* The first gradient's place among the results. */
static size_t grads(const struct task *t) {
  return FAST + t->n_weights;
}

static void record_task(struct task *t, const struct problem *p, const melu_model *model, enum melu__form form) {
  struct melu__inner in;
  const size_t n_query = p->shape->n_query;
  memset(t, 0, sizeof *t);
  melu__tape_init(&t->tape, &p->ctx->allocator);
  melu__inner_begin(&in, &t->tape, model, form, p->shape->n_support);
  const struct melu__weights initial = in.w;
  melu__inner_adapt(&in, NULL, NULL);
  const melu__ref xq = melu__tape_input(&t->tape, MELU__SLOT_XQ, n_query, model->item_width);
  const melu__ref yq = melu__tape_input(&t->tape, MELU__SLOT_YQ, n_query, 1);
  t->node[PREDICTION] = melu__inner_predict(&in, xq, n_query);
  t->node[LOSS] = melu__squared_error(&t->tape, t->node[PREDICTION], yq, n_query);
  t->node[USER_ROW] = melu__inner_user_row(&in);
  const struct melu__weights fast = melu__inner_weights(&in);
  melu__ref wrt[MELU__MAX_WEIGHTS + 3] = {in.xs, xq, in.xu};
  t->n_weights = initial.n;
  for (size_t i = 0; i < initial.n; i++) {
    t->node[FAST + i] = fast.at[i];
    wrt[3 + i] = initial.at[i];
  }
  melu__tape_grad(&t->tape, t->node[LOSS], wrt, 3 + initial.n, t->node + grads(t));
  t->n = grads(t) + 3 + initial.n;
  TRY(melu__tape_status(&t->tape, &err));
}

static void run_task(struct task *t, const struct problem *p, const melu_model *model, enum melu__form form) {
  record_task(t, p, model, form);
  plan_values(t->result, p->ctx->kernels, &t->tape, t->node, t->n, &p->setting);
}

static void free_task(struct task *t) {
  for (size_t i = 0; i < t->n; i++) free(t->result[i].v);
  melu__tape_free(&t->tape);
}

static void check_equal(struct matrix a, struct matrix b, const char *what, size_t i, double tolerance) {
  ck_assert_uint_eq(a.rows, b.rows);
  ck_assert_uint_eq(a.cols, b.cols);
  const double error = worst_error(a.v, b.v, size_of(a), 0);
  ck_assert_msg(error <= tolerance, "%s %zu: off by %g", what, i, error);
}

/* ---------------------------------------------------------------------------------------------------- tests */

START_TEST(forms_agree) {
  struct problem p = open_problem((size_t)_i, NULL);
  const double tolerance = p.shape->n_steps > 10 ? 5 * forms_tolerance : forms_tolerance; /* more to round */
  for (int first_order = 0; first_order < 2; first_order++) {
    const melu_model *model = first_order ? p.first_order : p.second_order;
    struct task direct, dual;
    run_task(&direct, &p, model, MELU__DIRECT);
    run_task(&dual, &p, model, MELU__DUAL);
    ck_assert_uint_eq(direct.n, dual.n);
    for (size_t i = 0; i < direct.n; i++)
      check_equal(dual.result[i], direct.result[i], first_order ? "first order, result" : "result", i, tolerance);
    free_task(&direct);
    free_task(&dual);
  }
  close_problem(&p);
}
END_TEST

static double query_loss(const struct task *t, const struct setting *s) {
  struct matrix *values = naive_run(&t->tape, (size_t)t->node[LOSS] + 1, s);
  const double loss = values[t->node[LOSS]].v[0];
  naive_free(values, (size_t)t->node[LOSS] + 1);
  return loss;
}

/* The gradient by every input and weight along a random direction. Steps are small, so that no ReLU is crossed. */
START_TEST(gradient_is_the_differences) {
  struct problem p = open_problem((size_t)_i, NULL);
  for (enum melu__form form = MELU__DIRECT; form <= MELU__DUAL; form++) {
    struct task t;
    run_task(&t, &p, p.second_order, form);
    for (size_t i = 0; i < 3 + t.n_weights; i++) {
      static const uint32_t inputs[] = {MELU__SLOT_XS, MELU__SLOT_XQ, MELU__SLOT_XU};
      const struct matrix g = t.result[grads(&t) + i];
      struct matrix *x = &p.setting.slot[i < 3 ? inputs[i] : MELU__SLOT_WEIGHTS + i - 3];
      const struct matrix at = *x;
      uint64_t random = i + 1;
      struct matrix moved = new_matrix(at.rows, at.cols), direction = random_matrix(&random, at.rows, at.cols);
      double f[2], expected = 0, size = 1e-2;
      for (size_t k = 0; k < size_of(at); k++) {
        expected += g.v[k] * direction.v[k];
        size += fabs(g.v[k] * direction.v[k]);
      }
      *x = moved;
      for (int side = 0; side < 2; side++) {
        for (size_t k = 0; k < size_of(at); k++) moved.v[k] = at.v[k] + (side ? 1e-6 : -1e-6) * direction.v[k];
        f[side] = query_loss(&t, &p.setting);
      }
      *x = at;
      const double error = test_relative_error((f[1] - f[0]) / 2e-6, expected, size);
      ck_assert_msg(error < difference_tolerance, "form %d, gradient %zu: off by %g", (int)form, i, error);
      free(moved.v);
      free(direction.v);
    }
    free_task(&t);
  }
  close_problem(&p);
}
END_TEST

/* FOMAML by hand: the fast weights are computed, then given as weights to a loop without steps. Its gradient by those
 * is first order's by the initial ones; the support rows have none. */
START_TEST(first_order_is_fomaml) {
  struct problem p = open_problem((size_t)_i, NULL);
  for (enum melu__form form = MELU__DIRECT; form <= MELU__DUAL; form++) {
    struct problem at_fast = p;
    struct task first, second, by_hand;
    run_task(&first, &p, p.first_order, form);
    run_task(&second, &p, p.second_order, form);
    for (size_t i = 0; i < first.n_weights; i++) at_fast.setting.slot[MELU__SLOT_WEIGHTS + i] = first.result[FAST + i];
    run_task(&by_hand, &at_fast, p.without_steps, form);
    for (size_t i = LOSS; i <= PREDICTION; i++) {
      check_equal(first.result[i], second.result[i], "value", i, forms_tolerance);
      check_equal(first.result[i], by_hand.result[i], "value by hand", i, forms_tolerance);
    }
    double difference = 0;
    for (size_t i = 0; i < 3 + first.n_weights; i++) {
      const struct matrix a = first.result[grads(&first) + i], b = second.result[grads(&second) + i];
      check_equal(a, by_hand.result[grads(&by_hand) + i], "gradient by hand", i, forms_tolerance);
      difference = fmax(difference, worst_error(a.v, b.v, size_of(a), 1e-2));
    }
    const struct matrix by_support = first.result[grads(&first)];
    for (size_t k = 0; k < size_of(by_support); k++) ck_assert(by_support.v[k] == 0);
    if (p.shape->n_steps == 0 || p.shape->n_support == 0)
      ck_assert(difference == 0);
    else
      ck_assert_msg(difference > 1e-2, "first and second order differ by %g only", difference);
    free_task(&by_hand);
    free_task(&second);
    free_task(&first);
  }
  close_problem(&p);
}
END_TEST

/* The steps one by one are the steps at once; they lower the loss; the user's row is that of the fast weights.
 */
START_TEST(steps_one_by_one) {
  struct problem p = open_problem((size_t)_i, NULL);
  const size_t n_steps = p.shape->n_support ? p.shape->n_steps : 0;
  for (enum melu__form form = MELU__DIRECT; form <= MELU__DUAL; form++) {
    struct melu__tape t;
    struct melu__inner in;
    melu__ref node[MELU__MAX_STEPS + 1];
    struct matrix loss[MELU__MAX_STEPS + 1];
    struct task all;
    run_task(&all, &p, p.second_order, form);
    melu__tape_init(&t, &p.ctx->allocator);
    melu__inner_begin(&in, &t, p.second_order, form, p.shape->n_support);
    for (size_t k = 0; k < n_steps; k++) node[k] = melu__inner_step(&in);
    const melu__ref xq = melu__tape_input(&t, MELU__SLOT_XQ, p.shape->n_query, p.shape->item_width);
    node[n_steps] = melu__inner_predict(&in, xq, p.shape->n_query);
    plan_values(loss, p.ctx->kernels, &t, node, n_steps + 1, &p.setting);
    if (n_steps > 1) ck_assert(loss[n_steps - 1].v[0] < loss[0].v[0]);
    check_equal(loss[n_steps], all.result[PREDICTION], "prediction", 0, forms_tolerance);
    for (size_t k = 0; k <= n_steps; k++) free(loss[k].v);

    const struct matrix wu = all.result[FAST + 1], b = all.result[FAST + 2], xu = p.setting.slot[MELU__SLOT_XU];
    struct matrix row = new_matrix(1, wu.rows);
    for (size_t j = 0; j < wu.rows; j++) {
      row.v[j] = b.v[j];
      for (size_t k = 0; k < wu.cols; k++) row.v[j] += xu.v[k] * wu.v[j * wu.cols + k];
    }
    check_equal(all.result[USER_ROW], row, "user row", 0, forms_tolerance);
    free(row.v);
    free_task(&all);
    melu__tape_free(&t);
  }
  close_problem(&p);
}
END_TEST

/* Without a step the fast weights are the weights themselves. */
START_TEST(no_step_no_change) {
  struct problem p = open_problem((size_t)_i, NULL);
  if (p.shape->n_steps == 0 || p.shape->n_support == 0) {
    struct task t;
    run_task(&t, &p, p.second_order, MELU__DUAL);
    for (size_t i = 0; i < t.n_weights; i++)
      check_equal(t.result[FAST + i], p.setting.slot[MELU__SLOT_WEIGHTS + i], "weight", i, 0);
    free_task(&t);
  }
  close_problem(&p);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- plans */

enum { ROOM = 4096 }; /* a user's first layer has other shapes than the gradient whose slots it goes to */

/* One thread's memory for a model's plans of a kind: the inputs, ones to add to, and NaN where a plan writes. */
struct host {
  struct melu__slot_layout layout;
  real *slots[MELU__N_SLOTS];
  struct melu__scratch scratch;
};

static size_t host_ld(const struct host *h, size_t slot, struct matrix m) {
  return h->layout.ld[slot] ? h->layout.ld[slot] : m.cols;
}

static void host_slot(struct host *h, size_t slot, struct matrix like, const double *value) {
  const size_t ld = host_ld(h, slot, like);
  h->slots[slot] = test_memory(like.rows * ld + ROOM, sizeof(real));
  for (size_t k = 0; k < size_of(like); k++)
    h->slots[slot][k / like.cols * ld + k % like.cols] = (real)(value ? *value : like.v[k]);
}

static void host_transposed(struct host *h, size_t slot, struct matrix m) {
  h->slots[slot] = test_memory(size_of(m), sizeof(real));
  for (size_t k = 0; k < size_of(m); k++) h->slots[slot][k % m.cols * m.rows + k / m.cols] = (real)m.v[k];
}

static void host_open(struct host *h, enum melu__plan_kind kind, const struct problem *p, const struct task *t,
                      size_t arena) {
  const double one = 1, nothing = NAN;
  memset(h, 0, sizeof *h);
  melu__slot_layout(&h->layout, p->second_order, kind);
  for (size_t i = MELU__SLOT_XS; i <= MELU__SLOT_YQ; i++) host_slot(h, i, p->setting.slot[i], NULL);
  for (size_t i = 0; i < 3; i++) host_slot(h, MELU__SLOT_GRAD_XS + i, t->result[grads(t) + i], &nothing);
  host_slot(h, MELU__SLOT_LOSS, t->result[LOSS], &nothing);
  host_slot(h, MELU__SLOT_SCORES, t->result[PREDICTION], &nothing);
  for (size_t slot = MELU__SLOT_ZS; slot <= MELU__SLOT_GRAD_KAPPA; slot++)
    if (!h->slots[slot]) h->slots[slot] = test_memory(ROOM, sizeof(real));
  for (size_t i = 0; i < t->n_weights; i++) {
    host_slot(h, MELU__SLOT_WEIGHTS + i, p->setting.slot[MELU__SLOT_WEIGHTS + i], NULL);
    host_transposed(h, MELU__SLOT_TRANSPOSED + i, p->setting.slot[MELU__SLOT_WEIGHTS + i]);
    host_slot(h, MELU__SLOT_GRADS + i, t->result[grads(t) + 3 + i], &nothing);
    host_slot(h, MELU__SLOT_BASES + i, t->result[grads(t) + 3 + i], &one);
  }
  ck_assert(melu__scratch_reserve(&h->scratch, p->second_order, arena, p->shape->n_support, p->shape->n_query));
}

static void host_close(struct host *h, const struct problem *p) {
  melu__scratch_free(&h->scratch, p->second_order);
  for (size_t i = 0; i < MELU__N_SLOTS; i++) free(h->slots[i]);
}

static void check_slot(const struct host *h, size_t slot, struct matrix expected, double before) {
  const struct matrix got = new_matrix(expected.rows, expected.cols);
  const size_t ld = host_ld(h, slot, expected);
  for (size_t k = 0; k < size_of(got); k++)
    got.v[k] = (double)h->slots[slot][k / expected.cols * ld + k % expected.cols] - before;
  const double error = worst_error(got.v, expected.v, size_of(got), 1);
  ck_assert_msg(error <= forms_tolerance, "slot %zu after a plan: off by %g", slot, error);
  free(got.v);
}

static const struct melu__plan *get_plan(const struct problem *p, enum melu__plan_kind kind, size_t n_support,
                                         size_t n_query, size_t *arena) {
  const struct melu__plan *plan, *again;
  TRY(melu__task_plan(&plan, p->second_order, kind, n_support, n_query, &err));
  TRY(melu__task_plan(&again, p->second_order, kind, n_support, n_query, &err));
  ck_assert_ptr_eq(plan, again);
  if (melu__plan_arena_size(plan) > *arena) *arena = melu__plan_arena_size(plan);
  return plan;
}

static void run_part(struct host *h, const struct problem *p, enum melu__plan_kind kind, size_t n, int is_query) {
  real *slots[MELU__N_SLOTS];
  size_t arena = 0;
  const struct melu__plan *plan = get_plan(p, kind, 0, n, &arena);
  memcpy(slots, h->slots, sizeof slots);
  if (is_query) { /* the same plans serve support and query rows */
    slots[MELU__SLOT_XS] = slots[MELU__SLOT_XQ];
    slots[MELU__SLOT_ZS] = slots[MELU__SLOT_ZQ];
    slots[MELU__SLOT_GRAD_XS] = slots[MELU__SLOT_GRAD_XQ];
    slots[MELU__SLOT_GRAD_ZS] = slots[MELU__SLOT_GRAD_ZQ];
    slots[MELU__SLOT_BASES] = slots[MELU__SLOT_GRADS];
  }
  ck_assert(melu__scratch_reserve(&h->scratch, p->second_order, arena, 1, 1));
  melu__plan_run(plan, slots, NULL, h->scratch.arena);
}

/* META in its form, with what the first layer is before and after it. */
static void run_meta(struct host *h, const struct problem *p, const struct melu__plan *meta) {
  const size_t n_support = p->shape->n_support, n_query = p->shape->n_query;
  if (melu__plan_tag(meta) == MELU__DUAL) {
    run_part(h, p, MELU__PLAN_ITEMS, n_support, 0);
    run_part(h, p, MELU__PLAN_ITEMS, n_query, 1);
    run_part(h, p, MELU__PLAN_USERS, 1, 0);
  }
  ck_assert(melu__scratch_reserve(&h->scratch, p->second_order, melu__plan_arena_size(meta), n_support, n_query));
  melu__plan_run(meta, h->slots, NULL, h->scratch.arena);
  if (melu__plan_tag(meta) == MELU__DUAL) {
    run_part(h, p, MELU__PLAN_ITEMS_GRAD, n_support, 0);
    run_part(h, p, MELU__PLAN_ITEMS_GRAD, n_query, 1);
    run_part(h, p, MELU__PLAN_USERS_GRAD, 1, 0);
  }
}

/* Predictions for the user that ADAPT left, once from the model's weights and once from Z. */
static void predict_and_check(struct host *h, const struct problem *p, const struct task *t,
                              const struct melu__plan *plan, size_t slot) {
  const struct matrix x = p->setting.slot[MELU__SLOT_XQ], w = p->setting.slot[MELU__SLOT_WEIGHTS];
  real *slots[MELU__N_SLOTS], *z = test_memory(x.rows * w.rows, sizeof *z);
  for (size_t i = 0; i < x.rows; i++)
    for (size_t j = 0; j < w.rows; j++)
      for (size_t k = 0; k < x.cols; k++) z[i * w.rows + j] += (real)(x.v[i * x.cols + k] * w.v[j * w.cols + k]);
  memcpy(slots, h->slots, sizeof slots);
  for (size_t i = 0; i < t->n_weights; i++) slots[MELU__SLOT_WEIGHTS + i] = h->slots[MELU__SLOT_GRADS + i];
  slots[MELU__SLOT_XT] = h->slots[MELU__SLOT_GRADS + 1];
  slots[MELU__SLOT_Z] = z;
  if (slot == MELU__SLOT_Z) slots[MELU__SLOT_TRANSPOSED] = NULL;
  for (size_t i = 0; i < x.rows; i++) h->slots[MELU__SLOT_SCORES][i] = (real)NAN;
  melu__plan_run(plan, slots, NULL, h->scratch.arena);
  check_slot(h, MELU__SLOT_SCORES, t->result[PREDICTION], 0);
  free(z);
}

/* META's gradients are the recording's, and ADAPT then PREDICT give the recording's predictions. */
START_TEST(plans_of_a_model) {
  struct problem p = open_problem((size_t)_i, NULL);
  const struct shape *s = p.shape;
  struct task t;
  struct host h;
  size_t arena = 0;
  const size_t kept = melu__keeps_rows(p.second_order, s->n_support) ? s->n_support : MELU__FORMED;
  const struct melu__plan *meta = get_plan(&p, MELU__PLAN_META, s->n_support, s->n_query, &arena),
                          *adapt = get_plan(&p, MELU__PLAN_ADAPT, s->n_support, 0, &arena),
                          *predict = get_plan(&p, MELU__PLAN_PREDICT, kept, s->n_query, &arena),
                          *rank = get_plan(&p, MELU__PLAN_RANK, kept, s->n_query, &arena);
  run_task(&t, &p, p.second_order, MELU__DIRECT);
  host_open(&h, MELU__PLAN_META, &p, &t, arena);
  run_meta(&h, &p, meta);
  check_slot(&h, MELU__SLOT_LOSS, t.result[LOSS], 0);
  for (size_t i = 0; i < 3; i++) check_slot(&h, MELU__SLOT_GRAD_XS + i, t.result[grads(&t) + i], 0);
  for (size_t i = 0; i < t.n_weights; i++) check_slot(&h, MELU__SLOT_GRADS + i, t.result[grads(&t) + 3 + i], 1);
  host_close(&h, &p);

  host_open(&h, MELU__PLAN_ADAPT, &p, &t, arena);
  melu__plan_run(adapt, h.slots, NULL, h.scratch.arena);
  predict_and_check(&h, &p, &t, predict, MELU__SLOT_TRANSPOSED);
  predict_and_check(&h, &p, &t, rank, MELU__SLOT_Z);
  host_close(&h, &p);
  free_task(&t);
  close_problem(&p);
}
END_TEST

/* Every allocation of making a plan fails once: no block is lost, and the same call succeeds after it. */
START_TEST(plans_without_memory) {
  struct test_heap heap = {.fail_at = 0};
  const struct melu_allocator allocator = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  size_t n = 1;
  for (melu_status status = MELU_ENOMEM; status; n++) {
    struct problem p = open_problem(0, &options);
    const struct melu__plan *plan;
    heap.fail_at = heap.made + n;
    status = melu__task_plan(&plan, p.second_order, MELU__PLAN_META, 4, 5, &err);
    ck_assert(status == MELU_OK || status == MELU_ENOMEM);
    if (status) {
      ck_assert_int_eq(err.status, MELU_ENOMEM);
      ck_assert_ptr_null(plan);
      TRY(melu__task_plan(&plan, p.second_order, MELU__PLAN_META, 4, 5, &err));
    }
    ck_assert_ptr_nonnull(plan);
    heap.fail_at = 0;
    close_problem(&p);
    ck_assert_uint_eq(heap.live, 0);
  }
  ck_assert_uint_gt(n, 30);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("inner");
  TCase *loop = tcase_create("loop"), *plans = tcase_create("plans");
  tcase_set_timeout(loop, 120);
  tcase_set_timeout(plans, 120);
  tcase_add_loop_test(loop, forms_agree, 0, N_SHAPES);
  tcase_add_loop_test(loop, gradient_is_the_differences, 0, N_SHAPES);
  tcase_add_loop_test(loop, first_order_is_fomaml, 0, N_SHAPES);
  tcase_add_loop_test(loop, steps_one_by_one, 0, N_SHAPES);
  tcase_add_loop_test(loop, no_step_no_change, 0, N_SHAPES);
  tcase_add_loop_test(plans, plans_of_a_model, 0, N_SHAPES);
  tcase_add_test(plans, plans_without_memory);
  suite_add_tcase(suite, loop);
  suite_add_tcase(suite, plans);
  return run_suite(suite);
}
