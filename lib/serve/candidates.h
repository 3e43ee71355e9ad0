/* SPDX-License-Identifier: BSD-3-Clause */
/* Evidence candidates: a search among items, to which every user of a data set contributes. */
#ifndef MELU__CANDIDATES_H
#define MELU__CANDIDATES_H

#include "serve/user.h"

/* An item that may be asked about. */
struct melu__candidate {
  uint32_t item;
  uint32_t n_ratings;
  int is_chosen;
  double score;
};

/* One thread's memory, as large as the longest list of ratings. */
struct melu__asker {
  melu_workspace *workspace;
  melu_user *user;
  struct melu_value *profile;
  uint32_t *items, *order, *judges;
  float *ratings, *scores;
};

struct melu__search {
  const melu_model *model;
  const melu_dataset *data;
  struct melu_candidate_options options;
  uint32_t *users;
  struct melu__candidate *candidates;
  uint32_t *number; /* by item: its number among the candidates, or MELU__NO_INDEX */
  size_t n_users, n_candidates, n_wanted, longest;
  struct melu__asker *askers;
  size_t n_askers;
  /* What each user says of each rating of hers: a norm, or by how much errors fall. CSR by user. */
  size_t *start;
  double *said;
  double *errors; /* by user: the sum of the judges' errors */
  size_t *n_errors;
  melu_status *status;
  const struct melu__plan *norm; /* NORM */
  size_t first, n_done, n_total;
  int is_base; /* judge, but try no candidate */
};

/* A function of user `u` of the search, for all of them on the context's threads. */
typedef melu_status melu__per_user(struct melu__search *s, size_t u, struct melu__asker *a, melu_error *err);

melu_status melu__search_users(struct melu__search *s, melu__per_user *run, melu_error *err);

/* The ratings of user `u` of the search that it looks at: the first 65,536. */
size_t melu__search_ratings(const struct melu__search *s, size_t u, const uint32_t **items, const float **ratings);

/* Sets the scores of the candidates that were not chosen to the sums of what users said of them. */
void melu__search_sum(struct melu__search *s);

/* The two rules: the n_wanted best, and what they score. */
melu_status melu__choose_by_error(uint32_t *items, double *scores, struct melu__search *s, melu_error *err);
melu_status melu__choose_by_norm(uint32_t *items, double *scores, struct melu__search *s, melu_error *err);

#endif
