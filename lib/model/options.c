/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/options.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/number.h"
#include "model/option_names.h"

#define MAX_WIDTH 65536

struct preset {
  struct melu_model_options options;
  size_t hidden[MELU__MAX_HIDDEN];
  struct melu__training training;
};

static const struct preset presets[] = {
    /* Lee et al., KDD 2019 */
    {.options = {.preset = "melu",
                 .n_hidden = 2,
                 .inner_steps = 5,
                 .inner_lr = 0.01,
                 .network = MELU_LAYERS,
                 .rank = 48,
                 .rule = MELU_STEPS,
                 .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN,
                 .rates = MELU_RATE_FIXED,
                 .loss = MELU_SQUARED,
                 .multi_step = -1,
                 .history = -1,
                 .learn_precision = -1},
     .hidden = {64, 64},
     .training = {.n_epochs = 30, .batch_tasks = 32, .n_query = 10, .max_ratings = 100, .lr = 1e-3}},
    /* docs/accuracy.md */
    {.options = {.preset = "best",
                 .n_hidden = 1,
                 .inner_steps = 5,
                 .inner_lr = 0.1,
                 .network = MELU_FACTORS,
                 .rank = 48,
                 .rule = MELU_CLOSED_FORM,
                 .adapt = MELU_ADAPT_HEAD,
                 .rates = MELU_RATE_FIXED,
                 .loss = MELU_MIXED,
                 .multi_step = -1,
                 .history = 1,
                 .learn_precision = -1},
     .hidden = {96},
     .training = {.n_epochs = 40,
                  .batch_tasks = 64,
                  .n_query = 80,
                  .max_ratings = MELU_NONE,
                  .max_support = 160,
                  .lr = 3e-3,
                  .random_support = 1,
                  .cosine = 1,
                  .prior_vectors = 800,
                  .prior_offsets = 300,
                  .prior_pooled = 3,
                  .prior_dense = 30}},
};

static const struct preset *find_preset(const char *name) {
  for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
    if (strcmp(presets[i].options.preset, name ? name : presets[0].options.preset) == 0) return &presets[i];
  return NULL;
}

const struct melu__training *melu__preset_training(const struct melu_model_options *o) {
  return &find_preset(o->preset)->training;
}

static melu_status check_layers(const struct melu_model_options *o, melu_error *err) {
  const size_t least = o->network == MELU_FACTORS ? 0 : 1, most = o->network == MELU_FACTORS ? 1 : MELU__MAX_HIDDEN;
  if (o->n_hidden < least || o->n_hidden > most)
    return melu__fail(err, MELU_EINVAL, "n_hidden is %zu, not in %zu .. %zu", o->n_hidden, least, most);
  for (size_t l = 0; l < o->n_hidden; l++)
    if (o->hidden[l] == 0 || o->hidden[l] > MAX_WIDTH)
      return melu__fail_at(err, MELU_EINVAL, l, "hidden[%zu] is %zu, not in 1 .. %d", l, o->hidden[l], MAX_WIDTH);
  return MELU_OK;
}

/* 0 has become the preset's, and what is negative is large. */
static melu_status check_kind(const char *name, unsigned value, unsigned most, melu_error *err) {
  if (value <= most) return MELU_OK;
  return melu__fail(err, MELU_EINVAL, "%s is %u, not in 1 .. %u", name, value, most);
}

/* Options that exclude each other. */
static melu_status check_combination(const struct melu_model_options *o, melu_error *err) {
  const int is_factors = o->network == MELU_FACTORS, is_solved = o->rule == MELU_CLOSED_FORM;
  if (o->adapt != MELU_ADAPT_HEAD && (is_factors || is_solved))
    return melu__fail(err, MELU_EINVAL, "%s adapts the head alone", is_factors ? "MELU_FACTORS" : "MELU_CLOSED_FORM");
  if (is_solved && (o->multi_step || o->rates != MELU_RATE_FIXED))
    return melu__fail(err, MELU_EINVAL, "MELU_CLOSED_FORM has no steps and no rates");
  if (is_solved && !is_factors && o->loss == MELU_LOGISTIC)
    return melu__fail(err, MELU_EINVAL, "MELU_CLOSED_FORM with MELU_LOGISTIC is for MELU_FACTORS");
  if (!is_factors && o->history) return melu__fail(err, MELU_EINVAL, "history is for MELU_FACTORS");
  if (!is_factors && !is_solved && o->learn_precision)
    return melu__fail(err, MELU_EINVAL, "learn_precision is for MELU_FACTORS and MELU_CLOSED_FORM");
  return MELU_OK;
}

