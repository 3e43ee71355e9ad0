/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 17: who makes an input in order that it takes long does not succeed. Twice as much of anything takes less than
 * 2.5 times as long: keys that all have one hash, hostile orders, long lists, large objects. A line of a gibibyte takes
 * time and memory like its length, or is refused at a limit; and every limit has its own status. */
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../flood.h"
#include "linear.h"

#define WORST 2.5
#define DISTURBED 3 /* seconds: neighbours of a virtual machine are busy for longer than tries take */
enum { TRIES = 15 };

melu_context *linear_ctx;
static char folder[64];
static double least_time; /* of what is measured: seconds */

static struct {
  size_t n;
  double worst;
  const char *name; /* of the worst one */
} figures;

/* Of this process: what else the machine does is not measured, but for what it does to the caches. */
double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *linear_path(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

const char *hostile_text(size_t i) {
  static char(*texts)[9];
  static size_t n, room;
  static uint32_t at;
  if (i >= room) {
    room = 2 * (i + 1);
    texts = realloc(texts, room * sizeof *texts);
    PROOF_NEEDS(texts, "no memory");
  }
  while (n <= i) flood_text(texts[n++], &at);
  return texts[i];
}

static void reserve(struct growing *text, size_t n) {
  if (text->n + n < text->room) return;
  text->room = 2 * (text->n + n + 1);
  text->at = realloc(text->at, text->room);
  PROOF_NEEDS(text->at, "no memory");
}

void grow_text(struct growing *text, const char *format, ...) {
  char more[1024];
  va_list arguments;
  va_start(arguments, format);
  const int n = vsnprintf(more, sizeof more, format, arguments);
  va_end(arguments);
  PROOF_NEEDS(n >= 0 && (size_t)n < sizeof more, "a text is too long");
  grow_by(text, more, 1);
}

void grow_by(struct growing *text, const char *more, size_t times) {
  const size_t n = strlen(more);
  reserve(text, n * times);
  for (size_t i = 0; i < times; i++, text->n += n) memcpy(text->at + text->n, more, n);
  text->at[text->n] = '\0';
}

void write_text(struct growing *text, const char *name) {
  proof_write_file(linear_path(name), text->at, text->n);
  free(text->at);
  *text = (struct growing){NULL, 0, 0};
}

/* ------------------------------------------------------------------------------------------------- measuring */

static double run_times(const struct trap *t, size_t n, int times) {
  double sum = 0;
  for (int i = 0; i < times; i++) sum += t->run(n);
  return sum;
}

/* How many times longer 2 n take than n, the best of several tries each: what disturbs makes a time too long, never too
 * short. *one receives the seconds of n. */
static double growth(const struct trap *t, size_t n, int times, double *one) {
  double two = INFINITY;
  const double start = now_s();
  *one = INFINITY;
  for (int i = 0; (i < TRIES || now_s() - start < DISTURBED) && (i < 3 || two >= WORST * *one); i++) {
    *one = fmin(*one, run_times(t, n, times));
    two = fmin(two, run_times(t, 2 * n, times));
  }
  return two / *one;
}

/* n is as many as take long enough to be measured; where a limit is in the way, they are run several times. What is not
 * linear is so for more of them, too; where twice as many outgrow a cache, four times as many do not once more. */
static void measure(const struct trap *t) {
  size_t n = t->first;
  int times = 1;
  double one;
  while (4 * n <= t->most && t->run(n) < least_time) n *= 2;
  while (times < 1000 && run_times(t, n, times) < least_time) times *= 2;
  double worst = growth(t, n, times, &one);
  if (worst >= WORST && 4 * n <= t->most) worst = growth(t, n *= 2, times, &one);
  PROOF_NEEDS(worst < WORST, "%s: %zu of them take %.2f ms, twice as many %.2f times as long", t->name, n,
              1e3 * one / times, worst);
  figures.n++;
  if (worst <= figures.worst) return;
  figures.worst = worst;
  figures.name = t->name;
}

static void measure_all(const struct trap *traps, size_t n) {
  for (size_t i = 0; i < n; i++) measure(&traps[i]);
}

/* --------------------------------------------------------------------------------------------- what is planted */

/* A table of chains without a seed, as anybody would write it. */
static double flood_chains(size_t n) {
  struct link {
    uint64_t key;
    struct link *next;
  } *links = calloc(n, sizeof *links), **chains = calloc(2 * n, sizeof *chains);
  PROOF_NEEDS(links && chains, "no memory");
  const double start = now_s();
  for (size_t i = 0; i < n; i++) {
    links[i].key = flood_number((uint32_t)i);
    struct link **at = &chains[(uint32_t)XXH3_64bits(&links[i].key, sizeof links[i].key) % (2 * n)];
    while (*at && (*at)->key != links[i].key) at = &(*at)->next;
    *at = &links[i];
  }
  const double took = now_s() - start;
  free(links);
  free(chains);
  return took;
}

static void measure_planted(void *arg) {
  measure(arg);
}

int main(int argc, char **argv) {
  const int full = proof_begin(17, argc, argv);
  melu_error err;
  struct trap planted = {"what was planted", flood_chains, 1000, 1 << 24};
  const char *parent = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.40s/melu-proof-XXXXXX", parent ? parent : "/tmp");
  PROOF_NEEDS(mkdtemp(folder), "cannot make %s", folder);
  PROOF_TRY(melu_context_new(&linear_ctx, NULL, &err));
  least_time = full ? 0.1 : 0.01;
  /* Memory that the system gives anew has to be cleared, which would be measured too. */
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  PROOF_NEEDS(proof_notices(measure_planted, &planted), "a flooded hash table was not noticed");
  measure_all(data_traps, n_data_traps);
  measure_all(file_traps, n_file_traps);
  measure_all(serve_traps, n_serve_traps);
  serve_traps_close();
  const size_t n_line = (size_t)1 << (full ? 30 : 26), n_lines = long_lines(n_line), n_limits = limits();
  melu_context_free(linear_ctx);
  rmdir(folder);
  proof_held(
      "%zu traps, twice as much takes at most %.2f times as long (%s); %zu lines of %zu MiB in bounded time and "
      "memory; %zu limits, each its status",
      figures.n, figures.worst, figures.name, n_lines, n_line >> 20, n_limits);
}
