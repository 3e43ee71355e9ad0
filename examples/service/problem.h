/* SPDX-License-Identifier: BSD-3-Clause */
/* What went wrong with a request, in the words of the answer. Bad input is a normal event: nothing here ends the
 * program. */
#ifndef SERVICE_PROBLEM_H
#define SERVICE_PROBLEM_H

#include <melu.h>

struct problem {
  unsigned http;     /* 400, 404, ... */
  const char *code;  /* one or two words for programs, "unknown_item" */
  char message[320]; /* a sentence for people */
};

/* Fill it and return -1, which is what a function that failed returns. */
int problem_set(struct problem *problem, unsigned http, const char *code, const char *format, ...);
int problem_of_melu(struct problem *problem, const melu_error *err); /* 500, in the library's words */

#endif
