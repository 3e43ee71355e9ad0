/* SPDX-License-Identifier: BSD-3-Clause */
/* The training loop: epochs of episodes, drawn by counters. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "meta/compare.h"
#include "meta/start.h"

/* ------------------------------------------------------------------------------------------------- batches */

/* What this rank has of the schedule's next batch, of at most that many tasks; 0 tasks if there is none. */
static melu_status fill(struct melu__fit *f, struct melu__step *step, struct melu__schedule *schedule,
                        enum melu__list list, uint32_t draw, uint64_t most, melu_error *err) {
  const size_t n = melu__schedule_next(schedule, most < f->options.batch_tasks ? most : f->options.batch_tasks);
  const uint64_t *first = schedule->first + f->share.own.lo, *end = schedule->end + f->share.own.lo;
  step->parts = (struct melu__batch_parts){
      .n_slots = f->share.n_slots, .own = f->share.own, .end = step->n_tasks, .n_tasks = n, .is_apart = f->is_apart};
  if (n == 0) return MELU_OK;
  const melu_status status = f->source.fill(f->source.arg, step->batch, list, draw, first, end, step->n_tasks, err);
  if (status) return status;
  for (size_t i = 0; i < step->batch->n_tasks; i++) step->parts.n_query += step->batch->tasks[i].n_query;
  if (!f->model->is_sharded || melu__draft_make(&step->draft, &f->draft_model, step->batch)) return MELU_OK;
  return melu__fail_memory(err);
}

/* The model and the batch that gradients are computed of. */
static const melu_model *computed_model(const struct melu__fit *f) {
  return f->model->is_sharded ? &f->draft_model.model : f->model;
}

static const melu_batch *computed_batch(const struct melu__fit *f) {
  return f->model->is_sharded ? &f->step->draft.batch : f->step->batch;
}

/* The step's rows, which have come, become those of the working model. */
static melu_status take_rows(struct melu__fit *f, melu_error *err) {
  if (!f->model->is_sharded) return MELU_OK;
  melu__draft_model_take(&f->draft_model, &f->step->draft);
  f->exchange.now = &f->step->draft;
  return melu__gradient_fit(f->gradient) ? MELU_OK : melu__fail_memory(err);
}

static melu_status compute_gradient(struct melu__fit *f, melu_error *err) {
  const melu_status status = take_rows(f, err);
  if (status) return status;
  return melu__meta_gradient(f->gradient, computed_model(f), computed_batch(f), &f->step->parts, err);
}

/* Takes down a failure of this rank alone, for all to hear of; it is the end here where nobody else is. */
static melu_status fail(struct melu__fit *f, melu_status status, const melu_error *err) {
  if (!status || !f->is_apart) return status;
  melu__mail_fail(&f->exchange.mail, status, err);
  return MELU_OK;
}

static int has_failed(const struct melu__fit *f) {
  return f->exchange.mail.failure.status != MELU_OK;
}

/* The same with what the other ranks have of it. */
static melu_status next_batch(struct melu__fit *f, struct melu__schedule *schedule, enum melu__list list, uint32_t draw,
                              uint64_t most, melu_error *err) {
  melu_status status = fail(f, fill(f, f->step, schedule, list, draw, most, err), err);
  if (status || !f->is_apart) return status;
  melu__numbers_clear(&f->numbers, f->model);
  f->numbers.n_query = (double)f->step->parts.n_query;
  status = melu__exchange_numbers(&f->exchange, &f->numbers, err);
  f->step->parts.n_query = (size_t)f->numbers.n_query;
  if (status || !f->model->is_sharded || f->step->parts.n_tasks == 0) return status;
  f->exchange.next = &f->step->draft;
  return melu__exchange_rows(&f->exchange, err);
}

/* The batch that follows, while the present one is summed up. */
static melu_status prefetch(struct melu__fit *f, melu_error *err) {
  const melu_status status = fill(f, f->next, &f->schedule, MELU__TRAINED, f->epoch, UINT64_MAX, err);
  f->exchange.next = !status && f->model->is_sharded && f->next->parts.n_tasks ? &f->next->draft : NULL;
  return fail(f, status, err);
}

