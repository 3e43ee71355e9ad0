/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/vocab.h"

#include <string.h>

/* uthash through the host's allocator: its macros expand inside our functions, where `hash_alloc` is in scope. Without
 * memory an addition is undone and reported, instead of ending the process. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, n_bytes, hash) (hash) = (unsigned)XXH3_64bits((key), (n_bytes))
#define uthash_malloc(n_bytes) melu__alloc(hash_alloc, (n_bytes), 1)
#define uthash_free(memory, n_bytes) melu__free(hash_alloc, (memory))
#define uthash_nonfatal_oom(element) (void)(out_of_memory = 1)
#include <uthash.h>

struct key {
  UT_hash_handle hh;
  uint32_t index;
  size_t n_bytes;
  char bytes[]; /* n_bytes, and a NUL */
};

struct melu__vocab {
  const struct melu_allocator *alloc;
  struct key *table; /* uthash's head */
  struct key **keys; /* by number */
  size_t n, capacity;
};

struct melu__vocab *melu__vocab_new(const struct melu_allocator *a) {
  struct melu__vocab *vocab = melu__calloc(a, 1, sizeof *vocab);
  if (vocab) vocab->alloc = a;
  return vocab;
}

void melu__vocab_free(struct melu__vocab *vocab) {
  if (!vocab) return;
  melu__vocab_truncate(vocab, 0);
  melu__free(vocab->alloc, vocab->keys);
  melu__free(vocab->alloc, vocab);
}

struct melu__vocab *melu__vocab_copy(const struct melu__vocab *vocab, const struct melu_allocator *a) {
  struct melu__vocab *copy = melu__vocab_new(a);
  if (!copy) return NULL;
  for (size_t i = 0; i < vocab->n; i++) {
    if (melu__vocab_add(copy, vocab->keys[i]->bytes, vocab->keys[i]->n_bytes, NULL) != MELU__NO_INDEX) continue;
    melu__vocab_free(copy);
    return NULL;
  }
  return copy;
}

size_t melu__vocab_count(const struct melu__vocab *vocab) {
  return vocab->n;
}

uint32_t melu__vocab_find(const struct melu__vocab *vocab, const void *key, size_t n_bytes) {
  struct key *found;
  HASH_FIND(hh, vocab->table, key, n_bytes, found);
  return found ? found->index : MELU__NO_INDEX;
}

uint32_t melu__vocab_add(struct melu__vocab *vocab, const void *key, size_t n_bytes, int *is_new) {
  const struct melu_allocator *hash_alloc = vocab->alloc;
  int out_of_memory = 0;
  const uint32_t known = melu__vocab_find(vocab, key, n_bytes);
  if (is_new) *is_new = 0;
  if (known != MELU__NO_INDEX) return known;
  if (vocab->n >= MELU__NO_INDEX - 1) return MELU__NO_INDEX;
  if (!melu__grow(vocab->alloc, &vocab->keys, &vocab->capacity, vocab->n, vocab->n + 1, sizeof *vocab->keys))
    return MELU__NO_INDEX;
  struct key *entry = melu__alloc(vocab->alloc, 1, melu__size_add(sizeof *entry, melu__size_add(n_bytes, 1)));
  if (!entry) return MELU__NO_INDEX;
  memset(entry, 0, sizeof *entry);
  if (n_bytes) memcpy(entry->bytes, key, n_bytes);
  entry->bytes[n_bytes] = '\0';
  entry->n_bytes = n_bytes;
  entry->index = (uint32_t)vocab->n;
  HASH_ADD_KEYPTR(hh, vocab->table, entry->bytes, n_bytes, entry);
  if (out_of_memory) {
    melu__free(vocab->alloc, entry);
    return MELU__NO_INDEX;
  }
  vocab->keys[vocab->n++] = entry;
  if (is_new) *is_new = 1;
  return entry->index;
}

const char *melu__vocab_key(const struct melu__vocab *vocab, uint32_t index, size_t *n_bytes) {
  if (n_bytes) *n_bytes = vocab->keys[index]->n_bytes;
  return vocab->keys[index]->bytes;
}

void melu__vocab_truncate(struct melu__vocab *vocab, size_t count) {
  const struct melu_allocator *hash_alloc = vocab->alloc;
  while (vocab->n > count) {
    struct key *last = vocab->keys[--vocab->n];
    HASH_DELETE(hh, vocab->table, last);
    melu__free(vocab->alloc, last);
  }
}
