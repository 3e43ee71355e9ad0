/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking a catalogue: block by block, each block through the whole network while it is in the caches. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "serve/catalog.h"

static melu_status check(const melu_workspace *ws, const melu_catalog *c, melu_error *err) {
  if (!ws || !c) return melu__fail(err, MELU_EINVAL, "%s is NULL", ws ? "catalog" : "workspace");
  if (ws->model != c->model) return melu__fail(err, MELU_EINVAL, "the workspace was made for another model");
  if (c->version != c->model->version)
    return melu__fail(err, MELU_ESTATE, "the model was changed since the catalogue was made");
  return MELU_OK;
}

static melu_status check_user(const melu_catalog *c, const melu_user *user, size_t index, melu_error *err) {
  if (!user) return melu__fail_at(err, MELU_EINVAL, index, "user is NULL");
  if (user->model != c->model) return melu__fail_at(err, MELU_EINVAL, index, "the user was made for another model");
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------- scoring */

/* A block of the catalogue, or of rows gathered from it. */
struct block {
  real *x, *z;
  size_t n; /* rows that are items */
};

/* A block of the catalogue. Of MELU_LAYERS the one behind it is asked for: its rows would come as the first product
 * gets to them, which would wait. MELU_FACTORS do little else than read one row after the other, which the processor
 * foresees. */
static struct block block_at(const melu_catalog *c, size_t first) {
  const size_t wx = melu__rank_x(c->model), wz = melu__rank_z(c->model), left = c->n - first;
  real *x = c->x + first * wx;
  if (wz && left > MELU__RANK_ROWS)
    for (size_t i = MELU__RANK_ROWS * wx; i < 2 * MELU__RANK_ROWS * wx; i += MELU__ALIGN / sizeof *x)
      melu__prefetch(x + i);
  return (struct block){x, c->z + first * wz, left < MELU__RANK_ROWS ? left : MELU__RANK_ROWS};
}

/* One user before the catalogue. */
struct view {
  const struct melu__kernels *kernels;
  const struct melu__plan *plan;
  real *slots[MELU__N_SLOTS], *arena;
  real scores[MELU__RANK_ROWS];
  real weights[MELU__MAX_RANK + 10]; /* MELU_FACTORS: melu__task_row of them at most */
};

/* What a row of a task is multiplied by to be a score: mean + spread (o + w [phi, 1, is new]). */
static void weigh_factors(real *weights, const melu_model *model, const real *w) {
  const size_t rank = model->options.rank, width = melu__user_cols(&model->options);
  const real *scale = model->factors[MELU__F_SCALE];
  for (size_t j = 0; j < width; j++) weights[j] = scale[1] * w[j];
  weights[rank] += scale[0];
  weights[width] = scale[1];
  for (size_t j = width + 1; j < melu__task_row(model); j++) weights[j] = 0;
}

static void view_begin(struct view *v, const melu_workspace *ws, const melu_user *user) {
  v->kernels = ws->model->ctx->kernels;
  v->plan = ws->rank[melu__workspace_row(ws, user)];
  v->arena = ws->scratch.arena;
  melu__user_slots(v->slots, user);
  v->slots[MELU__SLOT_SCORES] = v->scores;
  if (!melu__is_factors(ws->model)) return;
  weigh_factors(v->weights, ws->model, v->slots[MELU__SLOT_GRADS]);
  v->slots[MELU__SLOT_GRADS] = v->weights;
}

/* Scores a block. Returns 0 if a score is not finite. */
static int view_score(struct view *v, const struct block *b) {
  v->slots[MELU__SLOT_XQ] = b->x;
  v->slots[MELU__SLOT_Z] = b->z;
  melu__plan_run(v->plan, v->slots, NULL, v->arena);
  return isfinite(v->kernels->largest(b->n, v->scores));
}

static melu_status fail_not_finite(size_t index, melu_error *err) {
  return melu__fail_at(err, MELU_EDIVERGED, index, "a score is not finite: the weights are too large");
}

static void give(float *scores, const real *from, size_t n) {
  for (size_t i = 0; i < n; i++) scores[i] = (float)from[i];
}

melu_status melu_catalog_score(float *scores, melu_workspace *ws, const melu_catalog *c, const melu_user *user,
                               melu_error *err) {
  struct view v;
  melu_status status = check(ws, c, err);
  if (!status) status = check_user(c, user, 0, err);
  if (status) return status;
  if (c->n && !scores) return melu__fail(err, MELU_EINVAL, "scores is NULL");
  view_begin(&v, ws, user);
  for (size_t first = 0; first < c->n; first += MELU__RANK_ROWS) {
    const struct block b = block_at(c, first);
    if (!view_score(&v, &b)) return fail_not_finite(first, err);
    give(scores + first, v.scores, b.n);
  }
  return MELU_OK;
}

/* The rows of n numbers, one below the other in the workspace's memory. */
static struct block gather(melu_workspace *ws, const melu_catalog *c, const uint32_t *numbers, size_t n) {
  const size_t wx = melu__rank_x(c->model), wz = melu__rank_z(c->model);
  const struct block b = {ws->gathered, ws->gathered + MELU__RANK_ROWS * wx, n};
  for (size_t i = 0; i < n; i++) {
    const size_t row = melu__catalog_row(c, numbers[i]);
    memcpy(b.x + i * wx, c->x + row * wx, wx * sizeof *b.x);
    memcpy(b.z + i * wz, c->z + row * wz, wz * sizeof *b.z);
  }
  return b;
}

melu_status melu_catalog_score_list(float *scores, melu_workspace *ws, const melu_catalog *c, const melu_user *user,
                                    const uint32_t *numbers, size_t n, melu_error *err) {
  struct view v;
  melu_status status = check(ws, c, err);
  if (!status) status = check_user(c, user, 0, err);
  if (status) return status;
  if (n && (!scores || !numbers)) return melu__fail(err, MELU_EINVAL, "%s is NULL", scores ? "numbers" : "scores");
  for (size_t i = 0; i < n; i++)
    if (melu__catalog_row(c, numbers[i]) == MELU__NO_ROW)
      return melu__fail_at(err, MELU_ENOTFOUND, i, "number %lu is not in the catalogue", (unsigned long)numbers[i]);
  view_begin(&v, ws, user);
  for (size_t done = 0; done < n; done += MELU__RANK_ROWS) {
    const struct block b = gather(ws, c, numbers + done, n - done < MELU__RANK_ROWS ? n - done : MELU__RANK_ROWS);
    if (!view_score(&v, &b)) return fail_not_finite(done, err);
    give(scores + done, v.scores, b.n);
  }
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------------ the best */

/* Rows of a catalogue whose exclusion is known at a time: whole blocks, and whole words of bits. */
enum { MARKED = 320 * MELU__RANK_ROWS };

/* The best so far, in the caller's arrays: a heap with the worst of them on top, so that most items cost one
 * comparison. */
struct top {
  struct melu_top_options options;
  const uint64_t *excluded; /* (MARKED) bits */
  uint32_t *items;
  float *scores;
  size_t n, most;
};

/* The list is read once for so many rows, since a workspace does not know how many a catalogue has. */
static void mark_excluded(uint64_t *excluded, const struct melu_top_options *o, const melu_catalog *c, size_t first) {
  memset(excluded, 0, MARKED / 8);
  for (size_t i = 0; i < o->n_exclude; i++) {
    const size_t at = melu__catalog_row(c, o->exclude[i]) - first; /* of rows before the first, and of none: large */
    if (at < MARKED) excluded[at / 64] |= (uint64_t)1 << at % 64;
  }
}

/* Whether a is to be ranked behind b. */
static int is_worse(const struct top *t, size_t a, float score, uint32_t item) {
  if (t->scores[a] != score) return t->scores[a] < score;
  return t->items[a] > item;
}

static void put(struct top *t, size_t i, float score, uint32_t item) {
  t->scores[i] = score;
  t->items[i] = item;
}

static void sift_up(struct top *t, size_t i) {
  const float score = t->scores[i];
  const uint32_t item = t->items[i];
  for (size_t parent; i > 0 && !is_worse(t, parent = (i - 1) / 2, score, item); i = parent)
    put(t, i, t->scores[parent], t->items[parent]);
  put(t, i, score, item);
}

static void sift_down(struct top *t, size_t n) {
  const float score = t->scores[0];
  const uint32_t item = t->items[0];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && is_worse(t, child + 1, t->scores[child], t->items[child])) child++;
    if (!is_worse(t, child, score, item)) break;
    put(t, i, t->scores[child], t->items[child]);
  }
  put(t, i, score, item);
}

