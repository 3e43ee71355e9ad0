/* SPDX-License-Identifier: BSD-3-Clause */
/* Results: rows on stdout in the form that the user chose, and files. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "cli.h"

enum form { FORM_TABLE, FORM_CSV, FORM_TSV, FORM_JSON, N_FORMS };

/* --format and --json. */
struct form_option {
  const char *format;
  uint64_t json;
};

void add_form_options(struct option_list *list, struct form_option *form);
enum form read_form(const struct usage *usage, const struct form_option *form);

struct column {
  const char *name;
  int width;    /* of the readable table; negative: to the left */
  int decimals; /* of the readable table; elsewhere numbers have all their digits */
};

/* Rows are written as they come: a cell for each column, then the next row. */
struct output {
  FILE *file;
  enum form form;
  const struct column *columns;
  size_t n_columns, n_rows, at; /* `at`: the next cell's column */
  json_t *row;
};

void output_begin(struct output *output, FILE *file, enum form form, const struct column *columns, size_t n_columns);
void output_text(struct output *output, const char *text);
void output_whole(struct output *output, uint64_t number);
void output_real(struct output *output, double number); /* of a float's precision; NAN: missing */

/* A value that is itself made of parts: a text where there are rows of cells, else JSON, which is taken over. */
void output_parts(struct output *output, const char *text, json_t *json);
void output_end(struct output *output);

/* One JSON value, which is taken over. */
void print_json(json_t *json);

/* How many ratings there are at that path, and their range; in how many files, if they are those of a folder. */
void print_ratings(const char *path, const struct melu_shards_info *info, double rating_min, double rating_max);

/* A text as JSON; ends the program if there is no memory. */
json_t *json_text(const char *text);

/* Opens a file that is there, whole, once it is closed, under a temporary name if it is a regular one; ends the program
 * with a message if that fails. */
struct out_file {
  const char *path;
  char *temporary; /* NULL: it is written as it is */
  FILE *file;
};
void out_file_open(struct out_file *out, const char *path);
void out_file_close(struct out_file *out);

/* Ends the program if a file of that name can certainly not be made: better before the work than after it. */
void check_place(const char *path);

#endif
