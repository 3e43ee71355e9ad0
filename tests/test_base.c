/* SPDX-License-Identifier: BSD-3-Clause */
/* The ground floor: errors, memory, sizes, options, random numbers, threads, vocabularies, the context. */
#include <check.h>
#include <errno.h>
#include <fenv.h>
#include <limits.h>
#include <math.h>
#include <melu.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/context.h"
#include "base/error.h"
#include "base/number.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/vocab.h"
#include "flood.h"
#include "locales.h"
#include "run_suite.h"
#include "support.h"

/* ------------------------------------------------------------------------------------------------- number */

/* Whatever the host has set, which stays as it is. */
START_TEST(numbers_are_rounded_to_the_nearest) {
  static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    fesetround(modes[i]);
    feclearexcept(FE_ALL_EXCEPT);
    const double tenth = melu__number_read("1e-1"), large = melu__number_read("-1e400");
    const float third = melu__number_read_float("333333333e-9"), beyond = melu__number_read_float("4e38");
    const struct melu__number shown = melu__number_show(0.1, 17);
    const int raised = fetestexcept(FE_OVERFLOW), mode = fegetround();
    fesetround(FE_TONEAREST);
    ck_assert_int_eq(mode, modes[i]);
    ck_assert_int_eq(raised, 0);
    ck_assert(tenth == (double)0.1 && large == -(double)INFINITY && third == (float)0.333333333f && beyond == INFINITY);
    ck_assert_str_eq(shown.text, "0.10000000000000001");
  }
}
END_TEST

START_TEST(numbers_are_shown) {
  ck_assert_str_eq(melu__number_show(-0.25, 6).text, "-0.25");
  ck_assert_str_eq(melu__number_show(1e-30, 17).text, "1.0000000000000001e-30");
  ck_assert_str_eq(melu__number_show(3, 17).text, "3");
  ck_assert_str_eq(melu__number_show((double)INFINITY, 6).text, "inf");
}
END_TEST

/* Where a decimal point takes two bytes. */
START_TEST(numbers_are_shown_anywhere) {
  ck_assert(locale_go_to("ps_AF"));
  ck_assert_uint_eq(strlen(localeconv()->decimal_point), 2);
  const struct melu__number shown = melu__number_show(-1234.5e-30, 6), whole = melu__number_show(7, 6);
  const double read = melu__number_read("15e-1");
  setlocale(LC_ALL, "C");
  ck_assert_str_eq(shown.text, "-1.2345e-27");
  ck_assert_str_eq(whole.text, "7");
  ck_assert(read == 1.5);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- error */

START_TEST(status_has_its_name) {
  ck_assert_str_eq(melu_status_name(MELU_OK), "MELU_OK");
  ck_assert_str_eq(melu_status_name(MELU_EINVAL), "MELU_EINVAL");
  ck_assert_str_eq(melu_status_name(MELU_ELIMIT), "MELU_ELIMIT");
  ck_assert_str_eq(melu_status_name(MELU_ESYSTEM), "MELU_ESYSTEM");
  ck_assert_str_eq(melu_status_name((melu_status)1), "unknown status");
  ck_assert_str_eq(melu_status_name(MELU_EPEER), "MELU_EPEER");
  ck_assert_str_eq(melu_status_name((melu_status)(MELU_EPEER - 1)), "unknown status");
  ck_assert_str_eq(melu_status_name((melu_status)INT_MIN), "unknown status");
}
END_TEST

START_TEST(version_is_that_of_the_header) {
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", MELU_VERSION_MAJOR, MELU_VERSION_MINOR, MELU_VERSION_PATCH);
  ck_assert_str_eq(melu_version(), version);
}
END_TEST

START_TEST(error_is_filled) {
  melu_error err;
  memset(&err, 0x55, sizeof err);
  ck_assert_int_eq(melu__fail(&err, MELU_ERANGE, "rating %d", 7), MELU_ERANGE);
  ck_assert_int_eq(err.status, MELU_ERANGE);
  ck_assert_str_eq(err.message, "rating 7");
  ck_assert_uint_eq(err.index, 0);
  ck_assert_uint_eq(err.line, 0);
  ck_assert_int_eq(err.sys_errno, 0);
  melu__fail_at(&err, MELU_ERANGE, 42, "x");
  ck_assert_uint_eq(err.index, 42);
  melu__fail_line(&err, MELU_EFORMAT, 43, "x");
  ck_assert_uint_eq(err.line, 43);
  ck_assert_uint_eq(err.index, 0);
  ck_assert_int_eq(melu__fail_errno(&err, MELU_EIO, ENOENT, "cannot open \"%s\"", "a"), MELU_EIO);
  ck_assert_int_eq(err.sys_errno, ENOENT);
  ck_assert_str_eq(err.message, "cannot open \"a\": No such file or directory");
  ck_assert_int_eq(melu__fail_memory(&err), MELU_ENOMEM);
  ck_assert_int_eq(err.status, MELU_ENOMEM);
}
END_TEST

START_TEST(error_of_any_length_or_none) {
  char text[1000];
  melu_error err;
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  melu__fail(&err, MELU_EINVAL, "%s", text);
  ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
  melu__fail_errno(&err, MELU_EIO, ENOSPC, "%s", text);
  ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
  ck_assert_int_eq(melu__fail(NULL, MELU_EINVAL, "%s", text), MELU_EINVAL);
  ck_assert_int_eq(melu__fail_at(NULL, MELU_ERANGE, 1, "x"), MELU_ERANGE);
  ck_assert_int_eq(melu__fail_line(NULL, MELU_EFORMAT, 1, "x"), MELU_EFORMAT);
  ck_assert_int_eq(melu__fail_errno(NULL, MELU_EIO, EIO, "x"), MELU_EIO);
  ck_assert_int_eq(melu__fail_memory(NULL), MELU_ENOMEM);
}
END_TEST

/* ------------------------------------------------------------------------------------- sizes and memory */

START_TEST(sizes_saturate) {
  ck_assert_uint_eq(melu__size_add(2, 3), 5);
  ck_assert_uint_eq(melu__size_add(SIZE_MAX - 3, 3), SIZE_MAX);
  ck_assert_uint_eq(melu__size_add(SIZE_MAX - 3, 4), SIZE_MAX);
  ck_assert_uint_eq(melu__size_mul(6, 7), 42);
  ck_assert_uint_eq(melu__size_mul(0, SIZE_MAX), 0);
  ck_assert_uint_eq(melu__size_mul(SIZE_MAX, 0), 0);
  ck_assert_uint_eq(melu__size_mul(SIZE_MAX / 2 + 1, 2), SIZE_MAX);
  ck_assert_uint_eq(melu__size_align(0, 64), 0);
  ck_assert_uint_eq(melu__size_align(65, 64), 128);
  ck_assert_uint_ge(melu__size_align(SIZE_MAX - 5, 64), SIZE_MAX - 63);
}
END_TEST

START_TEST(memory_is_aligned_and_counted) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  for (size_t n = 0; n < 200; n++) {
    unsigned char *p = melu__calloc(&a, n, 1), *q = melu__alloc(&a, n, 1);
    ck_assert(p && q);
    ck_assert_uint_eq((uintptr_t)p % MELU__ALIGN, 0);
    ck_assert_uint_eq((uintptr_t)q % MELU__ALIGN, 0);
    for (size_t i = 0; i < n; i++) ck_assert_uint_eq(p[i], 0);
    memset(q, 0xff, n);
    melu__free(&a, q);
    melu__free(&a, p);
  }
  melu__free(&a, NULL);
  ck_assert_uint_eq(heap.live, 0);
  ck_assert_uint_eq(heap.made, 400);
}
END_TEST

