/* SPDX-License-Identifier: BSD-3-Clause */
/* What a rank sends, and the memory that it takes: a collective and an allocator that count, in front of others. */
#ifndef EXAMPLE_COUNTED_H
#define EXAMPLE_COUNTED_H

#include <melu.h>
#include <stdatomic.h>

struct counted {
  struct melu_collective inner;
  uint64_t n_bytes;          /* that this rank has sent to others */
  uint64_t n_calls;          /* of the functions in which ranks wait for each other */
  _Atomic size_t live, most; /* bytes of memory: now, and at most so far */
};

/* The same collective as `inner`, counting in `c`, which must outlive it. */
struct melu_collective counted_collective(struct counted *c, const struct melu_collective *inner);

/* malloc and free, counting in `c`, which must outlive it. */
struct melu_allocator counted_allocator(struct counted *c);

#endif
