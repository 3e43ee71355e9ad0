/* SPDX-License-Identifier: BSD-3-Clause */
/* Evidence candidates: the greedy list against a search through the public calls, which adapts everybody to every list
 * that is tried; the paper's list against norms of meta-gradients, of tasks that are one rating each. The same on any
 * number of threads; progress, and what is refused. */
#include <math.h>

#include "people.h"
#include "run_suite.h"

enum { N = PEOPLE_ITEMS, N_USERS = 30, MOST_JUDGES = 32 };

static melu_error err;
static struct people p;

#define LAYERS PEOPLE_LAYERS
#define FACTORS PEOPLE_FACTORS
#define STEPS PEOPLE_FACTORS, .rule = MELU_STEPS

static const struct melu_model_options settings[] = {
    {FACTORS},
    {LAYERS},
    {FACTORS, .loss = MELU_LOGISTIC},
    {STEPS, .inner_lr = 0.3},
    {LAYERS, .adapt = MELU_ADAPT_HEAD, .loss = MELU_ABSOLUTE},
    {LAYERS, .adapt = MELU_ADAPT_HIDDEN | MELU_ADAPT_USER, .loss = MELU_LOGISTIC},
    {LAYERS, .rule = MELU_CLOSED_FORM},
    {LAYERS, .first_order = 1, .loss = MELU_PAIRWISE},
    {LAYERS, .adapt = 15},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings, OWN_ROWS = N_SETTINGS - 1, N_KINDS = 3 };
static const size_t kinds[N_KINDS] = {0, 1, OWN_ROWS};

static struct melu_model_options options_of(const melu_model *model) {
  struct melu_model_options o = {.size = sizeof o};
  WORLD_TRY(melu_model_get_options(&o, model, &err));
  return o;
}

/* Whose ratings count, and how often each item has one; the items by that, those of a list alone. */
struct asked_of {
  uint32_t users[2 * N_USERS], items[N], n_ratings[N];
  size_t n_users, n_items;
};

static struct asked_of naive_items(const struct melu_candidate_options *o) {
  struct asked_of a = {.n_users = o->users ? o->n_users : melu_dataset_n_users(p.data)};
  int is_listed[N] = {0};
  for (size_t i = 0; i < o->n_items; i++) is_listed[o->items[i]] = 1;
  for (size_t u = 0; u < a.n_users; u++) {
    const uint32_t *items;
    a.users[u] = o->users ? o->users[u] : (uint32_t)u;
    for (size_t i = melu_dataset_ratings(p.data, a.users[u], &items, NULL); i > 0; i--) a.n_ratings[items[i - 1]]++;
  }
  for (size_t most = 2 * N_USERS; most > 0; most--)
    for (uint32_t i = 0; i < N; i++)
      if (a.n_ratings[i] == most && (!o->items || is_listed[i])) a.items[a.n_items++] = i;
  return a;
}

static size_t candidates(uint32_t *items, double *scores, size_t n, const struct melu_candidate_options *o) {
  WORLD_TRY(melu_candidates(items, scores, &n, p.model, p.data, o, &err));
  return n;
}

/* --------------------------------------------------------------------------------------------------- by error */

