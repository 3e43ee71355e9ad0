/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "tape/plan.h"

#define MAX_TABLE_ROWS ((size_t)1 << 31)
#define MAX_NUMBERS ((uint64_t)1 << 40)
#define MAX_WIDTH 65536

/* ------------------------------------------------------------------------------------------------ options */

struct preset {
  const char *name;
  size_t hidden[MELU__MAX_HIDDEN], n_hidden;
  size_t inner_steps;
  double inner_lr;
};

static const struct preset presets[] = {
    {"melu", {64, 64}, 2, 5, 0.01}, /* Lee et al., KDD 2019 */
};

static const struct preset *find_preset(const char *name) {
  for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
    if (strcmp(presets[i].name, name ? name : presets[0].name) == 0) return &presets[i];
  return NULL;
}

static melu_status check(const struct melu_model_options *o, melu_error *err) {
  if (o->n_hidden == 0 || o->n_hidden > MELU__MAX_HIDDEN)
    return melu__fail(err, MELU_EINVAL, "n_hidden is %zu, not in 1 .. %d", o->n_hidden, MELU__MAX_HIDDEN);
  for (size_t l = 0; l < o->n_hidden; l++)
    if (o->hidden[l] == 0 || o->hidden[l] > MAX_WIDTH)
      return melu__fail_at(err, MELU_EINVAL, l, "hidden[%zu] is %zu, not in 1 .. %d", l, o->hidden[l], MAX_WIDTH);
  if (o->inner_steps > MELU__MAX_STEPS)
    return melu__fail(err, MELU_ELIMIT, "inner_steps is %zu, above %d", o->inner_steps, MELU__MAX_STEPS);
  if (!(o->inner_lr >= 0) || isinf(o->inner_lr))
    return melu__fail(err, MELU_EINVAL, "inner_lr is %g, not a finite number from 0 on", o->inner_lr);
  if (!(o->rating_min < o->rating_max) || isinf(o->rating_min) || isinf(o->rating_max))
    return melu__fail(err, MELU_EINVAL, "ratings from %g to %g are no range", o->rating_min, o->rating_max);
  return MELU_OK;
}

/* Fills in the defaults. `hidden` receives the widths, and o->hidden points to it. */
static melu_status resolve(struct melu_model_options *o, size_t hidden[MELU__MAX_HIDDEN],
                           const struct melu_model_options *given, melu_error *err) {
  const melu_status status = melu__options(o, sizeof *o, given, "melu_model_options", err);
  if (status) return status;
  const struct preset *preset = find_preset(o->preset);
  if (!preset) return melu__fail(err, MELU_EINVAL, "no preset \"%.64s\"", o->preset);
  if (!o->hidden && o->n_hidden) return melu__fail(err, MELU_EINVAL, "hidden is NULL, n_hidden is %zu", o->n_hidden);
  if (!o->hidden) {
    o->hidden = preset->hidden;
    o->n_hidden = preset->n_hidden;
  }
  if (o->inner_steps == 0) o->inner_steps = preset->inner_steps;
  if (o->inner_steps == MELU_NONE) o->inner_steps = 0;
  if (o->inner_lr == 0) o->inner_lr = preset->inner_lr;
  if (o->rating_min == 0 && o->rating_max == 0) {
    o->rating_min = 1;
    o->rating_max = 5;
  }
  const melu_status checked = check(o, err);
  if (checked) return checked;
  o->size = sizeof *o;
  o->preset = preset->name;
  o->first_order = o->first_order != 0;
  memcpy(hidden, o->hidden, o->n_hidden * sizeof *hidden);
  o->hidden = hidden;
  return MELU_OK;
}

/* --------------------------------------------------------------------------------------------- parameters */

