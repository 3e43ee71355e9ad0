/* SPDX-License-Identifier: BSD-3-Clause */
/* Means over users of the errors and of the ranking quality of predicted ratings. */
#include <melu.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/number.h"

enum { N_CUTS = 4, MAX_CUT = 10 };

static const size_t cuts[N_CUTS] = {1, 3, 5, 10};

/* The first k positions of `key` sorted descending, ties by position; k at most MAX_CUT. No memory is needed for any
 * n, since no more than MAX_CUT of the positions matter. */
static void first_positions(size_t *first, const float *key, size_t n, size_t k) {
  size_t have = 0;
  for (size_t i = 0; i < n; i++) {
    size_t at = have;
    while (at > 0 && key[i] > key[first[at - 1]]) at--;
    if (at == k) continue;
    if (have < k) have++;
    memmove(first + at + 1, first + at, (have - at - 1) * sizeof *first);
    first[at] = i;
  }
}

/* The gains of a ranking at the cuts, each discounted by 1 / log2(1 + rank). A cut beyond the n queries stops there.
 * The paper's gain 2^rating - 1 is divided by 2^top, which cancels in DCG / IDCG and keeps any finite rating from
 * overflowing. */
static void discounted_gains(double paper[N_CUTS], double linear[N_CUTS], const size_t *order, size_t k,
                             const float *ratings, double top) {
  double sum_paper = 0, sum_linear = 0;
  size_t rank = 0;
  for (size_t c = 0; c < N_CUTS; c++) {
    for (; rank < cuts[c] && rank < k; rank++) {
      const double rating = (double)ratings[order[rank]];
      const double discount = log2((double)rank + 2);
      sum_paper += (exp2(rating - top) - exp2(-top)) / discount;
      sum_linear += rating / discount;
    }
    paper[c] = sum_paper;
    linear[c] = sum_linear;
  }
}

/* Where no order has a positive gain (ratings of zero or less), none is wrong: that counts as 1. */
static double ratio(double dcg, double ideal) {
  return ideal > 0 ? dcg / ideal : 1;
}

static void add_rankings(struct melu_metrics *metrics, const float *scores, const float *ratings, size_t n) {
  const size_t k = n < MAX_CUT ? n : MAX_CUT;
  size_t by_score[MAX_CUT], by_rating[MAX_CUT];
  first_positions(by_score, scores, n, k);
  first_positions(by_rating, ratings, n, k);
  const double best = (double)ratings[by_rating[0]], top = best > 0 ? best : 0;
  double paper[N_CUTS], linear[N_CUTS], ideal_paper[N_CUTS], ideal_linear[N_CUTS];
  discounted_gains(paper, linear, by_score, k, ratings, top);
  discounted_gains(ideal_paper, ideal_linear, by_rating, k, ratings, top);
  const double users = (double)metrics->n_users;
  for (size_t c = 0; c < N_CUTS; c++) {
    metrics->ndcg_paper[c] += (ratio(paper[c], ideal_paper[c]) - metrics->ndcg_paper[c]) / users;
    metrics->ndcg_linear[c] += (ratio(linear[c], ideal_linear[c]) - metrics->ndcg_linear[c]) / users;
  }
}

static void add_errors(struct melu_metrics *metrics, const float *scores, const float *ratings, size_t n,
                       double rating_min, double rating_max) {
  double absolute = 0, squared = 0;
  for (size_t i = 0; i < n; i++) {
    const double error = fmin(fmax((double)scores[i], rating_min), rating_max) - (double)ratings[i];
    absolute += fabs(error);
    squared += error * error;
  }
  absolute /= (double)n;
  squared /= (double)n;
  const double users = (double)metrics->n_users;
  metrics->mae += (absolute - metrics->mae) / users;
  metrics->mse += (squared - metrics->mse) / users;
  metrics->rmse = sqrt(metrics->mse);
  metrics->rmse_user += (sqrt(squared) - metrics->rmse_user) / users;
  const double pooled = metrics->rmse_pooled * metrics->rmse_pooled;
  metrics->rmse_pooled = sqrt(pooled + (squared - pooled) * ((double)n / (double)metrics->n_queries));
}

melu_status melu_metrics_add(struct melu_metrics *metrics, const float *scores, const float *ratings, size_t n,
                             double rating_min, double rating_max, melu_error *err) {
  if (!metrics || !scores || !ratings) return melu__fail(err, MELU_EINVAL, "metrics, scores or ratings is NULL");
  if (n == 0) return melu__fail(err, MELU_EINVAL, "a user without queries has no metrics");
  if (!(rating_min <= rating_max)) {
    return melu__fail(err, MELU_EINVAL, "rating_min %s is not at most rating_max %s",
                      melu__number_show(rating_min, 6).text, melu__number_show(rating_max, 6).text);
  }
  for (size_t i = 0; i < n; i++) {
    if (!isfinite(scores[i])) return melu__fail_at(err, MELU_ERANGE, i, "score %zu is not finite", i);
    if (!isfinite(ratings[i])) return melu__fail_at(err, MELU_ERANGE, i, "rating %zu is not finite", i);
  }
  metrics->n_users++;
  metrics->n_queries += n;
  add_errors(metrics, scores, ratings, n, rating_min, rating_max);
  add_rankings(metrics, scores, ratings, n);
  return MELU_OK;
}

/* -------------------------------------------------------------------------------------------------- clicks */

/* -log sigmoid(+-z) */
static double log_loss(const float *scores, const float *truth, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    const double z = truth[i] > 0.5f ? scores[i] : -scores[i];
    sum += z > 0 ? log1p(exp(-z)) : log1p(exp(z)) - z;
  }
  return sum / (double)n;
}

struct scored {
  float score, truth;
};

static int by_score(const void *a, const void *b) {
  const struct scored *x = a, *y = b;
  return (x->score > y->score) - (x->score < y->score);
}

/* By the ranks of the clicks (Mann & Whitney), equal scores having the mean of theirs. */
static melu_status auc(double *out, const struct melu_allocator *a, const float *scores, const float *truth, size_t n,
                       melu_error *err) {
  double rank_sum = 0, n_clicks = 0;
  struct scored *all = melu__alloc(a, n, sizeof *all);
  if (!all) return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) all[i] = (struct scored){scores[i], truth[i]};
  qsort(all, n, sizeof *all, by_score);
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && all[end].score == all[i].score;) end++;
    for (size_t k = i; k < end; k++) {
      if (!(all[k].truth > 0.5f)) continue;
      rank_sum += (double)(i + 1 + end) / 2;
      n_clicks++;
    }
  }
  melu__free(a, all);
  const double n_pairs = n_clicks * ((double)n - n_clicks);
  *out = n_pairs > 0 ? (rank_sum - n_clicks * (n_clicks + 1) / 2) / n_pairs : 0.5;
  return MELU_OK;
}

melu_status melu_metrics_clicks(struct melu_metrics *m, const melu_context *ctx, const float *scores,
                                const float *labels, size_t n, melu_error *err) {
  if (!m || !ctx || !scores || !labels || n == 0) return melu__fail(err, MELU_EINVAL, "an argument is NULL or n is 0");
  for (size_t i = 0; i < n; i++)
    if (!isfinite(scores[i]) || !isfinite(labels[i]))
      return melu__fail_at(err, MELU_ERANGE, i, "query %zu: the score or the label is not finite", i);
  const melu_status status = auc(&m->auc, &ctx->allocator, scores, labels, n, err);
  if (!status) m->log_loss = log_loss(scores, labels, n);
  return status;
}
