/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/number.h"
#include "io/interrupted.h"

#define CHUNK ((size_t)1 << 20) /* bytes between two calls of the progress callback */
#define MAX_NAME 80             /* bytes of a path that a message can spare */

/* ------------------------------------------------------------------------------------------------- whole files */

melu_status melu__text_fail(melu_error *err, melu_status status, const struct melu__text *text, uint64_t line,
                            const char *format, ...) {
  if (!err) return status;
  char message[sizeof err->message];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  if (line == 0) return melu__fail(err, status, "%.*s: %s", MAX_NAME, text->name, message);
  return melu__fail_line(err, status, line, "%.*s:%" PRIu64 ": %s", MAX_NAME, text->name, line, message);
}

static const char *name_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return strlen(path) > MAX_NAME && slash ? slash + 1 : path;
}

/* The length of the UTF-8 character at p, 0 if there is none or it is NUL. A NUL follows the text, so that a character
 * that the end cuts off is seen as a wrong one. */
static size_t utf8_length(const unsigned char *p) {
  if (p[0] < 0x80) return p[0] != 0;
  if (p[0] < 0xc2 || p[0] > 0xf4) return 0;
  const size_t n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
  /* The second byte excludes what a shorter form could say, the surrogates, and what is above U+10FFFF. */
  const unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
  if (p[1] < low || p[1] > high) return 0;
  for (size_t i = 2; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
  }
  return n;
}

/* Skips ASCII without NUL, eight bytes at a time: most of most files. */
static const unsigned char *skip_ascii(const unsigned char *p, const unsigned char *end) {
  const uint64_t ones = UINT64_MAX / 255, high = ones << 7;
  for (uint64_t word; end - p >= (ptrdiff_t)sizeof word; p += sizeof word) {
    memcpy(&word, p, sizeof word);
    if (((word - ones) | word) & high) break; /* a byte above 0x7f, or a 0 from which 1 was borrowed */
  }
  return p;
}

/* Vocabularies go into model files as JSON, and messages to terminals: what is no text is refused here, once. */
static melu_status check_text(const struct melu__text *text, melu_error *err) {
  const unsigned char *p = (const unsigned char *)text->bytes, *const end = p + text->n;
  while (p < end) {
    p = skip_ascii(p, end);
    for (int i = 0; i < 8 && p < end; i++) {
      const size_t n = utf8_length(p);
      if (n == 0) goto fail;
      p += n;
    }
  }
  return MELU_OK;
fail:;
  uint64_t line = 1;
  for (const char *c = text->bytes; c < (const char *)p; c++) line += *c == '\n';
  if (*p == 0) return melu__text_fail(err, MELU_EFORMAT, text, line, "a NUL byte, this is no text");
  return melu__text_fail(err, MELU_EFORMAT, text, line, "byte 0x%02x is not UTF-8", (unsigned)*p);
}

/* Reads fd to its end. `expected` is the size that the system told, or 0: it may be wrong. */
static melu_status read_bytes(struct melu__text *text, int fd, size_t expected, size_t limit,
                              const struct melu_progress *progress, melu_error *err) {
  size_t capacity = 0;
  for (;;) {
    /* One byte more than expected sees the end of the file, another one holds the final NUL. */
    const size_t need = melu__size_add(text->n < expected ? expected : text->n, 2);
    if (!melu__grow(&text->ctx->allocator, &text->bytes, &capacity, text->n, need, 1)) return melu__fail_memory(err);
    const size_t room = capacity - 1 - text->n;
    const ssize_t got = read(fd, text->bytes + text->n, room < CHUNK ? room : CHUNK);
    if (melu__interrupted(got)) continue;
    if (got < 0) return melu__fail_errno(err, MELU_EIO, errno, "%.*s: cannot be read", MAX_NAME, text->name);
    if (got == 0) break;
    text->n += (size_t)got;
    if (text->n > limit) {
      return melu__text_fail(err, MELU_ELIMIT, text, 0, "the file is larger than %zu bytes", limit);
    }
    const melu_status status = melu__progress(text->ctx, progress, err);
    if (status != MELU_OK) return status;
  }
  text->bytes[text->n] = '\0';
  return MELU_OK;
}

