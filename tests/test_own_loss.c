/* SPDX-License-Identifier: BSD-3-Clause */
/* A loss of the host's own: with the library's loss written by the host, the library's gradient. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <melu.h>

#include "run_suite.h"
#include "support.h"
#include "world.h"

enum { N_USERS = 30, N_TASKS = 9 };

static melu_error err;

/* The squared error, in the units that a network has it in. */
struct squared {
  double spread, weight[N_TASKS]; /* of a query row */
  size_t n_calls, stop_at, spoil_at;
  float slope, loss; /* with which that call spoils its answer */
};

static int squared_error(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                         float *slopes) {
  struct squared *s = arg;
  ck_assert_uint_eq(task, s->n_calls);
  if (++s->n_calls == s->stop_at) return 1;
  *loss = 0;
  for (size_t k = 0; k < n; k++) {
    const double e = ((double)scores[k] - ratings[k]) / s->spread;
    *loss += s->weight[task] * e * e;
    slopes[k] = (float)(2 * s->weight[task] * e / s->spread);
  }
  if (s->n_calls != s->spoil_at) return 0;
  slopes[0] = s->slope;
  *loss = (double)s->loss;
  return 0;
}

/* Tasks with support sets of 0, 1, 2, ... rows and query sets of 1, 2 and 3. */
static melu_batch *new_batch(const struct world *w) {
  melu_batch *batch;
  size_t added = 0;
  WORLD_TRY(melu_batch_new(&batch, w->ctx, w->data, &err));
  for (uint32_t u = 0; added < N_TASKS; u++) {
    const uint32_t positions[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const size_t n = melu_dataset_ratings(w->data, u, NULL, NULL), n_query = 1 + added % 3;
    if (n < added % 5 + n_query) continue;
    WORLD_TRY(melu_batch_add(batch, u, positions + n_query, added % 5, positions, n_query, &err));
    added++;
  }
  return batch;
}

static struct squared judge_of(const melu_model *model, int is_factors) {
  struct squared s = {.spread = 1};
  double n_query = 0;
  float scale[2];
  for (size_t t = 0; t < N_TASKS; t++) n_query += (double)(1 + t % 3);
  for (size_t t = 0; t < N_TASKS; t++) s.weight[t] = is_factors ? N_TASKS / n_query : 1 / (double)(1 + t % 3);
  if (!is_factors) return s;
  WORLD_TRY(melu_model_read(scale, model, "scale", 0, 1, &err));
  s.spread = (double)scale[1];
  return s;
}

static void check_equal(const melu_gradient *a, const melu_gradient *b, const melu_model *model) {
  ck_assert(fabs(melu_gradient_loss(a, NULL) - melu_gradient_loss(b, NULL)) < 1e-5);
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    const size_t n = p.rows * p.cols;
    float *x = malloc(2 * n * sizeof *x), *y = x + n, largest = 0;
    WORLD_TRY(melu_gradient_read(x, a, p.name, &err));
    WORLD_TRY(melu_gradient_read(y, b, p.name, &err));
    for (size_t k = 0; k < n; k++) largest = fmaxf(largest, fabsf(y[k]));
    for (size_t k = 0; k < n; k++)
      ck_assert_msg(fabsf(x[k] - y[k]) <= 2e-4f * largest + 1e-6f, "%s[%zu]: %g, not %g", p.name, k, (double)x[k],
                    (double)y[k]);
    free(x);
  }
}

/* The paper's network in both forms (many inputs, few), one that adapts items, factors by both rules; and those of
 * which the library's own loss would be that of each step. */
static const struct melu_model_options shapes[] = {
    {.size = sizeof shapes[0], .seed = 2},
    {.size = sizeof shapes[0], .seed = 2, .first_order = 1, .inner_steps = 2},
    {.size = sizeof shapes[0], .seed = 2, .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_ITEMS | MELU_ADAPT_USER},
    {.size = sizeof shapes[0],
     .preset = "best",
     .rank = 4,
     .seed = 2,
     .loss = MELU_SQUARED,
     .rating_min = 1,
     .rating_max = 9},
    {.size = sizeof shapes[0], .preset = "best", .rank = 4, .seed = 2, .loss = MELU_SQUARED, .rule = MELU_STEPS},
    {.size = sizeof shapes[0], .seed = 2, .multi_step = 1},
    {.size = sizeof shapes[0],
     .preset = "best",
     .rank = 4,
     .seed = 2,
     .loss = MELU_SQUARED,
     .rule = MELU_STEPS,
     .multi_step = 1},
};

