/* SPDX-License-Identifier: BSD-3-Clause */
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const form_names[N_FORMS] = {"table", "csv", "tsv", "json"};

void add_form_options(struct option_list *list, struct form_option *form) {
  *form = (struct form_option){.format = "table"};
  const struct option options[] = {
      {"--format", "FORM", "table, csv, tsv or json", NULL, 0, 0, &form->format},
      {"--json", NULL, "the same as --format json", &form->json, 0, 0, NULL},
  };
  add_options(list, options, sizeof options / sizeof options[0]);
}

enum form read_form(const struct usage *usage, const struct form_option *form) {
  return form->json ? FORM_JSON : (enum form)choice_option(usage, "--format", form->format, form_names, N_FORMS);
}

/* --------------------------------------------------------------------------------------------------------- JSON */

static json_t *must_json(json_t *json) {
  if (!json) give_up("out of memory");
  return json;
}

void print_ratings(const char *path, const struct melu_shards_info *info, double rating_min, double rating_max) {
  printf("%s\n  %llu ratings of %zu items by %llu users, from %g to %g", path, (unsigned long long)info->n_ratings,
         info->n_items, (unsigned long long)info->n_users, rating_min, rating_max);
  if (info->n_files) printf(", in %zu files", info->n_files);
  printf("\n");
}

json_t *json_text(const char *text) {
  return must_json(json_string(text));
}

enum { JSON_DIGITS = JSON_REAL_PRECISION(9) };

void print_json(json_t *json) {
  json_dumpf(must_json(json), stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  putchar('\n');
  json_decref(json);
}

/* --------------------------------------------------------------------------------------------------------- rows */

/* A cell as RFC 4180 has it; in TSV the same rule, with the tab. */
static void write_quoted(FILE *file, const char *text, char separator) {
  const char special[] = {separator, '"', '\r', '\n', '\0'};
  if (text[strcspn(text, special)] == '\0') {
    fputs(text, file);
    return;
  }
  putc('"', file);
  for (; *text; text++) {
    if (*text == '"') putc('"', file);
    putc(*text, file);
  }
  putc('"', file);
}

/* The width that a text takes is counted in characters, which are begun by every byte that continues none. */
static int n_characters(const char *text) {
  int n = 0;
  for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
  return n;
}

static void write_cell(struct output *o, const char *text) {
  const struct column *column = &o->columns[o->at];
  const char separator = o->form == FORM_CSV ? ',' : '\t';
  if (o->form == FORM_TABLE) {
    const int n = n_characters(text), width = abs(column->width), pad = width > n ? width - n : 0;
    const int is_last = o->at + 1 == o->n_columns;
    if (o->at > 0) fputs("  ", o->file);
    if (column->width >= 0) fprintf(o->file, "%*s", pad, "");
    fputs(text, o->file);
    if (column->width < 0 && !is_last) fprintf(o->file, "%*s", pad, "");
  } else {
    if (o->at > 0) putc(separator, o->file);
    write_quoted(o->file, text, separator);
  }
}

static void end_row(struct output *o) {
  if (++o->at < o->n_columns) return;
  o->at = 0;
  o->n_rows++;
  if (o->form != FORM_JSON) {
    putc('\n', o->file);
    return;
  }
  fputs(o->n_rows > 1 ? ",\n " : "[", o->file);
  json_dumpf(o->row, o->file, JSON_DIGITS);
  json_object_clear(o->row);
}

void output_begin(struct output *o, FILE *file, enum form form, const struct column *columns, size_t n_columns) {
  *o = (struct output){.file = file, .form = form, .columns = columns, .n_columns = n_columns};
  if (form == FORM_JSON) o->row = must_json(json_object());
}

/* Comes with the first cell and not before it, so that a command that fails at once has printed nothing. */
static void write_header(struct output *o) {
  if (o->form == FORM_JSON) return;
  for (; o->at < o->n_columns; o->at++) write_cell(o, o->columns[o->at].name);
  o->at = 0;
  putc('\n', o->file);
}

void output_parts(struct output *o, const char *text, json_t *json) {
  if (o->n_rows == 0 && o->at == 0) write_header(o);
  if (o->form == FORM_JSON) {
    if (json_object_set_new(o->row, o->columns[o->at].name, must_json(json)) != 0) give_up("out of memory");
  } else {
    json_decref(json);
    write_cell(o, text);
  }
  end_row(o);
}

void output_text(struct output *o, const char *text) {
  output_parts(o, text, o->form == FORM_JSON ? json_text(text) : NULL);
}

void output_whole(struct output *o, uint64_t number) {
  char text[32];
  snprintf(text, sizeof text, "%llu", (unsigned long long)number);
  output_parts(o, text, o->form == FORM_JSON ? json_integer((json_int_t)number) : NULL);
}

void output_real(struct output *o, double number) {
  char text[64] = "";
  if (!isnan(number)) {
    if (o->form == FORM_TABLE) {
      snprintf(text, sizeof text, "%.*f", o->columns[o->at].decimals, number);
    } else {
      snprintf(text, sizeof text, "%.9g", number);
    }
  }
  output_parts(o, text, o->form != FORM_JSON ? NULL : isnan(number) ? json_null() : json_real(number));
}

void output_end(struct output *o) {
  if (o->n_rows == 0) write_header(o);
  if (o->form == FORM_JSON) fputs(o->n_rows ? "]\n" : "[]\n", o->file);
  json_decref(o->row);
}

/* -------------------------------------------------------------------------------------------------------- files */

void out_file_open(struct out_file *out, const char *path) {
  struct stat status;
  *out = (struct out_file){.path = path};
  if (stat(path, &status) != 0 || S_ISREG(status.st_mode)) {
    const size_t n = strlen(path) + 32;
    out->temporary = get_memory(n, 1);
    snprintf(out->temporary, n, "%s.tmp-%ld", path, (long)getpid());
  }
  out->file = fopen(out->temporary ? out->temporary : path, "wb");
  if (!out->file) give_up("%s: %s", path, strerror(errno));
}

void out_file_close(struct out_file *out) {
  int failed = ferror(out->file) ? EIO : 0;
  if (fclose(out->file) != 0 && !failed) failed = errno;
  if (!failed && out->temporary && rename(out->temporary, out->path) != 0) failed = errno;
  if (failed && out->temporary) unlink(out->temporary);
  if (failed) give_up("%s: %s", out->path, strerror(failed));
  free(out->temporary);
}

void check_place(const char *path) {
  struct stat status;
  const char *slash = strrchr(path, '/');
  const size_t n = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
  char *folder = get_memory(n + 2, 1);
  memcpy(folder, n ? path : ".", n ? n : 1);
  if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) give_up("%s: is a folder", path);
  if (access(folder, W_OK | X_OK) != 0) give_up("%s: %s", path, strerror(errno));
  free(folder);
}
