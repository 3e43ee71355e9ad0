/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers on the command line, read to the last letter: a benchmark that ran on a misread one would mislead. */
#ifndef MELU_BENCH_ARGS_H
#define MELU_BENCH_ARGS_H

#include <errno.h>
#include <stdlib.h>

/* Whether the text is a whole number in [least, most]; NULL is none. */
static inline int read_size(size_t *out, const char *text, size_t least, size_t most) {
  char *end;
  if (!text || *text < '0' || *text > '9') return 0;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (*end || errno || value < least || value > most) return 0;
  *out = (size_t)value;
  return 1;
}

/* Whether the text is a time that one would wait; NULL is none. */
static inline int read_seconds(double *out, const char *text) {
  char *end;
  if (!text || !*text) return 0;
  const double value = strtod(text, &end);
  if (*end || !(value > 0) || !(value <= 86400)) return 0;
  *out = value;
  return 1;
}

#endif
