/* SPDX-License-Identifier: BSD-3-Clause */
/* The page, the store's resources, and those of the service itself. */
#include "answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard.h"
#include "page.h"
#include "reply.h"

/* ---------------------------------------------------------------------------------------------- of the service */

int answer_page(struct reply *reply, struct service *service, const struct question *question,
                struct problem *problem) {
  (void)service, (void)question;
  *reply = (struct reply){.type = "text/html; charset=utf-8", .text = malloc(sizeof page), .n = sizeof page};
  if (!reply->text) return problem_set(problem, 503, "memory", "out of memory");
  memcpy(reply->text, page, sizeof page);
  return 0;
}

int answer_scale(struct reply *reply, struct service *service, const struct question *question,
                 struct problem *problem) {
  (void)question;
  const struct world *world = service->world;
  json_t *labels = world->labels ? json_array() : json_null();
  const size_t n = (size_t)((world->rating_max - world->rating_min) / world->rating_step) + 1;
  int failed = 0;
  for (size_t i = 0; world->labels && i < n; i++)
    failed |= json_array_append_new(labels, json_string(world->labels[i]));
  return reply_json(
      reply,
      json_pack("{s:f,s:f,s:f,s:o,s:s,s:I,s:I}", "min", world->rating_min, "max", world->rating_max, "step",
                world->rating_step, "labels", whole_list(labels, failed), "kind", world->kind, "n_items",
                (json_int_t)world->n_items, "people", (json_int_t)melu_dataset_n_users(world->data)),
      problem);
}

int answer_health(struct reply *reply, struct service *service, const struct question *question,
                  struct problem *problem) {
  (void)question;
  struct turn turn;
  if (store_check(service->store, problem) || models_begin(&turn, service->models, problem)) return -1;
  json_t *json =
      json_pack("{s:s,s:s,s:f,s:I}", "status", "ok", "model", turn.generation->digest, "uptime",
                (double)(guard_now() - service->started) / 1e9, "ratings", (json_int_t)store_n_ratings(service->store));
  models_end(service->models, &turn);
  return reply_json(reply, json, problem);
}

int answer_metrics(struct reply *reply, struct service *service, const struct question *question,
                   struct problem *problem) {
  (void)question;
  *reply = (struct reply){.type = "text/plain; version=0.0.4; charset=utf-8"};
  reply->text = metrics_text(&service->metrics, store_n_ratings(service->store), &reply->n);
  return reply->text ? 0 : problem_set(problem, 503, "memory", "out of memory");
}

int service_reload(struct service *service, char digest[DIGEST_TEXT], struct problem *problem) {
  if (models_reload(service->models, digest, problem)) {
    service->metrics.refused_reloads++;
    fprintf(stderr, "The model was not reloaded: %s\n", problem->message);
    return -1;
  }
  service->metrics.reloads++;
  fprintf(stderr, "The model is now %s\n", digest);
  return 0;
}

int answer_reload(struct reply *reply, struct service *service, const struct question *question,
                  struct problem *problem) {
  (void)question;
  char digest[DIGEST_TEXT];
  if (service_reload(service, digest, problem)) return -1;
  return reply_json(reply, json_pack("{s:s}", "model", digest), problem);
}

/* -------------------------------------------------------------------------------------------- of the store */

int answer_ratings(struct reply *reply, struct service *service, const struct question *question,
                   struct problem *problem) {
  uint64_t user;
  struct turn turn;
  struct rating *ratings;
  size_t n;
  if (read_needed(&user, "user", question->user, 0, MAX_ID, problem)) return -1;
  if (models_begin(&turn, service->models, problem)) return -1;
  int failed = store_ratings(service->store, turn.seat, user, &ratings, &n, problem);
  models_end(service->models, &turn);
  if (failed) return -1;
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++) {
    const uint32_t item = world_find(service->world, ratings[i].item);
    if (item == service->world->n_items) continue; /* the world had it once */
    failed |= json_array_append_new(list, json_pack("{s:I,s:s,s:f}", "item", (json_int_t)ratings[i].item, "title",
                                                    service->world->titles[item], "rating", ratings[i].rating));
  }
  free(ratings);
  return reply_json(reply, json_pack("{s:I,s:o}", "user", (json_int_t)user, "ratings", whole_list(list, failed)),
                    problem);
}

