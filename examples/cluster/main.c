/* SPDX-License-Identifier: BSD-3-Clause */
/* One training by several ranks, whose weights do not depend on their number:
 *
 *     mpirun -n 4 cluster --steps 200 --digest
 *     cluster --ranks 4 --steps 200 --digest
 */
#include "../common/args.h"
#include "cluster.h"

#ifdef CLUSTER_HAS_MPI
#define ABOUT "Started by mpirun,\nthe processes are the ranks; with --ranks, threads of this one are."
#else
#define ABOUT "It was\nbuilt without MPI: ranks are threads of this process."
void run_mpi(const struct choices *choices, int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  run_rank(choices, NULL);
}
#endif

static struct choices choices = {.n_slots = 16,
                                 .n_threads = 1,
                                 .time_limit = 60,
                                 .n_users = 6040,
                                 .n_items = 3706,
                                 .n_ratings = 165,
                                 .world = 1,
                                 .n_steps = 200,
                                 .batch = 32,
                                 .rank = 16,
                                 .seed = 1,
                                 .skip = 1,
                                 .preset = "best"};

int main(int argc, char **argv) {
  const struct option options[] = {
      {"--ranks", "N", "so many threads of this process as ranks; 0: the ranks of MPI, or one", &choices.n_ranks, 0, 64,
       NULL},
      {"--threads", "N", "threads with which a rank computes", &choices.n_threads, 1, 1024, NULL},
      {"--slots", "N", "slots, at least as many as ranks: the weights depend on it", &choices.n_slots, 1, 65535, NULL},
      {"--time-limit", "N", "seconds that a rank waits for another one", &choices.time_limit, 1, 86400, NULL},
      {"--users", "N", "users, whose ratings are made from a truth that is known", &choices.n_users, 1, 1000000000,
       NULL},
      {"--items", "N", "items", &choices.n_items, 100, 100000000, NULL},
      {"--rows", "N", "rows of the table of items, over which they are spread; 0: as many", &choices.n_rows, 0,
       1000000000, NULL},
      {"--ratings", "N", "ratings of a user, in the mean", &choices.n_ratings, 11, 500, NULL},
      {"--world", "N", "seed of the ratings", &choices.world, 0, UINT64_MAX, NULL},
      {"--preset", "NAME", "best or melu", NULL, 0, 0, &choices.preset},
      {"--rank", "N", "best: numbers in an item's vector", &choices.rank, 1, 255, NULL},
      {"--steps", "N", "updates", &choices.n_steps, 1, 1000000000, NULL},
      {"--batch", "N", "tasks an update", &choices.batch, 1, 1000000, NULL},
      {"--seed", "N", "seed of the training", &choices.seed, 0, UINT64_MAX, NULL},
      {"--sharded", NULL, "every table has its rows with their owners; else those of more than 64 MiB have",
       &choices.sharded, 0, 1, NULL},
      {"--replicated", NULL, "no table has", &choices.replicated, 0, 1, NULL},
      {"--checkpoint", "FILE", "write the training there, once an epoch", NULL, 0, 0, &choices.checkpoint},
      {"--every", "N", "the same after each N updates; 0: once an epoch", &choices.every, 0, 1000000000, NULL},
      {"--pause", "N", "end after so many of the steps; --resume goes on", &choices.pause, 0, 1000000000, NULL},
      {"--resume", NULL, "go on from the checkpoint, if there is one", &choices.resume, 0, 1, NULL},
      {"--save", "FILE", "write the model there", NULL, 0, 0, &choices.save},
      {"--digest", NULL, "print the digest of the weights, the same for any number of ranks", &choices.digest, 0, 1,
       NULL},
      {"--measure", NULL, "print time, bytes and memory, as JSON", &choices.measure, 0, 1, NULL},
      {"--skip", "N", "what --measure says is not of the first N steps", &choices.skip, 1, 1000000000, NULL}};
  const struct usage usage = {
      "cluster", "[DIR]",
      "Trains by several ranks, each of which has its own users; DIR: a folder that melu shard\n"
      "made, instead of ratings that the program makes itself. " ABOUT,
      options, sizeof options / sizeof options[0]};
  read_args(&usage, &choices.folder, argc, argv);
  if (choices.resume && !choices.checkpoint) bad_usage(&usage, "--resume needs --checkpoint");
  if (choices.n_rows && choices.n_rows < choices.n_items) bad_usage(&usage, "--rows are fewer than --items");
  if (choices.n_ranks)
    run_threads(&choices);
  else
    run_mpi(&choices, &argc, &argv);
  return 0;
}
