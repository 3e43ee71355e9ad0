/* SPDX-License-Identifier: BSD-3-Clause */
/* What proof 15 watches over a long time, for its two programs. */
#ifndef MELU_TESTS_SOAK_H
#define MELU_TESTS_SOAK_H

#include <stddef.h>

/* Of this process. */
struct soak_levels {
  size_t in_use;      /* bytes that malloc has given out */
  size_t resident;    /* bytes of memory */
  size_t descriptors; /* open files */
  size_t threads;
  size_t mappings; /* lines of /proc/self/maps */
};

struct soak_levels soak_levels(void);

/* What has grown by more than is let through, NULL if nothing has. Of what malloc has given out a page: the C library
 * keeps a little of its own. Of memory a mebibyte: it is not given back at once. */
const char *soak_grown(const struct soak_levels *before, const struct soak_levels *after);

#endif
