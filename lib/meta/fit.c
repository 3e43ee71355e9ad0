/* SPDX-License-Identifier: BSD-3-Clause */
/* The training loop: epochs of episodes, drawn by counters. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "io/atomic_file.h"
#include "io/shards.h"
#include "meta/fit.h"
#include "meta/outer.h"
#include "meta/start.h"

/* ------------------------------------------------------------------------------------------------ options */

static void resolve_size(size_t *given, size_t preset, size_t otherwise) {
  if (*given == 0) *given = preset ? preset : otherwise;
}

static void resolve_prior(double *given, double preset) {
  if (*given == 0) *given = preset;
  if (*given < 0) *given = 0;
}

static melu_status check(const struct melu_fit_options *o, melu_error *err) {
  if (o->n_epochs > UINT32_MAX) return melu__fail(err, MELU_ELIMIT, "n_epochs is %zu, above 2^32 - 1", o->n_epochs);
  if (o->n_query > MELU__MAX_ROWS)
    return melu__fail(err, MELU_ELIMIT, "n_query is %zu, above %u", o->n_query, MELU__MAX_ROWS);
  if (!o->random_support && o->min_ratings < o->n_query)
    return melu__fail(err, MELU_EINVAL, "min_ratings is %zu, fewer than the %zu query ratings", o->min_ratings,
                      o->n_query);
  if (o->random_support && o->min_ratings < 2)
    return melu__fail(err, MELU_EINVAL, "min_ratings is %zu, below 2", o->min_ratings);
  const double priors[] = {o->prior_vectors, o->prior_offsets, o->prior_pooled, o->prior_dense};
  for (size_t i = 0; i < sizeof priors / sizeof *priors; i++)
    if (!isfinite(priors[i])) return melu__fail(err, MELU_ERANGE, "a prior is not finite");
  if (!(o->validation >= 0 && o->validation < 1))
    return melu__fail(err, MELU_ERANGE, "validation is %s, not in [0, 1)", melu__number_show(o->validation, 6).text);
  if (o->n_validation_users && (!o->validation_users || o->validation > 0))
    return melu__fail(err, MELU_EINVAL, "validation_users is NULL, or there is a share for validation too");
  if (o->patience && o->validation == 0 && o->n_validation_users == 0)
    return melu__fail(err, MELU_EINVAL, "patience is %zu, but no user is left out for validation", o->patience);
  if (o->resume && !o->checkpoint) return melu__fail(err, MELU_EINVAL, "resume is set, but there is no checkpoint");
  return MELU_OK;
}

static melu_status resolve(struct melu__fit *f, const struct melu_fit_options *given, melu_error *err) {
  struct melu_fit_options *o = &f->options;
  const struct melu__training *t = melu__preset_training(&f->model->options);
  const melu_status status = melu__options(o, sizeof *o, given, "melu_fit_options", err);
  if (status) return status;
  resolve_size(&o->n_epochs, t->n_epochs, 0);
  resolve_size(&o->batch_tasks, t->batch_tasks, 0);
  resolve_size(&o->n_query, t->n_query, 0);
  resolve_size(&o->max_ratings, t->max_ratings, 0);
  resolve_size(&o->max_support, t->max_support, SIZE_MAX);
  o->random_support = (o->random_support ? o->random_support : t->random_support) > 0;
  resolve_size(&o->min_ratings, o->random_support ? 2 : 0, melu__size_add(o->n_query, 3));
  o->cosine = (o->cosine ? o->cosine : t->cosine) > 0;
  resolve_prior(&o->prior_vectors, t->prior_vectors);
  resolve_prior(&o->prior_offsets, t->prior_offsets);
  resolve_prior(&o->prior_pooled, t->prior_pooled);
  resolve_prior(&o->prior_dense, t->prior_dense);
  f->optimizer_options = (struct melu_optimizer_options){.size = sizeof f->optimizer_options};
  const melu_status known =
      melu__options(&f->optimizer_options, sizeof f->optimizer_options, o->optimizer, "melu_optimizer_options", err);
  if (known) return known;
  f->optimizer_options.size = sizeof f->optimizer_options;
  if (f->optimizer_options.lr == 0) f->optimizer_options.lr = t->lr;
  const melu_status checked = check(o, err);
  if (o->max_support > MELU__MAX_ROWS - o->n_query) o->max_support = MELU__MAX_ROWS - o->n_query;
  return checked;
}

/* ------------------------------------------------------------------------------------------------- training */

