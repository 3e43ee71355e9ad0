/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/model.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "tape/plan.h"

/* Bytes that training takes for a number of a table: its weight and two moments. */
#define BYTES_OF_NUMBER 12

static void share_out(melu_model *model, struct melu__param *p) {
  const struct melu__share share = melu__own_share(model->ctx);
  if (melu__size_mul(melu__size_mul(p->all_rows, p->cols), BYTES_OF_NUMBER) <= model->ctx->shard_bytes) return;
  p->is_sharded = model->is_sharded = 1;
  p->rows = melu__share_rows(&share, p->all_rows);
}

static melu_status is_elsewhere(const melu_model *model, const struct melu__param *p, melu_error *err) {
  return melu__fail(err, MELU_ESTATE, "table \"%s\" is sharded over %u ranks: save the model, and load it by one rank",
                    p->name, (unsigned)model->ctx->collective.n_ranks);
}

melu_status melu__check_whole(const melu_model *model, melu_error *err) {
  for (size_t i = 0; i < model->n_tables; i++)
    if (model->params[i].is_sharded) return is_elsewhere(model, &model->params[i], err);
  return MELU_OK;
}

/* Makes the parameters, `n` of them, all zero. Returns 0 if there is no memory. */
static int add_params(melu_model *model, size_t n) {
  const struct melu_allocator *a = &model->ctx->allocator;
  model->params = melu__calloc(a, n, sizeof *model->params);
  if (!model->params) return 0;
  const struct melu_model_options given = melu__options_given(&model->options);
  melu__model_describe(model->params, model->schema, &given);
  model->n_params = n;
  while (model->params[model->n_tables].is_table) model->n_tables++; /* there are others behind the tables */
  if (!melu__is_factors(model)) model->n_layers = model->options.n_hidden + 1;
  for (size_t i = 0; i < n; i++) {
    struct melu__param *p = &model->params[i];
    if (p->is_table) share_out(model, p);
    p->data = melu__calloc(a, melu__size_mul(p->rows, p->cols), sizeof *p->data);
    if (!p->data) return 0;
  }
  return 1;
}

/* ------------------------------------------------------------------------------------------ initialisation */

/* A draw depends on seed, parameter and row alone: each rank makes its own rows. The first n_rows rows are filled. */
static void fill_drawn(const melu_model *model, struct melu__param *p, size_t n_rows, double size,
                       double (*draw)(struct melu__rng *rng)) {
  const struct melu__share share = melu__own_share(model->ctx);
  for (size_t k = 0; k < p->rows; k++) {
    const size_t row = p->is_sharded ? melu__share_row(&share, k) : k;
    if (row >= n_rows) break;
    struct melu__rng rng = melu__rng(model->options.seed, MELU__RNG_INIT, (uint32_t)(p - model->params), (uint32_t)row);
    for (size_t j = 0; j < p->cols; j++) p->data[k * p->cols + j] = (real)(draw(&rng) * size);
  }
}

static double draw_uniform(struct melu__rng *rng) {
  return 2 * melu__rng_unit(rng) - 1;
}

static void fill_uniform(const melu_model *model, struct melu__param *p, size_t n_rows, double bound) {
  fill_drawn(model, p, n_rows, bound, draw_uniform);
}

static void fill_normal(const melu_model *model, struct melu__param *p, size_t n_rows, double sd) {
  fill_drawn(model, p, n_rows, sd, melu__rng_normal);
}

/* softplus(x) = y */
static real softplus_inverse(double y) {
  return (real)log(expm1(y));
}

static void fill(struct melu__param *p, real value) {
  for (size_t k = 0; k < p->rows * p->cols; k++) p->data[k] = value;
}

/* As the reference code of MeLU is initialised by PyTorch: layers uniform in +-1/sqrt(inputs), tables of one id
 * standard normal, tables of many ids uniform in +-1/sqrt(values), because there they are layers on a multi-hot vector.
 * The last row of a table is zero, so that an unknown id says nothing until it was trained. A draw depends on seed,
 * parameter and row only. What the inner loop learns beside says what it does without it. */
static void initialise_layers(melu_model *model) {
  for (size_t i = 0; i < model->n_params; i++) {
    struct melu__param *p = &model->params[i];
    if (p->is_table && !melu__kinds[melu__table_field(model->schema, i)->kind].is_list) {
      fill_normal(model, p, p->all_rows - 1, 1);
    } else if (p->is_table) {
      if (p->all_rows > 1) fill_uniform(model, p, p->all_rows - 1, 1 / sqrt((double)(p->all_rows - 1)));
    } else if (i >= model->n_tables + 2 * model->n_layers) {
      fill(p, model->options.rule == MELU_CLOSED_FORM ? softplus_inverse(1) : (real)model->options.inner_lr);
    } else {
      const size_t inputs = model->params[i - (i - model->n_tables) % 2].cols; /* of the layer's weights */
      fill_uniform(model, p, p->rows, 1 / sqrt((double)inputs));
    }
  }
}

/* What attributes say of the taste for an item is less sure than what ratings do: chosen on films of MovieLens that
 * training did not know (docs/accuracy.md). */
