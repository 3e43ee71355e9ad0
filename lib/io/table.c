/* SPDX-License-Identifier: BSD-3-Clause */
#include <melu.h>

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "data/dataset.h"
#include "io/text_file.h"

#define MAX_COLUMNS ((size_t)65536)
#define MAX_ID (((uint64_t)1 << 63) - 1)

/* What a column may be for: the id and the fields of an entity, or the three parts of a rating. */
#define MAX_ROLES (1 + MELU__MAX_FIELDS)
enum { ROLE_ID = 0, ROLE_FIELDS = 1 };
enum { ROLE_USER = 0, ROLE_ITEM = 1, ROLE_RATING = 2 };

struct reader {
  melu_dataset *data;
  const struct melu_allocator *allocator;
  struct melu_table_options options;
  struct melu__text text;
  struct melu__rows rows;
  size_t n_columns;
  struct melu__slice *cells; /* of one row: n_columns */
  size_t n_roles;
  const char *role_name[MAX_ROLES];
  size_t role_column[MAX_ROLES];

  /* Of users and items: the fields, and the values of one row. */
  melu_owner owner;
  const struct melu__field *fields[MELU__MAX_FIELDS + 1]; /* a NULL ends them */
  struct melu_value values[MELU__MAX_FIELDS];
  size_t first_id[MELU__MAX_FIELDS]; /* `ids` moves as it grows: where in it the field's own begin */
  uint32_t *ids;
  size_t n_ids, ids_capacity;
  float *numbers; /* the widths of all numeric fields together */
};

static const char *owner_name(melu_owner owner) {
  return owner == MELU_USER ? "user" : "item";
}

static struct melu__slice cell_of(const struct reader *r, size_t role) {
  return r->cells[r->role_column[role]];
}

static int is_missing(struct melu__slice cell) {
  return cell.n == 0 || melu__text_is(cell, "NA");
}

/* Fails, through the caller's `err`, with the line of the row. */
#define FAIL(r, status, ...) melu__text_fail(err, (status), &(r)->text, (r)->rows.row_line, __VA_ARGS__)

/* ------------------------------------------------------------------------------------------------------- header */

static int is_skipped(const struct reader *r, struct melu__slice name) {
  for (size_t i = 0; i < r->options.n_skip; i++) {
    if (melu__text_is(name, r->options.skip[i])) return 1;
  }
  return 0;
}

/* Finds the column of every role; a column may have several, e.g. an id that is a field as well. */
static melu_status match_columns(struct reader *r, melu_error *err) {
  for (size_t c = 0; c < r->n_columns; c++) {
    int used = is_skipped(r, r->cells[c]);
    for (size_t k = 0; k < r->n_roles && !used; k++) used = melu__text_is(r->cells[c], r->role_name[k]);
    if (!used) return FAIL(r, MELU_EFORMAT, "unknown column \"%s\"", melu__show(r->cells[c]).text);
  }
  for (size_t k = 0; k < r->n_roles; k++) {
    size_t n_found = 0;
    for (size_t c = r->n_columns; c-- > 0;) {
      if (!melu__text_is(r->cells[c], r->role_name[k])) continue;
      r->role_column[k] = c;
      n_found++;
    }
    if (n_found == 0) return FAIL(r, MELU_EFORMAT, "there is no column \"%s\"", r->role_name[k]);
    if (n_found > 1) return FAIL(r, MELU_EFORMAT, "%zu columns are called \"%s\"", n_found, r->role_name[k]);
  }
  return MELU_OK;
}

static melu_status read_header(struct reader *r, melu_error *err) {
  const char *end = memchr(r->text.bytes, '\n', r->text.n);
  const size_t n_first = end ? (size_t)(end - r->text.bytes) : r->text.n;
  char separator = r->options.separator;
  if (separator == 0) separator = memchr(r->text.bytes, '\t', n_first) ? '\t' : ',';
  r->rows = (struct melu__rows){.text = &r->text, .separator = separator, .line = 1};
  /* Counting leaves the text as it is, so the row can be read again into as many cells. */
  const struct melu__rows start = r->rows;
  melu_status status = melu__rows_next(&r->rows, NULL, 0, &r->n_columns, err);
  if (status != MELU_OK) return status;
  if (r->n_columns == 0) {
    return melu__text_fail(err, MELU_EFORMAT, &r->text, 1, "the file is empty; its first line should name the columns");
  }
  if (r->n_columns > MAX_COLUMNS) return FAIL(r, MELU_ELIMIT, "more than %zu columns", MAX_COLUMNS);
  r->cells = melu__alloc(r->allocator, r->n_columns, sizeof *r->cells);
  if (!r->cells) return melu__fail_memory(err);
  r->rows = start;
  (void)melu__rows_next(&r->rows, r->cells, r->n_columns, &r->n_columns, NULL);
  return match_columns(r, err);
}

