/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys made to flood hash tables: 8 bytes each, all with the same lower 32 bits of XXH3 without a seed. */
#ifndef MELU_TESTS_FLOOD_H
#define MELU_TESTS_FLOOD_H

#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FLOOD_HASH 0x5eed5eedu

static inline uint64_t flood_rotated(uint64_t x, int n) {
  n &= 63;
  return n ? x << n | x >> (64 - n) : x;
}

/* The number whose hash is that, little-endian: XXH3 of 8 bytes (rrmxmx) backwards. */
static inline uint64_t flood_number_of(uint64_t hash) {
  const uint64_t factor = 0x9fb21c651e98df25u;
  uint64_t inverse = factor, h = hash;
  for (int i = 0; i < 5; i++)
    inverse *= 2 - factor * inverse; /* Newton's steps, each doubles the bits that are right */
  h ^= h >> 28 ^ h >> 56;
  h *= inverse;
  h ^= (h >> 35) + 8; /* the upper bits, of which this is made, were not changed by it */
  h *= inverse;
  /* f(h) = h ^ rotl(h, 49) ^ rotl(h, 24) is linear over bits, f^64 = 1, and f^(2^k) rotates by 2^k times as many. */
  for (int k = 0; k < 6; k++) h ^= flood_rotated(h, 49 << k) ^ flood_rotated(h, 24 << k);
  h ^= XXH_readLE64(XXH3_kSecret + 8) ^ XXH_readLE64(XXH3_kSecret + 16);
  return h << 32 | h >> 32; /* the halves are taken the other way round */
}

/* Number i of the flood, little-endian. */
static inline uint64_t flood_little(uint32_t i) {
  return flood_number_of((uint64_t)i << 32 | FLOOD_HASH);
}

/* The same as it lies in the memory of this machine. */
static inline uint64_t flood_number(uint32_t i) {
  const uint64_t little = flood_little(i);
  return XXH_readLE64(&little);
}

/* Bytes of the character at p that may stand in any cell, without quotation: UTF-8 of up to two bytes. */
static inline int flood_character(const char *p, int n_left) {
  const unsigned char c = (unsigned char)p[0];
  if (c >= 0xc2 && c < 0xe0) return n_left > 1 && ((unsigned char)p[1] & 0xc0) == 0x80 ? 2 : 0;
  return c > 0 && c < 0x7f && !strchr(" \t\n\v\f\r\",|:", c);
}

/* The next text of the flood from number *i on. */
static inline void flood_text(char text[9], uint32_t *i) {
  int n = 0;
  text[8] = '\0';
  while (n < 8) {
    const uint64_t number = flood_little((*i)++);
    for (n = 0; n < 8; n++) text[n] = (char)(unsigned char)(number >> 8 * n & 0xff);
    n = 0;
    for (int more = 1; n < 8 && more; n += more) more = flood_character(text + n, 8 - n);
  }
}

#endif
