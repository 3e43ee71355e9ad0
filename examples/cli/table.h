/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables of text, by the rules of melu_table_options. The library reads users and items by itself, but it does not tell
 * what is in a file before there is a schema, nor what an id was called. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NO_COLUMN ((size_t)-1)

/* A file that is read row by row. What is held of it are `n` bytes from `bytes` on, with a NUL behind them. */
struct table {
  const char *path;
  FILE *file; /* NULL: all of the rest is held */
  char *bytes, *next;
  size_t n, capacity;
  uint64_t n_read; /* bytes of the file so far */
  char *cut, kept; /* behind the row that was read last there is a NUL for this byte; NULL: there is none */
  char separator;
  size_t line, next_line; /* of the row that was read last, 1-based, and of what comes next */
  size_t n_columns;
  char **names;       /* (n_columns) */
  const char **cells; /* (n_columns), of the row that was read last */
};

/* Opens a file and reads its first line. Ends the program with a message if that fails; so below. The cells' texts stay
 * until the table is freed; with table_open_piecewise, which holds some of the file at a time, until the next row. */
void table_open(struct table *table, const char *path);
void table_open_piecewise(struct table *table, const char *path);

/* Reads the next row into `cells`; 0 if there is none. */
int table_next(struct table *table);
void table_free(struct table *table);

/* The column of that name. `option`: what the user can say to name another one, for the message; NULL: NO_COLUMN if
 * there is none. */
size_t table_column(const struct table *table, const char *name, const char *option);

int is_missing(const char *cell);

/* The host's id of a text: a whole number below 2^63 is itself; any other text has a hash from 2^63 on, so that it has
 * the same id in every file and order. */
uint64_t id_of(const struct table *table, const char *text);

#endif
