/* SPDX-License-Identifier: BSD-3-Clause */
/* The data set of a command, from the files that the user names. */
#ifndef CLI_DATA_H
#define CLI_DATA_H

#include <melu.h>

#include "cli.h"

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

/* Ends the program if a rating is no click: neither 0 nor 1. */
void check_clicks(const struct data *data, const struct files *files);

/* What a user is called; NULL if she has no name. */
const char *user_name(const struct data *data, uint32_t user);

#endif
