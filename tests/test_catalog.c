/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking a catalogue: against predicting every item, and against sorting what was predicted; items that come and go:
 * against a list of them that is searched from end to end. */
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
#include "serve/catalog.h"
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

/* Memory that is no number until it is written to. */
static void *dirty_alloc(void *arg, size_t n_bytes) {
  void *memory = malloc(n_bytes);
  (void)arg;
  return memory ? memset(memory, 0xff, n_bytes) : NULL;
}

static void dirty_free(void *arg, void *memory) {
  (void)arg;
  free(memory);
}

static void open_all(void) {
  const struct melu_allocator dirty = {NULL, dirty_alloc, dirty_free};
  const struct melu_context_options options = {.size = sizeof options, .allocator = &dirty};
  world_open(&w, &options, N_USERS);
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

/* More items than a block, and the same ones under several numbers: equal scores, ranked by number. */
START_TEST(the_best_come_first) {
  enum { MANY = 250 };
  uint32_t same[MANY], chosen[MANY], top[MANY];
  float scores[MANY], best[MANY];
  melu_catalog *many;
  for (uint32_t i = 0; i < MANY; i++) {
    same[i] = i * 7 % N;
    chosen[i] = i * 7 % MANY;
  }
  adapt(5);
  WORLD_TRY(melu_catalog_new(&many, w.model, w.data, same, 0, &err));
  WORLD_TRY(melu_catalog_put(many, w.data, same, chosen, MANY, &err));
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

/* Where all scores are equal, the ranking is the order of the numbers. */
START_TEST(ties_are_by_number) {
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

static atomic_size_t n_locks;
static struct test_heap heap;

/* The linker puts this in front of pthread_mutex_lock (--wrap). */
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
  n_locks++;
  return __real_pthread_mutex_lock(mutex);
}

/* Under qemu-user, which makes system calls of its own and cannot be forbidden any: what is asked of allocator and
 * locks is still counted there. */
static int is_emulated(void) {
  return getenv("MESON_EXE_WRAPPER") != NULL;
}

/* In a process that may no longer make any system call but to read, write and end: the kernel kills it at the first. */
static void serve(int forbidden) {
  const melu_user *users[2] = {user, user};
  uint32_t top[3], tops[6];
  float scores[N];
  size_t counts[2];
  if (!is_emulated() && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) _exit(2);
  if (forbidden) getppid();
  const size_t made = heap.made, live = heap.live;
  n_locks = 0;
  for (size_t i = 0; i < 60; i++) {
    size_t n = 3;
    int failed = melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, i % 9, &err) != MELU_OK;
    failed |= melu_predict(scores, ws, w.model, user, w.data, items, 8, &err) != MELU_OK;
    failed |= melu_catalog_top(top, scores, &n, ws, catalog, user, NULL, &err) != MELU_OK;
    failed |= melu_catalog_top_users(tops, scores, counts, 3, ws, catalog, users, 2, NULL, &err) != MELU_OK;
    failed |= melu_catalog_score(scores, ws, catalog, user, &err) != MELU_OK;
    failed |= melu_catalog_score_list(scores, ws, catalog, user, items, 8, &err) != MELU_OK;
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
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 8, &err)); /* room to remember eight */
  ck_assert(heap.made > 0 && n_locks > 0);                                         /* the counting works */
  for (int forbidden = 0; forbidden < (is_emulated() ? 1 : 2); forbidden++) {
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

/* Exclusions are looked at for so many rows at a time. Numbers run against rows, and all but few are excluded, some
 * twice, beside some that nothing has. */
START_TEST(exclusions_reach_all_rows) {
  enum { MANY = 70000, LEFT = 500, EXCLUDED = MANY + 1000 };
  static uint32_t same[MANY], numbers[MANY], exclude[EXCLUDED], top[MANY];
  static float scores[MANY];
  static unsigned char is_left[MANY], is_found[MANY];
  size_t n_excluded = 0, n_left = 0, n = MANY;
  for (uint32_t i = 0; i < MANY; i++) {
    same[i] = i % N;
    numbers[i] = MANY - 1 - i;
  }
  for (size_t i = 0; i < LEFT; i++) is_left[i * i * 7919 % MANY] = 1;
  for (uint32_t i = 0; i < MANY; i++)
    if (!is_left[i]) exclude[n_excluded++] = i;
  for (uint32_t i = 0; n_excluded < EXCLUDED; i++) exclude[n_excluded++] = i % 2 ? exclude[i * 31] : MANY + i * i;
  adapt(5);
  WORLD_TRY(melu_catalog_remove(catalog, melu_catalog_items(catalog), N, &err));
  WORLD_TRY(melu_catalog_put(catalog, w.data, same, numbers, MANY, &err));
  const struct melu_top_options options = {.size = sizeof options, .exclude = exclude, .n_exclude = EXCLUDED};
  WORLD_TRY(melu_catalog_top(top, scores, &n, ws, catalog, user, &options, &err));
  for (size_t i = 0; i < MANY; i++) n_left += is_left[i];
  ck_assert_uint_eq(n, n_left);
  for (size_t i = 0; i < n; i++) {
    ck_assert(top[i] < MANY && is_left[top[i]] && !is_found[top[i]]);
    is_found[top[i]] = 1;
  }
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

/* ------------------------------------------------------------------------------------- items that come and go */

enum { N_BIG = 300, N_DELTA = 50, MOST = 600, N_KINDS = 4, N_SETS = 2, N_NETWORKS = 2 };

/* A model of either network, users of several kinds, many items and, in a data set of their own, some more; and what
 * these score in a catalogue that was made of all of them. */
struct shop {
  melu_model *model;
  melu_workspace *ws;
  melu_user *users[N_KINDS];
  melu_dataset *sets[N_SETS];
  float scores[N_SETS][N_KINDS][N_BIG];
  melu_catalog *catalog;
  /* What it should consist of. */
  struct known {
    uint32_t number, item;
    int set;
  } known[MOST];
  size_t n;
};

static uint64_t state;

static uint32_t below(size_t n) {
  return world_random(&state) % (uint32_t)n;
}

static melu_dataset *items_of(uint32_t n) {
  melu_dataset *data;
  WORLD_TRY(melu_dataset_new(&data, w.ctx, melu_dataset_schema(w.data), &err));
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t genres[2] = {below(3), below(3)};
    const float price = (float)below(1000) / 1000;
    const struct melu_value values[2] = {{.ids = genres, .n_ids = below(3)}, {.numbers = &price, .n_numbers = 1}};
    WORLD_TRY(melu_dataset_add_item(data, i, values, NULL, &err));
  }
  WORLD_TRY(melu_dataset_freeze(data, &err));
  return data;
}

static void score_set(struct shop *s, int set, size_t n) {
  melu_catalog *all;
  uint32_t every[N_BIG];
  float predicted[N_BIG];
  for (uint32_t i = 0; i < n; i++) every[i] = i;
  WORLD_TRY(melu_catalog_new(&all, s->model, s->sets[set], NULL, 0, &err));
  for (size_t u = 0; u < N_KINDS; u++) {
    WORLD_TRY(melu_catalog_score(s->scores[set][u], s->ws, all, s->users[u], &err));
    WORLD_TRY(melu_predict(predicted, s->ws, s->model, s->users[u], s->sets[set], every, n, &err));
    for (size_t i = 0; i < n; i++)
      ck_assert(test_relative_error((double)s->scores[set][u][i], (double)predicted[i], 1) < 1e-5);
  }
  melu_catalog_free(all);
}

/* Users with no, one, five and sixty ratings; the first layer of the last one is formed. Network 1 is MELU_FACTORS. */
static struct shop *shop_open(int network) {
  static const size_t n_ratings[N_KINDS] = {0, 1, 5, 60};
  const struct melu_model_options options = {.size = sizeof options, .preset = "best", .rank = 6, .seed = 3};
  struct shop *s = calloc(1, sizeof *s);
  ck_assert_ptr_nonnull(s);
  state = 5;
  s->model = w.model;
  if (network) {
    const float scale[2] = {3.25F, 1.5F};
    float genres[4 * 15]; /* with offsets, which begin as zeros */
    for (size_t i = 0; i < 4 * 15; i++) genres[i] = (float)below(1000) / 1000 - 0.5F;
    WORLD_TRY(melu_model_new(&s->model, w.ctx, melu_dataset_schema(w.data), &options, &err));
    WORLD_TRY(melu_model_write(s->model, "scale", 0, 1, scale, &err));
    WORLD_TRY(melu_model_write(s->model, "E.genre", 0, 4, genres, &err));
  }
  WORLD_TRY(melu_workspace_new(&s->ws, s->model, 60, &err));
  for (size_t u = 0; u < N_KINDS; u++) {
    uint32_t rated[60];
    float given[60];
    for (size_t i = 0; i < n_ratings[u]; i++) {
      rated[i] = below(N);
      given[i] = (float)(1 + below(5));
    }
    WORLD_TRY(melu_user_new(&s->users[u], s->model, &err));
    WORLD_TRY(melu_adapt(s->users[u], s->ws, s->model, w.data, NULL, rated, given, n_ratings[u], &err));
  }
  s->sets[0] = items_of(N_BIG);
  s->sets[1] = items_of(N_DELTA);
  score_set(s, 0, N_BIG);
  score_set(s, 1, N_DELTA);
  WORLD_TRY(melu_catalog_new(&s->catalog, s->model, s->sets[0], items, 0, &err));
  return s;
}

static void shop_close(struct shop *s) {
  melu_catalog_free(s->catalog);
  for (size_t i = 0; i < N_SETS; i++) melu_dataset_free(s->sets[i]);
  for (size_t u = 0; u < N_KINDS; u++) melu_user_free(s->users[u]);
  melu_workspace_free(s->ws);
  if (s->model != w.model) melu_model_free(s->model);
  free(s);
}

static size_t find(const struct shop *s, uint32_t number) {
  size_t i = 0;
  while (i < s->n && s->known[i].number != number) i++;
  return i;
}

/* Some of the numbers below MOST, each once, in any order; all of them at most. */
static size_t some_numbers(uint32_t *numbers, size_t n) {
  uint32_t all[MOST];
  for (uint32_t i = 0; i < MOST; i++) all[i] = i;
  for (size_t i = 0; i < n; i++) {
    const size_t other = i + below(MOST - i);
    numbers[i] = all[other];
    all[other] = all[i];
  }
  return n;
}

static void put_some(struct shop *s, size_t n) {
  uint32_t chosen[MOST], numbers[MOST];
  const int set = below(3) == 0;
  some_numbers(numbers, n);
  for (size_t i = 0; i < n; i++) {
    chosen[i] = below(set ? N_DELTA : N_BIG);
    const size_t at = find(s, numbers[i]);
    s->known[at] = (struct known){numbers[i], chosen[i], set};
    s->n += at == s->n;
  }
  WORLD_TRY(melu_catalog_put(s->catalog, s->sets[set], chosen, numbers, n, &err));
}

static void remove_some(struct shop *s, size_t n) {
  uint32_t numbers[MOST];
  if (n > s->n) n = s->n;
  for (size_t i = 0; i < n; i++) {
    const size_t at = below(s->n);
    numbers[i] = s->known[at].number;
    s->known[at] = s->known[--s->n];
  }
  WORLD_TRY(melu_catalog_remove(s->catalog, numbers, n, &err));
}

static float score_of(const struct shop *s, const struct known *k, size_t u) {
  return s->scores[k->set][u][k->item];
}

static void check_scores(const struct shop *s) {
  uint32_t list[MOST];
  float scores[MOST];
  const size_t n_list = s->n ? 1 + below(MOST) : 0;
  size_t where[MOST];
  for (size_t i = 0; i < n_list; i++) {
    where[i] = below(s->n);
    list[i] = s->known[where[i]].number;
  }
  for (size_t u = 0; u < N_KINDS; u++) {
    WORLD_TRY(melu_catalog_score(scores, s->ws, s->catalog, s->users[u], &err));
    for (size_t i = 0; i < s->n; i++) {
      const float score = score_of(s, &s->known[i], u);
      ck_assert_msg(scores[i] == score, "%zu items, row %zu: %.9g, not %.9g", s->n, i, (double)scores[i],
                    (double)score);
    }
    WORLD_TRY(melu_catalog_score_list(scores, s->ws, s->catalog, s->users[u], list, n_list, &err));
    for (size_t i = 0; i < n_list; i++) ck_assert(scores[i] == score_of(s, &s->known[where[i]], u));
  }
}

struct ranked {
  float score;
  uint32_t number;
};

static int better_first(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return x->number < y->number ? -1 : x->number > y->number;
}

static int keep_thirds(void *arg, uint32_t number) {
  return number % 3 != *(const uint32_t *)arg;
}

/* What leaves items out, drawn at random. */
struct filter {
  struct melu_top_options options;
  uint32_t exclude[40], third;
  uint64_t allow[MOST / 64];
};

static void draw_filter(struct filter *f) {
  *f = (struct filter){.options = {.size = sizeof f->options}, .third = below(3)};
  for (size_t i = 0; i < 40; i++) f->exclude[i] = below(MOST);
  for (size_t i = 0; i < MOST / 64; i++) f->allow[i] = (uint64_t)below(1u << 31) << 32 | below(1u << 31);
  f->options.exclude = f->exclude;
  f->options.n_exclude = below(41);
  if (below(2)) f->options.keep = keep_thirds;
  f->options.keep_arg = &f->third;
  if (below(2)) f->options.allow = f->allow;
  if (f->options.allow) f->options.n_allow = below(MOST / 64 * 64 + 1);
}

static int passes(const struct filter *f, uint32_t number) {
  for (size_t i = 0; i < f->options.n_exclude; i++)
    if (f->exclude[i] == number) return 0;
  if (f->options.keep && number % 3 == f->third) return 0;
  if (!f->options.allow) return 1;
  return number < f->options.n_allow && (f->allow[number / 64] & (uint64_t)1 << number % 64) != 0;
}

static void check_top(const struct shop *s, size_t k) {
  enum { SEVERAL = 37 }; /* more than are ranked at once */
  static struct filter filters[SEVERAL];
  static struct melu_top_options options[SEVERAL];
  static uint32_t tops[SEVERAL * (MOST + 1)], top[MOST + 1];
  static float scores[SEVERAL * (MOST + 1)], best[MOST + 1];
  const melu_user *users[SEVERAL];
  size_t counts[SEVERAL];
  for (size_t i = 0; i < SEVERAL; i++) {
    draw_filter(&filters[i]);
    options[i] = filters[i].options;
    users[i] = s->users[i * 7 / 2 % N_KINDS];
  }
  WORLD_TRY(melu_catalog_top_users(tops, scores, counts, k, s->ws, s->catalog, users, SEVERAL, options, &err));
  for (size_t i = 0; i < SEVERAL; i++) {
    struct ranked sorted[MOST];
    size_t n = 0, found = k;
    for (size_t row = 0; row < s->n; row++)
      if (passes(&filters[i], s->known[row].number))
        sorted[n++] = (struct ranked){score_of(s, &s->known[row], i * 7 / 2 % N_KINDS), s->known[row].number};
    qsort(sorted, n, sizeof *sorted, better_first);
    if (n > k) n = k;
    WORLD_TRY(melu_catalog_top(top, best, &found, s->ws, s->catalog, users[i], &options[i], &err));
    ck_assert_uint_eq(found, n);
    ck_assert_uint_eq(counts[i], n);
    for (size_t r = 0; r < n; r++) {
      ck_assert(top[r] == sorted[r].number && best[r] == sorted[r].score);
      ck_assert(tops[i * k + r] == sorted[r].number && scores[i * k + r] == sorted[r].score);
    }
  }
}

static void check_shop(const struct shop *s) {
  const melu_catalog *c = s->catalog;
  ck_assert_uint_eq(melu_catalog_n_items(c), s->n);
  for (size_t i = 0; i < s->n; i++) ck_assert_uint_eq(melu_catalog_items(c)[i], s->known[i].number);
  for (uint32_t i = 0; i < MOST; i++) {
    const size_t row = find(s, i);
    ck_assert_uint_eq(melu__catalog_row(c, i), row < s->n ? row : MELU__NO_ROW);
  }
  const size_t end = (s->n + MELU__RANK_ROWS - 1) / MELU__RANK_ROWS * MELU__RANK_ROWS;
  for (size_t i = s->n * melu__rank_x(s->model); i < end * melu__rank_x(s->model); i++) ck_assert(c->x[i] == 0);
  for (size_t i = s->n * melu__rank_z(s->model); i < end * melu__rank_z(s->model); i++) ck_assert(c->z[i] == 0);
  check_scores(s);
}

/* Sizes at the edges of blocks, from an empty catalogue on. */
START_TEST(any_size_is_ranked) {
  static const size_t sizes[] = {0, 1, 2, 95, 96, 97, 191, 192, 193, 200, 500};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct shop *s = shop_open(_i);
    put_some(s, sizes[i]);
    check_shop(s);
    const size_t ks[] = {0, 1, 10, sizes[i], MOST + 1};
    for (size_t k = 0; k < sizeof ks / sizeof *ks; k++) check_top(s, ks[k]);
    remove_some(s, sizes[i] / 2);
    check_shop(s);
    remove_some(s, sizes[i]);
    check_shop(s);
    check_top(s, 5);
    put_some(s, 97);
    check_shop(s);
    shop_close(s);
  }
}
END_TEST

START_TEST(items_come_and_go) {
  static const size_t sizes[] = {0, 1, 1, 2, 3, 5, 17, 95, 96, 97, 200};
  struct shop *s = shop_open(_i);
  for (size_t step = 0; step < 150; step++) {
    const size_t n = sizes[below(sizeof sizes / sizeof *sizes)];
    if (below(2))
      put_some(s, n);
    else
      remove_some(s, n);
    check_shop(s);
    if (step % 5 == 0) check_top(s, 1 + below(20));
  }
  shop_close(s);
}
END_TEST

/* Without numbers they are the positions, as they are of a new catalogue. */
START_TEST(numbers_are_positions) {
  const uint32_t some[3] = {7, 2, 11}, more[2] = {2, 5}, all[4] = {7, 2, 11, 5};
  melu_catalog *c;
  WORLD_TRY(melu_catalog_new(&c, w.model, w.data, some, 3, &err));
  ck_assert(memcmp(melu_catalog_items(c), some, sizeof some) == 0);
  WORLD_TRY(melu_catalog_put(c, w.data, more, NULL, 2, &err));
  ck_assert_uint_eq(melu_catalog_n_items(c), 4);
  ck_assert(memcmp(melu_catalog_items(c), all, sizeof all) == 0);
  ck_assert_ptr_null(melu_catalog_items(NULL));
  melu_catalog_free(c);
}
END_TEST

/* ---------------------------------------------------------------------------------------------- what goes wrong */

/* Each allocation of a change fails once, and then all from there on: the catalogue is as before. */
START_TEST(a_change_without_memory_changes_nothing) {
  static const size_t before[] = {0, 1, 96, 97};
  const struct melu_allocator failing = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &failing};
  close_all();
  heap = (struct test_heap){0};
  world_open(&w, &options, N_USERS);
  size_t n_failed = 0;
  for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
    struct shop *s = shop_open(_i);
    put_some(s, before[i]);
    uint32_t chosen[150], numbers[150];
    some_numbers(numbers, 150);
    for (uint32_t k = 0; k < 150; k++) chosen[k] = k;
    melu_status status = MELU_ENOMEM;
    for (size_t n = 1; status; n++) {
      numbers[149] = MOST + 2 * (uint32_t)s->catalog->numbers_capacity; /* these need room too, every time */
      heap.fail_at = heap.made + n;
      heap.from_there_on = n % 2 == 0;
      status = melu_catalog_put(s->catalog, s->sets[0], chosen, numbers, 150, &err);
      heap.fail_at = 0;
      if (!status) break;
      n_failed++;
      ck_assert_int_eq(status, MELU_ENOMEM);
      check_shop(s);
      ck_assert_uint_eq(melu__catalog_row(s->catalog, numbers[149]), MELU__NO_ROW);
    }
    WORLD_TRY(melu_catalog_remove(s->catalog, numbers + 149, 1, &err));
    ck_assert_uint_ge(melu_catalog_n_items(s->catalog), 149);
    shop_close(s);
  }
  ck_assert_uint_ge(n_failed, 4 * 5); /* numbers, scratch, three arrays */
  world_close(&w);
  ck_assert_uint_eq(heap.live, 0);
  open_all();
}
END_TEST

