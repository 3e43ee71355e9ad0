/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings in which one rank is not like the others, or something fails on it: all end with the same status and words,
 * nobody waits, and what they had they still have. */
#include "cluster.h"
#include "folder.h"
#include "run_suite.h"
#include "wire.h"

enum { N_RANKS = 3, ODD = 1, N_SLOTS = 8, MOST_UPDATES = 40 };

static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 0.01};

/* What one rank does otherwise: it is told otherwise, or has something else by then. */
struct oddity {
  melu_status status;
  const char *message; /* how the one of all ranks begins */
  void (*alter)(struct cluster_job *job);
  void (*before)(struct cluster_rank *rank, struct melu_fit_options *fit);
  int is_lasting; /* the objects themselves differ: the same call without the oddity makes no sense */
};

struct trial {
  struct cluster_job job;
  const struct oddity *odd;
  unsigned char before[N_RANKS][MELU_DIGEST_BYTES]; /* of the weights */
  struct cluster_result again[N_RANKS];             /* of the same call without the oddity */
};

static struct cluster_job job_of(size_t shard_bytes) {
  return (struct cluster_job){.model = {PEOPLE_FACTORS},
                              .n_users = CLUSTER_USERS,
                              .n_slots = N_SLOTS,
                              .shard_bytes = shard_bytes,
                              .fit = {.size = sizeof(struct melu_fit_options),
                                      .n_epochs = 2,
                                      .batch_tasks = 13,
                                      .n_query = 3,
                                      .min_ratings = 5,
                                      .max_ratings = MELU_NONE,
                                      .validation = 0.2,
                                      .seed = 11,
                                      .optimizer = &optimizer}};
}

/* -------------------------------------------------------------------------------------------------- oddities */

static _Thread_local const char *version;

const char *__real_melu_version(void);
const char *__wrap_melu_version(void);
const char *__wrap_melu_version(void) {
  return version ? version : __real_melu_version();
}

static void has_another_version(struct cluster_rank *rank, struct melu_fit_options *fit) {
  (void)rank;
  (void)fit;
  version = "0.9.0";
}

static void free_all(struct people *p) {
  melu_model_free(p->model);
  melu_dataset_free(p->data);
  melu_schema_free(p->schema);
}

static void has_another_schema(struct cluster_rank *rank, struct melu_fit_options *fit) {
  const struct melu_field field = {.size = sizeof field, .name = "odd", .owner = MELU_ITEM, .n_values = 3};
  struct people *p = &rank->people;
  melu_error err;
  (void)fit;
  free_all(p);
  WORLD_TRY(melu_schema_new(&p->schema, p->ctx, &err));
  people_fields(p->schema);
  WORLD_TRY(melu_schema_add(p->schema, &field, &err));
  WORLD_TRY(melu_dataset_new(&p->data, p->ctx, p->schema, &err));
  cluster_fill(rank);
  WORLD_TRY(melu_model_new(&p->model, p->ctx, p->schema, &rank->job->model, &err));
}

static void has_another_weight(struct cluster_rank *rank, struct melu_fit_options *fit) {
  float weights[32];
  struct melu_param param;
  melu_error err;
  (void)fit;
  WORLD_TRY(melu_model_param(&param, rank->people.model, melu_model_n_params(rank->people.model) - 1, &err));
  ck_assert_uint_le(param.cols, 32);
  WORLD_TRY(melu_model_read(weights, rank->people.model, param.name, 0, 1, &err));
  weights[0] += 1;
  WORLD_TRY(melu_model_write(rank->people.model, param.name, 0, 1, weights, &err));
}

static void new_data(struct cluster_rank *rank) {
  melu_error err;
  melu_dataset_free(rank->people.data);
  WORLD_TRY(melu_dataset_new(&rank->people.data, rank->people.ctx, rank->people.schema, &err));
}

