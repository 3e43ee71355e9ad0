/* SPDX-License-Identifier: BSD-3-Clause */
#include "table.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "cli.h"

enum { PIECE = 1 << 20 };

/* ------------------------------------------------------------------------------------------------------ bytes */

/* Moves what was not looked at to the front, and reads more behind it, at least as much as there is: so a long row
 * takes time in proportion. */
static void read_more(struct table *t) {
  const size_t rest = (size_t)(t->bytes + t->n - t->next), more = rest > PIECE ? rest : PIECE;
  if (t->next != t->bytes) memmove(t->bytes, t->next, rest);
  if (rest + more + 1 > t->capacity) {
    t->capacity = rest + more + 1;
    char *bytes = realloc(t->bytes, t->capacity);
    if (!bytes) give_up("out of memory");
    t->bytes = bytes;
  }
  const size_t n = fread(t->bytes + rest, 1, more, t->file);
  if (ferror(t->file)) give_up("%s: %s", t->path, strerror(errno));
  t->next = t->bytes;
  t->n = rest + n;
  t->n_read += n;
  t->bytes[t->n] = '\0';
  if (memchr(t->bytes + rest, '\0', n)) bad_data("%s: a byte of it is 0, so it is no text", t->path);
  if (n > 0) return;
  fclose(t->file);
  t->file = NULL;
}

/* The end of the row at `next`, or of a line without one, as far as it is held; NULL if it is not. */
static char *row_end(const struct table *t) {
  char *const end = t->bytes + t->n;
  int begins = 1, quoted = 0; /* a cell begins here; inside of quotation marks */
  for (char *at = t->next; at < end; at++) {
    if (quoted) {
      quoted = *at != '"' || at[1] == '"';
      at += *at == '"' && at[1] == '"';
    } else if (*at == '\n') {
      return at + 1;
    } else {
      quoted = begins && *at == '"';
      begins = *at == t->separator;
    }
  }
  return t->file ? NULL : end;
}

/* Holds a whole row, or a line without one, at `next`, with a NUL behind it; 0 at the end of the file. */
static int fetch_row(struct table *t) {
  char *end;
  if (t->cut) *t->cut = t->kept;
  while ((end = row_end(t)) == NULL) read_more(t);
  t->cut = end;
  t->kept = *end;
  *end = '\0';
  return end > t->next;
}

/* ------------------------------------------------------------------------------------------------------- rows */

/* Unquotes the text behind a quotation mark where it is. Returns what follows the closing one; *to is the text's end.
 */
static char *unquote(struct table *t, char *at, char **to) {
  for (; *at != '\0'; at++) {
    if (*at == '"' && *++at != '"') return at;
    t->next_line += *at == '\n';
    *(*to)++ = *at;
  }
  bad_data("%s:%zu: a quotation mark is not closed", t->path, t->line);
}

/* Takes one cell. Returns the byte that ended it: a separator, or '\n' or NUL. */
static char next_cell(struct table *t, const char **cell) {
  char *at = t->next, *to = at;
  *cell = to;
  if (*at == '"') {
    at = unquote(t, at + 1, &to);
  } else {
    while (*at != '\0' && *at != t->separator && *at != '\n' && *at != '\r') at++;
    to = at;
  }
  if (at[0] == '\r' && (at[1] == '\n' || at[1] == '\0')) at++;
  const char end = *at;
  if (end != '\0' && end != '\n' && end != t->separator) {
    bad_data("%s:%zu: text after a closing quotation mark, or a carriage return inside a line", t->path, t->line);
  }
  t->next = end == '\0' ? at : at + 1;
  t->next_line += end == '\n';
  *to = '\0';
  return end;
}

/* Goes to the next row, past empty lines; 0 at the end of the file. */
static int begin_row(struct table *t) {
  while (fetch_row(t)) {
    t->line = t->next_line;
    if (t->next[t->next[0] == '\r'] != '\n') return 1;
    t->next = t->cut;
    t->next_line++;
  }
  return 0;
}

static void open_table(struct table *t, const char *path, int is_piecewise) {
  *t = (struct table){.path = path, .file = fopen(path, "rb"), .next_line = 1};
  if (!t->file && errno == ENOENT) bad_data("%s: there is no such file", path);
  if (!t->file) give_up("%s: %s", path, strerror(errno));
  do read_more(t);
  while (t->file && !(is_piecewise && memchr(t->bytes, '\n', t->n)));
  if (strncmp(t->next, "\xef\xbb\xbf", 3) == 0) t->next += 3;
  const size_t first = strcspn(t->next, "\n");
  t->separator = memchr(t->next, '\t', first) ? '\t' : ',';
  if (!begin_row(t)) bad_data("%s: the file is empty; its first line should name the columns", path);
  size_t capacity = 0;
  for (char end = t->separator; end == t->separator; t->n_columns++) {
    const char *name;
    end = next_cell(t, &name);
    t->names = grow(t->names, t->n_columns, &capacity, sizeof *t->names);
    t->names[t->n_columns] = copy_text(name);
  }
  t->cells = get_memory(t->n_columns, sizeof *t->cells);
}

void table_open(struct table *t, const char *path) {
  open_table(t, path, 0);
}

void table_open_piecewise(struct table *t, const char *path) {
  open_table(t, path, 1);
}

int table_next(struct table *t) {
  if (!begin_row(t)) return 0;
  size_t n = 0;
  for (char end = t->separator; end == t->separator; n++) {
    const char *cell;
    end = next_cell(t, &cell);
    if (n < t->n_columns) t->cells[n] = cell;
  }
  if (n != t->n_columns) {
    bad_data("%s:%zu: %zu cells, but the first line names %zu columns", t->path, t->line, n, t->n_columns);
  }
  return 1;
}

void table_free(struct table *t) {
  for (size_t c = 0; c < t->n_columns; c++) free(t->names[c]);
  if (t->file) fclose(t->file);
  free(t->names);
  free(t->cells);
  free(t->bytes);
  *t = (struct table){0};
}

size_t table_column(const struct table *t, const char *name, const char *option) {
  for (size_t c = 0; c < t->n_columns; c++)
    if (strcmp(t->names[c], name) == 0) return c;
  if (!option) return NO_COLUMN;
  char all[160] = "";
  for (size_t c = 0, at = 0; c < t->n_columns && at < sizeof all; c++)
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", c ? ", " : "", t->names[c]);
  bad_data("%s: there is no column \"%s\" among %s; %s NAME tells which one it is", t->path, name, all, option);
}

int is_missing(const char *cell) {
  return cell[0] == '\0' || strcmp(cell, "NA") == 0;
}

uint64_t id_of(const struct table *t, const char *text) {
  char *end;
  errno = 0;
  const unsigned long long number = strtoull(text, &end, 10);
  if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && number < (unsigned long long)1 << 63)
    return number;
  json_t *as_json = json_string(text); /* which refuses what is not UTF-8 */
  if (!as_json) bad_data("%s:%zu: an id is not UTF-8", t->path, t->line);
  json_decref(as_json);
  return (uint64_t)1 << 63 | XXH3_64bits(text, strlen(text)) >> 1;
}
