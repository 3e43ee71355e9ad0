/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/json_write.h"

#include <string.h>

#include "base/alloc.h"
#include "base/number.h"

struct writing {
  const struct melu_allocator *alloc;
  char *text;
  size_t n, capacity;
};

/* The place of the next n bytes; NULL if there is no memory. A NUL has room behind them. */
static char *reserve(struct writing *w, size_t n) {
  if (!melu__grow(w->alloc, &w->text, &w->capacity, w->n, melu__size_add(melu__size_add(w->n, n), 1), 1)) return NULL;
  return w->text + w->n;
}

static int put(struct writing *w, const char *text) {
  const size_t n = strlen(text);
  char *to = reserve(w, n);
  if (!to) return 0;
  memcpy(to, text, n);
  w->n += n;
  return 1;
}

/* A number that is not whole is one in JSON too. */
static int put_real(struct writing *w, double x) {
  const struct melu__number number = melu__number_show(x, 17);
  return put(w, number.text) && (strpbrk(number.text, ".e") || put(w, ".0"));
}

/* What has no such number in it. */
static int put_rest(struct writing *w, const json_t *json) {
  const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY, n = json_dumpb(json, NULL, 0, flags); /* 0: no memory */
  char *to = n ? reserve(w, n) : NULL;
  if (!to || json_dumpb(json, to, n, flags) != n) return 0;
  w->n += n;
  return 1;
}

static int has_real(json_t *json) {
  const char *name;
  json_t *member;
  size_t i;
  json_object_foreach(json, name, member) {
    if (has_real(member)) return 1;
  }
  json_array_foreach(json, i, member) {
    if (has_real(member)) return 1;
  }
  return json_is_real(json);
}

static int put_any(struct writing *w, json_t *json);

static int put_object(struct writing *w, json_t *json) {
  const char *name, *mark = "{";
  json_t *member;
  json_object_foreach(json, name, member) {
    json_t *text = json_string(name);
    const int ok = text && put(w, mark) && put_rest(w, text) && put(w, ":") && put_any(w, member);
    json_decref(text);
    if (!ok) return 0;
    mark = ",";
  }
  return put(w, "}");
}

static int put_array(struct writing *w, json_t *json) {
  const char *mark = "[";
  json_t *member;
  size_t i;
  json_array_foreach(json, i, member) {
    if (!put(w, mark) || !put_any(w, member)) return 0;
    mark = ",";
  }
  return put(w, "]");
}

/* Objects and lists with such a number somewhere are not empty. */
static int put_any(struct writing *w, json_t *json) {
  if (json_is_real(json)) return put_real(w, json_real_value(json));
  if (!has_real(json)) return put_rest(w, json);
  return json_is_object(json) ? put_object(w, json) : put_array(w, json);
}

char *melu__json_dump(size_t *n, json_t *json, const struct melu_allocator *a) {
  struct writing w = {.alloc = a};
  if (!put_any(&w, json)) {
    melu__free(a, w.text);
    return NULL;
  }
  *n = w.n;
  w.text[w.n] = '\0';
  return w.text;
}
