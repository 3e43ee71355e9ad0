/* SPDX-License-Identifier: BSD-3-Clause */
/* A training's options: what one that was not given means, and what they are called. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "meta/fit.h"

static void resolve_size(size_t *given, size_t preset, size_t otherwise) {
  if (*given == 0) *given = preset ? preset : otherwise;
}

static void resolve_prior(double *given, double preset) {
  if (*given == 0) *given = preset;
  if (*given < 0) *given = 0;
}

static melu_status check(const struct melu_fit_options *o, melu_error *err) {
  if (o->n_epochs >= UINT32_MAX) return melu__fail(err, MELU_ELIMIT, "n_epochs is %zu, above 2^32 - 2", o->n_epochs);
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
  if (o->resume && !o->checkpoint) return melu__fail(err, MELU_EINVAL, "resume is set, but there is no checkpoint");
  return MELU_OK;
}

melu_status melu__fit_resolve(struct melu__fit *f, const struct melu_fit_options *given, melu_error *err) {
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
  const struct melu_optimizer_options optimizer = f->optimizer_options;
  melu_status checked = melu__optimizer_options(&f->optimizer_options, &optimizer, err);
  if (!checked) checked = check(o, err);
  if (o->max_support > MELU__MAX_ROWS - o->n_query) o->max_support = MELU__MAX_ROWS - o->n_query;
  return checked;
}

/* ------------------------------------------------------------------------------------------------- listing */

static double clip_of(double resolved) {
  return isinf(resolved) ? -1 : resolved;
}

/* No limit is the same number in the files of machines of 32 and of 64 bits. */
static uint64_t limit_of(size_t resolved) {
  return resolved == SIZE_MAX ? UINT64_MAX : resolved;
}

void melu__fit_list_options(struct melu__count counts[MELU__N_COUNTS],
                            struct melu__number_option numbers[MELU__N_NUMBERS], const struct melu__fit *f) {
  const struct melu_fit_options *o = &f->options;
  const struct melu_optimizer_options *p = &f->optimizer_options;
  const struct melu__count all_counts[MELU__N_COUNTS] = {{"seed", o->seed},
                                                         {"n_epochs", o->n_epochs},
                                                         {"batch_tasks", o->batch_tasks},
                                                         {"n_query", o->n_query},
                                                         {"min_ratings", o->min_ratings},
                                                         {"max_ratings", limit_of(o->max_ratings)},
                                                         {"max_support", o->max_support},
                                                         {"random_support", (uint64_t)o->random_support},
                                                         {"cosine", (uint64_t)o->cosine},
                                                         {"patience", o->patience},
                                                         {"n_slots", f->share.n_slots},
                                                         {"optimizer kind", (uint64_t)p->kind},
                                                         {"optimizer dense", p->dense != 0}};
  const struct melu__number_option all_numbers[MELU__N_NUMBERS] = {{"prior_vectors", o->prior_vectors},
                                                                   {"prior_offsets", o->prior_offsets},
                                                                   {"prior_pooled", o->prior_pooled},
                                                                   {"prior_dense", o->prior_dense},
                                                                   {"validation", o->validation},
                                                                   {"lr", p->lr},
                                                                   {"beta1", p->beta1},
                                                                   {"beta2", p->beta2},
                                                                   {"epsilon", p->epsilon},
                                                                   {"weight_decay", p->weight_decay},
                                                                   {"clip_value", clip_of(p->clip_value)},
                                                                   {"clip_norm", clip_of(p->clip_norm)}};
  memcpy(counts, all_counts, sizeof all_counts);
  memcpy(numbers, all_numbers, sizeof all_numbers);
}