/* The fields with a table, in the order of their parameters: items', then users'. NULL at the end. */
static const struct melu__field *table_field(const melu_schema *schema, size_t table) {
  static const melu_owner owners[] = {MELU_ITEM, MELU_USER};
  for (size_t o = 0; o < 2; o++) {
    for (size_t i = 0; i < schema->n_fields; i++) {
      const struct melu__field *field = &schema->fields[i];
      if (field->owner == owners[o] && field->kind != MELU_NUMERIC && table-- == 0) return field;
    }
  }
  return NULL;
}

static size_t layer_inputs(const melu_schema *schema, const struct melu_model_options *o, size_t layer) {
  if (layer > 0) return o->hidden[layer - 1];
  return melu__schema_width(schema, MELU_ITEM) + melu__schema_width(schema, MELU_USER);
}

static size_t layer_outputs(const struct melu_model_options *o, size_t layer) {
  return layer < o->n_hidden ? o->hidden[layer] : 1;
}

static melu_status measure(size_t *n_params, size_t *n_numbers, const melu_schema *schema,
                           const struct melu_model_options *o, melu_error *err) {
  const struct melu__field *field;
  size_t n = 0;
  *n_params = 0;
  if (!melu__schema_complete(schema))
    return melu__fail(err, MELU_ESTATE, "a vocabulary of the schema is still open: freeze the data set that learns it");
  if (layer_inputs(schema, o, 0) == 0) return melu__fail(err, MELU_EINVAL, "the schema has no field");
  for (; (field = table_field(schema, *n_params)) != NULL; ++*n_params) {
    if (field->n_values >= MAX_TABLE_ROWS)
      return melu__fail(err, MELU_ELIMIT, "field \"%s\" has %zu values, more than 2^31 - 1", field->name,
                        field->n_values);
    n = melu__size_add(n, melu__size_mul(field->n_values + 1, field->width));
  }
  for (size_t l = 0; l <= o->n_hidden; l++) {
    n = melu__size_add(n, melu__size_mul(layer_inputs(schema, o, l) + 1, layer_outputs(o, l)));
    *n_params += 2;
  }
  *n_numbers = n;
  if ((uint64_t)n >= MAX_NUMBERS) return melu__fail(err, MELU_ELIMIT, "the model has 2^40 numbers or more");
  return MELU_OK;
}

melu_status melu__model_measure(size_t *n_params, size_t *n_numbers, const melu_schema *schema,
                                const struct melu_model_options *options, melu_error *err) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN];
  const melu_status status = resolve(&o, hidden, options, err);
  return status ? status : measure(n_params, n_numbers, schema, &o, err);
}

static void describe(struct melu__param *params, const melu_schema *schema, const struct melu_model_options *o) {
  const struct melu__field *field;
  struct melu__param *p = params;
  for (; (field = table_field(schema, (size_t)(p - params))) != NULL; p++) {
    *p = (struct melu__param){.rows = field->n_values + 1, .cols = field->width, .is_table = 1};
    snprintf(p->name, sizeof p->name, "E.%s", field->name);
  }
  for (size_t l = 0; l <= o->n_hidden; l++, p += 2) {
    p[0] = (struct melu__param){.rows = layer_outputs(o, l), .cols = layer_inputs(schema, o, l)};
    p[1] = (struct melu__param){.rows = 1, .cols = layer_outputs(o, l)};
    snprintf(p[0].name, sizeof p[0].name, "W%zu", l + 1);
    snprintf(p[1].name, sizeof p[1].name, "b%zu", l + 1);
  }
}

void melu__model_describe(struct melu__param *params, const melu_schema *schema,
                          const struct melu_model_options *options) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN];
  if (!resolve(&o, hidden, options, NULL)) describe(params, schema, &o);
}

/* Makes the parameters, `n` of them, all zero. Returns 0 if there is no memory. */
static int add_params(melu_model *model, size_t n) {
  const struct melu_allocator *a = &model->ctx->allocator;
  model->params = melu__calloc(a, n, sizeof *model->params);
  if (!model->params) return 0;
  describe(model->params, model->schema, &model->options);
  model->n_params = n;
  model->n_layers = model->options.n_hidden + 1;
  model->n_tables = n - 2 * model->n_layers;
  for (size_t i = 0; i < n; i++) {
    struct melu__param *p = &model->params[i];
    p->data = melu__calloc(a, melu__size_mul(p->rows, p->cols), sizeof *p->data);
    if (!p->data) return 0;
  }
  return 1;
}

