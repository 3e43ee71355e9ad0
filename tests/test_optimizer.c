/* SPDX-License-Identifier: BSD-3-Clause */
/* Optimizers and gradients: what they refuse, when a step would go too far, and rows and parameters of any size. */
#include <math.h>

#include "run_suite.h"
#include "world.h"

enum { N_USERS = 10 };

static melu_error err;

/* A world, the gradient of its users, and an optimizer. */
struct scene {
  struct world w;
  melu_batch *batch;
  melu_gradient *g;
  melu_optimizer *opt;
};

static void open_scene(struct scene *s, const struct melu_optimizer_options *options) {
  const uint32_t first = 0, second = 1;
  world_open(&s->w, NULL, N_USERS);
  WORLD_TRY(melu_batch_new(&s->batch, s->w.ctx, s->w.data, &err));
  for (uint32_t u = 0; u < N_USERS; u++) WORLD_TRY(melu_batch_add(s->batch, u, &first, 1, &second, 1, &err));
  WORLD_TRY(melu_gradient_new(&s->g, s->w.model, &err));
  WORLD_TRY(melu_optimizer_new(&s->opt, s->w.model, options, &err));
  WORLD_TRY(melu_meta_gradient(s->g, s->w.model, s->batch, &err));
}

static void close_scene(struct scene *s) {
  melu_optimizer_free(s->opt);
  melu_gradient_free(s->g);
  melu_batch_free(s->batch);
  world_close(&s->w);
}

#define REFUSED(call, status, part)                                               \
  do {                                                                            \
    ck_assert_int_eq(call, status);                                               \
    ck_assert_msg(strstr(err.message, part) != NULL, "message: %s", err.message); \
  } while (0)

START_TEST(options_out_of_range) {
#define OPTIONS .size = sizeof(struct melu_optimizer_options)
  static const struct {
    struct melu_optimizer_options options;
    melu_status status;
    const char *part;
  } bad[] = {
      {{OPTIONS, .kind = (melu_optimizer_kind)77}, MELU_EINVAL, "77"},
      {{OPTIONS, .lr = -1}, MELU_ERANGE, "lr is -1"},
      {{OPTIONS, .lr = HUGE_VAL}, MELU_ERANGE, "lr"},
      {{OPTIONS, .beta1 = 1}, MELU_ERANGE, "beta1 is 1"},
      {{OPTIONS, .beta2 = -0.5}, MELU_ERANGE, "beta2"},
      {{OPTIONS, .beta2 = 0.5}, MELU_ERANGE, "root of beta2"},
      {{OPTIONS, .epsilon = 1e-40}, MELU_ERANGE, "epsilon"},
      {{OPTIONS, .weight_decay = -1}, MELU_ERANGE, "weight_decay"},
      {{OPTIONS, .clip_value = (double)NAN}, MELU_ERANGE, "clip"},
      {{OPTIONS, .clip_norm = -1}, MELU_ERANGE, "clip"},
      {{.size = 3}, MELU_EINVAL, "melu_optimizer_options"},
  };
  struct world w;
  world_open(&w, NULL, 1);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    melu_optimizer *opt = (melu_optimizer *)&w;
    REFUSED(melu_optimizer_new(&opt, w.model, &bad[i].options, &err), bad[i].status, bad[i].part);
    ck_assert_ptr_null(opt);
  }
  world_close(&w);
}
END_TEST

