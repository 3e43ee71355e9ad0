/* SPDX-License-Identifier: BSD-3-Clause */
#include "store.h"

#include <pthread.h>
#include <stdlib.h>

#include "database.h"

enum { WRITER_PATIENCE = 1000, READER_PATIENCE = 200 }; /* milliseconds */

/* What one thread asks the writer for, and waits for; on its stack. */
struct job {
  int (*change)(struct store *store, struct job *job);
  uint64_t user;
  const struct rating *ratings;
  size_t n;
  uint64_t n_left;
  struct problem problem; /* set if it failed */
  int failed, done;
  struct job *next;
};

struct store {
  pthread_t thread;
  struct database writer; /* of that thread; with what its transaction changes: */
  int64_t n_added;        /*   ratings that there are more */
  struct database *readers;
  size_t n_readers;
  pthread_mutex_t lock; /* of what follows */
  pthread_cond_t asked, answered;
  struct job *first, **last;
  int closing;
  int64_t n_ratings;
};

/* ------------------------------------------------------------------------------------------- the writer's */

static sqlite3_stmt *bind(struct store *store, enum statement statement, uint64_t user) {
  sqlite3_stmt *s = store->writer.statements[statement];
  sqlite3_bind_int64(s, 1, (sqlite3_int64)user);
  return s;
}

static int put_rating(struct store *store, enum statement statement, const struct job *job, size_t i,
                      struct problem *problem) {
  sqlite3_stmt *s = bind(store, statement, job->user);
  sqlite3_bind_int64(s, 2, (sqlite3_int64)job->ratings[i].item);
  sqlite3_bind_double(s, 3, job->ratings[i].rating);
  return database_do(&store->writer, statement, problem);
}

static int change_nothing(struct store *store, struct job *job) {
  (void)store, (void)job;
  return 0;
}

static int change_rate(struct store *store, struct job *job) {
  bind(store, ADD_USER, job->user);
  if (database_do(&store->writer, ADD_USER, &job->problem)) return -1;
  for (size_t i = 0; i < job->n; i++) {
    if (put_rating(store, CORRECT, job, i, &job->problem)) return -1;
    if (sqlite3_changes(store->writer.connection) > 0) continue;
    if (put_rating(store, ADD, job, i, &job->problem)) return -1;
    store->n_added++;
  }
  return 0;
}

static int change_take_back(struct store *store, struct job *job) {
  sqlite3_bind_int64(bind(store, TAKE_BACK, job->user), 2, (sqlite3_int64)job->ratings->item);
  if (database_do(&store->writer, TAKE_BACK, &job->problem)) return -1;
  store->n_added -= sqlite3_changes(store->writer.connection);
  if (sqlite3_changes(store->writer.connection) > 0) return 0;
  /* Nothing was changed, so the others of the transaction may go on. */
  job->failed = 1;
  problem_set(&job->problem, 404, "no_rating", "user %llu has not rated item %llu", (unsigned long long)job->user,
              (unsigned long long)job->ratings->item);
  return 0;
}

static int change_forget(struct store *store, struct job *job) {
  bind(store, FORGET, job->user);
  if (database_do(&store->writer, FORGET, &job->problem)) return -1;
  store->n_added -= sqlite3_changes(store->writer.connection);
  bind(store, FORGET_USER, job->user);
  return database_do(&store->writer, FORGET_USER, &job->problem);
}

static int write_job(struct store *store, struct job *job) {
  if (job->change(store, job)) return -1;
  bind(store, COUNT, job->user);
  return database_number(&store->writer, COUNT, &job->n_left, &job->problem);
}

/* One transaction for all of them. Returns 0 when it is on disk; else nothing of it is, and all have failed. */
static int write_all(struct store *store, struct job *jobs, struct problem *problem) {
  struct database *db = &store->writer;
  int opened = 0;
  uint64_t n = 0;
  if (database_open(db, &opened, problem)) return -1;
  if (opened) {
    if (database_number(db, COUNT_ALL, &n, problem)) return -1;
    pthread_mutex_lock(&store->lock);
    store->n_ratings = (int64_t)n;
    pthread_mutex_unlock(&store->lock);
  }
  store->n_added = 0;
  if (database_do(db, BEGIN, problem)) return -1;
  for (struct job *job = jobs; job; job = job->next) {
    if (write_job(store, job) == 0) continue;
    *problem = job->problem;
    return -1;
  }
  return database_do(db, COMMIT, problem);
}

static void *write_for_ever(void *arg) {
  struct store *store = arg;
  struct problem problem;
  pthread_mutex_lock(&store->lock);
  for (;;) {
    while (!store->first && !store->closing) pthread_cond_wait(&store->asked, &store->lock);
    if (!store->first) break;
    struct job *jobs = store->first;
    store->first = NULL;
    store->last = &store->first;
    pthread_mutex_unlock(&store->lock);
    const int failed = write_all(store, jobs, &problem);
    pthread_mutex_lock(&store->lock);
    if (!failed) store->n_ratings += store->n_added;
    for (struct job *job = jobs, *next; job; job = next) {
      next = job->next; /* once it is done its thread may go, and the job with it */
      if (failed) job->problem = problem;
      job->failed |= failed;
      job->done = 1;
    }
    pthread_cond_broadcast(&store->answered);
  }
  pthread_mutex_unlock(&store->lock);
  database_close(&store->writer);
  return NULL;
}