static melu_status read_file(struct melu__text *text, const char *path, size_t limit,
                             const struct melu_progress *progress, melu_error *err) {
  int fd, failed;
  do fd = open(path, O_RDONLY | O_CLOEXEC);
  while (melu__interrupted(fd));
  if (fd < 0) {
    const melu_status status = errno == ENOENT ? MELU_ENOTFOUND : MELU_EIO;
    return melu__fail_errno(err, status, errno, "%.*s: cannot be opened", MAX_NAME, text->name);
  }
  melu_status status = MELU_OK;
  struct stat info;
  do failed = fstat(fd, &info);
  while (melu__interrupted(failed));
  if (failed) {
    status = melu__fail_errno(err, MELU_EIO, errno, "%.*s: cannot be read", MAX_NAME, text->name);
  } else if (S_ISREG(info.st_mode) && (uintmax_t)info.st_size > limit) {
    status = melu__text_fail(err, MELU_ELIMIT, text, 0, "the file is larger than %zu bytes", limit);
  } else {
    /* A directory is refused by read, with its own errno. */
    status = read_bytes(text, fd, S_ISREG(info.st_mode) ? (size_t)info.st_size : 0, limit, progress, err);
  }
  close(fd);
  return status;
}

melu_status melu__text_read(struct melu__text *text, const melu_context *ctx, const char *path, size_t limit,
                            const struct melu_progress *progress, melu_error *err) {
  *text = (struct melu__text){.ctx = ctx, .name = name_of(path)};
  if (limit == 0 || limit > ctx->max_file_bytes) limit = ctx->max_file_bytes;
  melu_status status = melu__progress(ctx, progress, err);
  if (status == MELU_OK) status = read_file(text, path, limit, progress, err);
  if (status == MELU_OK) status = check_text(text, err);
  if (status != MELU_OK) {
    melu__text_free(text);
  } else if (text->n >= 3 && memcmp(text->bytes, "\xef\xbb\xbf", 3) == 0) {
    text->n -= 3;
    memmove(text->bytes, text->bytes + 3, text->n + 1);
  }
  return status;
}

void melu__text_free(struct melu__text *text) {
  if (text->ctx) melu__free(&text->ctx->allocator, text->bytes);
  text->bytes = NULL;
  text->n = 0;
}

/* ------------------------------------------------------------------------------------------------ lines and parts */

int melu__text_line(struct melu__slice *line, struct melu__slice *rest) {
  if (rest->n == 0) return 0;
  const char *end = memchr(rest->at, '\n', rest->n);
  const size_t n = end ? (size_t)(end - rest->at) : rest->n;
  *line = (struct melu__slice){rest->at, n};
  const size_t taken = end ? n + 1 : n;
  rest->at += taken;
  rest->n -= taken;
  return 1;
}

void melu__text_part(struct melu__slice *part, struct melu__slice *rest, const char *separator, size_t n, int *more) {
  const char *from = rest->at, *const end = rest->at + rest->n;
  *more = 0;
  while ((size_t)(end - from) >= n && (from = memchr(from, separator[0], (size_t)(end - from) - n + 1)) != NULL) {
    if (memcmp(from, separator, n) == 0) {
      *more = 1;
      break;
    }
    from++;
  }
  *part = (struct melu__slice){rest->at, *more ? (size_t)(from - rest->at) : rest->n};
  const size_t taken = *more ? part->n + n : rest->n;
  rest->at += taken;
  rest->n -= taken;
}

int melu__text_is(struct melu__slice slice, const char *text) {
  return slice.n == strlen(text) && memcmp(slice.at, text, slice.n) == 0;
}

/* ---------------------------------------------------------------------------------------------------- table rows */

