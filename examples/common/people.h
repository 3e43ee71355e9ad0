/* SPDX-License-Identifier: BSD-3-Clause */
/* A model that was trained on people, and strangers to try it on: the questionnaire of data/, or MovieLens-1M. */
#ifndef EXAMPLE_PEOPLE_H
#define EXAMPLE_PEOPLE_H

#include <melu.h>

#ifndef EXAMPLE_DATA_DIR
#define EXAMPLE_DATA_DIR "data"
#endif

struct people_choices {
  uint64_t seed, n_epochs, n_threads;
  const char *dir, *movielens, *preset; /* the questionnaire's folder, or that of MovieLens */
};

#define PEOPLE_DEFAULTS ((struct people_choices){.seed = 1, .n_threads = 2, .dir = EXAMPLE_DATA_DIR, .preset = "best"})

/* Its options for the command line. */
#define PEOPLE_OPTIONS(c)                                                                                    \
  {"--seed", "N", "seed of parameters and draws", &(c)->seed, 0, UINT64_MAX, NULL},                          \
      {"--epochs", "N", "passes over the people; 0: the preset's", &(c)->n_epochs, 0, 1000, NULL},           \
      {"--threads", "N", "threads; the result is the same for any number", &(c)->n_threads, 1, 256, NULL},   \
      {"--preset", "NAME", "of the model, \"best\" or \"melu\"", NULL, 0, 0, &(c)->preset}, {                \
    "--movielens", "DIR", "MovieLens-1M in the form of the MeLU reference code", NULL, 0, 0, &(c)->movielens \
  }

struct people {
  melu_context *ctx;
  melu_dataset *known, *strangers;
  melu_model *model;
  double rating_min, rating_max;
};

/* Reads the data and trains the model; ends the program with a message if that fails. */
void people_open(struct people *people, const struct people_choices *choices);
void people_close(struct people *people);

/* One stranger's ratings in the order of split 0. */
enum { STRANGER_MAX_RATINGS = 4096, STRANGER_MAX_FIELDS = 8 };
struct stranger {
  struct melu_value profile[STRANGER_MAX_FIELDS];
  uint32_t items[STRANGER_MAX_RATINGS];
  float ratings[STRANGER_MAX_RATINGS];
  size_t n;
};

/* Returns 0 if she does not have from `least` to `most` ratings. */
int stranger_meet(struct stranger *stranger, const struct people *people, uint32_t user, size_t least, size_t most);

#endif