START_TEST(arguments_that_are_not_there) {
  struct scene s;
  melu_optimizer *opt = NULL;
  melu_gradient *g = NULL;
  const melu_gradient *none = NULL;
  float values[64];
  uint32_t rows[8];
  open_scene(&s, NULL);
  REFUSED(melu_optimizer_new(NULL, s.w.model, NULL, &err), MELU_EINVAL, "out is NULL");
  REFUSED(melu_optimizer_new(&opt, NULL, NULL, &err), MELU_EINVAL, "model is NULL");
  REFUSED(melu_optimizer_set_lr(NULL, 1, &err), MELU_EINVAL, "optimizer is NULL");
  REFUSED(melu_optimizer_set_lr(s.opt, -1, &err), MELU_ERANGE, "lr");
  REFUSED(melu_optimizer_step(NULL, s.w.model, s.g, &err), MELU_EINVAL, "optimizer is NULL");
  REFUSED(melu_optimizer_step(s.opt, NULL, s.g, &err), MELU_EINVAL, "model is NULL");
  REFUSED(melu_optimizer_step(s.opt, s.w.model, NULL, &err), MELU_EINVAL, "gradient is NULL");
  REFUSED(melu_gradient_new(NULL, s.w.model, &err), MELU_EINVAL, "out is NULL");
  REFUSED(melu_gradient_new(&g, NULL, &err), MELU_EINVAL, "model is NULL");
  REFUSED(melu_meta_gradient(NULL, s.w.model, s.batch, &err), MELU_EINVAL, "gradient is NULL");
  REFUSED(melu_meta_gradient(s.g, NULL, s.batch, &err), MELU_EINVAL, "model is NULL");
  REFUSED(melu_meta_gradient(s.g, s.w.model, NULL, &err), MELU_EINVAL, "batch is NULL");
  REFUSED(melu_gradient_read(values, none, "W3", &err), MELU_EINVAL, "gradient is NULL");
  REFUSED(melu_gradient_read(values, s.g, NULL, &err), MELU_EINVAL, "name is NULL");
  REFUSED(melu_gradient_read(NULL, s.g, "W3", &err), MELU_EINVAL, "values is NULL");
  REFUSED(melu_gradient_read_rows(rows, values, s.g, NULL, &err), MELU_EINVAL, "name is NULL");
  REFUSED(melu_gradient_read_rows(NULL, values, s.g, "E.age", &err), MELU_EINVAL, "rows is NULL");
  REFUSED(melu_gradient_read_rows(rows, NULL, s.g, "E.age", &err), MELU_EINVAL, "values is NULL");
  ck_assert_uint_eq(melu_gradient_n_rows(none, "W3"), 0);
  ck_assert_uint_eq(melu_gradient_n_rows(s.g, NULL), 0);
  ck_assert_uint_eq(melu_gradient_n_rows(s.g, "nothing"), 0);
  ck_assert(melu_gradient_loss(NULL, NULL) == 0);
  close_scene(&s);
}
END_TEST

/* A new gradient has no rows and no loss; a dense parameter has all its rows, in order. */
START_TEST(rows_of_a_gradient) {
  struct scene s;
  melu_gradient *empty;
  const double *losses = (const double *)&s;
  float all[8 * 6], by_row[8 * 6];
  uint32_t rows[8];
  open_scene(&s, NULL);
  WORLD_TRY(melu_gradient_new(&empty, s.w.model, &err));
  ck_assert(melu_gradient_loss(empty, &losses) == 0);
  ck_assert_ptr_null(losses);
  ck_assert_uint_eq(melu_gradient_n_rows(empty, "W2"), 0);
  ck_assert_uint_eq(melu_gradient_n_rows(empty, "E.genre"), 0);
  WORLD_TRY(melu_gradient_read_rows(NULL, NULL, empty, "W2", &err));
  WORLD_TRY(melu_gradient_read_rows(NULL, NULL, empty, "E.genre", &err));
  ck_assert_uint_eq(melu_gradient_n_rows(s.g, "W2"), 6);
  WORLD_TRY(melu_gradient_read(all, s.g, "W2", &err));
  WORLD_TRY(melu_gradient_read_rows(rows, by_row, s.g, "W2", &err));
  for (uint32_t k = 0; k < 6; k++) ck_assert_uint_eq(rows[k], k);
  ck_assert_mem_eq(all, by_row, sizeof all);
  melu_gradient_free(empty);
  close_scene(&s);
}
END_TEST

static void refuse_step(struct scene *s) {
  size_t n;
  float *before = world_weights(s->w.model, &n);
  ck_assert_int_eq(melu_optimizer_step(s->opt, s->w.model, s->g, &err), MELU_EDIVERGED);
  float *after = world_weights(s->w.model, &n);
  ck_assert_mem_eq(before, after, n * sizeof *before);
  free(before);
  free(after);
}

