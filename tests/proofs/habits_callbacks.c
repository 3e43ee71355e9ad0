/* SPDX-License-Identifier: BSD-3-Clause */
/* Hosts that stop a call from its progress callback, or make calls from it. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "habits.h"
#include "habits_exceptions.h"

/* A long call, on a world of its own. */
struct world {
  const struct scene *s; /* whose files are read */
  melu_context *ctx;
  melu_schema *schema, *movies;
  melu_dataset *data, *fresh; /* frozen, and empty */
  melu_model *model[2];       /* of both networks */
  struct melu_metrics metrics;
  uint32_t items[4];
  double gains[4];
  size_t n;
};

static const size_t few[2] = {5, 4};
static const struct melu_model_options models[2] = {
    {.size = sizeof *models, .seed = 3, .hidden = few, .n_hidden = 2, .inner_steps = 2},
    {.size = sizeof *models, .seed = 3, .preset = "best", .hidden = few, .n_hidden = 1, .rank = 3},
};
static const struct melu_fit_options fit = {
    .size = sizeof fit, .n_epochs = 3, .batch_tasks = 2, .n_query = 1, .min_ratings = 2};
static const struct melu_evaluate_options judge = {.size = sizeof judge, .n_query = 1, .min_ratings = 2};

static melu_status read_table(struct world *w, enum scene_table table, melu_error *err) {
  char path[128]; /* a call in a callback asks for other names */
  snprintf(path, sizeof path, "%s", scene_path(w->s, scene_table_names[table]));
  return scene_read(w->fresh, table, path, err);
}

static melu_status read_items(struct world *w, melu_error *err) {
  return read_table(w, SCENE_TABLE_ITEMS, err);
}

static melu_status read_users(struct world *w, melu_error *err) {
  return read_table(w, SCENE_TABLE_USERS, err);
}

static melu_status read_melu(struct world *w, melu_error *err) {
  return melu_schema_add_melu_items(w->movies, w->s->folder, err);
}

static melu_status fit_layers(struct world *w, melu_error *err) {
  return melu_fit(w->model[0], w->data, &fit, err);
}

static melu_status fit_factors(struct world *w, melu_error *err) {
  return melu_fit(w->model[1], w->data, &fit, err);
}

static melu_status evaluate(struct world *w, melu_error *err) {
  return melu_evaluate(&w->metrics, w->model[1], w->data, &judge, err);
}

static melu_status ask_by(struct world *w, melu_candidate_rule rule, melu_error *err) {
  const struct melu_candidate_options options = {.size = sizeof options, .rule = rule, .n_splits = 2};
  return melu_candidates(w->items, w->gains, &w->n, w->model[0], w->data, &options, err);
}

static melu_status ask_by_error(struct world *w, melu_error *err) {
  return ask_by(w, MELU_EXPECTED_ERROR, err);
}

static melu_status ask_by_norm(struct world *w, melu_error *err) {
  return ask_by(w, MELU_GRADIENT_NORM, err);
}

static melu_status choose(struct world *w, melu_error *err) {
  const struct melu_choose_options options = {.size = sizeof options, .validation = 0.3, .evaluate = &judge};
  const struct melu_fit_options fits[2] = {fit, fit};
  return melu_choose(&w->n, NULL, w->ctx, w->data, models, fits, 2, &options, err);
}

/* `trains`: what is left is a model whose training ended early, and not the world as it was. */
static const struct long_call {
  const char *name, *phase;
  melu_status (*make)(struct world *w, melu_error *err);
  int trains;
} calls[] = {
    {"reading items", "read", read_items, 0},
    {"reading users", "read", read_users, 0},
    {"reading a folder", "read", read_melu, 0},
    {"training layers", "fit", fit_layers, 1},
    {"training factors", "fit", fit_factors, 1},
    {"evaluating", "evaluate", evaluate, 0},
    {"asking by error", "ask", ask_by_error, 0},
    {"asking by norm", "ask", ask_by_norm, 0},
    {"choosing", "fit", choose, 0},
};
enum { N_CALLS = sizeof calls / sizeof *calls };

/* -------------------------------------------------------------------------------------------------- the world */

static melu_context *new_context(size_t n_threads, melu_progress_fn progress, void *arg) {
  melu_error err;
  melu_context *ctx;
  const struct melu_context_options options = {
      .size = sizeof options, .n_threads = n_threads, .progress = progress, .progress_arg = arg};
  PROOF_TRY(melu_context_new(&ctx, &options, &err));
  return ctx;
}

