/* SPDX-License-Identifier: BSD-3-Clause */
/* Files of models and checkpoints that somebody altered, and made to look sound: docs/file-format.md. */
#ifndef MELU_TESTS_FILE_EDIT_H
#define MELU_TESTS_FILE_EDIT_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers as files have them, little-endian, on every machine. */
static inline size_t header_length(const unsigned char *bytes) {
  uint64_t n = 0;
  for (int i = 0; i < 8; i++) n |= (uint64_t)bytes[i] << 8 * i;
  return (size_t)n;
}

static inline void put_length(unsigned char *bytes, uint64_t n_header) {
  for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(n_header >> 8 * i);
}

#define NAN_BITS 0x7fc00000u

static inline void put_bits(unsigned char *at, uint32_t bits) {
  for (int i = 0; i < 4; i++) at[i] = (unsigned char)(bits >> 8 * i);
}

static inline void put_float(unsigned char *at, float number) {
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  put_bits(at, bits);
}

/* Sets the checksum of a file right, if it has one. */
static inline void set_checksum(unsigned char *bytes, size_t n) {
  char digits[17];
  for (size_t i = 8; i + 33 <= n; i++) {
    if (memcmp(bytes + i, "\"melu.checksum\":\"", 17) != 0) continue;
    memcpy(bytes + i + 17, "0000000000000000", 16);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)XXH3_64bits(bytes + 8, n - 8));
    memcpy(bytes + i + 17, digits, 16);
    return;
  }
}

/* A file in memory, with room for a longer header. */
struct edited {
  unsigned char *bytes;
  size_t n, n_header;
};

static inline struct edited edit_begin(const char *path) {
  struct edited e = {.n = 0};
  FILE *file = fopen(path, "rb");
  ck_assert_ptr_nonnull(file);
  fseek(file, 0, SEEK_END);
  e.n = (size_t)ftell(file);
  rewind(file);
  e.bytes = calloc(e.n + 4096, 1);
  ck_assert(e.bytes && fread(e.bytes, 1, e.n, file) == e.n);
  fclose(file);
  e.n_header = header_length(e.bytes);
  return e;
}

static inline void edit_end(struct edited *e, const char *path) {
  put_length(e->bytes, e->n_header);
  set_checksum(e->bytes, e->n);
  FILE *file = fopen(path, "wb");
  ck_assert_ptr_nonnull(file);
  ck_assert_uint_eq(fwrite(e->bytes, 1, e->n, file), e->n);
  ck_assert_int_eq(fclose(file), 0);
  free(e->bytes);
}

/* Where that is in the header. */
static inline unsigned char *edit_find(const struct edited *e, const char *text) {
  const size_t n = strlen(text);
  for (size_t at = 8; at + n <= 8 + e->n_header; at++)
    if (memcmp(e->bytes + at, text, n) == 0) return e->bytes + at;
  ck_abort_msg("%s is not in the file", text);
  return NULL;
}

/* Puts `to` in place of n_from bytes of the header. */
static inline void edit_replace(const char *path, size_t place, size_t n_from, const char *to) {
  struct edited e = edit_begin(path);
  unsigned char *at = e.bytes + place;
  const size_t n_to = strlen(to);
  memmove(at + n_to, at + n_from, e.n - place - n_from);
  memcpy(at, to, n_to);
  e.n_header += n_to - n_from;
  e.n += n_to - n_from;
  edit_end(&e, path);
}

static inline void edit_header(const char *path, const char *from, const char *to) {
  struct edited e = edit_begin(path);
  const size_t place = (size_t)(edit_find(&e, from) - e.bytes);
  free(e.bytes);
  edit_replace(path, place, strlen(from), to);
}

/* Puts bytes into a tensor's data, so many bytes behind its first. */
static inline void edit_tensor(const char *path, const char *name, size_t offset, const void *bytes, size_t n) {
  static const char key[] = "\"data_offsets\":[";
  char quoted[80];
  struct edited e = edit_begin(path);
  snprintf(quoted, sizeof quoted, "\"%s\":", name);
  const char *at = (const char *)edit_find(&e, quoted);
  while (memcmp(at, key, sizeof key - 1) != 0) at++;
  memcpy(e.bytes + 8 + e.n_header + strtoul(at + sizeof key - 1, NULL, 10) + offset, bytes, n);
  edit_end(&e, path);
}

#endif
