/* SPDX-License-Identifier: BSD-3-Clause */
/* Evidence candidates: what to ask somebody of whom nothing is known. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/candidates.h"

#define DEFAULT_MAX_ITEMS 256
#define DEFAULT_SPLITS 4
#define MOST_RATINGS 65536 /* that can be put into an order */
#define PIECE 64           /* users between two looks at progress */

/* ------------------------------------------------------------------------------------------------ life */

static melu_status make_asker(struct melu__asker *a, const struct melu__search *s, melu_error *err) {
  const struct melu_allocator *alloc = &s->model->ctx->allocator;
  const size_t most = s->options.rule == MELU_GRADIENT_NORM ? 0 : s->n_wanted + 1; /* answers */
  melu_status status = melu_workspace_new(&a->workspace, s->model, most, err);
  if (!status) status = melu_user_new(&a->user, s->model, err);
  if (status) return status;
  a->profile = melu__alloc(alloc, melu_schema_n_fields(s->model->schema, MELU_USER), sizeof *a->profile);
  a->items = melu__alloc(alloc, most, sizeof *a->items);
  a->ratings = melu__alloc(alloc, most, sizeof *a->ratings);
  a->order = melu__alloc(alloc, s->longest, sizeof *a->order);
  a->judges = melu__alloc(alloc, s->longest, sizeof *a->judges);
  a->scores = melu__alloc(alloc, s->longest, sizeof *a->scores);
  return a->profile && a->items && a->ratings && a->order && a->judges && a->scores ? MELU_OK : melu__fail_memory(err);
}

static void free_search(struct melu__search *s) {
  const struct melu_allocator *alloc = &s->model->ctx->allocator;
  for (size_t i = 0; i < s->n_askers; i++) {
    struct melu__asker *a = &s->askers[i];
    melu_workspace_free(a->workspace);
    melu_user_free(a->user);
    melu__free(alloc, a->profile);
    melu__free(alloc, a->items);
    melu__free(alloc, a->ratings);
    melu__free(alloc, a->order);
    melu__free(alloc, a->judges);
    melu__free(alloc, a->scores);
  }
  void *const all[] = {s->askers, s->users,  s->candidates, s->number, s->start,
                       s->said,   s->errors, s->n_errors,   s->status};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(alloc, all[i]);
}

size_t melu__search_ratings(const struct melu__search *s, size_t u, const uint32_t **items, const float **ratings) {
  const size_t n = melu_dataset_ratings(s->data, s->users[u], items, ratings);
  return n < MOST_RATINGS ? n : MOST_RATINGS;
}

static melu_status find_users(struct melu__search *s, melu_error *err) {
  const struct melu_candidate_options *o = &s->options;
  const struct melu_allocator *alloc = &s->model->ctx->allocator;
  const size_t n_all = melu_dataset_n_users(s->data);
  size_t n_ratings = 0;
  s->n_users = o->users ? o->n_users : n_all;
  s->users = melu__alloc(alloc, s->n_users, sizeof *s->users);
  s->start = melu__alloc(alloc, melu__size_add(s->n_users, 1), sizeof *s->start);
  if (!s->users || !s->start) return melu__fail_memory(err);
  for (size_t i = 0; i < s->n_users; i++) {
    const uint32_t user = o->users ? o->users[i] : (uint32_t)i;
    if (user >= n_all)
      return melu__fail_at(err, MELU_ERANGE, i, "users[%zu] is %lu, the data set has %zu users", i, (unsigned long)user,
                           n_all);
    s->users[i] = user;
    const size_t n = melu__search_ratings(s, i, NULL, NULL);
    s->start[i] = n_ratings;
    n_ratings += n;
    if (n > s->longest) s->longest = n;
  }
  s->start[s->n_users] = n_ratings;
  if (n_ratings == 0) return melu__fail(err, MELU_ENOTFOUND, "the users have no ratings");
  return MELU_OK;
}

static int more_rated(const void *a, const void *b) {
  const struct melu__candidate *x = a, *y = b;
  if (x->n_ratings != y->n_ratings) return x->n_ratings > y->n_ratings ? -1 : 1;
  return (x->item > y->item) - (x->item < y->item);
}

/* The items that may be asked about, most rated first. */
static melu_status find_candidates(struct melu__search *s, melu_error *err) {
  const struct melu_candidate_options *o = &s->options;
  const struct melu_allocator *alloc = &s->model->ctx->allocator;
  const size_t n_all = melu_dataset_n_items(s->data), most = o->items ? o->n_items : n_all;
  s->number = melu__calloc(alloc, n_all, sizeof *s->number); /* for now: how often it was rated */
  s->candidates = melu__alloc(alloc, most, sizeof *s->candidates);
  if (!s->number || !s->candidates) return melu__fail_memory(err);
  for (size_t u = 0; u < s->n_users; u++) {
    const uint32_t *items;
    const size_t n = melu__search_ratings(s, u, &items, NULL);
    for (size_t i = 0; i < n; i++) s->number[items[i]]++;
  }
  for (size_t i = 0; i < most; i++) {
    const uint32_t item = o->items ? o->items[i] : (uint32_t)i;
    if (item >= n_all)
      return melu__fail_at(err, MELU_ERANGE, i, "items[%zu] is %lu, the data set has %zu items", i, (unsigned long)item,
                           n_all);
    if (s->number[item]) s->candidates[s->n_candidates++] = (struct melu__candidate){item, s->number[item], 0, 0};
    if (o->items) s->number[item] = 0; /* a list may name it twice */
  }
  if (s->n_candidates == 0) return melu__fail(err, MELU_ENOTFOUND, "nobody rated one of the items");
  qsort(s->candidates, s->n_candidates, sizeof *s->candidates, more_rated);
  if (o->rule == MELU_EXPECTED_ERROR && s->n_candidates > o->max_items) s->n_candidates = o->max_items;
  memset(s->number, 0xff, n_all * sizeof *s->number);
  for (size_t i = 0; i < s->n_candidates; i++) s->number[s->candidates[i].item] = (uint32_t)i;
  return MELU_OK;
}

