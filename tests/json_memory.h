/* SPDX-License-Identifier: BSD-3-Clause */
/* jansson takes its memory from malloc; between json_refuse and json_refuse_none it can be refused. */
#ifndef MELU_TESTS_JSON_MEMORY_H
#define MELU_TESTS_JSON_MEMORY_H

#include <jansson.h>
#include <stdlib.h>

/* Requests so far, the number of the one that is refused, and how much was not given back. */
static size_t json_made, json_fail_at, json_live;

static inline void *json_take(size_t n) {
  if (++json_made == json_fail_at) return NULL;
  json_live++;
  return malloc(n);
}

static inline void json_give(void *memory) {
  if (memory) json_live--;
  free(memory);
}

/* Refuses request n from here on, the first of which is number 1; 0: none. */
static inline void json_refuse(size_t n) {
  json_made = 0;
  json_fail_at = n;
  json_set_alloc_funcs(json_take, json_give);
}

/* As before the first json_refuse, for memory that jansson takes from now on. */
static inline void json_refuse_none(void) {
  json_set_alloc_funcs(malloc, free);
}

#endif