#define NEW_VECTORS (-0.3)
#define NEW_OFFSETS (-0.1)
#define NEW_LEVEL 0.1
#define NEW_NOISE 1.0

/* Small vectors, no offsets: at first everything is near the mean of what melu_fit finds. */
static void initialise_factors(melu_model *model) {
  const struct melu_model_options *o = &model->options;
  for (size_t i = 0; i < model->n_params; i++) {
    struct melu__param *p = &model->params[i];
    if (p->is_table && melu__table_field(model->schema, i)->owner == MELU_ITEM) {
      fill_normal(model, p, p->all_rows - 1, 0.05);
      for (size_t r = 0; r < p->rows; r++)
        for (size_t j = o->rank; j < p->cols; j++) p->data[r * p->cols + j] *= j == o->rank ? 0 : (real)0.2;
    }
  }
  real *const *f = model->factors;
  f[MELU__F_SCALE][0] = (real)((o->rating_min + o->rating_max) / 2);
  f[MELU__F_SCALE][1] = (real)((o->rating_max - o->rating_min) / 4);
  if (o->loss == MELU_LOGISTIC) {
    f[MELU__F_SCALE][0] = 0;
    f[MELU__F_SCALE][1] = 1;
  }
  *f[MELU__F_NOISE] = 0.5;
  f[MELU__F_NEW][0] = (real)NEW_VECTORS;
  f[MELU__F_NEW][1] = (real)NEW_OFFSETS;
  f[MELU__F_NEW][2] = (real)NEW_NOISE;
  f[MELU__F_PRIOR][o->rank + 1] = (real)NEW_LEVEL;
  if (o->history) *f[MELU__F_SHRINK] = softplus_inverse(5);
  for (size_t j = 0; j < melu__user_cols(o); j++)
    f[MELU__F_PRECISION][j] = softplus_inverse(j < o->rank ? 1 : j == o->rank ? 5 : 20);
  if (o->rates != MELU_RATE_FIXED)
    for (size_t j = 0; j < (o->rates == MELU_RATE_PER_ENTRY ? melu__user_cols(o) : 1); j++)
      f[MELU__F_RATE][j] = (real)o->inner_lr;
  if (!o->n_hidden) return;
  struct melu__param *h1 = melu__model_find(model, "H1"), *h2 = melu__model_find(model, "H2");
  fill_normal(model, h1, h1->rows, 0.1);
  fill_normal(model, h2, h2->rows, 0.01);
}

/* Where the dense parameters of MELU_FACTORS are. */
static void find_factors(melu_model *model) {
  static const char *const names[MELU__N_FACTOR_PARAMS] = {[MELU__F_SCALE] = "scale",
                                                           [MELU__F_NOISE] = "noise",
                                                           [MELU__F_NAMES] = "names",
                                                           [MELU__F_NEW] = "new",
                                                           [MELU__F_PRIOR] = "prior",
                                                           [MELU__F_POOL] = "pool",
                                                           [MELU__F_POOL_RATED] = "pool_rated",
                                                           [MELU__F_SHRINK] = "shrink",
                                                           [MELU__F_PRECISION] = "precision",
                                                           [MELU__F_RATE] = "rate",
                                                           [MELU__F_H1] = "H1",
                                                           [MELU__F_H1_BIAS] = "h1",
                                                           [MELU__F_H2] = "H2",
                                                           [MELU__F_N_ITEM] = "N.item",
                                                           [MELU__F_N_USER] = "N.user"};
  for (size_t k = 0; k < MELU__N_FACTOR_PARAMS; k++) {
    const struct melu__param *p = melu__model_find(model, names[k]);
    model->factors[k] = p ? p->data : NULL;
    model->factor_weight[k] = p ? (uint32_t)((size_t)(p - model->params) - model->n_tables) : UINT32_MAX;
  }
}

void melu__model_initialise(melu_model *model) {
  for (size_t i = 0; i < model->n_params; i++) fill(&model->params[i], 0);
  (melu__is_factors(model) ? initialise_factors : initialise_layers)(model);
  model->version = 1;
  model->largest = (real)melu__model_largest(model);
}

/* -------------------------------------------------------------------------------------------------- life */

static void set_widths(melu_model *model) {
  const melu_schema *schema = model->schema;
  if (melu__is_factors(model)) {
    model->item_width = melu__item_cols(&model->options) + 1 + melu__schema_numbers(schema, MELU_ITEM);
    model->user_width = melu__user_cols(&model->options) + melu__schema_numbers(schema, MELU_USER);
  } else {
    model->item_width = melu__schema_width(schema, MELU_ITEM);
    model->user_width = melu__schema_width(schema, MELU_USER);
  }
}

