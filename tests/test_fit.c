/* SPDX-License-Identifier: BSD-3-Clause */
/* Training: gradients by name, optimizers, the loop, and that bits do not depend on threads. */
#include <math.h>
#include <stdio.h>

#include "run_suite.h"
#include "support.h"
#include "world.h"

enum { N_USERS = 40 };

static melu_error err;

static struct melu_fit_options small_fit(void) {
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options),
                                   .n_epochs = 3,
                                   .batch_tasks = 7,
                                   .n_query = 2,
                                   .min_ratings = 4,
                                   .seed = 3};
}

static float *trained(size_t n_threads, uint64_t seed, size_t *n) {
  struct world w;
  const struct melu_context_options options = {.size = sizeof options, .n_threads = n_threads};
  struct melu_fit_options fit = small_fit();
  fit.seed = seed;
  world_open(&w, &options, N_USERS);
  WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
  float *weights = world_weights(w.model, n);
  world_close(&w);
  return weights;
}

START_TEST(same_bits_on_any_number_of_threads) {
  size_t n, m;
  float *one = trained(1, 3, &n);
  const size_t threads[] = {2, 3, 8, 16};
  for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
    float *many = trained(threads[i], 3, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_msg(memcmp(one, many, n * sizeof *one) == 0, "%zu threads give other bits than one", threads[i]);
    free(many);
  }
  float *other = trained(1, 4, &m);
  ck_assert_msg(memcmp(one, other, n * sizeof *one) != 0, "another seed gives the same weights");
  free(other);
  free(one);
}
END_TEST

/* A batch of the first n users: first two ratings for support, next two for query. */
static melu_batch *first_users(const struct world *w, uint32_t n) {
  melu_batch *batch;
  const uint32_t support[2] = {0, 1}, query[2] = {2, 3};
  WORLD_TRY(melu_batch_new(&batch, w->ctx, w->data, &err));
  for (uint32_t u = 0; u < n; u++) WORLD_TRY(melu_batch_add(batch, u, support, 2, query, 2, &err));
  return batch;
}

static double batch_loss(melu_gradient *g, const melu_model *model, const melu_batch *batch) {
  WORLD_TRY(melu_meta_gradient(g, model, batch, &err));
  return melu_gradient_loss(g, NULL);
}

/* The gradient of every parameter, one after another, and how many numbers. */
static float *all_gradients(const melu_gradient *g, const melu_model *model, size_t *n) {
  float *values = NULL;
  *n = 0;
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    values = realloc(values, (*n + p.rows * p.cols) * sizeof *values);
    ck_assert_ptr_nonnull(values);
    WORLD_TRY(melu_gradient_read(values + *n, g, p.name, &err));
    *n += p.rows * p.cols;
  }
  return values;
}

/* A gradient is the mean of those of parts of the tasks. A lane has more of them, and of their rows, than one plan of
 * the first layer takes, and tasks of both forms of the inner loop: those with many ratings have the direct one. */
START_TEST(gradients_of_parts) {
  enum { N_TASKS = 6000, WHOLE = 3 };
  static const double share[WHOLE] = {0.2, 0.4, 0.4}; /* many ratings; few, first half; few, second half */
  const uint32_t query[2] = {2, 3};
  uint32_t support[40];
  struct world w;
  float *g[WHOLE + 1];
  size_t n;
  for (uint32_t i = 0; i < 40; i++) support[i] = i % 2;
  world_open(&w, NULL, N_USERS);
  for (int part = 0; part <= WHOLE; part++) {
    melu_batch *batch;
    melu_gradient *gradient;
    WORLD_TRY(melu_batch_new(&batch, w.ctx, w.data, &err));
    WORLD_TRY(melu_gradient_new(&gradient, w.model, &err));
    for (uint32_t i = 0; i < N_TASKS; i++)
      if (part == WHOLE || part == (i % 5 == 0 ? 0 : i < N_TASKS / 2 ? 1 : 2))
        WORLD_TRY(melu_batch_add(batch, i * i % N_USERS, support, i % 5 ? 2 : 40, query, 2, &err));
    WORLD_TRY(melu_meta_gradient(gradient, w.model, batch, &err));
    g[part] = all_gradients(gradient, w.model, &n);
    melu_gradient_free(gradient);
    melu_batch_free(batch);
  }
  for (size_t i = 0; i < n; i++) {
    double mean = 0;
    for (int part = 0; part < WHOLE; part++) mean += share[part] * (double)g[part][i];
    ck_assert_msg(fabs((double)g[WHOLE][i] - mean) < 1e-4 * (1 + fabs(mean)), "number %zu is %g, not %g", i,
                  (double)g[WHOLE][i], mean);
  }
  for (int part = 0; part <= WHOLE; part++) free(g[part]);
  world_close(&w);
}
END_TEST

