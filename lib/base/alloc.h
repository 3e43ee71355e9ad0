/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory, through the host's allocator. */
#ifndef MELU__ALLOC_H
#define MELU__ALLOC_H

#include <melu.h>

#include "base/checked.h"

/* Everything the library allocates begins on a cache line: vector loads need it, and threads do not share lines. */
#define MELU__ALIGN 64

/* Asks for a cache line that will be read soon. */
static inline void melu__prefetch(const void *p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

/* n * size bytes aligned to MELU__ALIGN, or NULL (also when the product overflows). n * size of 0 gives a pointer that
 * may be freed. The bytes of melu__calloc are zero. */
void *melu__alloc(const struct melu_allocator *a, size_t n, size_t size);
void *melu__calloc(const struct melu_allocator *a, size_t n, size_t size);

/* NULL is fine. */
void melu__free(const struct melu_allocator *a, void *p);

/* A copy of a NUL-terminated text, or NULL. */
char *melu__strdup(const struct melu_allocator *a, const char *text);

/* Grows the array *p of *capacity elements of `size` bytes, the first `used` of which count, to hold at least `need`
 * (at least doubling). Returns 0 and leaves everything as it is if there is no memory, 1 otherwise. */
int melu__grow(const struct melu_allocator *a, void *p, size_t *capacity, size_t used, size_t need, size_t size);

#endif
