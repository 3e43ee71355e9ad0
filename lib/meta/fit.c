/* SPDX-License-Identifier: BSD-3-Clause */
/* The training loop: epochs of episodes, drawn by counters, so that a draw depends on seed, epoch and user alone. */
#include "base/error.h"
#include "base/rng.h"
#include "data/batch.h"
#include "model/model.h"
#include "model/undo.h"

struct fit {
  const melu_context *ctx;
  melu_model *model;
  const melu_dataset *data;
  struct melu_fit_options options;
  uint32_t *users; /* the eligible ones, in the epoch's order */
  size_t n_users;
  uint32_t *positions; /* as many as the longest list of theirs has ratings */
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  struct melu__undo undo; /* of the last update */
  uint64_t n_done;        /* tasks so far */
  double loss_sum;        /* of the epoch so far */
};

static melu_status resolve(struct melu_fit_options *o, const struct melu_fit_options *given, melu_error *err) {
  const melu_status status = melu__options(o, sizeof *o, given, "melu_fit_options", err);
  if (status) return status;
  if (o->n_epochs == 0) o->n_epochs = 30;
  if (o->batch_tasks == 0) o->batch_tasks = 32;
  if (o->n_query == 0) o->n_query = 10;
  if (o->min_ratings == 0) o->min_ratings = melu__size_add(o->n_query, 3);
  if (o->max_ratings == 0) o->max_ratings = 100;
  if (o->n_epochs > UINT32_MAX) return melu__fail(err, MELU_ELIMIT, "n_epochs is %zu, above 2^32 - 1", o->n_epochs);
  if (o->n_query > MELU__MAX_ROWS)
    return melu__fail(err, MELU_ELIMIT, "n_query is %zu, above %u", o->n_query, MELU__MAX_ROWS);
  if (o->min_ratings < o->n_query)
    return melu__fail(err, MELU_EINVAL, "min_ratings is %zu, fewer than the %zu query ratings", o->min_ratings,
                      o->n_query);
  if (o->max_support == 0 || o->max_support > MELU__MAX_ROWS - o->n_query) o->max_support = MELU__MAX_ROWS - o->n_query;
  return MELU_OK;
}

/* Finds the eligible users, and makes room for them and their longest list. */
static melu_status find_users(struct fit *f, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  const size_t n = melu_dataset_n_users(f->data);
  size_t longest = 0;
  f->users = melu__alloc(a, n, sizeof *f->users);
  if (!f->users) return melu__fail_memory(err);
  for (uint32_t u = 0; u < n; u++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n_ratings = melu_dataset_ratings(f->data, u, &items, &ratings);
    if (n_ratings < f->options.min_ratings || n_ratings > f->options.max_ratings) continue;
    f->users[f->n_users++] = u;
    if (n_ratings > longest) longest = n_ratings;
  }
  if (f->n_users == 0)
    return melu__fail(err, MELU_ENOTFOUND, "no user has between %zu and %zu ratings", f->options.min_ratings,
                      f->options.max_ratings);
  f->positions = melu__alloc(a, longest, sizeof *f->positions);
  return f->positions ? MELU_OK : melu__fail_memory(err);
}

static melu_status add_episode(struct fit *f, uint32_t user, uint32_t epoch, melu_error *err) {
  const uint32_t *items;
  const float *ratings;
  const size_t n = melu_dataset_ratings(f->data, user, &items, &ratings);
  size_t n_support = n - f->options.n_query;
  for (uint32_t i = 0; i < n; i++) f->positions[i] = i;
  struct melu__rng rng = melu__rng(f->options.seed, MELU__RNG_EPISODE, epoch, user);
  melu__rng_shuffle(&rng, f->positions, n);
  if (n_support > f->options.max_support) n_support = f->options.max_support;
  return melu_batch_add(f->batch, user, f->positions + f->options.n_query, n_support, f->positions, f->options.n_query,
                        err);
}

/* A loss or gradient that is not finite is the work of the update before: that one is taken back. */
static melu_status update(struct fit *f, melu_error *err) {
  melu_status status = melu_meta_gradient(f->gradient, f->model, f->batch, err);
  if (status == MELU_EDIVERGED) melu__undo_restore(&f->undo, f->model);
  if (!status && !melu__undo_save(&f->undo, f->gradient)) status = melu__fail_memory(err);
  if (!status) status = melu_optimizer_step(f->optimizer, f->model, f->gradient, err);
  if (status) return status;
  const size_t n = melu_batch_n_tasks(f->batch);
  f->loss_sum += melu_gradient_loss(f->gradient, NULL) * (double)n;
  f->n_done += n;
  return MELU_OK;
}

static melu_status run_epoch(struct fit *f, uint32_t epoch, melu_error *err) {
  melu_status status = MELU_OK;
  struct melu__rng rng = melu__rng(f->options.seed, MELU__RNG_ORDER, epoch, 0);
  melu__rng_shuffle(&rng, f->users, f->n_users);
  f->loss_sum = 0;
  for (size_t i = 0; i < f->n_users && !status;) {
    melu_batch_clear(f->batch);
    for (size_t k = 0; k < f->options.batch_tasks && i < f->n_users && !status; k++)
      status = add_episode(f, f->users[i++], epoch, err);
    if (!status) status = update(f, err);
    if (status) return status;
    const struct melu_progress progress = {.phase = "fit",
                                           .done = f->n_done,
                                           .total = (uint64_t)f->n_users * f->options.n_epochs,
                                           .epoch = (uint64_t)epoch + 1,
                                           .n_epochs = f->options.n_epochs,
                                           .loss = f->loss_sum / (double)i};
    status = melu__progress(f->ctx, &progress, err);
  }
  return status;
}

static melu_status prepare(struct fit *f, melu_error *err) {
  melu_status status = find_users(f, err);
  if (!status) status = melu_batch_new(&f->batch, f->ctx, f->data, err);
  if (!status) status = melu_gradient_new(&f->gradient, f->model, err);
  if (!status) status = melu_optimizer_new(&f->optimizer, f->model, f->options.optimizer, err);
  if (!status && !melu__undo_init(&f->undo, f->model)) status = melu__fail_memory(err);
  return status;
}

melu_status melu_fit(melu_model *model, const melu_dataset *data, const struct melu_fit_options *options,
                     melu_error *err) {
  struct fit f = {.model = model, .data = data};
  if (!model || !data) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "data" : "model");
  melu_status status = resolve(&f.options, options, err);
  if (status) return status;
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  if (!melu__schema_equal(model->schema, data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the data set has another schema than the model");
  f.ctx = model->ctx;
  status = prepare(&f, err);
  for (uint32_t epoch = 0; epoch < f.options.n_epochs && !status; epoch++) status = run_epoch(&f, epoch, err);
  melu__undo_free(&f.undo);
  melu_optimizer_free(f.optimizer);
  melu_gradient_free(f.gradient);
  melu_batch_free(f.batch);
  melu__free(&f.ctx->allocator, f.positions);
  melu__free(&f.ctx->allocator, f.users);
  return status;
}