START_TEST(memory_too_large_is_not_asked_for) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  ck_assert_ptr_null(melu__alloc(&a, SIZE_MAX / 2, 3));
  ck_assert_ptr_null(melu__calloc(&a, SIZE_MAX, SIZE_MAX));
  ck_assert_ptr_null(melu__alloc(&a, SIZE_MAX - 8, 1));
  ck_assert_uint_eq(heap.made, 0);
}
END_TEST

START_TEST(array_grows_or_stays) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  uint32_t *values = NULL;
  size_t capacity = 0;
  for (uint32_t i = 0; i < 1000; i++) {
    ck_assert_int_eq(melu__grow(&a, &values, &capacity, i, i + 1, sizeof *values), 1);
    values[i] = i;
  }
  ck_assert_uint_lt(heap.made, 10);
  const uint32_t *before = values;
  const size_t capacity_before = capacity;
  heap.fail_at = heap.made + 1;
  ck_assert_int_eq(melu__grow(&a, &values, &capacity, 1000, capacity + 1, sizeof *values), 0);
  ck_assert_int_eq(melu__grow(&a, &values, &capacity, 1000, SIZE_MAX, sizeof *values), 0);
  ck_assert_ptr_eq(values, before);
  ck_assert_uint_eq(capacity, capacity_before);
  for (uint32_t i = 0; i < 1000; i++) ck_assert_uint_eq(values[i], i);
  melu__free(&a, values);
  heap.fail_at = 0;
  char *copy = melu__strdup(&a, "text");
  ck_assert_str_eq(copy, "text");
  melu__free(&a, copy);
  heap.fail_at = heap.made + 1;
  ck_assert_ptr_null(melu__strdup(&a, "text"));
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ options */

struct options {
  size_t size;
  uint32_t a, b;
};

START_TEST(options_of_an_older_host) {
  struct options known, given = {.size = offsetof(struct options, b), .a = 1, .b = 2};
  melu_error err;
  ck_assert_int_eq(melu__options(&known, sizeof known, NULL, "options", &err), MELU_OK);
  ck_assert(known.a == 0 && known.b == 0);
  ck_assert_int_eq(melu__options(&known, sizeof known, &given, "options", &err), MELU_OK);
  ck_assert(known.a == 1 && known.b == 0); /* b is beyond what the host says it has */
  given.size = sizeof given.size;
  ck_assert_int_eq(melu__options(&known, sizeof known, &given, "options", &err), MELU_OK);
  ck_assert(known.a == 0 && known.b == 0);
}
END_TEST

START_TEST(options_of_a_newer_host) {
  struct {
    struct options old;
    unsigned char added[16];
  } given = {.old = {.size = sizeof given, .a = 1, .b = 2}};
  struct options known;
  melu_error err;
  ck_assert_int_eq(melu__options(&known, sizeof known, &given, "options", &err), MELU_OK);
  ck_assert(known.a == 1 && known.b == 2);
  for (size_t i = 0; i < sizeof given.added; i++) {
    given.added[i] = 1;
    ck_assert_int_eq(melu__options(&known, sizeof known, &given, "options", &err), MELU_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.message, "options"));
    given.added[i] = 0;
  }
}
END_TEST

START_TEST(options_without_a_size) {
  struct options known, given = {.size = 0};
  melu_error err;
  const size_t sizes[] = {0, 1, sizeof(size_t) - 1};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    given.size = sizes[i];
    ck_assert_int_eq(melu__options(&known, sizeof known, &given, "options", &err), MELU_EINVAL);
  }
  static size_t zeros[2048] = {sizeof zeros}; /* nothing unknown is set, and yet this is no struct's size */
  ck_assert_int_eq(melu__options(&known, sizeof known, zeros, "options", &err), MELU_EINVAL);
}
END_TEST

