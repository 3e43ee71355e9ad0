/* SPDX-License-Identifier: BSD-3-Clause */
/* What the model says: who asks is adapted to what the store knows of her, and then answered. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "reply.h"

enum { MOST_WANTED = 1000, DEFAULT_WANTED = 10 };

/* ------------------------------------------------------------------------------------------------- visitors */

/* Somebody who asks, for the time of a turn. */
struct visitor {
  const struct world *world;
  struct models *models;
  struct turn turn;
  const struct generation *with; /* turn.generation and what of it is of the turn's seat: */
  melu_workspace *workspace;
  melu_user *her;
  uint64_t id;
  uint32_t *items; /* (n), positions of what she rated, in the order of giving */
  float *values;   /* (n) */
  size_t n;
};

static int no_memory(struct problem *problem) {
  return problem_set(problem, 503, "memory", "out of memory");
}

/* Ratings of items that the world had once are left out. */
static int keep_known(struct visitor *v, const struct rating *ratings, size_t n, struct problem *problem) {
  v->items = malloc((n + 1) * sizeof *v->items);
  v->values = malloc((n + 1) * sizeof *v->values);
  if (!v->items || !v->values) return no_memory(problem);
  for (size_t i = 0; i < n && v->n < v->with->max_support; i++) {
    v->items[v->n] = world_find(v->world, ratings[i].item);
    v->values[v->n] = (float)ratings[i].rating;
    v->n += v->items[v->n] < v->world->n_items;
  }
  return 0;
}

static int adapt(struct visitor *v, struct service *service, struct problem *problem) {
  melu_error err;
  struct rating *ratings;
  size_t n;
  if (store_ratings(service->store, v->turn.seat, v->id, &ratings, &n, problem)) return -1;
  const int failed = keep_known(v, ratings, n, problem);
  free(ratings);
  if (failed) return -1;
  if (melu_adapt(v->her, v->workspace, v->with->model, v->world->data, NULL, v->items, v->values, v->n, &err)) {
    return problem_of_melu(problem, &err);
  }
  return 0;
}

static void visitor_end(struct visitor *v) {
  free(v->items);
  free(v->values);
  models_end(v->models, &v->turn);
}

/* Begins a turn in which `her` is whom "user" names. Nothing is to be ended if that fails. */
static int visitor_begin(struct visitor *v, struct service *service, const struct question *question,
                         struct problem *problem) {
  *v = (struct visitor){.world = service->world, .models = service->models};
  if (read_needed(&v->id, "user", question->user, 0, MAX_ID, problem)) return -1;
  if (models_begin(&v->turn, v->models, problem)) return -1;
  v->with = v->turn.generation;
  v->workspace = v->with->workspaces[v->turn.seat];
  v->her = v->with->users[v->turn.seat];
  if (adapt(v, service, problem) == 0) return 0;
  visitor_end(v);
  return -1;
}

