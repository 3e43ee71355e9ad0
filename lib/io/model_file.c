/* SPDX-License-Identifier: BSD-3-Clause */
/* Models as files: docs/file-format.md. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/safetensors.h"
#include "model/model.h"

#define FORMAT "melu-model"
#define FORMAT_VERSION 1

static const char *const owner_names[] = {"user", "item"};
static const char *const kind_names[] = {"one", "many", "numeric"};

/* -------------------------------------------------------------------------------------------------- saving */

static json_t *texts_json(const struct melu__vocab *texts) {
  json_t *list = json_array();
  for (uint32_t i = 0; i < melu__vocab_count(texts); i++) {
    size_t n;
    const char *text = melu__vocab_key(texts, i, &n);
    if (json_array_append_new(list, json_stringn(text, n)) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

static json_t *field_json(const struct melu__field *f) {
  json_t *field = json_pack("{s:s, s:s, s:s, s:I}", "name", f->name, "owner", owner_names[f->owner], "kind",
                            kind_names[f->kind], "width", (json_int_t)f->width);
  int failed = !field;
  if (f->kind == MELU_NUMERIC) {
    failed = failed || json_object_set_new(field, "shift", json_real(f->shift));
    failed = failed || json_object_set_new(field, "scale", json_real(f->scale));
  } else {
    failed = failed || json_object_set_new(field, "n_values", json_integer((json_int_t)f->n_values));
    if (f->texts) failed = failed || json_object_set_new(field, "texts", texts_json(f->texts));
  }
  if (!failed) return field;
  json_decref(field);
  return NULL;
}

static json_t *schema_json(const melu_schema *schema) {
  json_t *fields = json_array();
  for (size_t i = 0; i < schema->n_fields; i++) {
    if (json_array_append_new(fields, field_json(&schema->fields[i])) == 0) continue;
    json_decref(fields);
    return NULL;
  }
  return json_pack("{s:o}", "fields", fields);
}

static json_t *options_json(const struct melu_model_options *o) {
  char seed[24];
  json_t *hidden = json_array();
  for (size_t l = 0; l < o->n_hidden; l++) json_array_append_new(hidden, json_integer((json_int_t)o->hidden[l]));
  snprintf(seed, sizeof seed, "%" PRIu64, o->seed); /* JSON's integers end at 2^63 */
  return json_pack("{s:s, s:s, s:o, s:I, s:f, s:b, s:f, s:f}", "preset", o->preset, "seed", seed, "hidden", hidden,
                   "inner_steps", (json_int_t)o->inner_steps, "inner_lr", o->inner_lr, "first_order", o->first_order,
                   "rating_min", o->rating_min, "rating_max", o->rating_max);
}

/* Sets a metadata text to an object written as JSON. The object is given away. */
static int set_json(json_t *metadata, const char *name, json_t *object, const struct melu_allocator *a) {
  size_t n;
  char *text = object ? melu__json_text(&n, object, a) : NULL;
  const int failed = !text || json_object_set_new(metadata, name, json_stringn(text, n));
  melu__free(a, text);
  json_decref(object);
  return failed;
}

static json_t *metadata_json(const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  char version[16];
  snprintf(version, sizeof version, "%d", FORMAT_VERSION);
  json_t *metadata =
      json_pack("{s:s, s:s, s:s}", "format", FORMAT, "format_version", version, "library", melu_version());
  if (metadata && !set_json(metadata, "schema", schema_json(model->schema), a) &&
      !set_json(metadata, "options", options_json(&model->options), a))
    return metadata;
  json_decref(metadata);
  return NULL;
}

/* A bias, (1, n) in the model, has one dimension in the file, as in PyTorch. */
static size_t file_dims(size_t dims[2], const melu_model *model, const struct melu__param *p) {
  const size_t i = (size_t)(p - model->params);
  const int is_bias = !p->is_table && (i - model->n_tables) % 2 == 1;
  dims[0] = is_bias ? p->cols : p->rows;
  dims[1] = is_bias ? 1 : p->cols;
  return is_bias ? 1 : 2;
}

melu_status melu_model_save(const melu_model *model, const char *path, melu_error *err) {
  if (!model || !path) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "path" : "model");
  const struct melu_allocator *a = &model->ctx->allocator;
  struct melu__tensor *tensors = melu__alloc(a, model->n_params, sizeof *tensors);
  json_t *metadata = metadata_json(model);
  melu_status status = MELU_ENOMEM;
  if (tensors && metadata) {
    for (size_t i = 0; i < model->n_params; i++) {
      const struct melu__param *p = &model->params[i];
      tensors[i] = (struct melu__tensor){.name = p->name, .data = p->data};
      tensors[i].n_dims = file_dims(tensors[i].dims, model, p);
    }
    status = melu__safetensors_save(model->ctx, path, metadata, tensors, model->n_params, err);
  } else {
    melu__fail_memory(err);
  }
  json_decref(metadata);
  melu__free(a, tensors);
  return status;
}

/* ------------------------------------------------------------------------------------------------- loading */

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound model file: %s", what);
}

/* Reads a member of exactly that type; 0 if there is none. */
static int get_count(size_t *out, const json_t *object, const char *name) {
  const json_t *j = json_object_get(object, name);
  if (!json_is_integer(j) || json_integer_value(j) < 0 || (uint64_t)json_integer_value(j) > SIZE_MAX / 2) return 0;
  *out = (size_t)json_integer_value(j);
  return 1;
}

static int get_real(double *out, const json_t *object, const char *name) {
  const json_t *j = json_object_get(object, name);
  if (!json_is_real(j)) return 0;
  *out = json_real_value(j);
  return 1;
}

static int get_name(int *out, const json_t *object, const char *member, const char *const *names, int n) {
  const char *text = json_string_value(json_object_get(object, member));
  for (*out = 0; text && *out < n; ++*out)
    if (strcmp(text, names[*out]) == 0) return 1;
  return 0;
}

static melu_status load_texts(melu_schema *schema, const char *field, const json_t *list, size_t n_values,
                              melu_error *err) {
  if (!json_is_array(list) || json_array_size(list) != n_values)
    return bad(err, "a vocabulary is not a list of n_values");
  struct melu__vocab *texts = melu__vocab_new(&schema->ctx->allocator);
  if (!texts) return melu__fail_memory(err);
  melu_status status = MELU_OK;
  for (size_t i = 0; i < n_values && !status; i++) {
    const json_t *text = json_array_get(list, i);
    int is_new = 0;
    if (!json_is_string(text))
      status = bad(err, "a vocabulary has something that is no text");
    else if (melu__vocab_add(texts, json_string_value(text), json_string_length(text), &is_new) == MELU__NO_INDEX)
      status = melu__fail_memory(err);
    else if (!is_new)
      status = bad(err, "a vocabulary has a text twice");
  }
  if (!status) status = melu__schema_set_texts(schema, field, texts, err);
  melu__vocab_free(texts);
  return status;
}

static melu_status load_field(melu_schema *schema, const json_t *j, melu_error *err) {
  struct melu_field field = {.size = sizeof field, .name = json_string_value(json_object_get(j, "name"))};
  const json_t *texts = json_object_get(j, "texts");
  int owner, kind;
  if (!field.name || !get_name(&owner, j, "owner", owner_names, 2) || !get_name(&kind, j, "kind", kind_names, 3) ||
      !get_count(&field.width, j, "width") || field.width == 0)
    return bad(err, "a field lacks its name, owner, kind or width");
  field.owner = (melu_owner)owner;
  field.kind = (melu_field_kind)kind;
  size_t n_values = 0;
  if (field.kind == MELU_NUMERIC) {
    if (!get_real(&field.shift, j, "shift") || !get_real(&field.scale, j, "scale") || field.scale == 0 || texts)
      return bad(err, "a field of numbers lacks its shift or scale");
  } else if (!get_count(&n_values, j, "n_values") || (n_values == 0 && !texts)) {
    return bad(err, "a field of ids lacks its n_values");
  }
  if (!texts) field.n_values = n_values; /* with texts the field learns, and then is given them */
  melu_status status = melu_schema_add(schema, &field, err);
  if (!status && texts) status = load_texts(schema, field.name, texts, n_values, err);
  return status;
}

static melu_status load_schema(melu_schema **out, const melu_context *ctx, const json_t *j, melu_error *err) {
  const json_t *fields = json_object_get(j, "fields");
  if (!json_is_array(fields)) return bad(err, "the schema has no fields");
  melu_status status = melu_schema_new(out, ctx, err);
  for (size_t i = 0; i < json_array_size(fields) && !status; i++)
    status = load_field(*out, json_array_get(fields, i), err);
  return status;
}

static melu_status load_options(struct melu_model_options *o, size_t hidden[MELU__MAX_HIDDEN], const json_t *j,
                                melu_error *err) {
  const json_t *widths = json_object_get(j, "hidden"), *first_order = json_object_get(j, "first_order");
  const char *seed = json_string_value(json_object_get(j, "seed"));
  char *end = NULL;
  *o = (struct melu_model_options){.size = sizeof *o, .hidden = hidden, .n_hidden = json_array_size(widths)};
  o->preset = json_string_value(json_object_get(j, "preset"));
  if (!o->preset || !seed || seed[0] < '0' || seed[0] > '9' || !json_is_boolean(first_order) ||
      o->n_hidden > MELU__MAX_HIDDEN || !get_count(&o->inner_steps, j, "inner_steps") ||
      !get_real(&o->inner_lr, j, "inner_lr") || !get_real(&o->rating_min, j, "rating_min") ||
      !get_real(&o->rating_max, j, "rating_max"))
    return bad(err, "an option is missing or of the wrong type");
  o->seed = strtoull(seed, &end, 10);
  if (*end) return bad(err, "the seed is not a whole number");
  o->first_order = json_is_true(first_order);
  if (o->inner_steps == 0) o->inner_steps = MELU_NONE;
  for (size_t l = 0; l < o->n_hidden; l++) {
    const json_t *width = json_array_get(widths, l);
    if (!json_is_integer(width) || json_integer_value(width) <= 0 || json_integer_value(width) > UINT32_MAX)
      return bad(err, "a hidden width is not a whole number");
    hidden[l] = (size_t)json_integer_value(width);
  }
  return MELU_OK;
}

/* A member of the metadata that is itself JSON. */
static json_t *parse_member(const struct melu__safetensors *f, const char *name) {
  const char *text = melu__safetensors_text(f, name);
  return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static melu_status check_version(const struct melu__safetensors *f, melu_error *err) {
  const char *format = melu__safetensors_text(f, "format"), *version = melu__safetensors_text(f, "format_version");
  if (!format || strcmp(format, FORMAT) != 0 || !version) return bad(err, "it does not say that it is one");
  char *end;
  const long number = strtol(version, &end, 10);
  if (*end || end == version || number < 1) return bad(err, "its version is not a number");
  if (number > FORMAT_VERSION)
    return melu__fail(err, MELU_EVERSION, "the file has format version %ld, this library reads up to %d", number,
                      FORMAT_VERSION);
  return MELU_OK;
}

static melu_status load_params(melu_model *model, const struct melu__safetensors *f, melu_error *err) {
  for (size_t i = 0; i < model->n_params; i++) {
    size_t dims[2];
    const size_t n_dims = file_dims(dims, model, &model->params[i]);
    const melu_status status =
        melu__safetensors_read(model->params[i].data, f, model->params[i].name, n_dims, dims, err);
    if (status) return status;
  }
  return MELU_OK;
}

/* What the schema implies is compared with the file before memory is taken for it. */
static melu_status check_size(const struct melu__safetensors *f, const melu_schema *schema,
                              const struct melu_model_options *o, melu_error *err) {
  size_t n_params, n_numbers;
  const melu_status status = melu__model_measure(&n_params, &n_numbers, schema, o, err);
  if (status) return status;
  const size_t n_data = f->n_bytes - (size_t)(f->data - f->bytes);
  if (melu__safetensors_count(f) != n_params || melu__size_mul(n_numbers, 4) != n_data)
    return bad(err, "its tensors are not those that its schema implies");
  return MELU_OK;
}

static melu_status load_model(melu_model **out, const melu_context *ctx, const struct melu__safetensors *f,
                              melu_error *err) {
  struct melu_model_options o;
  size_t hidden[MELU__MAX_HIDDEN];
  melu_schema *schema = NULL;
  json_t *schema_j = parse_member(f, "schema"), *options_j = parse_member(f, "options");
  melu_status status = check_version(f, err);
  if (!status) status = load_options(&o, hidden, options_j, err);
  if (!status) status = load_schema(&schema, ctx, schema_j, err);
  if (!status) status = check_size(f, schema, &o, err);
  if (!status) status = melu_model_new(out, ctx, schema, &o, err);
  if (!status) status = load_params(*out, f, err);
  json_decref(schema_j);
  json_decref(options_j);
  melu_schema_free(schema);
  return status;
}

/* Says which file a complaint about content is about; those about the file itself name it already. */
static void name_file(melu_error *err, melu_status status, const char *path) {
  char message[sizeof err->message];
  const int is_content = status == MELU_EFORMAT || status == MELU_ECORRUPT || status == MELU_EVERSION ||
                         status == MELU_ERANGE || status == MELU_EINVAL;
  if (!err || !is_content) return;
  const size_t n = strlen(path), shown = n < 100 ? n : 100; /* the end of a long path says more than its beginning */
  memcpy(message, err->message, sizeof message);
  snprintf(err->message, sizeof err->message, "%s: %.120s", path + n - shown, message);
}

melu_status melu_model_load(melu_model **out, const melu_context *ctx, const char *path, melu_error *err) {
  struct melu__safetensors f;
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx || !path) return melu__fail(err, MELU_EINVAL, "%s is NULL", ctx ? "path" : "ctx");
  melu_status status = melu__safetensors_load(&f, ctx, path, err);
  if (!status) {
    status = load_model(out, ctx, &f, err);
    melu__safetensors_free(&f);
  }
  if (!status) return MELU_OK;
  name_file(err, status, path);
  melu_model_free(*out);
  *out = NULL;
  return status;
}
