/* SPDX-License-Identifier: BSD-3-Clause */
/* What several ranks do together, when one of them is refused memory, at every request in turn, or is lost, in every
 * collective call in turn: all end with the same status, and go on from what was written to the bits of a training in
 * which nothing failed. */
#include <unistd.h>

#include "cluster.h"
#include "data/dataset.h"
#include "run_suite.h"
#include "wire.h"

enum { N_RANKS = 2, N_SLOTS = 4, N_USERS = 12, N_INPUTS = 13 };

static char folder[64], path[96], model_path[96];

static void setup(void) {
  snprintf(folder, sizeof folder, "/tmp/melu-faults-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/training", folder);
  snprintf(model_path, sizeof model_path, "%s/model", folder);
}

/* Two epochs, with all that ranks tell each other: clipped gradients, users left out, a checkpoint, models of both
 * kinds, tables sharded and replicated, long lists. */
enum { LAYERS, FACTORS, REPLICATED, N_WORLDS };

static struct cluster_job job_of(int world) {
  static const size_t few[1] = {3};
  static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 0.01, .clip_norm = 0.2};
  static const struct melu_model_options layers = {PEOPLE_OPTIONS, .hidden = few, .n_hidden = 1, .inner_steps = 1},
                                         factors = {PEOPLE_OPTIONS, .preset = "best", .hidden = few, .n_hidden = 1,
                                                    .rank = 2};
  return (struct cluster_job){.model = world == FACTORS ? factors : layers,
                              .n_users = N_USERS,
                              .n_slots = N_SLOTS,
                              .shard_bytes = world == REPLICATED ? MELU_NONE : 1,
                              .fit = {.size = sizeof(struct melu_fit_options),
                                      .n_epochs = 2,
                                      .batch_tasks = 6,
                                      .n_query = 3,
                                      .min_ratings = 5,
                                      .max_ratings = MELU_NONE,
                                      .validation = world == FACTORS ? 0 : 0.2,
                                      .seed = 11,
                                      .optimizer = &optimizer,
                                      .checkpoint = path}};
}

static void remove_files(void) {
  const struct cluster_job job = job_of(0);
  unlink(path);
  unlink(model_path);
  cluster_parts(&job, path, 1);
}

static void teardown(void) {
  remove_files();
  ck_assert_msg(rmdir(folder) == 0, "something was left in %s", folder);
}

/* What is at the checkpoint's place, if anything is, leads to those bits. */
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

/* Saves the model and takes its digest instead of a training, and says how that went. */
static void save(struct cluster_rank *rank) {
  struct cluster_result *result = &rank->result;
  melu_error err = {.status = MELU_OK, .message = ""};
  result->status = melu_model_save(rank->people.model, model_path, &err);
  if (!result->status) result->status = melu_model_digest(result->digest, rank->people.model, &err);
  snprintf(result->message, sizeof result->message, "%s", err.message);
}

/* --------------------------------------------------------------------------------------------------- memory */

static struct shortage {
  size_t rank, request; /* the rank that is refused something, and which of its requests that is */
  int from_there_on;
  int is_over; /* it asks for less */
} shortage;

static size_t number_of(const struct cluster_rank *rank) {
  return rank->gang ? rank->gang->rank : 0;
}

static void refuse_memory(struct cluster_rank *rank, struct melu_fit_options *fit) {
  struct test_heap *heap = &rank->people.heap;
  (void)fit;
  if (number_of(rank) != shortage.rank) return;
  heap->from_there_on = shortage.from_there_on;
  heap->fail_at = heap->made + shortage.request;
}

static void look_at_memory(struct cluster_rank *rank) {
  struct test_heap *heap = &rank->people.heap;
  if (number_of(rank) == shortage.rank) shortage.is_over = heap->made < heap->fail_at;
}

static void save_without_memory(struct cluster_rank *rank) {
  refuse_memory(rank, NULL);
  save(rank);
  look_at_memory(rank);
}

/* Every so often all that follows is refused, too. */
static size_t refuse_each(struct cluster_job *job, size_t rank, size_t step, const struct cluster_result *expected) {
  char message[32];
  size_t n_refused = 0;
  snprintf(message, sizeof message, "rank %zu: ", rank);
  shortage = (struct shortage){.rank = rank, .request = 1};
  for (; !shortage.is_over; shortage.request += step) {
    remove_files();
    shortage.from_there_on = shortage.request % 4 == 1;
    cluster_run(job, N_RANKS);
    if (job->results[0].status == MELU_OK) continue; /* it was the digest's, or nobody's */
    cluster_expect(job, N_RANKS, MELU_ENOMEM, message, shortage.request);
    n_refused++;
    if (expected && n_refused % 32 == 0) expect_resumed(*job, expected);
  }
  return n_refused;
}