static double learning_rate(const struct melu__fit *f) {
  const double lr = f->optimizer_options.lr,
               part = (double)f->n_done / ((double)f->n_users * (double)f->options.n_epochs);
  if (!f->options.cosine) return lr;
  const double rise = fmin(1, 0.3 + part / 0.1);
  return lr * (0.01 + 0.99 * rise * (1 + cos(acos(-1) * part)) / 2);
}

static int is_checkpoint_due(const struct melu__fit *f) {
  const size_t every = f->options.checkpoint_updates;
  if (!f->options.checkpoint || f->n_done == f->n_resumed) return 0;
  return f->stopping || (every ? f->optimizer->n_steps % every == 0 : f->n_done % f->n_users == 0);
}

/* A loss or gradient that is not finite is the work of the update before: that one is taken back. So a checkpoint is
 * written when the next gradient is known to be finite, and none has weights to be taken back. */
static melu_status update(struct melu__fit *f, melu_error *err) {
  melu_status status = melu_meta_gradient(f->gradient, f->model, f->batch, err);
  if (status == MELU_EDIVERGED) melu__undo_restore(&f->undo, f->model);
  if (!status && is_checkpoint_due(f)) status = melu__fit_save(f, err);
  if (!status && f->stopping) status = MELU_ECANCELED;
  if (!status && !melu__undo_save(&f->undo, f->gradient)) status = melu__fail_memory(err);
  if (!status) status = melu_optimizer_set_lr(f->optimizer, learning_rate(f), err);
  if (status) return status;
  melu__prior_add(&f->prior, f->gradient);
  status = melu_optimizer_step(f->optimizer, f->model, f->gradient, err);
  if (status) return status;
  const size_t n = melu_batch_n_tasks(f->batch);
  f->loss_sum += melu_gradient_loss(f->gradient, NULL) * (double)n;
  f->n_done += n;
  return MELU_OK;
}

/* A batch of users [i, end) of a part, as many as make one. */
static melu_status fill_batch(struct melu__fit *f, enum melu__part part, size_t *i, size_t end, uint32_t epoch,
                              melu_error *err) {
  struct melu__source *source = f->source;
  const size_t n = end - *i < f->options.batch_tasks ? end - *i : f->options.batch_tasks, first = *i;
  melu_batch_clear(f->batch);
  source->kind->begin(source);
  *i += n;
  return source->kind->add(source, f->batch, &f->episodes, part, 0, first, n, epoch, err);
}

static melu_status report(const struct melu__fit *f, uint32_t epoch, size_t n_tasks, melu_error *err) {
  const struct melu_progress progress = {.phase = "fit",
                                         .done = f->n_done,
                                         .total = (uint64_t)f->n_users * f->options.n_epochs,
                                         .epoch = (uint64_t)epoch + 1,
                                         .n_epochs = f->options.n_epochs,
                                         .loss = f->loss_sum / (double)n_tasks,
                                         .validation = f->validation};
  return melu__progress(f->ctx, &progress, err);
}

/* Where there is a checkpoint to be written, a cancelled training first looks at its next batch. */
static melu_status hear_host(struct melu__fit *f, uint32_t epoch, size_t n_tasks, melu_error *err) {
  if (f->stopping) return MELU_OK;
  const melu_status status = report(f, epoch, n_tasks, err);
  if (status != MELU_ECANCELED || !f->options.checkpoint) return status;
  f->stopping = 1;
  return MELU_OK;
}

/* From user `i` of the epoch's order on. */
static melu_status run_epoch(struct melu__fit *f, uint32_t epoch, size_t i, melu_error *err) {
  melu_status status = MELU_OK;
  if (i == 0) f->loss_sum = 0;
  while (i < f->n_users && !status) {
    status = fill_batch(f, MELU__TRAINED, &i, f->n_users, epoch, err);
    if (!status) status = update(f, err);
    if (!status) status = hear_host(f, epoch, i, err);
  }
  return status;
}

/* ----------------------------------------------------------------------------------------------- validation */

static void copy_all(const melu_model *model, real *all) {
  for (size_t i = 0; i < model->n_params; i++) {
    const size_t n = model->params[i].rows * model->params[i].cols;
    memcpy(all, model->params[i].data, n * sizeof *all);
    all += n;
  }
}

