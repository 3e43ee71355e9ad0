/* SPDX-License-Identifier: BSD-3-Clause */
/* What callers give in structs that may have grown since, or not yet. */
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"

#define MAX_OPTIONS_SIZE 4096 /* no struct will ever be so large: a size beyond it was never set */

static void *default_alloc(void *arg, size_t n_bytes) {
  (void)arg;
  return malloc(n_bytes);
}

static void default_free(void *arg, void *memory) {
  (void)arg;
  free(memory);
}

melu_status melu__allocator(struct melu_allocator *out, const struct melu_allocator *given, melu_error *err) {
  *out = (struct melu_allocator){NULL, default_alloc, default_free};
  if (!given) return MELU_OK;
  *out = *given;
  return given->alloc && given->free ? MELU_OK : melu__fail(err, MELU_EINVAL, "the allocator lacks a function");
}

melu_status melu__options(void *known, size_t known_size, const void *options, const char *name, melu_error *err) {
  size_t size = 0;
  memset(known, 0, known_size);
  if (!options) return MELU_OK;
  memcpy(&size, options, sizeof size);
  if (size < sizeof size || size > MAX_OPTIONS_SIZE)
    return melu__fail(err, MELU_EINVAL, "%s: size is %zu; set it to sizeof the struct", name, size);
  const unsigned char *bytes = options;
  for (size_t i = known_size; i < size; i++)
    if (bytes[i]) return melu__fail(err, MELU_EINVAL, "%s: byte %zu is set, but unknown to this version", name, i);
  memcpy(known, options, size < known_size ? size : known_size);
  return MELU_OK;
}

melu_status melu__options_out(void *options, const void *known, size_t known_size, const char *name, melu_error *err) {
  size_t size;
  memcpy(&size, options, sizeof size);
  if (size < sizeof size || size > MAX_OPTIONS_SIZE)
    return melu__fail(err, MELU_EINVAL, "%s: size is %zu; set it to sizeof the struct", name, size);
  memset(options, 0, size);
  memcpy(options, known, size < known_size ? size : known_size);
  memcpy(options, &size, sizeof size);
  return MELU_OK;
}

melu_status melu__time_limit(double *seconds, melu_error *err) {
  if (!(*seconds >= 0 && *seconds < 1e9))
    return melu__fail(err, MELU_EINVAL, "the time limit is not from 0 to 1e9 seconds");
  if (*seconds == 0) *seconds = 60;
  return MELU_OK;
}
