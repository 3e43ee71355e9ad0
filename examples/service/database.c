/* SPDX-License-Identifier: BSD-3-Clause */
#include "database.h"

#include <string.h>
#include <sys/stat.h>

/* The rowid of a rating is its place in the order of giving, which a correction does not change. */
static const char schema[] =
    "CREATE TABLE about (kind TEXT NOT NULL);"
    "CREATE TABLE users (id INTEGER PRIMARY KEY);"
    "CREATE TABLE items (id INTEGER PRIMARY KEY, title TEXT NOT NULL);"
    "CREATE TABLE ratings (place INTEGER PRIMARY KEY, user INTEGER NOT NULL REFERENCES users,"
    "  item INTEGER NOT NULL REFERENCES items, rating REAL NOT NULL, UNIQUE (user, item));"
    "PRAGMA user_version = 1;";

/* WAL with FULL waits for the disk at every commit; with NORMAL a cut of power may take the last commits. */
static const char settings[] = "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";
static const char journal[] =
    "PRAGMA journal_mode = WAL;"; /* is written into the file, which has to be ours for that */

static const char *const texts[N_STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [LIST] = "SELECT item, rating FROM ratings WHERE user = ?1 ORDER BY place",
    [COUNT] = "SELECT count(*) FROM ratings WHERE user = ?1",
    [COUNT_ALL] = "SELECT count(*) FROM ratings",
    [ADD_USER] = "INSERT OR IGNORE INTO users (id) VALUES (?1)",
    [CORRECT] = "UPDATE ratings SET rating = ?3 WHERE user = ?1 AND item = ?2",
    [ADD] = "INSERT INTO ratings (user, item, rating) VALUES (?1, ?2, ?3)",
    [TAKE_BACK] = "DELETE FROM ratings WHERE user = ?1 AND item = ?2",
    [FORGET] = "DELETE FROM ratings WHERE user = ?1",
    [FORGET_USER] = "DELETE FROM users WHERE id = ?1",
};

int database_fail(struct database *db, struct problem *problem) {
  const int code = sqlite3_errcode(db->connection) & 0xff; /* the rest are details */
  const int is_locked = code == SQLITE_BUSY || code == SQLITE_LOCKED;
  const char *name = "store_failed";
  if (is_locked) name = "store_locked";
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) name = "store_damaged";
  problem_set(problem, 503, name, "the store cannot be used: %s", sqlite3_errmsg(db->connection));
  if (!is_locked || !sqlite3_get_autocommit(db->connection)) database_close(db);
  return -1;
}

void database_close(struct database *db) {
  for (size_t i = 0; i < N_STATEMENTS; i++) {
    sqlite3_finalize(db->statements[i]);
    db->statements[i] = NULL;
  }
  sqlite3_close(db->connection);
  db->connection = NULL;
}

