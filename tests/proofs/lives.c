/* SPDX-License-Identifier: BSD-3-Clause */
/* Whole lives, one after the other, for faults.c to disturb: with each kind of model that the arguments name. A life
 * comes to the same numbers and texts, bit for bit, whatever was refused on the way, and leaves no memory behind.
 *
 * `planted K` is a call with a fault of its own, which is to be noticed; `threads` refuses threads, `start` memory for
 * the start of BLIS. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/context.h"
#include "base/error.h"
#include "faults.h"
#include "whole_life.h"

static struct outcome undisturbed, outcome;

static int is_same(void) {
  return outcome.texts == undisturbed.texts && outcome.n_served == undisturbed.n_served &&
         outcome.n_trained == undisturbed.n_trained &&
         memcmp(outcome.served, undisturbed.served, outcome.n_served * sizeof *outcome.served) == 0 &&
         memcmp(outcome.trained, undisturbed.trained, outcome.n_trained * sizeof *outcome.trained) == 0;
}

static void live(const char *folder, int setting) {
  /* The wide one on the kernels that use BLIS. */
  const struct life_plan plan = {
      .folder = folder,
      .tag = "",
      .setting = setting,
      .context = {.size = sizeof plan.context, .kernels = setting == LIFE_WIDE ? "base" : NULL}};
  long long live = 0;
  faults_pause(1);
  for (int time = 0; time < 2; time++) { /* the first one warms up */
    live = atomic_load(&proof_heap.live);
    whole_life(&undisturbed, &plan);
  }
  PROOF_NEEDS(atomic_load(&proof_heap.live) == live, "an undisturbed life leaves memory behind");
  faults_pause(0);
  whole_life(&outcome, &plan);
  faults_pause(1);
  PROOF_NEEDS(faults_may_differ() || is_same(), "the life comes to something else");
  PROOF_NEEDS(atomic_load(&proof_heap.live) == live, "%lld bytes are left", atomic_load(&proof_heap.live) - live);
  if (faults_is_child()) exit(0);
}

static void live_all(int n, char **settings) {
  struct scene scene;
  faults_pause(1);
  scene_open(&scene, SCENE_LAYERS, NULL);
  life_prepare(scene.folder);
  for (int i = 0; i < n; i++) live(scene.folder, atoi(settings[i]));
  life_clean(scene.folder);
  scene_close(&scene);
}

/* -------------------------------------------------------------------------------------------------- planted */

enum { HONEST, WRITES, LEAKS, CRASHES, LIES, REMEMBERS, ASKS };

/* Asks twice for memory, and then writes a number. */
static melu_status planted(uint32_t *out, const melu_context *ctx, int fault, melu_error *err) {
  static uint32_t n_calls;
  const struct melu_allocator *a = &ctx->allocator;
  char *first = melu__alloc(a, 1, 1), *second = melu__alloc(a, 1, 1);
  if (fault == CRASHES) *second = 1;
  if (fault == REMEMBERS) n_calls++;
  const int failed = !first || !second;
  if (fault != LEAKS || second) melu__free(a, first);
  melu__free(a, second);
  if (fault == WRITES) *out = 2;
  if (failed) return fault == LIES ? melu__fail(err, MELU_EFORMAT, "no") : melu__fail_memory(err);
  *out = 7 + n_calls;
  return MELU_OK;
}

static void plant(int fault) {
  melu_error err;
  melu_context *ctx;
  melu_status status;
  uint32_t number = 0;
  const long long live = atomic_load(&proof_heap.live);
  PROOF_TRY(melu_context_new(&ctx, NULL, &err));
  if (faults_enter("planted")) {
    if (fault == ASKS) faults_never();
    faults_written(&number, 1, sizeof number);
    do status = planted(&number, ctx, fault, &err);
    while (faults_again(status, &err));
  }
  melu_context_free(ctx);
  PROOF_NEEDS(atomic_load(&proof_heap.live) == live, "%lld bytes are left", atomic_load(&proof_heap.live) - live);
  PROOF_NEEDS(number == 7 + (fault == REMEMBERS), "the number is %u", (unsigned)number);
}

/* -------------------------------------------------------------------------------------------------- threads */

