/* SPDX-License-Identifier: BSD-3-Clause */
/* Slots and their tree; the ranks of a group, and what they do when one of them fails, is late or is gone. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/ranks.h"
#include "base/slots.h"
#include "collective.h"
#include "gang.h"
#include "run_suite.h"
#include "support.h"
#include "world.h"

static melu_error err;

/* --------------------------------------------------------------------------------------------------- slots */

START_TEST(slots_of_users) {
  ck_assert_uint_eq(melu_slot(17, 0), 0);
  ck_assert_uint_eq(melu_slot(17, 1), 0);
  /* By the reference implementation of SplitMix64: its first number after the seed 0, and after 1. */
  ck_assert_uint_eq(melu_slot(0, 1000), 0xe220a8397b1dcdafu % 1000);
  ck_assert_uint_eq(melu_slot(1, 1000), 0x910a2dec89025cc1u % 1000);
  size_t counts[7] = {0};
  for (uint64_t id = 0; id < 7000; id++) counts[melu_slot(id, 7)]++;
  for (size_t s = 0; s < 7; s++) ck_assert(counts[s] > 900 && counts[s] < 1100);
}
END_TEST

static melu_context context_of(size_t n_slots, size_t n_ranks, size_t rank) {
  return (melu_context){.n_slots = n_slots, .collective = {.rank = (uint32_t)rank, .n_ranks = (uint32_t)n_ranks}};
}

START_TEST(every_slot_has_one_rank) {
  for (size_t n_slots = 1; n_slots < 70; n_slots++)
    for (size_t n_ranks = 1; n_ranks <= n_slots; n_ranks++) {
      size_t next = 0;
      for (size_t r = 0; r < n_ranks; r++) {
        const melu_context ctx = context_of(n_slots, n_ranks, r);
        const struct melu__slots own = melu__own_slots(&ctx);
        int is_good = own.lo == next && own.hi > own.lo;
        for (size_t s = own.lo; s < own.hi; s++) is_good &= melu__rank_of_slot(&ctx, s) == r;
        ck_assert_msg(is_good, "rank %zu of %zu has slots %u to %u of %zu", r, n_ranks, own.lo, own.hi, n_slots);
        next = own.hi;
      }
      ck_assert_uint_eq(next, n_slots);
    }
}
END_TEST

/* A sum as text: which terms, in which brackets. */
struct text {
  char text[512];
};

static void add_texts(void *arg, size_t into, size_t from) {
  struct text *terms = arg, sum;
  snprintf(sum.text, sizeof sum.text, "(%.240s+%.240s)", terms[into].text, terms[from].text);
  terms[into] = sum;
}

static const char *tree_text(struct text *terms, const int *is_there, size_t n_slots) {
  struct melu__slots nodes[16];
  size_t n = 0;
  for (size_t s = 0; s < n_slots; s++)
    if (is_there[s]) {
      nodes[n] = (struct melu__slots){(uint32_t)s, (uint32_t)s + 1};
      snprintf(terms[n++].text, sizeof terms->text, "%zu", s);
    }
  melu__tree_sum(n_slots, nodes, n, add_texts, terms);
  return terms[0].text;
}

START_TEST(tree_of_a_sum) {
  struct text terms[16];
  const int all[16] = {1, 1, 1, 1, 1, 1, 1, 1}, some[16] = {1, 0, 0, 1, 0, 0, 1, 1}, last[16] = {[10] = 1};
  ck_assert_str_eq(tree_text(terms, all, 1), "0");
  ck_assert_str_eq(tree_text(terms, all, 4), "((0+1)+(2+3))");
  ck_assert_str_eq(tree_text(terms, all, 7), "((0+(1+2))+((3+4)+(5+6)))");
  ck_assert_str_eq(tree_text(terms, some, 8), "((0+3)+(6+7))");
  ck_assert_str_eq(tree_text(terms, last, 11), "10");
  const double numbers[3] = {1e16, 1, 1};
  ck_assert(melu__tree_sum_numbers(numbers, 3) == 1e16 + 2);
  ck_assert(melu__tree_sum_numbers(numbers, 1) == 1e16);
}
END_TEST