START_TEST(loss_falls) {
  struct world w;
  melu_gradient *g;
  world_open(&w, NULL, N_USERS);
  melu_batch *batch = first_users(&w, N_USERS);
  WORLD_TRY(melu_gradient_new(&g, w.model, &err));
  const double before = batch_loss(g, w.model, batch);
  const struct melu_optimizer_options fast = {.size = sizeof fast, .lr = 0.01};
  struct melu_fit_options fit = small_fit();
  fit.n_epochs = 40;
  fit.optimizer = &fast;
  WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
  const double after = batch_loss(g, w.model, batch);
  ck_assert_msg(after < 0.7 * before, "loss %g before, %g after training", before, after);
  melu_gradient_free(g);
  melu_batch_free(batch);
  world_close(&w);
}
END_TEST

START_TEST(first_order_is_another_gradient) {
  struct world w;
  melu_gradient *g;
  float second[64], first[64];
  world_open(&w, NULL, N_USERS);
  melu_batch *batch = first_users(&w, 5);
  for (int order = 2; order >= 1; order--) {
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
    WORLD_TRY(melu_gradient_read(order == 2 ? second : first, g, "W2", &err)); /* (6, 8) */
    melu_gradient_free(g);
    melu_model_free(w.model);
    world_model(&w, 1);
  }
  double largest = 0, difference = 0;
  for (int i = 0; i < 48; i++) {
    largest = fmax(largest, fabs((double)second[i]));
    difference = fmax(difference, fabs((double)second[i] - (double)first[i]));
  }
  ck_assert_msg(difference > 0.05 * largest, "orders differ by %g of %g", difference, largest);
  melu_batch_free(batch);
  world_close(&w);
}
END_TEST

/* Rows that no task touched are not in the gradient, and an update leaves them alone. */
START_TEST(only_touched_rows) {
  struct world w;
  melu_gradient *g;
  melu_optimizer *opt;
  uint32_t rows[6];
  float values[18], before[18], after[18], whole[18];
  world_open(&w, NULL, N_USERS);
  melu_batch *batch = first_users(&w, 2); /* user 0 has no age; user 1 has one */
  WORLD_TRY(melu_gradient_new(&g, w.model, &err));
  WORLD_TRY(melu_optimizer_new(&opt, w.model, NULL, &err));
  ck_assert_uint_eq(melu_gradient_n_rows(g, "E.age"), 0);
  WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
  ck_assert_uint_eq(melu_gradient_n_rows(g, "E.age"), 1);
  ck_assert_uint_eq(melu_gradient_n_rows(g, "W1"), 8);
  WORLD_TRY(melu_gradient_read_rows(rows, values, g, "E.age", &err));
  WORLD_TRY(melu_gradient_read(whole, g, "E.age", &err));
  struct melu_value age;
  WORLD_TRY(melu_dataset_user_values(&age, w.data, 1, &err));
  ck_assert_uint_eq(rows[0], age.ids[0]);
  WORLD_TRY(melu_model_read(before, w.model, "E.age", 0, 6, &err));
  WORLD_TRY(melu_optimizer_step(opt, w.model, g, &err));
  WORLD_TRY(melu_model_read(after, w.model, "E.age", 0, 6, &err));
  for (uint32_t i = 0; i < 18; i++) {
    const int touched = i / 3 == rows[0];
    ck_assert(whole[i] == (touched ? values[i % 3] : 0));
    ck_assert_msg((before[i] != after[i]) == touched, "entry %u: %g, then %g", i, before[i], after[i]);
  }
  melu_optimizer_free(opt);
  melu_gradient_free(g);
  melu_batch_free(batch);
  world_close(&w);
}
END_TEST

