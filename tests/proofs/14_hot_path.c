/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 14: adapting, predicting and ranking ask for nothing. They run in a process that the kernel kills at its first
 * system call but for that by which it ends, count locks by the linker's --wrap and allocations by the host's allocator
 * and by heap.c. Each of the three counters, and the kernel, is shown to notice. */
#define _DEFAULT_SOURCE /* syscall, MAP_ANONYMOUS */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support.h"
#include "proof.h"

static size_t n_locks;
static struct test_heap host;

#define WRAP_LOCK(name, type)     \
  int __real_##name(type *lock);  \
  int __wrap_##name(type *lock);  \
  int __wrap_##name(type *lock) { \
    n_locks++;                    \
    return __real_##name(lock);   \
  }

WRAP_LOCK(pthread_mutex_lock, pthread_mutex_t)
WRAP_LOCK(pthread_mutex_trylock, pthread_mutex_t)
WRAP_LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
WRAP_LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)

/* What the child is to do beside serving, which is to be noticed. */
enum { NOTHING, A_SYSTEM_CALL, AN_ALLOCATION, A_HOST_ALLOCATION, A_LOCK, N_PLANTED };
static const char *const planted_names[] = {"nothing", "a system call", "an allocation", "an allocation of the host's",
                                            "a lock"};

/* What the child saw, in memory that both processes have. */
struct seen {
  size_t n_calls, n_allocated, n_host, n_locks;
  int failed;
};

static void forbid_system_calls(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(2);
}

static void plant(int what) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  void *volatile memory = what == AN_ALLOCATION ? malloc(1) : NULL; /* else it would be left out */
  free(memory);
  if (what == A_SYSTEM_CALL) getppid();
  if (what == A_HOST_ALLOCATION) atomic_fetch_add(&host.made, 1);
  if (what == A_LOCK) pthread_mutex_lock(&lock);
}

static void serve(const struct scene *s, const melu_catalog *catalog, size_t n_rounds, int what, struct seen *seen) {
  uint32_t items[SCENE_MOST], top[10];
  float ratings[SCENE_MOST], scores[SCENE_MOST], best[10];
  melu_error err;
  for (uint32_t i = 0; i < SCENE_MOST; i++) {
    items[i] = i * 7 % SCENE_ITEMS;
    ratings[i] = (float)(1 + i % 5);
  }
  forbid_system_calls();
  const size_t calls = atomic_load(&proof_heap.calls), made = host.made;
  n_locks = 0;
  plant(what);
  for (size_t round = 0; round < n_rounds && !seen->failed; round++) {
    size_t n = 10;
    seen->failed |= melu_adapt(s->user, s->ws, s->model, s->data, NULL, items, ratings, round % (SCENE_MOST + 1), &err);
    seen->failed |= melu_predict(scores, s->ws, s->model, s->user, s->data, items, SCENE_MOST, &err);
    seen->failed |= melu_catalog_top(top, best, &n, s->ws, catalog, s->user, NULL, &err);
    seen->n_calls += 3;
  }
  seen->n_allocated = atomic_load(&proof_heap.calls) - calls;
  seen->n_host = host.made - made;
  seen->n_locks = n_locks;
  syscall(SYS_exit, 0);
}

/* Serves in another process. 1 if that asked for nothing. */
static int asks_for_nothing(const struct scene *s, const melu_catalog *catalog, size_t n_rounds, int what,
                            struct seen *seen) {
  int status;
  *seen = (struct seen){0};
  fflush(stdout);
  const pid_t child = fork();
  PROOF_NEEDS(child >= 0, "no second process");
  if (child == 0) serve(s, catalog, n_rounds, what, seen);
  PROOF_NEEDS(waitpid(child, &status, 0) == child, "the second process was lost");
  if (WIFSIGNALED(status)) {
    PROOF_NEEDS(WTERMSIG(status) == SIGSYS, "ended by signal %d after %zu calls", WTERMSIG(status), seen->n_calls);
    return 0;
  }
  PROOF_NEEDS(WEXITSTATUS(status) == 0, "the kernel would not forbid system calls");
  PROOF_NEEDS(!seen->failed, "call %zu failed", seen->n_calls);
  return !seen->n_allocated && !seen->n_host && !seen->n_locks;
}

static size_t serve_setting(int setting, size_t n_rounds, struct seen *seen) {
  const struct melu_allocator counting = test_allocator(&host);
  uint32_t items[SCENE_MOST];
  float ratings[SCENE_MOST];
  struct scene s;
  melu_catalog *catalog;
  melu_error err;
  scene_open(&s, setting, &counting);
  PROOF_TRY(melu_catalog_new(&catalog, s.model, s.data, NULL, 0, &err));
  for (uint32_t i = 0; i < SCENE_MOST; i++) {
    items[i] = i;
    ratings[i] = 3;
  }
  PROOF_TRY(melu_adapt(s.user, s.ws, s.model, s.data, NULL, items, ratings, SCENE_MOST, &err)); /* room to remember */
  for (int what = N_PLANTED - 1; what > NOTHING; what--)
    PROOF_NEEDS(!asks_for_nothing(&s, catalog, 10, what, seen), "%s was not noticed", planted_names[what]);
  const int nothing = asks_for_nothing(&s, catalog, n_rounds, NOTHING, seen);
  PROOF_NEEDS(nothing || seen->n_calls == 3 * n_rounds, "%s: a system call after %zu calls",
              scene_setting_names[setting], seen->n_calls);
  PROOF_NEEDS(nothing, "%s: %zu allocations, %zu of the host's, %zu locks", scene_setting_names[setting],
              seen->n_allocated, seen->n_host, seen->n_locks);
  melu_catalog_free(catalog);
  scene_close(&s);
  return 3 * n_rounds;
}

int main(int argc, char **argv) {
  const int full = proof_begin(14, argc, argv);
  struct seen *seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  PROOF_NEEDS(seen != MAP_FAILED, "no shared memory");
  size_t n = 0;
  for (int setting = SCENE_MELU; setting < SCENE_SETTINGS; setting++)
    n += serve_setting(setting, full ? 1000000 : 20000, seen);
  proof_held("%zu calls of adapt, predict and top, with no allocation, lock or system call", n);
}
