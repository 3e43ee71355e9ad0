/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/parallel.h"

#include <fenv.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

struct worker {
  struct melu__pool *pool;
  pthread_t thread;
  size_t number; /* of the thread, as tasks see it */
};

struct melu__pool {
  struct worker *workers; /* threads 1, 2, ...: the caller of run is thread 0 */
  size_t n_started;
  pid_t process; /* whose threads they are */

  pthread_mutex_t turn; /* held by the caller of run: callers take turns */
  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t work, done;
  int stopping;
  unsigned long n_runs; /* a worker joins each run once */
  size_t n_busy;        /* workers that have not finished this run */
  pthread_t caller;
  int running;
  fenv_t floats; /* the caller's floating-point state: which thread runs a task is not to matter */

  void (*task)(void *task_arg, size_t index, size_t thread);
  void *task_arg;
  size_t n_tasks;
  atomic_size_t next;
};

static void take_tasks(struct melu__pool *pool, size_t thread) {
  for (;;) {
    const size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (index >= pool->n_tasks) return;
    pool->task(pool->task_arg, index, thread);
  }
}

static void *work(void *arg) {
  const struct worker *self = arg;
  struct melu__pool *pool = self->pool;
  unsigned long seen = 0;
  pthread_mutex_lock(&pool->lock);
  for (;;) {
    while (!pool->stopping && pool->n_runs == seen) pthread_cond_wait(&pool->work, &pool->lock);
    if (pool->stopping) break;
    seen = pool->n_runs;
    fesetenv(&pool->floats);
    pthread_mutex_unlock(&pool->lock);
    take_tasks(pool, self->number);
    pthread_mutex_lock(&pool->lock);
    if (--pool->n_busy == 0) pthread_cond_signal(&pool->done);
  }
  pthread_mutex_unlock(&pool->lock);
  return NULL;
}

#define NOT_INSIDE SIZE_MAX

/* The calling thread's number if it is inside a run of this pool already. No thread-local variable remembers it: those
 * of a library that is unloaded again make trouble, and a search of so few threads costs nothing beside a run. */
static size_t number_inside(struct melu__pool *pool) {
  const pthread_t self = pthread_self();
  for (size_t i = 0; i < pool->n_started; i++)
    if (pthread_equal(pool->workers[i].thread, self)) return pool->workers[i].number;
  pthread_mutex_lock(&pool->lock);
  const int is_caller = pool->running && pthread_equal(pool->caller, self);
  pthread_mutex_unlock(&pool->lock);
  return is_caller ? 0 : NOT_INSIDE;
}

static void run_alone(void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg, size_t n_tasks,
                      size_t thread) {
  for (size_t i = 0; i < n_tasks; i++) task(task_arg, i, thread);
}

/* A process that was forked has a copy of the pool, but none of its threads, and its locks are as they were. */
static int is_forked(const struct melu__pool *pool) {
  return getpid() != pool->process;
}

void melu__serial_run(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                      size_t n_tasks) {
  (void)arg;
  run_alone(task, task_arg, n_tasks, 0);
}

void melu__pool_run(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                    size_t n_tasks) {
  struct melu__pool *pool = arg;
  if (n_tasks == 0) return;
  if (is_forked(pool)) {
    run_alone(task, task_arg, n_tasks, 0);
    return;
  }
  const size_t thread = number_inside(pool);
  if (thread != NOT_INSIDE) { /* waiting for our own turn would never end */
    run_alone(task, task_arg, n_tasks, thread);
    return;
  }
  pthread_mutex_lock(&pool->turn);
  pthread_mutex_lock(&pool->lock);
  pool->task = task;
  pool->task_arg = task_arg;
  pool->n_tasks = n_tasks;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  pool->caller = pthread_self();
  fegetenv(&pool->floats);
  pool->running = 1;
  pool->n_busy = pool->n_started;
  pool->n_runs++;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);

  take_tasks(pool, 0);

  pthread_mutex_lock(&pool->lock);
  while (pool->n_busy) pthread_cond_wait(&pool->done, &pool->lock);
  pool->running = 0;
  pthread_mutex_unlock(&pool->lock);
  pthread_mutex_unlock(&pool->turn);
}

static int init_locks(struct melu__pool *pool) {
  int error = pthread_mutex_init(&pool->turn, NULL);
  if (error) return error;
  if ((error = pthread_mutex_init(&pool->lock, NULL))) goto no_lock;
  if ((error = pthread_cond_init(&pool->work, NULL))) goto no_work;
  if ((error = pthread_cond_init(&pool->done, NULL))) goto no_done;
  return 0;
no_done:
  pthread_cond_destroy(&pool->work);
no_work:
  pthread_mutex_destroy(&pool->lock);
no_lock:
  pthread_mutex_destroy(&pool->turn);
  return error;
}

melu_status melu__pool_new(struct melu__pool **out, const struct melu_allocator *a, size_t n_threads, melu_error *err) {
  *out = NULL;
  struct melu__pool *pool = melu__calloc(a, 1, sizeof *pool);
  struct worker *workers = melu__calloc(a, n_threads, sizeof *workers);
  if (!pool || !workers) {
    melu__free(a, workers);
    melu__free(a, pool);
    return melu__fail_memory(err);
  }
  pool->workers = workers;
  pool->process = getpid();
  int error = init_locks(pool);
  if (error) {
    melu__free(a, workers);
    melu__free(a, pool);
    return melu__fail_errno(err, MELU_ESYSTEM, error, "cannot make a lock");
  }
  for (size_t i = 0; i + 1 < n_threads && !error; i++) {
    workers[i] = (struct worker){.pool = pool, .number = i + 1};
    error = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    if (!error) pool->n_started++;
  }
  if (error) {
    melu__pool_free(a, pool);
    return melu__fail_errno(err, MELU_ESYSTEM, error, "cannot start a thread");
  }
  *out = pool;
  return MELU_OK;
}

static void stop(struct melu__pool *pool) {
  pthread_mutex_lock(&pool->lock);
  pool->stopping = 1;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  for (size_t i = 0; i < pool->n_started; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  pthread_mutex_destroy(&pool->turn);
}

void melu__pool_free(const struct melu_allocator *a, struct melu__pool *pool) {
  if (!pool) return;
  if (!is_forked(pool)) stop(pool);
  melu__free(a, pool->workers);
  melu__free(a, pool);
}
