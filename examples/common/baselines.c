/* SPDX-License-Identifier: BSD-3-Clause */
#include "baselines.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"

static void *memory(size_t n, size_t size) {
  void *p = calloc(n ? n : 1, size);
  if (!p) give_up("out of memory");
  return p;
}

/* ---------------------------------------------------------------------------------------------- the judge */

enum { N_QUERY = 10, MIN_RATINGS = 13, MAX_RATINGS = 100 };

void judge(struct melu_metrics *out, const melu_context *ctx, predict_fn *predict, const void *model,
           const melu_dataset *data, uint64_t split, size_t max_support, double rating_min, double rating_max) {
  melu_error err;
  size_t n_all = 0;
  float *all = memory(2 * N_QUERY * melu_dataset_n_users(data), sizeof *all),
        *truth = all + N_QUERY * melu_dataset_n_users(data);
  memset(out, 0, sizeof *out);
  for (uint32_t user = 0; user < melu_dataset_n_users(data); user++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, user, &items, &ratings);
    if (n < MIN_RATINGS || n > MAX_RATINGS) continue;
    uint32_t order[MAX_RATINGS], ordered[MAX_RATINGS];
    float known[MAX_RATINGS], scores[N_QUERY];
    must(melu_split_order(order, melu_dataset_user_id(data, user), split, n, &err), &err);
    for (size_t i = 0; i < n; i++) {
      ordered[i] = items[order[i]];
      known[i] = ratings[order[i]];
    }
    const size_t n_support = n - N_QUERY;
    const struct question question = {.support = ordered,
                                      .ratings = known,
                                      .n_support = n_support < max_support ? n_support : max_support,
                                      .queries = ordered + n_support,
                                      .n_queries = N_QUERY};
    predict(scores, model, &question);
    must(melu_metrics_add(out, scores, known + n_support, N_QUERY, rating_min, rating_max, &err), &err);
    memcpy(all + n_all, scores, sizeof scores);
    memcpy(truth + n_all, known + n_support, sizeof scores);
    n_all += N_QUERY;
  }
  must(melu_metrics_clicks(out, ctx, all, truth, n_all, &err), &err);
  free(all);
}

/* --------------------------------------------------------------------------------------------------- bias */

/* In ratings; chosen on MovieLens, on users held back for the purpose. */
static const double item_shrinkage = 2, user_shrinkage = 6;

static double sigmoid(double z) {
  return z < 0 ? exp(z) / (1 + exp(z)) : 1 / (1 + exp(-z));
}

/* One offset, given the other ones: what a Newton step makes of it, or a shrunk mean. `rest` are the scores without it.
 */
struct offset {
  double slope, weight;
};

static void add_rating(struct offset *o, const struct bias *bias, double rating, double rest, double now) {
  if (bias->clicks) {
    const double p = sigmoid(rest + now);
    o->slope += rating - p;
    o->weight += p * (1 - p);
  } else {
    o->slope += rating - rest;
    o->weight++;
  }
}

static double solved(const struct offset *o, const struct bias *bias, double now, double shrinkage) {
  if (bias->clicks) return now + (o->slope - now) / (o->weight + 1);
  return o->slope / (o->weight + shrinkage);
}

static double user_offset(const struct bias *bias, const uint32_t *items, const float *ratings, size_t n) {
  double user = 0;
  for (int turn = 0; turn < (bias->clicks ? 6 : 1); turn++) {
    struct offset o = {0};
    for (size_t i = 0; i < n; i++) add_rating(&o, bias, (double)ratings[i], bias->mean + bias->item[items[i]], user);
    user = solved(&o, bias, user, user_shrinkage);
  }
  return user;
}

/* Sets mean and `alone`, whatever the offsets are. */
static void fit_means(struct bias *bias, const melu_dataset *data) {
  double sum = 0, n_all = 0, *counts = memory(bias->n_items, sizeof *counts);
  for (uint32_t user = 0; user < melu_dataset_n_users(data); user++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, user, &items, &ratings);
    for (size_t i = 0; i < n; i++) {
      sum += (double)ratings[i];
      bias->alone[items[i]] += (double)ratings[i];
      counts[items[i]]++;
    }
    n_all += (double)n;
  }
  if (n_all == 0) give_up("there are no ratings to fit a bias model to");
  bias->mean = sum / n_all;
  for (size_t i = 0; i < bias->n_items; i++) bias->alone[i] = counts[i] > 0 ? bias->alone[i] / counts[i] : bias->mean;
  if (bias->clicks) bias->mean = log(bias->mean / (1 - bias->mean));
  free(counts);
}

void bias_fit(struct bias *bias, const melu_dataset *data, int clicks) {
  const size_t n_items = melu_dataset_n_items(data), n_users = melu_dataset_n_users(data);
  *bias = (struct bias){.n_items = n_items, .clicks = clicks};
  bias->item = memory(n_items, sizeof *bias->item);
  bias->alone = memory(n_items, sizeof *bias->alone);
  struct offset *offsets = memory(n_items, sizeof *offsets);
  double *user_offsets = memory(n_users, sizeof *user_offsets);
  fit_means(bias, data);
  /* Each kind of offset is fitted to what the other leaves; a dozen turns and nothing moves any more. */
  for (int turn = 0; turn < 12; turn++) {
    const uint32_t *items;
    const float *ratings;
    memset(offsets, 0, n_items * sizeof *offsets);
    for (uint32_t user = 0; user < n_users; user++) {
      const size_t n = melu_dataset_ratings(data, user, &items, &ratings);
      for (size_t i = 0; i < n; i++)
        add_rating(&offsets[items[i]], bias, (double)ratings[i], bias->mean + user_offsets[user], bias->item[items[i]]);
    }
    for (size_t i = 0; i < n_items; i++) bias->item[i] = solved(&offsets[i], bias, bias->item[i], item_shrinkage);
    for (uint32_t user = 0; user < n_users; user++) {
      const size_t n = melu_dataset_ratings(data, user, &items, &ratings);
      user_offsets[user] = user_offset(bias, items, ratings, n);
    }
  }
  free(user_offsets);
  free(offsets);
}

