/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on models, gradients and optimizers. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "api.h"

/* ----------------------------------------------------------------------------------------------------- models */

static void new_model(struct api *a) {
  melu_model *model = (melu_model *)a;
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  const melu_schema *schema = data ? melu_dataset_schema(data) : API_OBJECT(a, melu_schema, API_SCHEMA, 0);
  const struct melu_model_options options = api_model_options(a);
  const melu_context *ctx = a->ctx[api_below(a, API_CONTEXTS)];
  const melu_status status = API_CALL(a, EINVAL_ | ESTATE_ | ELIMIT_,
                                      melu_model_new(&model, ctx, schema, api_seldom(a) ? NULL : &options, a->errp));
  api_put(a, API_MODEL, api_below(a, API_SLOTS), model, 0, status);
}

static void make_companions(struct api *a, size_t slot, const melu_model *model, const melu_dataset *data) {
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  melu_workspace *ws;
  melu_user *user;
  melu_catalog *catalog;
  FUZZ_NEEDS(!melu_gradient_new(&gradient, model, NULL), "no gradient");
  api_put(a, API_GRADIENT, slot, gradient, slot, MELU_OK);
  FUZZ_NEEDS(!melu_optimizer_new(&optimizer, model, NULL, NULL), "no optimizer");
  api_put(a, API_OPTIMIZER, slot, optimizer, slot, MELU_OK);
  FUZZ_NEEDS(!melu_workspace_new(&ws, model, API_WORLD_ITEMS, NULL), "no workspace");
  api_put(a, API_WORKSPACE, slot, ws, slot, MELU_OK);
  FUZZ_NEEDS(!melu_user_new(&user, model, NULL), "no user");
  api_put(a, API_USER, slot, user, slot, MELU_OK);
  FUZZ_NEEDS(!melu_catalog_new(&catalog, model, data, NULL, 0, NULL), "no catalogue");
  api_put(a, API_CATALOG, slot, catalog, slot, MELU_OK);
}

void api_small_model(struct api *a, size_t slot, size_t data) {
  static const size_t hidden[2] = {4, 3};
  const uint8_t how = fuzz_byte(&a->in);
  melu_model *model = NULL;
  struct melu_model_options o = {.size = sizeof o, .hidden = hidden, .n_hidden = 1 + how % 2, .inner_steps = 2};
  if (how & 4) {
    o.preset = "best";
    o.n_hidden = how % 2 ? 1 : MELU_NONE;
    o.rank = 3;
  }
  const melu_schema *schema = melu_dataset_schema(a->slots[API_DATA][data].object);
  const melu_status status = melu_model_new(&model, a->ctx[how >> 3 & 1], schema, &o, NULL);
  FUZZ_NEEDS(!status || status == MELU_EINVAL, "no model"); /* of no fields there can be none */
  api_put(a, API_MODEL, slot, model, 0, status);
  if (!status) make_companions(a, slot, model, a->slots[API_DATA][data].object);
}

static void small_model(struct api *a) {
  const size_t data = api_pick(a, API_DATA), slot = api_below(a, API_SLOTS);
  if (!a->slots[API_DATA][data].object) api_world(a, data);
  (void)melu_dataset_freeze(a->slots[API_DATA][data].object, NULL); /* else vocabularies may not be complete */
  api_small_model(a, slot, data);
}

static void look_at_model(struct api *a) {
  const melu_model *model = API_OBJECT(a, melu_model, API_MODEL, api_pick(a, API_MODEL));
  struct melu_model_options o = {.size = api_size(a, sizeof o)};
  struct melu_param p;
  unsigned char digest[MELU_DIGEST_BYTES];
  const size_t index = api_below(a, 24);
  (void)API_CALL(a, EINVAL_, melu_model_get_options(&o, model, a->errp));
  (void)API_CALL(a, EINVAL_, melu_model_digest(digest, model, a->errp));
  const melu_status status = API_CALL(a, EINVAL_ | ERANGE_, melu_model_param(&p, model, index, a->errp));
  FUZZ_NEEDS(status || (index < melu_model_n_params(model) && strlen(p.name) && p.rows && p.cols), "no parameter");
}