/* Where the cell that begins at p ends, NULL if it is malformed. A quoted cell ends after its closing mark. */
static char *cell_end(struct melu__rows *rows, char *p, melu_error *err) {
  const uint64_t line = rows->line;
  if (*p != '"') {
    /* A NUL only follows the whole text. */
    while (*p != rows->separator && *p != '\n' && *p != '\r' && *p != '\0') p++;
    return p;
  }
  for (p++;; p++) {
    if (*p == '"' && *++p != '"') break;
    if (*p == '\0') {
      melu__text_fail(err, MELU_EFORMAT, rows->text, line, "the quotation mark of a cell is never closed");
      return NULL;
    }
    rows->line += *p == '\n';
  }
  if (*p == rows->separator || *p == '\n' || *p == '\r' || *p == '\0') return p;
  melu__text_fail(err, MELU_EFORMAT, rows->text, rows->line, "text follows a closing quotation mark");
  return NULL;
}

/* Moves behind what ended a cell: 1 if another cell follows, 0 if the row is over, -1 if there is a lone CR. */
static int skip_cell_end(struct melu__rows *rows, const char *end) {
  const size_t n_left = rows->text->n - (size_t)(end - rows->text->bytes);
  size_t n_skip = 1;
  int more = 0;
  if (n_left == 0) {
    n_skip = 0;
  } else if (*end == rows->separator) {
    more = 1;
  } else if (*end == '\r') {
    if (end[1] != '\n') return -1;
    n_skip = 2;
  }
  if (n_skip > 0 && !more) rows->line++;
  rows->at = (size_t)(end - rows->text->bytes) + n_skip;
  return more;
}

/* Takes a cell's quotation marks away, in place. */
static struct melu__slice unquote(char *begin, const char *end) {
  if (*begin != '"') return (struct melu__slice){begin, (size_t)(end - begin)};
  char *to = begin;
  for (const char *from = begin + 1; from < end - 1; from++) {
    if (*from == '"') from++;
    *to++ = *from;
  }
  return (struct melu__slice){begin, (size_t)(to - begin)};
}

melu_status melu__rows_next(struct melu__rows *rows, struct melu__slice *cells, size_t capacity, size_t *n_cells,
                            melu_error *err) {
  const struct melu__text *text = rows->text;
  for (const char *p = text->bytes + rows->at; *p == '\n' || (*p == '\r' && p[1] == '\n'); p = text->bytes + rows->at) {
    rows->at += *p == '\n' ? 1 : 2;
    rows->line++;
  }
  *n_cells = 0;
  rows->row_line = rows->line;
  for (int more = rows->at < text->n; more;) {
    char *begin = text->bytes + rows->at;
    char *end = cell_end(rows, begin, err);
    if (!end) return MELU_EFORMAT;
    more = skip_cell_end(rows, end);
    if (more < 0) {
      return melu__text_fail(err, MELU_EFORMAT, text, rows->line, "a carriage return that is not at the end of a line");
    }
    if (*n_cells < capacity) cells[*n_cells] = unquote(begin, end);
    ++*n_cells;
  }
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------- numbers, names */

int melu__parse_whole(uint64_t *out, struct melu__slice slice, uint64_t max) {
  uint64_t value = 0;
  for (size_t i = 0; i < slice.n; i++) {
    if (slice.at[i] < '0' || slice.at[i] > '9') return 0;
    const uint64_t digit = (uint64_t)(slice.at[i] - '0');
    if (value > (UINT64_MAX - digit) / 10) return 0;
    value = 10 * value + digit;
  }
  *out = value;
  return slice.n > 0 && value <= max;
}

/* A decimal number as digits * 10^exponent, without leading zeros. A float's midpoints have at most 113 significant
 * digits, so of a longer number it is enough to know whether anything followed. */
#define MAX_DIGITS 120
struct decimal {
  char digits[MAX_DIGITS + 16]; /* room for a last digit and the exponent */
  int n_digits, negative, inexact;
  int64_t exponent;
};

static void add_digit(struct decimal *number, char digit, int after_point) {
  if (number->n_digits == 0 && digit == '0') {
    number->exponent -= after_point;
  } else if (number->n_digits < MAX_DIGITS) {
    number->digits[number->n_digits++] = digit;
    number->exponent -= after_point;
  } else {
    number->inexact |= digit != '0';
    number->exponent += !after_point;
  }
}

/* 0 if the slice is no decimal number. */
static int scan_decimal(struct decimal *number, struct melu__slice slice) {
  const char *p = slice.at, *const end = slice.at + slice.n;
  int any = 0, after_point = 0;
  *number = (struct decimal){.negative = p < end && *p == '-'};
  if (p < end && (*p == '-' || *p == '+')) p++;
  for (; p < end && ((*p >= '0' && *p <= '9') || (*p == '.' && !after_point)); p++) {
    if (*p == '.') {
      after_point = 1;
    } else {
      add_digit(number, *p, after_point);
      any = 1;
    }
  }
  if (!any) return 0;
  if (p == end) return 1;
  if (*p != 'e' && *p != 'E') return 0;
  const int down = ++p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) p++;
  if (p == end) return 0;
  int64_t exponent = 0;
  for (; p < end; p++) {
    if (*p < '0' || *p > '9') return 0;
    if (exponent < INT64_MAX / 100) exponent = 10 * exponent + (*p - '0');
  }
  number->exponent += down ? -exponent : exponent;
  return 1;
}

