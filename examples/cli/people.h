/* SPDX-License-Identifier: BSD-3-Clause */
/* The people whom adapt, recommend and ask are about: those in a file of ratings or of users, one who was written down,
 * or a stranger. */
#ifndef CLI_PEOPLE_H
#define CLI_PEOPLE_H

#include "data.h"
#include "output.h"

struct people_options {
  struct files files;
  const char *model, *saved; /* `saved`: a user's file; NULL: none */
};

void add_people_options(struct option_list *list, struct people_options *options);

/* Ends the program if the model or the items are missing. */
void need_people_options(const struct usage *usage, const struct people_options *options);

struct people {
  melu_context *ctx;
  melu_model *model;
  struct data data;
  melu_workspace *workspace;
  melu_user *user; /* whom people_adapt chose */
  size_t n;
  int clicks, has_variances;
  unsigned char *saved; /* bytes of the one who was written down */
  size_t n_saved;
};

void people_open(struct people *people, const struct people_options *options, const struct usage *usage);
void people_free(struct people *people);

/* Makes people->user the one with that index: adapts the model to her ratings. Returns her name, NULL if she has none.
 */
const char *people_adapt(struct people *people, uint32_t index);

/* What is expected of an item: a rating as the model gives it, or the chance of a click, and the 80 % interval around
 * it, NAN if the model has no variances. */
struct prediction {
  double score, low, high;
};

/* Makes predictions of scores that the library gave for n items. */
void people_predictions(struct prediction *predictions, const struct people *people, const float *scores,
                        const uint32_t *items, size_t n);

/* The columns that these commands share, in this order, of which an output has those that are to be had. */
enum { MAX_COLUMNS = 8 };
struct people_columns {
  struct column at[MAX_COLUMNS];
  size_t n;
};

/* Begins with the user, if they have names, and the item. */
void begin_columns(struct people_columns *columns, const struct people *people);
void add_column(struct people_columns *columns, const char *name, int width, int decimals);
void add_prediction_columns(struct people_columns *columns, const struct people *people);
void output_prediction(struct output *output, const struct people *people, const struct prediction *prediction);
void output_user_and_item(struct output *output, const struct people *people, const char *user, uint32_t item);

#endif
