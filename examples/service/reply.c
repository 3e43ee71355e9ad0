/* SPDX-License-Identifier: BSD-3-Clause */
#include "reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int read_whole(uint64_t *value, const char *name, const char *text, uint64_t min, uint64_t max,
               struct problem *problem) {
  if (!text) return 0;
  errno = 0;
  const unsigned long long number = strtoull(text, NULL, 10);
  if (!*text || text[strspn(text, "0123456789")] || errno || number < min || number > max) {
    return problem_set(problem, 400, "bad_parameter", "\"%s\" is a whole number from %llu to %llu", name,
                       (unsigned long long)min, (unsigned long long)max);
  }
  *value = number;
  return 0;
}

int read_needed(uint64_t *value, const char *name, const char *text, uint64_t min, uint64_t max,
                struct problem *problem) {
  if (!text) return problem_set(problem, 400, "bad_parameter", "\"%s\" is missing", name);
  return read_whole(value, name, text, min, max, problem);
}

int find_item(uint32_t *item, const struct world *world, uint64_t id, struct problem *problem) {
  *item = world_find(world, id);
  if (*item < world->n_items) return 0;
  return problem_set(problem, 404, "unknown_item", "there is no item %llu", (unsigned long long)id);
}

int read_item(uint32_t *item, const struct world *world, const char *text, struct problem *problem) {
  uint64_t id = 0;
  if (read_needed(&id, "item", text, 0, MAX_ID, problem)) return -1;
  return find_item(item, world, id, problem);
}

json_t *whole_list(json_t *list, int failed) {
  if (!failed) return list;
  json_decref(list);
  return NULL;
}

int reply_json(struct reply *reply, json_t *json, struct problem *problem) {
  *reply = (struct reply){.type = "application/json"};
  if (json) reply->text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(7));
  json_decref(json);
  if (!reply->text) return problem_set(problem, 503, "memory", "out of memory");
  reply->n = strlen(reply->text);
  return 0;
}

int reply_problem(struct reply *reply, const struct problem *problem) {
  struct problem worse;
  return reply_json(reply, json_pack("{s:{s:s,s:s}}", "error", "code", problem->code, "message", problem->message),
                    &worse);
}
