/* SPDX-License-Identifier: BSD-3-Clause */
/* The program of proof 18: the same work on 1 to 16 threads, of the library and of a host who takes tasks in any order,
 * makes the same bits. Other builds and other kernels make other roundings: how far what they predict may be apart. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../support.h"
#include "proof.h"

enum {
  MOST_THREADS = 16,
  RATINGS = 24,    /* of one user, at most */
  N_STRANGERS = 5, /* who come with so many ratings: */
  N_TOP = 10,
  N_SCORES = N_STRANGERS * SCENE_ITEMS,
  PATH = 256
};
static const size_t told[N_STRANGERS] = {0, 1, 3, 8, 20};

/* How far predictions may be apart, in units of the larger of them and 1; ratings are from 1 to 5. */
static const double same_weights = 2e-6, same_training = 2e-5;

static const size_t two[2] = {8, 6}, three[3] = {9, 5, 7}, one[1] = {7};
#define SIZES .size = sizeof(struct melu_model_options)
#define BATCH(n) \
  { .size = sizeof(struct melu_fit_options), .batch_tasks = n, .n_query = 2, .min_ratings = 3 }

/* Batches are fewer than threads, odd, or the presets'. */
static const struct shape {
  const char *name;
  struct melu_model_options model;
  struct melu_fit_options fit;
} shapes[] = {
    {"layers", {SIZES, .hidden = two, .n_hidden = 2}, BATCH(7)},
    {"deep", {SIZES, .hidden = three, .n_hidden = 3, .inner_steps = 2, .rates = MELU_RATE_PER_ENTRY}, BATCH(3)},
    {"first order", {SIZES, .hidden = two, .n_hidden = 2, .first_order = 1, .loss = MELU_PAIRWISE}, BATCH(13)},
    {"items", {SIZES, .hidden = two, .n_hidden = 2, .adapt = 15, .multi_step = 1}, BATCH(5)},
    {"melu", {SIZES, .preset = "melu"}, BATCH(0)},
    {"factors", {SIZES, .preset = "best", .hidden = one, .n_hidden = 1, .rank = 5}, BATCH(7)},
    {"stepping", {SIZES, .preset = "best", .n_hidden = MELU_NONE, .rank = 6, .rule = MELU_STEPS}, BATCH(1)},
    {"clicks", {SIZES, .preset = "best", .hidden = one, .n_hidden = 1, .rank = 4, .loss = MELU_LOGISTIC}, BATCH(13)},
    {"best", {SIZES, .preset = "best"}, BATCH(0)},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct outcome {
  uint64_t digest;        /* of all that was made */
  float scores[N_SCORES]; /* what is predicted after adapting */
};

/* ----------------------------------------------------------------------------------------------------- data */

/* The items of the scene, and many people like its own: some rate nothing, and none of them all. Clicks are told from
 * ratings by the middle. `changed`: everybody's first rating is another one in its last bit. */
static melu_dataset *new_crowd(const struct scene *s, uint32_t n_users, int are_clicks, int changed) {
  melu_error err;
  melu_dataset *data;
  struct melu_value values[3];
  uint32_t random = 1;
  PROOF_TRY(melu_dataset_new(&data, s->ctx, melu_dataset_schema(s->data), &err));
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) {
    PROOF_TRY(melu_dataset_item_values(values, s->data, i, &err));
    PROOF_TRY(melu_dataset_add_item(data, i, values, NULL, &err));
  }
  for (uint32_t u = 0; u < n_users; u++) {
    PROOF_TRY(melu_dataset_user_values(values, s->data, u % SCENE_USERS, &err));
    PROOF_TRY(melu_dataset_add_user(data, u, values, NULL, &err));
    random = random * 1664525 + 1013904223;
    for (uint32_t k = 0; k < (random >> 16) % RATINGS; k++) {
      const uint32_t item = (7 * k + u) % SCENE_ITEMS;
      const float rating = (float)(1 + (item % 5 + u % 3 + (random >> k) % 2) % 5);
      const float given = are_clicks ? (float)(rating > 3) : rating;
      const int is_changed = changed && k == 0;
      PROOF_TRY(melu_dataset_add_rating(data, u, item, is_changed ? nextafterf(given, 9) : given, &err));
    }
  }
  PROOF_TRY(melu_dataset_freeze(data, &err));
  return data;
}

/* ----------------------------------------------------------------------------------------------------- work */

