/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/interrupted.h"

#define NAME "/unsorted"

static melu_status fail(const struct melu__spill *spill, const char *step, int error, melu_error *err) {
  return melu__fail_errno(err, MELU_EIO, error, "cannot %s a temporary file in \"%.100s\"", step, spill->folder);
}

/* ----------------------------------------------------------------------------------------------------- the file */

/* Nobody else needs the name: it is taken away at once, so that the file goes with the process, however that ends. */
static melu_status open_file(struct melu__spill *spill, melu_error *err) {
  const struct melu_allocator *a = &spill->ctx->allocator;
  const size_t n = strlen(spill->folder), room = n + sizeof NAME + MELU__TEMPORARY_SUFFIX;
  char *path = melu__alloc(a, n + sizeof NAME, 1), *name = melu__alloc(a, room, 1);
  melu_status status = path && name ? MELU_OK : melu__fail_memory(err);
  if (!status) {
    memcpy(path, spill->folder, n);
    memcpy(path + n, NAME, sizeof NAME);
    const int error = melu__open_temporary(&spill->fd, name, room, path, O_RDWR);
    if (error) status = fail(spill, "create", error, err);
  }
  if (!status) {
    const int error = melu__remove_file(name);
    if (error) status = fail(spill, "remove the name of", error, err);
  }
  melu__free(a, path);
  melu__free(a, name);
  return status;
}

melu_status melu__spill_open(struct melu__spill *spill, const melu_context *ctx, const char *folder, size_t n_buckets,
                             size_t block, melu_error *err) {
  *spill = (struct melu__spill){.ctx = ctx, .folder = folder, .n_buckets = n_buckets, .block = block, .fd = -1};
  spill->buckets = melu__calloc(&ctx->allocator, n_buckets, sizeof *spill->buckets);
  const melu_status status = spill->buckets ? open_file(spill, err) : melu__fail_memory(err);
  if (status) melu__spill_close(spill);
  return status;
}

void melu__spill_close(struct melu__spill *spill) {
  if (!spill->ctx) return;
  const struct melu_allocator *a = &spill->ctx->allocator;
  for (size_t i = 0; spill->buckets && i < spill->n_buckets; i++) melu__free(a, spill->buckets[i].records);
  melu__free(a, spill->buckets);
  melu__free(a, spill->next);
  if (spill->fd >= 0) close(spill->fd);
  *spill = (struct melu__spill){.fd = -1};
}

static size_t block_bytes(const struct melu__spill *spill) {
  return spill->block * sizeof(struct melu__record);
}

/* Writes a full block behind all others, whatever a write that failed has left there. */
static melu_status write_block(const struct melu__spill *spill, const struct melu__record *records, melu_error *err) {
  const char *bytes = (const char *)records;
  const size_t n_bytes = block_bytes(spill);
  for (size_t at = 0; at < n_bytes;) {
    const ssize_t n = pwrite(spill->fd, bytes + at, n_bytes - at, (off_t)(spill->n_blocks * n_bytes + at));
    if (melu__interrupted(n)) continue;
    if (n <= 0) return fail(spill, "write", n < 0 ? errno : EIO, err);
    at += (size_t)n;
  }
  return MELU_OK;
}

static melu_status read_block(struct melu__record *records, const struct melu__spill *spill, size_t block,
                              melu_error *err) {
  char *bytes = (char *)records;
  const size_t n_bytes = block_bytes(spill);
  for (size_t at = 0; at < n_bytes;) {
    const ssize_t n = pread(spill->fd, bytes + at, n_bytes - at, (off_t)(block * n_bytes + at));
    if (melu__interrupted(n)) continue;
    if (n <= 0) return fail(spill, "read", n < 0 ? errno : EIO, err);
    at += (size_t)n;
  }
  return MELU_OK;
}

/* --------------------------------------------------------------------------------------------------- the buckets */

/* Puts a bucket's full block behind those that it has in the file. */
static melu_status spill_block(struct melu__spill *spill, struct melu__spill_bucket *bucket, melu_error *err) {
  const size_t block = spill->n_blocks;
  if (!melu__grow(&spill->ctx->allocator, &spill->next, &spill->capacity, block, block + 1, sizeof *spill->next))
    return melu__fail_memory(err);
  const melu_status status = write_block(spill, bucket->records, err);
  if (status) return status;
  if (bucket->n_blocks)
    spill->next[bucket->last] = block;
  else
    bucket->first = block;
  bucket->last = block;
  bucket->n_blocks++;
  bucket->n = 0;
  spill->n_blocks++;
  return MELU_OK;
}

melu_status melu__spill_add(struct melu__spill *spill, size_t bucket, struct melu__record record, melu_error *err) {
  struct melu__spill_bucket *b = &spill->buckets[bucket];
  if (!b->records) b->records = melu__alloc(&spill->ctx->allocator, spill->block, sizeof *b->records);
  if (!b->records) return melu__fail_memory(err);
  if (b->n == spill->block) {
    const melu_status status = spill_block(spill, b, err);
    if (status) return status;
  }
  b->records[b->n++] = record;
  return MELU_OK;
}

size_t melu__spill_count(const struct melu__spill *spill, size_t bucket) {
  const struct melu__spill_bucket *b = &spill->buckets[bucket];
  return b->n_blocks * spill->block + b->n;
}

melu_status melu__spill_copy(struct melu__record *out, const struct melu__spill *spill, size_t bucket,
                             melu_error *err) {
  const struct melu__spill_bucket *b = &spill->buckets[bucket];
  size_t block = b->first;
  for (size_t i = 0; i < b->n_blocks; i++, out += spill->block) {
    const melu_status status = read_block(out, spill, block, err);
    if (status) return status;
    block = spill->next[block];
  }
  if (b->n) memcpy(out, b->records, b->n * sizeof *out);
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------------ sorting */

enum { DIGIT_BITS = 8, DIGITS = 8, DIGIT_VALUES = 1 << DIGIT_BITS };

static size_t digit_of(const struct melu__record *r, int digit) {
  return (size_t)(r->key >> digit * DIGIT_BITS) % DIGIT_VALUES;
}

/* By counting, digit by digit from the lowest: time goes with the number of records, whatever the keys are. */
void melu__records_sort(struct melu__record *records, struct melu__record *scratch, size_t n) {
  struct melu__record *from = records, *to = scratch;
  for (int digit = 0; digit < DIGITS; digit++) {
    size_t start[DIGIT_VALUES] = {0}, before = 0;
    for (size_t i = 0; i < n; i++) start[digit_of(&from[i], digit)]++;
    if (n && start[digit_of(from, digit)] == n) continue; /* it is the same in all keys */
    for (size_t d = 0; d < DIGIT_VALUES; d++) {
      const size_t count = start[d];
      start[d] = before;
      before += count;
    }
    for (size_t i = 0; i < n; i++) to[start[digit_of(&from[i], digit)]++] = from[i];
    struct melu__record *const other = from;
    from = to;
    to = other;
  }
  if (from != records) memcpy(records, from, n * sizeof *records);
}
