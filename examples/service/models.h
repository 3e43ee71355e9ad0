/* SPDX-License-Identifier: BSD-3-Clause */
/* The model that answers, and how another one takes its place while it does.
 *
 * A model with what was prepared for it is a generation. Who computes takes a turn: a reference to the generation that
 * is the current one at that moment, and a seat. Seats are numbers below n_seats, each held by one thread at a time:
 * whatever one thread at a time may use is kept once a seat. A reload makes a new generation beside the old one and
 * swaps them; the old one goes with the last turn that refers to it. */
#ifndef SERVICE_MODELS_H
#define SERVICE_MODELS_H

#include "problem.h"
#include "world.h"

enum { DIGEST_TEXT = 2 * MELU_DIGEST_BYTES + 1 };

struct generation {
  melu_model *model;
  melu_catalog *catalog;
  char digest[DIGEST_TEXT];
  int has_variances; /* see melu_predict_variance */
  size_t max_support;
  melu_workspace **workspaces; /* (n_seats) */
  melu_user **users;           /* (n_seats), scratch: each turn adapts it anew */
  size_t n_seats;
  size_t n_turns; /* that refer to it, and one while it is the current one; guarded by the lock of its models */
};

struct models;

/* Returns a new object around the model in that file, which is trained and written first if there is no such file;
 * NULL if that fails. Borrows the world and the context; `path` is copied. */
struct models *models_open(const struct world *world, const melu_context *ctx, const char *path, size_t n_seats,
                           struct problem *problem);
void models_close(struct models *models);

/* Reads the file again, for all turns that begin from now on. What cannot be used, say a model for other items, is
 * refused, and the old one stays. `digest`: of the new one. */
int models_reload(struct models *models, char digest[DIGEST_TEXT], struct problem *problem);

struct turn {
  struct generation *generation;
  size_t seat;
};

/* Waits for a free seat, but not for ever. Every turn is ended. */
int models_begin(struct turn *turn, struct models *models, struct problem *problem);
void models_end(struct models *models, const struct turn *turn);

#endif