static int compare_positions(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/* ---------------------------------------------------------------------------------------------- one item */

static double clip(const struct world *world, double rating) {
  return fmin(fmax(rating, world->rating_min), world->rating_max);
}

/* An item with its score and, of a model that knows how sure it is, the 80 % interval; NULL if there is no memory. */
static json_t *scored(const struct visitor *v, uint32_t item, double score, const float *variance) {
  const struct world *world = v->world;
  const double half = variance ? 1.2816 * sqrt((double)*variance) : 0;
  json_t *low = variance ? json_real(clip(world, score - half)) : json_null();
  json_t *high = variance ? json_real(clip(world, score + half)) : json_null();
  return json_pack("{s:I,s:s,s:f,s:o,s:o}", "item", (json_int_t)world->ids[item], "title", world->titles[item], "score",
                   clip(world, score), "low", low, "high", high);
}

/* ------------------------------------------------------------------------------------------ recommendations */

struct best {
  size_t n;
  uint32_t items[MOST_WANTED];
  float scores[MOST_WANTED], variances[MOST_WANTED];
};

static int find_best(struct best *best, const struct visitor *v, int with_rated, struct problem *problem) {
  melu_error err;
  const struct melu_top_options options = {
      .size = sizeof options, .exclude = v->items, .n_exclude = with_rated ? 0 : v->n};
  if (melu_catalog_top(best->items, best->scores, &best->n, v->workspace, v->with->catalog, v->her, &options, &err) ||
      (v->with->has_variances && melu_predict_variance(best->variances, v->workspace, v->with->model, v->her,
                                                       v->world->data, best->items, best->n, &err))) {
    return problem_of_melu(problem, &err);
  }
  return 0;
}

int answer_recommendations(struct reply *reply, struct service *service, const struct question *question,
                           struct problem *problem) {
  struct visitor v;
  struct best best;
  uint64_t k = DEFAULT_WANTED, all = 0;
  if (read_whole(&k, "k", question->k, 1, MOST_WANTED, problem) ||
      read_whole(&all, "all", question->all, 0, 1, problem) || visitor_begin(&v, service, question, problem)) {
    return -1;
  }
  best.n = (size_t)k;
  int failed = find_best(&best, &v, all != 0, problem);
  if (!failed) {
    json_t *list = json_array();
    for (size_t i = 0; i < best.n; i++) {
      const float *variance = v.with->has_variances ? &best.variances[i] : NULL;
      failed |= json_array_append_new(list, scored(&v, best.items[i], (double)best.scores[i], variance));
    }
    failed = reply_json(reply,
                        json_pack("{s:I,s:I,s:o}", "user", (json_int_t)v.id, "ratings", (json_int_t)v.n, "items",
                                  whole_list(list, failed)),
                        problem);
  }
  visitor_end(&v);
  return failed;
}

/* ------------------------------------------------------------------------------------------------ questions */

/* What she may be asked about: all but what she rated, and what is not to be asked again. */
struct askable {
  size_t n;
  uint32_t *items; /* (n) */
  float *chances;  /* (n), that she has an answer */
};

/* Adds the items of "1,2,3" to a list of positions. */
static int read_skipped(uint32_t *skipped, size_t *n, const struct world *world, const char *text,
                        struct problem *problem) {
  char number[24];
  while (text && *text) {
    const size_t length = strcspn(text, ",");
    if (length >= sizeof number)
      return problem_set(problem, 400, "bad_parameter", "\"skip\" is a list of items, 1,2,3");
    memcpy(number, text, length);
    number[length] = '\0';
    if (read_item(&skipped[(*n)++], world, number, problem)) return -1;
    text += length + (text[length] == ',');
  }
  return 0;
}

static void askable_free(struct askable *askable) {
  free(askable->items);
  free(askable->chances);
}

static int find_askable(struct askable *askable, const struct visitor *v, const char *skip, struct problem *problem) {
  const struct world *world = v->world;
  size_t n_out = v->n;
  uint32_t *out = malloc((v->n + (skip ? strlen(skip) : 0) + 1) * sizeof *out);
  *askable = (struct askable){.items = malloc(world->n_items * sizeof(uint32_t)),
                              .chances = malloc(world->n_items * sizeof(float))};
  int failed = !out || !askable->items || !askable->chances;
  if (failed) no_memory(problem);
  if (!failed) {
    memcpy(out, v->items, v->n * sizeof *out);
    failed = read_skipped(out, &n_out, world, skip, problem);
  }
  if (!failed) {
    qsort(out, n_out, sizeof *out, compare_positions);
    for (uint32_t i = 0; i < world->n_items; i++) {
      if (bsearch(&i, out, n_out, sizeof *out, compare_positions)) continue;
      askable->items[askable->n] = i;
      askable->chances[askable->n++] = world->chances[i];
    }
  }
  free(out);
  if (!failed) return 0;
  askable_free(askable);
  return -1;
}

static int reply_questions(struct reply *reply, const struct visitor *v, const struct askable *askable, size_t n,
                           struct problem *problem) {
  melu_error err;
  uint32_t items[MOST_WANTED];
  float gains[MOST_WANTED];
  const struct melu_ask_options options = {
      .size = sizeof options, .items = askable->items, .n_items = askable->n, .chances = askable->chances};
  if (askable->n == 0) {
    n = 0;
  } else if (melu_ask(items, gains, &n, v->workspace, v->with->model, v->her, v->world->data, &options, &err)) {
    return problem_of_melu(problem, &err);
  }
  int failed = 0;
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++) {
    failed |= json_array_append_new(list, json_pack("{s:I,s:s,s:f}", "item", (json_int_t)v->world->ids[items[i]],
                                                    "title", v->world->titles[items[i]], "gain", (double)gains[i]));
  }
  return reply_json(reply, json_pack("{s:o}", "questions", whole_list(list, failed)), problem);
}