/* Few digits and a small power of ten are exact floats, and one operation on such rounds once. */
static float decimal_value(struct decimal *number) {
  const int64_t magnitude = number->exponent + number->n_digits; /* the value is below 10^magnitude */
  if (number->n_digits == 0 || magnitude < -50) return 0.0f;
  if (magnitude > 50) return HUGE_VALF;
  int exponent = (int)number->exponent;
  if (number->n_digits <= 7 && exponent >= -10 && exponent <= 10) {
    double value = 0.0, power = 1.0;
    for (int i = 0; i < number->n_digits; i++) value = 10.0 * value + (number->digits[i] - '0');
    for (int i = 0; i < (exponent < 0 ? -exponent : exponent); i++) power *= 10.0;
    return (float)(exponent < 0 ? value / power : value * power);
  }
  int n = number->n_digits;
  if (number->inexact) {
    number->digits[n++] = '1';
    exponent--;
  }
  snprintf(number->digits + n, sizeof number->digits - (size_t)n, "e%d", exponent);
  /* What may leave the range of floats is to meet no trap of the host's; to take that care takes longer than reading.
   */
  return magnitude > -37 && magnitude < 39 ? strtof(number->digits, NULL) : melu__number_read_float(number->digits);
}

melu_status melu__parse_float(float *out, struct melu__slice slice) {
  static const char *const not_finite[] = {"nan", "inf", "infinity"};
  struct decimal number;
  if (scan_decimal(&number, slice)) {
    const float value = decimal_value(&number);
    if (!isfinite(value)) return MELU_ERANGE;
    *out = number.negative ? -value : value;
    return MELU_OK;
  }
  const size_t sign = slice.n > 0 && (slice.at[0] == '-' || slice.at[0] == '+');
  for (size_t i = 0; i < sizeof not_finite / sizeof *not_finite; i++) {
    const size_t n = strlen(not_finite[i]);
    size_t same = 0;
    while (sign + n == slice.n && same < n && (slice.at[sign + same] | 0x20) == not_finite[i][same]) same++;
    if (same == n) return MELU_ERANGE;
  }
  return MELU_EFORMAT;
}

struct melu__shown melu__show(struct melu__slice slice) {
  struct melu__shown shown;
  const size_t limit = sizeof shown.text - sizeof "...";
  size_t n = slice.n <= limit ? slice.n : limit;
  if (n < slice.n) {
    while (n > 0 && ((unsigned char)slice.at[n] & 0xc0) == 0x80) n--;
  }
  for (size_t i = 0; i < n; i++) {
    const unsigned char byte = (unsigned char)slice.at[i];
    shown.text[i] = byte < 0x20 || byte == 0x7f ? '?' : slice.at[i];
  }
  snprintf(shown.text + n, sizeof shown.text - n, "%s", n < slice.n ? "..." : "");
  return shown;
}
