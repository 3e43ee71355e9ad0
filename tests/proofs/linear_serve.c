/* SPDX-License-Identifier: BSD-3-Clause */
/* Users with many ratings, and catalogues. */
#include <string.h>

#include "linear.h"

enum { N_ITEMS = 1 << 13, MOST_RATINGS = 4096 };

/* Models of both networks, with one user, over items that there are enough of. */
struct serving {
  melu_dataset *data;
  melu_model *model;
  melu_workspace *ws;
  melu_user *user;
};

/* `adapt`: what the model adapts, 0: the preset's. `n_ids`: of each item, beside the one of its own. */
static void serving_open(struct serving *s, const char *preset, unsigned adapt, size_t n_items, size_t n_ids) {
  static const size_t hidden[1] = {4};
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .n_values = N_ITEMS, .width = 3},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = N_ITEMS, .width = 2}};
  const struct melu_model_options options = {
      .size = sizeof options, .preset = preset, .hidden = hidden, .n_hidden = 1, .rank = 4, .adapt = adapt};
  melu_error err;
  melu_schema *schema;
  uint32_t *ids = calloc(n_ids + 1, sizeof *ids);
  PROOF_NEEDS(ids, "no memory");
  for (uint32_t i = 0; i < n_ids; i++) ids[i] = i % N_ITEMS;
  PROOF_TRY(melu_schema_new(&schema, linear_ctx, &err));
  for (size_t i = 0; i < 2; i++) PROOF_TRY(melu_schema_add(schema, &fields[i], &err));
  PROOF_TRY(melu_dataset_new(&s->data, linear_ctx, schema, &err));
  for (uint32_t i = 0; i < n_items; i++) {
    const uint32_t self = i % N_ITEMS;
    const struct melu_value values[2] = {{.ids = &self, .n_ids = 1}, {.ids = ids, .n_ids = n_ids}};
    PROOF_TRY(melu_dataset_add_item(s->data, i, values, NULL, &err));
  }
  PROOF_TRY(melu_dataset_freeze(s->data, &err));
  PROOF_TRY(melu_model_new(&s->model, linear_ctx, schema, &options, &err));
  PROOF_TRY(melu_workspace_new(&s->ws, s->model, n_items < MOST_RATINGS ? n_items : MOST_RATINGS, &err));
  PROOF_TRY(melu_user_new(&s->user, s->model, &err));
  melu_schema_free(schema);
  free(ids);
}

static void serving_close(struct serving *s) {
  melu_user_free(s->user);
  melu_workspace_free(s->ws);
  melu_model_free(s->model);
  melu_dataset_free(s->data);
}

/* ------------------------------------------------------------------------------------------------------ users */

/* Makes the user one who rated the first n items. Returns how long that took. */
static double adapt(struct serving *s, size_t n) {
  melu_error err;
  uint32_t items[MOST_RATINGS];
  float ratings[MOST_RATINGS];
  for (uint32_t i = 0; i < n; i++) {
    items[i] = i;
    ratings[i] = 3;
  }
  const double start = now_s();
  PROOF_TRY(melu_adapt(s->user, s->ws, s->model, s->data, NULL, items, ratings, n, &err));
  return now_s() - start;
}

/* One rating more, one corrected, one taken back; each looks through all of hers. */
static double rate(struct serving *s, size_t n) {
  melu_error err;
  adapt(s, n - 1);
  const double start = now_s();
  PROOF_TRY(melu_user_rate(s->user, s->ws, s->model, s->data, (uint32_t)n, 2, &err));
  PROOF_TRY(melu_user_rate(s->user, s->ws, s->model, s->data, 0, 2, &err));
  PROOF_TRY(melu_user_forget(s->user, s->ws, s->model, s->data, 0, &err));
  return now_s() - start;
}

static double load(struct serving *s, size_t n, melu_user_form form) {
  melu_error err;
  adapt(s, n);
  const struct proof_bytes b = proof_user_bytes(s->ws, s->user, form);
  const double start = now_s();
  PROOF_TRY(melu_user_load(s->user, s->ws, s->model, s->data, b.at, b.n, &err));
  const double took = now_s() - start;
  free(b.at);
  return took;
}

enum deed { ADAPT, RATE, LOAD_COMPACT, LOAD_READY };

/* One model of each preset serves all. */
static struct serving models[2];

static double serve(int is_best, enum deed deed, size_t n) {
  struct serving *s = &models[is_best];
  if (!s->model) serving_open(s, is_best ? "best" : "melu", 0, N_ITEMS, 1);
  if (deed == ADAPT) return adapt(s, n);
  if (deed == RATE) return rate(s, n);
  return load(s, n, deed == LOAD_READY ? MELU_USER_READY : MELU_USER_COMPACT);
}

