/* SPDX-License-Identifier: BSD-3-Clause */
/* Ratings of any number, whose truth is known. Every number is a function of the seed and of what it belongs to, so
 * that anybody can make any part, of a user or an item, without the rest.
 *
 * The true rating of item i by user u is
 *
 *     3.5 + b_u + o_i + w_u . phi_i,
 *
 * with vectors of SYNTHETIC_RANK numbers: those of an item are in part what its genres are, those of a user in part
 * what her group is. What she says is the truth and noise. Popular items are rated by many, and some users rate much
 * more than others. */
#ifndef EXAMPLE_SYNTHETIC_H
#define EXAMPLE_SYNTHETIC_H

#include <melu.h>

enum { SYNTHETIC_RANK = 8, SYNTHETIC_GENRES = 24, SYNTHETIC_GROUPS = 8, SYNTHETIC_MOST = 1000 };

/* Standard deviations of the parts of a rating; that of w_u . phi_i is 0.6. */
#define SYNTHETIC_OFFSETS 0.4
#define SYNTHETIC_NOISE 0.5

struct synthetic {
  uint64_t seed;
  uint32_t n_items;      /* their ids are 0, 1, ..., from the most popular on */
  uint32_t mean_ratings; /* of a user, from 11 to 500; the least are 10, the most SYNTHETIC_MOST */
  uint32_t n_rows;       /* of the table of items' ids, over which theirs are spread; 0: as many as items */
};

/* Users have any id; one of an id that is not trained on is a stranger. Fields: an item's "item" (MELU_ONE) and "genre"
 * (MELU_MANY), a user's "group" (MELU_ONE). */
void synthetic_fields(const struct synthetic *world, melu_schema *schema);
void synthetic_items(const struct synthetic *world, melu_dataset *data);
uint32_t synthetic_group(const struct synthetic *world, uint64_t user);

/* Her ratings, each of another item, in the order in which she gave them: returns how many, at most SYNTHETIC_MOST and
 * half of the items. */
size_t synthetic_ratings(uint32_t *items, float *ratings, const struct synthetic *world, uint64_t user);

/* What she would say without noise. */
double synthetic_truth(const struct synthetic *world, uint64_t user, uint32_t item);

#endif
