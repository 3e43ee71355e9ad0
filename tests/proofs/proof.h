/* SPDX-License-Identifier: BSD-3-Clause */
/* What the proofs share: the verdict, a small world with a folder of its own, and a count of what is asked of malloc.
 */
#ifndef MELU_TESTS_PROOF_H
#define MELU_TESTS_PROOF_H

#include <melu.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Prints the one line by which a proof ends, and ends the program: with 0 and with 1. The figures, or why. */
_Noreturn void proof_held(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void proof_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Of main's arguments: whether the proof is to run in full. Sets the number that the last line names. */
int proof_begin(int number, int argc, char **argv);

/* Runs something in another process, silently: whether it found the proof broken there. For what is planted. */
int proof_notices(void (*run)(void *arg), void *arg);

#define PROOF_NEEDS(condition, ...)              \
  do {                                           \
    if (!(condition)) proof_broken(__VA_ARGS__); \
  } while (0)

/* For what must not fail; a `melu_error err` is in sight. */
#define PROOF_TRY(call)                                                                           \
  do {                                                                                            \
    const melu_status status_ = (call);                                                           \
    PROOF_NEEDS(status_ == MELU_OK, "%s: %s: %s", #call, melu_status_name(status_), err.message); \
  } while (0)

/* The digest of these bytes after those that have the digest `before`; 0: there were none. */
uint64_t proof_digest(uint64_t before, const void *bytes, size_t n);
uint64_t proof_model_digest(const melu_model *model);
uint64_t proof_gradient_digest(const melu_gradient *gradient, const melu_model *model);

/* ---------------------------------------------------------------------------------------------------- memory */

/* With heap.c: all that this process asks malloc and its kin for, whoever asks. `calls` counts requests; `live` and
 * `peak` are bytes. `refuses`, if not NULL, is asked before each, and may refuse it. */
struct proof_heap {
  atomic_size_t calls;
  atomic_llong live, peak;
  int (*refuses)(void);
};
extern struct proof_heap proof_heap;

/* ----------------------------------------------------------------------------------------------------- world */

enum { SCENE_ITEMS = 40, SCENE_USERS = 8, SCENE_RATED = 6, SCENE_MOST = 20 };

/* Items and users were read from the text files of the folder, which is in $TMPDIR or /tmp; items have a name, tags
 * that are texts, and two numbers, users a job, likes and an age. `user` rated the first SCENE_RATED items. */
struct scene {
  char folder[128];
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  melu_workspace *ws;
  melu_user *user;
};

enum scene_table { SCENE_TABLE_ITEMS, SCENE_TABLE_USERS, SCENE_TABLE_RATINGS, SCENE_TABLES };
extern const char *const scene_table_names[SCENE_TABLES];

/* Small networks of both kinds; then the presets "melu" and "best", as they are. */
enum { SCENE_LAYERS, SCENE_FACTORS, SCENE_MELU, SCENE_BEST, SCENE_SETTINGS };
extern const char *const scene_setting_names[SCENE_SETTINGS];

void scene_open(struct scene *s, int setting, const struct melu_allocator *allocator);
void scene_close(struct scene *s);

/* Reads one of the folder's tables, or another file of that kind. */
melu_status scene_read(melu_dataset *data, enum scene_table table, const char *path, melu_error *err);

/* The name of a file in the folder, until the next call. */
const char *scene_path(const struct scene *s, const char *name);

/* ----------------------------------------------------------------------------------------------------- bytes */

struct proof_bytes {
  unsigned char *at; /* of just that size, so that a checker sees who reads beyond it; to be freed */
  size_t n;
};

struct proof_bytes proof_copy(const void *bytes, size_t n);
struct proof_bytes proof_read_file(const char *path);
void proof_write_file(const char *path, const void *bytes, size_t n);
struct proof_bytes scene_model_bytes(const struct scene *s);
struct proof_bytes proof_user_bytes(melu_workspace *ws, const melu_user *user, melu_user_form form);
struct proof_bytes scene_user_bytes(const struct scene *s, melu_user_form form);

#endif