/* The users left out, asked the same after every epoch; the best weights are kept. */
static melu_status validate(struct melu__fit *f, uint32_t epoch, melu_error *err) {
  melu_status status = MELU_OK;
  double sum = 0;
  for (size_t i = 0; i < f->n_left_out && !status;) {
    status = fill_batch(f, MELU__LEFT_OUT, &i, f->n_left_out, UINT32_MAX, err);
    if (!status) status = melu_meta_gradient(f->gradient, f->model, f->batch, err);
    if (status == MELU_EDIVERGED) melu__undo_restore(&f->undo, f->model);
    if (!status) sum += melu_gradient_loss(f->gradient, NULL) * (double)melu_batch_n_tasks(f->batch);
  }
  if (status || f->n_left_out == 0) return status;
  f->validation = sum / (double)f->n_left_out;
  if (epoch > 0 && !(f->validation < f->best_validation)) return MELU_OK;
  f->best_validation = f->validation;
  f->best_epoch = epoch;
  copy_all(f->model, f->best);
  return MELU_OK;
}

/* The best weights and the last ones change places. */
static void exchange_best(struct melu__fit *f) {
  real *other = f->best;
  for (size_t i = 0; i < f->model->n_params; i++)
    for (size_t k = 0; k < f->model->params[i].rows * f->model->params[i].cols; k++, other++) {
      const real x = *other;
      *other = f->model->params[i].data[k];
      f->model->params[i].data[k] = x;
    }
  f->model->version++;
  f->model->largest = (real)melu__model_largest(f->model);
}

static melu_status run_epochs(struct melu__fit *f, melu_error *err) {
  melu_status status = MELU_OK;
  const uint64_t first = f->n_done / f->n_users;
  for (uint32_t epoch = (uint32_t)first; epoch < f->options.n_epochs && !status; epoch++) {
    f->source->kind->order(f->source, epoch);
    status = run_epoch(f, epoch, epoch == first ? (size_t)(f->n_done % f->n_users) : 0, err);
    if (!status) status = validate(f, epoch, err);
    if (f->options.patience && epoch - f->best_epoch >= f->options.patience) break;
  }
  return status || !f->stopping ? status : MELU_ECANCELED;
}

/* ---------------------------------------------------------------------------------------------------- noise */

enum { NOISE_USERS = 1000 };

/* How far ratings are from predictions: of the users left out, or, if there are none, of some that were trained on,
 * asked something new. */
static melu_status set_noise(struct melu__fit *f, melu_error *err) {
  const melu_model *model = f->model;
  const enum melu__part part = f->n_left_out ? MELU__LEFT_OUT : MELU__TRAINED;
  const size_t end = f->n_left_out ? f->n_left_out : f->n_users < NOISE_USERS ? f->n_users : NOISE_USERS;
  size_t i = 0;
  melu_status status = MELU_OK;
  double sum = 0, n = 0;
  if (!melu__has_variances(model)) return MELU_OK;
  if (model->options.loss == MELU_LOGISTIC) return MELU_OK;
  while (i < end && !status) {
    double of_batch = 0;
    status = fill_batch(f, part, &i, end, UINT32_MAX, err);
    if (!status) status = melu__noise(&of_batch, f->gradient, model, f->batch, err);
    if (status == MELU_EDIVERGED && !f->n_left_out) melu__undo_restore(&f->undo, f->model);
    for (size_t k = 0; k < f->batch->n_tasks; k++) n += f->batch->tasks[k].n_query;
    sum += of_batch;
  }
  if (!status && sum > 0) {
    *f->model->factors[MELU__F_NOISE] = (real)(sum / n);
    f->model->version++;
    f->model->largest = (real)melu__model_largest(model);
  }
  return status;
}

/* ------------------------------------------------------------------------------------------------------ all */

static struct melu__eligible eligible(const struct melu_fit_options *o) {
  return (struct melu__eligible){.seed = o->seed,
                                 .min_ratings = o->min_ratings,
                                 .max_ratings = o->max_ratings,
                                 .share = o->validation,
                                 .listed = o->validation_users,
                                 .n_listed = o->n_validation_users};
}

/* Makes room for the users' longest list. */
static melu_status prepare_users(struct melu__fit *f, melu_error *err) {
  f->n_users = melu__source_count(f->source, MELU__TRAINED);
  f->n_left_out = melu__source_count(f->source, MELU__LEFT_OUT);
  if (f->n_users == 0)
    return melu__fail(err, MELU_ENOTFOUND, "no user to train on has between %zu and %zu ratings",
                      f->options.min_ratings, f->options.max_ratings);
  f->episodes = (struct melu__episodes){.seed = f->options.seed,
                                        .n_query = f->options.n_query,
                                        .max_support = f->options.max_support,
                                        .random_support = f->options.random_support};
  f->episodes.positions = melu__alloc(&f->ctx->allocator, f->source->longest, sizeof *f->episodes.positions);
  return f->episodes.positions ? MELU_OK : melu__fail_memory(err);
}