static void open_world(struct world *w, const struct scene *s, melu_context *ctx) {
  melu_error err;
  *w = (struct world){.s = s, .ctx = ctx, .n = 4};
  PROOF_TRY(melu_schema_new(&w->schema, ctx, &err));
  PROOF_TRY(melu_schema_new(&w->movies, ctx, &err));
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++)
    for (size_t i = 0; i < melu_schema_n_fields(s->schema, (melu_owner)owner); i++) {
      struct melu_field field = {.size = sizeof field};
      PROOF_TRY(melu_schema_field(&field, s->schema, (melu_owner)owner, i, &err));
      PROOF_TRY(melu_schema_add(w->schema, &field, &err));
    }
  PROOF_TRY(melu_dataset_new(&w->fresh, ctx, w->schema, &err));
  PROOF_TRY(melu_dataset_new(&w->data, ctx, w->schema, &err));
  for (int t = 0; t < SCENE_TABLES; t++)
    PROOF_TRY(scene_read(w->data, (enum scene_table)t, scene_path(s, scene_table_names[t]), &err));
  PROOF_TRY(melu_dataset_freeze(w->data, &err));
  for (int i = 0; i < 2; i++)
    PROOF_TRY(melu_model_new(&w->model[i], ctx, melu_dataset_schema(w->data), &models[i], &err));
}

static void close_world(struct world *w) {
  for (int i = 0; i < 2; i++) melu_model_free(w->model[i]);
  melu_dataset_free(w->fresh);
  melu_dataset_free(w->data);
  melu_schema_free(w->movies);
  melu_schema_free(w->schema);
}

/* All that a call may change, as one number. */
static uint64_t look_at(const struct world *w) {
  melu_error err;
  unsigned char digest[2][MELU_DIGEST_BYTES];
  for (int i = 0; i < 2; i++) PROOF_TRY(melu_model_digest(digest[i], w->model[i], &err));
  const size_t counts[] = {melu_dataset_n_items(w->fresh), melu_dataset_n_users(w->fresh),
                           melu_schema_n_fields(w->movies, MELU_ITEM), w->n};
  uint64_t seen = proof_digest(0, digest, sizeof digest);
  seen = proof_digest(seen, counts, sizeof counts);
  seen = proof_digest(seen, w->items, sizeof w->items);
  seen = proof_digest(seen, w->gains, sizeof w->gains);
  return proof_digest(seen, &w->metrics, sizeof w->metrics);
}

/* -------------------------------------------------------------------------------------------------- cancelling */

struct stopping {
  const char *phase;
  uint64_t n, at; /* reports so far; that which says stop, 1-based, 0: none does */
};

static int count_and_stop(void *arg, const struct melu_progress *progress) {
  struct stopping *s = arg;
  PROOF_NEEDS(s->phase == NULL || strcmp(progress->phase, s->phase) == 0 || strcmp(progress->phase, "evaluate") == 0,
              "a report of \"%s\" while \"%s\"", progress->phase, s->phase);
  return ++s->n == s->at;
}

static size_t random_below(size_t n) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (size_t)((state >> 33) % n);
}

/* The call is stopped at one report; what it was to change is as it was, or, of a training, is what the same stop
 * leaves on any number of threads; and the call can be made again. */
static void stop_at(const struct scene *s, const struct long_call *call, uint64_t at, uint64_t whole) {
  uint64_t left[2];
  for (size_t n_threads = 1; n_threads <= 2; n_threads++) {
    melu_error err;
    struct world w;
    struct stopping stopping = {NULL, 0, 0};
    melu_context *ctx = new_context(n_threads, count_and_stop, &stopping);
    open_world(&w, s, ctx);
    const uint64_t before = look_at(&w);
    stopping = (struct stopping){call->phase, 0, at};
    const melu_status status = call->make(&w, &err);
    PROOF_NEEDS(status == MELU_ECANCELED && stopping.n == at, "%s: %s after report %llu, stopped at %llu", call->name,
                melu_status_name(status), (unsigned long long)stopping.n, (unsigned long long)at);
    left[n_threads - 1] = look_at(&w);
    PROOF_NEEDS(call->trains || left[n_threads - 1] == before, "%s: stopped, but something is changed", call->name);
    stopping.at = 0;
    PROOF_TRY(call->make(&w, &err));
    PROOF_NEEDS(call->trains || look_at(&w) == whole, "%s: another result after a stop", call->name);
    close_world(&w);
    melu_context_free(ctx);
  }
  PROOF_NEEDS(left[0] == left[1], "%s: a stop leaves something else with two threads", call->name);
}

