/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings by several ranks in which one of them is refused memory, at every request in turn, or lost, in every
 * collective call in turn: all end with the same status, and go on from what was written to the bits of a training in
 * which nothing failed. */
#include <unistd.h>

#include "cluster.h"
#include "run_suite.h"

enum { N_RANKS = 2, N_SLOTS = 4, N_USERS = 12, N_WORLDS = 3 };

static char folder[64], path[96];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/melu-faults-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/training", folder);
}

/* Parts are named after the tasks so far and their first slot. */
static void remove_files(void) {
  char part[128];
  unlink(path);
  for (unsigned n = 0; n <= 2 * N_USERS; n++)
    for (unsigned slot = 0; slot < N_SLOTS; slot++) {
      snprintf(part, sizeof part, "%s.%u.%u", path, n, slot);
      unlink(part);
    }
}

static void remove_folder(void) {
  remove_files();
  ck_assert_msg(rmdir(folder) == 0, "something was left in %s", folder);
}

/* Two epochs, with all that ranks tell each other: clipped gradients, a list of those left out, checkpoints. */
static struct cluster_job job_of(int world) {
  static const size_t few[1] = {3};
  static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 0.01, .clip_norm = 0.2};
  static const struct melu_model_options layers = {PEOPLE_OPTIONS, .hidden = few, .n_hidden = 1, .inner_steps = 1},
                                         factors = {
                                             PEOPLE_OPTIONS, .preset = "best", .hidden = few, .n_hidden = 1, .rank = 2};
  return (struct cluster_job){.model = world == 1 ? factors : layers,
                              .n_users = N_USERS,
                              .n_slots = N_SLOTS,
                              .shard_bytes = world == 2 ? MELU_NONE : 1,
                              .fit = {.size = sizeof(struct melu_fit_options),
                                      .n_epochs = 2,
                                      .batch_tasks = 6,
                                      .n_query = 3,
                                      .min_ratings = 5,
                                      .max_ratings = MELU_NONE,
                                      .validation = world == 1 ? 0 : 0.2,
                                      .seed = 11,
                                      .optimizer = &optimizer,
                                      .checkpoint = path,
                                      .checkpoint_updates = world == 1 ? 0 : 1}};
}

/* Whether what is at the checkpoint's place, if anything, leads to those bits. */
static void expect_resumed(struct cluster_job job, const struct cluster_result *expected) {
  if (access(path, F_OK) != 0) return;
  job.before = NULL;
  job.collect = NULL;
  job.after = NULL;
  job.fit.resume = 1;
  const struct cluster_result resumed = cluster_result_of(&job, N_RANKS);
  ck_assert_msg(resumed.status == MELU_OK, "%s", resumed.message);
  ck_assert_mem_eq(resumed.digest, expected->digest, sizeof resumed.digest);
}

static void expect_all(const struct cluster_job *job, melu_status status, const char *message, size_t number) {
  for (size_t r = 0; r < N_RANKS; r++) {
    const struct cluster_result *result = &job->results[r];
    ck_assert_msg(result->status == status && strstr(result->message, message), "%zu: rank %zu: %s: \"%s\"", number, r,
                  melu_status_name(result->status), result->message);
  }
}

/* --------------------------------------------------------------------------------------------------- memory */

static struct {
  size_t rank, request; /* the rank that is refused something, and which of its requests that is */
  int is_over;          /* it asks for less */
} shortage;

static void refuse_memory(struct cluster_rank *rank, struct melu_fit_options *fit) {
  (void)fit;
  if (rank->gang->rank == shortage.rank) rank->people.heap.fail_at = rank->people.heap.made + shortage.request;
}

static void look_at_memory(struct cluster_rank *rank) {
  if (rank->gang->rank == shortage.rank) shortage.is_over = rank->people.heap.made < rank->people.heap.fail_at;
}