static melu_status prepare(struct melu__fit *f, melu_error *err) {
  melu_status status = prepare_users(f, err);
  if (!status) status = melu_batch_new(&f->batch, f->ctx, f->source->users, err);
  if (!status) status = melu_gradient_new(&f->gradient, f->model, err);
  if (!status) status = melu_optimizer_new(&f->optimizer, f->model, &f->optimizer_options, err);
  if (!status && !melu__undo_init(&f->undo, f->model)) status = melu__fail_memory(err);
  f->prior = (struct melu__prior){.vectors = f->options.prior_vectors,
                                  .offsets = f->options.prior_offsets,
                                  .pooled = f->options.prior_pooled,
                                  .dense = f->options.prior_dense,
                                  .n_ratings = f->source->n_ratings};
  if (!status && !melu__prior_init(&f->prior, f->model)) status = melu__fail_memory(err);
  if (!status && f->n_left_out) {
    size_t n = 0;
    for (size_t i = 0; i < f->model->n_params; i++) n += f->model->params[i].rows * f->model->params[i].cols;
    f->best = melu__calloc(&f->ctx->allocator, n, sizeof *f->best); /* a checkpoint has it, filled or not */
    if (!f->best) status = melu__fail_memory(err);
  }
  return status;
}

/* Whether a checkpoint could be written there: better known now than after the first epoch. */
static melu_status try_checkpoint(const struct melu__fit *f, melu_error *err) {
  struct melu__atomic_file file;
  const melu_status status = melu__atomic_open(&file, f->ctx, f->options.checkpoint, err);
  if (!status) melu__atomic_abandon(&file);
  return status;
}

static void release(struct melu__fit *f) {
  const struct melu_allocator *a = &f->ctx->allocator;
  melu__undo_free(&f->undo);
  melu__prior_free(&f->prior);
  melu_optimizer_free(f->optimizer);
  melu_gradient_free(f->gradient);
  melu_batch_free(f->batch);
  melu__free(a, f->best);
  melu__free(a, f->episodes.positions);
}

/* With the source and the options. */
static melu_status train(struct melu__fit *f, melu_error *err) {
  melu_status status = prepare(f, err);
  if (!status && f->options.checkpoint) {
    melu__fit_identify(f);
    status = try_checkpoint(f, err);
  }
  if (!status && f->options.resume) status = melu__fit_resume(f, err);
  int started = 0;
  if (!status && f->n_done == 0 && f->model->version == 1) {
    status = melu__start(f->model, f->source, err);
    started = !status;
  }
  if (!status) status = run_epochs(f, err);
  if (started && f->n_done == 0) melu__model_initialise(f->model); /* no update followed: the model is as before */
  if (!status) {
    if (f->best) exchange_best(f);
    status = set_noise(f, err);
    if (f->best && status) exchange_best(f);
  }
  release(f);
  return status;
}

melu_status melu_fit(melu_model *model, const melu_dataset *data, const struct melu_fit_options *options,
                     melu_error *err) {
  struct melu__fit f = {.model = model};
  if (!model || !data) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "data" : "model");
  melu_status status = resolve(&f, options, err);
  if (status) return status;
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  if (!melu__schema_equal(model->schema, data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the data set has another schema than the model");
  f.ctx = model->ctx;
  const struct melu__eligible who = eligible(&f.options);
  status = melu__source_of_data(&f.source, f.ctx, data, &who, err);
  if (status) return status;
  status = train(&f, err);
  f.source->kind->free(f.source);
  return status;
}

melu_status melu_fit_shards(melu_model *model, const melu_shards *shards, const struct melu_fit_options *options,
                            melu_error *err) {
  const struct melu__slot_range all = {.n = 1, .first = 0, .end = 1};
  struct melu__fit f = {.model = model};
  if (!model || !shards) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "shards" : "model");
  melu_status status = resolve(&f, options, err);
  if (status) return status;
  if (f.options.n_validation_users)
    return melu__fail(err, MELU_EINVAL, "validation_users are positions in a data set; of shards a share is left out");
  if (!melu__schema_equal(model->schema, shards->items->schema))
    return melu__fail(err, MELU_ESCHEMA, "the shards have another schema than the model");
  f.ctx = model->ctx;
  const struct melu__eligible who = eligible(&f.options);
  status = melu__source_of_shards(&f.source, f.ctx, shards, &who, all, err);
  if (status) return status;
  status = train(&f, err);
  f.source->kind->free(f.source);
  return status;
}