static melu_status check(const struct melu_model_options *o, melu_error *err) {
  melu_status status = check_layers(o, err);
  if (!status) status = check_kind("network", o->network, MELU__N_NAMES(network_names), err);
  if (!status) status = check_kind("rule", o->rule, MELU__N_NAMES(rule_names), err);
  if (!status) status = check_kind("rates", o->rates, MELU__N_NAMES(rates_names), err);
  if (!status) status = check_kind("loss", o->loss, MELU__N_NAMES(loss_names), err);
  if (!status) status = check_kind("adapt", o->adapt, (1 << MELU__N_NAMES(adapt_names)) - 1, err);
  if (!status) status = check_combination(o, err);
  if (status) return status;
  if (o->rank > MELU__MAX_RANK)
    return melu__fail(err, MELU_EINVAL, "rank is %zu, not in 1 .. %d", o->rank, MELU__MAX_RANK);
  if (o->inner_steps > MELU__MAX_STEPS)
    return melu__fail(err, MELU_ELIMIT, "inner_steps is %zu, above %d", o->inner_steps, MELU__MAX_STEPS);
  if (!(o->inner_lr >= 0) || isinf(o->inner_lr))
    return melu__fail(err, MELU_EINVAL, "inner_lr is %s, not a finite number from 0 on",
                      melu__number_show(o->inner_lr, 6).text);
  if (!(o->rating_min < o->rating_max) || isinf(o->rating_min) || isinf(o->rating_max))
    return melu__fail(err, MELU_EINVAL, "ratings from %s to %s are no range", melu__number_show(o->rating_min, 6).text,
                      melu__number_show(o->rating_max, 6).text);
  return MELU_OK;
}

static void resolve_switch(int *given, int otherwise) {
  *given = (*given ? *given : otherwise) > 0;
}

melu_status melu__model_options(struct melu_model_options *o, size_t hidden[MELU__MAX_HIDDEN],
                                const struct melu_model_options *given, melu_error *err) {
  melu_status status = melu__options(o, sizeof *o, given, "melu_model_options", err);
  if (status) return status;
  const struct preset *preset = find_preset(o->preset);
  if (!preset) return melu__fail(err, MELU_EINVAL, "no preset \"%.64s\"", o->preset);
  const struct melu_model_options *p = &preset->options;
  if (o->n_hidden == MELU_NONE) {
    o->n_hidden = 0;
  } else if (!o->hidden) {
    if (o->n_hidden) return melu__fail(err, MELU_EINVAL, "hidden is NULL, n_hidden is %zu", o->n_hidden);
    o->hidden = preset->hidden;
    o->n_hidden = p->n_hidden;
  }
  if (o->inner_steps == 0) o->inner_steps = p->inner_steps;
  if (o->inner_steps == MELU_NONE) o->inner_steps = 0;
  if (o->inner_lr == 0) o->inner_lr = p->inner_lr;
  if (o->network == 0) o->network = p->network;
  if (o->rank == 0) o->rank = p->rank;
  if (o->rule == 0) o->rule = p->rule;
  const int head_alone = o->rule == MELU_CLOSED_FORM || o->network == MELU_FACTORS;
  if (o->adapt == 0) o->adapt = head_alone ? MELU_ADAPT_HEAD : p->adapt;
  if (o->rates == 0) o->rates = p->rates;
  if (o->loss == 0) o->loss = p->loss;
  resolve_switch(&o->multi_step, p->multi_step);
  resolve_switch(&o->history, p->history);
  resolve_switch(&o->learn_precision, p->learn_precision);
  if (o->rating_min == 0 && o->rating_max == 0) {
    o->rating_min = o->loss == MELU_LOGISTIC ? 0 : 1;
    o->rating_max = o->loss == MELU_LOGISTIC ? 1 : 5;
  }
  status = check(o, err);
  if (status) return status;
  o->size = sizeof *o;
  o->preset = p->preset;
  o->first_order = o->first_order != 0;
  if (o->n_hidden) memcpy(hidden, o->hidden, o->n_hidden * sizeof *hidden);
  o->hidden = hidden;
  return MELU_OK;
}

struct melu_model_options melu__options_given(const struct melu_model_options *o) {
  struct melu_model_options given = *o;
  if (given.inner_steps == 0) given.inner_steps = MELU_NONE;
  if (given.n_hidden == 0) given.n_hidden = MELU_NONE;
  if (!given.multi_step) given.multi_step = -1;
  if (!given.history) given.history = -1;
  if (!given.learn_precision) given.learn_precision = -1;
  return given;
}
