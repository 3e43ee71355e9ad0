/* SPDX-License-Identifier: BSD-3-Clause */
/* Trainings by any number of ranks, with tables replicated or sharded: the same bits. */
#include "cluster.h"
#include "meta/schedule.h"
#include "run_suite.h"

static melu_error err;

/* ------------------------------------------------------------------------------------------------- schedules */

/* Batches are of one size, and each slot's users come one after the other, as evenly as can be. */
START_TEST(batches_are_even) {
  const struct melu_allocator a = test_allocator(&(struct test_heap){0});
  uint64_t random = 3;
  for (size_t trial = 0; trial < test_trials(300); trial++) {
    uint64_t n[40], all = 0, done = 0;
    struct melu__schedule s;
    const size_t n_slots = 1 + world_random(&random) % 40;
    const uint64_t batch = 1 + world_random(&random) % 30;
    double worst = 0;
    for (size_t i = 0; i < n_slots; i++) all += n[i] = world_random(&random) % 3 ? world_random(&random) % 90 : 0;
    ck_assert(melu__schedule_init(&s, &a, n, n_slots));
    for (int epoch = 0; epoch < 2; epoch++, done = 0) {
      uint64_t before[40] = {0};
      melu__schedule_begin(&s);
      while (done < all) {
        const size_t taken = melu__schedule_next(&s, batch);
        uint64_t sum = 0;
        int is_good = taken == (all - done < batch ? all - done : batch);
        for (size_t i = 0; i < n_slots; i++) {
          is_good &= s.first[i] == before[i] && s.end[i] >= s.first[i] && s.end[i] <= n[i];
          sum += s.end[i] - s.first[i];
          before[i] = s.end[i];
          const double due = (double)(done + taken) * (double)n[i] / (double)all;
          worst = fmax(worst, fabs((double)s.end[i] - due));
        }
        ck_assert(is_good && sum == taken);
        done += taken;
      }
      ck_assert_uint_eq(melu__schedule_next(&s, batch), 0);
    }
    ck_assert_msg(worst < 2.5, "%zu slots: one is %g users from where it should be", n_slots, worst);
    melu__schedule_free(&s, &a);
  }
}
END_TEST

/* ---------------------------------------------------------------------------------------------- any number */

enum { N_MODELS = 7, N_FITS = 6 };

static struct cluster_job job_of(size_t model, size_t fit) {
  static const struct melu_model_options models[N_MODELS] = {
      {PEOPLE_LAYERS},
      {PEOPLE_LAYERS, .adapt = 15, .rates = MELU_RATE_PER_ENTRY},
      {PEOPLE_LAYERS, .rule = MELU_CLOSED_FORM, .learn_precision = 1},
      {PEOPLE_FACTORS},
      {PEOPLE_FACTORS, .history = -1, .rule = MELU_STEPS, .rates = MELU_RATE_PER_TENSOR},
      {PEOPLE_FACTORS, .loss = MELU_LOGISTIC},
      {PEOPLE_FACTORS, .loss = MELU_PAIRWISE},
  };
  static const struct melu_optimizer_options optimizers[N_FITS] = {
      {.size = sizeof *optimizers, .lr = 0.01},
      {.size = sizeof *optimizers, .lr = 0.01, .clip_norm = 0.2},
      {.size = sizeof *optimizers, .lr = 0.01, .dense = 1, .clip_value = -1},
      {.size = sizeof *optimizers, .kind = MELU_SGD, .lr = 0.01, .weight_decay = 0.01},
      {.size = sizeof *optimizers, .kind = MELU_ADAMW, .lr = 0.01, .weight_decay = 0.1},
      {.size = sizeof *optimizers, .kind = MELU_SGD, .lr = 0.01, .dense = 1, .clip_norm = 0.3},
  };
  struct cluster_job job = {.model = models[model],
                            .n_users = CLUSTER_USERS,
                            .n_slots = 8,
                            .fit = {.size = sizeof job.fit,
                                    .n_epochs = 3,
                                    .batch_tasks = 13,
                                    .n_query = 3,
                                    .min_ratings = 5,
                                    .max_ratings = MELU_NONE,
                                    .seed = 11,
                                    .optimizer = &optimizers[fit]}};
  struct melu_fit_options *o = &job.fit;
  if (fit == 1) o->validation = 0.2, o->patience = 1;
  if (fit == 2) o->cosine = 1, o->prior_vectors = 2, o->prior_dense = 1;
  if (fit == 3) o->random_support = 1;
  if (fit == 4) job.n_listed = 5, o->patience = 2;
  if (fit == 5)
    o->batch_tasks = 64, o->prior_vectors = 3, o->prior_offsets = 2, o->prior_pooled = 1, o->validation = .1;
  return job;
}