/* What the library fills keeps to the size that the host says, too. */
START_TEST(options_for_any_host) {
  const struct options known = {.size = sizeof known, .a = 1, .b = 2};
  static size_t room[2048];
  struct options filled;
  melu_error err;
  const size_t wrong[] = {0, sizeof(size_t) - 1, sizeof room};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    room[0] = wrong[i];
    ck_assert_int_eq(melu__options_out(room, &known, sizeof known, "options", &err), MELU_EINVAL);
    ck_assert_uint_eq(room[0], wrong[i]);
  }
  for (size_t size = sizeof(size_t); size <= sizeof known + 16; size += 4) {
    memset(room, 0x5a, sizeof room);
    room[0] = size;
    ck_assert_int_eq(melu__options_out(room, &known, sizeof known, "options", &err), MELU_OK);
    memcpy(&filled, room, sizeof filled);
    ck_assert_uint_eq(filled.size, size);
    ck_assert_uint_eq(filled.a, size > offsetof(struct options, a) ? 1 : 0x5a5a5a5a);
    ck_assert_uint_eq(filled.b, size > offsetof(struct options, b) ? 2 : 0x5a5a5a5a);
    for (size_t i = sizeof known; i < sizeof known + 24; i++)
      ck_assert_int_eq(((unsigned char *)room)[i], i < size ? 0 : 0x5a);
  }
}
END_TEST

/* ------------------------------------------------------------------------------------------ random numbers */

/* The vectors that Salmon et al. publish with Random123 (kat_vectors, philox4x32 with 10 rounds). */
START_TEST(random_numbers_are_philox) {
  static const struct {
    uint32_t counter[4], key[2], words[4];
  } known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    const uint64_t seed = (uint64_t)known[i].key[1] << 32 | known[i].key[0];
    struct melu__rng rng = melu__rng(seed, known[i].counter[3], known[i].counter[2], known[i].counter[1]);
    rng.block = known[i].counter[0];
    for (size_t j = 0; j < 4; j++) ck_assert_uint_eq(melu__rng_u32(&rng), known[i].words[j]);
    ck_assert_uint_eq(rng.block, known[i].counter[0] + 1);
  }
}
END_TEST

START_TEST(random_streams_are_apart) {
  struct melu__rng streams[] = {
      melu__rng(1, 1, 1, 1), melu__rng(2, 1, 1, 1), melu__rng(1 | (uint64_t)1 << 32, 1, 1, 1),
      melu__rng(1, 2, 1, 1), melu__rng(1, 1, 2, 1), melu__rng(1, 1, 1, 2),
  };
  enum { N = sizeof streams / sizeof *streams };
  uint64_t first[N];
  struct melu__rng again = streams[0];
  for (size_t i = 0; i < N; i++) {
    first[i] = (uint64_t)melu__rng_u32(&streams[i]) << 32;
    first[i] |= melu__rng_u32(&streams[i]);
    for (size_t j = 0; j < i; j++) ck_assert_uint_ne(first[i], first[j]);
  }
  ck_assert_uint_eq(melu__rng_u32(&again), first[0] >> 32);
  struct melu__rng copy = again;
  for (int i = 0; i < 9; i++) ck_assert_uint_eq(melu__rng_u32(&again), melu__rng_u32(&copy));
}
END_TEST

/* With n = 3 * 2^30, taking a remainder hits the lower third twice as often, and a multiplication without rejection
 * every third value. */
START_TEST(random_below_has_no_bias) {
  struct melu__rng rng = melu__rng(1, 0, 0, 0);
  const uint32_t n = 3u << 30;
  const int draws = 30000;
  int third[3] = {0}, rest[3] = {0};
  for (int i = 0; i < draws; i++) {
    const uint32_t x = melu__rng_below(&rng, n);
    ck_assert_uint_lt(x, n);
    third[x >> 30]++;
    rest[x % 3]++;
  }
  for (int i = 0; i < 3; i++) { /* six standard deviations */
    ck_assert_int_lt(abs(third[i] - draws / 3), 500);
    ck_assert_int_lt(abs(rest[i] - draws / 3), 500);
  }
  for (int i = 0; i < 100; i++) ck_assert_uint_eq(melu__rng_below(&rng, 1), 0);
}
END_TEST

START_TEST(random_reals_have_their_moments) {
  struct melu__rng rng = melu__rng(2, 0, 0, 0);
  const int n = 100000;
  double unit = 0, normal = 0, square = 0, fourth = 0, low = 1, high = 0;
  for (int i = 0; i < n; i++) {
    const double u = melu__rng_unit(&rng), x = melu__rng_normal(&rng);
    ck_assert(u >= 0 && u < 1 && isfinite(x));
    low = u < low ? u : low;
    high = u > high ? u : high;
    unit += u / n;
    normal += x / n;
    square += x * x / n;
    fourth += x * x * x * x / n;
  }
  ck_assert(low < 1e-3 && high > 1 - 1e-3);
  ck_assert_double_eq_tol(unit, 0.5, 0.006);
  ck_assert_double_eq_tol(normal, 0, 0.02);
  ck_assert_double_eq_tol(square, 1, 0.03);
  ck_assert_double_eq_tol(fourth, 3, 0.2);
}
END_TEST

