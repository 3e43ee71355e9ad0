/* SPDX-License-Identifier: BSD-3-Clause */
/* melu convert: a model that PyTorch trained in, embeddings out. */
#include <errno.h>
#include <string.h>

#include "output.h"

enum { MAX_HIDDEN = 8 };
static melu_error err;

struct choices {
  const char *from, *description, *model, *embeddings, *out;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){0};
  const struct option options[] = {
      {"--from", "FILE", "parameters that export_melu.py wrote", NULL, 0, 0, &c->from},
      {"--description", "FILE", "what the script wrote beside it; else FILE.json", NULL, 0, 0, &c->description},
      {"--model", "FILE", "the model whose embeddings are wanted", NULL, 0, 0, &c->model},
      {"--embeddings", "FIELD", "the field, e.g. item", NULL, 0, 0, &c->embeddings},
      {"--out", "FILE", "write the model, or the table as CSV; - is stdout", NULL, 0, 0, &c->out},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  read_options(
      usage, "melu convert",
      "--from FILE --out MODEL makes a model of the parameters of a PyTorch MeLU, which export_melu.py took out\n"
      "of its checkpoint. --model MODEL --embeddings FIELD --out CSV writes the rows of a field's table, each\n"
      "with its id and text; the last one is that of unknown ids.",
      &list, argc, argv);
  if (!c->from == !c->model) bad_usage(usage, "either --from FILE, or --model FILE --embeddings FIELD; and --out FILE");
  const struct needed in[] = {{"--from", c->from, "exported.safetensors"}, {"--out", c->out, "model.melu"}};
  const struct needed out[] = {
      {"--model", c->model, "model.melu"}, {"--embeddings", c->embeddings, "item"}, {"--out", c->out, "item.csv"}};
  if (c->from) {
    need_options(usage, in, sizeof in / sizeof in[0]);
  } else {
    need_options(usage, out, sizeof out / sizeof out[0]);
  }
}

/* ------------------------------------------------------------------------------------------------ PyTorch's in */

static json_t *read_description(const struct choices *c, char *path, size_t n) {
  json_error_t why;
  snprintf(path, n, c->description ? "%s" : "%s.json", c->description ? c->description : c->from);
  json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
  if (!json) bad_data("%s:%d: %s", path, why.line, why.text);
  return json;
}

/* The schema that the description's "fields" tell of: [{"name", "owner", "kind", "n_values", "width"}, ...]. */
static melu_schema *described_schema(const melu_context *ctx, json_t *fields, const char *path) {
  melu_schema *schema;
  size_t i;
  json_t *field;
  json_error_t why;
  check(melu_schema_new(&schema, ctx, &err), &err);
  json_array_foreach(fields, i, field) {
    const char *name, *owner, *kind;
    json_int_t n_values, width;
    if (json_unpack_ex(field, &why, 0, "{s:s, s:s, s:s, s:I, s:I}", "name", &name, "owner", &owner, "kind", &kind,
                       "n_values", &n_values, "width", &width) != 0)
      bad_data("%s: field %zu: %s", path, i, why.text);
    const int is_item = strcmp(owner, "item") == 0, is_many = strcmp(kind, "many") == 0;
    if (!is_item && strcmp(owner, "user") != 0) bad_data("%s: field \"%s\": \"%s\" owns nothing", path, name, owner);
    if (!is_many && strcmp(kind, "one") != 0) bad_data("%s: field \"%s\": \"%s\" is no kind", path, name, kind);
    if (n_values < 1 || width < 1) bad_data("%s: field \"%s\" has no values, or no width", path, name);
    const struct melu_field added = {.size = sizeof added,
                                     .name = name,
                                     .owner = is_item ? MELU_ITEM : MELU_USER,
                                     .kind = is_many ? MELU_MANY : MELU_ONE,
                                     .n_values = (size_t)n_values,
                                     .width = (size_t)width};
    check(melu_schema_add(schema, &added, &err), &err);
  }
  return schema;
}

