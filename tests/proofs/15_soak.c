/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 15: over a long time nothing is kept: what malloc has given out, memory, open files, threads and mappings are
 * the same at the end as after the first tenth. Adapting, loading models and users, threads that come and go, and, in
 * another program, the library itself. Losses of all these are planted first, and must be noticed. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proof.h"
#include "soak.h"

/* What a part does again and again; `i` is which time it is. */
typedef void (*soak_fn)(struct scene *s, size_t i);

/* Does it n times. Returns what has grown, NULL if nothing has. */
static const char *soak(struct scene *s, soak_fn once, size_t n, size_t *resident) {
  struct soak_levels before = soak_levels(), after;
  for (size_t i = 0; i < n; i++) {
    once(s, i);
    if (i + 1 == n / 10) before = soak_levels();
  }
  after = soak_levels();
  *resident = after.resident;
  return soak_grown(&before, &after);
}

/* -------------------------------------------------------------------------------------------------- the parts */

/* Somebody of whom 0 to 20 ratings are known; each thousandth is new. */
static void adapt(struct scene *s, size_t i) {
  static const float ratings[SCENE_MOST] = {5, 3, 1, 4, 2, 5, 3, 1, 4, 2, 5, 3, 1, 4, 2, 5, 3, 1, 4, 2};
  uint32_t items[SCENE_MOST];
  melu_error err;
  if (i % 1000 == 0) {
    melu_user_free(s->user);
    PROOF_TRY(melu_user_new(&s->user, s->model, &err));
  }
  for (uint32_t k = 0; k < SCENE_MOST; k++) items[k] = (uint32_t)((i + 7 * k) % SCENE_ITEMS);
  PROOF_TRY(melu_adapt(s->user, s->ws, s->model, s->data, NULL, items, ratings, i % (SCENE_MOST + 1), &err));
}

static struct proof_bytes written[2]; /* the user in both forms */

/* A model, a user in one form, a user in the other, and again a model. */
static void load(struct scene *s, size_t i) {
  melu_error err;
  melu_model *model;
  const struct proof_bytes *user = &written[i / 2 % 2];
  if (i % 2) {
    PROOF_TRY(melu_user_load(s->user, s->ws, s->model, s->data, user->at, user->n, &err));
    return;
  }
  PROOF_TRY(melu_model_load(&model, s->ctx, scene_path(s, "soak"), &err));
  melu_model_free(model);
}

static void *adapt_once(void *arg) {
  struct scene own = *(struct scene *)arg;
  melu_error err;
  PROOF_TRY(melu_workspace_new(&own.ws, own.model, SCENE_MOST, &err));
  PROOF_TRY(melu_user_new(&own.user, own.model, &err));
  adapt(&own, 5);
  melu_user_free(own.user);
  melu_workspace_free(own.ws);
  return NULL;
}

static void start_thread(struct scene *s, size_t i) {
  pthread_t thread;
  (void)i;
  PROOF_NEEDS(pthread_create(&thread, NULL, adapt_once, s) == 0, "no thread");
  PROOF_NEEDS(pthread_join(thread, NULL) == 0, "a thread is lost");
}

/* ----------------------------------------------------------------------------------------------------- planting */

static void lose_memory(struct scene *s, size_t i) {
  void *volatile lost = malloc(24);
  (void)s, (void)i, (void)lost;
}

static void lose_file(struct scene *s, size_t i) {
  (void)s;
  if (i % 50 == 49) PROOF_NEEDS(dup(1) >= 0, "no descriptor");
}

static void lose_mapping(struct scene *s, size_t i) {
  const int access = i / 50 % 2 ? PROT_READ : PROT_READ | PROT_WRITE; /* else two of them would be one */
  (void)s;
  if (i % 50 == 49) PROOF_NEEDS(mmap(NULL, 1, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "no mapping");
}

static void *wait_for_ever(void *arg) {
  pause();
  return arg;
}

static void lose_thread(struct scene *s, size_t i) {
  static char stack[1 << 16];
  pthread_attr_t attributes;
  pthread_t thread;
  (void)s;
  if (i != 199) return;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, sizeof stack); /* else its stack would be noticed, and not the thread */
  PROOF_NEEDS(pthread_create(&thread, &attributes, wait_for_ever, NULL) == 0, "no thread");
  pthread_attr_destroy(&attributes);
}

static void plant(struct scene *s) {
  static const struct {
    soak_fn once;
    const char *what;
  } losses[] = {{lose_memory, "what malloc has given out"},
                {lose_file, "open files"},
                {lose_mapping, "mappings"},
                {lose_thread, "threads"}};
  size_t resident;
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    const char *grown = soak(s, losses[i].once, 400, &resident);
    PROOF_NEEDS(grown && strcmp(grown, losses[i].what) == 0, "%s was lost, and %s noticed", losses[i].what,
                grown ? grown : "nothing");
  }
}

/* ------------------------------------------------------------------------------------------------- the library */

/* Runs the other program; 1 if all stayed as it was. */
static int reload(size_t n, const char *lose) {
  char command[1024];
  snprintf(command, sizeof command, "'%s' '%s' %zu %s >&2", SOAK_PROGRAM, SOAK_LIBRARY, n, lose);
  return system(command) == 0;
}

/* ------------------------------------------------------------------------------------------------------- main */

static size_t most_resident;

static void go_on(struct scene *s, const char *what, soak_fn once, size_t n) {
  size_t resident;
  const char *grown = soak(s, once, n, &resident);
  PROOF_NEEDS(!grown, "%s: %s has grown in %zu times", what, grown, n);
  if (resident > most_resident) most_resident = resident;
}

static void load_and_adapt(int setting, size_t n_adapts, size_t n_loads, size_t n_threads) {
  melu_error err;
  struct scene s;
  scene_open(&s, setting, NULL);
  if (setting == SCENE_MELU) plant(&s);
  PROOF_TRY(melu_model_save(s.model, scene_path(&s, "soak"), &err));
  for (int form = 0; form < 2; form++) written[form] = scene_user_bytes(&s, (melu_user_form)form);
  go_on(&s, "adapting", adapt, n_adapts);
  go_on(&s, "loading", load, n_loads);
  go_on(&s, "threads", start_thread, n_threads);
  for (int form = 0; form < 2; form++) free(written[form].at);
  unlink(scene_path(&s, "soak"));
  scene_close(&s);
}

int main(int argc, char **argv) {
  const int full = proof_begin(15, argc, argv);
  const size_t share = full ? 1 : 100, n_adapts = 10000000 / share, n_loads = 100000 / share,
               n_threads = 100000 / share, n_reloads = full ? 10000 : 1000;
  for (int setting = SCENE_MELU; setting < SCENE_SETTINGS; setting++)
    load_and_adapt(setting, n_adapts / 2, n_loads / 2, n_threads / 2);
  PROOF_NEEDS(!reload(500, "lose"), "memory was lost where the library is unloaded, and nothing noticed");
  PROOF_NEEDS(reload(n_reloads, ""), "something has grown where the library is loaded and unloaded");
  proof_held(
      "%zu adapts, %zu loads, %zu threads, and %zu times the library: memory, files, threads and mappings as "
      "after the first tenth; %zu MiB at most",
      n_adapts, n_loads, n_threads, n_reloads, most_resident >> 20);
}