static void prefetch_meanwhile(void *arg) {
  melu_error err;
  prefetch(arg, &err);
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

static melu_gradient *whole_gradient(const struct melu__fit *f) {
  return f->is_apart ? f->exchange.own : f->gradient;
}

/* A loss or gradient that is not finite is the work of the update before: that one is taken back. */
static melu_status undo_divergence(struct melu__fit *f, melu_status status) {
  if (status == MELU_EDIVERGED) melu__undo_restore(&f->undo, f->model);
  return status;
}

/* The whole gradient of the table rows and dense numbers of this rank's slots. With several ranks a failure may still
 * have to be told to the others. */
static melu_status sum_gradient(struct melu__fit *f, melu_error *err) {
  melu_status status = compute_gradient(f, err);
  if (!f->is_apart) return status ? undo_divergence(f, status) : prefetch(f, err);
  fail(f, status, err);
  f->exchange.mail.tells = f->stopping;
  status = melu__exchange_gradient(&f->exchange, f->gradient, f->step->parts.n_tasks, prefetch_meanwhile, f, err);
  f->stopping |= f->exchange.mail.hears;
  if (!status && is_checkpoint_due(f)) status = melu__mail_agree(&f->exchange.mail, err);
  return undo_divergence(f, status);
}

/* What the update has to know: of this rank, then of all. */
static melu_status measure(struct melu__fit *f, melu_error *err) {
  struct melu__numbers *n = &f->numbers;
  melu_gradient *g = whole_gradient(f);
  melu__numbers_clear(n, f->model);
  if (!has_failed(f)) {
    const struct melu__lanes *l = &f->gradient->outer->l;
    for (size_t p = 0; p < l->n_parts; p++) n->losses[l->parts[p].slot.lo] = l->parts[p].loss;
    melu__prior_add(&f->prior, g, &f->share);
    const melu_status status = fail(f, melu__optimizer_squares(f->optimizer, g, &f->share, n->squares, err), err);
    if (status) return status;
    n->largest = (double)g->largest;
    n->n_query = (double)f->next->parts.n_query;
    for (size_t t = 0; t < f->model->n_tables; t++)
      n->n_rows[t] = melu__optimizer_n_rows(f->optimizer, g, &f->share, t);
  }
  if (!f->is_apart) return MELU_OK;
  const melu_status status = melu__exchange_numbers(&f->exchange, n, err);
  f->next->parts.n_query = (size_t)n->n_query;
  for (size_t t = 0; t < f->model->n_tables; t++) /* the others' rows of a sharded table do not come here */
    if (f->model->params[t].is_sharded) n->n_rows[t] = melu__optimizer_n_rows(f->optimizer, g, &f->share, t);
  return undo_divergence(f, status);
}

/* Keeps what the update of this rank's slots changes, and makes it. */
static melu_status change_weights(struct melu__fit *f, const struct melu__size *size, melu_error *err) {
  const melu_gradient *g = whole_gradient(f);
  if (!melu__undo_begin(&f->undo, f->model, f->numbers.n_rows)) return melu__fail_memory(err);
  for (size_t t = 0; t < f->model->n_tables; t++) {
    const size_t n = melu__optimizer_n_rows(f->optimizer, g, &f->share, t);
    for (size_t k = 0; k < n; k++) melu__undo_add(&f->undo, t, melu__optimizer_row(f->optimizer, g, &f->share, t, k));
  }
  f->optimizer->options.lr = learning_rate(f);
  melu__optimizer_update(f->optimizer, f->model, g, &f->share, size);
  return MELU_OK;
}

/* By looking at them. */
static melu_status find_largest(struct melu__fit *f, melu_error *err) {
  double largest = melu__model_largest(f->model);
  const melu_status status = melu__ranks_largest(&f->ranks, &largest, err);
  f->model->largest = (real)largest;
  return status;
}

/* Makes the update for which the gradient is there. */
static melu_status apply(struct melu__fit *f, melu_error *err) {
  melu_status status = measure(f, err);
  if (status) return status;
  const struct melu__size size = {f->numbers.largest, melu__tree_sum_numbers(f->numbers.squares, f->share.n_slots)};
  if (!melu__optimizer_may_update(f->optimizer, &size)) {
    status = find_largest(f, err);
    if (status) return status;
  }
  if (!melu__optimizer_may_update(f->optimizer, &size))
    return melu__fail(err, MELU_EDIVERGED, "the update would make a weight or a moment infinite");
  status = fail(f, change_weights(f, &size, err), err);
  if (status || !f->is_apart) return status;
  status = melu__exchange_weights(&f->exchange, err);
  if (status) melu__undo_restore(&f->undo, f->model);
  return status;
}

/* A checkpoint is written when the next gradient is known to be finite, so none has weights to be taken back. */
static melu_status update(struct melu__fit *f, melu_error *err) {
  melu_status status = sum_gradient(f, err);
  if (!status && is_checkpoint_due(f)) status = melu__fit_save(f, err);
  if (!status && f->stopping) status = melu__fail(err, MELU_ECANCELED, "fit was cancelled");
  if (!status) status = apply(f, err);
  if (status) return status;
  const double n = (double)f->step->parts.n_tasks;
  f->loss_sum += melu__tree_sum_numbers(f->numbers.losses, f->share.n_slots) / n * n;
  f->n_done += f->step->parts.n_tasks;
  return MELU_OK;
}

static melu_status report(const struct melu__fit *f, melu_error *err) {
  const struct melu_progress progress = {.phase = "fit",
                                         .done = f->n_done,
                                         .total = (uint64_t)f->n_users * f->options.n_epochs,
                                         .epoch = (uint64_t)f->epoch + 1,
                                         .n_epochs = f->options.n_epochs,
                                         .loss = f->loss_sum / (double)(f->n_done - f->epoch * f->n_users),
                                         .validation = f->validation};
  return melu__progress(f->ctx, &progress, err);
}

/* Where there is a checkpoint to be written, a cancelled training first looks at its next batch. */
static melu_status hear_host(struct melu__fit *f, melu_error *err) {
  const melu_status status = report(f, err);
  if (status != MELU_ECANCELED || !f->options.checkpoint) return fail(f, status, err);
  f->stopping = 1;
  return MELU_OK;
}

/* From user `n_before` of the epoch's order on. */
static melu_status run_epoch(struct melu__fit *f, uint64_t n_before, melu_error *err) {
  if (n_before == 0) f->loss_sum = 0;
  melu__schedule_begin(&f->schedule);
  melu__schedule_next(&f->schedule, n_before);
  melu_status status = next_batch(f, &f->schedule, MELU__TRAINED, f->epoch, UINT64_MAX, err);
  while (!status && f->step->parts.n_tasks) {
    status = update(f, err);
    if (!status) status = hear_host(f, err);
    struct melu__step *done = f->step;
    f->step = f->next;
    f->next = done;
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

/* Sums up over a list of users what `judge` finds in a batch and adds to f->by_slot; *n_query: how many query rows. */
static melu_status judge_all(struct melu__fit *f, enum melu__list list, uint64_t most,
                             melu_status (*judge)(struct melu__fit *f, melu_error *err), double *sum, double *n_query,
                             melu_error *err) {
  struct melu__schedule *schedule = list == MELU__LEFT_OUT ? &f->left_out : &f->schedule;
  melu_status status = MELU_OK;
  *n_query = 0;
  memset(f->by_slot, 0, f->share.n_slots * sizeof *f->by_slot);
  melu__schedule_begin(schedule);
  while (!status) {
    status = next_batch(f, schedule, list, UINT32_MAX, most, err);
    if (f->step->parts.n_tasks == 0) break;
    if (!status) status = fail(f, judge(f, err), err);
    most -= f->step->parts.n_tasks;
    *n_query += (double)f->step->parts.n_query;
  }
  if (f->is_apart && !status) {
    melu__numbers_clear(&f->numbers, f->model);
    memcpy(f->numbers.losses, f->by_slot, f->share.n_slots * sizeof *f->by_slot);
    status = melu__exchange_numbers(&f->exchange, &f->numbers, err);
    memcpy(f->by_slot, f->numbers.losses, f->share.n_slots * sizeof *f->by_slot);
  }
  *sum = melu__tree_sum_numbers(f->by_slot, f->share.n_slots);
  return status;
}

/* The mean of the batch's losses by slots, times their number. */
static melu_status judge_loss(struct melu__fit *f, melu_error *err) {
  const melu_status status = compute_gradient(f, err);
  if (status) return status;
  const struct melu__lanes *l = &f->gradient->outer->l;
  for (size_t p = 0; p < l->n_parts; p++) {
    const double n = (double)(l->parts[p].end_task - l->parts[p].first_task);
    f->by_slot[l->parts[p].slot.lo] += l->parts[p].loss / n * n;
  }
  return MELU_OK;
}

/* The users left out, asked the same after every epoch; the best weights are kept. */
static melu_status validate(struct melu__fit *f, melu_error *err) {
  double sum, n_query;
  if (f->n_left_out == 0) return MELU_OK;
  const melu_status status = judge_all(f, MELU__LEFT_OUT, UINT64_MAX, judge_loss, &sum, &n_query, err);
  if (status) return undo_divergence(f, status);
  f->validation = sum / (double)f->n_left_out;
  if (f->epoch > 0 && !(f->validation < f->best_validation)) return MELU_OK;
  f->best_validation = f->validation;
  f->best_epoch = f->epoch;
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
  for (f->epoch = 0; f->epoch < f->options.n_epochs && !status; f->epoch++) {
    f->source.begin_epoch(f->source.arg, f->epoch);
    if (f->epoch < first) continue;
    status = run_epoch(f, f->epoch == first ? f->n_done % f->n_users : 0, err);
    if (!status) status = validate(f, err);
    if (f->options.patience && f->epoch - f->best_epoch >= f->options.patience) break;
  }
  if (!status && f->stopping) status = fail(f, melu__fail(err, MELU_ECANCELED, "fit was cancelled"), err);
  return status || !f->is_apart ? status : melu__mail_agree(&f->exchange.mail, err);
}

/* ---------------------------------------------------------------------------------------------------- noise */

enum { NOISE_USERS = 1000 };

static melu_status judge_noise(struct melu__fit *f, melu_error *err) {
  melu_status status = take_rows(f, err);
  if (!status) status = melu__noise(f->gradient, computed_model(f), computed_batch(f), &f->step->parts, err);
  if (status) return status;
  const struct melu__lanes *l = &f->gradient->outer->l;
  for (size_t p = 0; p < l->n_parts; p++) f->by_slot[l->parts[p].slot.lo] += l->parts[p].loss;
  return MELU_OK;
}

/* How far ratings are from predictions: of the users left out, or, if there are none, of some that were trained on,
 * asked something new. */
static melu_status set_noise(struct melu__fit *f, melu_error *err) {
  melu_model *model = f->model;
  double sum, n;
  if (!melu__has_variances(model)) return MELU_OK;
  if (model->options.loss == MELU_LOGISTIC) return MELU_OK;
  const melu_status status = f->n_left_out ? judge_all(f, MELU__LEFT_OUT, UINT64_MAX, judge_noise, &sum, &n, err)
                                           : judge_all(f, MELU__TRAINED, NOISE_USERS, judge_noise, &sum, &n, err);
  if (status) return f->n_left_out ? status : undo_divergence(f, status);
  if (sum > 0) {
    *model->factors[MELU__F_NOISE] = (real)(sum / n);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------ all */

static melu_status prepare_step(struct melu__fit *f, struct melu__step *step, melu_error *err) {
  step->n_tasks = melu__calloc(&f->ctx->allocator, f->share.own.hi - f->share.own.lo, sizeof *step->n_tasks);
  if (f->model->is_sharded && !melu__draft_init(&step->draft, f->model)) return melu__fail_memory(err);
  return step->n_tasks ? f->source.new_batch(f->source.arg, &step->batch, err) : melu__fail_memory(err);
}

static melu_status prepare_batches(struct melu__fit *f, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  f->step = &f->steps[0];
  f->next = &f->steps[1];
  if (!melu__schedule_init(&f->schedule, a, f->users_of_slot, f->share.n_slots) ||
      !melu__schedule_init(&f->left_out, a, f->left_out_of_slot, f->share.n_slots))
    return melu__fail_memory(err);
  const melu_status status = prepare_step(f, f->step, err);
  return status ? status : prepare_step(f, f->next, err);
}

static melu_status prepare(struct melu__fit *f, melu_error *err) {
  melu_status status = prepare_batches(f, err);
  if (!status && f->model->is_sharded && !melu__draft_model_init(&f->draft_model, f->model))
    status = melu__fail_memory(err);
  if (!status) status = melu__gradient_new(&f->gradient, computed_model(f), err);
  if (!status) status = melu__optimizer_new(&f->optimizer, f->model, &f->optimizer_options, err);
  if (!status && f->is_apart)
    status = melu__exchange_init(&f->exchange, &f->ranks, f->model, f->optimizer, &f->undo, err);
  f->prior = (struct melu__prior){.vectors = f->options.prior_vectors,
                                  .offsets = f->options.prior_offsets,
                                  .pooled = f->options.prior_pooled,
                                  .dense = f->options.prior_dense,
                                  .n_ratings = f->ratings.n};
  if (!status && (!melu__prior_init(&f->prior, f->model) || !melu__numbers_init(&f->numbers, f->model)))
    status = melu__fail_memory(err);
  if (!status) status = melu__fit_prepare_parts(f, err);
  if (!status && f->n_left_out) {
    size_t n = 0;
    for (size_t i = 0; i < f->model->n_params; i++) n += f->model->params[i].rows * f->model->params[i].cols;
    f->best = melu__calloc(&f->ctx->allocator, n, sizeof *f->best); /* a checkpoint has it, filled or not */
    if (!f->best) status = melu__fail_memory(err);
  }
  return status;
}

static void release(struct melu__fit *f) {
  const struct melu_allocator *a = &f->ctx->allocator;
  melu__undo_free(&f->undo);
  melu__fit_free_parts(f);
  melu__numbers_free(&f->numbers, f->model);
  melu__prior_free(&f->prior);
  melu__exchange_free(&f->exchange);
  melu_optimizer_free(f->optimizer);
  melu_gradient_free(f->gradient);
  for (size_t i = 0; i < 2; i++) {
    if (f->steps[i].batch) f->source.free_batch(f->source.arg, f->steps[i].batch);
    melu__free(a, f->steps[i].n_tasks);
    melu__draft_free(&f->steps[i].draft, f->model);
  }
  melu__draft_model_free(&f->draft_model);
  melu__schedule_free(&f->schedule, a);
  melu__schedule_free(&f->left_out, a);
  melu__source_free(&f->source);
  void *const all[] = {f->best, f->users_of_slot, f->left_out_of_slot, f->by_slot};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

/* `data`: the data set, or the items of shards. */
static melu_status check_arguments(struct melu__fit *f, const melu_dataset *data,
                                   const struct melu_fit_options *options, melu_error *err) {
  if (!data) return melu__fail(err, MELU_EINVAL, "data or shards are NULL");
  const melu_status status = melu__fit_resolve(f, options, err);
  if (status) return status;
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  if (!melu__schema_equal(f->model->schema, data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the data set has another schema than the model");
  return MELU_OK;
}

/* All that can fail before the first update. */
static melu_status begin(struct melu__fit *f, const struct melu__users_of *of, const struct melu_fit_options *options,
                         int *started, melu_error *err) {
  melu_status status = melu__compare_versions(&f->ranks, err);
  if (status) return status;
  status = check_arguments(f, of->shards ? melu_shards_items(of->shards) : of->data, options, err);
  status = melu__fit_find_users(f, status ? NULL : of, err);
  if (status) return status;
  status = melu__ranks_agree(&f->ranks, prepare(f, err), err);
  if (!status && f->options.checkpoint) status = melu__fit_open_checkpoint(f, err);
  if (!status) status = melu__compare_items(f, err);
  if (!status && f->n_done == 0 && f->model->version == 1) {
    status = melu__start(f->model, &f->source, &f->ratings, f->is_apart ? &f->exchange.mail : NULL, err);
    *started = !status;
  }
  return status ? status : find_largest(f, err);
}

static melu_status fit(struct melu__fit *f, const struct melu__users_of *of, const struct melu_fit_options *options,
                       melu_error *err) {
  int started = 0;
  melu_status status = begin(f, of, options, &started, err);
  if (!status) status = run_epochs(f, err);
  if (started && f->n_done == 0) melu__model_initialise(f->model); /* no update followed: the model is as before */
  if (status) return status;
  if (f->best) exchange_best(f);
  status = set_noise(f, err);
  if (f->best && status) exchange_best(f);
  return status;
}

static melu_status fit_users_of(melu_model *model, const struct melu__users_of *of,
                                const struct melu_fit_options *options, melu_error *err) {
  struct melu__fit f = {.model = model};
  melu_error mine; /* what has failed is told to other ranks, whether the host wants to know or not */
  if (!model) return melu__fail(err, MELU_EINVAL, "model is NULL");
  f.ctx = model->ctx;
  f.ranks = melu__ranks_begin(f.ctx);
  f.share = melu__own_share(f.ctx);
  f.is_apart = f.ctx->collective.n_ranks > 1;
  const melu_status status = fit(&f, of, options, &mine);
  if (status && err) *err = mine;
  release(&f);
  return status;
}

melu_status melu_fit(melu_model *model, const melu_dataset *data, const struct melu_fit_options *options,
                     melu_error *err) {
  return fit_users_of(model, &(const struct melu__users_of){.data = data}, options, err);
}

melu_status melu_fit_shards(melu_model *model, const melu_shards *shards, const struct melu_fit_options *options,
                            melu_error *err) {
  return fit_users_of(model, &(const struct melu__users_of){.shards = shards}, options, err);
}
