/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/metadata.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "io/json_read.h"
#include "io/json_write.h"
#include "io/schema_text.h"
#include "io/text_file.h"
#include "model/option_names.h"

static json_t *widths_json(const struct melu_model_options *o) {
  json_t *list = json_array();
  for (size_t l = 0; list && l < o->n_hidden; l++) {
    if (json_array_append_new(list, json_integer((json_int_t)o->hidden[l])) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

static json_t *adapt_json(const struct melu_model_options *o) {
  json_t *list = json_array();
  for (int i = 0; list && i < MELU__N_NAMES(adapt_names); i++) {
    if (!(o->adapt & 1u << i) || json_array_append_new(list, json_string(adapt_names[i])) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

static json_t *options_json(const struct melu_model_options *o) {
  char seed[24];
  snprintf(seed, sizeof seed, "%" PRIu64, o->seed); /* JSON's integers end at 2^63 */
  json_t *hidden = widths_json(o), *adapt = adapt_json(o), *options = NULL;
  if (hidden && adapt)
    options = json_pack("{s:s, s:s, s:O, s:I, s:f, s:b, s:f, s:f, s:s, s:I, s:s, s:O, s:s, s:s, s:b, s:b, s:b}",
                        "preset", o->preset, "seed", seed, "hidden", hidden, "inner_steps", (json_int_t)o->inner_steps,
                        "inner_lr", o->inner_lr, "first_order", o->first_order, "rating_min", o->rating_min,
                        "rating_max", o->rating_max, "network", network_names[o->network - 1], "rank",
                        (json_int_t)o->rank, "rule", rule_names[o->rule - 1], "adapt", adapt, "rates",
                        rates_names[o->rates - 1], "loss", loss_names[o->loss - 1], "multi_step", o->multi_step,
                        "history", o->history, "learn_precision", o->learn_precision);
  json_decref(hidden);
  json_decref(adapt);
  return options;
}

json_t *melu__metadata_new(const char *format) {
  return json_pack("{s:s, s:s, s:s}", "format", format, "format_version", MELU__FORMAT_VERSION, "library",
                   melu_version());
}

int melu__metadata_put(json_t *metadata, const char *name, json_t *object, const struct melu_allocator *a) {
  size_t n;
  char *text = object ? melu__json_dump(&n, object, a) : NULL;
  const int failed = !text || json_object_set_new(metadata, name, json_stringn(text, n));
  melu__free(a, text);
  json_decref(object);
  return failed;
}

json_t *melu__metadata(const melu_model *model, const char *format) {
  const struct melu_allocator *a = &model->ctx->allocator;
  json_t *metadata = melu__metadata_new(format);
  if (metadata && !melu__metadata_put(metadata, "schema", melu__schema_json(model->schema, a), a) &&
      !melu__metadata_put(metadata, "options", options_json(&model->options), a))
    return metadata;
  json_decref(metadata);
  return NULL;
}

melu_status melu__check_format(const struct melu__safetensors *file, const char *format, melu_error *err) {
  size_t n;
  uint64_t number;
  const char *found = melu__safetensors_text(file, "format", NULL);
  const char *version = melu__safetensors_text(file, "format_version", &n);
  if (!found || strcmp(found, format) != 0 || !version)
    return melu__fail(err, MELU_EFORMAT, "not a sound %s file: it does not say that it is one", format);
  if (strcmp(version, MELU__FORMAT_VERSION) == 0) return MELU_OK;
  if (!melu__parse_whole(&number, (struct melu__slice){version, n}, UINT64_MAX) || number < 2)
    return melu__fail(err, MELU_EFORMAT, "not a sound %s file: its version is not a number", format);
  return melu__fail(err, MELU_EVERSION,
                    "format version %" PRIu64 " is newer than " MELU__FORMAT_VERSION ", which is known", number);
}

struct melu__json melu__metadata_json(const struct melu__safetensors *file, const char *name) {
  size_t n = 0;
  char *text = melu__safetensors_text(file, name, &n);
  return (struct melu__json){text, text ? text + n : NULL};
}
