/* SPDX-License-Identifier: BSD-3-Clause */
/* A vocabulary: distinct keys (byte strings, or 64-bit ids) numbered 0, 1, 2 ... in the order of their arrival. */
#ifndef MELU__VOCAB_H
#define MELU__VOCAB_H

#include <melu.h>

#include "base/alloc.h"

#define MELU__NO_INDEX ((uint32_t)0xffffffffu)

struct melu__vocab; /* a hash table; keys are copied, one after the other, into blocks, where they stay */

/* NULL if there is no memory. The allocator is borrowed. The seed of the hash is to be a secret. */
struct melu__vocab *melu__vocab_new(const struct melu_allocator *a);
struct melu__vocab *melu__vocab_new_seeded(const struct melu_allocator *a, uint64_t seed);
struct melu__vocab *melu__vocab_copy(const struct melu__vocab *vocab, const struct melu_allocator *a);
void melu__vocab_free(struct melu__vocab *vocab);

size_t melu__vocab_count(const struct melu__vocab *vocab);

/* The number of a key, MELU__NO_INDEX if it is not there. */
uint32_t melu__vocab_find(const struct melu__vocab *vocab, const void *key, size_t n_bytes);

/* The number of a key, which is added if it is new (*is_new, if not NULL, tells). MELU__NO_INDEX if there is no memory
 * or there are 2^32 - 2 keys; the vocabulary is then as before. */
uint32_t melu__vocab_add(struct melu__vocab *vocab, const void *key, size_t n_bytes, int *is_new);

/* The key of a number below the count; *n_bytes, if not NULL, is its length. A NUL follows it. */
const char *melu__vocab_key(const struct melu__vocab *vocab, uint32_t index, size_t *n_bytes);

/* Removes the keys with number >= count: undo of the latest additions. */
void melu__vocab_truncate(struct melu__vocab *vocab, size_t count);

#endif
