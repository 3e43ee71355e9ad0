/* SPDX-License-Identifier: BSD-3-Clause */
/* What one rank of the example does, whatever it is: a thread, or a process of an MPI program. */
#ifndef CLUSTER_H
#define CLUSTER_H

#include <melu.h>

struct choices {
  uint64_t n_ranks, n_slots, n_threads, time_limit;
  uint64_t n_users, n_items, n_rows, n_ratings, world; /* what the ratings are made from */
  uint64_t n_steps, pause, batch, rank, seed, every, skip;
  uint64_t sharded, replicated, resume, digest, measure;
  const char *preset, *checkpoint, *save;
  const char *folder; /* of shards, instead of ratings that are made; NULL: none */
};

/* Trains, and prints what was asked for if this is rank 0. A failure is told by each rank, and ends the process with 1.
 * `collective`: NULL if there is one rank. */
void run_rank(const struct choices *choices, const struct melu_collective *collective);

/* Each of n_ranks threads of this process. */
void run_threads(const struct choices *choices);

/* The process is a rank of an MPI program, which may have been started by itself. */
void run_mpi(const struct choices *choices, int *argc, char ***argv);

/* Ends the process, as one of several ranks, with a message and 1, if a call failed: without what would only clear
 * away. */
void rank_must(uint32_t rank, melu_status status, const melu_error *err);

#endif
