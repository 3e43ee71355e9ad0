/* SPDX-License-Identifier: BSD-3-Clause */
/* Records in buckets, more of them than there is memory for: each bucket keeps its last block, and what is full goes to
 * a temporary file without a name, which is gone when the process is. */
#ifndef MELU__SPILL_H
#define MELU__SPILL_H

#include <melu.h>

#include "base/context.h"

struct melu__record {
  uint64_t key;
  uint32_t what, value;
};

struct melu__spill_bucket {
  struct melu__record *records; /* the last block; NULL before the first record */
  size_t n;                     /* records in it */
  size_t n_blocks;              /* before it, in the file */
  size_t first, last;           /* of those, the first and the last, if there are any */
};

struct melu__spill {
  const melu_context *ctx;
  const char *folder; /* borrowed */
  size_t n_buckets;
  size_t block; /* records in a block */
  int fd;       /* -1: there is no file */
  struct melu__spill_bucket *buckets;
  size_t *next; /* of each block of the file the next one of its bucket */
  size_t n_blocks, capacity;
};

/* Creates the file in the folder. A spill that could not be opened, or is all zeros, has nothing to close. Errors:
 * MELU_EIO, MELU_ENOMEM. */
melu_status melu__spill_open(struct melu__spill *spill, const melu_context *ctx, const char *folder, size_t n_buckets,
                             size_t block, melu_error *err);
void melu__spill_close(struct melu__spill *spill);

/* On error nothing is added. Errors: MELU_EIO, MELU_ENOMEM. */
melu_status melu__spill_add(struct melu__spill *spill, size_t bucket, struct melu__record record, melu_error *err);

size_t melu__spill_count(const struct melu__spill *spill, size_t bucket);

/* Copies the records of a bucket, in the order of adding, to `out`, which has room for them. Errors: MELU_EIO. */
melu_status melu__spill_copy(struct melu__record *out, const struct melu__spill *spill, size_t bucket, melu_error *err);

/* Sorts records by key, those of one key in the order in which they were. `scratch` has room for as many. */
void melu__records_sort(struct melu__record *records, struct melu__record *scratch, size_t n);

#endif