void bias_free(struct bias *bias) {
  free(bias->alone);
  free(bias->item);
}

void bias_predict(float *scores, const void *model, const struct question *q) {
  const struct bias *bias = model;
  const double user = user_offset(bias, q->support, q->ratings, q->n_support);
  for (size_t i = 0; i < q->n_queries; i++) scores[i] = (float)(bias->mean + user + bias->item[q->queries[i]]);
}

void item_mean_predict(float *scores, const void *model, const struct question *q) {
  const struct bias *bias = model;
  for (size_t i = 0; i < q->n_queries; i++) scores[i] = (float)bias->alone[q->queries[i]];
}

/* ----------------------------------------------------------------------------------------------- gaussian */

/* Solves A x = b for a symmetric positive definite A (n, n) by Cholesky's factors; A and b are overwritten. */
static void solve(double a[GAUSSIAN_ITEMS][GAUSSIAN_ITEMS], double *b, size_t n) {
  for (size_t j = 0; j < n; j++) {
    for (size_t k = 0; k < j; k++) a[j][j] -= a[j][k] * a[j][k];
    if (!(a[j][j] > 0)) give_up("the covariance of the answers is singular");
    a[j][j] = sqrt(a[j][j]);
    for (size_t i = j + 1; i < n; i++) {
      for (size_t k = 0; k < j; k++) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  for (size_t i = 0; i < n; i++) {
    for (size_t k = 0; k < i; k++) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; k++) b[i] -= a[k][i] * b[k];
    b[i] /= a[i][i];
  }
}

/* E[x_q | x_s] = m_q + C_qs C_ss^-1 (x_s - m_s). */
void gaussian_predict(float *scores, const void *model, const struct question *q) {
  const struct gaussian *g = model;
  double within[GAUSSIAN_ITEMS][GAUSSIAN_ITEMS], weights[GAUSSIAN_ITEMS];
  if (q->n_support > GAUSSIAN_ITEMS) give_up("more answers than the distribution has dimensions");
  for (size_t i = 0; i < q->n_support; i++) {
    weights[i] = (double)q->ratings[i] - g->mean[q->support[i]];
    for (size_t j = 0; j < q->n_support; j++) within[i][j] = g->covariance[q->support[i]][q->support[j]];
  }
  solve(within, weights, q->n_support);
  for (size_t i = 0; i < q->n_queries; i++) {
    double guess = g->mean[q->queries[i]];
    for (size_t j = 0; j < q->n_support; j++) guess += g->covariance[q->queries[i]][q->support[j]] * weights[j];
    scores[i] = (float)guess;
  }
}

/* Writes all answers of a person: those she gave, and the conditional mean of the others. */
static void complete(float *answers, const struct gaussian *g, const melu_dataset *data, uint32_t user) {
  struct question q = {0};
  q.n_support = melu_dataset_ratings(data, user, &q.support, &q.ratings);
  uint32_t missing[GAUSSIAN_ITEMS];
  float guesses[GAUSSIAN_ITEMS];
  int given[GAUSSIAN_ITEMS] = {0};
  for (size_t i = 0; i < q.n_support; i++) {
    given[q.support[i]] = 1;
    answers[q.support[i]] = q.ratings[i];
  }
  for (uint32_t item = 0; item < g->n_items; item++) {
    if (!given[item]) missing[q.n_queries++] = item;
  }
  q.queries = missing;
  if (q.n_queries == 0) return;
  gaussian_predict(guesses, g, &q);
  for (size_t i = 0; i < q.n_queries; i++) answers[missing[i]] = guesses[i];
}

static void estimate(struct gaussian *g, const float *answers, size_t n_users) {
  const size_t n = g->n_items;
  for (size_t i = 0; i < n; i++) {
    double sum = 0;
    for (size_t u = 0; u < n_users; u++) sum += (double)answers[u * n + i];
    g->mean[i] = sum / (double)n_users;
  }
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j <= i; j++) {
      double sum = 0;
      for (size_t u = 0; u < n_users; u++) {
        sum += ((double)answers[u * n + i] - g->mean[i]) * ((double)answers[u * n + j] - g->mean[j]);
      }
      g->covariance[i][j] = g->covariance[j][i] = sum / (double)n_users;
    }
  }
}

void gaussian_fit(struct gaussian *g, const melu_dataset *data) {
  const size_t n_users = melu_dataset_n_users(data);
  struct bias start;
  memset(g, 0, sizeof *g);
  g->n_items = melu_dataset_n_items(data);
  if (g->n_items > GAUSSIAN_ITEMS) give_up("too many items for a covariance: %zu", g->n_items);
  float *answers = memory(n_users * g->n_items, sizeof *answers);
  /* To start with the items are independent: a missing answer is the item's mean. */
  bias_fit(&start, data, 0);
  for (size_t i = 0; i < g->n_items; i++) {
    g->mean[i] = start.alone[i];
    g->covariance[i][i] = 1;
  }
  bias_free(&start);
  for (int round = 0; round < 4; round++) {
    for (uint32_t user = 0; user < n_users; user++) complete(answers + user * g->n_items, g, data, user);
    estimate(g, answers, n_users);
  }
  free(answers);
}