void serve_traps_close(void) {
  for (int i = 0; i < 2; i++) serving_close(&models[i]);
}

#define SERVED(name, is_best, deed)     \
  static double name(size_t n) {        \
    return serve((is_best), (deed), n); \
  }

SERVED(adapt_layers, 0, ADAPT)
SERVED(adapt_factors, 1, ADAPT)
SERVED(rate_layers, 0, RATE)
SERVED(rate_factors, 1, RATE)
SERVED(load_layers, 0, LOAD_COMPACT)
SERVED(load_factors, 1, LOAD_COMPACT)
SERVED(load_ready_layers, 0, LOAD_READY)
SERVED(load_ready_factors, 1, LOAD_READY)

/* Two items with so many attributes each, whose rows are the user's own. */
static double adapt_long_lists(size_t n) {
  struct serving s;
  serving_open(&s, "melu", MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN | MELU_ADAPT_ITEMS, 2, n);
  const double took = adapt(&s, 2);
  serving_close(&s);
  return took;
}

/* ------------------------------------------------------------------------------------------------- catalogues */

/* Items put one by one, from the last number to the first, and removed from the first row on. */
static double change_catalog(size_t n) {
  melu_error err;
  melu_catalog *catalog;
  struct serving s;
  const uint32_t first = 0;
  serving_open(&s, "best", 0, 2, 1);
  PROOF_TRY(melu_catalog_new(&catalog, s.model, s.data, &first, 0, &err));
  const double start = now_s();
  for (uint32_t i = (uint32_t)n; i-- > 0;) PROOF_TRY(melu_catalog_put(catalog, s.data, &first, &i, 1, &err));
  while (melu_catalog_n_items(catalog) > 0)
    PROOF_TRY(melu_catalog_remove(catalog, melu_catalog_items(catalog), 1, &err));
  const double took = now_s() - start;
  melu_catalog_free(catalog);
  serving_close(&s);
  return took;
}

/* All but the last of so many items are left out. */
static double rank_without(size_t n, const struct melu_top_options *options) {
  melu_error err;
  melu_catalog *catalog;
  struct serving s;
  uint32_t top[10];
  float scores[10];
  size_t n_top = 10;
  serving_open(&s, "best", 0, n, 1);
  PROOF_TRY(melu_catalog_new(&catalog, s.model, s.data, NULL, 0, &err));
  const double start = now_s();
  PROOF_TRY(melu_catalog_top(top, scores, &n_top, s.ws, catalog, s.user, options, &err));
  const double took = now_s() - start;
  PROOF_NEEDS(n_top == 1 && top[0] == n - 1, "%zu items were ranked, not the one that is left", n_top);
  melu_catalog_free(catalog);
  serving_close(&s);
  return took;
}

static double rank_allowed(size_t n) {
  uint64_t *allow = calloc(n / 64 + 1, sizeof *allow);
  PROOF_NEEDS(allow, "no memory");
  allow[(n - 1) / 64] = (uint64_t)1 << (n - 1) % 64;
  const struct melu_top_options options = {.size = sizeof options, .allow = allow, .n_allow = n};
  const double took = rank_without(n, &options);
  free(allow);
  return took;
}

static double rank_not_excluded(size_t n) {
  uint32_t *exclude = malloc(n * sizeof *exclude);
  PROOF_NEEDS(exclude, "no memory");
  for (size_t i = 0; i < n; i++) exclude[i] = (uint32_t)(n - 2 - i); /* and one that is no number */
  const struct melu_top_options options = {.size = sizeof options, .exclude = exclude, .n_exclude = n};
  const double took = rank_without(n, &options);
  free(exclude);
  return took;
}

const struct trap serve_traps[] = {
    {"ratings to adapt layers to", adapt_layers, 256, MOST_RATINGS},
    {"ratings to adapt factors to", adapt_factors, 256, MOST_RATINGS},
    {"ratings beside a new one, with layers", rate_layers, 256, MOST_RATINGS},
    {"ratings beside a new one, with factors", rate_factors, 256, MOST_RATINGS},
    {"ratings in a user's bytes, with layers", load_layers, 256, MOST_RATINGS},
    {"ratings in a user's bytes, with factors", load_factors, 256, MOST_RATINGS},
    {"ratings in a ready user's bytes, with layers", load_ready_layers, 256, MOST_RATINGS},
    {"ratings in a ready user's bytes, with factors", load_ready_factors, 256, MOST_RATINGS},
    {"attributes that a user adapts", adapt_long_lists, 1 << 15, 1 << 18},
    {"items that come and go", change_catalog, 1000, 1 << 16},
    {"items that a ranking does not allow", rank_allowed, 1000, 1 << 16},
    {"items that a ranking excludes", rank_not_excluded, 1000, 1 << 16},
};
const size_t n_serve_traps = sizeof serve_traps / sizeof *serve_traps;
