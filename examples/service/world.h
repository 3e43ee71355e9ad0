/* SPDX-License-Identifier: BSD-3-Clause */
/* What is recommended: the items, what they are called, and the people that a first model is trained on. */
#ifndef SERVICE_WORLD_H
#define SERVICE_WORLD_H

#include <melu.h>

/* Ids go through JSON, whose numbers are exact up to here in every language. */
#define MAX_ID ((UINT64_C(1) << 53) - 1)

struct world {
  const char *kind; /* "bfi" or "movielens" */
  double rating_min, rating_max, rating_step;
  const char *const *labels; /* of the ratings from min to max, or NULL */
  melu_dataset *data;        /* items, and the ratings of the people to learn from */
  size_t n_items;            /* items by position in `data`: */
  uint64_t *ids;             /*   by what number the world knows it, ascending, from 1 to MAX_ID */
  char **titles;             /*   UTF-8 */
  float *chances;            /*   the share of people who rated it: that a stranger has an answer */
};

/* Read a folder; end the program with a message if it is not what it should be. `dir` may go. */
void world_read_bfi(struct world *world, const melu_context *ctx, const char *dir);
void world_read_movielens(struct world *world, const melu_context *ctx, const char *dir);
void world_free(struct world *world);

/* The position of an item by its number; n_items if there is none. */
uint32_t world_find(const struct world *world, uint64_t id);

/* Returns a new model, trained with the preset "best" on the world's people; NULL with the details on an error. */
melu_model *world_train(const struct world *world, const melu_context *ctx, melu_error *err);

#endif
