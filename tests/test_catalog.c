/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking a catalogue: against predicting every item, and against sorting what was predicted. */
#define _DEFAULT_SOURCE /* syscall */
#include <linux/seccomp.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run_suite.h"
#include "support.h"
#include "world.h"

enum { N_USERS = 30, N = WORLD_ITEMS };

static melu_error err;

static struct world w;
static melu_workspace *ws;
static melu_user *user;
static melu_catalog *catalog;

static const uint32_t items[8] = {0, 1, 2, 3, 4, 5, 6, 7};
static const float ratings[8] = {5, 1, 3, 4, 2, 3, 5, 1};

static void open_all(void) {
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_workspace_new(&ws, w.model, 60, &err));
  WORLD_TRY(melu_user_new(&user, w.model, &err));
  WORLD_TRY(melu_catalog_new(&catalog, w.model, w.data, NULL, 0, &err));
}

static void close_all(void) {
  melu_catalog_free(catalog);
  melu_user_free(user);
  melu_workspace_free(ws);
  world_close(&w);
}

/* A user with n ratings; n = 60 has its first layer formed. */
static void adapt(size_t n) {
  uint32_t rated[60];
  float given[60];
  for (size_t i = 0; i < n; i++) {
    rated[i] = items[i % 8];
    given[i] = ratings[i % 8];
  }
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, rated, given, n, &err));
}

START_TEST(scores_are_predictions) {
  static const size_t n_ratings[] = {0, 1, 5, 60};
  for (size_t r = 0; r < 4; r++) {
    float scores[N], predicted[N];
    uint32_t all[N];
    for (uint32_t i = 0; i < N; i++) all[i] = i;
    adapt(n_ratings[r]);
    ck_assert_uint_eq(melu_catalog_n_items(catalog), N);
    WORLD_TRY(melu_catalog_score(scores, ws, catalog, user, &err));
    WORLD_TRY(melu_predict(predicted, ws, w.model, user, w.data, all, N, &err));
    for (size_t i = 0; i < N; i++)
      ck_assert_msg(fabs((double)scores[i] - (double)predicted[i]) < 1e-5 * (1 + fabs((double)predicted[i])),
                    "%zu ratings, item %zu: %.9g ranked, %.9g predicted", n_ratings[r], i, (double)scores[i],
                    (double)predicted[i]);
  }
}
END_TEST

/* More items than a block, some of them twice: equal scores, ranked by position. */
START_TEST(the_best_come_first) {
  enum { MANY = 250 };
  uint32_t chosen[MANY], top[MANY];
  float scores[MANY], best[MANY];
  melu_catalog *many;
  for (uint32_t i = 0; i < MANY; i++) chosen[i] = i * 7 % N;
  adapt(5);
  WORLD_TRY(melu_catalog_new(&many, w.model, w.data, chosen, MANY, &err));
  WORLD_TRY(melu_catalog_score(scores, ws, many, user, &err));
  for (size_t k = 0; k <= MANY; k += k < 12 ? 1 : 119) {
    size_t n = k;
    WORLD_TRY(melu_catalog_top(top, best, &n, ws, many, user, NULL, &err));
    ck_assert_uint_eq(n, k);
    size_t better = 0, known = 0;
    for (size_t i = 0; i < MANY; i++)
      if (k && (scores[i] > best[k - 1] || (scores[i] == best[k - 1] && chosen[i] < top[k - 1]))) better++;
    ck_assert_uint_le(better, k ? k - 1 : 0);
    for (size_t i = 0; i < k; i++) {
      for (size_t j = 0; j < MANY; j++)
        if (chosen[j] == top[i] && scores[j] == best[i]) {
          known++;
          break;
        }
      if (i) ck_assert(best[i - 1] > best[i] || (best[i - 1] == best[i] && top[i - 1] <= top[i]));
    }
    ck_assert_uint_eq(known, k);
  }
  melu_catalog_free(many);
}
END_TEST

/* Where all scores are equal, the ranking is the order of the data set. */
START_TEST(ties_are_by_position) {
  const float zeros[6] = {0};
  uint32_t top[N], backward[N];
  float scores[N];
  melu_catalog *flat;
  for (uint32_t i = 0; i < N; i++) backward[i] = N - 1 - i;
  WORLD_TRY(melu_model_write(w.model, "W3", 0, 1, zeros, &err));
  adapt(0);
  WORLD_TRY(melu_catalog_new(&flat, w.model, w.data, backward, N, &err));
  for (size_t k = 1; k <= N; k++) {
    size_t n = k;
    WORLD_TRY(melu_catalog_top(top, scores, &n, ws, flat, user, NULL, &err));
    for (size_t i = 0; i < k; i++) ck_assert_uint_eq(top[i], i);
  }
  melu_catalog_free(flat);
}
END_TEST

/* --------------------------------------------------------------------------------------------- what serving does not
 * do */

static size_t n_locks;
static struct test_heap heap;

/* The linker puts this in front of pthread_mutex_lock (--wrap). */
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
  n_locks++;
  return __real_pthread_mutex_lock(mutex);
}

