/* SPDX-License-Identifier: BSD-3-Clause */
/* A gang: the ranks of a group, each a thread that runs the same function. */
#ifndef MELU_TESTS_GANG_H
#define MELU_TESTS_GANG_H

#include <check.h>
#include <melu.h>
#include <pthread.h>

enum { GANG_MOST = 16 };

struct gang_rank {
  size_t rank, n_ranks;
  struct melu_collective collective;
  void *transport; /* of the collective: the group, or what else it is made by */
  void (*leave)(const struct gang_rank *self);
  void *arg;
  void (*run)(const struct gang_rank *self);
};

static void gang_leave(const struct gang_rank *self) {
  melu_group_leave(self->transport, self->rank);
}

static void *gang_thread(void *arg) {
  struct gang_rank *self = arg;
  self->run(self);
  return NULL;
}

/* Runs run(rank) on n_ranks threads at the same time, with a group whose members wait for each other so many seconds
 * (0: the group's default). `arg` is all ranks'. */
static inline void gang_run(size_t n_ranks, double time_limit, void (*run)(const struct gang_rank *self), void *arg) {
  const struct melu_group_options options = {.size = sizeof options, .time_limit = time_limit};
  struct gang_rank ranks[GANG_MOST];
  pthread_t threads[GANG_MOST];
  melu_group *group;
  melu_error err;
  ck_assert_msg(melu_group_new(&group, n_ranks, &options, &err) == MELU_OK, "%s", err.message);
  for (size_t r = 0; r < n_ranks; r++) {
    ranks[r] = (struct gang_rank){r, n_ranks, {.size = sizeof ranks[r].collective}, group, gang_leave, arg, run};
    ck_assert_int_eq(melu_group_member(&ranks[r].collective, group, r, &err), MELU_OK);
  }
  for (size_t r = 0; r < n_ranks; r++) ck_assert_int_eq(pthread_create(&threads[r], NULL, gang_thread, &ranks[r]), 0);
  for (size_t r = 0; r < n_ranks; r++) ck_assert_int_eq(pthread_join(threads[r], NULL), 0);
  melu_group_free(group);
}

#endif
