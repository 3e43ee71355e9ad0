/* SPDX-License-Identifier: BSD-3-Clause */
/* The program of proof 10. Sixteen threads serve people with one model and catalogue, others save and load, train, and
 * compute gradients, all with the same objects and one pool of threads, while another one replaces model and catalogue.
 * What each makes is made once without threads before, and has to be the same, bit for bit. Checkers look for races. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "serving.h"

enum { N_SERVERS = 16, N_OTHERS = 2, N_TOP = 5 };

/* What a thread does with a version: the digest of all that came of it. `who`: the number among its like. */
typedef uint64_t (*work_fn)(const struct version *v, size_t who);

/* The fault that is planted, if any. */
static int plants_race;
static size_t unguarded;

/* --------------------------------------------------------------------------------------------------- serving */

static void note_scores(uint64_t *digest, const struct version *v, melu_workspace *ws, const melu_user *user) {
  melu_error err;
  const melu_dataset *data = v->service->data;
  uint32_t items[SCENE_ITEMS];
  float scores[SCENE_ITEMS];
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) items[i] = i;
  PROOF_TRY(melu_predict(scores, ws, v->model, user, data, items, SCENE_ITEMS, &err));
  *digest = proof_digest(*digest, scores, sizeof scores);
  if (!v->service->kind->has_variances) return;
  PROOF_TRY(melu_predict_variance(scores, ws, v->model, user, data, items, SCENE_ITEMS, &err));
  *digest = proof_digest(*digest, scores, sizeof scores);
}

static void note_ranking(uint64_t *digest, const struct version *v, melu_workspace *ws, const melu_user *user) {
  melu_error err;
  const melu_user *const both[2] = {user, v->regular};
  uint32_t top[2 * N_TOP];
  float scores[SCENE_ITEMS];
  size_t n[2] = {N_TOP};
  PROOF_TRY(melu_catalog_top(top, scores, n, ws, v->catalog, user, NULL, &err));
  *digest = proof_digest(*digest, top, N_TOP * sizeof *top);
  PROOF_TRY(melu_catalog_score_list(scores, ws, v->catalog, v->regular, top, N_TOP, &err));
  *digest = proof_digest(*digest, scores, N_TOP * sizeof *scores);
  PROOF_TRY(melu_catalog_top_users(top, scores, n, N_TOP, ws, v->catalog, both, 2, NULL, &err));
  *digest = proof_digest(*digest, top, sizeof top);
  PROOF_TRY(melu_catalog_score(scores, ws, v->catalog, user, &err));
  *digest = proof_digest(*digest, scores, sizeof scores);
}

static void note_reasons(uint64_t *digest, const struct version *v, melu_workspace *ws, const melu_user *user) {
  melu_error err;
  const melu_dataset *data = v->service->data;
  static const uint32_t candidates[] = {20, 21, 22, 23};
  const struct melu_ask_options options = {.size = sizeof options, .items = candidates, .n_items = 4};
  uint32_t questions[3];
  float gains[3], pulls[SCENE_MOST];
  size_t n = 3;
  PROOF_TRY(melu_ask(questions, gains, &n, ws, v->model, user, data, &options, &err));
  *digest = proof_digest(*digest, questions, sizeof questions);
  if (v->service->kind->adapts_items) return;
  PROOF_TRY(melu_explain(pulls, ws, v->model, user, data, questions[0], &err));
  *digest = proof_digest(*digest, pulls, melu_user_ratings(user, NULL, NULL) * sizeof *pulls);
}

