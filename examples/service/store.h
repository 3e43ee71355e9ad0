/* SPDX-License-Identifier: BSD-3-Clause */
/* Users, items and ratings in an SQLite database, as many threads use it.
 *
 * A change is acknowledged when it is on disk: the journal is a write-ahead log with synchronous=FULL, so that what was
 * acknowledged survives a killed process and a cut of power. One thread writes. It takes all changes that wait into one
 * transaction, so that many requests share one wait for the disk. Readers have connections of their own, which a
 * writer does not stop.
 *
 * A database that is locked, damaged or gone fails requests with 503, and is opened again for the next ones: the
 * service goes on by itself as soon as the database can be used again. */
#ifndef SERVICE_STORE_H
#define SERVICE_STORE_H

#include "problem.h"
#include "world.h"

struct store;

struct rating {
  uint64_t item;
  double rating;
};

/* Returns a new store in that file, NULL if there is no memory or thread. Whether it can be used is another question:
 * store_check. Borrows the world and `path`. `n_readers`: how many threads read at once, each as another `reader` below
 * that. */
struct store *store_open(const char *path, const struct world *world, size_t n_readers, struct problem *problem);

/* What was asked for before is written before. */
void store_close(struct store *store);

/* Whether the store takes changes: begins and ends a transaction without one. */
int store_check(struct store *store, struct problem *problem);

/* Change what is known of a user, all of it or nothing, and return when it is on disk. *n_left: how many ratings of
 * hers there are then. store_rate adds ratings or corrects those of the same items, which keep their places;
 * store_take_back answers 404 if there is no rating of that item; store_forget is content if there is nothing to
 * forget. */
int store_rate(struct store *store, uint64_t user, const struct rating *ratings, size_t n, size_t *n_left,
               struct problem *problem);
int store_take_back(struct store *store, uint64_t user, uint64_t item, size_t *n_left, struct problem *problem);
int store_forget(struct store *store, uint64_t user, size_t *n_left, struct problem *problem);

/* A user's ratings in the order in which they were first given: *ratings is a new array for the caller to free, NULL if
 * there are none. */
int store_ratings(struct store *store, size_t reader, uint64_t user, struct rating **ratings, size_t *n,
                  struct problem *problem);

/* How many ratings of all users there are, when it was last looked at and with what was changed since. */
uint64_t store_n_ratings(struct store *store);

#endif