static int is_let_in(const struct top *t, size_t at, uint32_t item) {
  const struct melu_top_options *o = &t->options;
  if (o->allow && (item >= o->n_allow || !(o->allow[item / 64] >> item % 64 & 1))) return 0;
  if (t->excluded[at / 64] >> at % 64 & 1) return 0;
  return !o->keep || o->keep(o->keep_arg, item);
}

/* Of n items, the first of which has this bit among the marked rows. */
static void take(struct top *t, size_t first, const uint32_t *items, const real *scores, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const float score = (float)scores[i];
    if (t->n == t->most && !is_worse(t, 0, score, items[i])) continue;
    if (!is_let_in(t, first + i, items[i])) continue;
    if (t->n < t->most) {
      put(t, t->n, score, items[i]);
      sift_up(t, t->n++);
    } else {
      put(t, 0, score, items[i]);
      sift_down(t, t->n);
    }
  }
}

/* Takes the worst from the top of the heap again and again. */
static void sort_heap(struct top *t) {
  for (size_t n = t->n; n > 1; n--) {
    const float score = t->scores[0];
    const uint32_t item = t->items[0];
    put(t, 0, t->scores[n - 1], t->items[n - 1]);
    sift_down(t, n - 1);
    put(t, n - 1, score, item);
  }
}