/* Nothing is known there of item 4, which is rated everywhere. */
static void has_another_item(struct cluster_rank *rank, struct melu_fit_options *fit) {
  melu_dataset *data;
  melu_error err;
  (void)fit;
  new_data(rank);
  data = rank->people.data;
  for (uint32_t i = 0; i < PEOPLE_ITEMS; i++)
    if (i == 4)
      WORLD_TRY(melu_dataset_add_item(data, people_item_id(i), NULL, NULL, &err));
    else
      people_add_item(data, i);
  cluster_add_users(rank);
  WORLD_TRY(melu_dataset_freeze(data, &err));
}

static void has_all_users(struct cluster_rank *rank, struct melu_fit_options *fit) {
  const struct gang_rank *gang = rank->gang;
  (void)fit;
  new_data(rank);
  rank->gang = NULL;
  cluster_fill(rank);
  rank->gang = gang;
}

#define ALTER(name, change)                   \
  static void name(struct cluster_job *job) { \
    change;                                   \
  }
ALTER(has_another_rank, job->model.rank = 6)
ALTER(has_other_slots, job->n_slots = 9)
ALTER(shards_tables, job->shard_bytes = 1; job->is_undigested = 1)
ALTER(has_nobody, job->n_users = 0)
ALTER(other_seed, job->fit.seed = 12)
ALTER(other_epochs, job->fit.n_epochs = 3)
ALTER(other_batch, job->fit.batch_tasks = 12)
ALTER(other_query, job->fit.n_query = 2)
ALTER(other_min, job->fit.min_ratings = 6)
ALTER(other_max, job->fit.max_ratings = 60)
ALTER(other_max_support, job->fit.max_support = 50)
ALTER(random_support, job->fit.random_support = -1)
ALTER(no_cosine, job->fit.cosine = -1)
ALTER(patient, job->fit.patience = 4)
ALTER(other_prior, job->fit.prior_vectors = 2.5)
ALTER(leaves_out_more, job->fit.validation = 0.25)
ALTER(has_a_checkpoint, job->fit.checkpoint = "/nowhere/training")
ALTER(other_fit, job->fit.n_query = MELU_NONE)
static const struct melu_optimizer_options other_optimizer = {.size = sizeof optimizer, .lr = 0.02};
ALTER(other_lr, job->fit.optimizer = &other_optimizer)

static const struct oddity oddities[] = {
    {MELU_EVERSION, "rank 1 runs libmelu 0.9.0, and rank 0 ", NULL, has_another_version, 1},
    {MELU_ESCHEMA, "ranks 0 and 1 have models of different schemas", NULL, has_another_schema, 1},
    {MELU_EINVAL, "ranks 0 and 1 have models of different options", has_another_rank, NULL, 1},
    {MELU_EINVAL, "ranks 0 and 1 have models of different weights", NULL, has_another_weight, 1},
    {MELU_EINVAL, "rank 2: item 1004 is described otherwise on rank 1 than on rank 0", NULL, has_another_item, 1},
    {MELU_EINVAL, "rank 1: user 7", NULL, has_all_users, 1},
    {MELU_ENOTFOUND, "rank 1: no user to train on has between 5 and ", has_nobody, NULL, 1},
    {MELU_EINVAL, "n_slots is 8 on rank 0 and 9 on rank 1", has_other_slots, NULL, 1},
    {MELU_EINVAL, "sharded tables is 0 on rank 0 and ", shards_tables, NULL, 1},
    {MELU_EINVAL, "seed is 11 on rank 0 and 12 on rank 1", other_seed, NULL, 0},
    {MELU_EINVAL, "n_epochs is 2 on rank 0 and 3 on rank 1", other_epochs, NULL, 0},
    {MELU_EINVAL, "batch_tasks is 13 on rank 0 and 12 on rank 1", other_batch, NULL, 0},
    {MELU_EINVAL, "n_query is 3 on rank 0 and 2 on rank 1", other_query, NULL, 0},
    {MELU_EINVAL, "min_ratings is 5 on rank 0 and 6 on rank 1", other_min, NULL, 0},
    {MELU_EINVAL, "max_ratings is 18446744073709551615 on rank 0 and 60 on rank 1", other_max, NULL, 0},
    {MELU_EINVAL, "max_support is ", other_max_support, NULL, 0},
    {MELU_EINVAL, "random_support is 1 on rank 0 and 0 on rank 1", random_support, NULL, 0},
    {MELU_EINVAL, "cosine is 1 on rank 0 and 0 on rank 1", no_cosine, NULL, 0},
    {MELU_EINVAL, "patience is 0 on rank 0 and 4 on rank 1", patient, NULL, 0},
    {MELU_EINVAL, "prior_vectors is ", other_prior, NULL, 0},
    {MELU_EINVAL, "validation is 0.2", leaves_out_more, NULL, 0},
    {MELU_EINVAL, "lr is 0.01 on rank 0 and 0.02 on rank 1", other_lr, NULL, 0},
    {MELU_EINVAL, "checkpoint is 0 on rank 0 and 1 on rank 1", has_a_checkpoint, NULL, 0},
    {MELU_ELIMIT, "rank 1: n_query is ", other_fit, NULL, 0},
};
enum { N_ODDITIES = sizeof oddities / sizeof *oddities };