static int run(struct database *db, const char *text, struct problem *problem) {
  return sqlite3_exec(db->connection, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : database_fail(db, problem);
}

int database_do(struct database *db, enum statement statement, struct problem *problem) {
  sqlite3_stmt *s = db->statements[statement];
  sqlite3_step(s);
  return sqlite3_reset(s) == SQLITE_OK ? 0 : database_fail(db, problem);
}

int database_number(struct database *db, enum statement statement, uint64_t *number, struct problem *problem) {
  sqlite3_stmt *s = db->statements[statement];
  if (sqlite3_step(s) == SQLITE_ROW) *number = (uint64_t)sqlite3_column_int64(s, 0);
  return sqlite3_reset(s) == SQLITE_OK ? 0 : database_fail(db, problem);
}

/* ------------------------------------------------------------------------------------- tables and items */

/* The first value of a query's only row as a text that is compared with what it should be. */
static int is_value(struct database *db, const char *query, const char *expected, int *is, struct problem *problem) {
  sqlite3_stmt *s;
  if (sqlite3_prepare_v2(db->connection, query, -1, &s, NULL) != SQLITE_OK) return database_fail(db, problem);
  const char *value = sqlite3_step(s) == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
  *is = value && strcmp(value, expected) == 0;
  return sqlite3_finalize(s) == SQLITE_OK ? 0 : database_fail(db, problem);
}

static int refuse(struct database *db, const char *what, struct problem *problem) {
  database_close(db);
  return problem_set(problem, 503, "store_foreign", "the store cannot be used: %s", what);
}

/* Writes those items that the database does not have, or has under another title. */
static int put_items(struct database *db, struct problem *problem) {
  const struct world *world = db->world;
  sqlite3_stmt *s;
  if (sqlite3_prepare_v2(db->connection,
                         "INSERT INTO items (id, title) VALUES (?1, ?2)"
                         "  ON CONFLICT (id) DO UPDATE SET title = excluded.title WHERE title <> excluded.title",
                         -1, &s, NULL) != SQLITE_OK) {
    return database_fail(db, problem);
  }
  for (size_t i = 0; i < world->n_items; i++) {
    sqlite3_reset(s);
    sqlite3_bind_int64(s, 1, (sqlite3_int64)world->ids[i]);
    sqlite3_bind_text(s, 2, world->titles[i], -1, SQLITE_STATIC);
    if (sqlite3_step(s) != SQLITE_DONE) break;
  }
  return sqlite3_finalize(s) == SQLITE_OK ? 0 : database_fail(db, problem); /* what the last step had */
}

/* Makes the tables in an empty database; looks whether they are ours in another one. */
static int put_tables(struct database *db, struct problem *problem) {
  sqlite3_stmt *s;
  int is_new, is_empty, is_ours;
  if (is_value(db, "PRAGMA user_version", "0", &is_new, problem)) return -1;
  if (is_new) {
    if (is_value(db, "SELECT count(*) FROM sqlite_master", "0", &is_empty, problem)) return -1;
    if (!is_empty) return refuse(db, "it is a database of something else", problem);
    if (run(db, schema, problem)) return -1;
    if (sqlite3_prepare_v2(db->connection, "INSERT INTO about (kind) VALUES (?1)", -1, &s, NULL) != SQLITE_OK) {
      return database_fail(db, problem);
    }
    sqlite3_bind_text(s, 1, db->world->kind, -1, SQLITE_STATIC);
    sqlite3_step(s);
    return sqlite3_finalize(s) == SQLITE_OK ? 0 : database_fail(db, problem);
  }
  if (is_value(db, "PRAGMA user_version", "1", &is_ours, problem)) return -1;
  if (!is_ours) return refuse(db, "its tables are of another version", problem);
  if (is_value(db, "SELECT kind FROM about", db->world->kind, &is_ours, problem)) return -1;
  return is_ours ? 0 : refuse(db, "it is for other items than these", problem);
}

static int prepare_to_write(struct database *db, struct problem *problem) {
  if (run(db, settings, problem) || run(db, texts[BEGIN], problem)) return -1;
  if (put_tables(db, problem) || put_items(db, problem) || run(db, texts[COMMIT], problem)) return -1;
  return run(db, journal, problem);
}

/* ------------------------------------------------------------------------------------------------ opening */

static int is_same_file(const struct database *db) {
  struct stat now;
  return stat(db->path, &now) == 0 && now.st_dev == db->device && now.st_ino == db->file;
}

static int open_connection(struct database *db, struct problem *problem) {
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (db->may_create ? SQLITE_OPEN_CREATE : 0);
  struct stat file;
  if (sqlite3_open_v2(db->path, &db->connection, flags, NULL) != SQLITE_OK) return database_fail(db, problem);
  sqlite3_busy_timeout(db->connection, db->busy_milliseconds);
  if (db->world ? prepare_to_write(db, problem) : run(db, "PRAGMA query_only = ON", problem)) return -1;
  for (size_t i = 0; i < N_STATEMENTS; i++) {
    if (sqlite3_prepare_v2(db->connection, texts[i], -1, &db->statements[i], NULL) != SQLITE_OK) {
      return database_fail(db, problem);
    }
  }
  if (stat(db->path, &file) != 0) return refuse(db, "its file is gone", problem);
  db->device = file.st_dev;
  db->file = file.st_ino;
  db->may_create = 0;
  return 0;
}

int database_open(struct database *db, int *opened, struct problem *problem) {
  if (db->connection && is_same_file(db)) return 0;
  database_close(db);
  if (open_connection(db, problem)) {
    database_close(db); /* one that was locked half way, too */
    return -1;
  }
  if (opened) *opened = 1;
  return 0;
}