struct job {
  const struct shape *shape;
  const melu_dataset *data;
  size_t n_epochs;
  uint64_t seed; /* of the model and its training */
};

static int are_clicks(const struct shape *shape) {
  return shape->model.loss == MELU_LOGISTIC;
}

static melu_model *new_trained(melu_context *ctx, const struct job *job) {
  melu_error err;
  melu_model *model;
  struct melu_model_options options = job->shape->model;
  struct melu_fit_options fit = job->shape->fit;
  fit.n_epochs = job->n_epochs;
  fit.seed = options.seed = job->seed;
  PROOF_TRY(melu_model_new(&model, ctx, melu_dataset_schema(job->data), &options, &err));
  PROOF_TRY(melu_fit(model, job->data, &fit, &err));
  return model;
}

/* The meta-gradient of a batch with as many tasks as the training's; 11 for the presets'. */
static uint64_t derive(const melu_context *ctx, const struct shape *shape, const melu_model *model,
                       const melu_dataset *data) {
  const size_t wanted = shape->fit.batch_tasks ? shape->fit.batch_tasks : 11;
  melu_error err;
  uint32_t positions[RATINGS];
  melu_batch *batch;
  melu_gradient *gradient;
  for (uint32_t i = 0; i < RATINGS; i++) positions[i] = i;
  PROOF_TRY(melu_batch_new(&batch, ctx, data, &err));
  for (uint32_t u = 0; melu_batch_n_tasks(batch) < wanted; u++) {
    const size_t n = melu_dataset_ratings(data, u, NULL, NULL);
    if (n > 2) PROOF_TRY(melu_batch_add(batch, u, positions + 2, n - 2, positions, 2, &err));
  }
  PROOF_TRY(melu_gradient_new(&gradient, model, &err));
  PROOF_TRY(melu_meta_gradient(gradient, model, batch, &err));
  const uint64_t digest = proof_gradient_digest(gradient, model);
  melu_gradient_free(gradient);
  melu_batch_free(batch);
  return digest;
}

/* What the model is worth, and whom it would ask what. */
static uint64_t judge(uint64_t digest, const melu_model *model, const melu_dataset *data) {
  const struct melu_evaluate_options evaluate = {.size = sizeof evaluate, .n_query = 2};
  melu_error err;
  struct melu_metrics metrics;
  PROOF_TRY(melu_evaluate(&metrics, model, data, &evaluate, &err));
  digest = proof_digest(digest, &metrics, sizeof metrics);
  for (int rule = MELU_EXPECTED_ERROR; rule <= MELU_GRADIENT_NORM; rule++) {
    const struct melu_candidate_options options = {
        .size = sizeof options, .rule = (melu_candidate_rule)rule, .max_items = 12, .n_splits = 1};
    uint32_t items[3];
    double scores[3];
    size_t n = 3;
    PROOF_TRY(melu_candidates(items, scores, &n, model, data, &options, &err));
    digest = proof_digest(digest, items, n * sizeof *items);
    digest = proof_digest(digest, scores, n * sizeof *scores);
  }
  return digest;
}

/* Adapts to strangers, and ranks all items for each. */
static void serve(struct outcome *out, const melu_model *model, const melu_dataset *data, int are_clicks) {
  melu_error err;
  melu_workspace *ws;
  melu_user *user;
  melu_catalog *catalog = NULL;
  uint32_t items[SCENE_ITEMS], top[N_TOP];
  float ratings[SCENE_ITEMS], best[N_TOP];
  struct melu_model_options options = {.size = sizeof options};
  PROOF_TRY(melu_model_get_options(&options, model, &err));
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) {
    items[i] = i * 7 % SCENE_ITEMS;
    ratings[i] = are_clicks ? (float)(i % 2) : (float)(1 + i % 5);
  }
  PROOF_TRY(melu_workspace_new(&ws, model, SCENE_MOST, &err));
  PROOF_TRY(melu_user_new(&user, model, &err));
  if (!(options.adapt & MELU_ADAPT_ITEMS)) PROOF_TRY(melu_catalog_new(&catalog, model, data, NULL, 0, &err));
  for (size_t k = 0; k < N_STRANGERS; k++) {
    size_t n = N_TOP;
    PROOF_TRY(melu_adapt(user, ws, model, data, NULL, items, ratings, told[k], &err));
    PROOF_TRY(melu_predict(out->scores + k * SCENE_ITEMS, ws, model, user, data, items, SCENE_ITEMS, &err));
    if (!catalog) continue;
    PROOF_TRY(melu_catalog_top(top, best, &n, ws, catalog, user, NULL, &err));
    out->digest = proof_digest(out->digest, top, sizeof top);
    out->digest = proof_digest(out->digest, best, sizeof best);
  }
  out->digest = proof_digest(out->digest, out->scores, sizeof out->scores);
  melu_catalog_free(catalog);
  melu_user_free(user);
  melu_workspace_free(ws);
}