/* Of the model in that slot; else one that is not there. */
static struct melu_param any_param(struct api *a, const melu_model *model) {
  struct melu_param p = {.name = "E.none", .rows = 2, .cols = 2};
  const uint8_t byte = fuzz_byte(&a->in);
  if (model && byte < 250)
    FUZZ_NEEDS(!melu_model_param(&p, model, byte % melu_model_n_params(model), NULL), "no parameter");
  return p;
}

/* What was written is there, or nothing was written. */
static void write_rows(struct api *a) {
  const size_t slot = api_pick(a, API_MODEL);
  melu_model *model = API_OBJECT(a, melu_model, API_MODEL, slot);
  const struct melu_param p = any_param(a, model);
  const size_t first = api_below(a, 4), n = api_below(a, 4);
  const float *values = api_floats(a, n * p.cols);
  float *back = api_memory(a, n * p.cols, sizeof *back);
  api_watch(a, API_MODEL, slot, 0);
  if (API_CALL(a, EINVAL_ | ENOTFOUND_ | ERANGE_, melu_model_write(model, p.name, first, n, values, a->errp))) return;
  FUZZ_NEEDS(!API_CALL(a, 0, melu_model_read(back, model, p.name, first, n, a->errp)),
             "what was written cannot be read");
  FUZZ_NEEDS(n * p.cols == 0 || memcmp(values, back, n * p.cols * sizeof *back) == 0, "something else was written");
}

static void read_rows(struct api *a) {
  const melu_model *model = API_OBJECT(a, melu_model, API_MODEL, api_pick(a, API_MODEL));
  const struct melu_param p = any_param(a, model);
  const size_t first = API_ONE_OF(a, size_t, 0, 1, 2, 100, SIZE_MAX), n = api_below(a, 4);
  float *values = api_memory(a, n * p.cols, sizeof *values);
  (void)API_CALL(a, EINVAL_ | ENOTFOUND_ | ERANGE_, melu_model_read(values, model, p.name, first, n, a->errp));
}

/* What was saved and loaded has the same digest. */
static void save_and_load(struct api *a) {
  const size_t from = api_pick(a, API_MODEL), to = api_below(a, API_SLOTS);
  const melu_model *model = API_OBJECT(a, melu_model, API_MODEL, from);
  const melu_context *ctx = a->ctx[api_below(a, API_CONTEXTS)];
  melu_model *loaded = (melu_model *)a;
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  if (API_CALL(a, EINVAL_ | ELIMIT_, melu_model_save(model, a->model_path, a->errp))) return;
  FUZZ_NEEDS(!melu_model_digest(before, model, NULL), "no digest");
  const melu_status status = API_CALL(a, ELIMIT_, melu_model_load(&loaded, ctx, a->model_path, a->errp));
  api_put(a, API_MODEL, to, loaded, 0, status);
  if (status) return;
  FUZZ_NEEDS(!melu_model_digest(after, loaded, NULL) && memcmp(before, after, sizeof before) == 0,
             "what was saved and loaded is another model");
}

static void import(struct api *a) {
  const size_t slot = api_pick(a, API_MODEL);
  api_watch(a, API_MODEL, slot, 0);
  (void)API_CALL(a, EINVAL_ | ENOTFOUND_ | EFORMAT_ | ELIMIT_,
                 melu_model_import(API_OBJECT(a, melu_model, API_MODEL, slot), a->model_path, a->errp));
}

/* -------------------------------------------------------------------------------------------------- gradients */