/* In a process that may no longer make any system call but to read, write and end: the kernel kills it at the first. */
static void serve(int forbidden) {
  uint32_t top[3];
  float scores[N];
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) _exit(2);
  if (forbidden) getppid();
  const size_t made = heap.made, live = heap.live;
  n_locks = 0;
  for (size_t i = 0; i < 60; i++) {
    size_t n = 3;
    int failed = melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, i % 9, &err) != MELU_OK;
    failed |= melu_predict(scores, ws, w.model, user, w.data, items, 8, &err) != MELU_OK;
    failed |= melu_catalog_top(top, scores, &n, ws, catalog, user, NULL, &err) != MELU_OK;
    if (failed || n_locks || heap.made != made || heap.live != live) syscall(SYS_exit, 3);
  }
  syscall(SYS_exit, 0);
}

START_TEST(serving_asks_for_nothing) {
  const struct melu_allocator counting = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &counting};
  close_all();
  world_open(&w, &options, N_USERS);
  WORLD_TRY(melu_workspace_new(&ws, w.model, 8, &err));
  WORLD_TRY(melu_user_new(&user, w.model, &err));
  WORLD_TRY(melu_catalog_new(&catalog, w.model, w.data, NULL, 0, &err));
  ck_assert(heap.made > 0 && n_locks > 0); /* the counting works */
  for (int forbidden = 0; forbidden < 2; forbidden++) {
    int status;
    const pid_t child = fork();
    if (child == 0) serve(forbidden);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    if (forbidden)
      ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
      ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
  }
}
END_TEST

static int keep_even(void *arg, uint32_t item) {
  ++*(size_t *)arg;
  return item % 2 == 0;
}

START_TEST(items_are_left_out) {
  uint32_t top[N], again[N];
  float scores[N];
  size_t n = N, calls = 0;
  adapt(3);
  WORLD_TRY(melu_catalog_top(top, scores, &n, ws, catalog, user, NULL, &err));
  ck_assert_uint_eq(n, N);
  const struct melu_top_options without = {.size = sizeof without, .exclude = top, .n_exclude = 2};
  n = N;
  WORLD_TRY(melu_catalog_top(again, scores, &n, ws, catalog, user, &without, &err));
  ck_assert_uint_eq(n, N - 2);
  ck_assert(memcmp(again, top + 2, n * sizeof *top) == 0);
  const struct melu_top_options even = {.size = sizeof even, .keep = keep_even, .keep_arg = &calls};
  n = N;
  WORLD_TRY(melu_catalog_top(again, scores, &n, ws, catalog, user, &even, &err));
  ck_assert_uint_eq(n, (N + 1) / 2);
  ck_assert_uint_eq(calls, N);
  for (size_t i = 0; i < n; i++) ck_assert_uint_eq(again[i] % 2, 0);
}
END_TEST

START_TEST(bad_input) {
  const uint32_t far[2] = {0, N};
  uint32_t top[2];
  float scores[N];
  size_t n = 2;
  melu_catalog *none = catalog;
  ck_assert_int_eq(melu_catalog_new(NULL, w.model, w.data, NULL, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_new(&none, w.model, NULL, NULL, 0, &err), MELU_EINVAL);
  ck_assert_ptr_null(none);
  ck_assert_int_eq(melu_catalog_new(&none, w.model, w.data, far, 2, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 1);
  ck_assert_int_eq(melu_catalog_score(NULL, ws, catalog, user, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_score(scores, ws, NULL, user, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_top(NULL, scores, &n, ws, catalog, user, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_top(top, NULL, &n, ws, catalog, user, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_top(top, scores, NULL, ws, catalog, user, NULL, &err), MELU_EINVAL);
  melu_catalog_free(NULL);
  ck_assert_uint_eq(melu_catalog_n_items(NULL), 0);

  WORLD_TRY(melu_catalog_new(&none, w.model, w.data, far, 0, &err)); /* no item is a catalogue too */
  WORLD_TRY(melu_catalog_top(top, scores, &n, ws, none, user, NULL, &err));
  ck_assert_uint_eq(n, 0);
  melu_catalog_free(none);

  float row[1];
  WORLD_TRY(melu_model_read(row, w.model, "b3", 0, 1, &err));
  WORLD_TRY(melu_model_write(w.model, "b3", 0, 1, row, &err));
  ck_assert_int_eq(melu_catalog_score(scores, ws, catalog, user, &err), MELU_ESTATE);
}
END_TEST

static Suite *suite(void) {
  Suite *s = suite_create("catalog");
  TCase *t = tcase_create("catalog");
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_test(t, scores_are_predictions);
  tcase_add_test(t, the_best_come_first);
  tcase_add_test(t, ties_are_by_position);
  tcase_add_test(t, items_are_left_out);
  tcase_add_test(t, bad_input);
  tcase_add_test(t, serving_asks_for_nothing);
  suite_add_tcase(s, t);
  return s;
}

int main(void) {
  return run_suite(suite());
}