int answer_ask(struct reply *reply, struct service *service, const struct question *question, struct problem *problem) {
  struct visitor v;
  struct askable askable;
  uint64_t k = 1;
  if (read_whole(&k, "k", question->k, 1, MOST_WANTED, problem) || visitor_begin(&v, service, question, problem)) {
    return -1;
  }
  int failed = find_askable(&askable, &v, question->skip, problem);
  if (!failed) {
    failed = reply_questions(reply, &v, &askable, (size_t)k, problem);
    askable_free(&askable);
  }
  visitor_end(&v);
  return failed;
}

/* ---------------------------------------------------------------------------------------------- explanations */

struct pull {
  uint32_t item;
  float rating, pull;
};

static int compare_pulls(const void *a, const void *b) {
  const float x = fabsf(((const struct pull *)a)->pull), y = fabsf(((const struct pull *)b)->pull);
  return x > y ? -1 : x < y;
}

/* The pulls of her ratings, the strongest first. `numbers`: (n) scratch. */
static int find_pulls(struct pull *pulls, float *numbers, const struct visitor *v, uint32_t item,
                      struct problem *problem) {
  melu_error err;
  if (v->n > 0 && melu_explain(numbers, v->workspace, v->with->model, v->her, v->world->data, item, &err)) {
    return problem_of_melu(problem, &err);
  }
  for (size_t i = 0; i < v->n; i++) pulls[i] = (struct pull){v->items[i], v->values[i], numbers[i]};
  qsort(pulls, v->n, sizeof *pulls, compare_pulls);
  return 0;
}

static int reply_pulls(struct reply *reply, const struct visitor *v, uint32_t item, const struct pull *pulls,
                       struct problem *problem) {
  melu_error err;
  float score, variance;
  if (melu_predict(&score, v->workspace, v->with->model, v->her, v->world->data, &item, 1, &err) ||
      (v->with->has_variances &&
       melu_predict_variance(&variance, v->workspace, v->with->model, v->her, v->world->data, &item, 1, &err))) {
    return problem_of_melu(problem, &err);
  }
  int failed = 0;
  json_t *list = json_array();
  for (size_t i = 0; i < v->n; i++) {
    failed |=
        json_array_append_new(list, json_pack("{s:I,s:s,s:f,s:f}", "item", (json_int_t)v->world->ids[pulls[i].item],
                                              "title", v->world->titles[pulls[i].item], "rating",
                                              (double)pulls[i].rating, "pull", (double)pulls[i].pull));
  }
  json_t *json = scored(v, item, (double)score, v->with->has_variances ? &variance : NULL);
  failed |= json_object_set_new(json, "pulls", list);
  return reply_json(reply, whole_list(json, failed), problem);
}

int answer_explain(struct reply *reply, struct service *service, const struct question *question,
                   struct problem *problem) {
  struct visitor v;
  uint32_t item;
  if (read_item(&item, service->world, question->item, problem) || visitor_begin(&v, service, question, problem)) {
    return -1;
  }
  struct pull *pulls = malloc((v.n + 1) * sizeof *pulls);
  float *numbers = malloc((v.n + 1) * sizeof *numbers);
  int failed = pulls && numbers ? 0 : no_memory(problem);
  if (!failed) failed = find_pulls(pulls, numbers, &v, item, problem);
  if (!failed) failed = reply_pulls(reply, &v, item, pulls, problem);
  free(pulls);
  free(numbers);
  visitor_end(&v);
  return failed;
}