/* --------------------------------------------------------------------------------------------- users and items */

/* The id that a cell, or an entry of a list, gives. */
static melu_status read_value_id(uint32_t *out, struct reader *r, size_t f, struct melu__slice cell, melu_error *err) {
  const struct melu__field *field = r->fields[f];
  if (is_missing(cell)) return FAIL(r, MELU_EFORMAT, "field \"%s\": an entry of the list is missing", field->name);
  if (field->texts) {
    melu_error why;
    const melu_status status = melu__dataset_text_id(out, r->data, r->owner, f, cell.at, cell.n, &why);
    return status == MELU_OK ? MELU_OK : FAIL(r, status, "%s", why.message);
  }
  uint64_t id;
  if (!melu__parse_whole(&id, cell, UINT64_MAX)) {
    return FAIL(r, MELU_EFORMAT, "field \"%s\": \"%s\" is not an id", field->name, melu__show(cell).text);
  }
  if (id >= field->n_values) {
    return FAIL(r, MELU_ERANGE, "field \"%s\": id %" PRIu64 " is not below %zu", field->name, id, field->n_values);
  }
  *out = (uint32_t)id;
  return MELU_OK;
}

static melu_status read_ids(struct reader *r, size_t f, struct melu__slice cell, melu_error *err) {
  const struct melu__field *field = r->fields[f];
  r->first_id[f] = r->n_ids;
  for (int more = 1; more;) {
    struct melu__slice part = cell;
    if (melu__kinds[field->kind].is_list) {
      melu__text_part(&part, &cell, &r->options.list_separator, 1, &more);
    } else {
      more = 0;
    }
    if (!melu__grow(r->allocator, &r->ids, &r->ids_capacity, r->n_ids, r->n_ids + 1, sizeof *r->ids)) {
      return melu__fail_memory(err);
    }
    const melu_status status = read_value_id(&r->ids[r->n_ids], r, f, part, err);
    if (status != MELU_OK) return status;
    r->n_ids++;
  }
  r->values[f].n_ids = r->n_ids - r->first_id[f];
  return MELU_OK;
}

/* `to` has room for the field's width. */
static melu_status read_numbers(struct reader *r, size_t f, struct melu__slice cell, float *to, melu_error *err) {
  const struct melu__field *field = r->fields[f];
  size_t n = 0;
  for (int more = 1; more; n++) {
    struct melu__slice part = cell;
    if (field->width > 1) {
      melu__text_part(&part, &cell, &r->options.list_separator, 1, &more);
    } else {
      more = 0;
    }
    if (n == field->width) return FAIL(r, MELU_EFORMAT, "field \"%s\": more than %zu numbers", field->name, n);
    const melu_status status = melu__parse_float(&to[n], part);
    if (status != MELU_OK) {
      return FAIL(r, status, "field \"%s\": \"%s\" is not %s", field->name, melu__show(part).text,
                  status == MELU_ERANGE ? "finite" : "a number");
    }
  }
  if (n < field->width) {
    return FAIL(r, MELU_EFORMAT, "field \"%s\": %zu numbers, not %zu", field->name, n, field->width);
  }
  r->values[f].numbers = to;
  r->values[f].n_numbers = n;
  return MELU_OK;
}

static melu_status read_values(struct reader *r, melu_error *err) {
  const size_t n_fields = r->n_roles - ROLE_FIELDS;
  memset(r->values, 0, n_fields * sizeof *r->values);
  r->n_ids = 0;
  float *to = r->numbers;
  for (size_t f = 0; f < n_fields; f++) {
    const struct melu__slice cell = cell_of(r, ROLE_FIELDS + f);
    const int numeric = melu__has_numbers(r->fields[f]);
    melu_status status = MELU_OK;
    if (!is_missing(cell)) status = numeric ? read_numbers(r, f, cell, to, err) : read_ids(r, f, cell, err);
    if (status != MELU_OK) return status;
    if (numeric) to += r->fields[f]->width;
  }
  for (size_t f = 0; f < n_fields; f++) {
    if (r->values[f].n_ids > 0) r->values[f].ids = r->ids + r->first_id[f];
  }
  return MELU_OK;
}

