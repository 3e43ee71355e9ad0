/* SPDX-License-Identifier: BSD-3-Clause */
/* Models as files: docs/file-format.md. */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "io/metadata.h"
#include "io/param_tensors.h"
#include "io/schema_text.h"
#include "io/text_file.h"
#include "model/gather_rows.h"
#include "model/option_names.h"

#define FORMAT "melu-model"

struct taking {
  melu__take_numbers_fn take;
  void *arg;
};

static melu_status take_rows(void *arg, const real *numbers, size_t n, melu_error *err) {
  const struct taking *t = arg;
  return t->take(t->arg, numbers, n, err);
}

/* The rows of a sharded table, from all ranks. */
static melu_status gather_table(void *arg, const struct melu__tensor *tensor, melu__take_numbers_fn take,
                                void *take_arg, melu_error *err) {
  const struct taking taking = {take, take_arg};
  return melu__gather_rows(arg, tensor->index, take_rows, (void *)&taking, err);
}

/* `g`: NULL if no table is sharded. */
static melu_status save(const melu_model *model, const char *path, struct melu__gathering *g, melu_error *err) {
  const struct melu_allocator *a = &model->ctx->allocator;
  struct melu__tensor *tensors = melu__alloc(a, model->n_params, sizeof *tensors);
  json_t *metadata = melu__metadata(model, FORMAT);
  melu_status status = MELU_ENOMEM;
  if (tensors && metadata) {
    for (size_t i = 0; i < model->n_params; i++) {
      tensors[i] = melu__param_tensor(&model->params[i], model->options.rates);
      if (model->params[i].is_sharded) tensors[i].each = gather_table;
      tensors[i].each_arg = g;
      tensors[i].index = i;
    }
    status = melu__safetensors_save(NULL, model->ctx, path, metadata, tensors, model->n_params, err);
  } else {
    melu__fail_memory(err);
  }
  json_decref(metadata);
  melu__free(a, tensors);
  return status;
}

/* As often as a tensor's numbers are asked for when a file is written. */
enum { N_PASSES = 2 };

/* Rank 0 writes the file, and the others give their rows to it. */
static melu_status save_sharded(const melu_model *model, const char *path, melu_error *err) {
  struct melu__gathering g;
  melu_status status = melu__gathering_begin(&g, model, N_PASSES, err);
  if (status) return status;
  if (model->ctx->collective.rank == 0) {
    status = save(model, path, &g, err);
  } else {
    for (size_t i = 0; i < N_PASSES * model->n_tables && !status; i++)
      if (model->params[i % model->n_tables].is_sharded)
        status = melu__gather_rows(&g, i % model->n_tables, NULL, NULL, err);
  }
  return melu__gathering_end(&g, status, err);
}

melu_status melu_model_save(const melu_model *model, const char *path, melu_error *err) {
  melu_error mine;
  if (!model || !path) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "path" : "model");
  if (!model->is_sharded) return save(model, path, NULL, err);
  const melu_status status = save_sharded(model, path, &mine);
  if (status && err) *err = mine;
  return status;
}

/* --------------------------------------------------------------------------------------------------- loading */

/* What a file says, before anything is made of it. */
struct loading {
  const melu_context *ctx;
  struct melu__safetensors file; /* names and texts point into it */
  struct melu_model_options options;
  size_t hidden[MELU__MAX_HIDDEN];
  struct melu__schema_text schema;
  struct melu__param *params; /* what schema and options imply */
  size_t n_params;
};

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound model file: %s", what);
}

/* The member of an enum whose names stand for 1, 2, ... */
static int take_choice(struct melu__json *j, const char *option, const char *const *names, int n, unsigned *out) {
  int i;
  if (!melu__json_member(j, ',', option) || !melu__json_choice(j, names, n, &i)) return 0;
  *out = (unsigned)i + 1;
  return 1;
}

/* What is adapted: a list of names in their order, not empty. */
static int take_adapt(struct melu__json *j, unsigned *out) {
  int last = -1, more, i;
  if (!melu__json_member(j, ',', "adapt") || !melu__json_mark(j, '[')) return 0;
  for (size_t n = 0; (more = melu__json_next(j, n, ']')) != 0; n++) {
    if (more < 0 || !melu__json_choice(j, adapt_names, MELU__N_NAMES(adapt_names), &i) || i <= last) return 0;
    *out |= 1u << i;
    last = i;
  }
  return last >= 0;
}

/* The options that say what the network is and how it learns. */
static int take_method(struct melu__json *j, struct melu_model_options *o) {
  unsigned network, rule, rates, loss;
  if (!take_choice(j, "network", network_names, MELU__N_NAMES(network_names), &network) ||
      !melu__json_member(j, ',', "rank") || !melu__json_size(j, &o->rank) ||
      !take_choice(j, "rule", rule_names, MELU__N_NAMES(rule_names), &rule) || !take_adapt(j, &o->adapt) ||
      !take_choice(j, "rates", rates_names, MELU__N_NAMES(rates_names), &rates) ||
      !take_choice(j, "loss", loss_names, MELU__N_NAMES(loss_names), &loss) ||
      !melu__json_member(j, ',', "multi_step") || !melu__json_bool(j, &o->multi_step) ||
      !melu__json_member(j, ',', "history") || !melu__json_bool(j, &o->history) ||
      !melu__json_member(j, ',', "learn_precision") || !melu__json_bool(j, &o->learn_precision))
    return 0;
  o->network = (melu_network)network;
  o->rule = (melu_rule)rule;
  o->rates = (melu_rates)rates;
  o->loss = (melu_loss)loss;
  return 1;
}