START_TEST(shuffle_gives_every_permutation) {
  struct melu__rng rng = melu__rng(3, 0, 0, 0);
  int count[256] = {0}, n_seen = 0;
  const int n = 24000;
  for (int i = 0; i < n; i++) {
    uint32_t v[4] = {0, 1, 2, 3};
    melu__rng_shuffle(&rng, v, 4);
    ck_assert_uint_eq(1u << v[0] | 1u << v[1] | 1u << v[2] | 1u << v[3], 15);
    count[v[0] << 6 | v[1] << 4 | v[2] << 2 | v[3]]++;
  }
  for (int i = 0; i < 256; i++) {
    if (count[i] == 0) continue;
    n_seen++;
    ck_assert_int_lt(abs(count[i] - n / 24), 190); /* six standard deviations */
  }
  ck_assert_int_eq(n_seen, 24);
  melu__rng_shuffle(&rng, NULL, 0);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ threads */

enum { MAX_TEST_THREADS = 8, MAX_TASKS = 1000 };

struct work {
  struct melu__pool *pool;
  const struct melu_allocator *allocator; /* the pool's */
  size_t n_threads;
  atomic_int done[MAX_TASKS];
  atomic_int busy[MAX_TEST_THREADS]; /* set while a task of that thread number runs */
  atomic_int clashes, inner, inner_clashes;
  atomic_size_t started;
};

static struct melu__pool *new_pool(const struct melu_allocator *a, size_t n_threads) {
  struct melu__pool *pool;
  melu_error err;
  ck_assert_msg(melu__pool_new(&pool, a, n_threads, &err) == MELU_OK, "%s", err.message);
  return pool;
}

static void count_task(void *arg, size_t index, size_t thread) {
  struct work *work = arg;
  if (thread >= work->n_threads || atomic_exchange(&work->busy[thread], 1)) atomic_fetch_add(&work->clashes, 1);
  atomic_fetch_add(&work->done[index], 1);
  if (index % 7 == 0) sched_yield();
  atomic_store(&work->busy[thread], 0);
}

START_TEST(pool_does_every_task_once) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  const size_t threads[] = {2, 3, MAX_TEST_THREADS}, tasks[] = {0, 1, 2, 7, MAX_TASKS};
  for (size_t t = 0; t < 3; t++) {
    struct melu__pool *pool = new_pool(&a, threads[t]);
    const size_t made = heap.made;
    for (size_t i = 0; i < 60; i++) {
      const size_t n_tasks = tasks[i % 5];
      struct work work = {.n_threads = threads[t]};
      melu__pool_run(pool, count_task, &work, n_tasks);
      for (size_t j = 0; j < MAX_TASKS; j++) ck_assert_int_eq(work.done[j], j < n_tasks);
      ck_assert_int_eq(work.clashes, 0);
    }
    ck_assert_uint_eq(heap.made, made);
    melu__pool_free(&a, pool);
  }
  melu__pool_free(&a, NULL);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

/* Each task waits for all the others, so that they end only if every thread works. */
static void meet_task(void *arg, size_t index, size_t thread) {
  struct work *work = arg;
  (void)index;
  if (atomic_exchange(&work->busy[thread], 1)) atomic_fetch_add(&work->clashes, 1);
  atomic_fetch_add(&work->started, 1);
  while (atomic_load(&work->started) < work->n_threads) sched_yield();
}

START_TEST(pool_uses_all_its_threads) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__pool *pool = new_pool(&a, 4);
  for (int i = 0; i < 20; i++) {
    struct work work = {.n_threads = 4};
    melu__pool_run(pool, meet_task, &work, 4);
    ck_assert_int_eq(work.clashes, 0);
    for (size_t t = 0; t < 4; t++) ck_assert_int_eq(work.busy[t], 1);
  }
  melu__pool_free(&a, pool);
}
END_TEST

struct inner {
  struct work *work;
  size_t thread;
};

static void inner_task(void *arg, size_t index, size_t thread) {
  const struct inner *inner = arg;
  (void)index;
  if (thread != inner->thread) atomic_fetch_add(&inner->work->inner_clashes, 1);
  atomic_fetch_add(&inner->work->inner, 1);
}

static void outer_task(void *arg, size_t index, size_t thread) {
  struct work *work = arg;
  struct inner inner = {work, thread};
  count_task(work, index, thread);
  melu__pool_run(work->pool, inner_task, &inner, 5);
}

START_TEST(pool_runs_inside_a_run) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__pool *pool = new_pool(&a, 3);
  struct work work = {.pool = pool, .n_threads = 3};
  melu__pool_run(pool, outer_task, &work, 100);
  ck_assert_int_eq(work.inner, 500);
  ck_assert_int_eq(work.inner_clashes, 0);
  ck_assert_int_eq(work.clashes, 0);
  melu__pool_free(&a, pool);
}
END_TEST

static void round_task(void *arg, size_t index, size_t thread) {
  struct work *work = arg;
  meet_task(work, index, thread);
  if (fegetround() != FE_UPWARD) atomic_fetch_add(&work->clashes, 1);
}

/* Which thread runs a task is not to matter where the caller rounds in its own way. */
START_TEST(pool_rounds_as_its_caller) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__pool *pool = new_pool(&a, 4);
  struct work work = {.n_threads = 4};
  fesetround(FE_UPWARD);
  melu__pool_run(pool, round_task, &work, 4);
  fesetround(FE_TONEAREST);
  ck_assert_int_eq(work.clashes, 0);
  melu__pool_free(&a, pool);
}
END_TEST

/* A child has none of the threads, and the lock of a run may be held by one of them for ever. */
static void fork_inside(void *arg, size_t index, size_t thread) {
  struct work *work = arg;
  struct work own = {.pool = work->pool, .n_threads = 1};
  int status;
  if (index > 0) return;
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    melu__pool_run(own.pool, count_task, &own, 40);
    for (size_t j = 0; j < 40; j++) own.clashes += own.done[j] != 1;
    melu__pool_free(work->allocator, work->pool);
    _exit(own.clashes != 0);
  }
  (void)thread;
  if (waitpid(child, &status, 0) != child || status != 0) atomic_fetch_add(&work->clashes, 1);
}

START_TEST(pool_is_forked) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__pool *pool = new_pool(&a, 3);
  struct work work = {.pool = pool, .allocator = &a, .n_threads = 3};
  for (int i = 0; i < 20; i++) melu__pool_run(pool, fork_inside, &work, 3);
  ck_assert_int_eq(work.clashes, 0);
  melu__pool_free(&a, pool);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