static int thread_to_refuse, n_started;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
  return ++n_started == thread_to_refuse ? EAGAIN : __real_pthread_create(thread, attr, start, arg);
}

/* Each of a pool's threads cannot be started. */
static void refuse_threads(void) {
  enum { N_THREADS = 5 };
  static const struct melu_context_options options = {.size = sizeof options, .n_threads = N_THREADS};
  struct scene scene;
  melu_error err;
  melu_context *ctx;
  scene_open(&scene, SCENE_LAYERS, NULL);
  PROOF_TRY(melu_context_new(&ctx, &options, &err)); /* warms up */
  melu_context_free(ctx);
  const long long live = atomic_load(&proof_heap.live);
  for (thread_to_refuse = 1; thread_to_refuse < N_THREADS; thread_to_refuse++) {
    n_started = 0;
    const melu_status status = melu_context_new(&ctx, &options, &err);
    PROOF_NEEDS(status == MELU_ESYSTEM && err.sys_errno == EAGAIN && !ctx, "thread %d: %s", thread_to_refuse,
                melu_status_name(status));
  }
  thread_to_refuse = 0;
  PROOF_TRY(melu_context_new(&ctx, &options, &err));
  melu_context_free(ctx);
  PROOF_NEEDS(atomic_load(&proof_heap.live) == live, "threads that were refused leave memory behind");
  scene_close(&scene);
  printf("%d threads refused\n", N_THREADS - 1);
}

/* --------------------------------------------------------------------------------------------------- the start */

/* The process may use no more than it has, and a bit. */
static void limit_memory(size_t n_bytes) {
  static unsigned long n_pages;
  struct rlimit limit;
  if (!n_pages) {
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%lu", &n_pages) != 1 || fclose(file)) _exit(99);
  }
  if (getrlimit(RLIMIT_AS, &limit)) _exit(99);
  limit.rlim_cur = n_pages * (size_t)sysconf(_SC_PAGESIZE) + n_bytes;
  if (setrlimit(RLIMIT_AS, &limit)) _exit(99);
}

/* What the first context on kernels that use BLIS comes to in a process that has used all it has, and may grow by that
 * much. */
static int start_within(size_t n_bytes) {
  static const struct melu_context_options options = {.size = sizeof options, .kernels = "base"};
  int status;
  melu_context *ctx;
  const pid_t pid = fork();
  PROOF_NEEDS(pid >= 0, "no second process");
  if (pid == 0) {
    limit_memory(0);
    for (size_t size = (size_t)1 << 20; size >= 16; size /= 2)
      while (malloc(size)) continue;
    limit_memory(n_bytes);
    _exit(-(int)melu_context_new(&ctx, &options, NULL));
  }
  PROOF_NEEDS(waitpid(pid, &status, 0) == pid, "the second process was lost");
  PROOF_NEEDS(WIFEXITED(status), "with %zu bytes the start ends by signal %d", n_bytes, WTERMSIG(status));
  return WEXITSTATUS(status);
}

/* A process that is short of memory: the first context is made or refused, whatever is left. */
static void refuse_start(void) {
  size_t n_refused = 0, n = 0;
  for (size_t n_bytes = 0; n_bytes <= (size_t)1 << 19; n_bytes += 4096, n++) {
    const int status = start_within(n_bytes);
    PROOF_NEEDS(status == 0 || status == -MELU_ENOMEM, "with %zu bytes the start ends with %d", n_bytes, status);
    n_refused += status != 0;
  }
  PROOF_NEEDS(n_refused > 0 && n_refused < n, "%zu of %zu limits refuse the start", n_refused, n);
  printf("%zu limits of memory for the start of BLIS, %zu of which refuse it\n", n, n_refused);
}

int main(int argc, char **argv) {
  PROOF_NEEDS(argc >= 2, "usage: %s SETTING ... | planted K | threads | start", argv[0]);
  if (strcmp(argv[1], "planted") == 0 && argc == 3)
    plant(atoi(argv[2]));
  else if (strcmp(argv[1], "threads") == 0)
    refuse_threads();
  else if (strcmp(argv[1], "start") == 0)
    refuse_start();
  else
    live_all(argc - 1, argv + 1);
  return 0;
}
