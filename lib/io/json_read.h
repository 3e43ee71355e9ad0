/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads JSON of a known form out of memory, piece by piece. Nothing is allocated and no tree is made: texts are decoded
 * where they stand. So a hostile text takes no more than an honest one, and nothing can run out of memory. A tree of
 * jansson's takes up to 80 times its text, and its reader goes on with a damaged text where memory is refused. */
#ifndef MELU__JSON_READ_H
#define MELU__JSON_READ_H

#include <stddef.h>
#include <stdint.h>

/* What is left to read. The text is overwritten as it is read. */
struct melu__json {
  char *at, *end;
};

/* Each takes what comes next, after blanks, and returns 1; or returns 0 if that is something else, and the rest is then
 * of no more use, except after melu__json_mark. */

/* One of the characters { } [ ] , : */
int melu__json_mark(struct melu__json *j, char mark);

/* A text: UTF-8 without NUL, *n bytes and then a NUL. It lies in the memory that is read. `n` may be NULL. */
int melu__json_string(struct melu__json *j, char **text, size_t *n);

/* A whole number of digits only. */
int melu__json_whole(struct melu__json *j, uint64_t *out);

/* One below SIZE_MAX. */
int melu__json_size(struct melu__json *j, size_t *out);

/* A text that is one of n names: the index of that. */
int melu__json_choice(struct melu__json *j, const char *const *names, int n, int *out);

/* Any finite number, correctly rounded, in any locale. One of more than 40 digits is refused. */
int melu__json_real(struct melu__json *j, double *out);

/* true or false; null. */
int melu__json_bool(struct melu__json *j, int *out);
int melu__json_null(struct melu__json *j);

/* The mark, that name, and a colon. */
int melu__json_member(struct melu__json *j, char mark, const char *name);

/* Goes to element `index` = 0, 1, ... of the list or object whose opening mark was taken, and which ends with `close`:
 * 1 if it is there, 0 if the end is there and was taken, -1 if neither. */
int melu__json_next(struct melu__json *j, size_t index, char close);

/* 1 if nothing but blanks is left. */
int melu__json_end(struct melu__json *j);

/* True when the bytes are what melu__json_string could return. */
int melu__is_text(const char *bytes, size_t n);

#endif
