/* SPDX-License-Identifier: BSD-3-Clause */
/* Distinct row numbers, numbered in the order of their arrival. Costs what the rows cost, however many there may be; it
 * is emptied and filled anew for every batch, whose size bounds what rows that collide could do. */
#ifndef MELU__ROW_MAP_H
#define MELU__ROW_MAP_H

#include "base/alloc.h"

struct melu__row_map {
  uint32_t *rows; /* by number */
  size_t n, rows_capacity;
  uint32_t *places; /* 1 + the number of the row that is there, 0 if there is none; at least twice as many as rows */
  size_t n_places;  /* 0, or a power of two */
};

void melu__row_map_free(struct melu__row_map *map, const struct melu_allocator *a);
void melu__row_map_clear(struct melu__row_map *map);

/* The number of a row, which is added if it is new; UINT32_MAX if there is no memory. */
uint32_t melu__row_map_add(struct melu__row_map *map, const struct melu_allocator *a, uint32_t row);

#endif
