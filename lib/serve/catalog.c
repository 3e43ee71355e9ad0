/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking many items for one user: block by block, each block through the whole network while it is in the caches. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/embed.h"
#include "meta/factors.h"
#include "serve/factor_user.h"

#define MAX_ITEMS 0x80000000u

struct melu_catalog {
  const melu_model *model;
  uint64_t version; /* of the model, for which it was made */
  size_t n;
  uint32_t *items; /* positions in the data set */
  /* To whole blocks: rows x (n, item width), and z (n, first layer's width) = x W1'. MELU_FACTORS: rows of a task
   * alone.
   */
  real *x, *z;
};

static size_t x_width(const melu_model *model) {
  return melu__is_factors(model) ? melu__task_row(model) : model->item_width;
}

static size_t z_width(const melu_model *model) {
  return melu__is_factors(model) ? 0 : melu__model_weight(model, 0)->rows;
}

static int allocate(melu_catalog *c) {
  const struct melu_allocator *a = &c->model->ctx->allocator;
  const size_t n_blocks = (c->n + MELU__RANK_ROWS - 1) / MELU__RANK_ROWS, rows = n_blocks * MELU__RANK_ROWS;
  c->items = melu__alloc(a, c->n, sizeof *c->items);
  c->x = melu__alloc(a, melu__size_mul(rows, x_width(c->model)), sizeof *c->x);
  c->z = melu__alloc(a, melu__size_mul(rows, z_width(c->model)), sizeof *c->z);
  return c->items && c->x && c->z;
}

/* One block of x and z; rows beyond the last item are zeros. */
struct filling {
  melu_catalog *catalog;
  const melu_dataset *data;
  /* MELU_FACTORS: how to encode a block, and each thread's memory for it. */
  const struct melu__plan *plan;
  real *scratch;
  size_t scratch_size;
};

static void fill_block(void *arg, size_t block, size_t thread) {
  const struct filling *f = arg;
  melu_catalog *c = f->catalog;
  const melu_model *model = c->model;
  const size_t first = block * MELU__RANK_ROWS, width = model->item_width, h = z_width(model);
  real *x = c->x + first * width, *z = c->z + first * h;
  (void)thread;
  const size_t n = c->n - first < MELU__RANK_ROWS ? c->n - first : MELU__RANK_ROWS;
  melu__embed_many(model, f->data, MELU_ITEM, c->items + first, n, x);
  memset(x + n * width, 0, (MELU__RANK_ROWS - n) * width * sizeof *x);
  const struct melu__cmat w = {melu__model_weight(model, 0)->data, width + model->user_width};
  model->ctx->kernels->gemm(0, 1, MELU__RANK_ROWS, h, width, 1, (struct melu__cmat){x, width}, w, 0,
                            (struct melu__mat){z, h});
}

static void fill_factors(void *arg, size_t block, size_t thread) {
  const struct filling *f = arg;
  const melu_catalog *c = f->catalog;
  const size_t first = block * MELU__RANK_ROWS;
  const size_t n = c->n - first < MELU__RANK_ROWS ? c->n - first : MELU__RANK_ROWS;
  real *scratch = f->scratch + thread * f->scratch_size;
  melu__factor_rows(c->model, f->data, c->items + first, n, MELU__RANK_ROWS, f->plan,
                    scratch + melu__size_align(melu__plan_arena_size(f->plan), MELU__ALIGN / sizeof(real)), scratch,
                    c->x + first * x_width(c->model), NULL);
}

static melu_status fill(melu_catalog *c, const melu_dataset *data, melu_error *err) {
  const struct melu_runner *runner = &c->model->ctx->runner;
  const struct melu_allocator *a = &c->model->ctx->allocator;
  const size_t n_blocks = (c->n + MELU__RANK_ROWS - 1) / MELU__RANK_ROWS, line = MELU__ALIGN / sizeof(real);
  struct filling filling = {.catalog = c, .data = data};
  if (!melu__is_factors(c->model)) {
    runner->run(runner->arg, fill_block, &filling, n_blocks);
    return MELU_OK;
  }
  const melu_status status = melu__task_plan(&filling.plan, c->model, MELU__PLAN_ITEMS, 0, MELU__RANK_ROWS, err);
  if (status) return status;
  filling.scratch_size =
      melu__size_align(melu__plan_arena_size(filling.plan), line) +
      melu__size_align(MELU__RANK_ROWS * (c->model->item_width + melu__encoded_cols(c->model)), line);
  filling.scratch = melu__alloc(a, melu__size_mul(runner->n_threads, filling.scratch_size), sizeof *filling.scratch);
  if (!filling.scratch) return melu__fail_memory(err);
  runner->run(runner->arg, fill_factors, &filling, n_blocks);
  melu__free(a, filling.scratch);
  return MELU_OK;
}

melu_status melu_catalog_new(melu_catalog **out, const melu_model *model, const melu_dataset *data,
                             const uint32_t *items, size_t n, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!model || !data) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "data" : "model");
  const melu_status status = melu__check_items(model, data, items, items ? n : 0, err);
  if (status) return status;
  if (!items) n = melu_dataset_n_items(data);
  if (n > MAX_ITEMS) return melu__fail(err, MELU_ELIMIT, "%zu items, above 2^31", n);
  const struct melu_allocator *a = &model->ctx->allocator;
  melu_catalog *c = melu__calloc(a, 1, sizeof *c);
  if (!c) return melu__fail_memory(err);
  *c = (melu_catalog){.model = model, .version = model->version, .n = n};
  if (!allocate(c)) {
    melu_catalog_free(c);
    return melu__fail_memory(err);
  }
  for (size_t i = 0; i < n; i++) c->items[i] = items ? items[i] : (uint32_t)i;
  const melu_status filled = fill(c, data, err);
  if (filled) {
    melu_catalog_free(c);
    return filled;
  }
  *out = c;
  return MELU_OK;
}

