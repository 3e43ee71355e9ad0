/* SPDX-License-Identifier: BSD-3-Clause */
/* Which fields a table of users or items has, by its header and cells. */
#ifndef CLI_INFER_H
#define CLI_INFER_H

#include <melu.h>

#include "cli.h"

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

/* Reads the file once. The column `id` is skipped, or a field of its own if id_is_field; the others are
 *
 *   numeric  if all cells are numbers, shifted and scaled to a mean of 0 and a spread of 1,
 *   many     if a cell has a '|',
 *   one      otherwise.
 *
 * Skipped is what says nothing that the id does not say: where all cells are the same, or texts of which no two are the
 * same. What an override says of a column is done. */
void infer_fields(struct field_plan *plan, const char *path, const char *id, melu_owner owner, int id_is_field,
                  struct overrides *overrides);
void field_plan_free(struct field_plan *plan);

/* Ends the program if an override names no column of either file. */
void check_overrides(const struct overrides *overrides);

/* Appends the plan's fields to a schema. */
void add_fields(melu_schema *schema, const struct field_plan *plan);

#endif
