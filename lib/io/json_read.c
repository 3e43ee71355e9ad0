/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/json_read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"

static void skip_blanks(struct melu__json *j) {
  while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) j->at++;
}

int melu__json_mark(struct melu__json *j, char mark) {
  skip_blanks(j);
  if (j->at == j->end || *j->at != mark) return 0;
  j->at++;
  return 1;
}

int melu__json_end(struct melu__json *j) {
  skip_blanks(j);
  return j->at == j->end;
}

int melu__json_next(struct melu__json *j, size_t index, char close) {
  if (melu__json_mark(j, close)) return 0;
  return index == 0 || melu__json_mark(j, ',') ? 1 : -1;
}

int melu__json_member(struct melu__json *j, char mark, const char *name) {
  char *found;
  return melu__json_mark(j, mark) && melu__json_string(j, &found, NULL) && strcmp(found, name) == 0 &&
         melu__json_mark(j, ':');
}

static int take_word(struct melu__json *j, const char *word) {
  const size_t n = strlen(word);
  skip_blanks(j);
  if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0) return 0;
  j->at += n;
  return 1;
}

int melu__json_bool(struct melu__json *j, int *out) {
  *out = take_word(j, "true");
  return *out || take_word(j, "false");
}

int melu__json_null(struct melu__json *j) {
  return take_word(j, "null");
}

/* --------------------------------------------------------------------------------------------------- texts */

/* The length of the UTF-8 character that begins the n bytes, of which there is one; 0 if it is none. */
static size_t utf8_length(const char *bytes, size_t n) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* what a shorter form could not say */
  const unsigned char *p = (const unsigned char *)bytes;
  if (p[0] < 0x80) return 1;
  const size_t length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
  if (p[0] < 0xc2 || p[0] > 0xf4 || n < length) return 0;
  uint32_t code = p[0] & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (p[i] & 0x3f);
  }
  return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : length;
}

int melu__is_text(const char *bytes, size_t n) {
  for (size_t at = 0, length; at < n; at += length) {
    length = utf8_length(bytes + at, n - at);
    if (length == 0 || bytes[at] == '\0') return 0;
  }
  return 1;
}

static int hex_digits(struct melu__json *j, uint32_t *code) {
  *code = 0;
  if (j->end - j->at < 4) return 0;
  for (int i = 0; i < 4; i++, j->at++) {
    const char c = *j->at;
    if (c >= '0' && c <= '9')
      *code = *code << 4 | (uint32_t)(c - '0');
    else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
      *code = *code << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
    else
      return 0;
  }
  return 1;
}