/* Somebody comes with a few ratings, gives another one, takes one back, leaves and returns. */
static uint64_t serve(const struct version *v, size_t who) {
  melu_error err;
  const melu_dataset *data = v->service->data;
  const size_t n = 1 + who % 7;
  uint32_t items[7];
  float ratings[7];
  uint64_t digest = 0;
  melu_workspace *ws;
  melu_user *user;
  for (size_t i = 0; i < n; i++) {
    items[i] = (uint32_t)((5 * who + 7 * i) % SCENE_ITEMS);
    ratings[i] = (float)(1 + (who + i) % 5);
  }
  PROOF_TRY(melu_workspace_new(&ws, v->model, SCENE_MOST, &err));
  PROOF_TRY(melu_user_new(&user, v->model, &err));
  PROOF_TRY(melu_adapt(user, ws, v->model, data, NULL, items, ratings, n, &err));
  note_scores(&digest, v, ws, user);
  PROOF_TRY(melu_user_rate(user, ws, v->model, data, (uint32_t)who, 3, &err));
  PROOF_TRY(melu_user_forget(user, ws, v->model, data, items[0], &err));
  note_scores(&digest, v, ws, user);
  note_scores(&digest, v, ws, v->regular);
  for (int form = MELU_USER_COMPACT; form <= MELU_USER_READY; form++) {
    struct proof_bytes b = proof_user_bytes(ws, v->regular, (melu_user_form)form);
    digest = proof_digest(digest, b.at, b.n);
    free(b.at);
    b = proof_user_bytes(ws, user, (melu_user_form)form);
    digest = proof_digest(digest, b.at, b.n);
    PROOF_TRY(melu_user_load(user, ws, v->model, data, b.at, b.n, &err));
    free(b.at);
  }
  if (v->catalog) note_ranking(&digest, v, ws, user);
  note_reasons(&digest, v, ws, user);
  melu_user_free(user);
  melu_workspace_free(ws);
  return digest;
}

/* ------------------------------------------------------------------------------------------------ other work */

/* Saves the model, loads it again, and judges and questions it on all threads of the pool. */
static uint64_t keep_books(const struct version *v, size_t who) {
  melu_error err;
  const struct melu_evaluate_options options = {.size = sizeof options, .n_query = 1, .min_ratings = 2};
  const struct melu_candidate_options by_norm = {.size = sizeof by_norm, .rule = MELU_GRADIENT_NORM};
  const melu_dataset *data = v->service->data;
  struct melu_metrics metrics;
  uint32_t items[N_TOP];
  size_t n = N_TOP;
  char path[SERVICE_PATH];
  melu_model *copy;
  PROOF_TRY(melu_model_save(v->model, service_path(path, v->service, "copy", who), &err));
  PROOF_TRY(melu_model_load(&copy, v->ctx, path, &err));
  unlink(path);
  uint64_t digest = proof_model_digest(copy);
  PROOF_NEEDS(digest == proof_model_digest(v->model), "a model that was saved and loaded is another one");
  PROOF_TRY(melu_evaluate(&metrics, v->model, data, &options, &err));
  digest = proof_digest(digest, &metrics, sizeof metrics);
  PROOF_TRY(melu_candidates(items, NULL, &n, copy, data, &by_norm, &err));
  digest = proof_digest(digest, items, n * sizeof *items);
  if (!v->service->kind->adapts_items) melu_catalog_free(service_catalog(copy, data));
  melu_model_free(copy);
  return digest;
}

/* Trains a model of its own. */
static uint64_t train(const struct version *v, size_t who) {
  melu_error err;
  const struct melu_fit_options fit = {
      .size = sizeof fit, .n_epochs = 2, .batch_tasks = 3, .n_query = 1, .min_ratings = 2, .seed = who};
  struct melu_model_options options = v->service->kind->options;
  melu_model *model;
  options.seed = 1 + who;
  PROOF_TRY(melu_model_new(&model, v->ctx, melu_dataset_schema(v->service->data), &options, &err));
  PROOF_TRY(melu_fit(model, v->service->data, &fit, &err));
  const uint64_t digest = proof_model_digest(model);
  melu_model_free(model);
  return digest;
}

static int absolute_error(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                          float *slopes) {
  (void)arg, (void)task;
  *loss = 0;
  for (size_t i = 0; i < n; i++) {
    const double error = (double)scores[i] - (double)ratings[i];
    *loss += error < 0 ? -error : error;
    slopes[i] = error < 0 ? -1 : 1;
  }
  return 0;
}

/* The meta-gradient of the model that is served: of its own loss, or of one that the host has. */
static uint64_t derive(const struct version *v, size_t who) {
  melu_error err;
  melu_gradient *gradient;
  PROOF_TRY(melu_gradient_new(&gradient, v->model, &err));
  if (who % 2)
    PROOF_TRY(melu_meta_gradient_of(gradient, v->model, v->service->batch, absolute_error, NULL, &err));
  else
    PROOF_TRY(melu_meta_gradient(gradient, v->model, v->service->batch, &err));
  const uint64_t digest = proof_gradient_digest(gradient, v->model);
  melu_gradient_free(gradient);
  return digest;
}

static const struct role {
  const char *name;
  work_fn work;
} roles[] = {{"serving", serve}, {"saving and loading", keep_books}, {"training", train}, {"a gradient", derive}};
enum { N_ROLES = sizeof roles / sizeof *roles, SERVING = 0 };

