/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 16: what hosts do to the process that the library lives in. Under each habit a process of its own leads a whole
 * life, by every kind of model, and must come to the same numbers as one without habits: bit by bit, or, where the
 * habit changes what arithmetic is, to close ones. After every call the host's state must be as it was before. A
 * process that does not end in time has a deadlock. Each of the watchers is first shown to notice. */
#define _GNU_SOURCE /* feenableexcept */
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "habits.h"

enum { MOST_SECONDS = 240 };

/* -------------------------------------------------------------------------------------------------- processes */

/* Waits with a look now and then: SIGALRM is one of the habits. */
static int wait_for(pid_t child, unsigned seconds) {
  int status = 0;
  const struct timespec moment = {.tv_nsec = 2000000};
  struct timespec now, start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  while (waitpid(child, &status, WNOHANG) == 0) {
    nanosleep(&moment, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - start.tv_sec < (time_t)seconds) continue;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return -2;
  }
  if (WIFSIGNALED(status)) return WTERMSIG(status);
  return WEXITSTATUS(status) ? -1 : 0;
}

int habit_run(habit_work work, const void *arg, unsigned seconds) {
  fflush(stdout);
  const pid_t child = fork();
  PROOF_NEEDS(child >= 0, "no second process");
  if (child == 0) {
    work(arg);
    _exit(0);
  }
  return wait_for(child, seconds);
}

void *habit_share(size_t n) {
  void *memory = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  PROOF_NEEDS(memory != MAP_FAILED, "no shared memory");
  return memory;
}

void habit_needs(const char *name, habit_work work, const void *arg, unsigned seconds) {
  const int how = habit_run(work, arg, seconds);
  PROOF_NEEDS(how != -1, "%s: see the line before", name);
  PROOF_NEEDS(how != -2, "%s: no end within %u s", name, seconds);
  PROOF_NEEDS(how == 0, "%s: ended by signal %d", name, how);
}

/* --------------------------------------------------------------------------------------------------- outcomes */

static double distance(const double *a, const double *b, size_t n) {
  double most = 0;
  for (size_t i = 0; i < n; i++) {
    const double d = fabs(a[i] - b[i]) / fmax(1, fabs(b[i]));
    if (!(d <= most)) most = isnan(d) ? INFINITY : d;
  }
  return most;
}

static double farthest_served, farthest_trained;

/* Not finite numbers are far from all. */
static int is_same(const struct outcome *a, const struct outcome *b, double served, double trained) {
  if (a->n_served != b->n_served || a->n_trained != b->n_trained) return 0;
  if (served == 0)
    return memcmp(a->served, b->served, a->n_served * sizeof *a->served) == 0 &&
           memcmp(a->trained, b->trained, a->n_trained * sizeof *a->trained) == 0 && a->texts == b->texts;
  const double by_served = distance(a->served, b->served, a->n_served),
               by_trained = distance(a->trained, b->trained, a->n_trained);
  farthest_served = fmax(farthest_served, by_served);
  farthest_trained = fmax(farthest_trained, by_trained);
  return by_served <= served && by_trained <= trained;
}

void habit_same(const char *name, const struct outcome *a, const struct outcome *b, double served, double trained) {
  PROOF_NEEDS(is_same(a, b, served, trained), "%s: results are others: by %g and %g%s", name,
              distance(a->served, b->served, a->n_served), distance(a->trained, b->trained, a->n_trained),
              a->texts == b->texts ? "" : ", and texts");
}

/* ----------------------------------------------------------------------------------------------------- habits */

static void no_habit(void) {}

#if defined(__SSE__)
enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x0040 };

static void flush_denormals(void) {
  volatile float small = 1e-30f;
  _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
  PROOF_NEEDS(small * small * 1e-10f == 0 && 1e-10f * (small * 1e-10f) == 0, "denormals are not flushed");
}
#endif

static void round_up(void) {
  fesetround(FE_UPWARD);
}

static void round_down(void) {
  fesetround(FE_DOWNWARD);
}

static void round_to_zero(void) {
  fesetround(FE_TOWARDZERO);
}

static void trap(void) {
  feclearexcept(FE_ALL_EXCEPT);
  feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
}

