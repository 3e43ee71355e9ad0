/* SPDX-License-Identifier: BSD-3-Clause */
/* MovieLens-1M as the MeLU reference code splits it: what is trained on, and who is asked what. */
#ifndef EXAMPLE_STATES_H
#define EXAMPLE_STATES_H

#include <melu.h>

enum { N_QUERY = 10, MIN_RATINGS = 13, MAX_RATINGS = 100, MAX_HISTORY = 200, VALIDATION_SPLIT = 100 };

/* W: known users and films. UC: new users. IC: new films. UIC: both. +H: with what else the user rated. V1 and V2 are
 * for choosing settings without a look at those: a fifth of the warm users act as new ones, and films from 1996 on. */
enum state { W, UC, IC, UIC, ICH, UICH, V1, V2IC, V2UIC, V2ICH, V2UICH, N_STATES };
extern const char *const state_names[N_STATES];

/* States that one training serves. */
enum training { TRAIN_WARM, TRAIN_COLD, TRAIN_V1, TRAIN_V2, N_TRAININGS };
extern const enum training state_training[N_STATES];

/* What a run reads, and how. */
struct source {
  const melu_context *ctx;
  const melu_schema *schema;
  const char *dir;
  int capped;          /* variant A: only users with 13 to 100 ratings are trained on, as in the paper; else B, all */
  int clicks;          /* ratings are 1 from 4 stars on, else 0 */
  const char *without; /* fields that are left out, comma-separated; NULL: none */
};

/* Returns a new data set to train on; `split` matters for TRAIN_WARM, whose queries of that split are not in it. */
melu_dataset *training_data(const struct source *source, enum training training, uint64_t split);

/* Return a new data set with the ratings of those who are asked, and with what else is known of them (NULL: nothing).
 */
melu_dataset *asked_data(const struct source *source, enum state state);
melu_dataset *history_data(const struct source *source, enum state state);

#endif