static melu_status add_entity(struct reader *r, melu_error *err) {
  const struct melu__slice cell = cell_of(r, ROLE_ID);
  if (is_missing(cell)) return FAIL(r, MELU_EFORMAT, "the %s has no id", owner_name(r->owner));
  melu_status status = read_values(r, err);
  if (status != MELU_OK) return status;
  uint64_t id;
  melu_error why;
  if (!melu__parse_whole(&id, cell, MAX_ID)) {
    status = melu__dataset_key_id(&id, r->data, cell.at, cell.n, &why);
    if (status != MELU_OK) return FAIL(r, status, "%s", why.message);
  }
  status = r->owner == MELU_USER ? melu_dataset_add_user(r->data, id, r->values, NULL, &why)
                                 : melu_dataset_add_item(r->data, id, r->values, NULL, &why);
  if (status == MELU_OK) return MELU_OK;
  if (status == MELU_ESTATE) {
    return FAIL(r, status, "%s \"%s\" is already there", owner_name(r->owner), melu__show(cell).text);
  }
  return FAIL(r, status, "%s", why.message);
}

/* ------------------------------------------------------------------------------------------------------ ratings */

static melu_status read_known_id(uint64_t *out, struct reader *r, melu_owner owner, melu_error *err) {
  const struct melu__slice cell = cell_of(r, owner == MELU_USER ? ROLE_USER : ROLE_ITEM);
  int known = melu__parse_whole(out, cell, MAX_ID);
  if (!known) {
    const uint32_t text = melu__vocab_find(r->data->key_texts, cell.at, cell.n);
    known = text != MELU__NO_INDEX;
    *out = MAX_ID + 1 + text;
  }
  if (known && melu__table_find(&r->data->tables[owner], *out) != MELU__NO_INDEX) return MELU_OK;
  return FAIL(r, MELU_ENOTFOUND, "there is no %s \"%s\"", owner_name(owner), melu__show(cell).text);
}

static melu_status add_rating(struct reader *r, melu_error *err) {
  uint64_t user, item;
  melu_status status = read_known_id(&user, r, MELU_USER, err);
  if (status == MELU_OK) status = read_known_id(&item, r, MELU_ITEM, err);
  if (status != MELU_OK) return status;
  const struct melu__slice cell = cell_of(r, ROLE_RATING);
  if (is_missing(cell)) return FAIL(r, MELU_EFORMAT, "the rating is missing");
  float rating;
  status = melu__parse_float(&rating, cell);
  if (status != MELU_OK) {
    return FAIL(r, status, "rating \"%s\" is not %s", melu__show(cell).text,
                status == MELU_ERANGE ? "finite" : "a number");
  }
  melu_error why;
  status = melu_dataset_add_rating(r->data, user, item, rating, &why);
  return status == MELU_OK ? MELU_OK : FAIL(r, status, "%s", why.message);
}

/* ------------------------------------------------------------------------------------------------ reading a file */

/* True for a character that can stand between cells or entries. */
static int is_separator(char c) {
  return c == '\t' || (c >= ' ' && c <= '~' && c != '"');
}

static melu_status check_options(const struct melu_table_options *options, melu_error *err) {
  if (options->separator != 0 && !is_separator(options->separator)) {
    return melu__fail(err, MELU_EINVAL, "separator is no printable ASCII character");
  }
  if (!is_separator(options->list_separator)) {
    return melu__fail(err, MELU_EINVAL, "list_separator is no printable ASCII character");
  }
  if (options->n_skip > 0 && !options->skip) return melu__fail(err, MELU_EINVAL, "skip is NULL");
  for (size_t i = 0; i < options->n_skip; i++) {
    if (!options->skip[i]) return melu__fail_at(err, MELU_EINVAL, i, "skip[%zu] is NULL", i);
  }
  return MELU_OK;
}

/* The roles of the columns of users and items, and room for the numbers of one row. */
static melu_status set_entity_roles(struct reader *r, melu_error *err) {
  const melu_schema *schema = r->data->schema;
  size_t n_numbers = 0;
  r->role_name[ROLE_ID] = r->options.id ? r->options.id : owner_name(r->owner);
  r->n_roles = ROLE_FIELDS;
  for (size_t f = 0; (r->fields[f] = melu__schema_owner_field(schema, r->owner, f)) != NULL; f++) {
    if (melu__has_numbers(r->fields[f])) n_numbers += r->fields[f]->width;
    r->role_name[r->n_roles++] = r->fields[f]->name;
  }
  r->numbers = melu__alloc(r->allocator, n_numbers, sizeof *r->numbers);
  return r->numbers ? MELU_OK : melu__fail_memory(err);
}