/* A step that might make a number infinite is refused, and changes nothing, whatever in it is large. */
START_TEST(a_step_too_far) {
  static const struct melu_optimizer_options wild[] = {
      {OPTIONS, .kind = MELU_SGD, .lr = 1e25, .clip_value = -1},
      {OPTIONS, .kind = MELU_SGD, .lr = 1e-30, .weight_decay = 1e25},
      {OPTIONS, .kind = MELU_SGD, .lr = 1e12, .weight_decay = 1e12},
      {OPTIONS, .lr = 1e25},
  };
  for (size_t k = 0; k < sizeof wild / sizeof *wild; k++) {
    struct scene s;
    open_scene(&s, &wild[k]);
    refuse_step(&s);
    close_scene(&s);
  }
}
END_TEST

static int steep_loss(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                      float *slopes) {
  (void)arg, (void)task, (void)scores, (void)ratings;
  *loss = 0;
  for (size_t i = 0; i < n; i++) slopes[i] = 1e25F;
  return 0;
}

/* However short the step is. */
START_TEST(a_gradient_that_is_large) {
  const struct melu_optimizer_options options = {OPTIONS, .kind = MELU_SGD, .lr = 1e-30, .clip_value = -1};
  struct scene s;
  open_scene(&s, &options);
  WORLD_TRY(melu_meta_gradient_of(s.g, s.w.model, s.batch, steep_loss, NULL, &err));
  refuse_step(&s);
  close_scene(&s);
}
END_TEST

/* What the weights would grow to is no float. */
START_TEST(weights_that_are_large) {
  struct scene s;
  const struct melu_optimizer_options options = {OPTIONS, .kind = MELU_SGD, .lr = 1, .weight_decay = 1e15};
  float row[6] = {1e30f, -1e30f, 1, 0, -1, 2}, after[6];
  open_scene(&s, &options);
  WORLD_TRY(melu_model_write(s.w.model, "W3", 0, 1, row, &err));
  ck_assert_int_eq(melu_optimizer_step(s.opt, s.w.model, s.g, &err), MELU_EDIVERGED);
  WORLD_TRY(melu_model_read(after, s.w.model, "W3", 0, 1, &err));
  ck_assert_mem_eq(row, after, sizeof row);
  close_scene(&s);
}
END_TEST

/* lr times decay is 1: each step takes all of the weights away but the gradient's, while the bound on them doubles, so
 * that it is above all floats in the end and the weights themselves have to be looked at. */
START_TEST(a_bound_that_has_become_useless) {
  struct scene s;
  const struct melu_optimizer_options options = {OPTIONS, .kind = MELU_SGD, .lr = 1e-3, .weight_decay = 1e3};
  size_t n;
  open_scene(&s, &options);
  for (int k = 0; k < 300; k++) WORLD_TRY(melu_optimizer_step(s.opt, s.w.model, s.g, &err));
  float *weights = world_weights(s.w.model, &n);
  for (size_t i = 0; i < n; i++) ck_assert(isfinite(weights[i]));
  free(weights);
  close_scene(&s);
}
END_TEST

/* An optimizer and a gradient of another model of the same kind. */
START_TEST(of_another_model) {
  struct scene s, other;
  open_scene(&s, NULL);
  open_scene(&other, NULL);
  REFUSED(melu_optimizer_step(s.opt, other.w.model, other.g, &err), MELU_EINVAL, "optimizer");
  REFUSED(melu_optimizer_step(s.opt, s.w.model, other.g, &err), MELU_EINVAL, "gradient");
  WORLD_TRY(melu_optimizer_step(s.opt, s.w.model, s.g, &err));
  close_scene(&other);
  close_scene(&s);
}
END_TEST

/* Rows longer than what a thread is given at once, and more of them than make a piece: SGD without decay and clips is
 * w - lr g everywhere. */