/* ------------------------------------------------------------------------------------------ everybody else's */

struct store *store_open(const char *path, const struct world *world, size_t n_readers, struct problem *problem) {
  struct store *store = calloc(1, sizeof *store);
  struct database *readers = calloc(n_readers, sizeof *readers);
  if (!store || !readers) {
    problem_set(problem, 503, "memory", "out of memory");
    goto fail;
  }
  store->readers = readers;
  store->n_readers = n_readers;
  store->last = &store->first;
  store->writer =
      (struct database){.path = path, .world = world, .may_create = 1, .busy_milliseconds = WRITER_PATIENCE};
  for (size_t i = 0; i < n_readers; i++) {
    readers[i] = (struct database){.path = path, .busy_milliseconds = READER_PATIENCE};
  }
  pthread_mutex_init(&store->lock, NULL);
  pthread_cond_init(&store->asked, NULL);
  pthread_cond_init(&store->answered, NULL);
  if (pthread_create(&store->thread, NULL, write_for_ever, store) == 0) return store;
  problem_set(problem, 503, "thread", "the system refused a thread");
fail:
  free(readers);
  free(store);
  return NULL;
}

void store_close(struct store *store) {
  if (!store) return;
  pthread_mutex_lock(&store->lock);
  store->closing = 1;
  pthread_cond_signal(&store->asked);
  pthread_mutex_unlock(&store->lock);
  pthread_join(store->thread, NULL);
  for (size_t i = 0; i < store->n_readers; i++) database_close(&store->readers[i]);
  pthread_cond_destroy(&store->answered);
  pthread_cond_destroy(&store->asked);
  pthread_mutex_destroy(&store->lock);
  free(store->readers);
  free(store);
}

/* Has the writer do it, and waits for the disk. */
static int have_done(struct store *store, struct job *job, size_t *n_left, struct problem *problem) {
  pthread_mutex_lock(&store->lock);
  *store->last = job;
  store->last = &job->next;
  pthread_cond_signal(&store->asked);
  while (!job->done) pthread_cond_wait(&store->answered, &store->lock);
  pthread_mutex_unlock(&store->lock);
  if (job->failed) {
    *problem = job->problem;
    return -1;
  }
  if (n_left) *n_left = (size_t)job->n_left;
  return 0;
}

int store_check(struct store *store, struct problem *problem) {
  struct job job = {.change = change_nothing};
  return have_done(store, &job, NULL, problem);
}

int store_rate(struct store *store, uint64_t user, const struct rating *ratings, size_t n, size_t *n_left,
               struct problem *problem) {
  struct job job = {.change = change_rate, .user = user, .ratings = ratings, .n = n};
  return have_done(store, &job, n_left, problem);
}

int store_take_back(struct store *store, uint64_t user, uint64_t item, size_t *n_left, struct problem *problem) {
  const struct rating rating = {.item = item};
  struct job job = {.change = change_take_back, .user = user, .ratings = &rating, .n = 1};
  return have_done(store, &job, n_left, problem);
}

int store_forget(struct store *store, uint64_t user, size_t *n_left, struct problem *problem) {
  struct job job = {.change = change_forget, .user = user};
  return have_done(store, &job, n_left, problem);
}

int store_ratings(struct store *store, size_t reader, uint64_t user, struct rating **ratings, size_t *n,
                  struct problem *problem) {
  struct database *db = &store->readers[reader];
  size_t room = 0;
  *ratings = NULL;
  *n = 0;
  if (database_open(db, NULL, problem)) return -1;
  sqlite3_stmt *s = db->statements[LIST];
  sqlite3_bind_int64(s, 1, (sqlite3_int64)user);
  while (sqlite3_step(s) == SQLITE_ROW) {
    if (*n == room) {
      room = room ? 2 * room : 32;
      struct rating *more = realloc(*ratings, room * sizeof *more);
      if (!more) {
        sqlite3_reset(s);
        problem_set(problem, 503, "memory", "out of memory");
        goto fail;
      }
      *ratings = more;
    }
    (*ratings)[(*n)++] = (struct rating){(uint64_t)sqlite3_column_int64(s, 0), sqlite3_column_double(s, 1)};
  }
  if (sqlite3_reset(s) == SQLITE_OK) return 0;
  database_fail(db, problem);
fail:
  free(*ratings);
  *ratings = NULL;
  *n = 0;
  return -1;
}

uint64_t store_n_ratings(struct store *store) {
  pthread_mutex_lock(&store->lock);
  const int64_t n = store->n_ratings;
  pthread_mutex_unlock(&store->lock);
  return n > 0 ? (uint64_t)n : 0;
}