static void set_rating_roles(struct reader *r) {
  r->role_name[ROLE_USER] = r->options.user ? r->options.user : "user";
  r->role_name[ROLE_ITEM] = r->options.item ? r->options.item : "item";
  r->role_name[ROLE_RATING] = r->options.rating ? r->options.rating : "rating";
  r->n_roles = 3;
}

static melu_status read_rows(struct reader *r, melu_status (*add)(struct reader *r, melu_error *err), melu_error *err) {
  const size_t step = (size_t)1 << 18; /* bytes between two calls of the progress callback */
  size_t next = 0;
  for (size_t n_cells = 1;;) {
    if (r->rows.at >= next || n_cells == 0) {
      const struct melu_progress progress = {.phase = "read", .done = r->rows.at, .total = r->text.n};
      const melu_status status = melu__progress(r->data->ctx, &progress, err);
      if (status != MELU_OK || n_cells == 0) return status;
      next = r->rows.at + step;
    }
    melu_status status = melu__rows_next(&r->rows, r->cells, r->n_columns, &n_cells, err);
    if (status != MELU_OK) return status;
    if (n_cells == 0) continue;
    if (n_cells != r->n_columns) {
      return FAIL(r, MELU_EFORMAT, "%zu cells, but the first line names %zu columns", n_cells, r->n_columns);
    }
    status = add(r, err);
    if (status != MELU_OK) return status;
  }
}

static melu_status read_table(struct reader *r, const char *path, melu_status (*add)(struct reader *r, melu_error *err),
                              melu_error *err) {
  const struct melu_progress start = {.phase = "read"};
  for (size_t k = 0; k < r->n_roles; k++) {
    const char *name = r->role_name[k];
    if (is_skipped(r, (struct melu__slice){name, strlen(name)})) {
      return melu__fail(err, MELU_EINVAL, "skip names the column \"%.64s\", which is needed", name);
    }
  }
  melu_status status = melu__text_read(&r->text, r->data->ctx, path, 0, &start, err);
  if (status == MELU_OK) status = read_header(r, err);
  if (status != MELU_OK) return status;
  struct melu__mark mark;
  melu__dataset_mark(r->data, &mark);
  status = read_rows(r, add, err);
  if (status != MELU_OK) melu__dataset_rewind(r->data, &mark);
  return status;
}

/* Checks the arguments and fills a reader. */
static melu_status open_reader(struct reader *r, melu_dataset *data, const char *path, const void *options,
                               melu_error *err) {
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  if (!path) return melu__fail(err, MELU_EINVAL, "path is NULL");
  memset(r, 0, sizeof *r);
  melu_status status = melu__options(&r->options, sizeof r->options, options, "melu_table_options", err);
  if (status != MELU_OK) return status;
  if (r->options.list_separator == 0) r->options.list_separator = '|';
  status = check_options(&r->options, err);
  if (status != MELU_OK) return status;
  if (data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is frozen");
  r->data = data;
  r->allocator = &data->ctx->allocator;
  return MELU_OK;
}

static void close_reader(struct reader *r) {
  melu__text_free(&r->text);
  melu__free(r->allocator, r->cells);
  melu__free(r->allocator, r->ids);
  melu__free(r->allocator, r->numbers);
}

static melu_status read_entities(melu_dataset *data, melu_owner owner, const char *path,
                                 const struct melu_table_options *options, melu_error *err) {
  struct reader r;
  melu_status status = open_reader(&r, data, path, options, err);
  if (status != MELU_OK) return status;
  r.owner = owner;
  status = set_entity_roles(&r, err);
  if (status == MELU_OK) status = read_table(&r, path, add_entity, err);
  close_reader(&r);
  return status;
}

melu_status melu_dataset_read_users(melu_dataset *data, const char *path, const struct melu_table_options *options,
                                    melu_error *err) {
  return read_entities(data, MELU_USER, path, options, err);
}

melu_status melu_dataset_read_items(melu_dataset *data, const char *path, const struct melu_table_options *options,
                                    melu_error *err) {
  return read_entities(data, MELU_ITEM, path, options, err);
}

melu_status melu_dataset_read_ratings(melu_dataset *data, const char *path, const struct melu_table_options *options,
                                      melu_error *err) {
  struct reader r;
  melu_status status = open_reader(&r, data, path, options, err);
  if (status != MELU_OK) return status;
  set_rating_roles(&r);
  status = read_table(&r, path, add_rating, err);
  close_reader(&r);
  return status;
}
