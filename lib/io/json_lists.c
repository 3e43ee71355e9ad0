/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/json_lists.h"

#include <string.h>

#include "base/error.h"

struct cursor {
  const struct melu__text *text;
  const char *at; /* a NUL ends the text */
  uint64_t line;
};

static void skip_blanks(struct cursor *c) {
  for (; *c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'; c->at++) c->line += *c->at == '\n';
}

/* Takes one of two characters, which may be the same. */
static melu_status take(char *out, struct cursor *c, char one, char other, melu_error *err) {
  skip_blanks(c);
  *out = *c->at;
  if (*out != one && *out != other) {
    return melu__text_fail(err, MELU_EFORMAT, c->text, c->line, "'%c' expected", other);
  }
  c->at++;
  return MELU_OK;
}

static melu_status take_value(json_t **out, struct cursor *c, melu_error *err) {
  skip_blanks(c);
  const char *const end = c->text->bytes + c->text->n;
  json_error_t why;
  *out = json_loadb(c->at, (size_t)(end - c->at), JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &why);
  if (*out) {
    for (const char *next = c->at + why.position; c->at < next; c->at++) c->line += *c->at == '\n';
    return MELU_OK;
  }
  const enum json_error_code code = json_error_code(&why);
  /* Where its memory runs out, jansson may fail without a text. */
  if (code == json_error_out_of_memory || why.text[0] == '\0') return melu__fail_memory(err);
  const char *near = strstr(why.text, " near '"); /* what follows is a piece of the file */
  const size_t n = near ? (size_t)(near - why.text) : strlen(why.text);
  return melu__text_fail(err, code == json_error_numeric_overflow ? MELU_ERANGE : MELU_EFORMAT, c->text,
                         c->line + (uint64_t)why.line - 1, "%.*s", (int)n, why.text);
}

/* Takes a key and its list. */
static melu_status take_member(struct cursor *c, melu__json_list_fn *each, void *arg, melu_error *err) {
  json_t *key, *list = NULL;
  char colon;
  melu_status status = take_value(&key, c, err);
  if (status != MELU_OK) return status;
  const struct melu__slice name = {json_string_value(key), json_string_length(key)};
  if (!json_is_string(key)) {
    status = melu__text_fail(err, MELU_EFORMAT, c->text, c->line, "a key in quotation marks expected");
  }
  if (status == MELU_OK) status = take(&colon, c, ':', ':', err);
  if (status == MELU_OK) status = take_value(&list, c, err);
  if (status == MELU_OK && !json_is_array(list)) {
    status = melu__text_fail(err, MELU_EFORMAT, c->text, c->line, "\"%s\": a list expected", melu__show(name).text);
  }
  if (status == MELU_OK) status = each(arg, name, list, err);
  json_decref(key);
  json_decref(list);
  return status;
}

melu_status melu__json_lists(const struct melu__text *text, uint64_t done, melu__json_list_fn *each, void *arg,
                             melu_error *err) {
  struct cursor c = {text, text->bytes, 1};
  char mark;
  melu_status status = take(&mark, &c, '{', '{', err);
  skip_blanks(&c);
  if (status == MELU_OK && *c.at == '}') status = take(&mark, &c, '}', '}', err);
  while (status == MELU_OK && mark != '}') {
    status = take_member(&c, each, arg, err);
    if (status == MELU_OK) status = take(&mark, &c, ',', '}', err);
    const struct melu_progress progress = {.phase = "read", .done = done + (uint64_t)(c.at - text->bytes)};
    if (status == MELU_OK) status = melu__progress(text->ctx, &progress, err);
  }
  if (status != MELU_OK) return status;
  skip_blanks(&c);
  if (c.at == text->bytes + text->n) return MELU_OK;
  return melu__text_fail(err, MELU_EFORMAT, text, c.line, "text follows the object");
}