/* As above, by who is in no run; the child ends as processes do, so that what it did is seen by who counts that. */
START_TEST(pool_of_the_parent) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__pool *pool = new_pool(&a, 3);
  struct work work = {.pool = pool, .n_threads = 1};
  int status;
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    melu__pool_run(pool, count_task, &work, 40);
    for (size_t j = 0; j < 40; j++) work.clashes += work.done[j] != 1;
    melu__pool_free(&a, pool);
    exit(work.clashes != 0 || heap.live != 0);
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_int_eq(status, 0);
  melu__pool_free(&a, pool);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

static void *run_many(void *arg) {
  struct work *work = arg;
  for (int i = 0; i < 50; i++) melu__pool_run(work->pool, count_task, work, 40);
  return NULL;
}

START_TEST(pool_is_shared_by_turns) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__pool *pool = new_pool(&a, 3);
  struct work work = {.pool = pool, .n_threads = 3};
  pthread_t others[2];
  for (int i = 0; i < 2; i++) ck_assert_int_eq(pthread_create(&others[i], NULL, run_many, &work), 0);
  run_many(&work);
  for (int i = 0; i < 2; i++) pthread_join(others[i], NULL);
  for (size_t j = 0; j < MAX_TASKS; j++) ck_assert_int_eq(work.done[j], j < 40 ? 150 : 0);
  ck_assert_int_eq(work.clashes, 0); /* also between callers: turns do not overlap */
  melu__pool_free(&a, pool);
}
END_TEST

START_TEST(no_pool_runs_too) {
  struct work work = {.n_threads = 1};
  melu__serial_run(NULL, count_task, &work, 10);
  for (size_t j = 0; j < 20; j++) ck_assert_int_eq(work.done[j], j < 10);
  ck_assert_int_eq(work.clashes, 0);
}
END_TEST

/* The linker puts this in front of pthread_create (--wrap), so that the system can run out of threads. */
static int threads_to_grant = -1;
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
  if (threads_to_grant == 0) return EAGAIN;
  if (threads_to_grant > 0) threads_to_grant--;
  return __real_pthread_create(thread, attr, start, arg);
}

/* And in front of what gives a locale: an error has its message without the system's words for it, if need be. */
static int no_locale;
locale_t __real_newlocale(int mask, const char *name, locale_t base);
locale_t __wrap_newlocale(int mask, const char *name, locale_t base);
locale_t __wrap_newlocale(int mask, const char *name, locale_t base) {
  return no_locale ? (locale_t)0 : __real_newlocale(mask, name, base);
}

START_TEST(error_without_a_locale) {
  melu_error err;
  no_locale = 1;
  ck_assert_int_eq(melu__fail_errno(&err, MELU_EIO, ENOSPC, "cannot write"), MELU_EIO);
  no_locale = 0;
  ck_assert_str_eq(err.message, "cannot write");
  ck_assert_int_eq(err.sys_errno, ENOSPC);
  ck_assert_int_eq(melu__fail_errno(&err, MELU_EIO, ENOSPC, "cannot write"), MELU_EIO);
  ck_assert_str_eq(err.message, "cannot write: No space left on device");
}
END_TEST

/* And in front of what makes locks. */
static int locks_to_grant = -1;
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __real_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);

static int may_make_lock(void) {
  if (locks_to_grant > 0)
    locks_to_grant--;
  else if (locks_to_grant == 0)
    return 0;
  return 1;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr) {
  return may_make_lock() ? __real_pthread_mutex_init(mutex, attr) : ENOMEM;
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr) {
  return may_make_lock() ? __real_pthread_cond_init(cond, attr) : ENOMEM;
}

/* A pool has four. */
START_TEST(context_without_locks_to_have) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .n_threads = 2, .allocator = &a};
  melu_context *ctx = (melu_context *)&heap;
  melu_error err;
  for (int granted = 0; granted < 4; granted++) {
    locks_to_grant = granted;
    ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_ESYSTEM);
    ck_assert_ptr_null(ctx);
    ck_assert_int_eq(err.sys_errno, ENOMEM);
    ck_assert_uint_eq(heap.live, 0);
  }
  locks_to_grant = 4;
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  melu_context_free(ctx);
  locks_to_grant = -1;
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

/* A model has one, for its plans. */
START_TEST(model_without_a_lock_to_have) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &a};
  const struct melu_field field = {.size = sizeof field, .name = "x", .owner = MELU_ITEM, .n_values = 2};
  melu_context *ctx;
  melu_schema *schema;
  melu_model *model = (melu_model *)&heap;
  melu_error err;
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  ck_assert_int_eq(melu_schema_new(&schema, ctx, &err), MELU_OK);
  ck_assert_int_eq(melu_schema_add(schema, &field, &err), MELU_OK);
  const size_t live = heap.live;
  locks_to_grant = 0;
  const melu_status status = melu_model_new(&model, ctx, schema, NULL, &err);
  locks_to_grant = -1;
  ck_assert_int_eq(status, MELU_ENOMEM);
  ck_assert_ptr_null(model);
  ck_assert_uint_eq(heap.live, live);
  melu_schema_free(schema);
  melu_context_free(ctx);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(context_without_threads_to_have) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .n_threads = 5, .allocator = &a};
  melu_context *ctx = (melu_context *)&heap;
  melu_error err;
  for (int granted = 0; granted < 4; granted++) {
    threads_to_grant = granted;
    ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_ESYSTEM);
    ck_assert_ptr_null(ctx);
    ck_assert_int_eq(err.sys_errno, EAGAIN);
    ck_assert_uint_eq(heap.live, 0);
  }
  threads_to_grant = -1;
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  melu_context_free(ctx);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

/* ------------------------------------------------------------------------------------------- vocabularies */