/* Lazy and dense Adam agree while all rows are touched in each step. */
START_TEST(lazy_adam_is_dense_adam_on_touched_rows) {
  struct world w;
  float *weights[2];
  size_t n = 0;
  for (int dense = 0; dense < 2; dense++) {
    melu_gradient *g;
    melu_optimizer *opt;
    const struct melu_optimizer_options options = {.size = sizeof options, .lr = 0.01, .dense = dense};
    world_open(&w, NULL, N_USERS);
    melu_batch *batch = first_users(&w, N_USERS);
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    WORLD_TRY(melu_optimizer_new(&opt, w.model, &options, &err));
    for (int step = 0; step < 10; step++) {
      WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
      WORLD_TRY(melu_optimizer_step(opt, w.model, g, &err));
    }
    weights[dense] = world_weights(w.model, &n);
    melu_optimizer_free(opt);
    melu_gradient_free(g);
    melu_batch_free(batch);
    world_close(&w);
  }
  for (size_t i = 0; i < n; i++) ck_assert_float_eq_tol(weights[0][i], weights[1][i], 1e-6f);
  free(weights[0]);
  free(weights[1]);
}
END_TEST

/* One step of each optimizer on W3, against the textbook in double. */
START_TEST(optimizers_follow_their_equations) {
  const melu_optimizer_kind kinds[] = {MELU_ADAM, MELU_ADAMW, MELU_SGD};
  for (size_t k = 0; k < 3; k++) {
    struct world w;
    melu_gradient *g;
    melu_optimizer *opt;
    float before[6], after[6], grad[6];
    const struct melu_optimizer_options options = {
        .size = sizeof options, .kind = kinds[k], .lr = 0.02, .weight_decay = 0.1, .clip_value = 0.01};
    world_open(&w, NULL, N_USERS);
    melu_batch *batch = first_users(&w, 9);
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    WORLD_TRY(melu_optimizer_new(&opt, w.model, &options, &err));
    WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
    WORLD_TRY(melu_gradient_read(grad, g, "W3", &err));
    WORLD_TRY(melu_model_read(before, w.model, "W3", 0, 1, &err));
    WORLD_TRY(melu_optimizer_step(opt, w.model, g, &err));
    WORLD_TRY(melu_model_read(after, w.model, "W3", 0, 1, &err));
    for (int i = 0; i < 6; i++) {
      const double d = fmax(-0.01, fmin(0.01, (double)grad[i])), b = (double)before[i];
      const double adam = b - 0.02 * d / (fabs(d) + 1e-8); /* after one step m / c1 = d, v / c2 = d^2 */
      const double want = kinds[k] == MELU_ADAM    ? adam
                          : kinds[k] == MELU_ADAMW ? adam - 0.02 * 0.1 * b
                                                   : b - 0.02 * (d + 0.1 * b);
      ck_assert_double_eq_tol((double)after[i], want, 1e-6);
    }
    melu_optimizer_free(opt);
    melu_gradient_free(g);
    melu_batch_free(batch);
    world_close(&w);
  }
}
END_TEST

static int stop_after(void *arg, const struct melu_progress *p) {
  ck_assert_str_eq(p->phase, "fit");
  ck_assert(p->done <= p->total && p->epoch >= 1 && p->epoch <= p->n_epochs);
  return --*(int *)arg == 0;
}

/* A cancelled training has the weights of its last update: those of a training that ends there by itself. */
START_TEST(cancel_keeps_the_last_update) {
  struct world w;
  int calls_left = 0; /* the first call makes it -1: never 0 */
  const struct melu_context_options options = {
      .size = sizeof options, .progress = stop_after, .progress_arg = &calls_left};
  struct melu_fit_options fit = small_fit();
  fit.batch_tasks = N_USERS; /* an epoch is one update */
  float *weights[2];
  size_t n = 0;
  for (int i = 0; i < 2; i++) {
    world_open(&w, &options, N_USERS);
    fit.n_epochs = i ? 50 : 4;
    calls_left = i ? 4 : 0;
    const melu_status status = melu_fit(w.model, w.data, &fit, &err);
    ck_assert_int_eq(status, i ? MELU_ECANCELED : MELU_OK);
    weights[i] = world_weights(w.model, &n);
    world_close(&w);
  }
  ck_assert(memcmp(weights[0], weights[1], n * sizeof(float)) == 0);
  free(weights[0]);
  free(weights[1]);
}
END_TEST

