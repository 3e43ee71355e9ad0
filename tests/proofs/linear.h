/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of proof 17: what might take more than linear time, and what must end at a limit. */
#ifndef MELU_TESTS_LINEAR_H
#define MELU_TESTS_LINEAR_H

#include "proof.h"

/* A trap for somebody who compares everything with everything. */
struct trap {
  const char *name;
  double (*run)(size_t n); /* the seconds that it takes with n of something, making them apart */
  size_t first, most;      /* the smallest n, and the largest */
};

extern const struct trap data_traps[], file_traps[], serve_traps[];
extern const size_t n_data_traps, n_file_traps, n_serve_traps;
void serve_traps_close(void); /* frees what they share */

double now_s(void);

/* The context that all of them use, and a file of theirs in a folder of theirs. */
extern melu_context *linear_ctx;
const char *linear_path(const char *name);

/* Text number i of the flood (flood.h), made once. */
const char *hostile_text(size_t i);

/* A text that grows. */
struct growing {
  char *at;
  size_t n, room;
};
void grow_text(struct growing *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void grow_by(struct growing *text, const char *more, size_t times);
/* Writes it to the file and frees it. */
void write_text(struct growing *text, const char *name);

/* Lines of n bytes. Returns how many things were tried. */
size_t long_lines(size_t n);

/* One above each limit that the library states. Returns how many. */
size_t limits(void);

#endif
