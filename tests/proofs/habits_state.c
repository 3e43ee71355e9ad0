/* SPDX-License-Identifier: BSD-3-Clause */
/* What belongs to the host and is to be after every call as it was. */
#define _GNU_SOURCE /* feenableexcept, environ */
#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "habits.h"

enum { N_SIGNALS = 65 };

/* Compared byte by byte, so that it begins as zeros. */
struct host_state {
  unsigned vector_control;
  int rounding, traps;
  char locale[512], folder[512];
  locale_t thread_locale;
  sigset_t blocked;
  void (*handlers[N_SIGNALS])(int);
  int flags[N_SIGNALS];
  mode_t mask;
  XXH64_hash_t environment;
  size_t n_descriptors;
};

static struct host_state remembered;

static size_t count_descriptors(void) {
  size_t n = 0;
  DIR *folder = opendir("/proc/self/fd");
  if (!folder) return 0;
  while (readdir(folder)) n++;
  closedir(folder);
  return n;
}

static void look(struct host_state *s) {
  memset(s, 0, sizeof *s);
#if defined(__SSE__)
  s->vector_control = _mm_getcsr() & ~0x3fu; /* without the flags that arithmetic raises */
#endif
  s->rounding = fegetround();
  s->traps = fegetexcept();
  snprintf(s->locale, sizeof s->locale, "%s", setlocale(LC_ALL, NULL));
  if (!getcwd(s->folder, sizeof s->folder)) s->folder[0] = '\0';
  s->thread_locale = uselocale((locale_t)0);
  pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
  for (int i = 1; i < N_SIGNALS; i++) {
    struct sigaction action;
    if (sigaction(i, NULL, &action)) continue; /* two are the C library's own */
    s->handlers[i] = action.sa_handler;
    s->flags[i] = action.sa_flags;
  }
  s->mask = umask(0);
  umask(s->mask);
  for (char **entry = environ; *entry; entry++)
    s->environment = XXH64(*entry, strlen(*entry), s->environment ^ (XXH64_hash_t)(uintptr_t)*entry);
  s->n_descriptors = count_descriptors();
}

void habit_remember(void) {
  look(&remembered);
}

/* Who writes shards has a temporary file, of which melu.h tells, until they are finished. */
static size_t n_held(const char *call) {
  static const char *const holding[] = {"melu_shard_writer_new(", "melu_shard_writer_add_"};
  for (size_t i = 0; i < sizeof holding / sizeof *holding; i++)
    if (strncmp(call, holding[i], strlen(holding[i])) == 0) return 1;
  return 0;
}

void habit_unchanged(void *arg, const char *call) {
  struct host_state now;
  (void)arg;
  look(&now);
  now.n_descriptors -= n_held(call);
  PROOF_NEEDS(memcmp(&now, &remembered, sizeof now) == 0, "the host's state is another one after %s", call);
}

/* ---------------------------------------------------------------------------------------------------- planting */

static void ignore(int number) {
  (void)number;
}

static void plant(int what) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  struct sigaction action = {.sa_handler = ignore};
  switch (what) {
    case 0:
      fesetround(FE_UPWARD);
      break;
    case 1:
      feenableexcept(FE_DIVBYZERO);
      break;
    case 2:
      setlocale(LC_NUMERIC, "de_DE.UTF-8");
      break;
    case 3:
      uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
      break;
    case 4:
      pthread_sigmask(SIG_BLOCK, &set, NULL);
      break;
    case 5:
      sigaction(SIGUSR2, &action, NULL);
      break;
    case 6:
      PROOF_NEEDS(chdir("/proc") == 0, "there is no /proc");
      break;
    case 7:
      umask(0123);
      break;
    case 8:
      setenv("MELU_PLANTED", "1", 1);
      break;
    default:
      (void)!open("/dev/null", O_RDONLY);
      break;
  }
}

enum { N_CHANGES = 10 };

static void notice(const void *arg) {
  struct host_state now;
  habit_remember();
  plant(*(const int *)arg);
  look(&now);
  _exit(memcmp(&now, &remembered, sizeof now) == 0);
}

int habit_plant_changes(void) {
  for (int what = 0; what < N_CHANGES; what++)
    PROOF_NEEDS(habit_run(notice, &what, 10) == 0, "change %d of the host's state was not noticed", what);
  return N_CHANGES;
}
