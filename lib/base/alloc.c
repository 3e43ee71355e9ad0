/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/alloc.h"

#include <string.h>

/* The host's pointer is kept right before the aligned block. */
void *melu__alloc(const struct melu_allocator *a, size_t n, size_t size) {
  const size_t n_bytes = melu__size_add(melu__size_mul(n, size), sizeof(void *) + MELU__ALIGN - 1);
  if (n_bytes == SIZE_MAX) return NULL;
  char *raw = a->alloc(a->arg, n_bytes);
  if (!raw) return NULL;
  const uintptr_t start = (uintptr_t)raw + sizeof(void *);
  char *block = raw + sizeof(void *) + (MELU__ALIGN - start % MELU__ALIGN) % MELU__ALIGN;
  memcpy(block - sizeof(void *), &raw, sizeof raw);
  return block;
}

void *melu__calloc(const struct melu_allocator *a, size_t n, size_t size) {
  void *p = melu__alloc(a, n, size);
  if (p) memset(p, 0, n * size);
  return p;
}

void melu__free(const struct melu_allocator *a, void *p) {
  if (!p) return;
  void *raw;
  memcpy(&raw, (char *)p - sizeof(void *), sizeof raw);
  a->free(a->arg, raw);
}

char *melu__strdup(const struct melu_allocator *a, const char *text) {
  const size_t n = strlen(text) + 1;
  char *copy = melu__alloc(a, n, 1);
  if (copy) memcpy(copy, text, n);
  return copy;
}

int melu__grow(const struct melu_allocator *a, void *p, size_t *capacity, size_t used, size_t need, size_t size) {
  if (need <= *capacity) return 1;
  size_t n = melu__size_mul(*capacity, 2);
  if (n < need) n = need;
  if (n < 16) n = 16;
  void *old, *bigger = melu__alloc(a, n, size);
  if (!bigger) return 0;
  memcpy(&old, p, sizeof old); /* p points to a pointer of the caller's own type */
  if (used) memcpy(bigger, old, used * size);
  melu__free(a, old);
  memcpy(p, &bigger, sizeof bigger);
  *capacity = n;
  return 1;
}