static melu_model *described_model(const melu_context *ctx, json_t *json, const char *path) {
  melu_model *model;
  json_error_t why;
  json_t *fields, *layers, *width;
  json_int_t steps;
  size_t hidden[MAX_HIDDEN], i;
  struct melu_model_options options = {.size = sizeof options, .preset = "melu", .hidden = hidden};
  if (json_unpack_ex(json, &why, 0, "{s:o, s:o, s:I, s:F, s:F, s:F}", "fields", &fields, "hidden", &layers,
                     "inner_steps", &steps, "inner_lr", &options.inner_lr, "rating_min", &options.rating_min,
                     "rating_max", &options.rating_max) != 0)
    bad_data("%s: %s", path, why.text);
  if (!json_is_array(fields)) bad_data("%s: \"fields\" is no list", path);
  if (steps < 0 || steps > 64 || options.inner_lr <= 0) bad_data("%s: inner_steps or inner_lr is out of range", path);
  options.inner_steps = steps == 0 ? MELU_NONE : (size_t)steps;
  options.n_hidden = json_array_size(layers);
  if (options.n_hidden < 1 || options.n_hidden > MAX_HIDDEN)
    bad_data("%s: \"hidden\" is no list of 1 to 8 widths", path);
  json_array_foreach(layers, i, width) {
    if (json_integer_value(width) < 1) bad_data("%s: \"hidden\" has a width that is no number from 1 on", path);
    hidden[i] = (size_t)json_integer_value(width);
  }
  melu_schema *schema = described_schema(ctx, fields, path);
  check(melu_model_new(&model, ctx, schema, &options, &err), &err);
  melu_schema_free(schema);
  return model;
}

static void import_model(const melu_context *ctx, const struct choices *c) {
  char path[4096];
  check_place(c->out);
  json_t *json = read_description(c, path, sizeof path);
  melu_model *model = described_model(ctx, json, path);
  check(melu_model_import(model, c->from, &err), &err);
  check(melu_model_save(model, c->out, &err), &err);
  printf("%s: %zu parameters\n", c->out, melu_model_n_params(model));
  json_decref(json);
  melu_model_free(model);
}

/* --------------------------------------------------------------------------------------------- embeddings out */

static struct melu_param find_table(const melu_model *model, const char *field, const char *path) {
  struct melu_param param;
  char name[80], all[512] = "";
  snprintf(name, sizeof name, "E.%.64s", field);
  for (size_t i = 0, at = 0; i < melu_model_n_params(model); i++) {
    check(melu_model_param(&param, model, i, &err), &err);
    if (strcmp(param.name, name) == 0) return param;
    if (param.is_table && at < sizeof all)
      at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", at ? ", " : "", param.name + 2);
  }
  bad_data("%s: there is no field \"%s\" with a table; there are %s", path, field, all[0] ? all : "none");
}

static void export_table(const melu_context *ctx, const struct choices *c) {
  melu_model *model = load_model(ctx, c->model);
  const melu_schema *schema = melu_model_schema(model);
  const struct melu_param param = find_table(model, c->embeddings, c->model);
  float *values = get_memory(param.rows * param.cols, sizeof *values);
  struct column *columns = get_memory(2 + param.cols, sizeof *columns);
  char(*names)[24] = get_memory(param.cols, sizeof *names);
  struct out_file file = {.file = stdout};
  struct output o;
  check(melu_model_read(values, model, param.name, 0, param.rows, &err), &err);
  columns[0].name = "id";
  columns[1].name = "text";
  for (size_t i = 0; i < param.cols; i++) {
    snprintf(names[i], sizeof names[i], "e%zu", i);
    columns[2 + i].name = names[i];
  }
  const int to_stdout = strcmp(c->out, "-") == 0;
  if (!to_stdout) out_file_open(&file, c->out);
  output_begin(&o, file.file, FORM_CSV, columns, 2 + param.cols);
  for (size_t r = 0; r < param.rows; r++) {
    const char *text = melu_schema_value_text(schema, c->embeddings, (uint32_t)r);
    if (r + 1 < param.rows) {
      output_whole(&o, r);
    } else {
      output_text(&o, "unknown");
    }
    output_text(&o, text ? text : "");
    for (size_t i = 0; i < param.cols; i++) output_real(&o, (double)values[r * param.cols + i]);
  }
  output_end(&o);
  if (!to_stdout) out_file_close(&file);
  free(names);
  free(columns);
  free(values);
  melu_model_free(model);
}

int cmd_convert(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  read_choices(&c, &usage, argc, argv);
  melu_context *ctx = new_context(1, show_progress);
  if (c.from) {
    import_model(ctx, &c);
  } else {
    export_table(ctx, &c);
  }
  melu_context_free(ctx);
  return 0;
}