/* ----------------------------------------------------------------------------------------------- one is odd */

static void look_and_alter(struct cluster_rank *rank, struct melu_fit_options *fit) {
  struct trial *t = rank->job->arg;
  const size_t r = rank->gang->rank;
  melu_error err;
  if (r == ODD && t->odd->before) t->odd->before(rank, fit);
  if (rank->job->shard_bytes == MELU_NONE) WORLD_TRY(melu_model_digest(t->before[r], rank->people.model, &err));
}

static void try_again(struct cluster_rank *rank) {
  struct trial *t = rank->job->arg;
  struct cluster_result *again = &t->again[rank->gang->rank];
  melu_error err = {.status = MELU_OK};
  version = NULL;
  if (t->odd->is_lasting) return;
  again->status = melu_fit(rank->people.model, rank->people.data, &t->job.fit, &err);
  WORLD_TRY(melu_model_digest(again->digest, rank->people.model, &err));
}

static void run_odd(const struct gang_rank *self) {
  struct trial *t = self->arg;
  struct cluster_job job = t->job;
  if (self->rank == ODD && t->odd->alter) t->odd->alter(&job);
  struct cluster_rank rank = {.job = &job, .gang = self};
  cluster_train(&rank);
  t->job.results[self->rank] = rank.result;
}

static void expect_all(const struct cluster_job *job, size_t n_ranks, melu_status status, const char *message) {
  for (size_t r = 0; r < n_ranks; r++) {
    const struct cluster_result *result = &job->results[r];
    ck_assert_msg(result->status == status && strncmp(result->message, message, strlen(message)) == 0,
                  "rank %zu: %s: \"%s\", and not \"%s\"", r, melu_status_name(result->status), result->message,
                  message);
    ck_assert_str_eq(result->message, job->results[0].message);
  }
}

START_TEST(one_is_odd) {
  static const size_t shard_bytes[] = {MELU_NONE, 1};
  const struct oddity *odd = &oddities[_i];
  for (size_t s = 0; s < 2; s++) {
    struct trial t = {.job = job_of(shard_bytes[s]), .odd = odd};
    if (odd->alter == shards_tables && s) continue;
    struct cluster_job undisturbed = t.job;
    t.job.before = look_and_alter;
    t.job.after = try_again;
    t.job.arg = &t;
    gang_run(N_RANKS, 20, run_odd, &t);
    expect_all(&t.job, N_RANKS, odd->status, odd->message);
    for (size_t r = 0; r < N_RANKS && s == 0; r++)
      ck_assert_msg(memcmp(t.before[r], t.job.results[r].digest, MELU_DIGEST_BYTES) == 0, "rank %zu is changed", r);
    if (odd->is_lasting) continue;
    const struct cluster_result expected = cluster_result_of(&undisturbed, N_RANKS);
    ck_assert_int_eq(expected.status, MELU_OK);
    for (size_t r = 0; r < N_RANKS; r++) {
      ck_assert_int_eq(t.again[r].status, MELU_OK);
      ck_assert_mem_eq(t.again[r].digest, expected.digest, MELU_DIGEST_BYTES);
    }
  }
}
END_TEST