static void new_gradient(struct api *a) {
  melu_gradient *gradient = (melu_gradient *)a;
  const size_t model = api_pick(a, API_MODEL);
  const melu_status status =
      API_CALL(a, EINVAL_, melu_gradient_new(&gradient, API_OBJECT(a, melu_model, API_MODEL, model), a->errp));
  api_put(a, API_GRADIENT, api_below(a, API_SLOTS), gradient, model, status);
}

/* A loss of the host's: e^2, unless the next byte of the input says otherwise. */
static int squared(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                   float *slopes) {
  struct api *a = arg;
  const size_t wrong = a->in.n ? a->in.at[0] : 0;
  *loss = wrong == 255 ? NAN : 0;
  for (size_t i = 0; i < n; i++) {
    *loss += (double)(scores[i] - ratings[i]) * (double)(scores[i] - ratings[i]);
    slopes[i] = wrong == 254 ? INFINITY : 2 * (scores[i] - ratings[i]);
  }
  if (wrong == 253 && task == 1) a->stopped = 1;
  return a->stopped;
}

/* The two ways of reading it agree; after a failure there is nothing to read. */
static void check_gradient(const melu_gradient *gradient, const melu_model *model, int is_empty) {
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    FUZZ_NEEDS(!melu_model_param(&p, model, i, NULL), "no parameter");
    const size_t n = melu_gradient_n_rows(gradient, p.name);
    FUZZ_NEEDS(is_empty ? n == 0 : n <= p.rows && (p.is_table || n == p.rows), "%s: %zu rows", p.name, n);
    if (is_empty) continue;
    float *whole = malloc(p.rows * p.cols * sizeof *whole), *some = malloc((n * p.cols + 1) * sizeof *some);
    uint32_t *rows = malloc((n + 1) * sizeof *rows);
    FUZZ_NEEDS(whole && some && rows, "no memory");
    FUZZ_NEEDS(!melu_gradient_read(whole, gradient, p.name, NULL) &&
                   !melu_gradient_read_rows(rows, some, gradient, p.name, NULL),
               "%s cannot be read", p.name);
    for (size_t k = 0; k < n; k++)
      FUZZ_NEEDS(rows[k] < p.rows && (k == 0 || rows[k - 1] < rows[k]) &&
                     memcmp(whole + rows[k] * p.cols, some + k * p.cols, p.cols * sizeof *some) == 0,
                 "%s: row %u differs", p.name, (unsigned)rows[k]);
    for (size_t k = 0; k < p.rows * p.cols; k++) FUZZ_NEEDS(isfinite(whole[k]), "%s is not finite", p.name);
    free(rows);
    free(some);
    free(whole);
  }
}

static void compute_gradient(struct api *a) {
  enum { ALLOWED = EINVAL_ | ESCHEMA_ | EDIVERGED_ };
  const size_t slot = api_pick(a, API_GRADIENT);
  const size_t owner = a->slots[API_GRADIENT][slot].owner, of = api_seldom(a) ? api_pick(a, API_MODEL) : owner;
  melu_gradient *gradient = API_OBJECT(a, melu_gradient, API_GRADIENT, slot);
  const melu_model *model = API_OBJECT(a, melu_model, API_MODEL, of);
  const melu_batch *batch = API_OBJECT(a, melu_batch, API_BATCH, api_pick(a, API_BATCH));
  melu_status status;
  if (api_below(a, 4) < 3) {
    status = API_CALL(a, ALLOWED, melu_meta_gradient(gradient, model, batch, a->errp));
  } else {
    status = API_CALL(a, ALLOWED, melu_meta_gradient_of(gradient, model, batch, squared, a, a->errp));
  }
  if (gradient && model && of == owner && (!status || status == MELU_EDIVERGED || status == MELU_ENOMEM))
    check_gradient(gradient, model, status != MELU_OK);
  FUZZ_NEEDS(status || isfinite(melu_gradient_loss(gradient, NULL)), "a loss is not finite");
}

