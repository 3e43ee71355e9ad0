/* SPDX-License-Identifier: BSD-3-Clause */
/* Processes as ranks: each runs this program, and all make the same checks together. Run by an MPI's launcher. */
#include <melu/mpi.h>
#include <string.h>

#include "../cluster.h"
#include "../collective.h"

static melu_error err;
static int rank, n_ranks;

static void leave(const struct gang_rank *self) {
  melu_mpi_leave(self->transport);
}

static struct gang_rank gang_of(melu_mpi *mpi, void (*run)(const struct gang_rank *self), void *arg) {
  struct gang_rank self = {(size_t)rank, (size_t)n_ranks, {.size = sizeof self.collective}, mpi, leave, arg, run};
  ck_assert_int_eq(melu_mpi_member(&self.collective, mpi, &err), MELU_OK);
  ck_assert_uint_eq(self.collective.rank, self.rank);
  ck_assert_uint_eq(self.collective.n_ranks, self.n_ranks);
  return self;
}

/* As gang_run, with the ranks of the communicator. */
static void run_ranks(double time_limit, void (*run)(const struct gang_rank *self), void *arg) {
  const struct melu_mpi_options options = {.size = sizeof options, .time_limit = time_limit};
  melu_mpi *mpi;
  ck_assert_msg(melu_mpi_new(&mpi, MPI_COMM_WORLD, &options, &err) == MELU_OK, "%s", err.message);
  const struct gang_rank self = gang_of(mpi, run, arg);
  run(&self);
  MPI_Barrier(MPI_COMM_WORLD); /* who frees the handle is noticed by those who still make calls */
  melu_mpi_free(mpi);
}

/* ------------------------------------------------------------------------------------------ the collective */

START_TEST(calls_of_processes) {
  run_ranks(60, collective_calls, NULL);
}
END_TEST

START_TEST(failures_of_processes) {
  const struct collective_failure *failure = &collective_failures[_i];
  if (n_ranks < 2) return; /* nobody can fail */
  MPI_Barrier(MPI_COMM_WORLD);
  run_ranks(failure->time_limit, failure->run, NULL);
}
END_TEST

START_TEST(who_frees_is_not_waited_for) {
  melu_mpi *mpi;
  if (n_ranks < 2) return;
  ck_assert_int_eq(melu_mpi_new(&mpi, MPI_COMM_WORLD, NULL, &err), MELU_OK);
  const struct gang_rank self = gang_of(mpi, NULL, NULL);
  if (rank != 1) collective_all_lost(&self, "melu_mpi_free");
  melu_mpi_free(mpi);
}
END_TEST

