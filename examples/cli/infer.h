/* SPDX-License-Identifier: BSD-3-Clause */
/* Which fields a table of users or items has, by its header and cells. */
#ifndef CLI_INFER_H
#define CLI_INFER_H

#include <jansson.h>
#include <melu.h>

#include "data.h"

/* What became of a column. */
struct column_plan {
  char *name;
  const char *skipped; /* why it is no field; NULL: it is one */
  struct melu_field field;
};

struct field_plan {
  size_t n_columns;
  struct column_plan *columns;
};

/* What the user said of fields: "NAME=one", "=many", "=numeric" or "=skip", and ":WIDTH" behind it if need be. */
enum { MAX_OVERRIDES = 64 };
struct overrides {
  const struct usage *usage;
  const char *texts[MAX_OVERRIDES]; /* a NULL ends them, if there are fewer */
  int used[MAX_OVERRIDES];
};

void field_plan_free(struct field_plan *plan);

/* The fields of both tables, by melu_owner; those of users are none without a file of them. The column of the ids is
 * skipped, or a field of its own, of items, if id_is_field; the others are
 *
 *   numeric  if all cells are numbers, shifted and scaled to a mean of 0 and a spread of 1,
 *   many     if a cell has a '|',
 *   one      otherwise.
 *
 * Skipped is what says nothing that the id does not say: where all cells are the same, or texts of which no two are the
 * same. What an override says of a column is done. Ends the program if one names no column. */
melu_schema *infer_schema(struct field_plan plans[2], const melu_context *ctx, const struct files *files,
                          int id_is_field, struct overrides *overrides);

/* What became of the columns, as JSON, with what the complete schema has learnt; and as lines under the file's name. */
json_t *plan_json(const struct field_plan *plan, const melu_schema *schema);
void print_columns(const json_t *columns, const char *path);

#endif
