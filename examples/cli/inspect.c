/* SPDX-License-Identifier: BSD-3-Clause */
/* melu inspect: what a model is made of. */
#include <string.h>

#include "output.h"

static melu_error err;

/* By the names and numbers of docs/file-format.md. */
static const char *const kinds[] = {"one", "many", "numeric"};
static const char *const networks[] = {"", "layers", "factors"};
static const char *const rules[] = {"", "steps", "closed_form"};
static const char *const losses[] = {"", "squared", "absolute", "huber", "mixed", "logistic", "pairwise"};
static const char *const rates[] = {"", "fixed", "per_tensor", "per_entry"};
static const char *const adapted[] = {"head", "hidden", "user", "items"};

/* Appends to an array or sets in an object (key not NULL) what jansson made. */
static void put(json_t *to, const char *key, json_t *json) {
  if ((key ? json_object_set_new(to, key, json) : json_array_append_new(to, json)) != 0) give_up("out of memory");
}

static json_t *fields_json(const melu_schema *schema) {
  json_t *fields = json_array();
  for (int owner = MELU_ITEM; owner >= MELU_USER; owner--) {
    for (size_t i = 0; i < melu_schema_n_fields(schema, (melu_owner)owner); i++) {
      struct melu_field f = {.size = sizeof f};
      check(melu_schema_field(&f, schema, (melu_owner)owner, i, &err), &err);
      json_t *field = json_pack("{s:s, s:s, s:s, s:I}", "name", f.name, "owner", owner == MELU_ITEM ? "item" : "user",
                                "kind", kinds[f.kind], "width", (json_int_t)f.width);
      if (f.kind == MELU_NUMERIC) {
        put(field, "shift", json_real(f.shift));
        put(field, "scale", json_real(f.scale));
      } else {
        put(field, "values", json_integer((json_int_t)f.n_values));
        put(field, "texts", json_boolean(melu_schema_value_text(schema, f.name, 0) != NULL));
      }
      put(fields, NULL, field);
    }
  }
  return fields;
}

static json_t *options_json(const melu_model *model) {
  const struct melu_model_options o = options_of(model);
  json_t *hidden = json_array(), *adapts = json_array();
  for (size_t l = 0; o.n_hidden != MELU_NONE && l < o.n_hidden; l++) {
    put(hidden, NULL, json_integer((json_int_t)o.hidden[l]));
  }
  for (size_t a = 0; a < sizeof adapted / sizeof adapted[0]; a++) {
    if (o.adapt >> a & 1) put(adapts, NULL, json_text(adapted[a]));
  }
  const json_int_t steps = o.inner_steps == MELU_NONE ? 0 : (json_int_t)o.inner_steps;
  return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:I, s:f, s:I, s:o, s:f, s:f, s:b, s:b, s:b, s:b}", "preset",
                   o.preset, "network", networks[o.network], "rule", rules[o.rule], "adapt", adapts, "loss",
                   losses[o.loss], "rates", rates[o.rates], "inner_steps", steps, "inner_lr", o.inner_lr, "rank",
                   (json_int_t)o.rank, "hidden", hidden, "rating_min", o.rating_min, "rating_max", o.rating_max,
                   "first_order", o.first_order > 0, "multi_step", o.multi_step > 0, "history", o.history > 0,
                   "learn_precision", o.learn_precision > 0);
}

static json_t *params_json(const melu_model *model) {
  json_t *params = json_array();
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    check(melu_model_param(&p, model, i, &err), &err);
    put(params, NULL,
        json_pack("{s:s, s:I, s:I, s:b}", "name", p.name, "rows", (json_int_t)p.rows, "cols", (json_int_t)p.cols,
                  "table", p.is_table));
  }
  return params;
}

static json_t *digest_json(const melu_model *model) {
  unsigned char digest[MELU_DIGEST_BYTES];
  char text[2 * MELU_DIGEST_BYTES + 1];
  check(melu_model_digest(digest, model, &err), &err);
  for (size_t i = 0; i < MELU_DIGEST_BYTES; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
  return json_text(text);
}

/* ----------------------------------------------------------------------------------------------- for a reader */

static void print_value(const json_t *value) {
  size_t i;
  const json_t *part;
  if (json_is_string(value)) fputs(json_string_value(value), stdout);
  if (json_is_integer(value)) printf("%lld", (long long)json_integer_value(value));
  if (json_is_real(value)) printf("%.9g", json_real_value(value));
  if (json_is_boolean(value)) fputs(json_is_true(value) ? "yes" : "no", stdout);
  json_array_foreach(value, i, part) {
    if (i) putchar(' ');
    print_value(part);
  }
}

static void print_fields(const json_t *fields) {
  size_t i;
  const json_t *field, *value;
  const char *key;
  puts("fields");
  json_array_foreach(fields, i, field) {
    printf("  %-20s", json_string_value(json_object_get(field, "name")));
    json_object_foreach((json_t *)field, key, value) {
      if (strcmp(key, "name") == 0 || strcmp(key, "texts") == 0) continue;
      printf("  ");
      if (!json_is_string(value)) printf("%s ", key);
      print_value(value);
    }
    putchar('\n');
  }
}

static void print_params(const json_t *params) {
  size_t i;
  const json_t *param;
  json_int_t numbers = 0;
  puts("parameters");
  json_array_foreach(params, i, param) {
    const json_int_t rows = json_integer_value(json_object_get(param, "rows"));
    const json_int_t cols = json_integer_value(json_object_get(param, "cols"));
    printf("  %-20s  %lld x %lld\n", json_string_value(json_object_get(param, "name")), (long long)rows,
           (long long)cols);
    numbers += rows * cols;
  }
  printf("  %-20s  %lld numbers, %lld bytes\n", "together", (long long)numbers, 4 * (long long)numbers);
}

static void print_model(const json_t *model) {
  const char *key;
  const json_t *value;
  printf("digest %s\n", json_string_value(json_object_get(model, "digest")));
  print_fields(json_object_get(model, "fields"));
  print_params(json_object_get(model, "parameters"));
  puts("options");
  json_object_foreach(json_object_get(model, "options"), key, value) {
    printf("  %-20s  ", key);
    print_value(value);
    putchar('\n');
  }
}

int cmd_inspect(int argc, char **argv) {
  const char *path = NULL;
  uint64_t as_json = 0;
  const struct option options[] = {{"--json", NULL, "print it as JSON", &as_json, 0, 0, NULL}};
  const struct usage usage = {.program = "melu inspect",
                              .operand = "MODEL",
                              .about =
                                  "Prints a model's fields, parameters, options and digest, by which users who\n"
                                  "were written down know their model.",
                              .options = options,
                              .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &path, argc, argv);
  if (!path) bad_usage(&usage, "missing: MODEL\nFor example: melu inspect model.melu");
  melu_context *ctx = new_context(1, show_progress);
  melu_model *model = load_model(ctx, path);
  json_t *json =
      json_pack("{s:o, s:o, s:o, s:o}", "digest", digest_json(model), "fields", fields_json(melu_model_schema(model)),
                "parameters", params_json(model), "options", options_json(model));
  if (!json) give_up("out of memory");
  if (as_json) {
    print_json(json);
  } else {
    print_model(json);
    json_decref(json);
  }
  melu_model_free(model);
  melu_context_free(ctx);
  return 0;
}
