/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on workspaces, users and catalogues. */
#include <math.h>
#include <string.h>

#include "api.h"

enum { MOST = 12, PREDICTING = EINVAL_ | ERANGE_ | ESCHEMA_ | ESTATE_ | EDIVERGED_ };

/* Who is served, with what: things that go together, mostly. */
struct service {
  size_t user_slot, model_slot, data_slot;
  melu_user *user;
  melu_workspace *ws;
  melu_model *model;
  melu_dataset *data;
};

static struct service any_service(struct api *a) {
  struct service s;
  s.user_slot = api_pick(a, API_USER);
  s.model_slot = a->slots[API_USER][s.user_slot].owner;
  if (api_seldom(a)) s.model_slot = api_pick(a, API_MODEL);
  s.data_slot = api_pick(a, API_DATA);
  s.user = API_OBJECT(a, melu_user, API_USER, s.user_slot);
  s.ws = API_OBJECT(a, melu_workspace, API_WORKSPACE, api_pick_of(a, API_WORKSPACE, s.model_slot));
  s.model = API_OBJECT(a, melu_model, API_MODEL, s.model_slot);
  s.data = API_OBJECT(a, melu_dataset, API_DATA, s.data_slot);
  return s;
}

static void new_workspace(struct api *a) {
  melu_workspace *ws = (melu_workspace *)a;
  const size_t model = api_pick(a, API_MODEL), most = API_ONE_OF(a, size_t, 8, 0, 1, 3, 20, 4097, SIZE_MAX);
  const melu_status status = API_CALL(
      a, EINVAL_ | ELIMIT_, melu_workspace_new(&ws, API_OBJECT(a, melu_model, API_MODEL, model), most, a->errp));
  api_put(a, API_WORKSPACE, api_below(a, API_SLOTS), ws, model, status);
}

static void new_user(struct api *a) {
  melu_user *user = (melu_user *)a;
  const size_t model = api_pick(a, API_MODEL);
  const melu_status status =
      API_CALL(a, EINVAL_, melu_user_new(&user, API_OBJECT(a, melu_model, API_MODEL, model), a->errp));
  api_put(a, API_USER, api_below(a, API_SLOTS), user, model, status);
}

/* A user who was just adapted, written down compactly and read by somebody else, is the same one in all bits. */
static void check_user(const struct service *s) {
  melu_user *other;
  FUZZ_NEEDS(!melu_user_new(&other, s->model, NULL), "no other user");
  const struct proof_bytes told = proof_user_bytes(s->ws, s->user, MELU_USER_COMPACT);
  melu_error err = {.message = ""};
  const melu_status status = melu_user_load(other, s->ws, s->model, s->data, told.at, told.n, &err);
  FUZZ_NEEDS(!status, "a user who was written down: %s: %s", melu_status_name(status), err.message);
  const struct proof_bytes ready = proof_user_bytes(s->ws, s->user, MELU_USER_READY),
                           again = proof_user_bytes(s->ws, other, MELU_USER_READY);
  FUZZ_NEEDS(ready.n == again.n && memcmp(ready.at, again.at, ready.n) == 0, "a user who was read is another one");
  free(again.at);
  free(ready.at);
  free(told.at);
  melu_user_free(other);
}

static void adapt(struct api *a) {
  const struct service s = any_service(a);
  const struct melu_value *profile = api_values(a, s.model ? melu_model_schema(s.model) : NULL, MELU_USER);
  const size_t n = api_below(a, MOST);
  const uint32_t *items = api_ids(a, n, API_WORLD_ITEMS);
  const float *ratings = api_floats(a, n);
  api_watch(a, API_USER, s.user_slot, 0);
  if (!API_CALL(a, PREDICTING | ELIMIT_,
                melu_adapt(s.user, s.ws, s.model, s.data, profile, items, ratings, n, a->errp)))
    check_user(&s);
}

static void rate(struct api *a) {
  const struct service s = any_service(a);
  const uint32_t item = (uint32_t)api_below(a, API_WORLD_ITEMS + 1);
  const float *rating = api_floats(a, 1);
  api_watch(a, API_USER, s.user_slot, 0);
  if (!API_CALL(a, PREDICTING | ELIMIT_ | ENOTFOUND_,
                melu_user_rate(s.user, s.ws, s.model, s.data, item, rating ? *rating : NAN, a->errp)))
    check_user(&s);
}