#define REFUSES(call, status, at)                                        \
  do {                                                                   \
    err = (melu_error){0};                                               \
    const melu_status status_ = (call);                                  \
    ck_assert_msg(status_ == (status), "%s", melu_status_name(status_)); \
    ck_assert_uint_eq(err.index, (at));                                  \
    check_shop(s);                                                       \
  } while (0)

START_TEST(bad_changes_change_nothing) {
  struct shop *s = shop_open(_i);
  put_some(s, 97);
  const uint32_t here = s->known[3].number, last = s->known[96].number;
  uint32_t gone = 0;
  while (find(s, gone) < s->n) gone++;
  const uint32_t chosen[3] = {0, 1, 2}, far[3] = {0, 1, N_BIG}, large[3] = {gone, here, 0x80000000u};
  const uint32_t twice[3] = {gone, here, gone}, again[3] = {here, last, here};
  melu_catalog *c = s->catalog;
  const melu_dataset *data = s->sets[0];

  REFUSES(melu_catalog_put(NULL, data, chosen, NULL, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_put(c, NULL, chosen, NULL, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_put(c, data, NULL, chosen, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_put(c, data, far, chosen, 3, &err), MELU_ERANGE, 2);
  REFUSES(melu_catalog_put(c, data, chosen, large, 3, &err), MELU_ERANGE, 2);
  REFUSES(melu_catalog_put(c, data, chosen, twice, 3, &err), MELU_ERANGE, 2);
  REFUSES(melu_catalog_put(c, data, chosen, again, 3, &err), MELU_ERANGE, 2);
  const uint32_t same[2] = {1, 1};
  REFUSES(melu_catalog_put(c, data, same, NULL, 2, &err), MELU_ERANGE, 1);
  melu_catalog *none;
  REFUSES(melu_catalog_new(&none, s->model, data, same, 2, &err), MELU_ERANGE, 1);
  ck_assert_ptr_null(none);

  REFUSES(melu_catalog_remove(NULL, chosen, 1, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_remove(c, NULL, 1, &err), MELU_EINVAL, 0);
  const uint32_t absent[3] = {here, last, gone}, beyond[2] = {last, 0xffffffffu};
  REFUSES(melu_catalog_remove(c, absent, 3, &err), MELU_ENOTFOUND, 2);
  REFUSES(melu_catalog_remove(c, beyond, 2, &err), MELU_ENOTFOUND, 1);
  REFUSES(melu_catalog_remove(c, again, 3, &err), MELU_ERANGE, 2);

  melu_dataset *other;
  WORLD_TRY(melu_dataset_new(&other, w.ctx, melu_dataset_schema(w.data), &err));
  REFUSES(melu_catalog_put(c, other, chosen, NULL, 0, &err), MELU_ESTATE, 0); /* not frozen */
  melu_dataset_free(other);
  shop_close(s);
}
END_TEST

START_TEST(another_schema_is_refused) {
  const struct melu_field field = {.size = sizeof field, .name = "price", .owner = MELU_ITEM, .kind = MELU_NUMERIC};
  struct shop *s = shop_open(_i);
  melu_schema *schema;
  melu_dataset *data;
  WORLD_TRY(melu_schema_new(&schema, w.ctx, &err));
  WORLD_TRY(melu_schema_add(schema, &field, &err));
  WORLD_TRY(melu_dataset_new(&data, w.ctx, schema, &err));
  WORLD_TRY(melu_dataset_add_item(data, 1, NULL, NULL, &err));
  WORLD_TRY(melu_dataset_freeze(data, &err));
  REFUSES(melu_catalog_put(s->catalog, data, items, NULL, 1, &err), MELU_ESCHEMA, 0);
  melu_dataset_free(data);
  melu_schema_free(schema);
  shop_close(s);
}
END_TEST

START_TEST(bad_rankings_are_refused) {
  enum { USERS = 20 };
  struct shop *s = shop_open(_i);
  struct shop *foreign = shop_open(!_i);
  put_some(s, 97);
  uint32_t gone = 0, top[2 * USERS];
  while (find(s, gone) < s->n) gone++;
  const uint32_t list[3] = {s->known[0].number, s->known[1].number, gone};
  float scores[MOST];
  size_t n[USERS], k = 2;
  const melu_user *users[USERS];
  struct melu_top_options options[USERS] = {{0}};
  for (size_t i = 0; i < USERS; i++) {
    users[i] = s->users[i % N_KINDS];
    options[i].size = sizeof *options;
  }
  const melu_catalog *c = s->catalog;
  REFUSES(melu_catalog_score_list(NULL, s->ws, c, users[0], list, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_score_list(scores, NULL, c, users[0], list, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_score_list(scores, s->ws, c, users[0], NULL, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_score_list(scores, s->ws, c, users[0], list, 3, &err), MELU_ENOTFOUND, 2);
  REFUSES(melu_catalog_score_list(scores, s->ws, c, foreign->users[0], list, 3, &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_score(scores, foreign->ws, c, users[0], &err), MELU_EINVAL, 0);

#define TOP_USERS(t, sc, count, u) melu_catalog_top_users(t, sc, count, k, s->ws, c, u, USERS, options, &err)
  REFUSES(TOP_USERS(NULL, scores, n, users), MELU_EINVAL, 0);
  REFUSES(TOP_USERS(top, NULL, n, users), MELU_EINVAL, 0);
  REFUSES(TOP_USERS(top, scores, NULL, users), MELU_EINVAL, 0);
  REFUSES(TOP_USERS(top, scores, n, NULL), MELU_EINVAL, 0);
  users[18] = NULL;
  REFUSES(TOP_USERS(top, scores, n, users), MELU_EINVAL, 18);
  users[18] = foreign->users[0];
  REFUSES(TOP_USERS(top, scores, n, users), MELU_EINVAL, 18);
  users[18] = s->users[0];
  options[7].size = 3;
  REFUSES(TOP_USERS(top, scores, n, users), MELU_EINVAL, 7);
  options[7] = (struct melu_top_options){.size = sizeof *options, .n_exclude = 1};
  REFUSES(TOP_USERS(top, scores, n, users), MELU_EINVAL, 7);
  options[7] = (struct melu_top_options){.size = sizeof *options, .n_allow = 1};
  REFUSES(TOP_USERS(top, scores, n, users), MELU_EINVAL, 7);
  options[7] = (struct melu_top_options){.size = sizeof *options, .exclude = list, .n_exclude = 1, .n_allow = 1};
  REFUSES(TOP_USERS(top, scores, n, users), MELU_EINVAL, 7);
  ck_assert_str_eq(err.message, "allow is NULL");
  ck_assert_int_eq(melu_catalog_top(top, scores, &k, s->ws, c, users[0], &options[7], NULL), MELU_EINVAL);
  REFUSES(melu_catalog_top(top, scores, &k, s->ws, c, users[0], &options[7], &err), MELU_EINVAL, 0);
  REFUSES(melu_catalog_top(top, scores, &k, s->ws, c, NULL, NULL, &err), MELU_EINVAL, 0);
  ck_assert_uint_eq(k, 2);
  WORLD_TRY(melu_catalog_top_users(NULL, NULL, NULL, k, s->ws, c, NULL, 0, NULL, &err)); /* nobody */
  shop_close(foreign);
  shop_close(s);
}
END_TEST

/* A user whose numbers are no numbers any more: nothing in this interface makes one. The first of several is named,
 * also if another one's trouble comes in an earlier block. */
START_TEST(scores_that_are_not_finite_are_refused) {
  enum { USERS = 40, SICK = 20 };
  struct shop *s = shop_open(_i);
  const melu_user *users[USERS];
  uint32_t top[2 * USERS], before[2];
  float scores[MOST];
  size_t n[USERS], k = 2;
  put_some(s, 200);
  WORLD_TRY(melu_catalog_top(before, scores, &k, s->ws, s->catalog, s->users[1], NULL, &err));
  for (int infinite = 0; infinite < 2; infinite++) {
    melu_user *sick = s->users[2];
    real *parts[MELU__MAX_WEIGHTS];
    melu__user_parts(parts, sick);
    real *number = parts[_i ? 0 : 2 * s->model->n_layers]; /* of her vector; the last bias */
    const real kept = *number;
    *number = infinite ? (real)-INFINITY : (real)NAN;
    for (size_t i = 0; i < USERS; i++) users[i] = i == SICK || i > SICK + 2 ? sick : s->users[1];
    err.index = 0;
    ck_assert_int_eq(melu_catalog_top_users(top, scores, n, 2, s->ws, s->catalog, users, USERS, NULL, &err),
                     MELU_EDIVERGED);
    ck_assert_uint_eq(err.index, SICK);
    WORLD_TRY(melu_catalog_top_users(top, scores, n, 2, s->ws, s->catalog, users, SICK, NULL, &err));
    for (size_t i = 0; i < SICK; i++) ck_assert(n[i] == 2 && memcmp(top + 2 * i, before, sizeof before) == 0);
    ck_assert_int_eq(melu_catalog_score(scores, s->ws, s->catalog, sick, &err), MELU_EDIVERGED);
    ck_assert_int_eq(melu_catalog_score_list(scores, s->ws, s->catalog, sick, &s->known[0].number, 1, &err),
                     MELU_EDIVERGED);
    ck_assert_int_eq(melu_catalog_top(top, scores, &k, s->ws, s->catalog, sick, NULL, &err), MELU_EDIVERGED);
    ck_assert_uint_eq(k, 2);
    *number = kept;
  }
  check_shop(s);
  shop_close(s);
}
END_TEST

START_TEST(a_changed_model_is_noticed) {
  struct shop *s = shop_open(_i);
  uint32_t top[2];
  float scores[2], row[1];
  size_t n[1];
  const melu_user *users[1] = {s->users[0]};
  const char *name = _i ? "noise" : "b3";
  put_some(s, 5);
  WORLD_TRY(melu_model_read(row, s->model, name, 0, 1, &err));
  WORLD_TRY(melu_model_write(s->model, name, 0, 1, row, &err));
  ck_assert_int_eq(melu_catalog_put(s->catalog, s->sets[0], items, NULL, 1, &err), MELU_ESTATE);
  ck_assert_int_eq(melu_catalog_score_list(scores, s->ws, s->catalog, users[0], &s->known[0].number, 1, &err),
                   MELU_ESTATE);
  ck_assert_int_eq(melu_catalog_top_users(top, scores, n, 2, s->ws, s->catalog, users, 1, NULL, &err), MELU_ESTATE);
  ck_assert_uint_eq(melu_catalog_n_items(s->catalog), 5);
  WORLD_TRY(melu_catalog_remove(s->catalog, &s->known[0].number, 1, &err)); /* needs no model */
  shop_close(s);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ threads */

enum { N_THREADS = 8, N_TIMES = 200 };

struct ranker {
  const struct shop *shop;
  pthread_barrier_t *all_there;
  size_t user;
  int ok;
};

static void *rank_again_and_again(void *arg) {
  struct ranker *r = arg;
  const struct shop *s = r->shop;
  melu_workspace *own;
  melu_error mine;
  uint32_t top[10], list[50];
  float scores[MOST], best[10];
  r->ok = melu_workspace_new(&own, s->model, 5, &mine) == MELU_OK;
  for (size_t i = 0; i < 50; i++) list[i] = s->known[i * 3].number;
  pthread_barrier_wait(r->all_there);
  for (size_t t = 0; t < N_TIMES && r->ok; t++) {
    size_t n = 10;
    r->ok = melu_catalog_top(top, best, &n, own, s->catalog, s->users[r->user], NULL, &mine) == MELU_OK && n == 10;
    for (size_t i = 0; i < n; i++) r->ok &= best[i] == score_of(s, &s->known[find(s, top[i])], r->user);
    r->ok &= melu_catalog_score_list(scores, own, s->catalog, s->users[r->user], list, 50, &mine) == MELU_OK;
    for (size_t i = 0; i < 50; i++) r->ok &= scores[i] == score_of(s, &s->known[i * 3], r->user);
    r->ok &= melu_catalog_score(scores, own, s->catalog, s->users[r->user], &mine) == MELU_OK;
    for (size_t i = 0; i < s->n; i++) r->ok &= scores[i] == score_of(s, &s->known[i], r->user);
  }
  melu_workspace_free(own);
  return NULL;
}

START_TEST(threads_share_a_catalogue) {
  struct shop *s = shop_open(_i);
  pthread_t threads[N_THREADS];
  struct ranker rankers[N_THREADS];
  pthread_barrier_t all_there;
  put_some(s, 500);
  ck_assert_int_eq(pthread_barrier_init(&all_there, NULL, N_THREADS), 0);
  for (size_t i = 0; i < N_THREADS; i++) {
    rankers[i] = (struct ranker){s, &all_there, i % N_KINDS, 0};
    ck_assert_int_eq(pthread_create(&threads[i], NULL, rank_again_and_again, &rankers[i]), 0);
  }
  for (size_t i = 0; i < N_THREADS; i++) {
    ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert(rankers[i].ok);
  }
  pthread_barrier_destroy(&all_there);
  shop_close(s);
}
END_TEST

static Suite *suite(void) {
  Suite *s = suite_create("catalog");
  TCase *t = tcase_create("catalog");
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_test(t, scores_are_predictions);
  tcase_add_test(t, the_best_come_first);
  tcase_add_test(t, ties_are_by_number);
  tcase_add_test(t, items_are_left_out);
  tcase_add_test(t, exclusions_reach_all_rows);
  tcase_add_test(t, bad_input);
  tcase_add_test(t, serving_asks_for_nothing);
  tcase_add_loop_test(t, any_size_is_ranked, 0, N_NETWORKS);
  tcase_add_loop_test(t, items_come_and_go, 0, N_NETWORKS);
  tcase_add_test(t, numbers_are_positions);
  tcase_add_loop_test(t, a_change_without_memory_changes_nothing, 0, N_NETWORKS);
  tcase_add_loop_test(t, bad_changes_change_nothing, 0, N_NETWORKS);
  tcase_add_loop_test(t, another_schema_is_refused, 0, N_NETWORKS);
  tcase_add_loop_test(t, bad_rankings_are_refused, 0, N_NETWORKS);
  tcase_add_loop_test(t, scores_that_are_not_finite_are_refused, 0, N_NETWORKS);
  tcase_add_loop_test(t, a_changed_model_is_noticed, 0, N_NETWORKS);
  suite_add_tcase(s, t);
  t = tcase_create("threads");
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_loop_test(t, threads_share_a_catalogue, 0, N_NETWORKS);
  suite_add_tcase(s, t);
  return s;
}

int main(void) {
  return run_suite(suite());
}
