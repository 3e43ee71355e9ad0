/* SPDX-License-Identifier: BSD-3-Clause */
/* Choosing settings by users who are not trained on. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "serve/evaluate.h"

struct choice {
  const melu_context *ctx;
  const melu_dataset *data;
  struct melu_choose_options options;
  struct melu_evaluate_options how;
  uint32_t *users; /* who can be judged; the first ones are */
  size_t n_users;
};

static melu_status resolve(struct choice *c, const struct melu_choose_options *given, melu_error *err) {
  struct melu_choose_options *o = &c->options;
  melu_status status = melu__options(o, sizeof *o, given, "melu_choose_options", err);
  if (!status) status = melu__options(&c->how, sizeof c->how, o->evaluate, "melu_evaluate_options", err);
  if (status) return status;
  if (o->validation == 0) o->validation = 0.1;
  if (!(o->validation > 0 && o->validation < 1))
    return melu__fail(err, MELU_ERANGE, "validation is %s, not in (0, 1)", melu__number_show(o->validation, 6).text);
  c->how.size = sizeof c->how;
  if (c->how.users) return melu__fail(err, MELU_EINVAL, "evaluate.users is not NULL: they are drawn");
  return MELU_OK;
}

static melu_status draw_users(struct choice *c, melu_error *err) {
  struct melu_evaluate_options o;
  const melu_status status = melu__evaluate_options(&o, &c->how, err);
  if (status) return status;
  const size_t n = melu_dataset_n_users(c->data);
  size_t n_eligible = 0;
  c->users = melu__alloc(&c->ctx->allocator, n, sizeof *c->users);
  if (!c->users) return melu__fail_memory(err);
  for (uint32_t u = 0; u < n; u++) {
    const size_t n_ratings = melu_dataset_ratings(c->data, u, NULL, NULL);
    if (n_ratings >= o.min_ratings && n_ratings <= o.max_ratings) c->users[n_eligible++] = u;
  }
  struct melu__rng rng = melu__rng(c->options.seed, MELU__RNG_ORDER, UINT32_MAX, 2);
  melu__rng_shuffle(&rng, c->users, n_eligible);
  c->n_users = (size_t)ceil(c->options.validation * (double)n_eligible);
  if (c->n_users) return MELU_OK;
  return melu__fail(err, MELU_ENOTFOUND, "no user has between %zu and %zu ratings", o.min_ratings, o.max_ratings);
}

/* What one candidate comes to. */
static melu_status judge(double *error, const struct choice *c, const struct melu_model_options *shape,
                         const struct melu_fit_options *fit, melu_error *err) {
  struct melu_fit_options options = {.size = sizeof options};
  struct melu_evaluate_options how = c->how;
  struct melu_model_options resolved = {.size = sizeof resolved};
  struct melu_metrics metrics;
  melu_model *model = NULL;
  melu_status status = melu__options(&options, sizeof options, fit, "melu_fit_options", err);
  options.size = sizeof options;
  options.validation_users = how.users = c->users;
  options.n_validation_users = how.n_users = c->n_users;
  if (!status) status = melu_model_new(&model, c->ctx, melu_dataset_schema(c->data), shape, err);
  if (!status) status = melu_fit(model, c->data, &options, err);
  if (!status) status = melu_evaluate(&metrics, model, c->data, &how, err);
  if (!status) status = melu_model_get_options(&resolved, model, err);
  if (!status) *error = resolved.loss == MELU_LOGISTIC ? metrics.log_loss : metrics.mae;
  melu_model_free(model);
  if (status != MELU_EDIVERGED) return status;
  *error = INFINITY;
  return MELU_OK;
}

melu_status melu_choose(size_t *best, double *errors, const melu_context *ctx, const melu_dataset *data,
                        const struct melu_model_options *models, const struct melu_fit_options *fits, size_t n,
                        const struct melu_choose_options *options, melu_error *err) {
  struct choice c = {.ctx = ctx, .data = data};
  if (!best || !ctx || !data || !models || !fits || n == 0)
    return melu__fail(err, MELU_EINVAL, "an argument is NULL, or there is no candidate");
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  if (ctx->collective.n_ranks > 1) return melu__fail(err, MELU_ESTATE, "settings are chosen by one rank alone");
  melu_status status = resolve(&c, options, err);
  if (!status) status = draw_users(&c, err);
  double *found = melu__alloc(&ctx->allocator, n, sizeof *found);
  if (!status && !found) status = melu__fail_memory(err);
  size_t smallest = 0;
  for (size_t i = 0; i < n && !status; i++) {
    status =
        judge(&found[i], &c, melu__options_at(models, models->size, i), melu__options_at(fits, fits->size, i), err);
    if (!status && found[i] < found[smallest]) smallest = i;
  }
  if (!status && !isfinite(found[smallest])) status = melu__fail(err, MELU_EDIVERGED, "every candidate diverged");
  if (!status) {
    if (errors) memcpy(errors, found, n * sizeof *errors);
    *best = smallest;
  }
  melu__free(&ctx->allocator, found);
  melu__free(&ctx->allocator, c.users);
  return status;
}
