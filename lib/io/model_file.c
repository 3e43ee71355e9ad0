/* SPDX-License-Identifier: BSD-3-Clause */
/* Models as files: docs/file-format.md. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/json_read.h"
#include "io/metadata.h"
#include "io/model_names.h"
#include "io/param_tensors.h"
#include "io/text_file.h"
#include "model/gather_rows.h"

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
    status = melu__safetensors_save(model->ctx, path, metadata, tensors, model->n_params, NULL, err);
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

struct text {
  char *bytes;
  size_t n;
};

/* What a file says, before anything is made of it. */
struct loading {
  const melu_context *ctx;
  struct melu__safetensors file; /* names and texts point into it */
  struct melu_model_options options;
  size_t hidden[MELU__MAX_HIDDEN];
  melu_schema *schema;                  /* its vocabularies still without texts */
  struct text *texts[MELU__MAX_FIELDS]; /* those of field i; NULL if it has none */
  size_t n_texts;                       /* in all of them */
  struct melu__param *params;           /* what schema and options imply */
  size_t n_params;
};

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound model file: %s", what);
}

/* One of n names. */
static int take_name(struct melu__json *j, const char *const *names, int n, int *out) {
  char *text;
  if (!melu__json_string(j, &text, NULL)) return 0;
  for (*out = 0; *out < n; ++*out)
    if (strcmp(text, names[*out]) == 0) return 1;
  return 0;
}

static int take_size(struct melu__json *j, size_t *out) {
  uint64_t value;
  if (!melu__json_whole(j, &value) || value >= SIZE_MAX) return 0;
  *out = (size_t)value;
  return 1;
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A text, or a list of one: its bytes in hexadecimal digits, which are decoded where they stand. */
static int take_text(struct melu__json *j, struct text *out) {
  if (!melu__json_mark(j, '[')) return melu__json_string(j, &out->bytes, &out->n);
  if (!melu__json_string(j, &out->bytes, &out->n) || !melu__json_mark(j, ']') || out->n % 2) return 0;
  out->n /= 2;
  for (size_t i = 0; i < out->n; i++) {
    const int high = hex_digit(out->bytes[2 * i]), low = hex_digit(out->bytes[2 * i + 1]);
    if (high < 0 || low < 0) return 0;
    out->bytes[i] = (char)(unsigned char)(16 * high + low);
  }
  return 1;
}

static int by_text(const void *a, const void *b) {
  const struct text *x = *(struct text *const *)a, *y = *(struct text *const *)b;
  if (x->n != y->n) return x->n < y->n ? -1 : 1;
  return memcmp(x->bytes, y->bytes, x->n);
}

/* A vocabulary takes many times the memory of short texts, so it is not made to find out that it is none. */
static melu_status check_distinct(const struct text *texts, size_t n, const struct melu_allocator *a, melu_error *err) {
  int distinct = 1;
  const struct text **sorted = melu__alloc(a, n, sizeof *sorted);
  if (!sorted) return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) sorted[i] = &texts[i];
  if (n > 1) qsort(sorted, n, sizeof *sorted, by_text);
  for (size_t i = 1; i < n && distinct; i++) distinct = by_text(&sorted[i - 1], &sorted[i]) != 0;
  melu__free(a, sorted);
  return distinct ? MELU_OK : bad(err, "a vocabulary has a text twice");
}

/* The list of the n texts of a field. What the file claims is first held against what it has room for: every text has a
 * row in the table, of a number at least. */
static melu_status load_texts(struct loading *l, struct melu__json *j, size_t field, size_t n, melu_error *err) {
  int more = 1;
  size_t i = 0;
  if (!melu__json_mark(j, '[') || n > l->file.n_data / 4 - l->n_texts)
    return bad(err, "a vocabulary is not a list of n_values texts");
  struct text *texts = melu__alloc(&l->ctx->allocator, n, sizeof *texts);
  if (!texts) return melu__fail_memory(err);
  l->texts[field] = texts;
  l->n_texts += n;
  for (; i <= n && more > 0; i++) {
    more = melu__json_next(j, i, ']');
    if (more > 0 && (i == n || !take_text(j, &texts[i]))) more = -1;
  }
  if (more < 0 || i != n + 1) return bad(err, "a vocabulary is not a list of n_values texts");
  return check_distinct(texts, n, &l->ctx->allocator, err);
}

static melu_status load_field(struct loading *l, struct melu__json *j, melu_error *err) {
  struct melu_field field = {.size = sizeof field};
  char *name;
  int owner, kind;
  if (!melu__json_member(j, '{', "name") || !melu__json_string(j, &name, NULL) || !melu__json_member(j, ',', "owner") ||
      !take_name(j, owner_names, 2, &owner) || !melu__json_member(j, ',', "kind") ||
      !take_name(j, kind_names, 3, &kind) || !melu__json_member(j, ',', "width") || !take_size(j, &field.width) ||
      field.width == 0)
    return bad(err, "a field has not name, owner, kind and width");
  field.name = name;
  field.owner = (melu_owner)owner;
  field.kind = (melu_field_kind)kind;
  if (field.kind == MELU_NUMERIC) {
    if (!melu__json_member(j, ',', "shift") || !melu__json_real(j, &field.shift) ||
        !melu__json_member(j, ',', "scale") || !melu__json_real(j, &field.scale) || field.scale == 0)
      return bad(err, "a field of numbers has not shift and scale");
  } else if (!melu__json_member(j, ',', "n_values") || !take_size(j, &field.n_values)) {
    return bad(err, "a field of ids has not n_values");
  }
  const size_t index = l->schema->n_fields;
  melu_status status = melu_schema_add(l->schema, &field, err);
  if (status) return status;
  if (melu__json_mark(j, '}'))
    return field.kind == MELU_NUMERIC || field.n_values > 0 ? MELU_OK : bad(err, "a field of ids has no values");
  if (field.kind == MELU_NUMERIC || !melu__json_member(j, ',', "texts"))
    return bad(err, "a field has something unknown");
  status = load_texts(l, j, index, field.n_values, err);
  if (!status && !melu__json_mark(j, '}')) status = bad(err, "a field has something unknown");
  return status;
}

