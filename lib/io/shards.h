/* SPDX-License-Identifier: BSD-3-Clause */
/* Data sets as folders of files: docs/file-format.md, "Shard folders". */
#ifndef MELU__SHARDS_H
#define MELU__SHARDS_H

#include "base/mix.h"
#include "data/dataset.h"
#include "io/safetensors.h"

#define MELU__MANIFEST_FORMAT "melu-shards"
#define MELU__SHARD_FORMAT "melu-shard"
#define MELU__MOST_FILES 65536u
#define MELU__MOST_OF_FILE ((size_t)1 << 22) /* ratings, and records of profiles, of one file */

/* What the manifest says of the files. */
struct melu__shard_list {
  size_t n;
  uint64_t *users, *ratings, *most; /* how many; `most`: ratings of one user */
  uint64_t *checksums;
  float *range; /* (n, 2): the smallest and the largest rating; zeros if there are none */
};

/* 0 if there is no memory; there is something to free all the same. One of zeros has nothing to free. */
int melu__shard_list_make(struct melu__shard_list *list, const struct melu_allocator *a, size_t n);
void melu__shard_list_free(struct melu__shard_list *list, const struct melu_allocator *a);

/* The list as tensors, in the list's memory. */
enum { MELU__LIST_TENSORS = 5 };
void melu__shard_list_tensors(struct melu__tensor tensors[MELU__LIST_TENSORS], const struct melu__shard_list *list);

struct melu_shards {
  const melu_context *ctx;
  char *folder;
  melu_dataset *items; /* frozen, without users */
  struct melu__shard_list list;
};

/* The file that a user belongs to. */
static inline size_t melu__shard_of(uint64_t user, size_t n_files) {
  return (size_t)(melu__mix64(user) % n_files);
}

/* Tells the system that a file will be read soon, so that it can be in memory by then. */
void melu__shard_expect(const melu_shards *shards, size_t file);

/* The path of the manifest, and of a file, from the allocator; NULL if there is no memory. */
char *melu__manifest_path(const struct melu_allocator *a, const char *folder);
char *melu__shard_path(const struct melu_allocator *a, const char *folder, size_t file);

#endif
