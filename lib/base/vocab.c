/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/vocab.h"

#include <limits.h>
#include <stdalign.h>
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

#define FIRST_BLOCK 1024
#define LARGEST_BLOCK ((size_t)1 << 18)

struct key {
  UT_hash_handle hh;
  uint32_t index;
  size_t n_bytes;
  char bytes[]; /* n_bytes, and a NUL */
};

/* Keys lie one after the other in blocks that double in size. uthash keeps pointers to them, so they never move; they
 * go in the reverse order of their arrival, so the newest one always ends the newest block. */
struct block {
  struct block *older;
  size_t used, size;
  alignas(struct key) char memory[];
};

struct melu__vocab {
  const struct melu_allocator *alloc;
  struct key *table; /* uthash's head */
  struct key **keys; /* by number */
  size_t n, capacity;
  struct block *newest;
};

/* Room for a key at the end of the newest block; NULL if there is no memory. */
static struct key *reserve(struct melu__vocab *vocab, size_t n_bytes) {
  const size_t need = melu__size_align(melu__size_add(offsetof(struct key, bytes) + 1, n_bytes), alignof(struct key));
  struct block *block = vocab->newest;
  if (!block || need > block->size - block->used) {
    size_t size = block ? melu__size_mul(block->size, 2) : FIRST_BLOCK;
    if (size > LARGEST_BLOCK) size = LARGEST_BLOCK;
    if (size < need) size = need;
    block = melu__alloc(vocab->alloc, 1, melu__size_add(sizeof *block, size));
    if (!block) return NULL;
    *block = (struct block){.older = vocab->newest, .size = size};
    vocab->newest = block;
  }
  struct key *key = (struct key *)(void *)(block->memory + block->used);
  block->used += need;
  return key;
}

/* Takes back the room of the newest key. */
static void unreserve(struct melu__vocab *vocab, const struct key *key) {
  struct block *block = vocab->newest;
  block->used = (size_t)((const char *)key - block->memory);
  if (block->used) return;
  vocab->newest = block->older;
  melu__free(vocab->alloc, block);
}

struct melu__vocab *melu__vocab_new(const struct melu_allocator *a) {
  struct melu__vocab *vocab = melu__calloc(a, 1, sizeof *vocab);
  if (vocab) vocab->alloc = a;
  return vocab;
}

void melu__vocab_free(struct melu__vocab *vocab) {
  if (!vocab) return;
  const struct melu_allocator *hash_alloc = vocab->alloc;
  HASH_CLEAR(hh, vocab->table);
  while (vocab->newest) {
    struct block *block = vocab->newest;
    vocab->newest = block->older;
    melu__free(vocab->alloc, block);
  }
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
  if (n_bytes > UINT_MAX) return MELU__NO_INDEX; /* uthash counts bytes in an unsigned */
  HASH_FIND(hh, vocab->table, key, n_bytes, found);
  return found ? found->index : MELU__NO_INDEX;
}

uint32_t melu__vocab_add(struct melu__vocab *vocab, const void *key, size_t n_bytes, int *is_new) {
  const struct melu_allocator *hash_alloc = vocab->alloc;
  int out_of_memory = 0;
  const uint32_t known = melu__vocab_find(vocab, key, n_bytes);
  if (is_new) *is_new = 0;
  if (known != MELU__NO_INDEX) return known;
  if (n_bytes > UINT_MAX || vocab->n >= MELU__NO_INDEX - 1) return MELU__NO_INDEX;
  if (!melu__grow(vocab->alloc, &vocab->keys, &vocab->capacity, vocab->n, vocab->n + 1, sizeof *vocab->keys))
    return MELU__NO_INDEX;
  struct key *entry = reserve(vocab, n_bytes);
  if (!entry) return MELU__NO_INDEX;
  *entry = (struct key){.index = (uint32_t)vocab->n, .n_bytes = n_bytes};
  if (n_bytes) memcpy(entry->bytes, key, n_bytes);
  entry->bytes[n_bytes] = '\0';
  HASH_ADD_KEYPTR(hh, vocab->table, entry->bytes, n_bytes, entry);
  if (out_of_memory) {
    unreserve(vocab, entry);
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
    unreserve(vocab, last);
  }
}
