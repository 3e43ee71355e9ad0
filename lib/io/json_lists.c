/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/json_lists.h"

#include <math.h>

#include "base/alloc.h"
#include "base/error.h"
#include "io/json_read.h"

struct cursor {
  const struct melu__text *text;
  struct melu__json json;
  uint64_t line;
  struct melu__json_item *items; /* of the list that is read */
  size_t n, capacity;
};

static melu_status expected(const struct cursor *c, const char *what, melu_error *err) {
  return melu__text_fail(err, MELU_EFORMAT, c->text, c->line, "%s expected", what);
}

/* The character that comes next after blanks; NUL at the end. Lines end between what is read, never within. */
static char next(struct cursor *c) {
  struct melu__json *j = &c->json;
  for (; j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'); j->at++)
    c->line += *j->at == '\n';
  return j->at < j->end ? *j->at : '\0';
}

/* Takes one of two characters, which may be the same. */
static melu_status take(char *out, struct cursor *c, char one, char other, melu_error *err) {
  const char wanted[] = {'\'', other, '\'', '\0'};
  *out = next(c);
  if (*out != one && *out != other) return expected(c, wanted, err);
  c->json.at++;
  return MELU_OK;
}

static int take_word(struct melu__json *j) {
  int is_true;
  return melu__json_null(j) || melu__json_bool(j, &is_true);
}

static melu_status take_item(struct cursor *c, melu_error *err) {
  const char first = next(c);
  if (!melu__grow(&c->text->ctx->allocator, &c->items, &c->capacity, c->n, c->n + 1, sizeof *c->items))
    return melu__fail_memory(err);
  struct melu__json_item *item = &c->items[c->n++];
  *item = (struct melu__json_item){.kind = MELU__JSON_NUMBER};
  if (first == '"') {
    char *text;
    item->kind = MELU__JSON_TEXT;
    if (!melu__json_string(&c->json, &text, &item->text.n)) return expected(c, "a sound text", err);
    item->text.at = text;
  } else if (first == 'n' || first == 't' || first == 'f') {
    item->kind = MELU__JSON_WORD;
    if (!take_word(&c->json)) return expected(c, "a text or a number", err);
  } else if (!melu__json_real(&c->json, &item->number) && !isinf(item->number)) {
    return expected(c, "a text or a number", err);
  }
  return MELU_OK;
}

/* What follows a list's opening bracket. */
static melu_status take_list(struct cursor *c, melu_error *err) {
  char mark = '[';
  melu_status status = MELU_OK;
  c->n = 0;
  if (next(c) == ']') return take(&mark, c, ']', ']', err);
  while (status == MELU_OK && mark != ']') {
    status = take_item(c, err);
    if (status == MELU_OK) status = take(&mark, c, ',', ']', err);
  }
  return status;
}

/* Takes a key and its list. */
static melu_status take_member(struct cursor *c, melu__json_list_fn *each, void *arg, melu_error *err) {
  char *text, colon;
  struct melu__slice key;
  if (next(c) != '"' || !melu__json_string(&c->json, &text, &key.n))
    return expected(c, "a key in quotation marks", err);
  key.at = text;
  melu_status status = take(&colon, c, ':', ':', err);
  if (status == MELU_OK && next(c) != '[')
    status = melu__text_fail(err, MELU_EFORMAT, c->text, c->line, "\"%s\": a list expected", melu__show(key).text);
  if (status != MELU_OK) return status;
  c->json.at++;
  status = take_list(c, err);
  if (status == MELU_OK) status = each(arg, key, c->items, c->n, err);
  return status;
}

static melu_status take_object(struct cursor *c, uint64_t done, melu__json_list_fn *each, void *arg, melu_error *err) {
  char mark;
  melu_status status = take(&mark, c, '{', '{', err);
  if (status == MELU_OK && next(c) == '}') status = take(&mark, c, '}', '}', err);
  while (status == MELU_OK && mark != '}') {
    status = take_member(c, each, arg, err);
    if (status == MELU_OK) status = take(&mark, c, ',', '}', err);
    const struct melu_progress progress = {.phase = "read", .done = done + (uint64_t)(c->json.at - c->text->bytes)};
    if (status == MELU_OK) status = melu__progress(c->text->ctx, &progress, err);
  }
  if (status != MELU_OK || next(c) == '\0') return status;
  return melu__text_fail(err, MELU_EFORMAT, c->text, c->line, "text follows the object");
}

melu_status melu__json_lists(const struct melu__text *text, uint64_t done, melu__json_list_fn *each, void *arg,
                             melu_error *err) {
  struct cursor c = {.text = text, .json = {text->bytes, text->bytes + text->n}, .line = 1};
  const melu_status status = take_object(&c, done, each, arg, err);
  melu__free(&text->ctx->allocator, c.items);
  return status;
}