/* ---------------------------------------------------------------------------------------------- some users */

enum { GROUP = 16 }; /* users for whom a block is scored while it is in the caches */

struct melu__ranking {
  struct view views[GROUP];
  struct top tops[GROUP];
  uint64_t excluded[GROUP][MARKED / 64];
  size_t n;
};

size_t melu__ranking_size(void) {
  return sizeof(struct melu__ranking);
}

static melu_status resolve(struct melu_top_options *o, const struct melu_top_options *options, size_t user,
                           melu_error *err) {
  melu_status status = melu__options(o, sizeof *o, melu__options_at(options, options ? options->size : 0, user),
                                     "melu_top_options", err);
  if (!status && ((o->n_exclude && !o->exclude) || (o->n_allow && !o->allow)))
    status = melu__fail(err, MELU_EINVAL, "%s is NULL", o->n_exclude && !o->exclude ? "exclude" : "allow");
  if (status && err) err->index = user;
  return status;
}

/* Blocks outermost. A user with a score that is not finite ends it for those behind her, since the first such user is
 * the one to be named. */
static void rank_group(struct melu__ranking *g, const melu_catalog *c) {
  for (size_t first = 0; first < c->n && g->n > 0; first += MELU__RANK_ROWS) {
    const struct block b = block_at(c, first);
    for (size_t i = 0; i < g->n; i++) {
      if (first % MARKED == 0) mark_excluded(g->excluded[i], &g->tops[i].options, c, first);
      if (view_score(&g->views[i], &b))
        take(&g->tops[i], first % MARKED, c->items + first, g->views[i].scores, b.n);
      else
        g->n = i;
    }
  }
  for (size_t i = 0; i < g->n; i++) sort_heap(&g->tops[i]);
}

melu_status melu_catalog_top_users(uint32_t *items, float *scores, size_t *n, size_t k, melu_workspace *ws,
                                   const melu_catalog *c, const melu_user *const *users, size_t n_users,
                                   const struct melu_top_options *options, melu_error *err) {
  melu_status status = check(ws, c, err);
  if (status) return status;
  struct melu__ranking *g = ws->ranking;
  if (n_users && (!users || !n || (k && (!items || !scores))))
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !users ? "users" : !n ? "n" : items ? "scores" : "items");
  for (size_t u = 0; u < n_users && !status; u++) {
    status = check_user(c, users[u], u, err);
    if (!status) status = resolve(&g->tops[0].options, options, u, err);
  }
  if (status) return status;
  for (size_t done = 0; done < n_users; done += GROUP) {
    const size_t n_group = n_users - done < GROUP ? n_users - done : GROUP;
    g->n = k ? n_group : 0;
    for (size_t i = 0; i < n_group; i++) {
      const size_t u = done + i;
      view_begin(&g->views[i], ws, users[u]);
      g->tops[i] =
          (struct top){.excluded = g->excluded[i], .items = items + u * k, .scores = scores + u * k, .most = k};
      (void)resolve(&g->tops[i].options, options, u, NULL);
    }
    rank_group(g, c);
    if (k && g->n < n_group) return fail_not_finite(done + g->n, err);
    for (size_t i = 0; i < n_group; i++) n[done + i] = g->tops[i].n;
  }
  return MELU_OK;
}

melu_status melu_catalog_top(uint32_t *items, float *scores, size_t *n, melu_workspace *ws, const melu_catalog *c,
                             const melu_user *user, const struct melu_top_options *options, melu_error *err) {
  size_t found;
  if (!n) return melu__fail(err, MELU_EINVAL, "n is NULL");
  const melu_status status = melu_catalog_top_users(items, scores, &found, *n, ws, c, &user, 1, options, err);
  if (!status) *n = found;
  return status;
}