/* Returns the number of reports of an undisturbed call. */
static uint64_t count_reports(const struct scene *s, const struct long_call *call, uint64_t *whole) {
  melu_error err;
  struct world w;
  struct stopping stopping = {NULL, 0, 0};
  melu_context *ctx = new_context(2, count_and_stop, &stopping);
  open_world(&w, s, ctx);
  stopping = (struct stopping){call->phase, 0, 0};
  PROOF_TRY(call->make(&w, &err));
  *whole = look_at(&w);
  close_world(&w);
  melu_context_free(ctx);
  PROOF_NEEDS(stopping.n > 0, "%s: nothing is reported", call->name);
  return stopping.n;
}

struct cancelling {
  const struct scene *s;
  int call;
};

static void cancel(const void *arg) {
  const struct cancelling *c = arg;
  const struct long_call *call = &calls[c->call];
  uint64_t whole;
  const uint64_t n = count_reports(c->s, call, &whole), stops[] = {1, 1 + random_below((size_t)n), n};
  for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) stop_at(c->s, call, stops[i], whole);
}

size_t habit_cancel(const struct scene *s) {
  for (int call = 0; call < N_CALLS; call++) {
    const struct cancelling c = {s, call};
    habit_needs(calls[call].name, cancel, &c, 60);
  }
  return (size_t)N_CALLS * 3 * 2;
}

/* -------------------------------------------------------------------------------------------- calls in callbacks */

/* From within the first report of a call all long calls are made, and somebody is served, with other objects of the
 * same context. */
struct entering {
  const struct scene *s;
  melu_context *ctx;
  uint64_t expected[N_CALLS];
  size_t *n;   /* calls that were made, in memory that both processes have */
  int is_open; /* the next report is answered so */
};

static void serve(const struct world *w) {
  melu_error err;
  melu_user *user;
  melu_workspace *ws;
  melu_catalog *catalog;
  static const uint32_t items[2] = {3, 9};
  static const float ratings[2] = {5, 1};
  uint32_t top[3];
  float scores[3];
  size_t n = 3;
  PROOF_TRY(melu_user_new(&user, w->model[0], &err));
  PROOF_TRY(melu_workspace_new(&ws, w->model[0], 2, &err));
  PROOF_TRY(melu_adapt(user, ws, w->model[0], w->data, NULL, items, ratings, 2, &err));
  PROOF_TRY(melu_catalog_new(&catalog, w->model[0], w->data, NULL, 0, &err));
  PROOF_TRY(melu_catalog_top(top, scores, &n, ws, catalog, user, NULL, &err));
  melu_catalog_free(catalog);
  melu_workspace_free(ws);
  melu_user_free(user);
}

static uint64_t make_call(struct entering *e, int call, int is_open) {
  melu_error err;
  struct world w;
  open_world(&w, e->s, e->ctx);
  e->is_open = is_open;
  PROOF_TRY(calls[call].make(&w, &err));
  const uint64_t seen = look_at(&w);
  e->is_open = 0;
  serve(&w);
  close_world(&w);
  return seen;
}

static int enter(void *arg, const struct melu_progress *progress) {
  struct entering *e = arg;
  (void)progress;
  if (!e->is_open) return 0;
  e->is_open = 0;
  for (int call = 0; call < N_CALLS; call++)
    PROOF_NEEDS(make_call(e, call, 0) == e->expected[call], "%s: another result in a callback", calls[call].name);
  *e->n += N_CALLS;
  return 0;
}

static void enter_all(const void *arg) {
  struct entering e = *(const struct entering *)arg;
  for (size_t n_threads = 1; n_threads <= 2; n_threads++) {
    e.ctx = new_context(n_threads, enter, &e);
    for (int call = 0; call < N_CALLS; call++) e.expected[call] = make_call(&e, call, 0);
    for (int call = 0; call < N_CALLS; call++)
      PROOF_NEEDS(make_call(&e, call, 1) == e.expected[call], "%s: another result with calls in its callback",
                  calls[call].name);
    melu_context_free(e.ctx);
  }
}

size_t habit_reenter(const struct scene *s) {
  size_t *n = habit_share(sizeof *n);
  const struct entering e = {.s = s, .n = n};
  habit_needs("calls in callbacks", enter_all, &e, 120);
  return *n;
}

/* --------------------------------------------------------------------------------------------------- exceptions */

struct throwing {
  const struct scene *s;
  size_t *n;
};

static void break_proof(const char *why) {
  proof_broken("%s", why);
}

static void throw_all(const void *arg) {
  const struct throwing *t = arg;
  *t->n = throw_through_all(t->s->folder, t->s->schema, break_proof);
}

size_t habit_exceptions(const struct scene *s) {
  const struct throwing t = {s, habit_share(sizeof *t.n)};
  habit_needs("exceptions in callbacks", throw_all, &t, 120);
  return *t.n;
}