static int reply_count(struct reply *reply, uint64_t user, size_t n_ratings, struct problem *problem) {
  return reply_json(reply, json_pack("{s:I,s:I}", "user", (json_int_t)user, "ratings", (json_int_t)n_ratings), problem);
}

/* Reads {"user":..,"item":..,"rating":..}. */
static int read_rating(uint64_t *user, struct rating *rating, const struct world *world, json_t *json,
                       struct problem *problem) {
  json_int_t who, what;
  uint32_t item;
  json_error_t err;
  if (json_unpack_ex(json, &err, JSON_STRICT, "{s:I,s:I,s:F}", "user", &who, "item", &what, "rating",
                     &rating->rating)) {
    return problem_set(problem, 400, "bad_rating",
                       "a rating is an object of \"user\", \"item\" (whole numbers) and \"rating\" (a number): %s",
                       err.text);
  }
  if (who < 0 || (uint64_t)who > MAX_ID || what < 0 || (uint64_t)what > MAX_ID) {
    return problem_set(problem, 400, "bad_rating", "numbers of users and items are from 0 to %llu",
                       (unsigned long long)MAX_ID);
  }
  if (!(rating->rating >= world->rating_min && rating->rating <= world->rating_max)) {
    return problem_set(problem, 400, "bad_rating", "a rating is from %g to %g", world->rating_min, world->rating_max);
  }
  *user = (uint64_t)who;
  rating->item = (uint64_t)what;
  return find_item(&item, world, rating->item, problem);
}

/* Reads one rating, or an array of one user's: a new array for the caller to free, NULL with the problem. */
static struct rating *read_ratings(uint64_t *user, size_t *n, const struct world *world, json_t *json,
                                   struct problem *problem) {
  const size_t n_given = json_is_array(json) ? json_array_size(json) : 1;
  struct rating *ratings = n_given ? calloc(n_given, sizeof *ratings) : NULL;
  if (!ratings) {
    problem_set(problem, n_given ? 503 : 400, n_given ? "memory" : "bad_rating", "%s",
                n_given ? "out of memory" : "there is no rating");
    return NULL;
  }
  for (size_t i = 0; i < n_given; i++) {
    uint64_t who = 0;
    json_t *one = json_is_array(json) ? json_array_get(json, i) : json;
    if (read_rating(&who, &ratings[i], world, one, problem)) goto fail;
    if (i > 0 && who != *user) {
      problem_set(problem, 400, "bad_rating", "ratings of several users are sent in several requests");
      goto fail;
    }
    *user = who;
  }
  *n = n_given;
  return ratings;
fail:
  free(ratings);
  return NULL;
}

int answer_rate(struct reply *reply, struct service *service, const struct question *question,
                struct problem *problem) {
  uint64_t user = 0;
  size_t n, n_left;
  json_error_t err;
  json_t *json = json_loadb(question->body, question->n_body, JSON_REJECT_DUPLICATES, &err);
  if (!json)
    return problem_set(problem, 400, "bad_json", "the body is no JSON object or array: line %d: %s", err.line,
                       err.text);
  struct rating *ratings = read_ratings(&user, &n, service->world, json, problem);
  json_decref(json);
  if (!ratings) return -1;
  const int failed = store_rate(service->store, user, ratings, n, &n_left, problem);
  free(ratings);
  return failed ? -1 : reply_count(reply, user, n_left, problem);
}

int answer_forget(struct reply *reply, struct service *service, const struct question *question,
                  struct problem *problem) {
  uint64_t user;
  uint32_t item;
  size_t n_left;
  if (read_needed(&user, "user", question->user, 0, MAX_ID, problem)) return -1;
  if (!question->item) {
    if (store_forget(service->store, user, &n_left, problem)) return -1;
  } else {
    if (read_item(&item, service->world, question->item, problem) ||
        store_take_back(service->store, user, service->world->ids[item], &n_left, problem)) {
      return -1;
    }
  }
  return reply_count(reply, user, n_left, problem);
}