/* What stays is good: finite, and with a finite loss. */
START_TEST(divergence_is_a_status_and_keeps_good_weights) {
  const struct melu_optimizer_options wild[] = {
      {.size = sizeof *wild, .kind = MELU_SGD, .lr = 1e6, .clip_value = -1},
      {.size = sizeof *wild, .kind = MELU_SGD, .lr = 1e15},
      {.size = sizeof *wild, .kind = MELU_ADAM, .lr = 1e16},
  };
  for (size_t k = 0; k < sizeof wild / sizeof *wild; k++) {
    struct world w;
    size_t n;
    melu_gradient *g;
    struct melu_fit_options fit = small_fit();
    fit.n_epochs = 50;
    fit.optimizer = &wild[k];
    world_open(&w, NULL, N_USERS);
    melu_batch *batch = first_users(&w, N_USERS);
    ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EDIVERGED);
    ck_assert(strlen(err.message) > 0);
    float *weights = world_weights(w.model, &n);
    for (size_t i = 0; i < n; i++) ck_assert(isfinite(weights[i]));
    free(weights);
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    if (k > 0) ck_assert(isfinite(batch_loss(g, w.model, batch)));
    melu_gradient_free(g);
    melu_batch_free(batch);
    world_close(&w);
  }
}
END_TEST

/* The same model trains on once the cause is gone. */
START_TEST(fit_refuses_nonsense_and_changes_nothing) {
  struct world w;
  size_t n, m;
  world_open(&w, NULL, N_USERS);
  float *before = world_weights(w.model, &n);
  struct melu_fit_options fit = small_fit();
  const struct melu_optimizer_options bad = {.size = sizeof bad, .lr = (double)NAN};
  ck_assert_int_eq(melu_fit(NULL, w.data, &fit, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_fit(w.model, NULL, &fit, NULL), MELU_EINVAL);
  fit.optimizer = &bad;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_ERANGE);
  fit = small_fit();
  fit.min_ratings = 1;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EINVAL);
  fit = small_fit();
  fit.min_ratings = 1000;
  fit.max_ratings = 2000;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_ENOTFOUND);
  fit = small_fit();
  fit.size = 3;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EINVAL);

  melu_dataset *open;
  WORLD_TRY(melu_dataset_new(&open, w.ctx, w.schema, &err));
  fit = small_fit();
  ck_assert_int_eq(melu_fit(w.model, open, &fit, &err), MELU_ESTATE);
  melu_dataset_free(open);

  float *after = world_weights(w.model, &m);
  ck_assert(memcmp(before, after, n * sizeof *before) == 0);
  WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
  free(before);
  free(after);
  world_close(&w);
}
END_TEST

/* Users who are left out by name have to be there, and nobody is left out by a share at the same time. */
START_TEST(users_left_out_without_sense) {
  const uint32_t users[2] = {0, N_USERS};
  const struct melu_optimizer_options old = {.size = 3};
  struct melu_fit_options fit = small_fit();
  struct world w;
  world_open(&w, NULL, N_USERS);
  fit.n_validation_users = 2;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EINVAL);
  fit.validation_users = users;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 1);
  fit.n_validation_users = 1;
  fit.validation = 0.5;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EINVAL);
  fit = small_fit();
  fit.optimizer = &old;
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EINVAL);
  world_close(&w);
}
END_TEST

/* A training on few users, of whom one is left out, or most are: their batch asks for memory of its own; or nobody is,
 * and what the noise is measured by may be larger than all that was trained on. */
enum leaving { ONE_OUT, MOST_OUT, NOBODY_OUT, N_LEAVINGS };

