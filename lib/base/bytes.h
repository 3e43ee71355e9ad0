/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers as bytes that are the same on every machine: little-endian, floats as IEEE 754. */
#ifndef MELU__BYTES_H
#define MELU__BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void melu__put_bits(unsigned char *to, uint64_t bits, size_t size) {
  for (size_t i = 0; i < size; i++) to[i] = (unsigned char)(bits >> 8 * i);
}

static inline uint64_t melu__get_bits(const unsigned char *from, size_t size) {
  uint64_t bits = 0;
  for (size_t i = 0; i < size; i++) bits |= (uint64_t)from[i] << 8 * i;
  return bits;
}

static inline uint64_t melu__float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float melu__bits_float(uint64_t bits) {
  const uint32_t low = (uint32_t)bits;
  float value;
  memcpy(&value, &low, sizeof value);
  return value;
}

#endif
