/* SPDX-License-Identifier: BSD-3-Clause */
/* What ranks send each other in a step, counted, is what docs/scale.md says, to the byte. One slot a rank, and a step
 * is all users, so that the rows which a rank touches are those of all its users. */
#include "../examples/common/counted.h"
#include "cluster.h"
#include "run_suite.h"

enum { HEAD = 16, SECTION = 16, CHUNK = 2048, LINE = 16, N_TABLES = 3, WORDS = 3, FEWEST = 5, SHORT = 3, LONG = 8 };

/* Rows of each table that the users of a rank touch. */
struct touched {
  unsigned char rows[N_TABLES][PEOPLE_ITEMS + 1];
};

static struct counted counters[GANG_MOST];
static struct touched touched[GANG_MOST];
static struct melu_param tables[N_TABLES];
static size_t n_dense;

static void count(struct cluster_rank *rank, struct melu_collective *c) {
  struct counted *counter = &counters[rank->gang->rank];
  counter->n_bytes = 0;
  *c = counted_collective(counter, c);
}

static void touch(struct touched *t, size_t table, const struct melu_value *value) {
  for (size_t i = 0; i < value->n_ids; i++) t->rows[table][value->ids[i]] = 1;
}

static void look_at_user(struct touched *t, const melu_dataset *data, uint32_t user) {
  melu_error err;
  struct melu_value own[PEOPLE_FIELDS], values[3];
  const uint32_t *items;
  const size_t n = melu_dataset_ratings(data, user, &items, NULL);
  if (n < FEWEST) return;
  WORLD_TRY(melu_dataset_user_values(own, data, user, &err));
  touch(t, 2, &own[0]);
  for (size_t i = 0; i < n; i++) {
    WORLD_TRY(melu_dataset_item_values(values, data, items[i], &err));
    touch(t, 0, &values[0]);
    touch(t, 1, &values[1]);
  }
}

static void look(struct cluster_rank *rank) {
  melu_error err;
  struct touched *t = &touched[rank->gang->rank];
  memset(t, 0, sizeof *t);
  for (uint32_t u = 0; u < melu_dataset_n_users(rank->people.data); u++) look_at_user(t, rank->people.data, u);
  if (rank->gang->rank != 0) return;
  n_dense = 0;
  for (size_t i = 0; i < melu_model_n_params(rank->people.model); i++) {
    struct melu_param param;
    WORLD_TRY(melu_model_param(&param, rank->people.model, i, &err));
    ck_assert_int_eq(param.is_table, i < N_TABLES);
    if (i < N_TABLES) tables[i] = param;
    if (i >= N_TABLES) n_dense += param.rows * param.cols;
  }
}

/* ------------------------------------------------------------------------------------------------- the formula */

/* How many rows of a table whose owner is rank `o`, of n, rank r touches; r = n: any rank. */
static uint64_t n_rows(size_t table, size_t r, size_t o, size_t n) {
  uint64_t sum = 0;
  for (size_t row = o; row < tables[table].rows; row += n) {
    int is = 0;
    for (size_t k = 0; k < n; k++) is |= (r == n || r == k) && touched[k].rows[table][row];
    sum += (uint64_t)is;
  }
  return sum;
}

/* A section of so many rows, if there are any. */
static uint64_t section(uint64_t rows, uint64_t bytes_of_row) {
  return rows ? SECTION + rows * bytes_of_row : 0;
}

/* A rank's piece of the dense numbers. */
static uint64_t dense(size_t r, size_t n) {
  const size_t begin = n_dense / LINE * r / n * LINE, end = r + 1 == n ? n_dense : n_dense / LINE * (r + 1) / n * LINE;
  return (end - begin + CHUNK - 1) / CHUNK * SECTION + 4 * (end - begin);
}

/* From rank r to rank o. The next batch is that of another epoch, so its rows are asked for in messages of their own.
 */
static uint64_t formula(size_t r, size_t o, size_t n, int is_sharded) {
  uint64_t gradient = HEAD, weights = HEAD + dense(r, n), asks = HEAD, answers = HEAD;
  const uint64_t numbers = 8 * (WORDS + N_TABLES + 2);
  for (size_t t = 0; t < N_TABLES; t++) {
    const uint64_t row = 4 * tables[t].cols;
    gradient += section(n_rows(t, r, o, n), 4 + row);
    asks += section(n_rows(t, r, o, n), 4);
    answers += section(n_rows(t, o, r, n), row);
    if (!is_sharded) weights += section(n_rows(t, n, r, n), 4 + row);
  }
  return gradient + HEAD + dense(o, n) + 2 * numbers + weights + (is_sharded ? asks + answers : 0);
}

/* ------------------------------------------------------------------------------------------------- the count */

static uint64_t bytes_of(struct cluster_job *job, size_t n_ranks, size_t n_epochs, size_t rank) {
  job->fit.n_epochs = n_epochs;
  const struct cluster_result result = cluster_result_of(job, n_ranks);
  ck_assert_msg(result.status == MELU_OK, "%s", result.message);
  ck_assert_uint_eq(result.n_reports, n_epochs);
  return counters[rank].n_bytes;
}

START_TEST(bytes_of_a_step) {
  static const struct melu_optimizer_options optimizer = {.size = sizeof optimizer, .lr = 0.01};
  const size_t n_ranks = 2 + (size_t)_i / 2;
  const int is_sharded = _i % 2;
  struct cluster_job job = {.model = {PEOPLE_LAYERS},
                            .n_users = CLUSTER_USERS,
                            .n_slots = n_ranks,
                            .shard_bytes = is_sharded ? 1 : MELU_NONE,
                            .fit = {.size = sizeof job.fit,
                                    .batch_tasks = CLUSTER_USERS,
                                    .n_query = 3,
                                    .min_ratings = FEWEST,
                                    .max_ratings = MELU_NONE,
                                    .optimizer = &optimizer},
                            .collect = count,
                            .after = look};
  for (size_t r = 0; r < n_ranks; r++) {
    uint64_t expected = 0;
    const uint64_t few = bytes_of(&job, n_ranks, SHORT, r), many = bytes_of(&job, n_ranks, LONG, r);
    for (size_t o = 0; o < n_ranks; o++)
      if (o != r) expected += formula(r, o, n_ranks, is_sharded);
    ck_assert_msg(many - few == (LONG - SHORT) * expected, "rank %zu of %zu, %s: %g bytes a step, and not %llu", r,
                  n_ranks, is_sharded ? "sharded" : "replicated", (double)(many - few) / (LONG - SHORT),
                  (unsigned long long)expected);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("bytes");
  TCase *t = tcase_create("bytes");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, bytes_of_a_step, 0, 8);
  suite_add_tcase(s, t);
  return run_suite(s);
}
