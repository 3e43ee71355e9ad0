/* SPDX-License-Identifier: BSD-3-Clause */
/* XXH3 digests (128 bits, seed 0) of numbers and texts, the same on every machine: integers go in little-endian. */
#ifndef MELU__DIGEST_H
#define MELU__DIGEST_H

#include <melu.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"

struct melu__digest {
  XXH3_state_t hash;
};

static inline void melu__digest_begin(struct melu__digest *d) {
  XXH3_128bits_reset(&d->hash);
}

static inline void melu__digest_bits(struct melu__digest *d, uint64_t bits) {
  unsigned char bytes[8];
  melu__put_bits(bytes, bits, sizeof bytes);
  XXH3_128bits_update(&d->hash, bytes, sizeof bytes);
}

static inline void melu__digest_double(struct melu__digest *d, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  melu__digest_bits(d, bits);
}

/* Its length goes before it, so that what follows cannot be taken for a part of it. */
static inline void melu__digest_text(struct melu__digest *d, const char *text) {
  const size_t n = strlen(text);
  melu__digest_bits(d, n);
  XXH3_128bits_update(&d->hash, text, n);
}

/* Four bytes each, without their count. Floats are such words too. */
static inline void melu__digest_words(struct melu__digest *d, const void *words, size_t n) {
  unsigned char bytes[4096];
  for (size_t at = 0, piece; at < n; at += piece) {
    piece = n - at < sizeof bytes / 4 ? n - at : sizeof bytes / 4;
    for (size_t i = 0; i < piece; i++) {
      uint32_t word;
      memcpy(&word, (const char *)words + 4 * (at + i), sizeof word);
      melu__put_bits(bytes + 4 * i, word, 4);
    }
    XXH3_128bits_update(&d->hash, bytes, 4 * piece);
  }
}

static inline void melu__digest_end(unsigned char out[MELU_DIGEST_BYTES], const struct melu__digest *d) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&d->hash));
  memcpy(out, canonical.digest, MELU_DIGEST_BYTES);
}

#endif
