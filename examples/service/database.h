/* SPDX-License-Identifier: BSD-3-Clause */
/* One connection to the SQLite database, for one thread at a time: opened when it is needed, and closed when something
 * is wrong with it. Failures are 503. */
#ifndef SERVICE_DATABASE_H
#define SERVICE_DATABASE_H

#include <sqlite3.h>
#include <sys/types.h>

#include "problem.h"
#include "world.h"

/* What there is to say to the database. The ?1, ?2 ... are bound before. */
enum statement {
  BEGIN,
  COMMIT,
  LIST,      /* of user ?1: item, rating */
  COUNT,     /* of user ?1 */
  COUNT_ALL, /* of everybody */
  ADD_USER,  /* ?1 */
  CORRECT,   /* of user ?1, item ?2: rating ?3 */
  ADD,       /* of user ?1, item ?2: rating ?3 */
  TAKE_BACK, /* of user ?1, item ?2 */
  FORGET,    /* of user ?1, all ratings */
  FORGET_USER,
  N_STATEMENTS
};

struct database {
  const char *path;
  const struct world *world; /* the one who writes puts the tables and the items in order; NULL: reads only */
  int may_create;            /* the file; true until it was open once, so that a lost one is not taken for a new one */
  int busy_milliseconds;     /* how long to wait for another program's lock */
  sqlite3 *connection;       /* NULL: closed */
  sqlite3_stmt *statements[N_STATEMENTS];
  dev_t device; /* which file was opened: */
  ino_t file;   /*   one that was put in its place is another */
};

/* Opens the database if it is not open, or if its name leads to another file by now. *opened, if not NULL, is set if it
 * was. */
int database_open(struct database *db, int *opened, struct problem *problem);
void database_close(struct database *db);

/* Does a statement that has no rows. */
int database_do(struct database *db, enum statement statement, struct problem *problem);

/* Does one that has a number. */
int database_number(struct database *db, enum statement statement, uint64_t *number, struct problem *problem);

/* Describes the connection's last error, and closes it, which undoes an open transaction; unless it was merely locked.
 */
int database_fail(struct database *db, struct problem *problem);

#endif