START_TEST(parameters_in_pieces) {
  enum { N_WIDE = 5, WIDTH = 4096 };
  const struct melu_optimizer_options plain = {OPTIONS, .kind = MELU_SGD, .lr = 0.5, .clip_value = -1};
  struct world w;
  melu_batch *batch;
  melu_gradient *g;
  melu_optimizer *opt;
  const uint32_t id = 1, first = 0, second = 1;
  struct melu_value values[N_WIDE];
  for (size_t f = 0; f < N_WIDE; f++) values[f] = (struct melu_value){.ids = &id, .n_ids = 1};
  const size_t hidden = 3;
  const struct melu_model_options options = {
      .size = sizeof options, .hidden = &hidden, .n_hidden = 1, .inner_steps = 1, .inner_lr = 1e-3};
  WORLD_TRY(melu_context_new(&w.ctx, NULL, &err));
  WORLD_TRY(melu_schema_new(&w.schema, w.ctx, &err));
  for (size_t f = 0; f < N_WIDE; f++) {
    const char name[2] = {(char)('a' + f), '\0'};
    const struct melu_field field = {
        .size = sizeof field, .name = name, .owner = MELU_ITEM, .n_values = 2, .width = WIDTH};
    WORLD_TRY(melu_schema_add(w.schema, &field, &err));
  }
  WORLD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  for (uint64_t i = 0; i < 2; i++) WORLD_TRY(melu_dataset_add_item(w.data, i, values, NULL, &err));
  WORLD_TRY(melu_dataset_add_user(w.data, 1, NULL, NULL, &err));
  for (uint64_t i = 0; i < 2; i++) WORLD_TRY(melu_dataset_add_rating(w.data, 1, i, 3, &err));
  WORLD_TRY(melu_dataset_freeze(w.data, &err));
  WORLD_TRY(melu_model_new(&w.model, w.ctx, w.schema, &options, &err));
  WORLD_TRY(melu_batch_new(&batch, w.ctx, w.data, &err));
  WORLD_TRY(melu_batch_add(batch, 0, &first, 1, &second, 1, &err));
  WORLD_TRY(melu_gradient_new(&g, w.model, &err));
  WORLD_TRY(melu_optimizer_new(&opt, w.model, &plain, &err));
  WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
  size_t n, n_after;
  float *before = world_weights(w.model, &n), *slope = malloc(n * sizeof *slope);
  ck_assert_ptr_nonnull(slope);
  for (size_t i = 0, at = 0; i < melu_model_n_params(w.model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, w.model, i, &err));
    WORLD_TRY(melu_gradient_read(slope + at, g, p.name, &err));
    at += p.rows * p.cols;
  }
  WORLD_TRY(melu_optimizer_step(opt, w.model, g, &err));
  float *after = world_weights(w.model, &n_after);
  size_t n_moved = 0;
  float worst = 0;
  for (size_t i = 0; i < n; i++) {
    worst = fmaxf(worst, fabsf(after[i] - (before[i] - 0.5f * slope[i])) / (1 + fabsf(before[i]) + fabsf(slope[i])));
    n_moved += after[i] != before[i];
  }
  ck_assert_float_lt(worst, 1e-6f);
  ck_assert_uint_gt(n_moved, N_WIDE * WIDTH);
  free(before);
  free(after);
  free(slope);
  melu_optimizer_free(opt);
  melu_gradient_free(g);
  melu_batch_free(batch);
  world_close(&w);
}
END_TEST

int main(void) {
  Suite *s = suite_create("optimizer");
  TCase *t = tcase_create("steps");
  tcase_add_test(t, options_out_of_range);
  tcase_add_test(t, arguments_that_are_not_there);
  tcase_add_test(t, rows_of_a_gradient);
  tcase_add_test(t, a_step_too_far);
  tcase_add_test(t, a_gradient_that_is_large);
  tcase_add_test(t, weights_that_are_large);
  tcase_add_test(t, a_bound_that_has_become_useless);
  tcase_add_test(t, of_another_model);
  tcase_add_test(t, parameters_in_pieces);
  suite_add_tcase(s, t);
  return run_suite(s);
}