static void speak(const char *locale, const char *half) {
  char text[16];
  PROOF_NEEDS(setlocale(LC_ALL, locale), "no locale %s", locale);
  snprintf(text, sizeof text, "%.1f", 0.5);
  PROOF_NEEDS(strcmp(text, half) == 0, "%s writes %s", locale, text);
}

static void speak_german(void) {
  speak("de_DE.UTF-8", "0,5");
}

static void speak_turkish(void) {
  speak("tr_TR.UTF-8", "0,5");
}

/* The decimal point takes two bytes. */
static void speak_pashto(void) {
  speak("ps_AF.UTF-8",
        "0\xd9\xab"
        "5");
}

static void speak_german_in_a_thread(void) {
  const locale_t german = newlocale(LC_ALL_MASK, "de_DE.UTF-8", (locale_t)0);
  PROOF_NEEDS(german && uselocale(german), "no locale");
}

static void close_streams(void) {
  for (int fd = 0; fd < 3; fd++) close(fd);
  const int fd = open("/dev/null", O_RDONLY);
  if (fd != 0) _exit(1);
  close(fd);
}

/* The sizes of files in their place are looked at afterwards. */
static int streams[2];

static void keep_streams(void) {
  for (int i = 0; i < 2; i++) dup2(streams[i], 1 + i);
}

static volatile sig_atomic_t n_alarms;

static void count_alarm(int number) {
  (void)number;
  n_alarms++;
}

/* Calls of the system are interrupted and not begun again. */
static void ring(void) {
  const struct sigaction action = {.sa_handler = count_alarm};
  const struct itimerval every = {{.tv_usec = 1000}, {.tv_usec = 1000}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &every, NULL);
}

/* How far results may be from those without the habit, relative to the larger of them and 1. 0: not a bit. What follows
 * from a training may be farther: where a gradient is near zero, Adam makes steps of full length by its sign. */
static const struct habit {
  const char *name;
  void (*take_up)(void);
  double served, trained;
} habits[] = {
    {"none", no_habit, 0, 0},
#if defined(__SSE__)
    {"flushed denormals", flush_denormals, 1e-5, 1e-3},
#endif
    {"rounding up", round_up, 1e-4, 1e-2},
    {"rounding down", round_down, 1e-4, 1e-2},
    {"rounding to zero", round_to_zero, 1e-4, 1e-2},
    {"traps", trap, 0, 0},
    {"de_DE", speak_german, 0, 0},
    {"tr_TR", speak_turkish, 0, 0},
    {"ps_AF", speak_pashto, 0, 0},
    {"de_DE of a thread", speak_german_in_a_thread, 0, 0},
    {"closed streams", close_streams, 0, 0},
    {"streams that are read", keep_streams, 0, 0},
    {"SIGALRM at 1 kHz", ring, 0, 0},
};
enum { N_HABITS = sizeof habits / sizeof *habits };

/* What one of them does, and where it goes. */
struct task {
  const struct habit *habit;
  const char *folder;
  struct outcome *out; /* LIFE_SETTINGS, in memory that both processes have */
  const char *kernels;
  size_t n_threads;
};

static void live(const void *arg) {
  const struct task *t = arg;
  t->habit->take_up();
  for (int setting = 0; setting < LIFE_SETTINGS; setting++) {
    const struct life_plan plan = {
        .folder = t->folder,
        .tag = "habit",
        .setting = setting,
        .context = {.size = sizeof plan.context, .n_threads = t->n_threads, .kernels = t->kernels},
        .after = habit_unchanged};
    habit_remember();
    whole_life(&t->out[setting], &plan);
  }
  if (t->habit->take_up == ring && n_alarms < 20) _exit(1);
}

static off_t stream_sizes(void) {
  struct stat info[2];
  PROOF_NEEDS(fstat(streams[0], &info[0]) == 0 && fstat(streams[1], &info[1]) == 0, "no files for streams");
  return info[0].st_size + info[1].st_size;
}

