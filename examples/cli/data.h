/* SPDX-License-Identifier: BSD-3-Clause */
/* The data set of a command, from the files that the user names. */
#ifndef CLI_DATA_H
#define CLI_DATA_H

#include <melu.h>

#include "cli.h"
#include "table.h"

struct files {
  const char *items, *users, *ratings; /* NULL: not given */
  const char *item_column, *user_column, *rating_column;
  int user_is_optional; /* ratings without a column of users are those of one person without a name */
};

/* --items, --users, --ratings and the names of their columns, with what the ratings and the users are to this command.
 */
void add_file_options(struct option_list *list, struct files *files, const char *ratings_help, const char *users_help);

/* A frozen data set, and what its items and users are called in the files, by position. */
struct data {
  melu_dataset *set;
  char **items, **users;
};

/* Reads the files. Fields of a schema that learns its vocabularies learn them from what is read; columns that are no
 * fields are ignored. Without a file of users there are those who rated. Ends the program with a message if that fails.
 */
void data_open(struct data *data, const melu_context *ctx, const melu_schema *schema, const struct files *files);
void data_free(struct data *data);

/* The same without ratings, and without those whom the ratings tell of; not frozen. */
void data_open_entities(struct data *data, const melu_context *ctx, const melu_schema *schema,
                        const struct files *files);

/* The ratings of a file, row by row. */
struct rating_rows {
  const struct files *files;
  const melu_dataset *set; /* of the items, and of the users if there is a file of them */
  struct table table;
  size_t item_column, user_column, rating_column; /* user_column: NO_COLUMN if all ratings are one person's */
};

struct rating_row {
  uint64_t user_id, item_id; /* user_id: 0 without a column of users */
  const char *user;          /* until the next row; NULL without a column of users */
  float rating;
};

/* Opens the file; is_piecewise: as table_open_piecewise. */
void rating_rows_open(struct rating_rows *rows, const struct files *files, const melu_dataset *set, int is_piecewise);

/* Takes the next row; 0 if there is none. Ends the program if it names nobody, or an item or user that is not there, or
 * has no number. */
int rating_rows_next(struct rating_row *row, struct rating_rows *rows);
void rating_rows_free(struct rating_rows *rows);

/* Ends the program if a rating is no click: neither 0 nor 1. `path`: where the ratings are from. */
void check_clicks(const melu_dataset *set, const char *path);

/* What a user is called; NULL if she has no name. */
const char *user_name(const struct data *data, uint32_t user);

#endif