/* One person's sum of errors in one split, who answers what is marked if she can. */
static double error_of(uint32_t user, uint64_t split, const int *is_asked, size_t *n_judges) {
  const struct melu_model_options o = options_of(p.model);
  struct melu_value profile[PEOPLE_FIELDS];
  uint32_t order[N], told[N], judges[MOST_JUDGES];
  float answers[N], scores[MOST_JUDGES];
  const uint32_t *items;
  const float *ratings;
  const size_t n = melu_dataset_ratings(p.data, user, &items, &ratings);
  size_t n_told = 0;
  double sum = 0;
  *n_judges = n * 2 / 5 > MOST_JUDGES ? MOST_JUDGES : n * 2 / 5;
  const size_t n_open = n - *n_judges;
  WORLD_TRY(melu_split_order(order, melu_dataset_user_id(p.data, user), split, n, &err));
  WORLD_TRY(melu_dataset_user_values(profile, p.data, user, &err));
  for (size_t i = 0; i < n_open; i++)
    if (is_asked[items[order[i]]]) {
      told[n_told] = items[order[i]];
      answers[n_told++] = ratings[order[i]];
    }
  for (size_t i = 0; i < *n_judges; i++) judges[i] = items[order[n_open + i]];
  WORLD_TRY(melu_adapt(p.user, p.ws, p.model, p.data, profile, told, answers, n_told, &err));
  WORLD_TRY(melu_predict(scores, p.ws, p.model, p.user, p.data, judges, *n_judges, &err));
  for (size_t i = 0; i < *n_judges; i++) {
    const double y = o.loss == MELU_LOGISTIC ? 1 / (1 + exp(-(double)scores[i])) : (double)scores[i];
    sum += fabs(fmin(fmax(y, o.rating_min), o.rating_max) - (double)ratings[order[n_open + i]]);
  }
  return sum;
}

static double mean_error(const struct asked_of *a, size_t n_splits, const int *is_asked) {
  double sum = 0, n = 0;
  for (size_t u = 0; u < a->n_users; u++)
    for (uint64_t split = 0; split < n_splits; split++) {
      size_t n_judges;
      sum += error_of(a->users[u], split, is_asked, &n_judges);
      n += (double)n_judges;
    }
  return sum / n;
}

static void check_by_error(size_t n, const struct melu_candidate_options *o) {
  const struct asked_of a = naive_items(o);
  const size_t max_items = o->max_items ? o->max_items : 256, n_items = a.n_items < max_items ? a.n_items : max_items;
  int is_asked[N] = {0};
  uint32_t items[N];
  double scores[N];
  ck_assert_uint_eq(candidates(items, scores, n, o), n);
  for (size_t k = 0; k < n; k++) {
    double least = INFINITY;
    uint32_t best = UINT32_MAX;
    for (size_t i = 0; i < n_items; i++) {
      if (is_asked[a.items[i]]) continue;
      is_asked[a.items[i]] = 1;
      const double error = mean_error(&a, o->n_splits ? o->n_splits : 4, is_asked);
      is_asked[a.items[i]] = 0;
      if (error > least || (error == least && a.items[i] > best)) continue;
      least = error;
      best = a.items[i];
    }
    is_asked[best] = 1;
    ck_assert_msg(items[k] == best, "question %zu is about %u, not %u", k, (unsigned)items[k], (unsigned)best);
    ck_assert_msg(fabs(scores[k] - least) < 1e-6, "question %zu: %.9g, in truth %.9g", k, scores[k], least);
  }
}

START_TEST(the_greedy_list_is_that_of_a_naive_search) {
  const uint32_t users[] = {5, 3, 9, 0, 12, 5, 20, 2, 21, 22}, items[] = {4, 0, 10, 3, 4, 2, 10, 87, 6};
  const struct melu_candidate_options few = {.size = sizeof few, .max_items = 12, .n_splits = 2};
  const struct melu_candidate_options listed = {.size = sizeof listed,
                                                .rule = MELU_EXPECTED_ERROR,
                                                .users = users,
                                                .n_users = sizeof users / sizeof *users,
                                                .items = items,
                                                .n_items = sizeof items / sizeof *items,
                                                .max_items = MELU_NONE,
                                                .n_splits = 3};
  people_open(&p, NULL, &settings[_i], N_USERS, N);
  check_by_error(4, &few);
  check_by_error(7, &listed);
  people_close(&p);
}
END_TEST