START_TEST(vocabulary_numbers_keys) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__vocab *vocab = melu__vocab_new(&a);
  static const char *const keys[] = {"Drama", "", "Comedy", "drama", "Dram", "a\0b", "a\0c"};
  const size_t sizes[] = {5, 0, 6, 5, 4, 3, 3};
  size_t n_bytes;
  int is_new;
  for (uint32_t i = 0; i < 7; i++) {
    ck_assert_uint_eq(melu__vocab_find(vocab, keys[i], sizes[i]), MELU__NO_INDEX);
    ck_assert_uint_eq(melu__vocab_add(vocab, keys[i], sizes[i], &is_new), i);
    ck_assert_int_eq(is_new, 1);
    ck_assert_uint_eq(melu__vocab_add(vocab, keys[i], sizes[i], &is_new), i);
    ck_assert_int_eq(is_new, 0);
    ck_assert_uint_eq(melu__vocab_add(vocab, keys[i], sizes[i], NULL), i);
  }
  ck_assert_uint_eq(melu__vocab_count(vocab), 7);
  for (uint32_t i = 0; i < 7; i++) {
    ck_assert_uint_eq(melu__vocab_find(vocab, keys[i], sizes[i]), i);
    ck_assert_mem_eq(melu__vocab_key(vocab, i, &n_bytes), keys[i], sizes[i] + 1);
    ck_assert_uint_eq(n_bytes, sizes[i]);
    ck_assert_ptr_nonnull(melu__vocab_key(vocab, i, NULL));
  }
  melu__vocab_free(vocab);
  melu__vocab_free(NULL);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

static uint32_t add_number(struct melu__vocab *vocab, uint64_t number) {
  return melu__vocab_add(vocab, &number, sizeof number, NULL);
}

static uint32_t find_number(const struct melu__vocab *vocab, uint64_t number) {
  return melu__vocab_find(vocab, &number, sizeof number);
}

/* Random additions and removals beside a plain array. */
START_TEST(vocabulary_against_an_array) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__vocab *vocab = melu__vocab_new(&a);
  struct melu__rng rng = melu__rng(4, 0, 0, 0);
  static uint64_t expected[4000];
  uint32_t n = 0;
  for (int round = 0; round < 200; round++) {
    for (int i = 0; i < 60; i++) {
      const uint64_t number = melu__rng_below(&rng, 4000);
      uint32_t at = 0;
      while (at < n && expected[at] != number) at++;
      if (at == n) expected[n++] = number;
      ck_assert_uint_eq(add_number(vocab, number), at);
    }
    if (round % 3 == 0) {
      const uint32_t keep = melu__rng_below(&rng, n + 1);
      melu__vocab_truncate(vocab, round % 30 ? keep : 0);
      n = round % 30 ? keep : 0;
      melu__vocab_truncate(vocab, n + 5); /* nothing to remove */
    }
    ck_assert_uint_eq(melu__vocab_count(vocab), n);
  }
  for (uint64_t number = 0; number < 4000; number++) {
    uint32_t at = 0;
    while (at < n && expected[at] != number) at++;
    ck_assert_uint_eq(find_number(vocab, number), at < n ? at : MELU__NO_INDEX);
  }
  melu__vocab_free(vocab);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(vocabulary_keeps_keys_together) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__vocab *vocab = melu__vocab_new(&a);
  static char large[1 << 20];
  add_number(vocab, 0);
  const char *first = melu__vocab_key(vocab, 0, NULL);
  for (uint64_t i = 1; i < 20000; i++) add_number(vocab, i);
  ck_assert_ptr_eq(melu__vocab_key(vocab, 0, NULL), first); /* readers hold on to keys */
  ck_assert_uint_lt(heap.made, 100);
  ck_assert_uint_eq(melu__vocab_add(vocab, large, sizeof large, NULL), 20000); /* more than a block */
  ck_assert_uint_eq(add_number(vocab, 20000), 20001);
  ck_assert_uint_eq(melu__vocab_find(vocab, large, sizeof large), 20000);
  melu__vocab_truncate(vocab, 1);
  ck_assert_uint_eq(find_number(vocab, 0), 0);
  ck_assert_uint_lt(heap.live, 6); /* the vocabulary, its numbers, its slots, one block */
  melu__vocab_free(vocab);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(vocabulary_copy_is_its_own) {
  struct test_heap heap = {0}, other = {0};
  const struct melu_allocator a = test_allocator(&heap), b = test_allocator(&other);
  struct melu__vocab *vocab = melu__vocab_new(&a);
  for (uint64_t i = 0; i < 500; i++) add_number(vocab, i * i);
  struct melu__vocab *copy = melu__vocab_copy(vocab, &b);
  melu__vocab_truncate(vocab, 3);
  ck_assert_uint_eq(melu__vocab_count(copy), 500);
  for (uint64_t i = 0; i < 500; i++) ck_assert_uint_eq(find_number(copy, i * i), i);
  ck_assert_uint_eq(add_number(copy, 2), 500);
  ck_assert_uint_eq(find_number(vocab, 2), MELU__NO_INDEX);
  melu__vocab_free(vocab);
  ck_assert_uint_eq(heap.live, 0);
  melu__vocab_free(copy);
  ck_assert_uint_eq(other.live, 0);
}
END_TEST

/* Half a million keys of one hash, if it were the same in every process: each would be compared with all others, until
 * the time is up. */
