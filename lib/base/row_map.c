/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/row_map.h"

#include <string.h>

#include "base/mix.h"

enum { FEWEST_PLACES = 64 };

void melu__row_map_free(struct melu__row_map *map, const struct melu_allocator *a) {
  melu__free(a, map->rows);
  melu__free(a, map->places);
}

/* Where the row is, or would be. */
static size_t place_of(const struct melu__row_map *map, uint32_t row) {
  size_t place = (size_t)melu__mix64(row) & (map->n_places - 1);
  while (map->places[place] && map->rows[map->places[place] - 1] != row) place = (place + 1) & (map->n_places - 1);
  return place;
}

void melu__row_map_clear(struct melu__row_map *map) {
  if (map->n_places) memset(map->places, 0, map->n_places * sizeof *map->places);
  map->n = 0;
}

static int grow(struct melu__row_map *map, const struct melu_allocator *a) {
  const size_t n = map->n_places ? 2 * map->n_places : FEWEST_PLACES;
  uint32_t *places = melu__calloc(a, n, sizeof *places);
  if (!places) return 0;
  melu__free(a, map->places);
  map->places = places;
  map->n_places = n;
  for (size_t i = 0; i < map->n; i++) map->places[place_of(map, map->rows[i])] = (uint32_t)i + 1;
  return 1;
}

uint32_t melu__row_map_add(struct melu__row_map *map, const struct melu_allocator *a, uint32_t row) {
  if (2 * (map->n + 1) > map->n_places && !grow(map, a)) return UINT32_MAX;
  const size_t place = place_of(map, row);
  if (map->places[place]) return map->places[place] - 1;
  if (!melu__grow(a, &map->rows, &map->rows_capacity, map->n, map->n + 1, sizeof *map->rows)) return UINT32_MAX;
  map->rows[map->n] = row;
  map->places[place] = (uint32_t)++map->n;
  return (uint32_t)map->n - 1;
}
