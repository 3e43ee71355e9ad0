/* SPDX-License-Identifier: BSD-3-Clause */
/* The plain models that a meta-learned one is worth its trouble against, and the judge of all of them. */
#ifndef EXAMPLE_BASELINES_H
#define EXAMPLE_BASELINES_H

#include <melu.h>

/* The support set of a person, and the items to predict. */
struct question {
  const uint32_t *support;
  const float *ratings;
  size_t n_support;
  const uint32_t *queries;
  size_t n_queries;
};

/* A model as the judge sees it: writes a score for each query. */
typedef void predict_fn(float *scores, const void *model, const struct question *question);

/* What melu_evaluate does for a melu_model, on the same users, splits, support sets and queries: all users with 13 to
 * 100 ratings, 10 of which are queries, the first `max_support` of the others the support set. Clicks are measured as
 * such too: of other ratings log_loss and auc say nothing. */
void judge(struct melu_metrics *out, const melu_context *ctx, predict_fn *predict, const void *model,
           const melu_dataset *data, uint64_t split, size_t max_support, double rating_min, double rating_max);

/* Ratings are taken to be mean + b_user + b_item (+ what a user says about this item alone). The offsets are means,
 * shrunk as if there were a few ratings more with no offset at all. `alone` is the item's plain mean. */
struct bias {
  size_t n_items;
  int clicks;
  double mean;
  double *item;  /* (n_items): b_item; 0 of an item that nobody rated */
  double *alone; /* (n_items) */
};

/* Fits the model to all ratings. With `clicks` ratings are 0 or 1, mean + b_user + b_item is the logit of 1, and the
 * offsets maximize the likelihood less (b / s)^2 / 2, s being 1 for users and items. */
void bias_fit(struct bias *bias, const melu_dataset *data, int clicks);
void bias_free(struct bias *bias);
predict_fn bias_predict;      /* mean + b_user + b_item, b_user from the support set */
predict_fn item_mean_predict; /* the item's mean, whoever asks */

/* The answers of a person are taken to be one draw from a normal distribution of as many dimensions as there are
 * items. Its conditional mean, given the answers that are known, is the best guess that is linear in them. */
enum { GAUSSIAN_ITEMS = 32 };
struct gaussian {
  size_t n_items;
  double mean[GAUSSIAN_ITEMS];
  double covariance[GAUSSIAN_ITEMS][GAUSSIAN_ITEMS];
};

/* Estimates mean and covariance; a missing answer is replaced by its own conditional mean, in a few rounds. */
void gaussian_fit(struct gaussian *gaussian, const melu_dataset *data);
predict_fn gaussian_predict;

#endif