/* What follows \u, which may be a pair of surrogates. */
static int unicode(struct melu__json *j, uint32_t *code) {
  uint32_t low;
  if (!hex_digits(j, code) || *code == 0) return 0;
  if (*code < 0xd800 || *code >= 0xe000) return 1;
  if (*code >= 0xdc00 || j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u') return 0;
  j->at += 2;
  if (!hex_digits(j, &low) || low < 0xdc00 || low >= 0xe000) return 0;
  *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
  return 1;
}

static char *put_utf8(char *to, uint32_t code) {
  if (code < 0x80) {
    *to++ = (char)code;
    return to;
  }
  const int n_more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t first = 0xff00u >> (n_more + 1) & 0xff;
  *to++ = (char)(unsigned char)(first | code >> 6 * n_more);
  for (int i = n_more - 1; i >= 0; i--) *to++ = (char)(unsigned char)(0x80 | (code >> 6 * i & 0x3f));
  return to;
}

/* What follows a backslash, written to *to: never more bytes than it takes. */
static int escape(struct melu__json *j, char **to) {
  static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
  uint32_t code;
  if (j->at == j->end) return 0;
  const char name = *j->at++;
  if (name == 'u') {
    if (!unicode(j, &code)) return 0;
    *to = put_utf8(*to, code);
    return 1;
  }
  const char *found = memchr(names, name, sizeof names - 1);
  if (!found) return 0;
  *(*to)++ = means[found - names];
  return 1;
}

int melu__json_string(struct melu__json *j, char **text, size_t *n) {
  if (!melu__json_mark(j, '"')) return 0;
  char *to = *text = j->at;
  while (j->at < j->end && *j->at != '"') {
    if (*j->at == '\\') {
      j->at++;
      if (!escape(j, &to)) return 0;
      continue;
    }
    size_t length = utf8_length(j->at, (size_t)(j->end - j->at));
    if (length == 0 || (unsigned char)*j->at < 0x20) return 0;
    for (; length > 0; length--) *to++ = *j->at++;
  }
  if (j->at == j->end) return 0;
  j->at++;
  *to = '\0'; /* at the latest where the closing quotation mark was */
  if (n) *n = (size_t)(to - *text);
  return 1;
}

/* ------------------------------------------------------------------------------------------------- numbers */

static int is_digit(const struct melu__json *j) {
  return j->at < j->end && *j->at >= '0' && *j->at <= '9';
}

int melu__json_whole(struct melu__json *j, uint64_t *out) {
  skip_blanks(j);
  if (!is_digit(j)) return 0;
  const char *const first = j->at;
  for (*out = 0; is_digit(j); j->at++) {
    const uint64_t digit = (uint64_t)(*j->at - '0');
    if (*out > (UINT64_MAX - digit) / 10) return 0;
    *out = 10 * *out + digit;
  }
  return *first != '0' || j->at == first + 1;
}

int melu__json_size(struct melu__json *j, size_t *out) {
  uint64_t value;
  if (!melu__json_whole(j, &value) || value >= SIZE_MAX) return 0;
  *out = (size_t)value;
  return 1;
}

int melu__json_choice(struct melu__json *j, const char *const *names, int n, int *out) {
  char *text;
  if (!melu__json_string(j, &text, NULL)) return 0;
  for (*out = 0; *out < n; ++*out)
    if (strcmp(text, names[*out]) == 0) return 1;
  return 0;
}

enum { MAX_DIGITS = 40, MAX_EXPONENT = 9999 };

/* A number as sign, digits and a power of ten. */
struct decimal {
  char text[MAX_DIGITS + 16];
  int n, exponent;
};

static int take_digits(struct decimal *d, struct melu__json *j, int after_point) {
  if (!is_digit(j)) return 0;
  for (; is_digit(j); j->at++) {
    if (d->n == MAX_DIGITS) return 0;
    d->text[d->n++] = *j->at;
    d->exponent -= after_point;
  }
  return 1;
}

static int take_exponent(struct decimal *d, struct melu__json *j) {
  int exponent = 0;
  const int down = j->at < j->end && *j->at == '-';
  if (j->at < j->end && (*j->at == '-' || *j->at == '+')) j->at++;
  if (!is_digit(j)) return 0;
  for (; is_digit(j); j->at++) {
    exponent = 10 * exponent + (*j->at - '0');
    if (exponent > MAX_EXPONENT) return 0;
  }
  d->exponent += down ? -exponent : exponent;
  return 1;
}

int melu__json_real(struct melu__json *j, double *out) {
  struct decimal d = {.n = 0};
  skip_blanks(j);
  if (j->at < j->end && *j->at == '-') d.text[d.n++] = *j->at++;
  const char *const first = j->at;
  if (!take_digits(&d, j, 0) || (*first == '0' && j->at != first + 1)) return 0;
  if (j->at < j->end && *j->at == '.') {
    j->at++;
    if (!take_digits(&d, j, 1)) return 0;
  }
  if (j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
    j->at++;
    if (!take_exponent(&d, j)) return 0;
  }
  snprintf(d.text + d.n, sizeof d.text - (size_t)d.n, "e%d", d.exponent);
  *out = melu__number_read(d.text);
  return isfinite(*out);
}