START_TEST(same_loss_same_gradient) {
  struct world w;
  melu_model *model, *of_last_step;
  melu_gradient *own, *librarys;
  struct melu_model_options last_step = shapes[_i];
  last_step.multi_step = 0;
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_model_new(&model, w.ctx, melu_dataset_schema(w.data), &shapes[_i], &err));
  WORLD_TRY(melu_model_new(&of_last_step, w.ctx, melu_dataset_schema(w.data), &last_step, &err));
  WORLD_TRY(melu_gradient_new(&own, model, &err));
  WORLD_TRY(melu_gradient_new(&librarys, of_last_step, &err));
  melu_batch *batch = new_batch(&w);
  struct squared s = judge_of(model, shapes[_i].preset != NULL);
  for (int round = 0; round < 2; round++) { /* again in the same memory */
    s.n_calls = 0;
    WORLD_TRY(melu_meta_gradient_of(own, model, batch, squared_error, &s, &err));
    ck_assert_uint_eq(s.n_calls, N_TASKS);
  }
  WORLD_TRY(melu_meta_gradient(librarys, of_last_step, batch, &err));
  check_equal(own, librarys, model);
  melu_batch_free(batch);
  melu_gradient_free(librarys);
  melu_gradient_free(own);
  melu_model_free(of_last_step);
  melu_model_free(model);
  world_close(&w);
}
END_TEST

START_TEST(refuses) {
  struct world w;
  melu_gradient *g;
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_gradient_new(&g, w.model, &err));
  melu_batch *batch = new_batch(&w);
  struct squared s = judge_of(w.model, 0);
  s.stop_at = 3;
  ck_assert_int_eq(melu_meta_gradient_of(g, w.model, batch, squared_error, &s, &err), MELU_ECANCELED);
  ck_assert_uint_eq(err.index, 2);
  ck_assert(melu_gradient_loss(g, NULL) == 0 && melu_gradient_n_rows(g, "W1") == 0);
  /* What is not finite: a slope, the loss, the gradient that finite slopes come to, and, before the host hears of
   * them, the scores. */
  static const float spoilt[][2] = {{NAN, 0}, {0, INFINITY}};
  for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
    s = judge_of(w.model, 0);
    s.spoil_at = 5;
    s.slope = spoilt[i][0];
    s.loss = spoilt[i][1];
    ck_assert_int_eq(melu_meta_gradient_of(g, w.model, batch, squared_error, &s, &err), MELU_EDIVERGED);
    ck_assert_uint_eq(err.index, 4);
  }
  s = judge_of(w.model, 0);
  s.spoil_at = 5;
  s.slope = FLT_MAX;
  const float steep[6] = {50, 50, 50, 50, 50, 50};
  WORLD_TRY(melu_model_write(w.model, "W3", 0, 1, steep, &err));
  ck_assert_int_eq(melu_meta_gradient_of(g, w.model, batch, squared_error, &s, &err), MELU_EDIVERGED);
  ck_assert_msg(strstr(err.message, "the meta-gradient is not finite") != NULL, "%s", err.message);
  ck_assert(melu_gradient_loss(g, NULL) == 0 && melu_gradient_n_rows(g, "W1") == 0);
  s = judge_of(w.model, 0);
  const float large[8] = {3e38f, 3e38f, 3e38f, 3e38f, 3e38f, 3e38f, 3e38f, 3e38f};
  WORLD_TRY(melu_model_write(w.model, "b1", 0, 1, large, &err));
  ck_assert_int_eq(melu_meta_gradient_of(g, w.model, batch, squared_error, &s, &err), MELU_EDIVERGED);
  ck_assert_msg(strstr(err.message, "task 0: a score is not finite") != NULL, "%s", err.message);
  ck_assert_uint_eq(s.n_calls, 0);
  ck_assert_int_eq(melu_meta_gradient_of(g, NULL, batch, squared_error, &s, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_meta_gradient_of(g, w.model, NULL, squared_error, &s, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_meta_gradient_of(g, w.model, batch, NULL, &s, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_meta_gradient_of(NULL, w.model, batch, squared_error, &s, &err), MELU_EINVAL);
  melu_batch_clear(batch);
  ck_assert_int_eq(melu_meta_gradient_of(g, w.model, batch, squared_error, &s, &err), MELU_EINVAL);
  melu_batch_free(batch);
  melu_gradient_free(g);
  world_close(&w);
}
END_TEST

/* Every allocation refused once. */
START_TEST(no_memory) {
  int failed = 1;
  for (size_t n = 1; failed; n++) {
    struct test_heap heap = {0};
    const struct melu_allocator allocator = test_allocator(&heap);
    const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
    struct world w;
    melu_gradient *g;
    world_open(&w, &options, N_USERS);
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    melu_batch *batch = new_batch(&w);
    struct squared s = judge_of(w.model, 0);
    heap.fail_at = heap.made + n;
    const melu_status status = melu_meta_gradient_of(g, w.model, batch, squared_error, &s, &err);
    failed = status != MELU_OK;
    if (failed) ck_assert_int_eq(status, MELU_ENOMEM);
    melu_batch_free(batch);
    melu_gradient_free(g);
    world_close(&w);
    ck_assert_uint_eq(heap.live, 0);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("own_loss");
  TCase *tc = tcase_create("own_loss");
  tcase_set_timeout(tc, 120);
  tcase_add_loop_test(tc, same_loss_same_gradient, 0, sizeof shapes / sizeof *shapes);
  tcase_add_test(tc, refuses);
  tcase_add_test(tc, no_memory);
  suite_add_tcase(s, tc);
  return run_suite(s);
}
