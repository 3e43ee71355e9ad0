/* SPDX-License-Identifier: BSD-3-Clause */
#include "problem.h"

#include <stdarg.h>
#include <stdio.h>

int problem_set(struct problem *problem, unsigned http, const char *code, const char *format, ...) {
  va_list args;
  problem->http = http;
  problem->code = code;
  va_start(args, format);
  vsnprintf(problem->message, sizeof problem->message, format, args);
  va_end(args);
  /* Where it was cut, or what was quoted, may be half a letter of UTF-8, of which no answer could be made. */
  for (char *c = problem->message; *c; c++) {
    if ((unsigned char)*c >= 0x80) *c = '?';
  }
  return -1;
}

int problem_of_melu(struct problem *problem, const melu_error *err) {
  return problem_set(problem, 500, "model", "%s (%s)", err->message, melu_status_name(err->status));
}
