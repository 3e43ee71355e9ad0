/* SPDX-License-Identifier: BSD-3-Clause */
/* Text files in memory: whole files, the cells of a table's rows, and numbers, independent of the locale. */
#ifndef MELU__TEXT_FILE_H
#define MELU__TEXT_FILE_H

#include <melu.h>

#include "base/context.h"
#include "base/error.h"

/* A piece of somebody's text; no NUL follows it. */
struct melu__slice {
  const char *at;
  size_t n;
};

/* A whole file. The rows of a table are unquoted in place. */
struct melu__text {
  const melu_context *ctx; /* whose allocator owns the bytes; NULL: nothing is held */
  const char *name;        /* for messages: the path, or its last part when the path is long. Borrowed */
  char *bytes;             /* n of them, UTF-8 without a NUL; a byte order mark was removed; a NUL follows */
  size_t n;
};

/* Reads the file into *text, at most the context's max_file_bytes and at most `limit` bytes (0: no other limit), and
 * checks that it is UTF-8 without a NUL byte. While it reads, the context's progress callback hears `progress`. On
 * failure *text holds nothing. `path` is borrowed. Errors: MELU_ENOTFOUND, MELU_EIO, MELU_ELIMIT, MELU_EFORMAT (with
 * the line), MELU_ENOMEM, MELU_ECANCELED. */
melu_status melu__text_read(struct melu__text *text, const melu_context *ctx, const char *path, size_t limit,
                            const struct melu_progress *progress, melu_error *err);
void melu__text_free(struct melu__text *text);

/* Fails with "<name>:<line>: <message>". */
melu_status melu__text_fail(melu_error *err, melu_status status, const struct melu__text *text, uint64_t line,
                            const char *format, ...) MELU__PRINTF(5, 6);

/* Takes the next line, without its LF, off the front of *rest; 0 when *rest is empty. */
int melu__text_line(struct melu__slice *line, struct melu__slice *rest);

/* Takes everything up to the next `separator` (n bytes) off the front of *rest. *more tells whether a separator, and so
 * another part, if only an empty one, followed. */
void melu__text_part(struct melu__slice *part, struct melu__slice *rest, const char *separator, size_t n, int *more);

/* True when both have the same bytes. */
int melu__text_is(struct melu__slice slice, const char *text);

/* ---------------------------------------------------------------------------------------------------- table rows */

/* Where the reading of a table stands. Start with `line` = 1 and `at` at the first byte. Rows end with LF or CRLF, the
 * last one may lack it; a line with nothing on it is no row. A cell that begins with a quotation mark ends with the
 * next single one, and a doubled one stands for itself (RFC 4180); any other cell is taken as it is. */
struct melu__rows {
  const struct melu__text *text;
  char separator;
  size_t at;
  uint64_t line;     /* of the next unread byte */
  uint64_t row_line; /* on which the last row began */
};

/* Takes the next row. *n_cells is 0 at the end of the file; else it is their number, and the first `capacity` are in
 * `cells`, cut out of the text's own bytes. Errors: MELU_EFORMAT (an open quote, text after a closing quote, a carriage
 * return inside a line). */
melu_status melu__rows_next(struct melu__rows *rows, struct melu__slice *cells, size_t capacity, size_t *n_cells,
                            melu_error *err);

/* ------------------------------------------------------------------------------------------------- numbers, names */

/* A whole number of decimal digits only, at most `max`. Leading zeros do not count. 0 if it is none. */
int melu__parse_whole(uint64_t *out, struct melu__slice slice, uint64_t max);

/* A decimal number such as 3, -2.5, .5 or 1e-3, correctly rounded. MELU_EFORMAT if it is none, MELU_ERANGE if it is
 * infinite, too large for a float, or "nan". */
melu_status melu__parse_float(float *out, struct melu__slice slice);

/* The text as a message can show it: cut to a few dozen bytes at a character, control bytes replaced. */
struct melu__shown {
  char text[48];
};
struct melu__shown melu__show(struct melu__slice slice);

#endif