void melu_catalog_free(melu_catalog *c) {
  if (!c) return;
  const struct melu_allocator *a = &c->model->ctx->allocator;
  melu__free(a, c->items);
  melu__free(a, c->x);
  melu__free(a, c->z);
  melu__free(a, c);
}

size_t melu_catalog_n_items(const melu_catalog *c) {
  return c ? c->n : 0;
}

/* ------------------------------------------------------------------------------------------------- scoring */

/* Receives the scores of n items from `first` on, block after block. */
typedef void take_fn(void *arg, size_t first, size_t n, const real *scores);

static melu_status score_blocks(melu_workspace *ws, const melu_catalog *c, const melu_user *user, take_fn *take,
                                void *arg, melu_error *err) {
  const melu_model *model = c->model;
  real *slots[MELU__N_SLOTS], scores[MELU__RANK_ROWS];
  const struct melu__plan *plan = ws->rank[melu__workspace_row(ws, user)];
  melu__scratch_slots(&ws->scratch, slots);
  melu__user_slots(slots, user);
  slots[MELU__SLOT_SCORES] = scores;
  for (size_t first = 0; first < c->n; first += MELU__RANK_ROWS) {
    const size_t n = c->n - first < MELU__RANK_ROWS ? c->n - first : MELU__RANK_ROWS;
    slots[MELU__SLOT_XQ] = c->x + first * x_width(model);
    if (melu__is_factors(model)) slots[MELU__SLOT_ZQ] = slots[MELU__SLOT_XQ] + melu__user_cols(&model->options);
    slots[MELU__SLOT_Z] = c->z + first * z_width(model);
    melu__plan_run(plan, slots, NULL, ws->scratch.arena);
    if (!isfinite(model->ctx->kernels->largest(n, scores)))
      return melu__fail_at(err, MELU_EDIVERGED, first, "a score is not finite: the weights are too large");
    if (melu__is_factors(model))
      for (size_t i = 0; i < n; i++)
        scores[i] = model->factors[MELU__F_SCALE][0] + model->factors[MELU__F_SCALE][1] * scores[i];
    take(arg, first, n, scores);
  }
  return MELU_OK;
}

static melu_status check(const melu_workspace *ws, const melu_catalog *c, const melu_user *user, melu_error *err) {
  if (!ws || !c || !user)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !ws ? "workspace" : !c ? "catalog" : "user");
  if (user->model != c->model || ws->model != c->model)
    return melu__fail(err, MELU_EINVAL, "the %s was made for another model",
                      ws->model != c->model ? "workspace" : "user");
  if (c->version != c->model->version)
    return melu__fail(err, MELU_ESTATE, "the model was changed since the catalogue was made");
  return MELU_OK;
}

static void take_all(void *arg, size_t first, size_t n, const real *scores) {
  float *to = arg;
  for (size_t i = 0; i < n; i++) to[first + i] = (float)scores[i];
}

melu_status melu_catalog_score(float *scores, melu_workspace *ws, const melu_catalog *c, const melu_user *user,
                               melu_error *err) {
  const melu_status status = check(ws, c, user, err);
  if (status) return status;
  if (c->n && !scores) return melu__fail(err, MELU_EINVAL, "scores is NULL");
  return score_blocks(ws, c, user, take_all, scores, err);
}

/* ------------------------------------------------------------------------------------------------ the best */

/* The best so far, in the caller's arrays: a heap with the worst of them on top, so that most items cost one
 * comparison. */
struct top {
  const melu_catalog *catalog;
  struct melu_top_options options;
  uint32_t *items;
  float *scores;
  size_t n, most;
};

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

static int is_allowed(const struct top *t, uint32_t item) {
  const struct melu_top_options *o = &t->options;
  for (size_t i = 0; i < o->n_exclude; i++)
    if (o->exclude[i] == item) return 0;
  return !o->keep || o->keep(o->keep_arg, item);
}

static void take_best(void *arg, size_t first, size_t n, const real *scores) {
  struct top *t = arg;
  for (size_t i = 0; i < n; i++) {
    const float score = (float)scores[i];
    const uint32_t item = t->catalog->items[first + i];
    if (t->n == t->most && !is_worse(t, 0, score, item)) continue;
    if (!is_allowed(t, item)) continue;
    if (t->n < t->most) {
      put(t, t->n, score, item);
      sift_up(t, t->n++);
    } else {
      put(t, 0, score, item);
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

melu_status melu_catalog_top(uint32_t *items, float *scores, size_t *n, melu_workspace *ws, const melu_catalog *c,
                             const melu_user *user, const struct melu_top_options *options, melu_error *err) {
  struct top t = {.catalog = c, .items = items, .scores = scores};
  melu_status status = check(ws, c, user, err);
  if (status) return status;
  if (!n || (*n && (!items || !scores)))
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !n ? "n" : !items ? "items" : "scores");
  status = melu__options(&t.options, sizeof t.options, options, "melu_top_options", err);
  if (status) return status;
  if (t.options.n_exclude && !t.options.exclude) return melu__fail(err, MELU_EINVAL, "exclude is NULL");
  t.most = *n;
  if (t.most > 0) status = score_blocks(ws, c, user, take_best, &t, err);
  if (status) return status;
  sort_heap(&t);
  *n = t.n;
  return MELU_OK;
}
