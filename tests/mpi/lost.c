/* SPDX-License-Identifier: BSD-3-Clause */
/* A training that a rank drops out of: what it comes to on the others. Run by check_lost.py, as
 *
 *     lost RANKS LOST CALL SIGNAL LIMIT
 *
 * where rank LOST sends itself the signal in its collective call of that number. Prints "lost PID SECONDS", and for
 * each other rank "end RANK SECONDS STATUS MESSAGE", by a clock of the machine. */
#include <melu/mpi.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "../cluster.h"

static struct { int n_ranks, lost, call, signal, limit; } choices;

static struct melu_collective real;
static int n_calls;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void count_call(void) {
  if ((int)real.rank != choices.lost || ++n_calls != choices.call) return;
  printf("lost %ld %.3f\n", (long)getpid(), now());
  fflush(stdout);
  raise(choices.signal);
}

static melu_status begin(void *arg, const struct melu_message *out, struct melu_message *in, melu_error *err) {
  count_call();
  return real.all_to_all_begin(arg, out, in, err);
}

static melu_status end(void *arg, melu_error *err) {
  count_call();
  return real.all_to_all_end(arg, err);
}

static void put_between(struct cluster_rank *rank, struct melu_collective *c) {
  (void)rank;
  real = *c;
  c->all_to_all_begin = begin;
  c->all_to_all_end = end;
}

static int read_choices(int argc, char **argv) {
  int *const places[] = {&choices.n_ranks, &choices.lost, &choices.call, &choices.signal, &choices.limit};
  if (argc != 6) return 0;
  for (int i = 0; i < 5; i++) *places[i] = atoi(argv[i + 1]);
  return 1;
}

static struct gang_rank self = {.collective = {.size = sizeof self.collective}};

START_TEST(train) {
  struct cluster_job job = {.model = {PEOPLE_FACTORS},
                            .n_users = CLUSTER_USERS,
                            .n_slots = 8,
                            .shard_bytes = 1,
                            .collect = put_between,
                            .fit = {.size = sizeof job.fit, .n_epochs = 1000, .batch_tasks = 13}};
  self.arg = &job;
  cluster_run_rank(&self);
  const struct cluster_result *result = &job.results[self.rank];
  printf("end %zu %.3f %s %s\n", self.rank, now(), melu_status_name(result->status), result->message);
  fflush(stdout);
}
END_TEST

/* As a test of Check, because what makes the data asserts. */
static int run_training(void) {
  Suite *s = suite_create("lost");
  TCase *t = tcase_create("lost");
  tcase_add_test(t, train);
  suite_add_tcase(s, t);
  SRunner *runner = srunner_create(s);
  srunner_set_fork_status(runner, CK_NOFORK);
  srunner_run_all(runner, CK_MINIMAL);
  return srunner_ntests_failed(runner) != 0;
}

int main(int argc, char **argv) {
  struct melu_mpi_options options = {.size = sizeof options};
  melu_mpi *mpi;
  melu_error err;
  int level;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  if (!read_choices(argc, argv)) return 2;
  options.n_ranks = (size_t)choices.n_ranks;
  options.time_limit = choices.limit;
  if (melu_mpi_new(&mpi, MPI_COMM_WORLD, &options, &err) || melu_mpi_member(&self.collective, mpi, &err)) {
    printf("refused %s %s\n", melu_status_name(err.status), err.message);
    MPI_Finalize();
    return 1;
  }
  self.rank = self.collective.rank;
  self.n_ranks = self.collective.n_ranks;
  const int has_failed = run_training();
  melu_mpi_free(mpi);
  fflush(stdout);
  _exit(has_failed); /* MPI_Finalize would wait for who is lost */
}
