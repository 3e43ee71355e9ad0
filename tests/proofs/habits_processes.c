/* SPDX-License-Identifier: BSD-3-Clause */
/* Habits with threads and processes: locales of threads, small stacks, forks. */
#define _GNU_SOURCE /* pthread_setattr_default_np, MAP_ANONYMOUS */
#include <limits.h>
#include <locale.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "habits.h"

static void live(struct outcome *out, const struct scene *s, const char *tag, int setting, size_t n_threads) {
  const struct life_plan plan = {.folder = s->folder,
                                 .tag = tag,
                                 .setting = setting,
                                 .context = {.size = sizeof plan.context, .n_threads = n_threads}};
  whole_life(out, &plan);
}

static struct outcome *new_outcome(void) {
  struct outcome *out = malloc(sizeof *out);
  PROOF_NEEDS(out, "no memory");
  return out;
}

static pthread_t start(void *(*work)(void *), void *arg, const pthread_attr_t *attributes) {
  pthread_t thread;
  PROOF_NEEDS(pthread_create(&thread, attributes, work, arg) == 0, "no thread");
  return thread;
}

/* ---------------------------------------------------------------------------------------------------- locales */

void habit_locales(const char *folder) {
  static const char *const names[] = {"de_DE", "tr_TR", "ps_AF"};
  char command[512];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(command, sizeof command, "localedef -i %s -f UTF-8 '%s/%s.UTF-8' >&2", names[i], folder, names[i]);
    PROOF_NEEDS(system(command) == 0, "localedef cannot make %s; it needs the package locales", names[i]);
  }
  PROOF_NEEDS(setenv("LOCPATH", folder, 1) == 0, "no memory");
}

/* What localeconv returns is one struct for all threads, each of which writes into it what its own locale says. */
static atomic_int stopping;

static void *ask_often(void *arg) {
  (void)arg;
  while (!atomic_load(&stopping)) PROOF_NEEDS(*localeconv()->decimal_point, "no decimal point");
  return NULL;
}

struct speaking {
  const struct scene *s;
  size_t n_rounds;
};

static void speak_two(const void *arg) {
  const struct speaking *speaking = arg;
  melu_error err;
  const pthread_t thread = start(ask_often, NULL, NULL);
  const locale_t german = newlocale(LC_ALL_MASK, "de_DE.UTF-8", (locale_t)0);
  PROOF_NEEDS(german && uselocale(german), "no locale");
  for (size_t i = 0; i < speaking->n_rounds; i++) {
    melu_model *loaded;
    const char *path = scene_path(speaking->s, "german");
    PROOF_TRY(melu_model_save(speaking->s->model, path, &err));
    PROOF_TRY(melu_model_load(&loaded, speaking->s->ctx, path, &err));
    melu_model_free(loaded);
    unlink(path);
  }
  atomic_store(&stopping, 1);
  pthread_join(thread, NULL);
  uselocale(LC_GLOBAL_LOCALE);
  freelocale(german);
}

size_t habit_two_locales(const struct scene *s, size_t n_rounds) {
  const struct speaking speaking = {s, n_rounds};
  habit_needs("two locales at once", speak_two, &speaking, 120);
  return 1;
}

/* ----------------------------------------------------------------------------------------------------- stacks */

enum { SMALL_STACK = 128 << 10, PAINT = 0xa5 };

struct small {
  const struct scene *s;
  const struct outcome *expected;
  size_t *used; /* in memory that both processes have */
};

struct small_life {
  const struct small *small;
  int setting;
};

static void *live_in_little(void *arg) {
  const struct small_life *life = arg;
  struct outcome *out = new_outcome();
  live(out, life->small->s, "small", life->setting, 2);
  habit_same("a stack of 128 KiB", out, &life->small->expected[life->setting], 0, 0);
  free(out);
  return NULL;
}

static void *use_too_much(void *arg) {
  volatile char bytes[2 * SMALL_STACK];
  for (size_t i = sizeof bytes; i > 0; i -= 512) bytes[i - 1] = 1;
  (void)arg;
  return NULL;
}

static size_t count_used(const unsigned char *stack) {
  size_t n = 0;
  while (n < SMALL_STACK && stack[n] == PAINT) n++;
  return SMALL_STACK - n;
}

/* On a painted stack with a page below that nobody may touch; the library's own threads have stacks of that size too.
 */
static void run_in_little(void *(*work)(void *), void *arg, size_t *used) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  pthread_attr_t attributes;
  unsigned char *memory = mmap(NULL, page + SMALL_STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  PROOF_NEEDS(memory != MAP_FAILED && mprotect(memory + page, SMALL_STACK, PROT_READ | PROT_WRITE) == 0, "no stack");
  memset(memory + page, PAINT, SMALL_STACK);
  pthread_attr_init(&attributes);
  PROOF_NEEDS(pthread_attr_setstacksize(&attributes, SMALL_STACK) == 0, "stacks are larger than 128 KiB here");
  PROOF_NEEDS(pthread_setattr_default_np(&attributes) == 0, "threads have stacks of their own size");
  PROOF_NEEDS(pthread_attr_setstack(&attributes, memory + page, SMALL_STACK) == 0, "no stack of our own");
  pthread_join(start(work, arg, &attributes), NULL);
  const size_t n = count_used(memory + page);
  if (n > *used) *used = n;
  pthread_attr_destroy(&attributes);
  munmap(memory, page + SMALL_STACK);
}