/* All of one rank's; and some, of another network, and of the other rank, which are others at the beginning alone. */
START_TEST(every_request_of_a_training) {
  static const struct {
    int world;
    size_t rank, step;
  } walks[] = {{LAYERS, 1, 1}, {LAYERS, 0, 3}, {FACTORS, 1, 1}};
  struct cluster_job job = job_of(walks[_i].world);
  const struct cluster_result expected = cluster_result_of(&job, N_RANKS);
  ck_assert_msg(expected.status == MELU_OK, "%s", expected.message);
  job.before = refuse_memory;
  job.after = look_at_memory;
  ck_assert_uint_gt(refuse_each(&job, walks[_i].rank, walks[_i].step, &expected), 50);
}
END_TEST

START_TEST(every_request_of_a_saved_model) {
  struct cluster_job job = job_of(LAYERS);
  job.fit.n_query = MELU_NONE; /* no training */
  job.after = save_without_memory;
  ck_assert_uint_gt(refuse_each(&job, (size_t)_i, 1, NULL), 5);
}
END_TEST

START_TEST(every_request_of_a_resumed_training) {
  struct cluster_job job = job_of(REPLICATED);
  job.stop_at = 2;
  ck_assert_int_eq(cluster_result_of(&job, N_RANKS).status, MELU_ECANCELED);
  job.stop_at = 0;
  job.fit.resume = 1;
  job.fit.checkpoint_updates = 1000;
  job.before = refuse_memory;
  job.after = look_at_memory;
  shortage = (struct shortage){.rank = 1, .request = 1};
  for (; !shortage.is_over; shortage.request++) {
    cluster_run(&job, N_RANKS);
    if (job.results[0].status) cluster_expect(&job, N_RANKS, MELU_ENOMEM, "rank 1: ", shortage.request);
  }
  ck_assert_uint_gt(shortage.request, 100);
}
END_TEST

/* One rank by itself, whose slots are as many, where there is a checkpoint that is not gone on from. */
START_TEST(every_request_of_a_rank_alone) {
  struct cluster_job job = job_of(REPLICATED);
  const struct cluster_result expected = cluster_result_of(&job, 0);
  ck_assert_msg(expected.status == MELU_OK, "%s", expected.message);
  job.before = refuse_memory;
  job.after = look_at_memory;
  job.fit.checkpoint_updates = 1000; /* the old one stays */
  shortage = (struct shortage){.rank = 0, .request = 1};
  for (; !shortage.is_over; shortage.request++) {
    cluster_run(&job, 0);
    if (!shortage.is_over) ck_assert_int_eq(job.results[0].status, MELU_ENOMEM);
  }
  ck_assert_mem_eq(job.results[0].digest, expected.digest, sizeof expected.digest);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- ranks */

/* The rank whose collective is gone from one of its calls on. */
static struct lost { size_t rank, call, n_calls; /* call 0: none */ } lost;

static melu_status lose(size_t function, melu_error *err) {
  (void)function;
  if (!lost.call || ++lost.n_calls < lost.call) return MELU_OK;
  wire.gang->leave(wire.gang);
  err->status = MELU_EPEER;
  snprintf(err->message, sizeof err->message, "rank %zu has left", lost.rank);
  return MELU_EPEER;
}

static void put_between(struct cluster_rank *rank, struct melu_collective *c) {
  if (rank->gang->rank != lost.rank) return;
  lost.n_calls = 0;
  wire_put_between(rank->gang, c, lose);
}

static size_t to_lose; /* which call of what is saved */

static void save_and_lose(struct cluster_rank *rank) {
  if (rank->gang->rank == lost.rank) lost.call = to_lose;
  save(rank);
  if (rank->gang->rank == lost.rank) lost.call = 0;
  if (rank->result.status) ck_assert_int_ne(melu_model_digest(rank->result.digest, rank->people.model, NULL), MELU_OK);
}

/* Loses the rank in its first call, its second, ..., until it makes no more of them before it comes to its end. */
static size_t lose_each(struct cluster_job *job, size_t rank, const struct cluster_result *expected) {
  char message[32];
  size_t n_lost = 0;
  snprintf(message, sizeof message, "rank %zu has left", rank);
  lost = (struct lost){.rank = rank};
  job->collect = put_between;
  do {
    to_lose = n_lost + 1;
    lost.call = job->after ? 0 : to_lose;
    remove_files();
    cluster_run(job, N_RANKS);
    if (job->results[rank].status == expected->status) break; /* from here on only a digest is lost */
    cluster_expect(job, N_RANKS, MELU_EPEER, message, to_lose);
    if (++n_lost % 8 == 0 && !job->after) expect_resumed(*job, expected);
  } while (lost.n_calls >= to_lose);
  return n_lost;
}

START_TEST(every_call_of_a_training) {
  static const int worlds[] = {LAYERS, LAYERS, FACTORS, REPLICATED};
  struct cluster_job job = job_of(worlds[_i]);
  const struct cluster_result expected = cluster_result_of(&job, N_RANKS);
  ck_assert_msg(expected.status == MELU_OK, "%s", expected.message);
  ck_assert_uint_gt(lose_each(&job, _i != 0, &expected), 30);
}
END_TEST

START_TEST(every_call_of_a_saved_model) {
  const struct cluster_result expected = {.status = MELU_OK};
  struct cluster_job job = job_of(LAYERS);
  job.fit.n_query = MELU_NONE; /* no training */
  job.after = save_and_lose;
  ck_assert_uint_gt(lose_each(&job, (size_t)_i, &expected), 10);
}
END_TEST

/* The first update would make a weight infinite. */
START_TEST(every_call_of_a_training_that_diverges) {
  static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .kind = MELU_SGD, .lr = 1e30};
  struct cluster_job job = job_of(_i);
  job.fit.optimizer = &optimizer;
  job.fit.checkpoint = NULL;
  const struct cluster_result expected = cluster_result_of(&job, N_RANKS);
  ck_assert_msg(expected.status == MELU_EDIVERGED, "%s: %s", melu_status_name(expected.status), expected.message);
  ck_assert_uint_gt(lose_each(&job, 1, &expected), 10);
}
END_TEST