static void forget(struct api *a) {
  const struct service s = any_service(a);
  const uint32_t item = (uint32_t)api_below(a, API_WORLD_ITEMS + 1);
  api_watch(a, API_USER, s.user_slot, 0);
  if (!API_CALL(a, PREDICTING | ELIMIT_ | ENOTFOUND_, melu_user_forget(s.user, s.ws, s.model, s.data, item, a->errp)))
    check_user(&s);
}

static void predict(struct api *a) {
  const struct service s = any_service(a);
  const size_t n = api_below(a, MOST);
  const uint32_t *items = api_ids(a, n, API_WORLD_ITEMS);
  float *scores = api_memory(a, n, sizeof *scores);
  api_watch(a, API_USER, s.user_slot, 0);
  melu_status status = API_CALL(a, PREDICTING, melu_predict(scores, s.ws, s.model, s.user, s.data, items, n, a->errp));
  for (size_t i = 0; i < n && !status; i++) FUZZ_NEEDS(isfinite(scores[i]), "score %zu is not finite", i);
  status = API_CALL(a, PREDICTING, melu_predict_variance(scores, s.ws, s.model, s.user, s.data, items, n, a->errp));
  for (size_t i = 0; i < n && !status; i++)
    FUZZ_NEEDS(isfinite(scores[i]) && scores[i] >= 0, "variance %zu is %g", i, (double)scores[i]);
}

static void explain(struct api *a) {
  const struct service s = any_service(a);
  const uint32_t item = (uint32_t)api_below(a, API_WORLD_ITEMS + 1);
  const size_t n = s.user ? melu_user_ratings(s.user, NULL, NULL) : 0;
  float *pulls = api_memory(a, n, sizeof *pulls);
  api_watch(a, API_USER, s.user_slot, 0);
  const melu_status status =
      API_CALL(a, PREDICTING | ENOTFOUND_ | ELIMIT_, melu_explain(pulls, s.ws, s.model, s.user, s.data, item, a->errp));
  for (size_t i = 0; i < n && !status; i++) FUZZ_NEEDS(isfinite(pulls[i]), "pull %zu is not finite", i);
}

/* ------------------------------------------------------------------------------------------------ written down */

static void save(struct api *a) {
  const struct service s = any_service(a);
  const melu_user_form form = (melu_user_form)API_ONE_OF(a, int, MELU_USER_COMPACT, MELU_USER_READY, 2);
  size_t n = api_seldom(a) ? api_below(a, 100) : API_BYTES;
  unsigned char *bytes = api_memory(a, n, 1);
  const size_t room = n;
  const melu_status status =
      API_CALL(a, EINVAL_ | ELIMIT_ | ESTATE_, melu_user_save(bytes, &n, s.ws, s.user, form, a->errp));
  FUZZ_NEEDS(status == MELU_ELIMIT ? n > room : n <= room, "%zu bytes, and room for %zu", n, room);
  if (status) return;
  memcpy(a->bytes, bytes, n);
  a->n_bytes = n;
}

/* What was saved, or what somebody made of it. */
static void load(struct api *a) {
  enum { ALLOWED = PREDICTING | EFORMAT_ | EVERSION_ | ECORRUPT_ | ENOTFOUND_ | ELIMIT_ };
  const struct service s = any_service(a);
  unsigned char *bytes = api_memory(a, a->n_bytes, 1);
  memcpy(bytes, a->bytes, a->n_bytes);
  const int altered = api_seldom(a) && a->n_bytes;
  if (altered) bytes[fuzz_byte(&a->in) % a->n_bytes] ^= (unsigned char)(1 + api_below(a, 255));
  api_watch(a, API_USER, s.user_slot, 0);
  const melu_status status =
      API_CALL(a, ALLOWED, melu_user_load(s.user, s.ws, s.model, s.data, bytes, a->n_bytes, a->errp));
  FUZZ_NEEDS(status || !altered, "a user's bytes were altered, and taken");
}

/* -------------------------------------------------------------------------------------------------- catalogues */

static void new_catalog(struct api *a) {
  melu_catalog *catalog = (melu_catalog *)a;
  const size_t model = api_pick(a, API_MODEL), n = api_below(a, MOST);
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  const uint32_t *items = api_ids(a, n, API_WORLD_ITEMS);
  const melu_status status =
      API_CALL(a, EINVAL_ | ERANGE_ | ESCHEMA_ | ESTATE_ | ELIMIT_,
               melu_catalog_new(&catalog, API_OBJECT(a, melu_model, API_MODEL, model), data, items, n, a->errp));
  api_put(a, API_CATALOG, api_below(a, API_SLOTS), catalog, model, status);
}