static void live_all_in_little(const void *arg) {
  const struct small *small = arg;
  for (int setting = 0; setting < LIFE_SETTINGS; setting++) {
    struct small_life life = {small, setting};
    run_in_little(live_in_little, &life, small->used);
  }
}

static void use_all(const void *arg) {
  size_t used = 0;
  (void)arg;
  run_in_little(use_too_much, NULL, &used);
}

size_t habit_small_stacks(const struct scene *s, const struct outcome *expected, size_t *most) {
  size_t *used = habit_share(sizeof *used);
  PROOF_NEEDS(habit_run(use_all, NULL, 10) > 0, "too small a stack was not noticed");
  const struct small small = {s, expected, used};
  habit_needs("stacks of 128 KiB", live_all_in_little, &small, 120);
  *most = *used;
  return LIFE_SETTINGS;
}

/* ------------------------------------------------------------------------------------------------------ forks */

/* A host with a pool, which it forks. */
struct parent {
  const struct scene *s;
  const struct outcome *expected;
  struct scene pooled; /* its own context has threads */
  unsigned char fitted[MELU_DIGEST_BYTES];
};

static void fit_new(unsigned char digest[MELU_DIGEST_BYTES], const struct scene *s) {
  melu_error err;
  melu_model *model;
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 2, .n_query = 1, .min_ratings = 2};
  PROOF_TRY(melu_model_new(&model, s->ctx, melu_dataset_schema(s->data), NULL, &err));
  PROOF_TRY(melu_fit(model, s->data, &fit, &err));
  PROOF_TRY(melu_model_digest(digest, model, &err));
  melu_model_free(model);
}

/* Another life in the same folder, with objects of a context of two threads. */
static void open_pool(struct scene *s, const struct scene *like) {
  melu_error err;
  const struct melu_context_options two = {.size = sizeof two, .n_threads = 2};
  *s = *like;
  PROOF_TRY(melu_context_new(&s->ctx, &two, &err));
  PROOF_TRY(melu_dataset_new(&s->data, s->ctx, like->schema, &err));
  for (int t = 0; t < SCENE_TABLES; t++)
    PROOF_TRY(scene_read(s->data, (enum scene_table)t, scene_path(like, scene_table_names[t]), &err));
  PROOF_TRY(melu_dataset_freeze(s->data, &err));
}

static void close_pool(struct scene *s) {
  melu_dataset_free(s->data);
  melu_context_free(s->ctx);
}

/* The child computes with what it has from its parent, with a context of its own, and frees it all. */
static void use_inherited(const void *arg) {
  struct parent parent = *(const struct parent *)arg;
  struct outcome *out = new_outcome();
  unsigned char digest[MELU_DIGEST_BYTES];
  melu_error err;
  static const uint32_t items[2] = {3, 9};
  static const float ratings[2] = {5, 1};
  const struct scene *s = parent.s;
  PROOF_TRY(melu_adapt(s->user, s->ws, s->model, s->data, NULL, items, ratings, 2, &err));
  fit_new(digest, &parent.pooled);
  PROOF_NEEDS(memcmp(digest, parent.fitted, sizeof digest) == 0, "a forked training has other results");
  fit_new(digest, s);
  PROOF_NEEDS(memcmp(digest, parent.fitted, sizeof digest) == 0, "a forked training has other results");
  live(out, s, "forked", LIFE_LAYERS, 2);
  habit_same("a forked process", out, &parent.expected[LIFE_LAYERS], 0, 0);
  close_pool(&parent.pooled);
  free(out);
}

/* While another thread computes, a child may do with the pool's context what is its own. */
static void use_own(const void *arg) {
  const struct parent *parent = arg;
  struct outcome *out = new_outcome();
  unsigned char digest[MELU_DIGEST_BYTES];
  live(out, parent->s, "forked", LIFE_LAYERS, 2);
  habit_same("a forked process", out, &parent->expected[LIFE_LAYERS], 0, 0);
  fit_new(digest, &parent->pooled);
  PROOF_NEEDS(memcmp(digest, parent->fitted, sizeof digest) == 0, "a forked training has other results");
  free(out);
}

static void *compute(void *arg) {
  const struct parent *parent = arg;
  unsigned char digest[MELU_DIGEST_BYTES];
  while (!atomic_load(&stopping)) fit_new(digest, &parent->pooled);
  return NULL;
}

size_t habit_fork(const struct scene *s, const struct outcome *expected, size_t n_forks) {
  struct parent parent = {.s = s, .expected = expected};
  open_pool(&parent.pooled, s);
  fit_new(parent.fitted, &parent.pooled);
  habit_needs("fork", use_inherited, &parent, 60);
  const pthread_t thread = start(compute, &parent, NULL);
  for (size_t i = 0; i < n_forks; i++) habit_needs("fork while another thread computes", use_own, &parent, 60);
  atomic_store(&stopping, 1);
  pthread_join(thread, NULL);
  close_pool(&parent.pooled);
  return n_forks + 1;
}