static void read_gradient(struct api *a) {
  const size_t slot = api_pick(a, API_GRADIENT);
  const melu_gradient *gradient = API_OBJECT(a, melu_gradient, API_GRADIENT, slot);
  const size_t owner = a->slots[API_GRADIENT][slot].owner;
  const struct melu_param p = any_param(a, gradient ? API_OBJECT(a, melu_model, API_MODEL, owner) : NULL);
  float *values = api_memory(a, p.rows * p.cols, sizeof *values);
  (void)API_CALL(a, EINVAL_ | ENOTFOUND_, melu_gradient_read(values, gradient, p.name, a->errp));
}

/* ------------------------------------------------------------------------------------------------- optimizers */

static void new_optimizer(struct api *a) {
  melu_optimizer *optimizer = (melu_optimizer *)a;
  const size_t model = api_pick(a, API_MODEL);
  const struct melu_optimizer_options options = api_optimizer_options(a);
  const melu_status status =
      API_CALL(a, EINVAL_ | ERANGE_,
               melu_optimizer_new(&optimizer, API_OBJECT(a, melu_model, API_MODEL, model), &options, a->errp));
  api_put(a, API_OPTIMIZER, api_below(a, API_SLOTS), optimizer, model, status);
}

static void update(struct api *a) {
  const size_t slot = api_pick(a, API_OPTIMIZER), owner = a->slots[API_OPTIMIZER][slot].owner;
  const size_t of = api_seldom(a) ? api_pick(a, API_MODEL) : owner, gradient = api_pick_of(a, API_GRADIENT, of);
  melu_optimizer *optimizer = API_OBJECT(a, melu_optimizer, API_OPTIMIZER, slot);
  const double lr = api_number(a);
  if (api_seldom(a)) (void)API_CALL(a, EINVAL_ | ERANGE_, melu_optimizer_set_lr(optimizer, lr, a->errp));
  api_watch(a, API_MODEL, of, 0);
  (void)API_CALL(a, EINVAL_ | ESTATE_ | EDIVERGED_,
                 melu_optimizer_step(optimizer, API_OBJECT(a, melu_model, API_MODEL, of),
                                     API_OBJECT(a, melu_gradient, API_GRADIENT, gradient), a->errp));
}

/* --------------------------------------------------------------------------------------------------- training */

static void check_weights(const melu_model *model) {
  float values[64];
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    FUZZ_NEEDS(!melu_model_param(&p, model, i, NULL), "no parameter");
    for (size_t row = 0; row < p.rows && p.cols <= 64; row++) {
      FUZZ_NEEDS(!melu_model_read(values, model, p.name, row, 1, NULL), "%s cannot be read", p.name);
      for (size_t k = 0; k < p.cols; k++) FUZZ_NEEDS(isfinite(values[k]), "%s is not finite", p.name);
    }
  }
}

static void fit(struct api *a) {
  enum { BEFORE = EINVAL_ | ERANGE_ | ELIMIT_ | ESCHEMA_ | ESTATE_ | ENOTFOUND_, LATER = EDIVERGED_ | EIO_ };
  enum { MOVED = LATER | ECANCELED_ | API_BIT(MELU_ENOMEM) };
  const size_t slot = api_pick(a, API_MODEL);
  melu_model *model = API_OBJECT(a, melu_model, API_MODEL, slot);
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  const struct melu_fit_options options = api_fit_options(a);
  if (a->budget < 4) return;
  a->budget -= 4;
  api_watch(a, API_MODEL, slot, MOVED);
  (void)API_CALL(a, BEFORE | LATER, melu_fit(model, data, &options, a->errp));
  if (model) check_weights(model);
}

const api_op api_train_ops[API_TRAIN_OPS] = {
    new_model,        small_model,   look_at_model, write_rows, read_rows, save_and_load, import, new_gradient,
    compute_gradient, read_gradient, new_optimizer, update,     fit};
