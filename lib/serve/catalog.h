/* SPDX-License-Identifier: BSD-3-Clause */
/* What a catalogue is made of, for the two rooms that share it: catalog.c, where items come and go, and top.c. */
#ifndef MELU__CATALOG_H
#define MELU__CATALOG_H

#include "meta/factors.h"
#include "serve/user.h"

struct melu_catalog {
  const melu_model *model;
  uint64_t version;   /* of the model, for which it was made */
  size_t n, capacity; /* rows of items, and for how many there is room: whole blocks of MELU__RANK_ROWS */
  uint32_t *items;    /* (n) their numbers */
  /* To whole blocks, beyond the last item zeros: rows x (n, melu__rank_x), and z (n, melu__rank_z) = x W1'.
   * MELU_FACTORS: rows of a task alone. */
  real *x, *z;
  uint32_t *rows; /* (n_numbers) which row a number has, or MELU__NO_ROW */
  size_t n_numbers, numbers_capacity;
};

#define MELU__NO_ROW UINT32_MAX

static inline size_t melu__rank_x(const melu_model *model) {
  return melu__is_factors(model) ? melu__task_row(model) : model->item_width;
}

static inline size_t melu__rank_z(const melu_model *model) {
  return melu__is_factors(model) ? 0 : melu__model_weight(model, 0)->rows;
}

/* The row of a number; MELU__NO_ROW if there is none. */
static inline uint32_t melu__catalog_row(const melu_catalog *c, uint32_t number) {
  return number < c->n_numbers ? c->rows[number] : MELU__NO_ROW;
}

/* Bytes of what ranking keeps of some users at a time, for a workspace to have them. */
size_t melu__ranking_size(void);

#endif
