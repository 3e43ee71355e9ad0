/* SPDX-License-Identifier: BSD-3-Clause */
/* What is answered: one function a resource and method. They know nothing of HTTP but the number of an error. */
#ifndef SERVICE_ANSWERS_H
#define SERVICE_ANSWERS_H

#include "metrics.h"
#include "models.h"
#include "problem.h"
#include "store.h"
#include "world.h"

/* All that a request needs. */
struct service {
  const struct world *world;
  struct models *models;
  struct store *store;
  struct metrics metrics;
  uint64_t started; /* guard_now() */
};

/* A request, as it was sent: parameters are NULL if they are not there. */
struct question {
  const char *user, *item, *k, *all, *skip;
  const char *body;
  size_t n_body;
};

struct reply {
  const char *type; /* of content */
  char *text;       /* for the caller to free */
  size_t n;
};

/* Returns 0, or -1 with the problem; then there is no reply. */
typedef int answer_fn(struct reply *reply, struct service *service, const struct question *question,
                      struct problem *problem);

answer_fn answer_page, answer_scale, answer_health, answer_metrics;
answer_fn answer_ratings, answer_rate, answer_forget;
answer_fn answer_recommendations, answer_ask, answer_explain;
answer_fn answer_reload;

/* The same for a problem. No reply if there is no memory. */
int reply_problem(struct reply *reply, const struct problem *problem);

/* Reads the model file anew, and says on stderr what came of it. */
int service_reload(struct service *service, char digest[DIGEST_TEXT], struct problem *problem);

#endif
