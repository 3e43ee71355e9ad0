/* SPDX-License-Identifier: BSD-3-Clause */
/* Evidence candidates one after the other, each such that errors fall most. */
#include <math.h>

#include "base/error.h"
#include "serve/candidates.h"

static double error_of(const melu_model *model, float score, float rating) {
  const struct melu_model_options *o = &model->options;
  double y = melu__expected_rating(model, score);
  if (y < o->rating_min) y = o->rating_min;
  if (y > o->rating_max) y = o->rating_max;
  return fabs(y - (double)rating);
}

static const struct melu__candidate *candidate_of(const struct melu__search *s, uint32_t item) {
  return s->number[item] == MELU__NO_INDEX ? NULL : &s->candidates[s->number[item]];
}

/* Two fifths of a user's ratings, at most 32, are not asked about and judge the others. */
static size_t count_judges(size_t n_ratings) {
  enum { MOST_JUDGES = 32 };
  return 2 * n_ratings / 5 < MOST_JUDGES ? 2 * n_ratings / 5 : MOST_JUDGES;
}

/* A user as a split takes her. */
struct known {
  const uint32_t *items, *order; /* the judges come last in it */
  const float *ratings;
  size_t n_open, n_judges;
};

static void split_ratings(struct known *k, const struct melu__search *s, size_t u, uint64_t split,
                          struct melu__asker *a) {
  const uint32_t user = s->users[u];
  const size_t n = melu__search_ratings(s, u, &k->items, &k->ratings);
  k->n_judges = count_judges(n);
  k->n_open = n - k->n_judges;
  k->order = a->order;
  (void)melu_dataset_user_values(a->profile, s->data, user, NULL); /* she is there */
  (void)melu_split_order(a->order, melu_dataset_user_id(s->data, user), split, n, NULL);
  for (size_t i = 0; i < k->n_judges; i++) a->judges[i] = k->items[a->order[k->n_open + i]];
}

/* What was asked already, as far as the user has an answer. */
static size_t gather_answers(const struct melu__search *s, struct melu__asker *a, const struct known *k) {
  size_t n_known = 0;
  for (size_t i = 0; i < k->n_open && n_known < s->n_wanted; i++) {
    const struct melu__candidate *c = candidate_of(s, k->items[k->order[i]]);
    if (!c || !c->is_chosen) continue;
    a->items[n_known] = k->items[k->order[i]];
    a->ratings[n_known++] = k->ratings[k->order[i]];
  }
  return n_known;
}

/* The sum of the judges' errors after the first n_known answers. */
static melu_status judge(double *error, const struct melu__search *s, struct melu__asker *a, const struct known *k,
                         size_t n_known, melu_error *err) {
  const struct melu__told told = {.profile = a->profile, .items = a->items, .ratings = a->ratings, .n = n_known};
  melu_status status = melu__adapt_user(a->user, a->workspace, s->data, &told, err);
  if (!status) status = melu_predict(a->scores, a->workspace, s->model, a->user, s->data, a->judges, k->n_judges, err);
  *error = 0;
  for (size_t i = 0; i < k->n_judges && !status; i++)
    *error += error_of(s->model, a->scores[i], k->ratings[k->order[k->n_open + i]]);
  return status;
}

/* With one of the splits; what it says is added up. */
static melu_status judge_split(struct melu__search *s, size_t u, uint64_t split, struct melu__asker *a,
                               melu_error *err) {
  struct known k;
  double before, after;
  split_ratings(&k, s, u, split, a);
  const size_t n_known = gather_answers(s, a, &k);
  melu_status status = judge(&before, s, a, &k, n_known, err);
  s->errors[u] += before;
  s->n_errors[u] += k.n_judges;
  for (size_t i = 0; i < k.n_open && !status && !s->is_base; i++) {
    const uint32_t at = k.order[i];
    const struct melu__candidate *c = candidate_of(s, k.items[at]);
    if (!c || c->is_chosen) continue;
    a->items[n_known] = k.items[at];
    a->ratings[n_known] = k.ratings[at];
    status = judge(&after, s, a, &k, n_known + 1, err);
    s->said[s->start[u] + at] += before - after;
  }
  return status;
}

static melu_status judge_candidates(struct melu__search *s, size_t u, struct melu__asker *a, melu_error *err) {
  melu_status status = MELU_OK;
  s->errors[u] = 0;
  s->n_errors[u] = 0;
  for (size_t i = s->start[u]; i < s->start[u + 1]; i++) s->said[i] = 0;
  for (uint64_t split = 0; split < s->options.n_splits && !status; split++) status = judge_split(s, u, split, a, err);
  return status;
}

/* The judges' mean absolute error. */
static double mean_error(const struct melu__search *s) {
  double sum = 0, n = 0;
  for (size_t u = 0; u < s->n_users; u++) {
    sum += s->errors[u];
    n += (double)s->n_errors[u];
  }
  return sum / n;
}

static size_t best_candidate(const struct melu__search *s) {
  size_t best = MELU__NO_INDEX;
  for (size_t c = 0; c < s->n_candidates; c++) {
    const struct melu__candidate *x = &s->candidates[c];
    if (x->is_chosen) continue;
    if (best == MELU__NO_INDEX || x->score > s->candidates[best].score ||
        (x->score == s->candidates[best].score && x->item < s->candidates[best].item))
      best = c;
  }
  return best;
}

melu_status melu__choose_by_error(uint32_t *items, double *scores, struct melu__search *s, melu_error *err) {
  if (count_judges(s->longest) == 0)
    return melu__fail(err, MELU_ENOTFOUND, "no user has three ratings: there is nothing to judge by");
  s->n_total = (s->n_wanted + 1) * s->n_users;
  for (size_t i = 0;; i++) {
    s->is_base = i == s->n_wanted;
    const melu_status status = melu__search_users(s, judge_candidates, err);
    if (status) return status;
    if (i > 0) scores[i - 1] = mean_error(s);
    if (s->is_base) break;
    melu__search_sum(s);
    const size_t best = best_candidate(s);
    s->candidates[best].is_chosen = 1;
    items[i] = s->candidates[best].item;
  }
  return MELU_OK;
}