START_TEST(more_ranks_than_users) {
  struct cluster_job job = job_of(MELU_NONE);
  job.n_users = 7; /* of whom three have too few ratings */
  cluster_run(&job, N_SLOTS);
  expect_all(&job, N_SLOTS, MELU_ENOTFOUND, "rank ");
  ck_assert_ptr_nonnull(strstr(job.results[0].message, ": no user to train on"));
}
END_TEST

/* --------------------------------------------------------------------------------------------- one says no */

static void look(struct cluster_rank *rank, struct melu_fit_options *fit) {
  melu_error err;
  (void)fit;
  WORLD_TRY(melu_model_digest(rank->job->arg, rank->people.model, &err));
}

/* The weights of trainings that end after no update, one, two, ...; and of the whole one. Returns how many there are.
 */
static size_t all_updates(unsigned char digests[MOST_UPDATES][MELU_DIGEST_BYTES], const struct cluster_job *job) {
  struct cluster_result result = {.status = MELU_ECANCELED};
  size_t n = 1;
  struct cluster_job one = *job;
  one.collect = NULL;
  one.fit.checkpoint = NULL;
  one.before = look;
  one.arg = digests[0];
  one.shard_bytes = MELU_NONE;
  while (result.status == MELU_ECANCELED) {
    ck_assert_uint_lt(n, MOST_UPDATES);
    one.stop_at = n;
    result = cluster_result_of(&one, 0);
    memcpy(digests[n++], result.digest, MELU_DIGEST_BYTES);
  }
  ck_assert_int_eq(result.status, MELU_OK);
  return n;
}

START_TEST(one_says_no) {
  static unsigned char digests[MOST_UPDATES][MELU_DIGEST_BYTES];
  char folder[] = "/tmp/melu-odd-XXXXXX", path[64];
  struct cluster_job job = job_of(_i % 2 ? 1 : MELU_NONE);
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/training", folder);
  const size_t n = all_updates(digests, &job);
  ck_assert_uint_ge(n, 6);
  for (job.stops = 0; job.stops < N_RANKS; job.stops++)
    for (job.stop_at = 1; job.stop_at + 1 < n; job.stop_at += 3) {
      job.fit.checkpoint = _i / 2 ? path : NULL;
      const struct cluster_result stopped = cluster_result_of(&job, N_RANKS);
      ck_assert_msg(stopped.status == MELU_ECANCELED, "%zu, at %zu: %s: %s", job.stops, (size_t)job.stop_at,
                    melu_status_name(stopped.status), stopped.message);
      ck_assert_mem_eq(stopped.digest, digests[job.stop_at], MELU_DIGEST_BYTES);
      if (!job.fit.checkpoint) continue;
      struct cluster_job rest = job;
      rest.stop_at = 0;
      rest.fit.resume = 1;
      const struct cluster_result ended = cluster_result_of(&rest, N_RANKS);
      ck_assert_mem_eq(ended.digest, digests[n - 1], MELU_DIGEST_BYTES);
    }
  folder_remove(folder);
}
END_TEST

/* ---------------------------------------------------------------------------------------- one has no memory */

static size_t refused;

static void refuse_memory(struct cluster_rank *rank, struct melu_fit_options *fit) {
  (void)fit;
  if (rank->gang->rank == ODD) rank->people.heap.fail_at = rank->people.heap.made + refused;
}

START_TEST(one_has_no_memory) {
  struct cluster_job job = job_of(_i ? 1 : MELU_NONE);
  size_t n_refused = 0;
  job.before = refuse_memory;
  job.results[0].status = MELU_ENOMEM;
  for (refused = 1; job.results[0].status; refused += 1 + refused / 8, n_refused++) {
    cluster_run(&job, N_RANKS);
    if (job.results[0].status) expect_all(&job, N_RANKS, MELU_ENOMEM, "rank 1: ");
  }
  expect_all(&job, N_RANKS, MELU_OK, "");
  ck_assert_uint_ge(n_refused, 20);
}
END_TEST

