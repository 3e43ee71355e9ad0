/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranks that are threads of one process. In each collective call a member says what it brings and waits until all have;
 * then it takes what it needs where the others have it, and waits until all have taken theirs. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/error.h"

enum { MAX_MEMBERS = 64 };

enum call { ALL_GATHER, ALL_TO_ALL, REDUCE, BARRIER };
static const char *const call_names[] = {"all_gather", "all_to_all", "reduce", "barrier"};

struct member {
  melu_group *group;
  size_t rank;
  unsigned long meeting; /* the last one that it came to */
  enum call call;        /* for which it came */
  const void *brought;   /* all_gather: all parts; all_to_all: its messages; reduce: its value */
  struct melu_message *in;
  int is_to_take; /* has not taken yet what was brought to the last meeting */
};

struct melu_group {
  struct melu_allocator allocator;
  size_t n_ranks;
  double time_limit;
  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t change;
  unsigned long meeting; /* the last one that all came to */
  size_t n_come;         /* to the next one */
  size_t n_taking;       /* members that are just reading what others brought */
  melu_error broken;     /* why no call succeeds any more, if its status is not 0 */
  union {
    max_align_t align;
    char bytes[MELU_MAX_REDUCE];
  } folded;
  struct member members[MAX_MEMBERS];
};

/* ---------------------------------------------------------------------------- meeting, with the lock held */

static void break_up(melu_group *g, const melu_error *why) {
  if (!g->broken.status) g->broken = *why;
  pthread_cond_broadcast(&g->change);
}

static struct timespec in_seconds(double seconds) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  const double end = (double)t.tv_nsec * 1e-9 + seconds;
  t.tv_sec += (time_t)end;
  t.tv_nsec = (long)((end - (double)(time_t)end) * 1e9);
  return t;
}

static int has_come(const struct member *m, const struct member *other) {
  return other->meeting >= m->meeting;
}

static int has_taken(const struct member *m, const struct member *other) {
  (void)m;
  return !other->is_to_take;
}

/* Until that is so of all members. */
static void wait_until(int (*is_so)(const struct member *m, const struct member *other), const struct member *m) {
  melu_group *g = m->group;
  const struct timespec end = in_seconds(g->time_limit);
  int is_late = 0;
  melu_error why;
  for (size_t r = 0; r < g->n_ranks && !g->broken.status;) {
    if (is_so(m, &g->members[r])) {
      r++;
    } else if (is_late) {
      melu__fail(&why, MELU_EPEER, "rank %zu did not come within %g seconds", r, g->time_limit);
      break_up(g, &why);
    } else {
      is_late = pthread_cond_timedwait(&g->change, &g->lock, &end) != 0;
    }
  }
}

static void check_calls(const struct member *m) {
  melu_error why;
  for (size_t r = 0; r < m->group->n_ranks; r++) {
    const struct member *other = &m->group->members[r];
    if (other->meeting != m->meeting || other->call == m->call) continue;
    melu__fail(&why, MELU_EPEER, "rank %zu makes the collective call %s, and rank %zu %s", m->rank, call_names[m->call],
               r, call_names[other->call]);
    break_up(m->group, &why);
  }
}

struct folding {
  size_t n;
  melu_fold_fn fold;
};

static void fold_all(melu_group *g, const struct folding *f) {
  memcpy(g->folded.bytes, g->members[0].brought, f->n);
  for (size_t r = 1; r < g->n_ranks; r++) f->fold(g->folded.bytes, g->members[r].brought);
}

/* To the next meeting. The last one to come does for all what only one is to do. */
static void come(struct member *m, enum call call, const void *brought, const struct folding *folding) {
  melu_group *g = m->group;
  if (g->broken.status) return;
  m->meeting = g->meeting + 1;
  m->call = call;
  m->brought = brought;
  check_calls(m);
  if (++g->n_come < g->n_ranks) return;
  if (folding) fold_all(g, folding);
  for (size_t r = 0; r < g->n_ranks; r++) g->members[r].is_to_take = call == ALL_GATHER || call == ALL_TO_ALL;
  g->n_come = 0;
  g->meeting++;
  pthread_cond_broadcast(&g->change);
}

/* The end of a call: nobody may go while others read what was brought. */
static melu_status leave_meeting(melu_group *g, melu_error *err) {
  while (g->n_taking) pthread_cond_wait(&g->change, &g->lock);
  const melu_status status = g->broken.status;
  if (status) *err = g->broken;
  pthread_mutex_unlock(&g->lock);
  return status;
}

/* Once all have come: copies what the member is to have. */
static melu_status take(struct member *m, melu_status (*copy)(const struct member *m, const void *arg, melu_error *err),
                        const void *arg, melu_error *err) {
  melu_group *g = m->group;
  melu_error why;
  wait_until(has_come, m);
  if (!g->broken.status) {
    g->n_taking++;
    pthread_mutex_unlock(&g->lock);
    const melu_status status = copy(m, arg, &why);
    pthread_mutex_lock(&g->lock);
    m->is_to_take = 0;
    if (--g->n_taking == 0) pthread_cond_broadcast(&g->change);
    if (status) break_up(g, &why);
    wait_until(has_taken, m);
  }
  return leave_meeting(g, err);
}

/* ------------------------------------------------------------------------------------------ the collective */

static melu_status copy_parts(const struct member *m, const void *arg, melu_error *err) {
  const size_t *counts = arg;
  char *all = (char *)(uintptr_t)m->brought;
  (void)err;
  for (size_t r = 0, at = 0; r < m->group->n_ranks; at += counts[r++])
    if (r != m->rank && counts[r]) memcpy(all + at, (const char *)m->group->members[r].brought + at, counts[r]);
  return MELU_OK;
}

