/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzzers share. Each is a program of libFuzzer's that looks for inputs by which a promise of the library is
 * broken, or, with drive.c, one that tries the inputs of a corpus. */
#ifndef MELU_TESTS_FUZZ_H
#define MELU_TESTS_FUZZ_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Says what is wrong, and ends the program in a way that libFuzzer notices. */
__attribute__((format(printf, 1, 2))) _Noreturn static inline void fuzz_broken(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  abort();
}

#define FUZZ_NEEDS(condition, ...)              \
  do {                                          \
    if (!(condition)) fuzz_broken(__VA_ARGS__); \
  } while (0)

/* What is left of an input; 0 when it is used up. */
struct fuzz_input {
  const uint8_t *at;
  size_t n;
};

static inline uint8_t fuzz_byte(struct fuzz_input *in) {
  if (!in->n) return 0;
  in->n--;
  return *in->at++;
}

#endif