/* ------------------------------------------------------------------------------------------ initialisation */

static void fill_uniform(struct melu__param *p, size_t n_rows, double bound, uint64_t seed, uint32_t number) {
  for (size_t r = 0; r < n_rows; r++) {
    struct melu__rng rng = melu__rng(seed, MELU__RNG_INIT, number, (uint32_t)r);
    for (size_t j = 0; j < p->cols; j++) p->data[r * p->cols + j] = (real)((2 * melu__rng_unit(&rng) - 1) * bound);
  }
}

static void fill_normal(struct melu__param *p, size_t n_rows, uint64_t seed, uint32_t number) {
  for (size_t r = 0; r < n_rows; r++) {
    struct melu__rng rng = melu__rng(seed, MELU__RNG_INIT, number, (uint32_t)r);
    for (size_t j = 0; j < p->cols; j++) p->data[r * p->cols + j] = (real)melu__rng_normal(&rng);
  }
}

/* As the reference code of MeLU is initialised by PyTorch: layers uniform in +-1/sqrt(inputs), tables of one id
 * standard normal, tables of many ids uniform in +-1/sqrt(values), because there they are layers on a multi-hot vector.
 * The last row of a table is zero, so that an unknown id says nothing until it was trained. A draw depends on seed,
 * parameter and row only. */
static void initialise(melu_model *model) {
  for (size_t i = 0; i < model->n_params; i++) {
    struct melu__param *p = &model->params[i];
    const uint32_t number = (uint32_t)i;
    if (p->is_table && table_field(model->schema, i)->kind == MELU_ONE) {
      fill_normal(p, p->rows - 1, model->options.seed, number);
    } else if (p->is_table) {
      if (p->rows > 1) fill_uniform(p, p->rows - 1, 1 / sqrt((double)(p->rows - 1)), model->options.seed, number);
    } else {
      const size_t inputs = model->params[i - (i - model->n_tables) % 2].cols; /* of the layer's weights */
      fill_uniform(p, p->rows, 1 / sqrt((double)inputs), model->options.seed, number);
    }
  }
}

/* -------------------------------------------------------------------------------------------------- life */

melu_status melu_model_new(melu_model **out, const melu_context *ctx, const melu_schema *schema,
                           const struct melu_model_options *options, melu_error *err) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN], n_params, n_numbers;
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx || !schema) return melu__fail(err, MELU_EINVAL, "%s is NULL", ctx ? "schema" : "ctx");
  melu_status status = resolve(&o, hidden, options, err);
  if (!status) status = measure(&n_params, &n_numbers, schema, &o, err);
  if (status) return status;

  melu_model *model = melu__calloc(&ctx->allocator, 1, sizeof *model);
  if (!model) return melu__fail_memory(err);
  model->ctx = ctx;
  model->version = 1;
  model->options = o;
  memcpy(model->hidden, hidden, sizeof model->hidden);
  model->options.hidden = model->hidden;
  status = melu__schema_copy(&model->schema, ctx, schema, err);
  if (status) goto fail;
  model->item_width = melu__schema_width(schema, MELU_ITEM);
  model->user_width = melu__schema_width(schema, MELU_USER);
  model->plans = melu__plan_cache_new(ctx);
  if (!model->plans || !add_params(model, n_params)) {
    status = melu__fail_memory(err);
    goto fail;
  }
  initialise(model);
  model->largest = (real)melu__model_largest(model);
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
  struct melu_model_options known = model->options;
  if (known.inner_steps == 0) known.inner_steps = MELU_NONE; /* so that a model made with them is the same */
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
  *out = (struct melu_param){.name = p->name, .rows = p->rows, .cols = p->cols, .is_table = p->is_table};
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