/* ----------------------------------------------------------------------------------- its collective fails */

/* In which call of which function the odd rank's fails; then the host says so to the others, or does not. */
static struct {
  size_t n_calls[WIRE_FUNCTIONS], function, call;
  int is_silent;
} cutting;

static melu_status cut(size_t function, melu_error *err) {
  if (++cutting.n_calls[function] != cutting.call || function != cutting.function) return MELU_OK;
  if (!cutting.is_silent) wire.gang->leave(wire.gang);
  snprintf(err->message, sizeof err->message, "the wire is cut");
  return MELU_ESYSTEM;
}

static void put_between(struct cluster_rank *rank, struct melu_collective *c) {
  if (rank->gang && rank->gang->rank == ODD) wire_put_between(rank->gang, c, cut);
}

/* What all ranks make of it, and the weights: those after some update. Returns 0 if the training was over before: a
 * digest of sharded tables makes calls, too. */
static int cut_wire(struct cluster_job *job, unsigned char digests[MOST_UPDATES][MELU_DIGEST_BYTES], size_t n) {
  memset(cutting.n_calls, 0, sizeof cutting.n_calls);
  gang_run(N_RANKS, cutting.is_silent ? 1 : 20, cluster_run_rank, job);
  if (job->shard_bytes == 1 && job->results[ODD].status == MELU_OK) {
    expect_all(job, N_RANKS, MELU_OK, "");
    return 0;
  }
  for (size_t r = 0; r < N_RANKS; r++) {
    const struct cluster_result *result = &job->results[r];
    size_t i = 0;
    ck_assert_msg(result->status == MELU_EPEER, "function %zu, call %zu: rank %zu: %s: %s", cutting.function,
                  cutting.call, r, melu_status_name(result->status), result->message);
    if (r == ODD && !cutting.is_silent) ck_assert_str_eq(result->message, "the wire is cut");
    while (i < n && memcmp(result->digest, digests[i], MELU_DIGEST_BYTES) != 0) i++;
    ck_assert_msg(i < n || job->shard_bytes == 1, "function %zu, call %zu: rank %zu has weights of no update",
                  cutting.function, cutting.call, r);
  }
  return 1;
}

START_TEST(its_collective_fails) {
  static unsigned char digests[MOST_UPDATES][MELU_DIGEST_BYTES];
  char folder[] = "/tmp/melu-odd-XXXXXX", path[64];
  struct cluster_job job = job_of(_i ? 1 : MELU_NONE);
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/training", folder);
  job.fit.checkpoint = path;
  job.collect = put_between;
  const size_t n = all_updates(digests, &job);
  cutting.call = 0;
  cluster_run(&job, N_RANKS);
  expect_all(&job, N_RANKS, MELU_OK, "");
  size_t n_calls[WIRE_FUNCTIONS];
  memcpy(n_calls, cutting.n_calls, sizeof n_calls);
  for (cutting.function = 0; cutting.function < WIRE_FUNCTIONS; cutting.function++) {
    cutting.call = 1;
    while (cutting.call <= n_calls[cutting.function] && cut_wire(&job, digests, n))
      cutting.call += 1 + cutting.call / 4;
    ck_assert_uint_gt(cutting.call, n_calls[cutting.function] / 2);
  }
  cutting.is_silent = 1;
  cutting.function = WIRE_BEGIN;
  cutting.call = n_calls[WIRE_BEGIN] / 2;
  ck_assert(cut_wire(&job, digests, n));
  cutting.is_silent = 0;
  folder_remove(folder);
}
END_TEST

int main(void) {
  Suite *s = suite_create("odd ranks");
  TCase *t = tcase_create("odd ranks");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, one_is_odd, 0, N_ODDITIES);
  tcase_add_test(t, more_ranks_than_users);
  tcase_add_loop_test(t, one_says_no, 0, 4);
  tcase_add_loop_test(t, one_has_no_memory, 0, 2);
  tcase_add_loop_test(t, its_collective_fails, 0, 2);
  suite_add_tcase(s, t);
  return run_suite(s);
}