static void put_items(struct api *a) {
  const size_t slot = api_pick(a, API_CATALOG), n = api_below(a, MOST);
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  const uint32_t *items = api_ids(a, n, API_WORLD_ITEMS), *numbers = api_ids(a, n, API_WORLD_ITEMS);
  api_watch(a, API_CATALOG, slot, 0);
  (void)API_CALL(a, EINVAL_ | ERANGE_ | ESCHEMA_ | ESTATE_ | ELIMIT_,
                 melu_catalog_put(API_OBJECT(a, melu_catalog, API_CATALOG, slot), data, items, numbers, n, a->errp));
}

static void remove_items(struct api *a) {
  const size_t slot = api_pick(a, API_CATALOG), n = api_below(a, 4);
  const uint32_t *numbers = api_ids(a, n, API_WORLD_ITEMS);
  api_watch(a, API_CATALOG, slot, 0);
  (void)API_CALL(a, EINVAL_ | ENOTFOUND_ | ERANGE_ | ESTATE_,
                 melu_catalog_remove(API_OBJECT(a, melu_catalog, API_CATALOG, slot), numbers, n, a->errp));
}

struct choice {
  struct melu_top_options options;
  uint32_t left_out; /* by `keep` */
};

static int keep(void *arg, uint32_t item) {
  const struct choice *c = arg;
  return item != c->left_out;
}

static void draw_choice(struct api *a, struct choice *c) {
  uint64_t *allow = api_memory(a, 1, sizeof *allow);
  c->options = (struct melu_top_options){.size = api_size(a, sizeof c->options), .keep_arg = c};
  c->left_out = (uint32_t)api_below(a, 10);
  *allow = fuzz_byte(&a->in);
  c->options.n_exclude = api_below(a, 4);
  c->options.exclude = api_ids(a, c->options.n_exclude, API_WORLD_ITEMS);
  if (!c->options.exclude && !api_seldom(a)) c->options.n_exclude = 0;
  c->options.keep = api_below(a, 2) ? keep : NULL;
  c->options.allow = api_below(a, 2) ? allow : NULL;
  c->options.n_allow = c->options.allow || api_seldom(a) ? api_below(a, 9) : 0;
}

static int is_allowed(const struct choice *c, uint32_t number) {
  const struct melu_top_options *o = &c->options;
  if (o->size != sizeof *o) return 1; /* the others are not looked at */
  for (size_t i = 0; i < o->n_exclude; i++)
    if (o->exclude[i] == number) return 0;
  if (o->allow && (number >= o->n_allow || !(*o->allow >> number & 1))) return 0;
  return !o->keep || number != c->left_out;
}

/* The best ones are the best of all that are allowed, by all scores. */
static void check_top(const melu_catalog *catalog, const struct choice *c, const float *all, const uint32_t *items,
                      const float *scores, size_t n, size_t wanted) {
  const uint32_t *numbers = melu_catalog_items(catalog);
  size_t n_allowed = 0;
  float best = -INFINITY;
  for (size_t i = 0; i < melu_catalog_n_items(catalog); i++) {
    if (!is_allowed(c, numbers[i])) continue;
    n_allowed++;
    if (all[i] > best) best = all[i];
  }
  FUZZ_NEEDS(n == (wanted < n_allowed ? wanted : n_allowed), "%zu of %zu are the best %zu", n, n_allowed, wanted);
  FUZZ_NEEDS(n == 0 || fabsf(scores[0] - best) <= 1e-3F * (1 + fabsf(best)), "the best has %g instead of %g",
             n ? (double)scores[0] : 0, (double)best);
  for (size_t i = 0; i < n; i++) {
    FUZZ_NEEDS(is_allowed(c, items[i]), "item %u was left out", (unsigned)items[i]);
    FUZZ_NEEDS(i == 0 || scores[i - 1] > scores[i] || (scores[i - 1] == scores[i] && items[i - 1] < items[i]),
               "place %zu is out of order", i);
  }
}