/* All habits with these kernels. Returns how many lives were led. */
static size_t live_all(const struct scene *s, const char *kernels, size_t n_threads, struct outcome *expected,
                       struct outcome *got) {
  for (int h = 0; h < N_HABITS; h++) {
    const struct task task = {&habits[h], s->folder, h ? got : expected, kernels, n_threads};
    habit_needs(habits[h].name, live, &task, MOST_SECONDS);
    for (int setting = 0; h && setting < LIFE_SETTINGS; setting++)
      habit_same(habits[h].name, &got[setting], &expected[setting], habits[h].served, habits[h].trained);
  }
  PROOF_NEEDS(stream_sizes() == 0, "something was written to a standard stream");
  return (size_t)N_HABITS * LIFE_SETTINGS;
}

/* -------------------------------------------------------------------------------------------------- planting */

static void divide(const void *arg) {
  (void)arg;
  volatile float zero = 0;
  trap();
  zero = 1 / zero;
}

static void wait_for_oneself(const void *arg) {
  (void)arg;
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  pthread_mutex_lock(&lock);
}

static void say_something(const void *arg) {
  (void)arg;
  keep_streams();
  (void)!write(1, "!", 1);
}

static int plant(struct outcome *expected, struct outcome *other) {
  PROOF_NEEDS(habit_run(divide, NULL, 10) == SIGFPE, "a trap was not noticed");
  PROOF_NEEDS(habit_run(wait_for_oneself, NULL, 1) == -2, "a deadlock was not noticed");
  PROOF_NEEDS(habit_run(say_something, NULL, 10) == 0 && stream_sizes() == 1, "a written stream was not noticed");
  PROOF_NEEDS(ftruncate(streams[0], 0) == 0, "a file cannot be emptied");
  memset(expected, 0, sizeof *expected);
  expected->n_served = expected->n_trained = 1;
  *other = *expected;
  other->served[0] = 1e-300;
  PROOF_NEEDS(!is_same(other, expected, 0, 0), "another bit was not noticed");
  other->served[0] = NAN;
  PROOF_NEEDS(!is_same(other, expected, 1e-3, 1e-3), "what is no number was not noticed");
  farthest_served = farthest_trained = 0;
  return 5 + habit_plant_changes();
}

/* ------------------------------------------------------------------------------------------------------- main */

static void open_streams(const struct scene *s) {
  for (int i = 0; i < 2; i++) {
    streams[i] = open(scene_path(s, "stream"), O_RDWR | O_CREAT | O_EXCL, 0600);
    unlink(scene_path(s, "stream"));
    PROOF_NEEDS(streams[i] >= 0, "no files for streams");
  }
}

int main(int argc, char **argv) {
  const int full = proof_begin(16, argc, argv);
  struct outcome *expected = habit_share(LIFE_SETTINGS * sizeof *expected),
                 *got = habit_share(LIFE_SETTINGS * sizeof *got);
  struct scene s;
  size_t n_lives = 0, n_stack = 0;
  scene_open(&s, SCENE_LAYERS, NULL);
  life_prepare(s.folder);
  habit_locales(s.folder);
  open_streams(&s);
  const int n_planted = plant(expected, got);
  if (full)
    for (size_t n_threads = 1; n_threads <= 4; n_threads *= 2)
      n_lives += live_all(&s, "base", n_threads, expected, got);
  n_lives += live_all(&s, NULL, 2, expected, got);
  n_lives += habit_two_locales(&s, full ? 2000 : 200);
  n_lives += habit_small_stacks(&s, expected, &n_stack);
  const size_t n_forks = habit_fork(&s, expected, full ? 500 : 30);
  const size_t n_cancelled = habit_cancel(&s), n_inside = habit_reenter(&s), n_thrown = habit_exceptions(&s);
  life_clean(s.folder);
  scene_close(&s);
  proof_held(
      "%zu lives with %d habits, %zu forks, %zu calls cancelled, %zu entered again, %zu thrown through; rounding "
      "moves predictions by %.0e at most and trainings by %.0e; %zu KiB of stack at most; %d faults were planted",
      n_lives, N_HABITS - 1, n_forks, n_cancelled, n_inside, n_thrown, farthest_served, farthest_trained, n_stack >> 10,
      n_planted);
}
