/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>

#include "io/safetensors.h"
#include "io/shards.h"

int melu__shard_list_make(struct melu__shard_list *list, const struct melu_allocator *a, size_t n) {
  *list = (struct melu__shard_list){.n = n};
  list->users = melu__calloc(a, n, sizeof *list->users);
  list->ratings = melu__calloc(a, n, sizeof *list->ratings);
  list->most = melu__calloc(a, n, sizeof *list->most);
  list->checksums = melu__calloc(a, n, sizeof *list->checksums);
  list->range = melu__calloc(a, n, 2 * sizeof *list->range);
  return list->users && list->ratings && list->most && list->checksums && list->range;
}

void melu__shard_list_free(struct melu__shard_list *list, const struct melu_allocator *a) {
  melu__free(a, list->users);
  melu__free(a, list->ratings);
  melu__free(a, list->most);
  melu__free(a, list->checksums);
  melu__free(a, list->range);
}

void melu__shard_list_tensors(struct melu__tensor tensors[MELU__LIST_TENSORS], const struct melu__shard_list *list) {
  const struct melu__tensor all[MELU__LIST_TENSORS] = {
      {.name = "files.users", .dtype = MELU__U64, .n_dims = 1, .dims = {list->n}, .data = list->users},
      {.name = "files.ratings", .dtype = MELU__U64, .n_dims = 1, .dims = {list->n}, .data = list->ratings},
      {.name = "files.most", .dtype = MELU__U64, .n_dims = 1, .dims = {list->n}, .data = list->most},
      {.name = "files.checksums", .dtype = MELU__U64, .n_dims = 1, .dims = {list->n}, .data = list->checksums},
      {.name = "files.range", .dtype = MELU__FLOAT, .n_dims = 2, .dims = {list->n, 2}, .data = list->range}};
  memcpy(tensors, all, sizeof all);
}

/* `rest`: what follows the folder's name, up to 63 characters. */
static char *path_of(const struct melu_allocator *a, const char *folder, const char *rest) {
  const size_t n = strlen(folder);
  char *path = melu__alloc(a, n + 64, 1);
  if (!path) return NULL;
  memcpy(path, folder, n);
  memcpy(path + n, rest, strlen(rest) + 1);
  return path;
}

char *melu__manifest_path(const struct melu_allocator *a, const char *folder) {
  return path_of(a, folder, "/manifest.safetensors");
}

char *melu__shard_path(const struct melu_allocator *a, const char *folder, size_t file) {
  char rest[64];
  snprintf(rest, sizeof rest, "/users-%05zu.safetensors", file);
  return path_of(a, folder, rest);
}