static melu_status fit_with(struct test_heap *heap, size_t fail_at, int is_factors, enum leaving leaving,
                            uint64_t seed) {
  const struct melu_allocator allocator = test_allocator(heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  const struct melu_model_options small = {.size = sizeof small, .preset = "best", .rank = 2};
  struct melu_fit_options fit = small_fit();
  struct world w;
  uint32_t longest = 0, users[16];
  for (uint32_t u = 0; u < 16; u++) users[u] = u + 2;
  world_open(&w, &options, leaving == ONE_OUT ? 6 : leaving == MOST_OUT ? 18 : 3);
  if (is_factors) {
    melu_model_free(w.model);
    WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), &small, &err));
  }
  for (uint32_t u = 1; u < 6 && leaving == ONE_OUT; u++)
    if (melu_dataset_ratings(w.data, u, NULL, NULL) > melu_dataset_ratings(w.data, longest, NULL, NULL)) longest = u;
  fit.n_epochs = 1;
  fit.seed = seed;
  fit.random_support = leaving == NOBODY_OUT;
  fit.batch_tasks = leaving == ONE_OUT ? 1 : leaving == MOST_OUT ? 16 : 3;
  fit.validation_users = leaving == ONE_OUT ? &longest : users;
  fit.n_validation_users = leaving == ONE_OUT ? 1 : leaving == MOST_OUT ? 16 : 0;
  const size_t before = heap->made;
  heap->fail_at = before + fail_at;
  const melu_status status = melu_fit(w.model, w.data, &fit, &err);
  heap->made -= before;
  size_t n;
  float *weights = world_weights(w.model, &n);
  for (size_t i = 0; i < n; i++) ck_assert(isfinite(weights[i]));
  free(weights);
  world_close(&w);
  ck_assert_uint_eq(heap->live, 0);
  return status;
}

static void fail_each_once(int is_factors, enum leaving leaving, uint64_t seed) {
  for (size_t n = 1;; n++) {
    struct test_heap heap = {.fail_at = 0};
    const melu_status status = fit_with(&heap, n, is_factors, leaving, seed);
    if (!status) {
      ck_assert_uint_lt(heap.made, n);
      break;
    }
    ck_assert_int_eq(status, MELU_ENOMEM);
  }
}

START_TEST(every_allocation_fails_once) {
  const enum leaving leaving = (enum leaving)(_i / 2);
  const uint64_t n_seeds = leaving == NOBODY_OUT && _i % 2 ? 12 : 1; /* layers have no noise */
  for (uint64_t seed = 1; seed <= n_seeds; seed++) fail_each_once(_i % 2, leaving, seed);
}
END_TEST

/* Gradients that need many plans: of more items than one plan encodes, and with rates that are learnt. */
START_TEST(a_gradient_without_memory) {
  static const struct melu_model_options options[] = {
      {.size = sizeof *options, .preset = "best", .rank = 2},
      {.size = sizeof *options, .rates = MELU_RATE_PER_TENSOR, .inner_steps = 1},
      {.size = sizeof *options, .rates = MELU_RATE_PER_ENTRY, .inner_steps = 1, .adapt = 15}};
  enum { ITEMS = 600, EACH = 30 };
  uint32_t positions[EACH];
  melu_status status = MELU_ENOMEM;
  struct world w;
  for (uint32_t i = 0; i < EACH; i++) positions[i] = i;
  for (size_t n = 1; status; n++) {
    struct test_heap heap = {0};
    const struct melu_allocator allocator = test_allocator(&heap);
    const struct melu_context_options context = {.size = sizeof context, .allocator = &allocator};
    melu_batch *batch;
    melu_gradient *g;
    WORLD_TRY(melu_context_new(&w.ctx, &context, &err));
    WORLD_TRY(melu_schema_new(&w.schema, w.ctx, &err));
    world_fields(w.schema);
    WORLD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
    for (uint32_t i = 0; i < ITEMS; i++) WORLD_TRY(melu_dataset_add_item(w.data, i, NULL, NULL, &err));
    for (uint32_t i = 0; i < ITEMS; i++) {
      if (i % EACH == 0) WORLD_TRY(melu_dataset_add_user(w.data, i / EACH, NULL, NULL, &err));
      WORLD_TRY(melu_dataset_add_rating(w.data, i / EACH, i, (float)(i % 5), &err));
    }
    WORLD_TRY(melu_dataset_freeze(w.data, &err));
    WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), &options[_i], &err));
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    WORLD_TRY(melu_batch_new(&batch, w.ctx, w.data, &err));
    for (uint32_t u = 0; u < ITEMS / EACH; u++)
      WORLD_TRY(melu_batch_add(batch, u, positions + 2, EACH - 2, positions, 2, &err));
    heap.fail_at = heap.made + n;
    status = melu_meta_gradient(g, w.model, batch, &err);
    ck_assert(status == MELU_OK || status == MELU_ENOMEM);
    ck_assert((status == MELU_OK) == (heap.made < heap.fail_at));
    heap.fail_at = 0;
    WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
    melu_batch_free(batch);
    melu_gradient_free(g);
    world_close(&w);
    ck_assert_uint_eq(heap.live, 0);
  }
}
END_TEST

