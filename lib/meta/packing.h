/* SPDX-License-Identifier: BSD-3-Clause */
/* What a message between ranks consists of: sections, each a head and what it says. */
#ifndef MELU__PACKING_H
#define MELU__PACKING_H

#include <string.h>

#include "base/slots.h"

struct melu__section {
  uint32_t what; /* a table's number; or, from the number of tables on, something else */
  uint32_t n;
  struct melu__slots node; /* whose sum it is */
};

/* Where the next byte goes, or comes from, and how many there are. */
struct melu__packing {
  char *at;
  size_t left;
};
struct melu__unpacking {
  const char *at;
  size_t left;
};

static inline void melu__put(struct melu__packing *p, const void *bytes, size_t n) {
  memcpy(p->at, bytes, n);
  p->at += n;
  p->left -= n;
}

static inline void melu__get(struct melu__unpacking *p, void *bytes, size_t n) {
  memcpy(bytes, p->at, n);
  p->at += n;
  p->left -= n;
}

/* How many of n records of that size, and a section's head, there is room for. */
static inline size_t melu__fitting(const struct melu__packing *p, size_t n, size_t record) {
  if (p->left < sizeof(struct melu__section)) return 0;
  const size_t most = (p->left - sizeof(struct melu__section)) / record;
  return n < most ? n : most;
}

#endif
