/* SPDX-License-Identifier: BSD-3-Clause */
/* Options of models and trainings, small ones and wrong ones. */
#include <math.h>

#include "api.h"

static void draw_hidden(struct api *a, struct melu_model_options *o) {
  o->n_hidden = API_ONE_OF(a, size_t, 1, 2, 0, MELU_NONE, 9);
  const size_t n = o->n_hidden == MELU_NONE ? 0 : o->n_hidden;
  size_t *hidden = api_memory(a, n, sizeof *hidden);
  for (size_t i = 0; i < n; i++) hidden[i] = API_ONE_OF(a, size_t, 3, 1, 2, 4, 5, 8, 17, 0, 65537);
  o->hidden = api_seldom(a) ? NULL : hidden;
}

struct melu_model_options api_model_options(struct api *a) {
  struct melu_model_options o = {.size = api_size(a, sizeof o)};
  o.network = (melu_network)API_ONE_OF(a, int, 0, MELU_FACTORS, MELU_LAYERS, MELU_FACTORS, 3, -1);
  draw_hidden(a, &o);
  o.preset = API_ONE_OF(a, const char *, NULL, "best", "melu", "best", "", "none");
  o.seed = fuzz_byte(&a->in);
  o.inner_steps = API_ONE_OF(a, size_t, 2, 1, 3, 0, MELU_NONE, 65);
  o.inner_lr = API_ONE_OF(a, double, 0, 0.01, 0.5, 100, 1e30, -1, NAN, INFINITY);
  o.first_order = API_ONE_OF(a, int, 0, 1, -1);
  o.rating_min = API_ONE_OF(a, double, 0, 0, 1, 6, NAN, -INFINITY);
  o.rating_max = API_ONE_OF(a, double, 0, 0, 5, 1, INFINITY);
  o.rank = API_ONE_OF(a, size_t, 3, 1, 2, 5, 8, 0, 256, MELU_NONE);
  o.rule = (melu_rule)API_ONE_OF(a, int, 0, MELU_STEPS, MELU_CLOSED_FORM, 3);
  o.adapt = API_ONE_OF(a, unsigned, 0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 0x80000000u);
  o.rates = (melu_rates)API_ONE_OF(a, int, 0, 1, 2, 3, 4, -1);
  o.loss = (melu_loss)API_ONE_OF(a, int, 0, 1, 2, 3, 4, 5, 6, 7);
  o.multi_step = API_ONE_OF(a, int, 0, 1, -1);
  o.history = API_ONE_OF(a, int, 0, 1, -1);
  o.learn_precision = API_ONE_OF(a, int, 0, 1, -1);
  return o;
}

struct melu_optimizer_options api_optimizer_options(struct api *a) {
  struct melu_optimizer_options o = {.size = api_size(a, sizeof o)};
  o.kind = (melu_optimizer_kind)API_ONE_OF(a, int, MELU_ADAM, MELU_ADAMW, MELU_SGD, 3);
  o.lr = API_ONE_OF(a, double, 0, 0.1, 10, 1e30, -1, NAN);
  o.beta1 = API_ONE_OF(a, double, 0, 0.5, 0.999, 1, -0.5, NAN);
  o.beta2 = API_ONE_OF(a, double, 0, 0.9, 0.1, 1, 2, NAN);
  o.epsilon = API_ONE_OF(a, double, 0, 1, 1e-300, -1, INFINITY);
  o.weight_decay = API_ONE_OF(a, double, 0, 0.1, 10, -1, INFINITY);
  o.clip_value = API_ONE_OF(a, double, 0, 1, -1, 1e-30, NAN);
  o.clip_norm = API_ONE_OF(a, double, 0, 1, -1, 1e-30, NAN);
  o.dense = API_ONE_OF(a, int, 0, 1, -1);
  return o;
}

struct melu_fit_options api_fit_options(struct api *a) {
  struct melu_fit_options o = {.size = sizeof o}; /* with a smaller one all epochs of a preset would be trained */
  struct melu_optimizer_options *optimizer = api_memory(a, 1, sizeof *optimizer);
  *optimizer = api_optimizer_options(a);
  o.optimizer = api_below(a, 2) ? optimizer : NULL;
  o.n_epochs = API_ONE_OF(a, size_t, 1, 2, 3);
  o.batch_tasks = API_ONE_OF(a, size_t, 0, 1, 2, 3, 7, SIZE_MAX);
  o.n_query = API_ONE_OF(a, size_t, 1, 2, 3, 0, 70000, SIZE_MAX);
  o.min_ratings = API_ONE_OF(a, size_t, 2, 1, 3, 5, 0, SIZE_MAX);
  o.max_ratings = API_ONE_OF(a, size_t, 0, 5, 3, 1, MELU_NONE);
  o.max_support = API_ONE_OF(a, size_t, 0, 1, 2, MELU_NONE, 70000);
  o.seed = fuzz_byte(&a->in);
  o.random_support = API_ONE_OF(a, int, 0, 1, -1);
  o.cosine = API_ONE_OF(a, int, 0, 1, -1);
  o.prior_vectors = API_ONE_OF(a, double, 0, 1, -1, 1e30, NAN);
  o.prior_offsets = API_ONE_OF(a, double, 0, 1, -1, 1e30, INFINITY);
  o.prior_pooled = API_ONE_OF(a, double, 0, 1, -1, 1e30, NAN);
  o.prior_dense = API_ONE_OF(a, double, 0, 1, -1, 1e30, NAN);
  o.validation = API_ONE_OF(a, double, 0, 0.3, 0.01, 1, -1, NAN);
  o.patience = API_ONE_OF(a, size_t, 0, 1, SIZE_MAX);
  o.n_validation_users = API_ONE_OF(a, size_t, 0, 1, 2, 5);
  o.validation_users = api_ids(a, o.n_validation_users, API_WORLD_USERS);
  o.checkpoint = api_below(a, 4) == 3 ? a->checkpoint_path : NULL;
  o.checkpoint_updates = API_ONE_OF(a, size_t, 0, 1, 2, SIZE_MAX);
  o.resume = API_ONE_OF(a, int, 0, 1);
  return o;
}