static melu_status prepare(struct melu__search *s, melu_error *err) {
  const struct melu_allocator *alloc = &s->model->ctx->allocator;
  melu_status status = find_users(s, err);
  if (!status) status = find_candidates(s, err);
  if (status) return status;
  if (s->n_wanted > s->n_candidates) s->n_wanted = s->n_candidates;
  const size_t n_threads = s->model->ctx->runner.n_threads;
  s->said = melu__calloc(alloc, s->start[s->n_users], sizeof *s->said);
  s->errors = melu__alloc(alloc, s->n_users, sizeof *s->errors);
  s->n_errors = melu__alloc(alloc, s->n_users, sizeof *s->n_errors);
  s->status = melu__calloc(alloc, s->n_users, sizeof *s->status);
  s->askers = melu__calloc(alloc, n_threads, sizeof *s->askers);
  if (!s->said || !s->errors || !s->n_errors || !s->status || !s->askers) return melu__fail_memory(err);
  s->n_askers = n_threads;
  for (size_t i = 0; i < n_threads && !status; i++) status = make_asker(&s->askers[i], s, err);
  return status;
}

struct round {
  struct melu__search *search;
  melu__per_user *run;
};

static void run_one(void *arg, size_t index, size_t thread) {
  const struct round *r = arg;
  struct melu__search *s = r->search;
  s->status[s->first + index] = r->run(s, s->first + index, &s->askers[thread], NULL);
}

melu_status melu__search_users(struct melu__search *s, melu__per_user *run, melu_error *err) {
  const melu_context *ctx = s->model->ctx;
  struct round round = {s, run};
  for (s->first = 0; s->first < s->n_users;) {
    const size_t n = s->n_users - s->first < PIECE ? s->n_users - s->first : PIECE;
    ctx->runner.run(ctx->runner.arg, run_one, &round, n);
    for (size_t u = s->first; u < s->first + n; u++) /* once more, for the message */
      if (s->status[u]) {
        const melu_status status = run(s, u, &s->askers[0], err);
        return status ? status : melu__fail_memory(err);
      }
    s->first += n;
    s->n_done += n;
    const struct melu_progress progress = {.phase = "ask", .done = s->n_done, .total = s->n_total};
    const melu_status status = melu__progress(ctx, &progress, err);
    if (status) return status;
  }
  return MELU_OK;
}

void melu__search_sum(struct melu__search *s) {
  for (size_t c = 0; c < s->n_candidates; c++)
    if (!s->candidates[c].is_chosen) s->candidates[c].score = 0;
  for (size_t u = 0; u < s->n_users; u++) {
    const uint32_t *items;
    const size_t n = melu__search_ratings(s, u, &items, NULL);
    for (size_t i = 0; i < n; i++) {
      const uint32_t c = s->number[items[i]];
      if (c != MELU__NO_INDEX && !s->candidates[c].is_chosen) s->candidates[c].score += s->said[s->start[u] + i];
    }
  }
}

/* -------------------------------------------------------------------------------------------------- both */

static melu_status check_options(struct melu_candidate_options *o, const struct melu_candidate_options *given,
                                 melu_error *err) {
  const melu_status status = melu__options(o, sizeof *o, given, "melu_candidate_options", err);
  if (status) return status;
  if (o->rule == 0) o->rule = MELU_EXPECTED_ERROR;
  if (o->rule != MELU_EXPECTED_ERROR && o->rule != MELU_GRADIENT_NORM)
    return melu__fail(err, MELU_EINVAL, "options: rule is %d", (int)o->rule);
  if ((!o->users && o->n_users) || (!o->items && o->n_items))
    return melu__fail(err, MELU_EINVAL, "options: a list is NULL, its length is not 0");
  if (o->n_splits == 0) o->n_splits = DEFAULT_SPLITS;
  if (o->max_items == 0) o->max_items = DEFAULT_MAX_ITEMS;
  return MELU_OK;
}

melu_status melu_candidates(uint32_t *items, double *scores, size_t *n, const melu_model *model,
                            const melu_dataset *data, const struct melu_candidate_options *options, melu_error *err) {
  struct melu__search s = {.model = model, .data = data};
  if (!n || !model || !data || (*n && !items))
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !n ? "n" : !model ? "model" : !data ? "data" : "items");
  melu_status status = check_options(&s.options, options, err);
  if (!status) status = melu__check_whole(model, err);
  if (!status) status = melu__check_readable(model, data, NULL, 0, err);
  if (status || *n == 0) return status;
  const struct melu_allocator *a = &model->ctx->allocator;
  s.n_wanted = *n < melu_dataset_n_items(data) ? *n : melu_dataset_n_items(data);
  uint32_t *chosen = melu__alloc(a, s.n_wanted, sizeof *chosen);
  double *values = melu__alloc(a, s.n_wanted, sizeof *values);
  status = chosen && values ? prepare(&s, err) : melu__fail_memory(err);
  if (!status)
    status = s.options.rule == MELU_EXPECTED_ERROR ? melu__choose_by_error(chosen, values, &s, err)
                                                   : melu__choose_by_norm(chosen, values, &s, err);
  if (!status) {
    *n = s.n_wanted;
    memcpy(items, chosen, *n * sizeof *items);
    if (scores) memcpy(scores, values, *n * sizeof *scores);
  }
  melu__free(a, values);
  melu__free(a, chosen);
  free_search(&s);
  return status;
}