START_TEST(every_request_is_refused) {
  char message[32];
  struct cluster_job job = job_of(_i / N_RANKS);
  size_t n_refused = 0;
  make_folder();
  const struct cluster_result expected = cluster_result_of(&job, N_RANKS);
  ck_assert_msg(expected.status == MELU_OK, "%s", expected.message);
  job.before = refuse_memory;
  job.after = look_at_memory;
  shortage.rank = (size_t)(_i % N_RANKS);
  snprintf(message, sizeof message, "rank %zu: ", shortage.rank);
  for (shortage.request = 1, shortage.is_over = 0; !shortage.is_over; shortage.request++) {
    remove_files();
    cluster_run(&job, N_RANKS);
    if (job.results[0].status == MELU_OK) continue; /* it was the digest's, or nobody's */
    expect_all(&job, MELU_ENOMEM, message, shortage.request);
    n_refused++;
    if (shortage.request % 16 == 0) expect_resumed(job, &expected);
  }
  fprintf(stderr, "world %d rank %zu: %zu refused\n", _i / N_RANKS, shortage.rank, n_refused);
  ck_assert_uint_gt(n_refused, 100);
  remove_folder();
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- ranks */

/* A rank's collective, which is gone from one of its calls on. */
static struct lost {
  struct melu_collective real;
  const struct gang_rank *gang;
  size_t rank, call, n_calls;
} lost;

static melu_status lose(melu_error *err) {
  if (++lost.n_calls < lost.call) return MELU_OK;
  lost.gang->leave(lost.gang);
  err->status = MELU_EPEER;
  snprintf(err->message, sizeof err->message, "rank %zu has left", lost.rank);
  return MELU_EPEER;
}

static melu_status gather(void *arg, void *all, const size_t *counts, melu_error *err) {
  const melu_status status = lose(err);
  return status ? status : lost.real.all_gather(arg, all, counts, err);
}

static melu_status begin(void *arg, const struct melu_message *out, struct melu_message *in, melu_error *err) {
  const melu_status status = lose(err);
  return status ? status : lost.real.all_to_all_begin(arg, out, in, err);
}

static melu_status end(void *arg, melu_error *err) {
  const melu_status status = lose(err);
  return status ? status : lost.real.all_to_all_end(arg, err);
}

static melu_status reduce(void *arg, void *value, size_t n, melu_fold_fn fold, melu_error *err) {
  const melu_status status = lose(err);
  return status ? status : lost.real.reduce(arg, value, n, fold, err);
}

static void put_between(struct cluster_rank *rank, struct melu_collective *c) {
  if (rank->gang->rank != lost.rank) return;
  lost.real = *c;
  lost.gang = rank->gang;
  lost.n_calls = 0;
  c->all_gather = gather;
  c->all_to_all_begin = begin;
  c->all_to_all_end = end;
  c->reduce = reduce;
}

START_TEST(a_rank_is_lost_in_every_call) {
  char message[32];
  struct cluster_job job = job_of(_i / N_RANKS);
  size_t n_lost = 0;
  make_folder();
  const struct cluster_result expected = cluster_result_of(&job, N_RANKS);
  ck_assert_msg(expected.status == MELU_OK, "%s", expected.message);
  job.collect = put_between;
  lost.rank = (size_t)(_i % N_RANKS);
  snprintf(message, sizeof message, "rank %zu has left", lost.rank);
  do {
    lost.call = n_lost + 1;
    remove_files();
    cluster_run(&job, N_RANKS);
    if (job.results[lost.rank].status == MELU_OK) break; /* from here on only the digest is lost */
    expect_all(&job, MELU_EPEER, message, lost.call);
    if (++n_lost % 8 == 0) expect_resumed(job, &expected);
  } while (lost.n_calls >= lost.call);
  fprintf(stderr, "world %d rank %zu: %zu lost\n", _i / N_RANKS, lost.rank, n_lost);
  ck_assert_uint_gt(n_lost, 30);
  remove_folder();
}
END_TEST

int main(void) {
  Suite *s = suite_create("cluster faults");
  TCase *t = tcase_create("cluster faults");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, every_request_is_refused, 0, N_WORLDS * N_RANKS);
  tcase_add_loop_test(t, a_rank_is_lost_in_every_call, 0, N_WORLDS * N_RANKS);
  suite_add_tcase(s, t);
  return run_suite(s);
}