START_TEST(vocabulary_is_not_flooded) {
  enum { N = 500000 };
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__vocab *vocab = melu__vocab_new(&a);
  for (uint32_t i = 0; i < N; i++) {
    const uint64_t number = flood_number(i);
    if (i % 1000 == 0) ck_assert_uint_eq((uint32_t)XXH3_64bits(&number, sizeof number), FLOOD_HASH);
    ck_assert_uint_eq(add_number(vocab, number), i);
  }
  for (uint32_t i = 0; i < N; i++) ck_assert_uint_eq(find_number(vocab, flood_number(i)), i);
  melu__vocab_truncate(vocab, 0);
  melu__vocab_free(vocab);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

/* Keys of one hash, as they might be found by who knows the seed, are still told apart: by their lengths, and by their
 * bytes. XXH3 of 16 bytes adds two words after it has multiplied them; of which one is 0 here, and the other the sum.
 */
START_TEST(vocabulary_tells_one_hash_apart) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  struct melu__vocab *vocab = melu__vocab_new_seeded(&a, 0);
  const uint64_t sum = 0x0123456789abcdefu, low = XXH_readLE64(XXH3_kSecret + 24) ^ XXH_readLE64(XXH3_kSecret + 32),
                 high = XXH_readLE64(XXH3_kSecret + 40) ^ XXH_readLE64(XXH3_kSecret + 48);
  const uint64_t keys[2][2] = {{low, high ^ sum}, {low ^ XXH_swap64(sum), high}};
  const uint64_t hash = XXH3_64bits(keys[0], sizeof keys[0]), shorter = flood_number_of(hash);
  ck_assert_uint_eq(XXH3_64bits(keys[1], sizeof keys[1]), hash);
  ck_assert_uint_eq(XXH3_64bits(&shorter, sizeof shorter), hash);
  ck_assert_uint_eq(melu__vocab_add(vocab, keys[0], sizeof keys[0], NULL), 0);
  ck_assert_uint_eq(find_number(vocab, shorter), MELU__NO_INDEX);
  ck_assert_uint_eq(add_number(vocab, shorter), 1);
  ck_assert_uint_eq(melu__vocab_find(vocab, keys[1], sizeof keys[1]), MELU__NO_INDEX);
  ck_assert_uint_eq(melu__vocab_add(vocab, keys[1], sizeof keys[1], NULL), 2);
  for (uint32_t i = 0; i < 2; i++) ck_assert_uint_eq(melu__vocab_find(vocab, keys[i], sizeof keys[i]), 2 * i);
  melu__vocab_free(vocab);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(vocabulary_without_memory) {
  enum { N = 400 }; /* its slots have become more by then */
  size_t n_failures = 0;
  for (size_t fail_at = 1;; fail_at++) {
    struct test_heap heap = {.fail_at = fail_at};
    const struct melu_allocator a = test_allocator(&heap);
    struct melu__vocab *vocab = melu__vocab_new(&a);
    if (!vocab) vocab = melu__vocab_new(&a);
    for (uint64_t i = 0; i < N; i++) {
      if (add_number(vocab, i) == i) continue;
      ck_assert_uint_eq(melu__vocab_count(vocab), i);
      ck_assert_uint_eq(find_number(vocab, i), MELU__NO_INDEX);
      for (uint64_t j = 0; j < i; j++) ck_assert_uint_eq(find_number(vocab, j), j);
      ck_assert_uint_eq(add_number(vocab, i), i);
    }
    for (uint64_t i = 0; i < N; i++) ck_assert_uint_eq(find_number(vocab, i), i);
    const int was_hit = heap.made >= fail_at;
    heap.fail_at += heap.made;
    struct melu__vocab *copy = melu__vocab_copy(vocab, &a);
    if (copy) ck_assert_uint_eq(melu__vocab_count(copy), N);
    melu__vocab_free(copy);
    melu__vocab_truncate(vocab, 0);
    ck_assert_uint_eq(heap.live, 3); /* the vocabulary, its numbers and its slots: no room stayed behind */
    melu__vocab_free(vocab);
    ck_assert_uint_eq(heap.live, 0);
    if (!was_hit) break;
    n_failures++;
  }
  ck_assert_uint_gt(n_failures, 10);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ context */

static void a_run(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                  size_t n_tasks) {
  (void)arg;
  for (size_t i = n_tasks; i-- > 0;) task(task_arg, i, 0);
}

START_TEST(context_refuses_bad_options) {
  struct test_heap heap = {0};
  const struct melu_allocator whole = test_allocator(&heap), no_free = {&heap, whole.alloc, NULL},
                              no_alloc = {&heap, NULL, whole.free};
  const struct melu_runner no_run = {NULL, 2, NULL}, no_threads = {NULL, 0, a_run}, many_threads = {NULL, 1025, a_run};
  const struct {
    struct melu_context_options options;
    melu_status status;
  } bad[] = {
      {{.size = 0}, MELU_EINVAL},
      {{.size = sizeof bad[0].options, .allocator = &no_free}, MELU_EINVAL},
      {{.size = sizeof bad[0].options, .allocator = &no_alloc}, MELU_EINVAL},
      {{.size = sizeof bad[0].options, .allocator = &whole, .runner = &no_run}, MELU_EINVAL},
      {{.size = sizeof bad[0].options, .allocator = &whole, .runner = &no_threads}, MELU_EINVAL},
      {{.size = sizeof bad[0].options, .allocator = &whole, .runner = &many_threads}, MELU_ELIMIT},
      {{.size = sizeof bad[0].options, .allocator = &whole, .n_threads = 1025}, MELU_ELIMIT},
      {{.size = sizeof bad[0].options, .allocator = &whole, .kernels = "quantum"}, MELU_EINVAL},
      {{.size = sizeof bad[0].options, .allocator = &whole, .kernels = ""}, MELU_EINVAL},
  };
  melu_error err;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    melu_context *ctx = (melu_context *)&heap;
    ck_assert_int_eq(melu_context_new(&ctx, &bad[i].options, &err), bad[i].status);
    ck_assert_ptr_null(ctx);
    ck_assert_int_eq(err.status, bad[i].status);
    ck_assert_uint_gt(strlen(err.message), 10);
    ck_assert_int_eq(melu_context_new(&ctx, &bad[i].options, NULL), bad[i].status);
    ck_assert_uint_eq(heap.live, 0);
  }
  ck_assert_int_eq(melu_context_new(NULL, NULL, &err), MELU_EINVAL);
  melu_context_free(NULL);
  ck_assert_ptr_nonnull(melu_build_info(NULL));
}
END_TEST

static int stop_at_seven(void *arg, const struct melu_progress *progress) {
  ++*(int *)arg;
  return progress->done == 7;
}

START_TEST(context_keeps_what_the_host_gave) {
  struct test_heap heap = {0};
  const struct melu_allocator a = test_allocator(&heap);
  const struct melu_runner runner = {&heap, 3, a_run};
  int n_calls = 0;
  const struct melu_context_options options = {.size = sizeof options,
                                               .n_threads = 8,
                                               .allocator = &a,
                                               .runner = &runner,
                                               .progress = stop_at_seven,
                                               .progress_arg = &n_calls,
                                               .kernels = "base",
                                               .max_file_bytes = 99};
  melu_context *ctx;
  melu_error err;
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  ck_assert_ptr_eq(ctx->runner.arg, &heap);
  ck_assert_uint_eq(ctx->runner.n_threads, 3);
  ck_assert_ptr_null(ctx->pool); /* the host's threads are enough */
  ck_assert_uint_eq(ctx->max_file_bytes, 99);
  ck_assert_ptr_nonnull(strstr(melu_build_info(ctx), melu_version()));
  ck_assert_ptr_nonnull(strstr(melu_build_info(ctx), "base"));
  struct melu_progress progress = {.phase = "fit", .done = 6};
  ck_assert_int_eq(melu__progress(ctx, &progress, &err), MELU_OK);
  progress.done = 7;
  ck_assert_int_eq(melu__progress(ctx, &progress, &err), MELU_ECANCELED);
  ck_assert_int_eq(n_calls, 2);
  melu_context_free(ctx);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(context_has_defaults) {
  melu_context *ctx;
  melu_error err;
  ck_assert_int_eq(melu_context_new(&ctx, NULL, &err), MELU_OK);
  ck_assert_uint_eq(ctx->runner.n_threads, 1);
  ck_assert_ptr_null(ctx->pool);
  ck_assert(ctx->max_file_bytes == (size_t)((uint64_t)4 << 30) || ctx->max_file_bytes == SIZE_MAX);
  const struct melu_progress progress = {.phase = "fit", .done = 7};
  ck_assert_int_eq(melu__progress(ctx, &progress, &err), MELU_OK);
  melu_context_free(ctx);
  const struct melu_context_options options = {.size = sizeof options, .n_threads = 4};
  ck_assert_int_eq(melu_context_new(&ctx, &options, &err), MELU_OK);
  ck_assert_uint_eq(ctx->runner.n_threads, 4);
  struct work work = {.n_threads = 4};
  ctx->runner.run(ctx->runner.arg, meet_task, &work, 4);
  ck_assert_int_eq(work.clashes, 0);
  melu_context_free(ctx);
}
END_TEST

START_TEST(context_without_memory) {
  for (size_t fail_at = 1;; fail_at++) {
    struct test_heap heap = {.fail_at = fail_at};
    const struct melu_allocator a = test_allocator(&heap);
    const struct melu_context_options options = {.size = sizeof options, .n_threads = 3, .allocator = &a};
    melu_context *ctx = (melu_context *)&heap;
    melu_error err;
    const melu_status status = melu_context_new(&ctx, &options, &err);
    if (heap.made < fail_at) {
      ck_assert_int_eq(status, MELU_OK);
      ck_assert_uint_ge(fail_at, 4); /* the context, the pool, its workers */
      melu_context_free(ctx);
      ck_assert_uint_eq(heap.live, 0);
      break;
    }
    ck_assert_int_eq(status, MELU_ENOMEM);
    ck_assert_ptr_null(ctx);
    ck_assert_uint_eq(heap.live, 0);
  }
}
END_TEST

static void add_case(Suite *suite, const char *name, const TTest *const *tests, size_t n) {
  TCase *tcase = tcase_create(name);
  tcase_set_timeout(tcase, 60);
  for (size_t i = 0; i < n; i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
}

#define CASE(name, ...)                                              \
  do {                                                               \
    const TTest *const tests_[] = {__VA_ARGS__};                     \
    add_case(suite, (name), tests_, sizeof tests_ / sizeof *tests_); \
  } while (0)

int main(void) {
  Suite *suite = suite_create("base");
  CASE("error", status_has_its_name, version_is_that_of_the_header, error_is_filled, error_of_any_length_or_none);
  CASE("memory", sizes_saturate, memory_is_aligned_and_counted, memory_too_large_is_not_asked_for,
       array_grows_or_stays);
  CASE("options", options_of_an_older_host, options_of_a_newer_host, options_without_a_size, options_for_any_host);
  CASE("rng", random_numbers_are_philox, random_streams_are_apart, random_below_has_no_bias,
       random_reals_have_their_moments, shuffle_gives_every_permutation);
  CASE("parallel", pool_does_every_task_once, pool_uses_all_its_threads, pool_runs_inside_a_run,
       pool_is_shared_by_turns, pool_rounds_as_its_caller, pool_is_forked, pool_of_the_parent, no_pool_runs_too);
  CASE("number", numbers_are_rounded_to_the_nearest, numbers_are_shown, numbers_are_shown_anywhere);
  CASE("vocab", vocabulary_numbers_keys, vocabulary_against_an_array, vocabulary_keeps_keys_together,
       vocabulary_copy_is_its_own, vocabulary_is_not_flooded, vocabulary_tells_one_hash_apart,
       vocabulary_without_memory);
  CASE("context", context_refuses_bad_options, context_keeps_what_the_host_gave, context_has_defaults,
       context_without_memory, context_without_threads_to_have, context_without_locks_to_have, error_without_a_locale,
       model_without_a_lock_to_have);
  return run_suite(suite);
}
