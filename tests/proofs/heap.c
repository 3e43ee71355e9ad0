/* SPDX-License-Identifier: BSD-3-Clause */
/* Stands in front of the C library's malloc for the whole process, BLIS and the C library itself included: the linker
 * takes a program's own functions first. Handing on to glibc's functions by their inner names makes no one wait for
 * dlsym, which itself allocates. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "proof.h"

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void __libc_free(void *memory);

struct proof_heap proof_heap;

static int is_refused(void) {
  if (!proof_heap.refuses || !proof_heap.refuses()) return 0;
  errno = ENOMEM;
  return 1;
}

static void *given(void *memory) {
  atomic_fetch_add(&proof_heap.calls, 1);
  if (!memory) return NULL;
  const long long n = (long long)malloc_usable_size(memory), live = atomic_fetch_add(&proof_heap.live, n) + n;
  long long peak = atomic_load(&proof_heap.peak);
  while (live > peak && !atomic_compare_exchange_weak(&proof_heap.peak, &peak, live)) continue;
  return memory;
}

static void taken(void *memory) {
  if (memory) atomic_fetch_sub(&proof_heap.live, (long long)malloc_usable_size(memory));
}

void *malloc(size_t n) {
  if (is_refused()) return NULL;
  return given(__libc_malloc(n));
}

void *calloc(size_t count, size_t size) {
  if (is_refused()) return NULL;
  return given(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t n) {
  if (is_refused()) return NULL;
  const long long before = memory ? (long long)malloc_usable_size(memory) : 0;
  void *moved = __libc_realloc(memory, n);
  if (moved || n == 0) atomic_fetch_sub(&proof_heap.live, before);
  return given(moved);
}

int posix_memalign(void **out, size_t alignment, size_t n) {
  void *memory = is_refused() ? NULL : given(__libc_memalign(alignment, n));
  if (!memory) return ENOMEM;
  *out = memory;
  return 0;
}

void *aligned_alloc(size_t alignment, size_t n) {
  if (is_refused()) return NULL;
  return given(__libc_memalign(alignment, n));
}

void free(void *memory) {
  taken(memory);
  __libc_free(memory);
}
