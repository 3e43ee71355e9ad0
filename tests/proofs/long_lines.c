/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines that are as long as a file may be. What holds them takes memory like their length, and time likewise; what is
 * too large for the context, or for its kind, takes neither. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../tiny_folder.h"
#include "base/bytes.h"
#include "linear.h"

#define NS_A_BYTE 25.0 /* the slowest that a line may be read */

enum kind { ITEMS, YEARS, FOLDER, MODEL, WEIGHTS };

/* A file of a line of n times `fill`, or a hole of n zero bytes; it takes up to `times` its size of memory. */
struct line {
  const char *name;
  enum kind kind;
  const char *before;
  char fill;
  const char *after;
  melu_status status;
  const char *says;
  double times;
};

#define USERS "7::F::1::16::02139\n3::M::56::0::55113-1234\n9::F::1::16::99999\n"

static const struct line lines[] = {
    {"items.csv", ITEMS, "item,tags\n1,", 'x', "\n", MELU_OK, "", 2}, /* the file and the text */
    {"items.csv", ITEMS, "item,tags\n", 'x', ",a\n", MELU_OK, "", 2},
    {"items.csv", ITEMS, "item,tags\n1,", 'x', ",\n", MELU_EFORMAT, ":2: 3 cells", 1},
    {"items.csv", ITEMS, "item,tags\n1,", ',', "\n", MELU_EFORMAT, "cells, but", 1},
    {"items.csv", ITEMS, "item,tags\n1,\"", 'x', "", MELU_EFORMAT, ":2: the quotation mark", 1},
    {"items.csv", ITEMS, "item,tags\n1,", '|', "\n", MELU_EFORMAT, ":2: field \"tags\": an entry", 1},
    {"items.csv", ITEMS, "item,tags\n1,", '\0', "\n", MELU_EFORMAT, ":2: a NUL byte", 1},
    {"items.csv", ITEMS, "", 'x', "", MELU_EFORMAT, ":1: unknown column", 1},
    {"items.csv", ITEMS, "", ',', "", MELU_ELIMIT, ":1: more than 65536 columns", 1},
    {"items.csv", YEARS, "item,tags\n1,", '9', "\n", MELU_ERANGE, ":2: field \"tags\"", 1},
    {"items.csv", YEARS, "item,tags\n1,0.", '9', "\n", MELU_OK, "", 1},
    {"users.dat", FOLDER, USERS, 'x', "\n", MELU_EFORMAT, ":4: 1 fields, not 5", 1},
    {"users.dat", FOLDER, USERS "8::F::1::16::", ':', "\n", MELU_EFORMAT, ":4:", 1},
    {"m_actor.txt", FOLDER, "Eve\nnan\n", 'x', "\n", MELU_OK, "", 2},
    {"s_y.json", FOLDER, "{\"9\":[\"", 'x', "\"]}", MELU_EFORMAT, "rating 0 is not a number", 2},
    {"s_y.json", FOLDER, "", '[', "", MELU_EFORMAT, ":1: '{' expected", 1},
    {"model", MODEL, "", 'x', "", MELU_EFORMAT, "longer than the file", 1},
    {"weights", WEIGHTS, "", '\0', "", MELU_EFORMAT, "the header is no object", 1},
};

static void write_line(const struct line *l, size_t n) {
  static char piece[1 << 16];
  FILE *file = fopen(linear_path(l->name), "wb");
  PROOF_NEEDS(file && fputs(l->before, file) >= 0, "cannot write %s", l->name);
  memset(piece, l->fill, sizeof piece);
  if (l->fill == '\0')
    PROOF_NEEDS(fseek(file, (long)n, SEEK_CUR) == 0 && fputc('\0', file) == 0, "cannot write %s", l->name);
  for (size_t left = l->fill ? n : 0; left > 0;) {
    const size_t now = left < sizeof piece ? left : sizeof piece;
    PROOF_NEEDS(fwrite(piece, 1, now, file) == now, "cannot write %s", l->name);
    left -= now;
  }
  PROOF_NEEDS(fputs(l->after, file) >= 0 && fclose(file) == 0, "cannot write %s", l->name);
}

/* -------------------------------------------------------------------------------------------------- reading */

static melu_status read_items(const melu_context *ctx, enum kind kind, melu_error *why) {
  melu_error err;
  const struct melu_field field = {.size = sizeof field,
                                   .name = "tags",
                                   .owner = MELU_ITEM,
                                   .kind = kind == YEARS ? MELU_NUMERIC : MELU_MANY,
                                   .width = 1};
  melu_schema *schema;
  melu_dataset *data;
  PROOF_TRY(melu_schema_new(&schema, ctx, &err));
  PROOF_TRY(melu_schema_add(schema, &field, &err));
  PROOF_TRY(melu_dataset_new(&data, ctx, schema, &err));
  const melu_status status = melu_dataset_read_items(data, linear_path("items.csv"), NULL, why);
  melu_dataset_free(data);
  melu_schema_free(schema);
  return status;
}

