/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/vocab.h"

#include <stdalign.h>
#include <string.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FIRST_BLOCK 1024
#define LARGEST_BLOCK ((size_t)1 << 18)
#define FIRST_SLOTS 32

struct key {
  uint64_t hash;
  size_t n_bytes;
  uint32_t index;
  char bytes[]; /* n_bytes, and a NUL */
};

/* Keys lie one after the other in blocks that double in size. They never move, and they go in the reverse order of
 * their arrival, so the newest one always ends the newest block. */
struct block {
  struct block *older;
  size_t used, size;
  alignas(struct key) char memory[];
};

/* Each key has one of 2^k slots, of which at most half are taken: the first free one from that which its hash names.
 * Since keys go in the reverse order of their arrival, none that stays ever lay behind one that goes, so its slot is
 * just left free. How many slots there are depends on the number of keys alone. */
struct melu__vocab {
  const struct melu_allocator *alloc;
  uint64_t seed;
  struct key **slots;
  size_t n_slots;
  struct key **keys; /* by number */
  size_t n, capacity;
  struct block *newest;
};

/* ---------------------------------------------------------------------------------------------------- memory */

static size_t room_of(size_t n_bytes) {
  return melu__size_align(melu__size_add(offsetof(struct key, bytes) + 1, n_bytes), alignof(struct key));
}

/* Room for a key at the end of the newest block; NULL if there is no memory. */
static struct key *reserve(struct melu__vocab *vocab, size_t n_bytes) {
  const size_t need = room_of(n_bytes);
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

/* Who chooses keys that all have one hash, so that each of them is compared with all others, has to know the seed. It
 * is made of what differs from run to run and does not leave the process: where the system put memory, stack and code,
 * and when. Nothing that can be seen depends on it but how long a search takes. */
static uint64_t make_seed(const struct melu__vocab *vocab) {
  struct timespec now = {0, 0};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const uint64_t parts[] = {(uintptr_t)vocab, (uintptr_t)&now, (uintptr_t)&make_seed, (uint64_t)now.tv_sec,
                            (uint64_t)now.tv_nsec};
  return XXH3_64bits(parts, sizeof parts);
}

struct melu__vocab *melu__vocab_new_seeded(const struct melu_allocator *a, uint64_t seed) {
  struct melu__vocab *vocab = melu__calloc(a, 1, sizeof *vocab);
  if (!vocab) return NULL;
  vocab->alloc = a;
  vocab->seed = seed;
  return vocab;
}

struct melu__vocab *melu__vocab_new(const struct melu_allocator *a) {
  struct melu__vocab *vocab = melu__vocab_new_seeded(a, 0);
  if (vocab) vocab->seed = make_seed(vocab);
  return vocab;
}

void melu__vocab_free(struct melu__vocab *vocab) {
  if (!vocab) return;
  while (vocab->newest) {
    struct block *block = vocab->newest;
    vocab->newest = block->older;
    melu__free(vocab->alloc, block);
  }
  melu__free(vocab->alloc, vocab->slots);
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

/* --------------------------------------------------------------------------------------------------- searching */

/* The slot of that key, or the free one that it would have. There are slots. */
static struct key **find_slot(const struct melu__vocab *vocab, uint64_t hash, const void *bytes, size_t n_bytes) {
  const size_t mask = vocab->n_slots - 1;
  for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
    const struct key *key = vocab->slots[i];
    if (!key ||
        (key->hash == hash && key->n_bytes == n_bytes && (n_bytes == 0 || memcmp(key->bytes, bytes, n_bytes) == 0)))
      return &vocab->slots[i];
  }
}

static uint64_t hash_of(const struct melu__vocab *vocab, const void *bytes, size_t n_bytes) {
  return XXH3_64bits_withSeed(bytes, n_bytes, vocab->seed);
}

/* Makes slots enough for one more key, keys being put in again in their order. Returns 0 if there is no memory. */
static int reserve_slots(struct melu__vocab *vocab) {
  if (2 * (vocab->n + 1) <= vocab->n_slots) return 1;
  const size_t n_slots = vocab->n_slots ? melu__size_mul(vocab->n_slots, 2) : FIRST_SLOTS;
  struct key **slots = melu__calloc(vocab->alloc, n_slots, sizeof(struct key *));
  if (!slots) return 0;
  melu__free(vocab->alloc, vocab->slots);
  vocab->slots = slots;
  vocab->n_slots = n_slots;
  for (size_t i = 0; i < vocab->n; i++) {
    struct key *key = vocab->keys[i];
    *find_slot(vocab, key->hash, key->bytes, key->n_bytes) = key;
  }
  return 1;
}

size_t melu__vocab_count(const struct melu__vocab *vocab) {
  return vocab->n;
}

uint32_t melu__vocab_find(const struct melu__vocab *vocab, const void *bytes, size_t n_bytes) {
  if (vocab->n == 0) return MELU__NO_INDEX;
  const struct key *found = *find_slot(vocab, hash_of(vocab, bytes, n_bytes), bytes, n_bytes);
  return found ? found->index : MELU__NO_INDEX;
}

uint32_t melu__vocab_add(struct melu__vocab *vocab, const void *bytes, size_t n_bytes, int *is_new) {
  const uint64_t hash = hash_of(vocab, bytes, n_bytes);
  struct key *key = vocab->n ? *find_slot(vocab, hash, bytes, n_bytes) : NULL;
  if (is_new) *is_new = 0;
  if (key) return key->index;
  if (vocab->n >= MELU__NO_INDEX - 1 || !reserve_slots(vocab)) return MELU__NO_INDEX;
  if (!melu__grow(vocab->alloc, &vocab->keys, &vocab->capacity, vocab->n, vocab->n + 1, sizeof *vocab->keys))
    return MELU__NO_INDEX;
  key = reserve(vocab, n_bytes);
  if (!key) return MELU__NO_INDEX;
  *key = (struct key){.hash = hash, .n_bytes = n_bytes, .index = (uint32_t)vocab->n};
  if (n_bytes) memcpy(key->bytes, bytes, n_bytes);
  key->bytes[n_bytes] = '\0';
  *find_slot(vocab, hash, bytes, n_bytes) = key;
  vocab->keys[vocab->n++] = key;
  if (is_new) *is_new = 1;
  return key->index;
}

const char *melu__vocab_key(const struct melu__vocab *vocab, uint32_t index, size_t *n_bytes) {
  if (n_bytes) *n_bytes = vocab->keys[index]->n_bytes;
  return vocab->keys[index]->bytes;
}

void melu__vocab_truncate(struct melu__vocab *vocab, size_t count) {
  while (vocab->n > count) {
    struct key *last = vocab->keys[--vocab->n];
    *find_slot(vocab, last->hash, last->bytes, last->n_bytes) = NULL;
    unreserve(vocab, last);
  }
}