static void expect_same(const struct cluster_result *a, const struct cluster_result *b, const char *what, size_t n) {
  ck_assert_msg(b->status == MELU_OK, "%s, %zu ranks: %s: %s", what, n, melu_status_name(b->status), b->message);
  ck_assert_msg(memcmp(a->digest, b->digest, sizeof a->digest) == 0, "%s, %zu ranks: other weights", what, n);
  ck_assert_msg(a->loss == b->loss && a->validation == b->validation, "%s, %zu ranks: other losses", what, n);
  ck_assert_uint_eq(a->n_reports, b->n_reports);
}

START_TEST(same_bits_by_any_number_of_ranks) {
  static const size_t ranks[] = {1, 2, 3, 4, 8};
  static const struct {
    size_t bytes;
    const char *name;
  } tables[] = {{MELU_NONE, "replicated"}, {1, "sharded"}, {1500, "some sharded"}};
  struct cluster_job job = job_of((size_t)_i / N_FITS, (size_t)_i % N_FITS);
  const struct cluster_result alone = cluster_result_of(&job, 0);
  ck_assert_msg(alone.status == MELU_OK, "%s", alone.message);
  for (size_t t = 0; t < 3; t++)
    for (size_t i = 0; i < 5; i++) {
      if (t == 2 && i != 2) continue;
      job.shard_bytes = tables[t].bytes;
      job.n_threads = 1 + (i + t) % 2;
      const struct cluster_result many = cluster_result_of(&job, ranks[i]);
      expect_same(&alone, &many, tables[t].name, ranks[i]);
    }
}
END_TEST

/* What must matter does: the number of slots, which a user is in, the seed. */
START_TEST(other_slots_are_other_bits) {
  struct cluster_job job = job_of(0, 0);
  const struct cluster_result eight = cluster_result_of(&job, 0);
  job.n_slots = 7;
  const struct cluster_result seven = cluster_result_of(&job, 0);
  job.n_slots = 1;
  const struct cluster_result one = cluster_result_of(&job, 0);
  job.fit.seed++;
  const struct cluster_result other = cluster_result_of(&job, 0);
  ck_assert(memcmp(eight.digest, seven.digest, sizeof one.digest) != 0);
  ck_assert(memcmp(eight.digest, one.digest, sizeof one.digest) != 0);
  ck_assert(memcmp(other.digest, one.digest, sizeof one.digest) != 0);
  ck_assert_msg(fabs(eight.loss - one.loss) < 0.3 * one.loss, "loss %g with slots, %g without", eight.loss, one.loss);
}
END_TEST

START_TEST(same_bits_on_any_number_of_threads) {
  for (size_t model = 0; model < 4; model += 3) {
    struct cluster_job job = job_of(model, 1);
    for (job.n_slots = 2; job.n_slots <= 16; job.n_slots += job.n_slots < 4 ? 1 : 4) {
      job.n_threads = 1;
      const struct cluster_result one = cluster_result_of(&job, 0);
      for (job.n_threads = 2; job.n_threads <= 8; job.n_threads += 3) {
        const struct cluster_result many = cluster_result_of(&job, 0);
        expect_same(&one, &many, "threads", job.n_threads);
      }
    }
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("cluster");
  TCase *t = tcase_create("cluster");
  (void)err;
  tcase_set_timeout(t, 120);
  tcase_add_test(t, batches_are_even);
  tcase_add_loop_test(t, same_bits_by_any_number_of_ranks, 0, N_MODELS * N_FITS);
  tcase_add_test(t, other_slots_are_other_bits);
  tcase_add_test(t, same_bits_on_any_number_of_threads);
  suite_add_tcase(s, t);
  return run_suite(s);
}