/* Ages of people, which the first layer says nothing of yet; nor does adaptation, with steps that are zero as floats.
 * So losses are what they were, and the gradient of that layer's weights is as large as they are. */
static void have_ages(struct cluster_rank *rank, struct melu_fit_options *fit) {
  const struct people *p = &rank->people;
  const float age = *(const float *)rank->job->arg;
  const struct melu__column *ages = &p->data->tables[MELU_USER].columns[1];
  float weights[N_INPUTS];
  melu_error err;
  (void)fit;
  for (size_t i = 0; i < ages->offsets[p->data->tables[MELU_USER].n]; i++) ages->numbers[i] = age;
  for (size_t row = 0; row < 3; row++) { /* of the first layer, whose last input is the age */
    WORLD_TRY(melu_model_read(weights, p->model, "W1", row, 1, &err));
    weights[N_INPUTS - 1] = 0;
    WORLD_TRY(melu_model_write(p->model, "W1", row, 1, weights, &err));
  }
}

/* No rank's part of the gradient need be too large: it is the sum that is, which is told to all. */
START_TEST(a_gradient_that_is_too_large) {
  float age = 3e38F;
  struct cluster_job job = job_of(REPLICATED);
  job.model.inner_lr = 1e-60;
  job.before = have_ages;
  job.arg = &age;
  cluster_run(&job, N_RANKS);
  cluster_expect(&job, N_RANKS, MELU_EDIVERGED, "the meta-gradient is not finite", 0);
}
END_TEST

int main(void) {
  Suite *s = suite_create("cluster faults");
  TCase *memory = tcase_create("memory"), *ranks = tcase_create("ranks");
  tcase_add_checked_fixture(memory, setup, teardown);
  tcase_add_checked_fixture(ranks, setup, teardown);
  tcase_set_timeout(memory, 120);
  tcase_set_timeout(ranks, 120);
  tcase_add_loop_test(memory, every_request_of_a_training, 0, 3);
  tcase_add_loop_test(memory, every_request_of_a_saved_model, 0, N_RANKS);
  tcase_add_test(memory, every_request_of_a_resumed_training);
  tcase_add_test(memory, every_request_of_a_rank_alone);
  tcase_add_loop_test(ranks, every_call_of_a_training, 0, 4);
  tcase_add_loop_test(ranks, every_call_of_a_saved_model, 0, N_RANKS);
  tcase_add_loop_test(ranks, every_call_of_a_training_that_diverges, 0, N_WORLDS);
  tcase_add_test(ranks, a_gradient_that_is_too_large);
  suite_add_tcase(s, memory);
  suite_add_tcase(s, ranks);
  return run_suite(s);
}
