/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>

#include "../common/args.h"
#include "cluster.h"

enum { MOST_RANKS = 64 };

struct member {
  const struct choices *choices;
  struct melu_collective collective;
};

static void *run(void *arg) {
  const struct member *m = arg;
  run_rank(m->choices, &m->collective);
  return NULL;
}

void run_threads(const struct choices *choices) {
  static struct member members[MOST_RANKS];
  pthread_t threads[MOST_RANKS];
  melu_error err;
  melu_group *group;
  const size_t n = (size_t)choices->n_ranks;
  const struct melu_group_options options = {.size = sizeof options, .time_limit = (double)choices->time_limit};
  must(melu_group_new(&group, n, &options, &err), &err);
  for (size_t r = 0; r < n; r++) {
    members[r] = (struct member){choices, {.size = sizeof members[r].collective}};
    must(melu_group_member(&members[r].collective, group, r, &err), &err);
  }
  for (size_t r = 0; r < n; r++)
    if (pthread_create(&threads[r], NULL, run, &members[r])) give_up("cannot start a thread");
  for (size_t r = 0; r < n; r++) pthread_join(threads[r], NULL);
  melu_group_free(group);
}