static melu_status all_gather(void *arg, void *all, const size_t *counts, melu_error *err) {
  struct member *m = arg;
  pthread_mutex_lock(&m->group->lock);
  come(m, ALL_GATHER, all, NULL);
  return take(m, copy_parts, counts, err);
}

static melu_status all_to_all_begin(void *arg, const struct melu_message *out, struct melu_message *in,
                                    melu_error *err) {
  struct member *m = arg;
  pthread_mutex_lock(&m->group->lock);
  m->in = in;
  come(m, ALL_TO_ALL, out, NULL);
  const melu_status status = m->group->broken.status;
  if (status) *err = m->group->broken;
  pthread_mutex_unlock(&m->group->lock);
  return status;
}

static melu_status copy_messages(const struct member *m, const void *arg, melu_error *err) {
  (void)arg;
  for (size_t r = 0; r < m->group->n_ranks; r++) {
    const struct melu_message *message = (const struct melu_message *)m->group->members[r].brought + m->rank;
    struct melu_message *in = &m->in[r];
    if (r == m->rank) continue;
    if (message->n > in->n)
      return melu__fail(err, MELU_EPEER, "rank %zu sends rank %zu %zu bytes, more than the %zu that it has room for", r,
                        m->rank, message->n, in->n);
    if (message->n) memcpy(in->bytes, message->bytes, message->n);
    in->n = message->n;
  }
  return MELU_OK;
}

static melu_status all_to_all_end(void *arg, melu_error *err) {
  struct member *m = arg;
  pthread_mutex_lock(&m->group->lock);
  return take(m, copy_messages, NULL, err);
}

static melu_status reduce(void *arg, void *value, size_t n, melu_fold_fn fold, melu_error *err) {
  struct member *m = arg;
  const struct folding folding = {n, fold};
  pthread_mutex_lock(&m->group->lock);
  come(m, REDUCE, value, &folding);
  wait_until(has_come, m);
  if (!m->group->broken.status) memcpy(value, m->group->folded.bytes, n);
  return leave_meeting(m->group, err);
}

static melu_status barrier(void *arg, melu_error *err) {
  struct member *m = arg;
  pthread_mutex_lock(&m->group->lock);
  come(m, BARRIER, NULL, NULL);
  wait_until(has_come, m);
  return leave_meeting(m->group, err);
}

/* --------------------------------------------------------------------------------------------------- life */

/* 0 or errno. */
static int init_locks(melu_group *g) {
  pthread_condattr_t attributes;
  int error = pthread_mutex_init(&g->lock, NULL);
  if (error) return error;
  pthread_condattr_init(&attributes); /* neither this nor the next can fail on Linux; at worst the wall clock counts */
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  error = pthread_cond_init(&g->change, &attributes);
  pthread_condattr_destroy(&attributes);
  if (error) pthread_mutex_destroy(&g->lock);
  return error;
}

melu_status melu_group_new(melu_group **out, size_t n_ranks, const struct melu_group_options *options,
                           melu_error *err) {
  struct melu_group_options o;
  struct melu_allocator allocator;
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  melu_status status = melu__options(&o, sizeof o, options, "melu_group_options", err);
  if (status) return status;
  if (n_ranks == 0) return melu__fail(err, MELU_EINVAL, "n_ranks is 0");
  if (n_ranks > MAX_MEMBERS) return melu__fail(err, MELU_ELIMIT, "n_ranks is %zu, above %d", n_ranks, MAX_MEMBERS);
  status = melu__time_limit(&o.time_limit, err);
  if (!status) status = melu__allocator(&allocator, o.allocator, err);
  if (status) return status;
  melu_group *g = melu__calloc(&allocator, 1, sizeof *g);
  if (!g) return melu__fail_memory(err);
  g->allocator = allocator;
  g->n_ranks = n_ranks;
  g->time_limit = o.time_limit;
  for (size_t r = 0; r < n_ranks; r++) g->members[r] = (struct member){.group = g, .rank = r};
  const int error = init_locks(g);
  if (error) {
    melu__free(&allocator, g);
    return melu__fail_errno(err, MELU_ESYSTEM, error, "cannot make a lock");
  }
  *out = g;
  return MELU_OK;
}

void melu_group_free(melu_group *g) {
  if (!g) return;
  const struct melu_allocator allocator = g->allocator; /* it must outlive the memory it gives back */
  pthread_cond_destroy(&g->change);
  pthread_mutex_destroy(&g->lock);
  melu__free(&allocator, g);
}

melu_status melu_group_member(struct melu_collective *collective, melu_group *group, size_t rank, melu_error *err) {
  if (!collective || !group) return melu__fail(err, MELU_EINVAL, "%s is NULL", collective ? "group" : "collective");
  if (rank >= group->n_ranks)
    return melu__fail(err, MELU_EINVAL, "rank %zu is not below the group's %zu", rank, group->n_ranks);
  const struct melu_collective member = {.arg = &group->members[rank],
                                         .rank = (uint32_t)rank,
                                         .n_ranks = (uint32_t)group->n_ranks,
                                         .all_gather = all_gather,
                                         .all_to_all_begin = all_to_all_begin,
                                         .all_to_all_end = all_to_all_end,
                                         .reduce = reduce,
                                         .barrier = barrier};
  return melu__options_out(collective, &member, sizeof member, "melu_collective", err);
}

void melu_group_leave(melu_group *group, size_t rank) {
  melu_error why;
  if (!group || rank >= group->n_ranks) return;
  melu__fail(&why, MELU_EPEER, "rank %zu has left", rank);
  pthread_mutex_lock(&group->lock);
  break_up(group, &why);
  pthread_mutex_unlock(&group->lock);
}