/* Whoever adds up what, and whichever slots have nothing: the same brackets. */
START_TEST(tree_in_parts) {
  uint64_t random = 1;
  for (size_t trial = 0; trial < test_trials(3000); trial++) {
    const size_t n_slots = 1 + world_random(&random) % 14, n_ranks = 1 + world_random(&random) % n_slots;
    struct text whole[16], parts[16], own[16];
    struct melu__slots nodes[16];
    int is_there[16];
    size_t n = 0;
    for (size_t s = 0; s < n_slots; s++) is_there[s] = world_random(&random) % 4 != 0;
    is_there[world_random(&random) % n_slots] = 1;
    const char *expected = tree_text(whole, is_there, n_slots);
    for (size_t r = 0; r < n_ranks; r++) {
      const melu_context ctx = context_of(n_slots, n_ranks, r);
      struct melu__slots largest[MELU__MAX_NODES];
      const size_t n_largest = melu__largest_nodes(largest, n_slots, melu__own_slots(&ctx));
      for (size_t k = 0; k < n_largest; k++) {
        int inside[16] = {0}, any = 0;
        for (size_t s = largest[k].lo; s < largest[k].hi; s++) any |= inside[s] = is_there[s];
        if (!any) continue;
        tree_text(own, inside, n_slots);
        nodes[n] = largest[k];
        parts[n++] = own[0];
      }
    }
    melu__tree_sum(n_slots, nodes, n, add_texts, parts);
    ck_assert_str_eq(parts[0].text, expected);
  }
}
END_TEST

/* ------------------------------------------------------------------------------------------ a group's calls */

START_TEST(calls_of_a_group) {
  gang_run((size_t)_i, 0, collective_calls, NULL);
}
END_TEST

START_TEST(failures_of_a_group) {
  const struct collective_failure *failure = &collective_failures[_i];
  for (size_t n = 2; n <= COLLECTIVE_RANKS; n *= 2) gang_run(n, failure->time_limit, failure->run, NULL);
}
END_TEST

/* -------------------------------------------------------------------------------------------- groups as such */

static int locks_to_grant = -1;
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __real_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);

static int may_make_lock(void) {
  if (locks_to_grant > 0) locks_to_grant--;
  return locks_to_grant != 0;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr) {
  return may_make_lock() ? __real_pthread_mutex_init(mutex, attr) : ENOMEM;
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr) {
  return may_make_lock() ? __real_pthread_cond_init(cond, attr) : ENOMEM;
}

START_TEST(groups_without_what_they_need) {
  struct test_heap heap = {.fail_at = 1};
  const struct melu_allocator a = test_allocator(&heap);
  const struct melu_group_options options = {.size = sizeof options, .allocator = &a};
  melu_group *group = (melu_group *)&heap;
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_ENOMEM);
  ck_assert_ptr_null(group);
  for (int granted = 1; granted < 3; granted++) {
    locks_to_grant = granted;
    ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_ESYSTEM);
    ck_assert_int_eq(err.sys_errno, ENOMEM);
    ck_assert_ptr_null(group);
    ck_assert_uint_eq(heap.live, 0);
  }
  locks_to_grant = -1;
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_OK);
  ck_assert_uint_eq(heap.live, 1);
  melu_group_free(group);
  ck_assert_uint_eq(heap.live, 0);
}
END_TEST