/* A user of the catalogue's model, mostly, and a workspace. */
static void rank(struct api *a) {
  enum { ALLOWED = EINVAL_ | ESTATE_ | EDIVERGED_ };
  const size_t slot = api_pick(a, API_CATALOG), owner = a->slots[API_CATALOG][slot].owner;
  const melu_catalog *catalog = API_OBJECT(a, melu_catalog, API_CATALOG, slot);
  const melu_user *user = API_OBJECT(a, melu_user, API_USER, api_pick_of(a, API_USER, owner));
  melu_workspace *ws = API_OBJECT(a, melu_workspace, API_WORKSPACE, api_pick_of(a, API_WORKSPACE, owner));
  const size_t n_items = catalog ? melu_catalog_n_items(catalog) : 0, wanted = api_below(a, MOST);
  float *all = api_memory(a, n_items, sizeof *all), *scores = api_memory(a, wanted, sizeof *scores);
  uint32_t *items = api_memory(a, wanted, sizeof *items);
  struct choice *c = api_memory(a, 1, sizeof *c);
  size_t n = wanted;
  draw_choice(a, c);
  const int failed = API_CALL(a, ALLOWED, melu_catalog_score(all, ws, catalog, user, a->errp)) != MELU_OK;
  for (size_t i = 0; i < n_items && !failed; i++) FUZZ_NEEDS(isfinite(all[i]), "score %zu is not finite", i);
  const melu_status status =
      API_CALL(a, ALLOWED, melu_catalog_top(items, scores, &n, ws, catalog, user, &c->options, a->errp));
  FUZZ_NEEDS(!status || n == wanted, "the number of items was changed by a failure");
  if (!status && !failed) check_top(catalog, c, all, items, scores, n, wanted);
  const size_t n_listed = api_below(a, 4);
  const uint32_t *numbers = api_ids(a, n_listed, API_WORLD_ITEMS);
  float *listed = api_memory(a, n_listed, sizeof *listed);
  (void)API_CALL(a, ALLOWED | ENOTFOUND_,
                 melu_catalog_score_list(listed, ws, catalog, user, numbers, n_listed, a->errp));
}

/* For several users, each as if alone. */
static void rank_users(struct api *a) {
  enum { K = 3, ALLOWED = EINVAL_ | ESTATE_ | EDIVERGED_ };
  const size_t slot = api_pick(a, API_CATALOG), owner = a->slots[API_CATALOG][slot].owner, n_users = api_below(a, 4);
  const melu_catalog *catalog = API_OBJECT(a, melu_catalog, API_CATALOG, slot);
  melu_workspace *ws = API_OBJECT(a, melu_workspace, API_WORKSPACE, api_pick_of(a, API_WORKSPACE, owner));
  const melu_user **users = api_memory(a, n_users, sizeof *users);
  struct choice *choices = api_memory(a, n_users, sizeof *choices);
  struct melu_top_options *options = api_memory(a, n_users, sizeof *options);
  uint32_t *items = api_memory(a, n_users * K, sizeof *items), alone[K];
  float *scores = api_memory(a, n_users * K, sizeof *scores), score[K];
  size_t *n = api_memory(a, n_users, sizeof *n);
  for (size_t i = 0; i < n_users; i++) {
    users[i] = API_OBJECT(a, melu_user, API_USER, api_pick_of(a, API_USER, owner));
    draw_choice(a, &choices[i]);
    options[i] = choices[i].options;
    options[i].size = sizeof *options; /* the array is stepped by it */
  }
  if (API_CALL(a, ALLOWED, melu_catalog_top_users(items, scores, n, K, ws, catalog, users, n_users, options, a->errp)))
    return;
  for (size_t i = 0; i < n_users; i++) {
    size_t n_alone = K;
    FUZZ_NEEDS(!melu_catalog_top(alone, score, &n_alone, ws, catalog, users[i], &options[i], NULL), "not alone");
    FUZZ_NEEDS(n_alone == n[i], "user %zu: %zu items, and %zu alone", i, n[i], n_alone);
    for (size_t k = 0; k < n_alone; k++)
      FUZZ_NEEDS(alone[k] == items[i * K + k] && memcmp(&score[k], &scores[i * K + k], sizeof *score) == 0,
                 "user %zu, place %zu: another item than alone", i, k);
  }
}

const api_op api_serve_ops[API_SERVE_OPS] = {new_workspace, new_user,     adapt, rate,      forget,
                                             predict,       explain,      save,  load,      new_catalog,
                                             put_items,     remove_items, rank,  rank_users};