/* All of it. The trained model is saved as `path`, if that is not NULL. */
static struct outcome work(const struct melu_context_options *options, const struct job *job, const char *path) {
  melu_error err;
  melu_context *ctx;
  struct outcome out = {0};
  PROOF_TRY(melu_context_new(&ctx, options, &err));
  melu_model *model = new_trained(ctx, job);
  const uint64_t parts[] = {proof_model_digest(model), derive(ctx, job->shape, model, job->data)};
  out.digest = judge(proof_digest(0, parts, sizeof parts), model, job->data);
  serve(&out, model, job->data, are_clicks(job->shape));
  if (path) PROOF_TRY(melu_model_save(model, path, &err));
  melu_model_free(model);
  melu_context_free(ctx);
  return out;
}

/* -------------------------------------------------------------------------------------------------- threads */

/* A host who takes tasks in an order of its own, and says that any of its threads does. */
struct shuffling {
  uint64_t random;
  size_t n_threads;
};

static uint64_t next_random(struct shuffling *s) {
  s->random = s->random * 6364136223846793005u + 1442695040888963407u;
  return s->random >> 33;
}

static void run_shuffled(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg,
                         size_t n_tasks) {
  struct shuffling *s = arg;
  size_t *order = malloc((n_tasks + 1) * sizeof *order);
  PROOF_NEEDS(order, "no memory");
  for (size_t i = 0; i < n_tasks; i++) {
    const size_t j = next_random(s) % (i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  for (size_t i = 0; i < n_tasks; i++) task(task_arg, order[i], next_random(s) % s->n_threads);
  free(order);
}

/* How many runs made the same as one thread. */
static size_t compare_threads(const struct job *job, const char *kernels, const struct outcome *alone) {
  size_t n = 0;
  for (size_t n_threads = 2; n_threads <= MOST_THREADS; n_threads++) {
    struct shuffling shuffling = {n_threads, n_threads};
    const struct melu_runner host = {&shuffling, n_threads, run_shuffled};
    for (int is_host = 0; is_host < 2; is_host++) {
      const struct melu_context_options options = {
          .size = sizeof options, .n_threads = n_threads, .kernels = kernels, .runner = is_host ? &host : NULL};
      const struct outcome many = work(&options, job, NULL);
      PROOF_NEEDS(many.digest == alone->digest, "%s, kernels %s: %zu threads of the %s make other bits than one",
                  job->shape->name, kernels, n_threads, is_host ? "host" : "library");
      n++;
    }
  }
  return n;
}

/* ----------------------------------------------------------------------------------------- builds and kernels */

/* The largest distance between predictions, relative to the larger of them and 1. */
static double apart(const float *a, const float *b) {
  double most = 0;
  for (size_t i = 0; i < N_SCORES; i++) {
    const double e = test_relative_error((double)a[i], (double)b[i], fmax(1, fabs((double)a[i])));
    if (e > most) most = e;
  }
  return most;
}

/* What a model that another build or another set has trained predicts here. */
static struct outcome serve_file(const struct melu_context_options *options, const struct job *job, const char *path) {
  melu_error err;
  melu_context *ctx;
  melu_model *model;
  struct outcome out = {0};
  PROOF_TRY(melu_context_new(&ctx, options, &err));
  PROOF_TRY(melu_model_load(&model, ctx, path, &err));
  serve(&out, model, job->data, are_clicks(job->shape));
  melu_model_free(model);
  melu_context_free(ctx);
  return out;
}

static struct set {
  const char *name;
  size_t n_runs;                      /* on several threads, with the bits of one */
  double same_weights, same_training; /* how far predictions are apart from the first set's of the first build */
} sets[] = {{.name = "avx512"}, {.name = "avx2"}, {.name = "base"}};
enum { N_SETS = sizeof sets / sizeof *sets };

static int is_usable(const struct set *set) {
  const struct melu_context_options options = {.size = sizeof options, .kernels = set->name};
  melu_context *ctx;
  const melu_status status = melu_context_new(&ctx, &options, NULL);
  PROOF_NEEDS(status == MELU_OK || status == MELU_EINVAL, "kernels %s: %s", set->name, melu_status_name(status));
  melu_context_free(ctx);
  return status == MELU_OK;
}

static double larger(double a, double b) {
  return a > b ? a : b;
}

/* One shape with one set of kernels. Who comes first leaves model and predictions in files `model` and `scores`. */
static void run_set(struct set *set, const struct job *job, const char *model, const char *scores) {
  const struct melu_context_options options = {.size = sizeof options, .kernels = set->name};
  const int is_first = access(scores, F_OK) != 0;
  const struct outcome alone = work(&options, job, is_first ? model : NULL);
  set->n_runs += compare_threads(job, set->name, &alone);
  if (is_first) {
    proof_write_file(scores, alone.scores, sizeof alone.scores);
    return;
  }
  const struct proof_bytes first = proof_read_file(scores);
  PROOF_NEEDS(first.n == sizeof alone.scores, "%s is no file of predictions", scores);
  struct outcome loaded = serve_file(&options, job, model);
  const double weights = apart(loaded.scores, (const float *)first.at);
  const double training = apart(alone.scores, (const float *)first.at);
  free(first.at);
  PROOF_NEEDS(weights < same_weights, "%s, kernels %s: predictions of the same weights are %.1e apart",
              job->shape->name, set->name, weights);
  PROOF_NEEDS(training < same_training, "%s, kernels %s: predictions after the same training are %.1e apart",
              job->shape->name, set->name, training);
  set->same_weights = larger(set->same_weights, weights);
  set->same_training = larger(set->same_training, training);
}

/* Last bits of ratings make other bits; another seed, predictions that are further apart than allowed.
 */
static void notice_planted(const struct job *job, const melu_dataset *changed) {
  const struct job with_changed = {job->shape, changed, job->n_epochs, job->seed};
  const struct job with_seed = {job->shape, job->data, job->n_epochs, job->seed + 1};
  const struct outcome sound = work(NULL, job, NULL), other = work(NULL, &with_changed, NULL);
  const struct outcome far = work(NULL, &with_seed, NULL);
  PROOF_NEEDS(sound.digest == work(NULL, job, NULL).digest, "%s: the same work makes other bits", job->shape->name);
  PROOF_NEEDS(sound.digest != other.digest, "%s: a changed rating was not noticed", job->shape->name);
  PROOF_NEEDS(apart(sound.scores, far.scores) > same_training, "%s: another training is only %.1e apart",
              job->shape->name, apart(sound.scores, far.scores));
}

static void run_shape(const struct scene *scene, const struct shape *shape, int full, const char *folder,
                      size_t number) {
  const uint32_t n_users = full ? 100 : 45;
  melu_dataset *data = new_crowd(scene, n_users, are_clicks(shape), 0);
  melu_dataset *changed = new_crowd(scene, n_users, are_clicks(shape), 1);
  const struct job job = {.shape = shape, .data = data, .n_epochs = full ? 15 : 2};
  char model[PATH], scores[PATH];
  snprintf(model, sizeof model, "%s/model-%zu", folder, number);
  snprintf(scores, sizeof scores, "%s/scores-%zu", folder, number);
  notice_planted(&job, changed);
  for (size_t i = 0; i < N_SETS; i++)
    if (is_usable(&sets[i])) run_set(&sets[i], &job, model, scores);
  melu_dataset_free(changed);
  melu_dataset_free(data);
}

int main(int argc, char **argv) {
  struct scene scene;
  if (argc < 2) return 2; /* usage: FOLDER [--full] */
  const int full = proof_begin(18, argc - 1, argv + 1);
  scene_open(&scene, SCENE_LAYERS, NULL);
  for (size_t i = 0; i < N_SHAPES; i++) run_shape(&scene, &shapes[i], full, argv[1], i);
  scene_close(&scene);
  for (size_t i = 0; i < N_SETS; i++)
    if (sets[i].n_runs)
      printf("kernels %s: %zu runs, %.1e with the same weights and %.1e after the same training\n", sets[i].name,
             sets[i].n_runs, sets[i].same_weights, sets[i].same_training);
    else
      printf("kernels %s: this machine cannot run them\n", sets[i].name);
  proof_held("%d shapes of models: on 2 to %d threads the bits of one", N_SHAPES, MOST_THREADS);
}