/* -------------------------------------------------------------------------------------------------- versions */

/* Replaces what is served as long as somebody works. */
static void replace_versions(struct service *s) {
  int is_over = 0;
  for (size_t k = 1; !is_over; k++) {
    service_publish(s, version_new(s, s->ctx, k % SERVICE_WEIGHTS));
    pthread_mutex_lock(&s->lock);
    is_over = s->n_working == 0;
    pthread_mutex_unlock(&s->lock);
  }
}

/* --------------------------------------------------------------------------------------------------- threads */

struct worker {
  struct service *service;
  const struct role *role;
  size_t who, n_rounds;
  uint64_t expected[SERVICE_WEIGHTS];
  pthread_t thread;
};

static void *run_worker(void *arg) {
  struct worker *w = arg;
  struct service *s = w->service;
  if (plants_race) unguarded++; /* before a lock orders what they do */
  for (size_t round = 0; round < w->n_rounds; round++) {
    struct version *v = service_take(s);
    PROOF_NEEDS(w->role->work(v, w->who) == w->expected[v->weights], "%s: %s is not what it is without threads",
                s->kind->name, w->role->name);
    service_give_back(s, v);
  }
  pthread_mutex_lock(&s->lock);
  s->n_working--;
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

/* Writes the models' files, and what work on each of them comes to without threads. */
static void work_alone(struct service *s, struct worker *workers, size_t n) {
  const struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 1, .n_query = 1, .min_ratings = 2};
  struct melu_model_options options = s->kind->options;
  melu_error err;
  for (size_t k = 0; k < SERVICE_WEIGHTS; k++) {
    char path[SERVICE_PATH];
    melu_model *model;
    options.seed = 10 + k;
    PROOF_TRY(melu_model_new(&model, s->scene.ctx, melu_dataset_schema(s->data), &options, &err));
    PROOF_TRY(melu_fit(model, s->data, &fit, &err));
    PROOF_TRY(melu_model_save(model, service_path(path, s, "weights", k), &err));
    melu_model_free(model);
    struct version *v = version_new(s, s->scene.ctx, k);
    for (size_t i = 0; i < n; i++) workers[i].expected[k] = workers[i].role->work(v, workers[i].who);
    version_free(v);
  }
  PROOF_NEEDS(workers[0].expected[0] != workers[0].expected[1], "all weights serve alike");
}

/* How often something was replaced. */
static size_t run_service(const struct service_kind *kind, size_t n_servers, size_t n_rounds) {
  struct service s;
  struct worker workers[N_SERVERS + (N_ROLES - 1) * N_OTHERS];
  size_t n = 0;
  service_open(&s, kind);
  for (size_t role = 0; role < N_ROLES; role++)
    for (size_t who = 0; who < (role == SERVING ? n_servers : N_OTHERS); who++)
      workers[n++] = (struct worker){.service = &s, .role = &roles[role], .who = who, .n_rounds = n_rounds};
  work_alone(&s, workers, n);
  service_publish(&s, version_new(&s, s.ctx, 0));
  s.n_working = n;
  for (size_t i = 0; i < n; i++)
    PROOF_NEEDS(pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]) == 0, "no thread");
  replace_versions(&s);
  for (size_t i = 0; i < n; i++) pthread_join(workers[i].thread, NULL);
  service_close(&s);
  return s.n_published;
}

int main(int argc, char **argv) {
  (void)proof_begin(10, 1, argv);
  const int servers = argc > 3 ? atoi(argv[1]) : 0, rounds = argc > 3 ? atoi(argv[2]) : 0;
  const int kinds = argc > 3 ? atoi(argv[3]) : 0;
  plants_race = argc == 5 && strcmp(argv[4], "race") == 0;
  PROOF_NEEDS(servers >= 1 && servers <= N_SERVERS && rounds >= 1 && kinds >= 1 && kinds <= SERVICE_KINDS &&
                  (argc == 4 || plants_race),
              "usage: %s SERVERS ROUNDS KINDS [race]", argv[0]);
  size_t n_published = 0;
  for (int k = 0; k < kinds; k++) n_published += run_service(&service_kinds[k], (size_t)servers, (size_t)rounds);
  proof_held("%d kinds of models, %d servers and %d others, %d rounds each, %zu replacements: as without threads",
             kinds, servers, (N_ROLES - 1) * N_OTHERS, rounds, n_published);
}