static melu_status load_options(struct loading *l, melu_error *err) {
  struct melu__json j = melu__metadata_json(&l->file, "options");
  struct melu_model_options *o = &l->options;
  char *preset, *seed;
  size_t n_seed;
  int more = 1;
  *o = (struct melu_model_options){.size = sizeof *o, .hidden = l->hidden};
  if (!melu__json_member(&j, '{', "preset") || !melu__json_string(&j, &preset, NULL) ||
      !melu__json_member(&j, ',', "seed") || !melu__json_string(&j, &seed, &n_seed) ||
      !melu__parse_whole(&o->seed, (struct melu__slice){seed, n_seed}, UINT64_MAX) ||
      !melu__json_member(&j, ',', "hidden") || !melu__json_mark(&j, '['))
    return bad(err, "the options have not preset, seed and hidden");
  o->preset = preset;
  for (; (more = melu__json_next(&j, o->n_hidden, ']')) != 0; o->n_hidden++)
    if (more < 0 || o->n_hidden == MELU__MAX_HIDDEN || !melu__json_size(&j, &l->hidden[o->n_hidden]))
      return bad(err, "the hidden widths are not up to 8 whole numbers");
  if (!melu__json_member(&j, ',', "inner_steps") || !melu__json_size(&j, &o->inner_steps) ||
      !melu__json_member(&j, ',', "inner_lr") || !melu__json_real(&j, &o->inner_lr) ||
      !melu__json_member(&j, ',', "first_order") || !melu__json_bool(&j, &o->first_order) ||
      !melu__json_member(&j, ',', "rating_min") || !melu__json_real(&j, &o->rating_min) ||
      !melu__json_member(&j, ',', "rating_max") || !melu__json_real(&j, &o->rating_max) || !take_method(&j, o) ||
      !melu__json_mark(&j, '}') || !melu__json_end(&j))
    return bad(err, "an option is missing, of the wrong type, or unknown");
  /* Zeros that would stand for a default: no model is saved with them. */
  if (o->inner_lr <= 0 || o->rating_min >= o->rating_max || o->rank == 0) return bad(err, "an option is out of range");
  *o = melu__options_given(o);
  return MELU_OK;
}

/* The file has the tensors that schema and options imply, and no other. */
static melu_status check_tensors(struct loading *l, melu_error *err) {
  size_t n_numbers;
  const melu_status status = melu__model_measure(&l->n_params, &n_numbers, l->schema.schema, &l->options, err);
  if (status) return status;
  l->params = melu__alloc(&l->ctx->allocator, l->n_params, sizeof *l->params);
  if (!l->params) return melu__fail_memory(err);
  melu__model_describe(l->params, l->schema.schema, &l->options);
  return melu__check_param_tensors(&l->file, l->params, l->n_params, l->options.rates, err);
}

/* Numbers of a model that is being made. */
static melu_status take_numbers(void *arg, const struct melu__stored *tensor, size_t first, const unsigned char *bytes,
                                size_t n, melu_error *err) {
  melu_model *model = arg;
  const struct melu__param *p = melu__model_find(model, tensor->name);
  const struct melu__share own = melu__own_share(model->ctx), all = {1, {0, 1}};
  if (!melu__safetensors_finite(tensor->dtype, bytes, n))
    return melu__fail_at(err, MELU_ERANGE, first / p->cols, "tensor \"%s\": a number from row %zu on is not finite",
                         p->name, first / p->cols);
  if (p->is_sharded) {
    const struct melu__share from = {own.n_slots, {0, (uint32_t)own.n_slots}};
    melu__take_rows(p->data, &own, &from, tensor, p->cols, first, bytes, n);
  } else {
    melu__take_rows(p->data, NULL, &all, tensor, p->cols, first, bytes, n);
  }
  return MELU_OK;
}

/* Everything was checked: from here on only memory can be missing; or, of a file that is read as the model is made,
 * something may be wrong with its numbers. */
static melu_status build(melu_model **out, struct loading *l, const char *path, melu_error *err) {
  melu_status status = melu__schema_text_finish(&l->schema, l->schema.schema, err);
  if (!status) status = melu_model_new(out, l->ctx, l->schema.schema, &l->options, err);
  if (status) return status;
  if (l->file.data)
    for (size_t i = 0; i < l->n_params; i++)
      melu__safetensors_copy((*out)->params[i].data, &l->file, (*out)->params[i].name);
  else
    status = melu__safetensors_scan(&l->file, path, take_numbers, *out, err);
  if (status) {
    melu_model_free(*out);
    *out = NULL;
    return status;
  }
  (*out)->version++; /* its parameters are no longer those of a new model */
  (*out)->largest = (real)melu__model_largest(*out);
  return MELU_OK;
}

melu_status melu_model_load(melu_model **out, const melu_context *ctx, const char *path, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx || !path) return melu__fail(err, MELU_EINVAL, "%s is NULL", ctx ? "path" : "ctx");
  struct loading l = {.ctx = ctx};
  /* A rank may have less memory than the file has bytes. */
  melu_status status = ctx->collective.n_ranks > 1 ? melu__safetensors_open(&l.file, ctx, path, err)
                                                   : melu__safetensors_load(&l.file, ctx, path, 1, err);
  if (status) return status;
  status = melu__check_format(&l.file, FORMAT, err);
  if (!status) status = load_options(&l, err);
  if (!status) status = melu__schema_text_load(&l.schema, ctx, &l.file, err);
  if (!status) status = check_tensors(&l, err);
  if (!status) status = build(out, &l, path, err);
  if (status) status = melu__safetensors_blame(status, err, path);
  melu__free(&ctx->allocator, l.params);
  melu__schema_text_free(&l.schema);
  melu__safetensors_free(&l.file);
  return status;
}
