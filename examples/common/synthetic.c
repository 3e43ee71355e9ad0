/* SPDX-License-Identifier: BSD-3-Clause */
#include "synthetic.h"

#include <math.h>
#include <string.h>

#include "args.h"

enum { FEWEST = 10, GENRES_OF_ITEM = 3 };

/* Parts of a vector that come from genres or the group, and from the item or user alone: their squares add up to 1. */
static const double shared = 0.6, own = 0.8, interaction = 0.6;

/* ---------------------------------------------------------------------------------------------------- numbers */

/* What a number is for. */
enum purpose { ITEM, ITEM_OFFSET, ITEM_GENRES, GENRE, USER, USER_OFFSET, USER_GROUP, GROUP, COUNT, CHOICE, NOISE };

/* The finalizer of SplitMix64, one step. */
static uint64_t mix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* The k-th number of one purpose that belongs to `whose`. */
static uint64_t bits(const struct synthetic *s, enum purpose purpose, uint64_t whose, uint64_t k) {
  return mix64(mix64(mix64(s->seed ^ (uint64_t)purpose << 56) ^ whose) ^ k);
}

/* In (0, 1). */
static double unit(uint64_t bits) {
  return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

/* n standard normal numbers, two at a time (Box-Muller). */
static void normals(double *out, size_t n, const struct synthetic *s, enum purpose purpose, uint64_t whose) {
  const double pi = 3.14159265358979323846;
  for (size_t k = 0; k < n; k += 2) {
    const double radius = sqrt(-2 * log(unit(bits(s, purpose, whose, k)))),
                 angle = 2 * pi * unit(bits(s, purpose, whose, k + 1));
    out[k] = radius * cos(angle);
    if (k + 1 < n) out[k + 1] = radius * sin(angle);
  }
}

static double normal(const struct synthetic *s, enum purpose purpose, uint64_t whose) {
  double x;
  normals(&x, 1, s, purpose, whose);
  return x;
}

/* ---------------------------------------------------------------------------------------------- items and users */

/* One to three genres, each once; returns how many. */
static size_t genres_of(uint32_t genres[GENRES_OF_ITEM], const struct synthetic *s, uint32_t item) {
  const size_t n = 1 + bits(s, ITEM_GENRES, item, 0) % GENRES_OF_ITEM;
  for (size_t k = 0; k < n; k++) {
    genres[k] = (uint32_t)(bits(s, ITEM_GENRES, item, k + 1) % SYNTHETIC_GENRES);
    for (size_t j = 0; j < k; j++)
      if (genres[j] == genres[k]) return k;
  }
  return n;
}

uint32_t synthetic_group(const struct synthetic *s, uint64_t user) {
  return (uint32_t)(bits(s, USER_GROUP, user, 0) % SYNTHETIC_GROUPS);
}

static void item_vector(double v[SYNTHETIC_RANK], const struct synthetic *s, uint32_t item) {
  uint32_t genres[GENRES_OF_ITEM];
  double part[SYNTHETIC_RANK];
  const size_t n = genres_of(genres, s, item);
  normals(v, SYNTHETIC_RANK, s, ITEM, item);
  for (size_t d = 0; d < SYNTHETIC_RANK; d++) v[d] *= own;
  for (size_t g = 0; g < n; g++) {
    normals(part, SYNTHETIC_RANK, s, GENRE, genres[g]);
    for (size_t d = 0; d < SYNTHETIC_RANK; d++) v[d] += shared / sqrt((double)n) * part[d];
  }
}

static void user_vector(double v[SYNTHETIC_RANK], const struct synthetic *s, uint64_t user) {
  double part[SYNTHETIC_RANK];
  normals(v, SYNTHETIC_RANK, s, USER, user);
  normals(part, SYNTHETIC_RANK, s, GROUP, synthetic_group(s, user));
  for (size_t d = 0; d < SYNTHETIC_RANK; d++) v[d] = own * v[d] + shared * part[d];
}

void synthetic_fields(const struct synthetic *s, melu_schema *schema) {
  melu_error err;
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "item", .owner = MELU_ITEM, .n_values = s->n_rows ? s->n_rows : s->n_items},
      {.size = sizeof *fields, .name = "genre", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = SYNTHETIC_GENRES},
      {.size = sizeof *fields, .name = "group", .owner = MELU_USER, .n_values = SYNTHETIC_GROUPS}};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) must(melu_schema_add(schema, &fields[i], &err), &err);
}

void synthetic_items(const struct synthetic *s, melu_dataset *data) {
  melu_error err;
  uint32_t genres[GENRES_OF_ITEM];
  const uint32_t apart = s->n_rows ? s->n_rows / s->n_items : 1;
  for (uint32_t i = 0; i < s->n_items; i++) {
    const uint32_t id = i * apart;
    const size_t n = genres_of(genres, s, i);
    const struct melu_value values[] = {{.ids = &id, .n_ids = 1}, {.ids = genres, .n_ids = n}};
    must(melu_dataset_add_item(data, i, values, NULL, &err), &err);
  }
}

/* ------------------------------------------------------------------------------------------------------ ratings */

static size_t n_ratings_of(const struct synthetic *s, uint64_t user) {
  const double n = FEWEST - log(unit(bits(s, COUNT, user, 0))) * (s->mean_ratings - FEWEST);
  const size_t most = s->n_items / 2 < SYNTHETIC_MOST ? s->n_items / 2 : SYNTHETIC_MOST;
  return n < (double)most ? (size_t)n : most;
}

/* A set of items: a table of them plus 1, with free places of 0. */
enum { PLACES = 4096 };

static int insert(uint32_t places[PLACES], uint32_t item) {
  size_t at = mix64(item) % PLACES;
  while (places[at] && places[at] != item + 1) at = (at + 1) % PLACES;
  const int is_new = !places[at];
  places[at] = item + 1;
  return is_new;
}

/* The truth, as far as it is the same for all items. */
struct person {
  double vector[SYNTHETIC_RANK], offset;
};

static struct person person_of(const struct synthetic *s, uint64_t user) {
  struct person p = {.offset = 3.5 + SYNTHETIC_OFFSETS * normal(s, USER_OFFSET, user)};
  user_vector(p.vector, s, user);
  return p;
}

static double truth_of(const struct synthetic *s, const struct person *p, uint32_t item) {
  double phi[SYNTHETIC_RANK], sum = 0;
  item_vector(phi, s, item);
  for (size_t d = 0; d < SYNTHETIC_RANK; d++) sum += p->vector[d] * phi[d];
  return p->offset + SYNTHETIC_OFFSETS * normal(s, ITEM_OFFSET, item) + interaction / sqrt(SYNTHETIC_RANK) * sum;
}

size_t synthetic_ratings(uint32_t *items, float *ratings, const struct synthetic *s, uint64_t user) {
  uint32_t places[PLACES] = {0};
  const struct person person = person_of(s, user);
  const size_t n = n_ratings_of(s, user);
  for (size_t i = 0, k = 0; i < n; k++) {
    const double u = unit(bits(s, CHOICE, user, k));
    const uint32_t item = (uint32_t)(s->n_items * (u * u * u)); /* a share x of the items has x^(1/3) of the ratings */
    if (!insert(places, item)) continue;
    items[i] = item;
    ratings[i++] = (float)(truth_of(s, &person, item) + SYNTHETIC_NOISE * normal(s, NOISE, mix64(user) ^ item));
  }
  return n;
}

double synthetic_truth(const struct synthetic *s, uint64_t user, uint32_t item) {
  const struct person person = person_of(s, user);
  return truth_of(s, &person, item);
}