/* The mean of a list is that of a longer one with each id as many times more; so is what comes back through it. */
START_TEST(long_lists_have_their_gradient) {
  enum { TIMES = 70 };
  const struct melu_model_options o = {.size = sizeof o};
  float short_lists[4 * 32], long_lists[4 * 32];
  for (int is_long = 0; is_long < 2; is_long++) {
    struct world w;
    melu_gradient *g;
    const struct melu_field field = {
        .size = sizeof field, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 3, .width = 32};
    WORLD_TRY(melu_context_new(&w.ctx, NULL, &err));
    WORLD_TRY(melu_schema_new(&w.schema, w.ctx, &err));
    WORLD_TRY(melu_schema_add(w.schema, &field, &err));
    WORLD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
    for (uint32_t i = 0; i < 6; i++) {
      uint32_t tags[2 * TIMES];
      for (uint32_t k = 0; k < 2 * TIMES; k++) tags[k] = (i + k % 2) % 3;
      const struct melu_value value = {.ids = tags, .n_ids = is_long ? 2 * TIMES : 2};
      WORLD_TRY(melu_dataset_add_item(w.data, i, &value, NULL, &err));
    }
    for (uint32_t u = 0; u < 3; u++) {
      WORLD_TRY(melu_dataset_add_user(w.data, u, NULL, NULL, &err));
      for (uint32_t i = 0; i < 4; i++) WORLD_TRY(melu_dataset_add_rating(w.data, u, u + i, (float)(1 + i), &err));
    }
    WORLD_TRY(melu_dataset_freeze(w.data, &err));
    WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), &o, &err));
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    melu_batch *batch = first_users(&w, 3);
    WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
    WORLD_TRY(melu_gradient_read(is_long ? long_lists : short_lists, g, "E.tags", &err));
    melu_batch_free(batch);
    melu_gradient_free(g);
    world_close(&w);
  }
  for (size_t k = 0; k < sizeof short_lists / sizeof *short_lists; k++)
    ck_assert(fabsf(long_lists[k] - short_lists[k]) <= 1e-5f * (1 + fabsf(short_lists[k])));
  ck_assert(fabsf(short_lists[0]) > 0);
}
END_TEST

/* The noise of a model with variances is measured, by at most a thousand of those it was trained on. */
START_TEST(noise_of_many) {
  const struct melu_model_options small = {.size = sizeof small, .preset = "best", .rank = 2};
  struct melu_fit_options fit = small_fit();
  struct world w;
  float before, after;
  world_open(&w, NULL, 1100);
  melu_model_free(w.model);
  WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), &small, &err));
  WORLD_TRY(melu_model_read(&before, w.model, "noise", 0, 1, &err));
  fit.n_epochs = 1;
  fit.batch_tasks = 64;
  WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
  WORLD_TRY(melu_model_read(&after, w.model, "noise", 0, 1, &err));
  ck_assert(after > 0 && after < 10 && after != before);
  world_close(&w);
}
END_TEST

/* What n users rate as `rating` says; the last rating of the last of them can be another. */
static void open_rated(struct world *w, const struct melu_model_options *o, uint32_t n, float rating, float step,
                       float last) {
  WORLD_TRY(melu_context_new(&w->ctx, NULL, &err));
  WORLD_TRY(melu_schema_new(&w->schema, w->ctx, &err));
  world_fields(w->schema);
  WORLD_TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  const uint32_t genre = 1;
  const struct melu_value values[2] = {{.ids = &genre, .n_ids = 1}, {0}};
  for (uint32_t i = 0; i < 6; i++) WORLD_TRY(melu_dataset_add_item(w->data, i, values, NULL, &err));
  for (uint32_t u = 0; u < n; u++) {
    WORLD_TRY(melu_dataset_add_user(w->data, u, NULL, NULL, &err));
    for (uint32_t i = 0; i < 6; i++)
      WORLD_TRY(
          melu_dataset_add_rating(w->data, u, i, u + 1 < n || i < 5 ? rating + step * (float)(i % 3) : last, &err));
  }
  WORLD_TRY(melu_dataset_freeze(w->data, &err));
  WORLD_TRY(melu_model_new(&w->model, w->ctx, melu_dataset_schema(w->data), o, &err));
}