/* A text of the metadata that is itself JSON. Empty, which is no JSON, if it is not there. */
static struct melu__json open_json(const struct loading *l, const char *name) {
  size_t n = 0;
  char *text = melu__safetensors_text(&l->file, name, &n);
  return (struct melu__json){text, text ? text + n : NULL};
}

static melu_status load_schema(struct loading *l, melu_error *err) {
  struct melu__json j = open_json(l, "schema");
  int more;
  if (!melu__json_member(&j, '{', "fields") || !melu__json_mark(&j, '['))
    return bad(err, "the schema has no list of fields");
  melu_status status = melu_schema_new(&l->schema, l->ctx, err);
  for (size_t i = 0; !status && (more = melu__json_next(&j, i, ']')) != 0; i++)
    status = more > 0 ? load_field(l, &j, err) : bad(err, "the schema is not a list of fields");
  if (!status && (!melu__json_mark(&j, '}') || !melu__json_end(&j))) status = bad(err, "text follows the schema");
  if (!status) melu__schema_close(l->schema); /* a vocabulary may be empty */
  return status;
}

/* The member of an enum whose names stand for 1, 2, ... */
static int take_choice(struct melu__json *j, const char *option, const char *const *names, int n, unsigned *out) {
  int i;
  if (!melu__json_member(j, ',', option) || !take_name(j, names, n, &i)) return 0;
  *out = (unsigned)i + 1;
  return 1;
}

/* What is adapted: a list of names in their order, not empty. */
static int take_adapt(struct melu__json *j, unsigned *out) {
  int last = -1, more, i;
  if (!melu__json_member(j, ',', "adapt") || !melu__json_mark(j, '[')) return 0;
  for (size_t n = 0; (more = melu__json_next(j, n, ']')) != 0; n++) {
    if (more < 0 || !take_name(j, adapt_names, MELU__N_NAMES(adapt_names), &i) || i <= last) return 0;
    *out |= 1u << i;
    last = i;
  }
  return last >= 0;
}

/* The options that say what the network is and how it learns. */
static int take_method(struct melu__json *j, struct melu_model_options *o) {
  unsigned network, rule, rates, loss;
  if (!take_choice(j, "network", network_names, MELU__N_NAMES(network_names), &network) ||
      !melu__json_member(j, ',', "rank") || !take_size(j, &o->rank) ||
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
  struct melu__json j = open_json(l, "options");
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
    if (more < 0 || o->n_hidden == MELU__MAX_HIDDEN || !take_size(&j, &l->hidden[o->n_hidden]))
      return bad(err, "the hidden widths are not up to 8 whole numbers");
  if (!melu__json_member(&j, ',', "inner_steps") || !take_size(&j, &o->inner_steps) ||
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
  const melu_status status = melu__model_measure(&l->n_params, &n_numbers, l->schema, &l->options, err);
  if (status) return status;
  l->params = melu__alloc(&l->ctx->allocator, l->n_params, sizeof *l->params);
  if (!l->params) return melu__fail_memory(err);
  melu__model_describe(l->params, l->schema, &l->options);
  return melu__check_param_tensors(&l->file, l->params, l->n_params, l->options.rates, err);
}

static melu_status build_texts(struct loading *l, size_t field, melu_error *err) {
  const struct melu__field *f = &l->schema->fields[field];
  struct melu__vocab *vocab = melu__vocab_new(&l->ctx->allocator);
  int made = vocab != NULL;
  for (size_t i = 0; i < f->n_values && made; i++)
    made = melu__vocab_add(vocab, l->texts[field][i].bytes, l->texts[field][i].n, NULL) != MELU__NO_INDEX;
  const melu_status status = made ? melu__schema_set_texts(l->schema, f->name, vocab, err) : melu__fail_memory(err);
  melu__vocab_free(vocab);
  return status;
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
  melu_status status = MELU_OK;
  for (size_t i = 0; i < l->schema->n_fields && !status; i++)
    if (l->texts[i]) status = build_texts(l, i, err);
  if (!status) status = melu_model_new(out, l->ctx, l->schema, &l->options, err);
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

/* What would be the caller's mistake in a call is here the file's. */
static melu_status blame_file(melu_status status, melu_error *err, const char *path) {
  if (status == MELU_ENOMEM) return status;
  if (status == MELU_EINVAL) status = MELU_EFORMAT;
  if (err) err->status = status;
  melu__safetensors_name(err, path);
  return status;
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
  if (!status) status = load_schema(&l, err);
  if (!status) status = check_tensors(&l, err);
  if (!status) status = build(out, &l, path, err);
  if (status) status = blame_file(status, err, path);
  for (size_t i = 0; i < MELU__MAX_FIELDS; i++) melu__free(&ctx->allocator, l.texts[i]);
  melu__free(&ctx->allocator, l.params);
  melu_schema_free(l.schema);
  melu__safetensors_free(&l.file);
  return status;
}