melu_status melu_model_new(melu_model **out, const melu_context *ctx, const melu_schema *schema,
                           const struct melu_model_options *options, melu_error *err) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN], n_params, n_numbers;
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx || !schema) return melu__fail(err, MELU_EINVAL, "%s is NULL", ctx ? "schema" : "ctx");
  melu_status status = melu__model_options(&o, hidden, options, err);
  if (!status) status = melu__model_measure(&n_params, &n_numbers, schema, options, err);
  if (status) return status;

  melu_model *model = melu__calloc(&ctx->allocator, 1, sizeof *model);
  if (!model) return melu__fail_memory(err);
  model->ctx = ctx;
  model->options = o;
  memcpy(model->hidden, hidden, sizeof model->hidden);
  model->options.hidden = model->hidden;
  status = melu__schema_copy(&model->schema, ctx, schema, err);
  if (status) goto fail;
  set_widths(model);
  model->plans = melu__plan_cache_new(ctx);
  if (!model->plans || !add_params(model, n_params)) {
    status = melu__fail_memory(err);
    goto fail;
  }
  if (o.network == MELU_FACTORS) find_factors(model);
  melu__model_initialise(model);
  *out = model;
  return MELU_OK;
fail:
  melu_model_free(model);
  return status;
}

void melu_model_free(melu_model *model) {
  if (!model) return;
  const struct melu_allocator *a = &model->ctx->allocator;
  for (size_t i = 0; i < model->n_params; i++) melu__free(a, model->params[i].data);
  melu__free(a, model->params);
  melu__plan_cache_free(model->plans);
  melu_schema_free(model->schema);
  melu__free(a, model);
}

/* ---------------------------------------------------------------------------------------------- accessors */

const melu_schema *melu_model_schema(const melu_model *model) {
  return model ? model->schema : NULL;
}

melu_status melu_model_get_options(struct melu_model_options *options, const melu_model *model, melu_error *err) {
  if (!options || !model) return melu__fail(err, MELU_EINVAL, "%s is NULL", options ? "model" : "options");
  struct melu_model_options known = melu__options_given(&model->options);
  return melu__options_out(options, &known, sizeof known, "melu_model_options", err);
}

size_t melu_model_n_params(const melu_model *model) {
  return model ? model->n_params : 0;
}

melu_status melu_model_param(struct melu_param *out, const melu_model *model, size_t index, melu_error *err) {
  if (!out || !model) return melu__fail(err, MELU_EINVAL, "%s is NULL", out ? "model" : "out");
  if (index >= model->n_params)
    return melu__fail_at(err, MELU_ERANGE, index, "parameter %zu: the model has %zu", index, model->n_params);
  const struct melu__param *p = &model->params[index];
  *out = (struct melu_param){.name = p->name,
                             .rows = p->all_rows,
                             .cols = p->cols,
                             .is_table = p->is_table,
                             .is_sharded = p->is_sharded,
                             .own_rows = p->rows};
  return MELU_OK;
}

double melu__model_largest(const melu_model *model) {
  double largest = 0;
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    largest = fmax(largest, (double)model->ctx->kernels->largest(p->rows * p->cols, p->data));
  }
  return largest;
}

struct melu__param *melu__model_find(const melu_model *model, const char *name) {
  for (size_t i = 0; i < model->n_params; i++)
    if (strcmp(model->params[i].name, name) == 0) return &model->params[i];
  return NULL;
}

/* The numbers of rows [first, first + n) of a parameter. */
static melu_status find_rows(real **out, const melu_model *model, const char *name, size_t first, size_t n,
                             size_t *n_numbers, melu_error *err) {
  const struct melu__param *p = melu__model_find(model, name);
  if (!p) return melu__fail(err, MELU_ENOTFOUND, "no parameter \"%.64s\"", name);
  if (p->is_sharded) return is_elsewhere(model, p, err);
  if (first > p->rows || n > p->rows - first)
    return melu__fail_at(err, MELU_ERANGE, first, "parameter \"%s\": rows %zu to %zu of %zu", p->name, first,
                         melu__size_add(first, n), p->rows);
  *out = p->data + first * p->cols;
  *n_numbers = n * p->cols;
  return MELU_OK;
}

melu_status melu_model_read(float *values, const melu_model *model, const char *name, size_t first_row, size_t n_rows,
                            melu_error *err) {
  real *from;
  size_t n;
  if (!values || !model || !name)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !values ? "values" : !model ? "model" : "name");
  const melu_status status = find_rows(&from, model, name, first_row, n_rows, &n, err);
  for (size_t i = 0; !status && i < n; i++) values[i] = (float)from[i];
  return status;
}

melu_status melu_model_write(melu_model *model, const char *name, size_t first_row, size_t n_rows, const float *values,
                             melu_error *err) {
  real *to;
  size_t n;
  if (!values || !model || !name)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !values ? "values" : !model ? "model" : "name");
  const melu_status status = find_rows(&to, model, name, first_row, n_rows, &n, err);
  if (status) return status;
  for (size_t i = 0; i < n; i++)
    if (!isfinite(values[i]))
      return melu__fail_at(err, MELU_ERANGE, i, "parameter \"%.64s\": values[%zu] is not finite", name, i);
  for (size_t i = 0; i < n; i++) {
    to[i] = values[i];
    if (fabs((double)to[i]) > (double)model->largest) model->largest = (real)fabs((double)to[i]);
  }
  model->version++;
  return MELU_OK;
}