/* Where nothing is left to be explained, the noise stays what it was: none would make variances of nothing. */
START_TEST(noise_of_nothing) {
  const struct melu_model_options o = {.size = sizeof o, .preset = "best", .rank = 2, .loss = MELU_SQUARED};
  struct melu_fit_options fit = small_fit();
  struct world w;
  float before, after;
  fit.n_epochs = 1;
  open_rated(&w, &o, 1, 3, 0, 3); /* of one user, who rates all alike */
  for (size_t i = 0; i < melu_model_n_params(w.model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, w.model, i, &err));
    float *values = calloc(p.rows * p.cols, sizeof *values);
    ck_assert_ptr_nonnull(values);
    if (strcmp(p.name, "scale") == 0) values[0] = 3, values[1] = 1;
    if (strcmp(p.name, "noise") == 0) values[0] = 0.25f;
    WORLD_TRY(melu_model_write(w.model, p.name, 0, p.rows, values, &err));
    free(values);
  }
  WORLD_TRY(melu_model_read(&before, w.model, "noise", 0, 1, &err));
  WORLD_TRY(melu_fit(w.model, w.data, &fit, &err));
  WORLD_TRY(melu_model_read(&after, w.model, "noise", 0, 1, &err));
  ck_assert(after == before);
  world_close(&w);
}
END_TEST

/* The loss of the user left out knows no more of a rating than which one is larger, but the noise has its square. It is
 * not finite where she is asked about that one. */
START_TEST(noise_that_is_not_finite) {
  const uint32_t left_out = 7;
  size_t n_diverged = 0;
  const struct melu_model_options o = {.size = sizeof o, .preset = "best", .rank = 2, .loss = MELU_PAIRWISE};
  struct melu_fit_options fit = small_fit();
  struct world w;
  fit.n_epochs = 1;
  fit.validation_users = &left_out;
  fit.n_validation_users = 1;
  for (fit.seed = 1; fit.seed <= 12; fit.seed++) {
    size_t n;
    float noise;
    open_rated(&w, &o, 8, 2, 1, 1e25f);
    const melu_status status = melu_fit(w.model, w.data, &fit, &err);
    ck_assert(status == MELU_OK || status == MELU_EDIVERGED);
    n_diverged += status != MELU_OK;
    WORLD_TRY(melu_model_read(&noise, w.model, "noise", 0, 1, &err));
    ck_assert(noise > 0 && isfinite(noise));
    float *weights = world_weights(w.model, &n);
    for (size_t i = 0; i < n; i++) ck_assert(isfinite(weights[i]));
    free(weights);
    world_close(&w);
  }
  ck_assert_uint_gt(n_diverged, 0);
}
END_TEST

/* What diverges before it has made an update leaves the model as it was. */
START_TEST(divergence_at_once) {
  const struct melu_model_options o = {.size = sizeof o};
  const struct melu_fit_options fit = small_fit();
  struct world w;
  size_t n;
  open_rated(&w, &o, 3, 3e38f, 0, 3e38f);
  float *before = world_weights(w.model, &n);
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EDIVERGED);
  float *after = world_weights(w.model, &n);
  ck_assert(memcmp(before, after, n * sizeof *after) == 0);
  free(before);
  free(after);
  world_close(&w);
}
END_TEST