START_TEST(the_default_is_all_items_in_four_splits) {
  const struct melu_candidate_options none = {.size = sizeof none};
  uint32_t items[2], again[2];
  people_open(&p, NULL, &settings[0], N_USERS, N);
  check_by_error(2, &none);
  candidates(items, NULL, 2, &none);
  candidates(again, NULL, 2, NULL);
  ck_assert_mem_eq(items, again, sizeof items);
  people_close(&p);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- by norm */

/* The loss that the inner loop has of one rating. */
static int inner_loss(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                      float *slopes) {
  const struct melu_model_options *o = arg;
  const double e = (double)scores[0] - (double)ratings[0];
  (void)task;
  ck_assert_uint_eq(n, 1);
  if (o->loss == MELU_LOGISTIC)
    slopes[0] = (float)(1 / (1 + exp(-(double)scores[0])) - (double)ratings[0]);
  else if (o->loss == MELU_ABSOLUTE)
    slopes[0] = (float)(e / sqrt(e * e + 0.01));
  else
    slopes[0] = (float)(2 * e);
  *loss = 0;
  return 0;
}

static double square_of(const melu_gradient *g, const char *name, size_t size) {
  float values[1024];
  double sum = 0;
  ck_assert_uint_le(size, 1024);
  WORLD_TRY(melu_gradient_read(values, g, name, &err));
  for (size_t i = 0; i < size; i++) sum += (double)values[i] * (double)values[i];
  return sum;
}

/* Of the user's part of the input: what b1 has, through W1. */
static double square_of_user(const melu_gradient *g) {
  enum { H = 8, ITEM = 9, USER = 4 };
  float w[H * (ITEM + USER)], d[H];
  double sum = 0;
  WORLD_TRY(melu_model_read(w, p.model, "W1", 0, H, &err));
  WORLD_TRY(melu_gradient_read(d, g, "b1", &err));
  for (size_t j = ITEM; j < ITEM + USER; j++) {
    double x = 0;
    for (size_t i = 0; i < H; i++) x += (double)d[i] * (double)w[i * (ITEM + USER) + j];
    sum += x * x;
  }
  return sum;
}

/* The norm of the gradient with respect to what the inner loop may change. */
static double naive_norm(melu_gradient *g, melu_batch *batch, uint32_t user, uint32_t rating) {
  struct melu_model_options o = options_of(p.model);
  double sum = 0;
  melu_batch_clear(batch);
  WORLD_TRY(melu_batch_add(batch, user, NULL, 0, &rating, 1, &err));
  WORLD_TRY(melu_meta_gradient_of(g, p.model, batch, inner_loss, &o, &err));
  if (o.network == MELU_FACTORS) return sqrt(square_of(g, "prior", 7));
  if (o.adapt & MELU_ADAPT_HEAD) sum += square_of(g, "W3", 6) + square_of(g, "b3", 1);
  if (o.adapt & MELU_ADAPT_HIDDEN)
    sum += square_of(g, "W1", 8 * 13) + square_of(g, "b1", 8) + square_of(g, "W2", 48) + square_of(g, "b2", 6);
  if (o.adapt & MELU_ADAPT_USER) sum += square_of_user(g);
  if (o.adapt & MELU_ADAPT_ITEMS) sum += square_of(g, "E.self", 4 * (N + 1)) + square_of(g, "E.tags", 18);
  return sqrt(sum);
}

/* Mean norms of all items. */
static void naive_norms(double *norms, const struct asked_of *a) {
  melu_gradient *g;
  melu_batch *batch;
  WORLD_TRY(melu_gradient_new(&g, p.model, &err));
  WORLD_TRY(melu_batch_new(&batch, p.ctx, p.data, &err));
  memset(norms, 0, N * sizeof *norms);
  for (size_t u = 0; u < a->n_users; u++) {
    const uint32_t *items;
    const size_t n = melu_dataset_ratings(p.data, a->users[u], &items, NULL);
    for (uint32_t i = 0; i < n; i++)
      norms[items[i]] += naive_norm(g, batch, a->users[u], i) / (double)a->n_ratings[items[i]];
  }
  melu_batch_free(batch);
  melu_gradient_free(g);
}

/* Scaled to [0, 1] over the items that may be chosen. */
static double scaled(const double *x, uint32_t item, const struct asked_of *a) {
  double least = INFINITY, most = -INFINITY;
  for (size_t i = 0; i < a->n_items; i++) {
    least = fmin(least, x[a->items[i]]);
    most = fmax(most, x[a->items[i]]);
  }
  return most > least ? (x[item] - least) / (most - least) : 1;
}

static void check_by_norm(const struct melu_candidate_options *o) {
  const struct asked_of a = naive_items(o);
  uint32_t items[N], fewer[3];
  double norms[N], counts[N], scores[N];
  int is_there[N] = {0};
  naive_norms(norms, &a);
  for (size_t i = 0; i < N; i++) counts[i] = a.n_ratings[i];
  ck_assert_uint_eq(candidates(items, scores, N, o), a.n_items);
  for (size_t k = 0; k < a.n_items; k++) {
    const double want = scaled(norms, items[k], &a) * scaled(counts, items[k], &a);
    ck_assert(!is_there[items[k]]++);
    ck_assert_msg(fabs(scores[k] - want) < 1e-4, "item %u: %.9g, in truth %.9g", (unsigned)items[k], scores[k], want);
    if (k) ck_assert(scores[k - 1] > scores[k] || (scores[k - 1] == scores[k] && items[k - 1] < items[k]));
  }
  ck_assert(scores[0] > 0.1);
  ck_assert_uint_eq(candidates(fewer, NULL, 3, o), 3);
  ck_assert_mem_eq(fewer, items, sizeof fewer);
}

START_TEST(the_papers_list_is_norm_times_popularity) {
  const uint32_t users[] = {5, 3, 9, 0, 12, 5, 20, 2, 21, 22}, items[] = {4, 0, 10, 3, 4, 2, 10, 87, 6};
  struct melu_candidate_options o = {.size = sizeof o, .rule = MELU_GRADIENT_NORM, .max_items = 5};
  people_open(&p, NULL, &settings[_i], N_USERS, N);
  check_by_norm(&o);
  o.users = users;
  o.n_users = sizeof users / sizeof *users;
  check_by_norm(&o);
  o.items = items;
  o.n_items = sizeof items / sizeof *items;
  check_by_norm(&o);
  people_close(&p);
}
END_TEST

/* --------------------------------------------------------------------------------------------------- threads */

static const melu_candidate_rule rules[] = {MELU_EXPECTED_ERROR, MELU_GRADIENT_NORM};

START_TEST(threads_do_not_change_a_bit) {
  enum { MANY_USERS = 150, ASKED = 3 };
  static const size_t n_threads[] = {1, 2, 3, 8};
  uint32_t items[ASKED], again[ASKED];
  double scores[ASKED], scores_again[ASKED];
  for (size_t i = 0; i < sizeof n_threads / sizeof *n_threads; i++) {
    const struct melu_context_options context = {.size = sizeof context, .n_threads = n_threads[i]};
    const struct melu_candidate_options o = {.size = sizeof o, .rule = rules[_i % 2], .max_items = 10, .n_splits = 1};
    people_open(&p, &context, &settings[kinds[_i / 2]], MANY_USERS, N);
    ck_assert_uint_eq(candidates(again, scores_again, ASKED, &o), ASKED);
    if (i) ck_assert(!memcmp(items, again, sizeof items) && !memcmp(scores, scores_again, sizeof scores));
    memcpy(items, again, sizeof items);
    memcpy(scores, scores_again, sizeof scores);
    people_close(&p);
  }
}
END_TEST

/* --------------------------------------------------------------------------------------------------- progress */

static struct seen {
  uint64_t done, total;
  size_t n_calls, stop_at; /* 0: not */
} seen;

static int see(void *arg, const struct melu_progress *progress) {
  ck_assert_ptr_eq(arg, &seen);
  ck_assert_str_eq(progress->phase, "ask");
  ck_assert_uint_gt(progress->done, seen.done);
  ck_assert_uint_le(progress->done, progress->total);
  ck_assert(seen.n_calls == 0 || progress->total == seen.total);
  seen.done = progress->done;
  seen.total = progress->total;
  return ++seen.n_calls == seen.stop_at;
}

START_TEST(progress_is_told_and_can_stop) {
  const struct melu_context_options context = {.size = sizeof context, .progress = see, .progress_arg = &seen};
  const struct melu_candidate_options o = {.size = sizeof o, .rule = rules[_i], .max_items = 4, .n_splits = 1};
  uint32_t items[2];
  double scores[2] = {77, 77};
  people_open(&p, &context, &settings[0], 100, N);
  seen = (struct seen){0};
  ck_assert_uint_eq(candidates(items, NULL, 2, &o), 2);
  ck_assert_uint_eq(seen.done, seen.total);
  const size_t n_calls = seen.n_calls;
  ck_assert_uint_gt(n_calls, 1);
  for (size_t stop = 1; stop <= n_calls; stop++) {
    size_t n = 2;
    items[0] = items[1] = 77;
    seen = (struct seen){.stop_at = stop};
    ck_assert_int_eq(melu_candidates(items, scores, &n, p.model, p.data, &o, &err), MELU_ECANCELED);
    ck_assert_uint_eq(seen.n_calls, stop);
    ck_assert(n == 2 && items[0] == 77 && items[1] == 77 && scores[0] == 77 && scores[1] == 77);
  }
  people_close(&p);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- bad input */

static void check_refusal(melu_status want, const melu_dataset *data, const struct melu_candidate_options *o,
                          size_t index) {
  for (int with_details = 0; with_details < 2; with_details++) {
    uint32_t items[2] = {77, 77};
    double scores[2] = {77, 77};
    size_t n = 2;
    err.index = 0;
    ck_assert_int_eq(melu_candidates(items, scores, &n, p.model, data, o, with_details ? &err : NULL), want);
    ck_assert(n == 2 && items[0] == 77 && items[1] == 77 && scores[0] == 77 && scores[1] == 77);
  }
  ck_assert_int_eq(err.status, want);
  ck_assert_uint_eq(err.index, index);
}

START_TEST(bad_options_are_refused) {
  const uint32_t far_user[] = {4, N_USERS}, far_item[] = {1, 2, N}, silent[] = {0, 0}, few[] = {0, 1, 2};
  const struct melu_candidate_options old = {.size = sizeof(size_t) - 1},
                                      no_rule = {.size = sizeof old, .rule = (melu_candidate_rule)3};
  people_open(&p, NULL, &settings[0], N_USERS, N);
  check_refusal(MELU_EINVAL, p.data, &old, 0);
  check_refusal(MELU_EINVAL, p.data, &no_rule, 0);
  for (size_t i = 0; i < 2; i++) {
    struct melu_candidate_options o = {.size = sizeof o, .rule = rules[i], .n_users = 1};
    check_refusal(MELU_EINVAL, p.data, &o, 0);
    o.users = far_user;
    o.n_users = 2;
    check_refusal(MELU_ERANGE, p.data, &o, 1);
    o.users = silent;
    check_refusal(MELU_ENOTFOUND, p.data, &o, 0);
    o.n_users = 0;
    check_refusal(MELU_ENOTFOUND, p.data, &o, 0);
    o = (struct melu_candidate_options){.size = sizeof o, .rule = rules[i], .n_items = 1};
    check_refusal(MELU_EINVAL, p.data, &o, 0);
    o.items = far_item;
    o.n_items = 3;
    check_refusal(MELU_ERANGE, p.data, &o, 2);
    o.n_items = 0;
    check_refusal(MELU_ENOTFOUND, p.data, &o, 0);
  }
  const struct melu_candidate_options nobody = {.size = sizeof nobody, .users = few, .n_users = 3}; /* can judge */
  check_refusal(MELU_ENOTFOUND, p.data, &nobody, 0);
  people_close(&p);
}
END_TEST

static void check_other_data(void) {
  melu_schema *schema;
  melu_dataset *open, *foreign, *silent = people_new_data(&p, 0, 3);
  check_refusal(MELU_ENOTFOUND, silent, NULL, 0);
  WORLD_TRY(melu_dataset_new(&open, p.ctx, p.schema, &err));
  check_refusal(MELU_ESTATE, open, NULL, 0);
  WORLD_TRY(melu_schema_new(&schema, p.ctx, &err));
  world_fields(schema);
  WORLD_TRY(melu_dataset_new(&foreign, p.ctx, schema, &err));
  world_fill(foreign, 1);
  check_refusal(MELU_ESCHEMA, foreign, NULL, 0);
  melu_dataset_free(foreign);
  melu_schema_free(schema);
  melu_dataset_free(open);
  melu_dataset_free(silent);
}

START_TEST(bad_input_is_refused) {
  uint32_t items[2] = {77, 77};
  size_t n = 2;
  people_open(&p, NULL, &settings[kinds[_i]], 5, N);
  ck_assert_int_eq(melu_candidates(NULL, NULL, &n, p.model, p.data, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_candidates(items, NULL, NULL, p.model, p.data, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_candidates(items, NULL, &n, NULL, p.data, NULL, &err), MELU_EINVAL);
  check_refusal(MELU_EINVAL, NULL, NULL, 0);
  check_other_data();
  ck_assert_uint_eq(candidates(NULL, NULL, 0, NULL), 0);
  ck_assert(items[0] == 77 && items[1] == 77);
  people_close(&p);
}
END_TEST

/* Of three items that were rated there are three candidates, whatever was asked for. */
START_TEST(there_may_be_fewer) {
  const uint32_t users[] = {2, 4, 6, 7}, items[] = {0, 1, 2, 0};
  const struct melu_candidate_options o = {
      .size = sizeof o, .rule = rules[_i], .users = users, .n_users = 4, .items = items, .n_items = 4};
  uint32_t found[N];
  int is_there[3] = {0};
  people_open(&p, NULL, &settings[0], N_USERS, N);
  const struct asked_of a = naive_items(&o);
  const size_t n = candidates(found, NULL, N, &o);
  ck_assert_uint_eq(n, a.n_items);
  ck_assert(n > 1 && n <= 3);
  for (size_t i = 0; i < n; i++) ck_assert(found[i] < 3 && !is_there[found[i]]++);
  people_close(&p);
}
END_TEST

START_TEST(a_list_has_its_limit) {
  enum { LIMIT = 4096 };
  const struct melu_candidate_options o = {.size = sizeof o, .max_items = MELU_NONE};
  static uint32_t items[LIMIT];
  size_t n = LIMIT;
  melu_dataset *large;
  people_open(&p, NULL, &settings[0], 0, 1);
  WORLD_TRY(melu_dataset_new(&large, p.ctx, p.schema, &err));
  WORLD_TRY(melu_dataset_add_user(large, 1, NULL, NULL, &err));
  for (uint32_t i = 0; i < LIMIT; i++) {
    WORLD_TRY(melu_dataset_add_item(large, i, NULL, NULL, &err));
    WORLD_TRY(melu_dataset_add_rating(large, 1, i, 3, &err));
  }
  WORLD_TRY(melu_dataset_freeze(large, &err));
  ck_assert_int_eq(melu_candidates(items, NULL, &n, p.model, large, &o, &err), MELU_ELIMIT);
  ck_assert_uint_eq(n, LIMIT);
  melu_dataset_free(large);
  people_close(&p);
}
END_TEST

/* Of somebody's ratings the first 65,536 count, as many as can be put into an order. */
START_TEST(a_list_of_ratings_has_its_limit) {
  enum { LIMIT = 65536 };
  const struct melu_candidate_options o = {.size = sizeof o, .rule = MELU_GRADIENT_NORM};
  uint32_t items[3];
  melu_dataset *large;
  size_t n = 3;
  people_open(&p, NULL, &settings[0], 0, 1);
  WORLD_TRY(melu_dataset_new(&large, p.ctx, p.schema, &err));
  WORLD_TRY(melu_dataset_add_user(large, 1, NULL, NULL, &err));
  for (uint32_t i = 0; i < 3; i++) people_add_item(large, i);
  for (uint32_t i = 0; i <= LIMIT; i++)
    WORLD_TRY(melu_dataset_add_rating(large, 1, people_item_id(i < LIMIT ? i % 2 : 2), people_rating(&p, 0), &err));
  WORLD_TRY(melu_dataset_freeze(large, &err));
  WORLD_TRY(melu_candidates(items, NULL, &n, p.model, large, &o, &err));
  ck_assert_uint_eq(n, 2);
  ck_assert(items[0] + items[1] == 1);
  melu_dataset_free(large);
  people_close(&p);
}
END_TEST

/* The only one that may be asked about stands out in no way, and is the best. */
START_TEST(one_item_is_the_best) {
  const uint32_t item = 4;
  const struct melu_candidate_options o = {.size = sizeof o, .rule = MELU_GRADIENT_NORM, .items = &item, .n_items = 1};
  uint32_t found;
  double score;
  people_open(&p, NULL, &settings[0], N_USERS, N);
  ck_assert_uint_eq(candidates(&found, &score, 1, &o), 1);
  ck_assert(found == item && score == 1);
  people_close(&p);
}
END_TEST

START_TEST(what_is_not_finite_is_refused) {
  const struct melu_candidate_options o = {.size = sizeof o, .rule = rules[_i]};
  float huge[8];
  for (size_t i = 0; i < 8; i++) huge[i] = 3e38f;
  people_open(&p, NULL, &settings[1], N_USERS, 1);
  WORLD_TRY(melu_model_write(p.model, "W3", 0, 1, huge, &err));
  WORLD_TRY(melu_model_write(p.model, "W2", 0, 1, huge, &err));
  check_refusal(MELU_EDIVERGED, p.data, &o, 0);
  people_close(&p);
}
END_TEST

/* Each request in turn is refused, in a world where no plan was made before. */
START_TEST(no_memory_leaves_all_as_it_was) {
  const struct melu_candidate_options o = {.size = sizeof o, .rule = rules[_i % 2], .max_items = 2, .n_splits = 1};
  const struct melu_context_options two_threads = {.size = sizeof two_threads, .n_threads = 2};
  size_t n_refused = 0;
  for (int failed = 1; failed; n_refused += (size_t)failed) {
    uint32_t items[1] = {77};
    double scores[1] = {77};
    size_t n = 1;
    people_open(&p, &two_threads, &settings[kinds[_i / 2]], 6, 1);
    p.heap.fail_at = p.heap.made + n_refused + 1;
    const melu_status status = melu_candidates(items, scores, &n, p.model, p.data, &o, &err);
    failed = p.heap.made >= p.heap.fail_at;
    p.heap.fail_at = 0;
    ck_assert_int_eq(status, failed ? MELU_ENOMEM : MELU_OK);
    ck_assert((items[0] == 77) == failed && (scores[0] == 77) == failed && n == 1);
    ck_assert_uint_eq(candidates(items, NULL, 1, &o), 1);
    people_close(&p);
  }
  ck_assert_uint_gt(n_refused, 20);
}
END_TEST

int main(void) {
  Suite *s = suite_create("candidates");
  TCase *t = tcase_create("candidates");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, the_greedy_list_is_that_of_a_naive_search, 0, N_SETTINGS);
  tcase_add_test(t, the_default_is_all_items_in_four_splits);
  tcase_add_loop_test(t, the_papers_list_is_norm_times_popularity, 0, N_SETTINGS);
  tcase_add_loop_test(t, threads_do_not_change_a_bit, 0, 2 * N_KINDS);
  tcase_add_loop_test(t, progress_is_told_and_can_stop, 0, 2);
  tcase_add_test(t, bad_options_are_refused);
  tcase_add_loop_test(t, bad_input_is_refused, 0, N_KINDS);
  tcase_add_loop_test(t, there_may_be_fewer, 0, 2);
  tcase_add_test(t, a_list_has_its_limit);
  tcase_add_test(t, a_list_of_ratings_has_its_limit);
  tcase_add_test(t, one_item_is_the_best);
  tcase_add_loop_test(t, what_is_not_finite_is_refused, 0, 2);
  tcase_add_loop_test(t, no_memory_leaves_all_as_it_was, 0, 2 * N_KINDS);
  suite_add_tcase(s, t);
  return run_suite(s);
}