START_TEST(groups_refuse_nonsense) {
  struct melu_group_options options = {.size = sizeof options, .time_limit = -1};
  const struct melu_allocator half = {.arg = NULL};
  struct melu_collective c = {.size = sizeof c};
  melu_group *group;
  ck_assert_int_eq(melu_group_new(NULL, 2, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_group_new(&group, 0, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_group_new(&group, 65, NULL, &err), MELU_ELIMIT);
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_EINVAL);
  options.time_limit = (double)NAN;
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_EINVAL);
  options.time_limit = 1e9;
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_EINVAL);
  options.time_limit = 0;
  options.allocator = &half;
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_EINVAL);
  options.allocator = NULL;
  options.size = 1;
  ck_assert_int_eq(melu_group_new(&group, 2, &options, &err), MELU_EINVAL);
  ck_assert_ptr_null(group);
  ck_assert_int_eq(melu_group_new(&group, 2, NULL, &err), MELU_OK);
  ck_assert_int_eq(melu_group_member(NULL, group, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_group_member(&c, NULL, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_group_member(&c, group, 2, &err), MELU_EINVAL);
  c.size = 0;
  ck_assert_int_eq(melu_group_member(&c, group, 1, &err), MELU_EINVAL);
  melu_group_leave(NULL, 0);
  melu_group_leave(group, 99);
  melu_group_free(group);
  melu_group_free(NULL);
}
END_TEST

static melu_status context_with(const struct melu_collective *collective, size_t n_slots) {
  const struct melu_context_options options = {.size = sizeof options, .collective = collective, .n_slots = n_slots};
  melu_context *ctx;
  const melu_status status = melu_context_new(&ctx, &options, &err);
  ck_assert_int_eq(status == MELU_OK, ctx != NULL);
  melu_context_free(ctx);
  return status;
}

START_TEST(contexts_of_ranks) {
  melu_group *group;
  struct melu_collective good = {.size = sizeof good}, c;
  ck_assert_int_eq(melu_group_new(&group, 17, NULL, &err), MELU_OK);
  ck_assert_int_eq(melu_group_member(&good, group, 3, &err), MELU_OK);
  ck_assert_int_eq(context_with(NULL, 65535), MELU_OK);
  ck_assert_int_eq(context_with(NULL, 65536), MELU_ELIMIT);
  ck_assert_int_eq(context_with(&good, 17), MELU_OK);
  ck_assert_int_eq(context_with(&good, 0), MELU_EINVAL); /* 16 slots */
  ck_assert_msg(strstr(err.message, "17 ranks, more than the 16 slots"), "%s", err.message);
#define REFUSED(change) \
  c = good;             \
  change;               \
  ck_assert_int_eq(context_with(&c, 17), MELU_EINVAL)
  REFUSED(c.size = 3);
  REFUSED(c.rank = 17);
  REFUSED(c.n_ranks = 0);
  REFUSED(c.all_gather = NULL);
  REFUSED(c.all_to_all_begin = NULL);
  REFUSED(c.all_to_all_end = NULL);
  REFUSED(c.reduce = NULL);
  REFUSED(c.barrier = NULL);
  c = (struct melu_collective){.size = sizeof c, .n_ranks = 1};
  ck_assert_int_eq(context_with(&c, 0), MELU_OK); /* who is alone needs no function */
  melu_group_free(group);
}
END_TEST

/* ---------------------------------------------------------------------------------------------- agreements */

static void agree_on_failures(const struct gang_rank *self) {
  melu_context ctx = {.collective = self->collective};
  struct melu__ranks ranks = melu__ranks_begin(&ctx);
  melu_error e = {.status = MELU_OK};
  ck_assert_int_eq(melu__ranks_agree(&ranks, MELU_OK, &e), MELU_OK);
  ck_assert_int_eq(e.status, MELU_OK);
  const melu_status mine = self->rank >= 2 ? MELU_ERANGE : MELU_OK;
  if (mine) e = (melu_error){.status = mine, .index = self->rank, .line = 7, .sys_errno = EIO};
  if (mine) snprintf(e.message, sizeof e.message, "%0225d, %d", 0, (int)self->rank);
  ck_assert_int_eq(melu__ranks_agree(&ranks, mine, &e), MELU_ERANGE);
  ck_assert_int_eq(e.status, MELU_ERANGE);
  ck_assert_uint_eq(e.index, 2);
  ck_assert_uint_eq(e.line, 7);
  ck_assert_int_eq(e.sys_errno, EIO);
  ck_assert_int_eq(strncmp(e.message, "rank 2: 000", 11), 0);
  ck_assert_uint_eq(strlen(e.message), sizeof e.message - 1);
}

START_TEST(ranks_agree_on_the_first_failure) {
  gang_run(5, 0, agree_on_failures, NULL);
}
END_TEST

/* A host's collective that fails. */
struct failing {
  melu_status status;
  const char *message;
  size_t n_calls;
};

static melu_status fail_barrier(void *arg, melu_error *e) {
  struct failing *f = arg;
  f->n_calls++;
  if (f->message) snprintf(e->message, sizeof e->message, "%s", f->message);
  return f->status;
}

static melu_status fail_gather(void *arg, void *all, const size_t *counts, melu_error *e) {
  (void)all;
  (void)counts;
  return fail_barrier(arg, e);
}

START_TEST(nothing_is_called_after_a_failure) {
  static const struct {
    struct failing failing;
    melu_status status;
    const char *message;
  } cases[] = {{{(melu_status)3, NULL, 0}, MELU_EPEER, "the host's collective failed"},
               {{(melu_status)3, "out of reach", 0}, MELU_EPEER, "out of reach"},
               {{MELU_ESYSTEM, "no wire", 0}, MELU_EPEER, "no wire"},
               {{MELU_OK, "fine", 0}, MELU_OK, ""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct failing failing = cases[i].failing;
    melu_context ctx = {
        .collective = {.arg = &failing, .n_ranks = 2, .barrier = fail_barrier, .all_gather = fail_gather}};
    struct melu__ranks ranks = melu__ranks_begin(&ctx);
    melu_error e = {.status = MELU_OK};
    ck_assert_int_eq(melu__ranks_barrier(&ranks, &e), cases[i].status);
    ck_assert_int_eq(e.status, cases[i].status);
    ck_assert_str_eq(e.message, cases[i].message);
    e.status = MELU_OK;
    ck_assert_int_eq(melu__ranks_gather(&ranks, NULL, NULL, &e), cases[i].status);
    ck_assert_int_eq(e.status, cases[i].status);
    ck_assert_uint_eq(failing.n_calls, cases[i].status ? 1 : 2);
    if (!cases[i].status) continue;
    ck_assert_int_eq(melu__ranks_agree(&ranks, MELU_OK, &e), cases[i].status);
    ck_assert_int_eq(melu__ranks_send(&ranks, NULL, NULL, &e), cases[i].status);
    ck_assert_int_eq(melu__ranks_receive(&ranks, NULL), cases[i].status);
  }
}
END_TEST

START_TEST(who_is_alone_calls_nobody) {
  melu_context ctx = {.collective = {.n_ranks = 1}};
  struct melu__ranks ranks = melu__ranks_begin(&ctx);
  melu_error e = {.status = MELU_ELIMIT, .message = "as it was"};
  ck_assert_int_eq(melu__ranks_barrier(&ranks, &e), MELU_OK);
  ck_assert_int_eq(melu__ranks_gather(&ranks, NULL, NULL, &e), MELU_OK);
  ck_assert_int_eq(melu__ranks_send(&ranks, NULL, NULL, &e), MELU_OK);
  ck_assert_int_eq(melu__ranks_receive(&ranks, &e), MELU_OK);
  ck_assert_int_eq(melu__ranks_agree(&ranks, MELU_ELIMIT, &e), MELU_ELIMIT);
  ck_assert_str_eq(e.message, "as it was");
}
END_TEST

int main(void) {
  Suite *s = suite_create("ranks");
  TCase *t = tcase_create("ranks");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, slots_of_users);
  tcase_add_test(t, every_slot_has_one_rank);
  tcase_add_test(t, tree_of_a_sum);
  tcase_add_test(t, tree_in_parts);
  tcase_add_loop_test(t, calls_of_a_group, 1, COLLECTIVE_RANKS + 1);
  tcase_add_loop_test(t, failures_of_a_group, 0, COLLECTIVE_FAILURES);
  tcase_add_test(t, groups_without_what_they_need);
  tcase_add_test(t, groups_refuse_nonsense);
  tcase_add_test(t, contexts_of_ranks);
  tcase_add_test(t, ranks_agree_on_the_first_failure);
  tcase_add_test(t, nothing_is_called_after_a_failure);
  tcase_add_test(t, who_is_alone_calls_nobody);
  suite_add_tcase(s, t);
  return run_suite(s);
}