/* A data set of another schema, a gradient and an optimizer of another model, an empty batch, an empty gradient. */
START_TEST(strangers_are_refused) {
  struct world w, other;
  melu_gradient *g;
  melu_optimizer *opt;
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_context_new(&other.ctx, NULL, &err));
  WORLD_TRY(melu_schema_new(&other.schema, other.ctx, &err));
  const struct melu_field one = {.size = sizeof one, .name = "x", .owner = MELU_ITEM, .n_values = 2};
  WORLD_TRY(melu_schema_add(other.schema, &one, &err));
  WORLD_TRY(melu_dataset_new(&other.data, other.ctx, other.schema, &err));
  WORLD_TRY(melu_dataset_add_user(other.data, 1, NULL, NULL, &err));
  WORLD_TRY(melu_dataset_add_item(other.data, 1, NULL, NULL, &err));
  WORLD_TRY(melu_dataset_add_rating(other.data, 1, 1, 3, &err));
  WORLD_TRY(melu_dataset_freeze(other.data, &err));
  WORLD_TRY(melu_model_new(&other.model, other.ctx, other.schema, NULL, &err));

  WORLD_TRY(melu_gradient_new(&g, w.model, &err));
  WORLD_TRY(melu_optimizer_new(&opt, w.model, NULL, &err));
  melu_batch *batch = first_users(&w, 3), *foreign;
  WORLD_TRY(melu_batch_new(&foreign, other.ctx, other.data, &err));
  const uint32_t zero = 0;
  WORLD_TRY(melu_batch_add(foreign, 0, NULL, 0, &zero, 1, &err));
  ck_assert_int_eq(melu_optimizer_step(opt, w.model, g, &err), MELU_ESTATE);
  ck_assert_int_eq(melu_meta_gradient(g, w.model, foreign, &err), MELU_ESCHEMA);
  ck_assert_int_eq(melu_meta_gradient(g, other.model, foreign, &err), MELU_EINVAL);
  WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
  ck_assert_int_eq(melu_optimizer_step(opt, other.model, g, &err), MELU_EINVAL);
  melu_batch_clear(batch);
  ck_assert_int_eq(melu_meta_gradient(g, w.model, batch, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_gradient_read(NULL, g, "nothing", &err), MELU_ENOTFOUND);
  ck_assert_msg(strstr(err.message, "nothing") != NULL, "%s", err.message);
  ck_assert_int_eq(melu_fit(w.model, other.data, NULL, &err), MELU_ESCHEMA);

  melu_batch_free(foreign);
  melu_batch_free(batch);
  melu_optimizer_free(opt);
  melu_gradient_free(g);
  world_close(&other);
  world_close(&w);
}
END_TEST

/* No support: the loss is the model's own; a table of gradients still comes out. */
START_TEST(empty_support) {
  struct world w;
  melu_gradient *g;
  melu_batch *batch;
  const uint32_t query[1] = {0};
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_batch_new(&batch, w.ctx, w.data, &err));
  WORLD_TRY(melu_batch_add(batch, 1, NULL, 0, query, 1, &err));
  WORLD_TRY(melu_gradient_new(&g, w.model, &err));
  const double loss = batch_loss(g, w.model, batch);

  melu_user *user;
  melu_workspace *ws;
  struct melu_value age;
  const uint32_t *items;
  const float *ratings;
  float score;
  melu_dataset_ratings(w.data, 1, &items, &ratings);
  WORLD_TRY(melu_dataset_user_values(&age, w.data, 1, &err));
  WORLD_TRY(melu_user_new(&user, w.model, &err));
  WORLD_TRY(melu_workspace_new(&ws, w.model, 0, &err));
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, &age, NULL, NULL, 0, &err));
  WORLD_TRY(melu_predict(&score, ws, w.model, user, w.data, items, 1, &err));
  const double e = (double)score - (double)ratings[0];
  ck_assert_double_eq_tol(loss, e * e, 1e-4 * e * e);
  melu_workspace_free(ws);
  melu_user_free(user);
  melu_gradient_free(g);
  melu_batch_free(batch);
  world_close(&w);
}
END_TEST

int main(void) {
  Suite *s = suite_create("fit");
  TCase *t = tcase_create("training");
  tcase_add_test(t, same_bits_on_any_number_of_threads);
  tcase_add_test(t, gradients_of_parts);
  tcase_add_test(t, loss_falls);
  tcase_add_test(t, first_order_is_another_gradient);
  tcase_add_test(t, only_touched_rows);
  tcase_add_test(t, lazy_adam_is_dense_adam_on_touched_rows);
  tcase_add_test(t, optimizers_follow_their_equations);
  tcase_add_test(t, cancel_keeps_the_last_update);
  tcase_add_test(t, divergence_is_a_status_and_keeps_good_weights);
  tcase_add_test(t, fit_refuses_nonsense_and_changes_nothing);
  tcase_add_test(t, users_left_out_without_sense);
  tcase_add_loop_test(t, every_allocation_fails_once, 0, 2 * N_LEAVINGS);
  tcase_add_loop_test(t, a_gradient_without_memory, 0, 3);
  tcase_add_test(t, long_lists_have_their_gradient);
  tcase_add_test(t, noise_of_many);
  tcase_add_test(t, noise_of_nothing);
  tcase_add_test(t, noise_that_is_not_finite);
  tcase_add_test(t, divergence_at_once);
  tcase_add_test(t, strangers_are_refused);
  tcase_set_timeout(t, 60);
  tcase_add_test(t, empty_support);
  suite_add_tcase(s, t);
  return run_suite(s);
}