/* What is on its way on the host's communicator stays the host's, and so does its error handler. */
START_TEST(communicator_stays_the_hosts) {
  MPI_Comm comm;
  MPI_Errhandler before, after;
  MPI_Request request;
  melu_mpi *mpi;
  int is_there, heard = -1;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  MPI_Comm_get_errhandler(comm, &before);
  MPI_Irecv(&heard, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &request);
  ck_assert_int_eq(melu_mpi_new(&mpi, comm, NULL, &err), MELU_OK);
  MPI_Comm_get_errhandler(comm, &after);
  ck_assert(before == after);
  MPI_Errhandler_free(&before);
  MPI_Errhandler_free(&after);
  const struct gang_rank self = gang_of(mpi, NULL, NULL);
  collective_fold(&self);
  MPI_Test(&request, &is_there, MPI_STATUS_IGNORE);
  ck_assert(!is_there && heard == -1);
  MPI_Barrier(comm);
  MPI_Send(&rank, 1, MPI_INT, (rank + 1) % n_ranks, 7, comm);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  ck_assert_int_eq(heard, (rank + n_ranks - 1) % n_ranks);
  MPI_Comm_free(&comm);
  collective_calls(&self);
  melu_mpi_free(mpi);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ refusals */

static void expect_refused(MPI_Comm comm, const struct melu_mpi_options *options, melu_status status, const char *why) {
  melu_mpi *mpi = (melu_mpi *)&err;
  const melu_status got = melu_mpi_new(&mpi, comm, options, &err);
  ck_assert_msg(got == status && err.status == status, "%s: %s", melu_status_name(got), err.message);
  ck_assert_msg(strstr(err.message, why) != NULL, "\"%s\", not \"%s\"", err.message, why);
  ck_assert_ptr_null(mpi);
}

START_TEST(nonsense_is_refused) {
  const struct melu_allocator half = {.arg = NULL};
  struct melu_mpi_options o = {.size = 1};
  struct melu_collective c = {.size = 0};
  melu_mpi *mpi;
  ck_assert_int_eq(melu_mpi_new(NULL, MPI_COMM_WORLD, NULL, &err), MELU_EINVAL);
  expect_refused(MPI_COMM_NULL, NULL, MELU_EINVAL, "MPI_COMM_NULL");
  expect_refused(MPI_COMM_WORLD, &o, MELU_EINVAL, "melu_mpi_options: size is 1");
  o = (struct melu_mpi_options){.size = sizeof o, .time_limit = -1};
  expect_refused(MPI_COMM_WORLD, &o, MELU_EINVAL, "time limit");
  o = (struct melu_mpi_options){.size = sizeof o, .allocator = &half};
  expect_refused(MPI_COMM_WORLD, &o, MELU_EINVAL, "allocator");
  o = (struct melu_mpi_options){.size = sizeof o, .n_ranks = 4};
  expect_refused(MPI_COMM_SELF, &o, MELU_ESTATE, "must be 4 ranks, and there are 1: was the program started by the");
  o.n_ranks = 1;
  ck_assert_int_eq(melu_mpi_new(&mpi, MPI_COMM_SELF, &o, &err), MELU_OK);
  ck_assert_int_eq(melu_mpi_member(NULL, mpi, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_mpi_member(&c, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_mpi_member(&c, mpi, &err), MELU_EINVAL);
  melu_mpi_free(mpi);
  melu_mpi_free(NULL);
  melu_mpi_leave(NULL);
}
END_TEST

START_TEST(inter_communicators_are_refused) {
  MPI_Comm half, inter;
  if (n_ranks < 2) return; /* there are none */
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
  MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - rank % 2, 3, &inter);
  expect_refused(inter, NULL, MELU_EINVAL, "inter-communicator");
  MPI_Comm_free(&inter);
  MPI_Comm_free(&half);
}
END_TEST

START_TEST(no_memory) {
  melu_status status = MELU_ENOMEM;
  for (size_t n = 1; status; n++) {
    struct test_heap heap = {.fail_at = n};
    const struct melu_allocator a = test_allocator(&heap);
    const struct melu_mpi_options options = {.size = sizeof options, .allocator = &a};
    melu_mpi *mpi;
    status = melu_mpi_new(&mpi, MPI_COMM_SELF, &options, &err);
    ck_assert_int_eq(status, heap.made >= n ? MELU_ENOMEM : MELU_OK);
    ck_assert(n > 4 || status);
    melu_mpi_free(mpi);
    ck_assert_uint_eq(heap.live, 0);
  }
}
END_TEST

static void *new_elsewhere(void *arg) {
  (void)arg;
  expect_refused(MPI_COMM_SELF, NULL, MELU_ESTATE, "by the thread that has initialised it");
  return NULL;
}

START_TEST(other_threads_are_refused) {
  pthread_t thread;
  int level;
  MPI_Query_thread(&level);
  ck_assert_int_eq(level, MPI_THREAD_FUNNELED);
  ck_assert_int_eq(pthread_create(&thread, NULL, new_elsewhere, NULL), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

static void new_of_all(melu_mpi **mpi, struct melu_collective *c) {
  *c = (struct melu_collective){.size = sizeof *c};
  ck_assert_int_eq(melu_mpi_new(mpi, MPI_COMM_WORLD, NULL, &err), MELU_OK);
  ck_assert_int_eq(melu_mpi_member(c, *mpi, &err), MELU_OK);
}

START_TEST(beginnings_have_ends) {
  struct melu_message none[COLLECTIVE_RANKS] = {{NULL, 0}};
  struct melu_collective c;
  melu_mpi *mpi;
  new_of_all(&mpi, &c);
  collective_lost(c.all_to_all_end(c.arg, &err), &err, "not begun");
  melu_mpi_free(mpi);
  new_of_all(&mpi, &c);
  ck_assert_int_eq(c.all_to_all_begin(c.arg, none, none, &err), MELU_OK);
  collective_lost(c.barrier(c.arg, &err), &err, "barrier before the end of another");
  melu_mpi_free(mpi);
}
END_TEST

START_TEST(too_large_to_fold) {
  char value[MELU_MAX_REDUCE + 1] = "";
  struct melu_collective c;
  melu_mpi *mpi;
  new_of_all(&mpi, &c);
  ck_assert_int_eq(c.reduce(c.arg, value, sizeof value, collective_fold_texts, &err), MELU_EINVAL);
  melu_mpi_free(mpi);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ trainings */

enum { N_JOBS = 3 };

static struct cluster_job job_of(size_t i) {
  static const struct melu_model_options models[N_JOBS] = {
      {PEOPLE_LAYERS}, {PEOPLE_FACTORS}, {PEOPLE_FACTORS, .loss = MELU_PAIRWISE}};
  return (struct cluster_job){.model = models[i],
                              .n_users = CLUSTER_USERS,
                              .n_slots = 8,
                              .n_threads = 2,
                              .fit = {.size = sizeof(struct melu_fit_options),
                                      .n_epochs = 3,
                                      .batch_tasks = 13,
                                      .n_query = 3,
                                      .min_ratings = 5,
                                      .max_ratings = MELU_NONE,
                                      .validation = 0.2,
                                      .seed = 11}};
}

/* Those of one rank, and of the threads of one process, and of processes. */
START_TEST(same_bits_by_processes) {
  static const size_t shard_bytes[] = {MELU_NONE, 1, 1500};
  struct cluster_job job = job_of((size_t)_i);
  const struct cluster_result alone = cluster_result_of(&job, 0);
  for (size_t t = 0; t < 3; t++) {
    job.shard_bytes = shard_bytes[t];
    const struct cluster_result threads = cluster_result_of(&job, (size_t)n_ranks);
    memset(job.results, 0, sizeof job.results);
    run_ranks(60, cluster_run_rank, &job);
    const struct cluster_result *own = &job.results[rank];
    ck_assert_msg(own->status == MELU_OK, "%s", own->message);
    ck_assert_mem_eq(own->digest, alone.digest, sizeof own->digest);
    ck_assert_mem_eq(own->digest, threads.digest, sizeof own->digest);
    ck_assert(own->loss == alone.loss && own->validation == alone.validation);
  }
}
END_TEST

START_TEST(one_process_is_odd) {
  struct cluster_job job = job_of(0);
  char message[64];
  if (n_ranks < 2) return;
  if (rank == n_ranks - 1) job.fit.seed++;
  run_ranks(60, cluster_run_rank, &job);
  snprintf(message, sizeof message, "seed is 11 on rank 0 and 12 on rank %d", n_ranks - 1);
  ck_assert_int_eq(job.results[rank].status, MELU_EINVAL);
  ck_assert_str_eq(job.results[rank].message, message);
}
END_TEST

/* --------------------------------------------------------------------------------------- before and after MPI */

static melu_mpi *left_over;

START_TEST(before_mpi) {
  expect_refused(MPI_COMM_WORLD, NULL, MELU_ESTATE, "not initialised");
}
END_TEST

START_TEST(keep_a_handle) {
  ck_assert_int_eq(melu_mpi_new(&left_over, MPI_COMM_WORLD, NULL, &err), MELU_OK);
}
END_TEST

START_TEST(after_mpi) {
  const struct gang_rank self = gang_of(left_over, NULL, NULL);
  expect_refused(MPI_COMM_WORLD, NULL, MELU_ESTATE, "finalised");
  ck_assert_int_eq(self.collective.barrier(self.collective.arg, &err), MELU_ESTATE);
  ck_assert_str_eq(err.message, "MPI is finalised");
  melu_mpi_leave(left_over);
  melu_mpi_free(left_over);
}
END_TEST

static void fill_before(TCase *t) {
  tcase_add_test(t, before_mpi);
}

static void fill_mpi(TCase *t) {
  tcase_add_test(t, calls_of_processes);
  tcase_add_loop_test(t, failures_of_processes, 0, COLLECTIVE_FAILURES);
  tcase_add_test(t, who_frees_is_not_waited_for);
  tcase_add_test(t, communicator_stays_the_hosts);
  tcase_add_test(t, nonsense_is_refused);
  tcase_add_test(t, inter_communicators_are_refused);
  tcase_add_test(t, no_memory);
  tcase_add_test(t, other_threads_are_refused);
  tcase_add_test(t, beginnings_have_ends);
  tcase_add_test(t, too_large_to_fold);
  tcase_add_loop_test(t, same_bits_by_processes, 0, N_JOBS);
  tcase_add_test(t, one_process_is_odd);
  tcase_add_test(t, keep_a_handle);
}

static void fill_after(TCase *t) {
  tcase_add_test(t, after_mpi);
}

/* Without processes of Check's own. Who is not rank 0 is silent while all is well. Returns whether a test has failed.
 */
static int run_here(void (*fill)(TCase *t), const char *name) {
  Suite *s = suite_create(name);
  TCase *t = tcase_create(name);
  fill(t);
  suite_add_tcase(s, t);
  SRunner *runner = srunner_create(s);
  srunner_set_fork_status(runner, CK_NOFORK);
  srunner_run_all(runner, rank == 0 ? CK_NORMAL : CK_SILENT);
  const int n_failed = srunner_ntests_failed(runner);
  if (rank && n_failed) srunner_print(runner, CK_NORMAL);
  srunner_free(runner);
  return n_failed != 0;
}

/* test_mpi N: how many ranks there must be. */
int main(int argc, char **argv) {
  int level, has_failed;
  rank = 1; /* before there are any, nobody speaks */
  has_failed = run_here(fill_before, "before MPI");
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
  if (argc != 2 || n_ranks != atoi(argv[1])) {
    fprintf(stderr, "there are %d ranks, not %s\n", n_ranks, argc == 2 ? argv[1] : "as many as the argument says");
    has_failed = 1;
  } else {
    has_failed |= run_here(fill_mpi, "MPI");
  }
  MPI_Finalize();
  return has_failed | (left_over ? run_here(fill_after, "after MPI") : 0);
}