static melu_status read_folder(const melu_context *ctx, melu_error *why) {
  melu_error err;
  melu_schema *schema;
  melu_dataset *data = NULL;
  char path[128];
  snprintf(path, sizeof path, "%s", linear_path(""));
  PROOF_TRY(melu_schema_new(&schema, ctx, &err));
  melu_status status = melu_schema_add_melu(schema, path, why);
  if (!status) status = melu_dataset_new(&data, ctx, schema, why);
  if (!status) status = melu_dataset_read_melu(data, path, "s", why);
  melu_dataset_free(data);
  melu_schema_free(schema);
  return status;
}

static melu_status import(const melu_context *ctx, melu_error *why) {
  melu_error err;
  const struct melu_field field = {.size = sizeof field, .name = "a", .owner = MELU_ITEM, .n_values = 1, .width = 1};
  melu_schema *schema;
  melu_model *model;
  PROOF_TRY(melu_schema_new(&schema, ctx, &err));
  PROOF_TRY(melu_schema_add(schema, &field, &err));
  PROOF_TRY(melu_model_new(&model, ctx, schema, NULL, &err));
  const melu_status status = melu_model_import(model, linear_path("weights"), why);
  melu_model_free(model);
  melu_schema_free(schema);
  return status;
}

static melu_status read_line(const melu_context *ctx, enum kind kind, melu_error *err) {
  melu_model *model;
  if (kind == FOLDER) return read_folder(ctx, err);
  if (kind == WEIGHTS) return import(ctx, err);
  if (kind != MODEL) return read_items(ctx, kind, err);
  const melu_status status = melu_model_load(&model, ctx, linear_path("model"), err);
  melu_model_free(model);
  return status;
}

/* ------------------------------------------------------------------------------------------------- measuring */

/* Reads it, in up to three tries where time is short; `n_bytes` of memory and `seconds` are allowed. */
static void measure(const melu_context *ctx, const struct line *l, melu_status want, const char *says, double n_bytes,
                    double seconds) {
  double best = INFINITY;
  for (int i = 0; i < 3 && best >= seconds; i++) {
    melu_error err = {.message = ""};
    const long long live = atomic_load(&proof_heap.live);
    atomic_store(&proof_heap.peak, live);
    const double start = now_s();
    const melu_status status = read_line(ctx, l->kind, &err);
    best = fmin(best, now_s() - start);
    const double took = (double)(atomic_load(&proof_heap.peak) - live);
    PROOF_NEEDS(status == want && strstr(err.message, says), "%s, a line of \"%s\" and '%c': %s: %s", l->name,
                l->before, l->fill ? l->fill : '0', melu_status_name(status), status ? err.message : "");
    PROOF_NEEDS(took <= n_bytes, "%s, a line of \"%s\" and '%c': %.0f bytes of memory", l->name, l->before,
                l->fill ? l->fill : '0', took);
  }
  PROOF_NEEDS(best < seconds, "%s, a line of \"%s\" and '%c': %.1f s", l->name, l->before, l->fill ? l->fill : '0',
              best);
}

size_t long_lines(size_t n) {
  const double slack = 4 << 20; /* the rest of what is read */
  const struct melu_context_options options = {.size = sizeof options, .max_file_bytes = n / 2};
  const size_t n_lines = sizeof lines / sizeof *lines;
  melu_error err;
  melu_context *small;
  PROOF_TRY(melu_context_new(&small, &options, &err));
  for (size_t i = 0; i < N_TINY_FILES; i++)
    proof_write_file(linear_path(tiny_files[i].name), tiny_files[i].text, strlen(tiny_files[i].text));
  for (size_t i = 0; i < n_lines; i++) {
    const struct line *l = &lines[i];
    const int is_json = strcmp(l->name, "s_y.json") == 0;
    write_line(l, n);
    if (is_json && n > (size_t)1 << 28) /* of which no more are read, whatever the context allows */
      measure(linear_ctx, l, MELU_ELIMIT, "s_y.json: the file is larger than", slack, 0.1);
    else
      measure(linear_ctx, l, l->status, l->says, l->times * (double)n + slack, NS_A_BYTE * 1e-9 * (double)n);
    measure(small, l, MELU_ELIMIT, l->name, slack, 0.1);
    unlink(linear_path(l->name));
    for (size_t k = 0; k < N_TINY_FILES; k++)
      if (strcmp(l->name, tiny_files[k].name) == 0)
        proof_write_file(linear_path(tiny_files[k].name), tiny_files[k].text, strlen(tiny_files[k].text));
  }
  for (size_t i = 0; i < N_TINY_FILES; i++) unlink(linear_path(tiny_files[i].name));
  melu_context_free(small);
  return n_lines;
}
