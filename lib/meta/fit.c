/* SPDX-License-Identifier: BSD-3-Clause */
/* The training loop: epochs of episodes, drawn by counters. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "io/atomic_file.h"
#include "meta/fit.h"
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

/* ------------------------------------------------------------------------------------------------- batches */

/* The schedule's next batch; 0 tasks if there is none. */
static melu_status next_batch(struct melu__fit *f, struct melu__schedule *schedule, enum melu__list list, uint32_t draw,
                              uint64_t most, melu_error *err) {
  struct melu__step *step = &f->step;
  const size_t n = melu__schedule_next(schedule, most < f->options.batch_tasks ? most : f->options.batch_tasks);
  const uint64_t *first = schedule->first + f->share.own.lo, *end = schedule->end + f->share.own.lo;
  step->parts =
      (struct melu__batch_parts){.n_slots = f->share.n_slots, .own = f->share.own, .end = step->n_tasks, .n_tasks = n};
  if (n == 0) return MELU_OK;
  const melu_status status = f->source.fill(f->source.arg, step->batch, list, draw, first, end, step->n_tasks, err);
  for (size_t i = 0; i < step->batch->n_tasks; i++) step->parts.n_query += step->batch->tasks[i].n_query;
  return status;
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

/* Makes the update for which the gradient is there. */
static melu_status apply(struct melu__fit *f, melu_error *err) {
  const struct melu__share *share = &f->share;
  struct melu__size size = {0, 0};
  if (!melu__undo_save(&f->undo, f->gradient)) return melu__fail_memory(err);
  melu_status status = melu_optimizer_set_lr(f->optimizer, learning_rate(f), err);
  if (status) return status;
  melu__prior_add(&f->prior, f->gradient);
  memset(f->by_slot, 0, share->n_slots * sizeof *f->by_slot);
  status = melu__optimizer_squares(f->optimizer, f->gradient, share, f->by_slot, err);
  size.largest = (double)f->gradient->largest;
  size.squares = melu__tree_sum_numbers(f->by_slot, share->n_slots);
  return status ? status : melu__optimizer_update(f->optimizer, f->model, f->gradient, share, &size, err);
}

/* A loss or gradient that is not finite is the work of the update before: that one is taken back. So a checkpoint is
 * written when the next gradient is known to be finite, and none has weights to be taken back. */
static melu_status update(struct melu__fit *f, melu_error *err) {
  const struct melu__step *step = &f->step;
  melu_status status = melu__meta_gradient(f->gradient, f->model, step->batch, &step->parts, err);
  if (status == MELU_EDIVERGED) melu__undo_restore(&f->undo, f->model);
  if (!status && is_checkpoint_due(f)) status = melu__fit_save(f, err);
  if (!status && f->stopping) status = MELU_ECANCELED;
  if (!status) status = apply(f, err);
  if (status) return status;
  f->loss_sum += melu_gradient_loss(f->gradient, NULL) * (double)step->parts.n_tasks;
  f->n_done += step->parts.n_tasks;
  return MELU_OK;
}

static melu_status report(const struct melu__fit *f, uint32_t epoch, melu_error *err) {
  const struct melu_progress progress = {.phase = "fit",
                                         .done = f->n_done,
                                         .total = f->n_users * f->options.n_epochs,
                                         .epoch = (uint64_t)epoch + 1,
                                         .n_epochs = f->options.n_epochs,
                                         .loss = f->loss_sum / (double)(f->n_done - epoch * f->n_users),
                                         .validation = f->validation};
  return melu__progress(f->ctx, &progress, err);
}

/* Where there is a checkpoint to be written, a cancelled training first looks at its next batch. */
static melu_status hear_host(struct melu__fit *f, uint32_t epoch, melu_error *err) {
  if (f->stopping) return MELU_OK;
  const melu_status status = report(f, epoch, err);
  if (status != MELU_ECANCELED || !f->options.checkpoint) return status;
  f->stopping = 1;
  return MELU_OK;
}

/* From user `n_before` of the epoch's order on. */
static melu_status run_epoch(struct melu__fit *f, uint32_t epoch, uint64_t n_before, melu_error *err) {
  melu_status status = MELU_OK;
  if (n_before == 0) f->loss_sum = 0;
  melu__schedule_begin(&f->schedule);
  melu__schedule_next(&f->schedule, n_before);
  while (!status) {
    status = next_batch(f, &f->schedule, MELU__TRAINED, epoch, UINT64_MAX, err);
    if (f->step.parts.n_tasks == 0) break;
    if (!status) status = update(f, err);
    if (!status) status = hear_host(f, epoch, err);
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

/* The mean of the batch's losses by slots, times their number, is added to by_slot. */
static void add_losses(struct melu__fit *f) {
  const struct melu__lanes *l = &f->gradient->outer->l;
  for (size_t p = 0; p < l->n_parts; p++) {
    const double n = (double)(l->parts[p].end_task - l->parts[p].first_task);
    f->by_slot[l->parts[p].slot.lo] += l->parts[p].loss / n * n;
  }
}

/* The users left out, asked the same after every epoch; the best weights are kept. */
static melu_status validate(struct melu__fit *f, uint32_t epoch, melu_error *err) {
  melu_status status = MELU_OK;
  if (f->n_left_out == 0) return MELU_OK;
  memset(f->by_slot, 0, f->share.n_slots * sizeof *f->by_slot);
  melu__schedule_begin(&f->left_out);
  while (!status) {
    status = next_batch(f, &f->left_out, MELU__LEFT_OUT, UINT32_MAX, UINT64_MAX, err);
    if (f->step.parts.n_tasks == 0) break;
    if (!status) status = melu__meta_gradient(f->gradient, f->model, f->step.batch, &f->step.parts, err);
    if (status == MELU_EDIVERGED) melu__undo_restore(&f->undo, f->model);
    if (!status) add_losses(f);
  }
  if (status) return status;
  f->validation = melu__tree_sum_numbers(f->by_slot, f->share.n_slots) / (double)f->n_left_out;
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
  for (uint32_t epoch = 0; epoch < f->options.n_epochs && !status; epoch++) {
    status = f->source.begin_epoch(f->source.arg, epoch, err);
    if (epoch < first) continue;
    if (!status) status = run_epoch(f, epoch, epoch == first ? f->n_done % f->n_users : 0, err);
    if (!status) status = validate(f, epoch, err);
    if (f->options.patience && epoch - f->best_epoch >= f->options.patience) break;
  }
  return status || !f->stopping ? status : MELU_ECANCELED;
}

/* ---------------------------------------------------------------------------------------------------- noise */

enum { NOISE_USERS = 1000 };

static void add_noise(struct melu__fit *f) {
  const struct melu__lanes *l = &f->gradient->outer->l;
  for (size_t p = 0; p < l->n_parts; p++) f->by_slot[l->parts[p].slot.lo] += l->parts[p].loss;
}

/* How far ratings are from predictions: of the users left out, or, if there are none, of some that were trained on,
 * asked something new. */
static melu_status set_noise(struct melu__fit *f, melu_error *err) {
  const enum melu__list list = f->n_left_out ? MELU__LEFT_OUT : MELU__TRAINED;
  struct melu__schedule *schedule = f->n_left_out ? &f->left_out : &f->schedule;
  uint64_t left = f->n_left_out ? UINT64_MAX : NOISE_USERS;
  melu_model *model = f->model;
  melu_status status = MELU_OK;
  double n = 0;
  if (!melu__has_variances(model)) return MELU_OK;
  if (model->options.loss == MELU_LOGISTIC) return MELU_OK;
  memset(f->by_slot, 0, f->share.n_slots * sizeof *f->by_slot);
  melu__schedule_begin(schedule);
  while (!status) {
    status = next_batch(f, schedule, list, UINT32_MAX, left, err);
    left -= f->step.parts.n_tasks;
    if (f->step.parts.n_tasks == 0) break;
    if (!status) status = melu__noise(f->gradient, model, f->step.batch, &f->step.parts, err);
    if (status == MELU_EDIVERGED && !f->n_left_out) melu__undo_restore(&f->undo, f->model);
    if (!status) add_noise(f);
    n += (double)f->step.parts.n_query;
  }
  const double sum = melu__tree_sum_numbers(f->by_slot, f->share.n_slots);
  if (!status && sum > 0) {
    *model->factors[MELU__F_NOISE] = (real)(sum / n);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  return status;
}

/* ------------------------------------------------------------------------------------------------------ all */

/* How many of each slot's users are left out: of the sum of users up to a slot and with it always the same share. */
static void share_out(const struct melu__fit *f, uint64_t *n) {
  const uint64_t all = (uint64_t)ceil(f->options.validation * (double)f->n_users);
  uint64_t n_before = 0, before = 0;
  for (size_t s = 0; s < f->share.n_slots; s++) {
    n_before += f->users_of_slot[s];
    const uint64_t end = n_before == f->n_users ? all : (uint64_t)((double)all * (double)n_before / (double)f->n_users);
    n[s] = end - before < f->users_of_slot[s] ? end - before : f->users_of_slot[s];
    before = end;
  }
}

static void count_users(struct melu__fit *f) {
  f->n_users = f->n_left_out = 0;
  for (size_t s = 0; s < f->share.n_slots; s++) {
    f->users_of_slot[s] = f->source.slots[s].n_users;
    f->left_out_of_slot[s] = f->source.slots[s].n_left_out;
    f->n_users += f->users_of_slot[s];
    f->n_left_out += f->left_out_of_slot[s];
  }
}

static struct melu__ratings sum_ratings(struct melu__fit *f) {
  struct melu__ratings r = {0, 0, 0};
  for (size_t s = 0; s < f->share.n_slots; s++) f->by_slot[s] = f->source.slots[s].n_ratings;
  r.n = melu__tree_sum_numbers(f->by_slot, f->share.n_slots);
  for (size_t s = 0; s < f->share.n_slots; s++) f->by_slot[s] = f->source.slots[s].sum;
  r.sum = melu__tree_sum_numbers(f->by_slot, f->share.n_slots);
  for (size_t s = 0; s < f->share.n_slots; s++) f->by_slot[s] = f->source.slots[s].squares;
  r.squares = melu__tree_sum_numbers(f->by_slot, f->share.n_slots);
  return r;
}

/* Who is trained on, and who is left out. */
static melu_status find_users(struct melu__fit *f, const melu_dataset *data, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  const size_t n = f->share.n_slots;
  f->users_of_slot = melu__calloc(a, n, sizeof *f->users_of_slot);
  f->left_out_of_slot = melu__calloc(a, n, sizeof *f->left_out_of_slot);
  f->by_slot = melu__calloc(a, n, sizeof *f->by_slot);
  if (!f->users_of_slot || !f->left_out_of_slot || !f->by_slot) return melu__fail_memory(err);
  melu_status status = melu__memory_source(&f->source, f->ctx, data, &f->options, err);
  if (status) return status;
  count_users(f);
  share_out(f, f->left_out_of_slot);
  status = f->source.leave_out(f->source.arg, f->left_out_of_slot, err);
  if (status) return status;
  count_users(f);
  if (f->n_users == 0)
    return melu__fail(err, MELU_ENOTFOUND, "no user to train on has between %zu and %zu ratings",
                      f->options.min_ratings, f->options.max_ratings);
  f->ratings = sum_ratings(f);
  return MELU_OK;
}

static melu_status prepare_batches(struct melu__fit *f, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  f->step.n_tasks = melu__calloc(a, f->share.own.hi - f->share.own.lo, sizeof *f->step.n_tasks);
  if (!f->step.n_tasks || !melu__schedule_init(&f->schedule, a, f->users_of_slot, f->share.n_slots) ||
      !melu__schedule_init(&f->left_out, a, f->left_out_of_slot, f->share.n_slots))
    return melu__fail_memory(err);
  return f->source.new_batch(f->source.arg, &f->step.batch, err);
}

static melu_status prepare(struct melu__fit *f, const melu_dataset *data, melu_error *err) {
  melu_status status = find_users(f, data, err);
  if (!status) status = prepare_batches(f, err);
  if (!status) status = melu_gradient_new(&f->gradient, f->model, err);
  if (!status) status = melu_optimizer_new(&f->optimizer, f->model, &f->optimizer_options, err);
  if (!status && !melu__undo_init(&f->undo, f->model)) status = melu__fail_memory(err);
  f->prior = (struct melu__prior){.vectors = f->options.prior_vectors,
                                  .offsets = f->options.prior_offsets,
                                  .pooled = f->options.prior_pooled,
                                  .dense = f->options.prior_dense,
                                  .n_ratings = f->ratings.n};
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
  if (f->step.batch) f->source.free_batch(f->source.arg, f->step.batch);
  melu__schedule_free(&f->schedule, a);
  melu__schedule_free(&f->left_out, a);
  melu__source_free(&f->source);
  void *const all[] = {f->best, f->step.n_tasks, f->users_of_slot, f->left_out_of_slot, f->by_slot};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
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
  f.ranks = melu__ranks_begin(f.ctx);
  f.share = melu__own_share(f.ctx);
  status = prepare(&f, data, err);
  if (!status && f.options.checkpoint) {
    status = melu__fit_identify(&f, err);
    if (!status) status = try_checkpoint(&f, err);
  }
  if (!status && f.options.resume) status = melu__fit_resume(&f, err);
  int started = 0;
  if (!status && f.n_done == 0 && model->version == 1) {
    status = melu__start(model, &f.source, &f.ratings, err);
    started = !status;
  }
  if (!status) status = run_epochs(&f, err);
  if (started && f.n_done == 0) melu__model_initialise(model); /* no update followed: the model is as before */
  if (!status) {
    if (f.best) exchange_best(&f);
    status = set_noise(&f, err);
    if (f.best && status) exchange_best(&f);
  }
  release(&f);
  return status;
}
