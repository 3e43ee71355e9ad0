/* SPDX-License-Identifier: BSD-3-Clause */
/* Every public function, from the context to the end, with all kinds of models. */
#ifndef MELU_TESTS_WHOLE_LIFE_H
#define MELU_TESTS_WHOLE_LIFE_H

#include "proof.h"

/* The kinds of models; those from LIFE_MELU on are of a real size. */
enum { LIFE_LAYERS, LIFE_ITEMS, LIFE_PAIRS, LIFE_FACTORS, LIFE_STEPS, LIFE_CLICKS, LIFE_WIDE, LIFE_MELU, LIFE_BEST };
enum { LIFE_SETTINGS = LIFE_BEST + 1, LIFE_NUMBERS = 4096 };

/* What came out. `served` is computed from weights that are given, `trained` follows from a training. */
struct outcome {
  double served[LIFE_NUMBERS], trained[LIFE_NUMBERS];
  size_t n_served, n_trained;
  uint64_t texts; /* a checksum of all messages and of what was written down of what is given */
};

struct life_plan {
  const char *folder; /* of a scene, which life_prepare has been in */
  const char *tag;    /* of the files that are written */
  int setting;
  struct melu_context_options context;
  void (*after)(void *arg, const char *call); /* NULL: nobody looks */
  void *after_arg;
};

/* Writes what lives read, but for the scene's tables, and a model of every setting; removes it. */
void life_prepare(const char *folder);
void life_clean(const char *folder);

void whole_life(struct outcome *out, const struct life_plan *plan);

#endif
