/* SPDX-License-Identifier: BSD-3-Clause
 *
 * melu.h - recommend to people you know almost nothing about.
 *
 * libmelu meta-learns, over many users, a preference model that a new user's few ratings adapt in microseconds.
 * The method is MeLU (Lee et al., "MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation",
 * KDD 2019), a second-order MAML: an inner loop adapts the decision layers of a small network to one user's
 * ratings (the fast weights), an outer loop trains all parameters, embeddings included, through those inner steps.
 *
 * The life of it all:
 *
 *     melu_context_new(&ctx, NULL, &err);
 *     melu_schema_new(&schema, ctx, &err);              say what fields a user and an item have
 *     melu_schema_add(schema, &field, &err);            ... once per field
 *     melu_dataset_new(&data, ctx, schema, &err);       users, items, ratings
 *     melu_dataset_add_user(data, ...);                 ... or the readers of CSV files
 *     melu_dataset_freeze(data, &err);
 *     melu_model_new(&model, ctx, melu_dataset_schema(data), NULL, &err);
 *     melu_fit(model, data, NULL, &err);                meta-train
 *     melu_user_new(&user, model, &err);
 *     melu_workspace_new(&ws, model, 20, &err);
 *     melu_adapt(user, ws, model, data, NULL, items, ratings, 3, &err);    a stranger's three ratings
 *     melu_predict(scores, ws, model, user, data, candidates, 100, &err);
 *
 * Rules that hold everywhere
 *
 *   Errors.     A function that can fail returns a melu_status: 0 is success, everything else is negative. The last
 *               argument is a caller-owned struct melu_error that receives the details; NULL means "not interested".
 *               On failure every object is as it was before the call, and an object that was to be created is NULL.
 *               A function that returns its answer cannot fail: of NULL, and of what is not there, it says 0 or NULL.
 *   Ownership.  "returns a new X": the caller frees it with melu_X_free. "borrows": the argument must outlive the
 *               object. "copies": the argument may go when the call returns. Nothing takes ownership of an argument.
 *               Every free function accepts NULL.
 *   Options.    An options struct starts with its own size in bytes: set `size` to sizeof the struct and the rest to
 *               zero, and every option has its default. A NULL pointer means the same. Fields are only ever appended.
 *   Threads.    A handle that a function takes as const may be shared by any number of threads; a handle that it takes
 *               as non-const is used by one thread at a time. Handles of different objects are independent.
 *   Manners.    The library never prints, aborts, exits, reads the environment, or touches signals, the locale or the
 *               floating-point state, and it keeps no writable global (but the one-time initialisation of BLIS and of
 *               jansson's hash seed).
 *   Arrays.     All matrices are row-major and dense. Shapes are written (rows, columns).
 */
#ifndef MELU_H
#define MELU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the shared library exports. */
#if defined(MELU_BUILD) && defined(__GNUC__)
#define MELU_API __attribute__((visibility("default")))
#else
#define MELU_API /* nothing, for those who use it */
#endif

/* The version of this header; melu_version tells that of the library. */
#define MELU_VERSION_MAJOR 1
#define MELU_VERSION_MINOR 0
#define MELU_VERSION_PATCH 0

/* An id that is in no vocabulary: it selects the field's unknown row. */
#define MELU_UNKNOWN ((uint32_t)0xffffffffu)

/* "None at all" for an option whose zero means "the default". */
#define MELU_NONE ((size_t)-1)

/* ------------------------------------------------------------------------------------------------- status */

/* What a call came to. Numbers are only ever added. */
typedef enum melu_status {
  MELU_OK = 0,          /* it worked */
  MELU_EINVAL = -1,     /* an argument is NULL, of a wrong size, or contradicts another one */
  MELU_ENOMEM = -2,     /* the allocator returned NULL */
  MELU_EIO = -3,        /* a file operation failed; `sys_errno` says why */
  MELU_EFORMAT = -4,    /* a file or a text is not of the form it should have; `line` says where, if it has lines */
  MELU_ECORRUPT = -5,   /* a file was truncated or altered: its checksum does not match */
  MELU_EVERSION = -6,   /* a file was written by a version that this one cannot read */
  MELU_ESCHEMA = -7,    /* two objects were made for different schemas */
  MELU_ERANGE = -8,     /* an id, index, rating or number is outside its range, or not finite */
  MELU_ENOTFOUND = -9,  /* no user, item, parameter, field or file of that name */
  MELU_ESTATE = -10,    /* the call is not possible at this point of the object's life, e.g. adding to a frozen set */
  MELU_ELIMIT = -11,    /* a size exceeds what the library or the context allows */
  MELU_ECANCELED = -12, /* the progress callback asked to stop */
  MELU_EDIVERGED = -13, /* a loss or a gradient was not finite; the weights are the last good ones */
  MELU_ESYSTEM = -14,   /* the system refused a thread or a lock; `sys_errno` says why */
  MELU_EPEER = -15      /* another rank is gone, or did not answer in time */
} melu_status;

/* Details of a failure, owned by the caller. A successful call leaves it alone. */
struct melu_error {
  melu_status status; /* what the call returned */
  int sys_errno;      /* errno of the failed system call, or 0 */
  uint64_t index;     /* index of the offending element of an array argument, or 0 */
  uint64_t line;      /* 1-based line of the offending text, or 0 */
  char message[232];  /* one sentence, NUL-terminated, in English; names what and where */
};
typedef struct melu_error melu_error;

/* The name of a status: "MELU_EINVAL" and so on; "unknown status" for a number that is none. Never NULL. Since: 1.0 */
MELU_API const char *melu_status_name(melu_status status);

/* The version of the library that is running, as "1.0.0". Since: 1.0 */
MELU_API const char *melu_version(void);

/* ------------------------------------------------------------------------------------------------ context */

typedef struct melu_context melu_context;           /* allocator, threads, callbacks and limits of all others */
typedef struct melu_schema melu_schema;             /* what fields a user and an item have */
typedef struct melu_dataset melu_dataset;           /* users, items and ratings in memory */
typedef struct melu_batch melu_batch;               /* tasks for one meta-gradient */
typedef struct melu_model melu_model;               /* a network, its parameters and the schema that they are for */
typedef struct melu_gradient melu_gradient;         /* the meta-gradient of a batch */
typedef struct melu_optimizer melu_optimizer;       /* outer updates by Adam, AdamW or SGD */
typedef struct melu_workspace melu_workspace;       /* one thread's scratch for adapting and predicting */
typedef struct melu_user melu_user;                 /* a person that a model was adapted to */
typedef struct melu_catalog melu_catalog;           /* items prepared for ranking with one model */
typedef struct melu_shard_writer melu_shard_writer; /* a data set larger than memory in the making */
typedef struct melu_shards melu_shards;             /* such a data set: a folder of files */
typedef struct melu_group melu_group;               /* ranks that are threads of one process */

/* The host's allocator. Both functions may be called from several threads at once. */
struct melu_allocator {
  void *arg;                                 /* what both are given */
  void *(*alloc)(void *arg, size_t n_bytes); /* returns memory aligned for any type, or NULL */
  void (*free)(void *arg, void *memory);     /* is never called with NULL */
};

/* The host's threads. */
struct melu_runner {
  void *arg;        /* what `run` is given */
  size_t n_threads; /* how many tasks may run at the same time */
  /* Calls task(task_arg, index, thread) once for every index in [0, n_tasks) and returns when all are done; `thread` is
   * in [0, n_threads) and no two tasks that run at the same time have the same one. Which thread runs which task is
   * free: results do not depend on it. */
  void (*run)(void *arg, void (*task)(void *task_arg, size_t index, size_t thread), void *task_arg, size_t n_tasks);
};

/* Where a long call stands. */
struct melu_progress {
  const char *phase; /* "read", "write", "fit", "evaluate" or "ask" */
  uint64_t done;     /* units of work: bytes or files read, files written, tasks trained, users evaluated */
  uint64_t total;    /* of so many; 0 if not known */
  uint64_t epoch;    /* of "fit": 1-based */
  uint64_t n_epochs; /* of "fit" */
  double loss;       /* of "fit": mean query loss over the epoch so far */
  double validation; /* of "fit": mean query loss of the users left out, after the last finished epoch; 0 before */
};

/* Called from the thread that made the long call, often enough for a progress line (several times a second where the
 * work allows). Return 0 to go on; anything else ends the call with MELU_ECANCELED. It may not call back into the
 * objects that the long call uses. */
typedef int (*melu_progress_fn)(void *arg, const struct melu_progress *progress);

/* Receives one line of text about something that a maintainer would want to know and that is no error. */
typedef void (*melu_log_fn)(void *arg, const char *line);

/* Options of melu_context_new. */
struct melu_context_options {
  size_t size;
  size_t n_threads;                         /* threads of the library's own pool, the caller's included; 0: 1 */
  const struct melu_allocator *allocator;   /* copied; NULL: malloc and free */
  const struct melu_runner *runner;         /* copied; NULL: the library's own pool of n_threads */
  melu_log_fn log;                          /* NULL: nothing is logged */
  void *log_arg;                            /* what `log` is given */
  melu_progress_fn progress;                /* NULL: no progress, no cancel */
  void *progress_arg;                       /* what `progress` is given */
  const char *kernels;                      /* "avx512", "avx2" or "base"; NULL: the best that this CPU has */
  size_t max_file_bytes;                    /* readers refuse a larger file with MELU_ELIMIT; 0: 4 GiB */
  const struct melu_collective *collective; /* copied; NULL: there is one rank */
  size_t n_slots;                           /* of a training: melu_slot; up to 65,535; 0: 1, or 16 with a collective */
  size_t shard_bytes; /* with more ranks than one, a table that takes more bytes, 12 a number for weights and moments,
                         is sharded: each rank has the rows of its slots. 0: 64 MiB; MELU_NONE: no table is */
};

/* Returns a new context: the allocator, threads, callbacks and limits that all other objects use. It must outlive
 * every object that was made with it. A context is immutable, and any number of threads may use one, but calls that
 * compute in parallel (fit, meta_gradient, evaluate, candidates, choose) take turns on its threads. Errors: MELU_EINVAL
 * (also: kernels that this CPU does not have, more ranks than slots), MELU_ELIMIT (1,024 threads, 65,535 slots),
 * MELU_ENOMEM, MELU_ESYSTEM. Since: 1.0 */
MELU_API melu_status melu_context_new(melu_context **out, const struct melu_context_options *options, melu_error *err);

/* Frees the context, or nothing if it is NULL, and joins its threads. All its objects must be gone. Since: 1.0 */
MELU_API void melu_context_free(melu_context *ctx);

/* One line on the library, the kernels that were chosen and the BLAS it runs on. Belongs to the context. Since: 1.0 */
MELU_API const char *melu_build_info(const melu_context *ctx);

/* -------------------------------------------------------------------------------------------------- ranks */

/* Beyond one process. The *ranks* of a training are processes, on any number of machines, each with a context, a data
 * set of its own users, and a model. They talk through the host's own transport: a table of functions, `melu/mpi.h`
 * having one for MPI and melu_group one for the threads of one process.
 *
 * Every user, and every row of a table, belongs to one of n_slots *slots*, and rank r of R has the slots from
 * n_slots r / R on, up to n_slots (r + 1) / R. Sums go along one tree over slots. So the weights depend on the number
 * of slots, and not on the number of ranks. More slots than will ever be ranks times threads gain nothing.
 *
 * A table is replicated, every rank having all its rows, or *sharded*: its rows, and what training remembers of them,
 * are with the rank that has the slot row mod n_slots, and a batch fetches those that it touches. Which one it is
 * follows from its size (melu_context_options.shard_bytes). Results are the same. A model with sharded tables can be
 * trained, saved, loaded and digested; to serve, load what was saved in a context of one rank. All else that takes such
 * a model fails with MELU_ESTATE.
 *
 * Calls that say "collective" must be made by all ranks, in the same order. If one of them fails on one rank, it ends
 * on all of them with that rank's status and a message that begins with its number, "rank 2: ..."; where a rank is
 * gone, with MELU_EPEER. All other calls are a rank's own. */

/* The slot of the user with that id of the host's: mix64(user_id) mod n_slots (melu_split_order says what mix64 is).
 * 0 if n_slots is 0. Since: 1.0 */
MELU_API size_t melu_slot(uint64_t user_id, size_t n_slots);

/* Bytes to or from another rank. */
struct melu_message {
  void *bytes; /* may be NULL if there are none */
  size_t n;    /* how many */
};

/* Folds what comes from the ranks behind into what came from those before: *into := *into o *from, which is associative
 * and need not commute. */
typedef void (*melu_fold_fn)(void *into, const void *from);

/* The most bytes of a value that is reduced. */
#define MELU_MAX_REDUCE 1024

/* How ranks reach each other. Called from the thread that makes the collective call, one function at a time. Each
 * returns 0, or a status and a message, which the call then ends with, as MELU_EPEER whatever the status was, and no
 * more of them are called; it should fail when a rank is gone or does not come within a time of the host's choosing,
 * and see to it that those of the other ranks fail, too. Messages may be empty. With one rank no function is called.
 * All machines must have the same byte order. */
struct melu_collective {
  size_t size;
  void *arg;        /* what the functions are called with */
  uint32_t rank;    /* this one, from 0 */
  uint32_t n_ranks; /* how many there are */
  /* all[r] receives what rank r has in all[r]: counts[r] bytes, one after another. `counts`: (n_ranks), the same on all
   * ranks; one's own part is there already. */
  melu_status (*all_gather)(void *arg, void *all, const size_t *counts, melu_error *err);
  /* Sends out[r] to rank r, and receives what rank r sends here in in[r]: `n` is how many bytes there is room for, and
   * becomes how many came; more are an error. What is for oneself stays. `out` and `in`: (n_ranks), and what they point
   * to, stay where they are until the end, and may be touched again after it. This need not wait for anybody. */
  melu_status (*all_to_all_begin)(void *arg, const struct melu_message *out, struct melu_message *in, melu_error *err);
  /* Returns when what was begun has been sent and received. */
  melu_status (*all_to_all_end)(void *arg, melu_error *err);
  /* Replaces `value`, of n bytes, up to MELU_MAX_REDUCE, by the fold of all ranks' values in their order, on all. */
  melu_status (*reduce)(void *arg, void *value, size_t n, melu_fold_fn fold, melu_error *err);
  /* Returns when all ranks have called it. */
  melu_status (*barrier)(void *arg, melu_error *err);
};

/* Ranks that are threads of one process: to try things, and for machines whose memory is divided. */
struct melu_group_options {
  size_t size;
  const struct melu_allocator *allocator; /* copied; NULL: malloc and free */
  double time_limit;                      /* seconds that a rank waits for another one; 0: 60 */
};

/* Returns a new group of n_ranks members. Errors: MELU_EINVAL, MELU_ELIMIT (64 ranks), MELU_ENOMEM, MELU_ESYSTEM.
 * Since: 1.0 */
MELU_API melu_status melu_group_new(melu_group **out, size_t n_ranks, const struct melu_group_options *options,
                                    melu_error *err);

/* Frees the group. No thread may be in a collective call. Since: 1.0 */
MELU_API void melu_group_free(melu_group *group);

/* Describes one member for the context of its thread; set collective->size before. It borrows the group. Who waits
 * does not compute. Errors: MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_group_member(struct melu_collective *collective, melu_group *group, size_t rank,
                                       melu_error *err);

/* Says that the member will make no more collective calls: those that the others are in, or make after it, end with
 * MELU_EPEER at once. May be called at any time from any thread. Since: 1.0 */
MELU_API void melu_group_leave(melu_group *group, size_t rank);

/* ------------------------------------------------------------------------------------------------- schema */

/* Whom a field describes. */
typedef enum melu_owner {
  MELU_USER = 0, /* who rates */
  MELU_ITEM = 1  /* what is rated */
} melu_owner;

/* What values a field has. */
typedef enum melu_field_kind {
  MELU_ONE = 0,    /* at most one id of a vocabulary: the row of that id */
  MELU_MANY = 1,   /* a list of ids: the mean of their rows */
  MELU_NUMERIC = 2 /* numbers, used as they are after (x - shift) * scale */
} melu_field_kind;

/* What a user or an item is described by. A field of ids has an embedding table of (n_values + 1, width): row i is
 * that of id i, and the last row is that of every unknown id. A field without a value contributes zeros. */
struct melu_field {
  size_t size;
  const char *name;     /* unique in the schema; letters, digits, '_', '-'; up to 63 */
  melu_owner owner;     /* whether users or items have it */
  melu_field_kind kind; /* what a value of it is */
  size_t n_values;      /* ids are 0 .. n_values - 1. 0: the vocabulary is learnt from the texts that a data set reads.
                           Not used by MELU_NUMERIC */
  size_t width;         /* columns of the table, or numbers of a MELU_NUMERIC field; 0: 32, or 1 */
  double shift;         /* MELU_NUMERIC: (x - shift) * scale enters the network */
  double scale;         /* 0: 1 */
};

/* Returns a new, empty schema. Errors: MELU_EINVAL, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_schema_new(melu_schema **out, const melu_context *ctx, melu_error *err);

/* Frees a schema that melu_schema_new returned, or nothing if it is NULL. Since: 1.0 */
MELU_API void melu_schema_free(melu_schema *schema);

/* Appends a field; `field` is copied. The network's input is the item's fields, then the user's, each in the order of
 * adding. Errors: MELU_EINVAL (name, owner, kind, shift or scale), MELU_ELIMIT (2^31 rows, 4,096 columns, 256 fields),
 * MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_schema_add(melu_schema *schema, const struct melu_field *field, melu_error *err);

/* How many fields that owner has. Since: 1.0 */
MELU_API size_t melu_schema_n_fields(const melu_schema *schema, melu_owner owner);

/* Describes the field with that index, from 0, among the owner's; set field->size before. `name` belongs to the schema;
 * n_values is 0 while the vocabulary is being learnt. Errors: MELU_EINVAL, MELU_ERANGE (no such index). Since: 1.0 */
MELU_API melu_status melu_schema_field(struct melu_field *field, const melu_schema *schema, melu_owner owner,
                                       size_t index, melu_error *err);

/* The id of a text in a field's vocabulary; MELU_UNKNOWN if it is not in it, or there is no such field, or the field
 * has no texts. Since: 1.0 */
MELU_API uint32_t melu_schema_value_id(const melu_schema *schema, const char *field, const char *text);

/* The text of an id in a field's vocabulary; NULL if there is none. Belongs to the schema. Since: 1.0 */
MELU_API const char *melu_schema_value_text(const melu_schema *schema, const char *field, uint32_t id);

/* ------------------------------------------------------------------------------------------------ dataset */

/* The value of one field of one user or item. Zeros mean "missing". The arrays are read during the call only. */
struct melu_value {
  const uint32_t *ids;  /* MELU_ONE: 0 or 1; MELU_MANY: any number; an id >= n_values must be MELU_UNKNOWN */
  size_t n_ids;         /* how many */
  const float *numbers; /* MELU_NUMERIC: 0 or `width` finite numbers */
  size_t n_numbers;     /* how many */
};

/* Returns a new, empty data set. Copies the schema. Errors: MELU_EINVAL, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_dataset_new(melu_dataset **out, const melu_context *ctx, const melu_schema *schema,
                                      melu_error *err);

/* Frees the data set, or nothing if it is NULL. Since: 1.0 */
MELU_API void melu_dataset_free(melu_dataset *data);

/* Appends a user. `id` is the host's own and must be new; `values` has one entry per user field, in the schema's order,
 * or is NULL when all are missing; it is copied. `index`, if not NULL, receives her 0-based position, by which
 * everything else refers to her. Errors: MELU_EINVAL, MELU_ERANGE (an id or a number of a value), MELU_ESTATE (frozen,
 * or id taken), MELU_ELIMIT (2^32 - 2 users), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_dataset_add_user(melu_dataset *data, uint64_t id, const struct melu_value *values,
                                           uint32_t *index, melu_error *err);

/* Appends an item: as melu_dataset_add_user, with one value per item field. Errors: as of melu_dataset_add_user.
 * Since: 1.0 */
MELU_API melu_status melu_dataset_add_item(melu_dataset *data, uint64_t id, const struct melu_value *values,
                                           uint32_t *index, melu_error *err);

/* Appends a rating of a known item by a known user, both by the host's ids. Ratings of one user keep the order in which
 * they were added; the same item may come twice. Errors: MELU_EINVAL, MELU_ENOTFOUND (user or item), MELU_ERANGE
 * (rating not finite), MELU_ESTATE (frozen), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_dataset_add_rating(melu_dataset *data, uint64_t user_id, uint64_t item_id, float rating,
                                             melu_error *err);

/* Ends the adding: sorts ratings by user, closes vocabularies. From here the set is const for all threads. Errors:
 * MELU_EINVAL, MELU_ESTATE (frozen already), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_dataset_freeze(melu_dataset *data, melu_error *err);

/* The data set's copy of the schema; vocabularies are complete once the set is frozen. Belongs to the set.
 * Since: 1.0 */
MELU_API const melu_schema *melu_dataset_schema(const melu_dataset *data);

/* How many users there are: their positions are below it. Since: 1.0 */
MELU_API size_t melu_dataset_n_users(const melu_dataset *data);

/* How many items there are: their positions are below it. Since: 1.0 */
MELU_API size_t melu_dataset_n_items(const melu_dataset *data);

/* How many ratings there are, of all users. Since: 1.0 */
MELU_API size_t melu_dataset_n_ratings(const melu_dataset *data);

/* The host's id of the user at a position; 0 if the position is out of range. Since: 1.0 */
MELU_API uint64_t melu_dataset_user_id(const melu_dataset *data, uint32_t user);

/* The host's id of the item at a position; 0 if the position is out of range. Since: 1.0 */
MELU_API uint64_t melu_dataset_item_id(const melu_dataset *data, uint32_t item);

/* The position of the user with that id of the host's. Errors: MELU_ENOTFOUND, MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_dataset_find_user(uint32_t *out, const melu_dataset *data, uint64_t id, melu_error *err);

/* The position of the item with that id of the host's. Errors: MELU_ENOTFOUND, MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_dataset_find_item(uint32_t *out, const melu_dataset *data, uint64_t id, melu_error *err);

/* The ratings of a user of a frozen set: *items (positions) and *ratings, if not NULL, receive arrays of the returned
 * length, in the order of adding; they belong to the set. 0 if there are none, the set is not frozen, or the user is
 * out of range. Since: 1.0 */
MELU_API size_t melu_dataset_ratings(const melu_dataset *data, uint32_t user, const uint32_t **items,
                                     const float **ratings);

/* Writes the profile of the user at a position, one value per user field, in the schema's order; the arrays they point
 * to belong to the set and stay where they are once it is frozen; those of an open set must not be given back to it.
 * Errors: MELU_EINVAL, MELU_ERANGE (no such position). Since: 1.0 */
MELU_API melu_status melu_dataset_user_values(struct melu_value *values, const melu_dataset *data, uint32_t user,
                                              melu_error *err);

/* Writes the values of the item at a position, one per item field, as melu_dataset_user_values does for users. Errors:
 * MELU_EINVAL, MELU_ERANGE (no such position). Since: 1.0 */
MELU_API melu_status melu_dataset_item_values(struct melu_value *values, const melu_dataset *data, uint32_t item,
                                              melu_error *err);

/* How a table of text is read. The first line names the columns: the id, and one for every field of the owner, in any
 * order. Cells may be quoted as in RFC 4180; lines end with LF or CRLF, the last one may lack it; empty lines are
 * skipped. The text is UTF-8.
 *
 * An id is a whole number below 2^63; any other text stands for an id of its own, the same in all three files of a data
 * set (2^63 + its order of first appearance; do not mix with ids of your own from 2^63 on). An empty cell and "NA" are
 * missing values. In a field that learns its vocabulary new texts are added, in a closed one they are unknown; in a
 * field with n_values given the cells are ids. */
struct melu_table_options {
  size_t size;
  char separator;          /* 0: a tab if the first line has one, else a comma */
  char list_separator;     /* between the ids of a MELU_MANY field; 0: '|' */
  const char *id;          /* column of the host's id; NULL: "user" or "item" */
  const char *user;        /* read_ratings: column of the user's id; NULL: "user" */
  const char *item;        /* read_ratings: column of the item's id; NULL: "item" */
  const char *rating;      /* read_ratings: column of the rating; NULL: "rating" */
  const char *const *skip; /* names of columns to ignore; every other unknown column is an error */
  size_t n_skip;           /* how many */
};

/* Reads a table of users, one a line, and appends them. Calls the progress callback. Nothing is added if a line is
 * refused. Errors, with file and line: MELU_EFORMAT, MELU_ERANGE, MELU_ESTATE (frozen, or a user is already there),
 * MELU_ELIMIT, MELU_EIO, MELU_ENOTFOUND (no such file); MELU_EINVAL, MELU_ECANCELED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_dataset_read_users(melu_dataset *data, const char *path,
                                             const struct melu_table_options *options, melu_error *err);

/* Reads a table of items, as melu_dataset_read_users reads users. Errors: as of melu_dataset_read_users. Since: 1.0 */
MELU_API melu_status melu_dataset_read_items(melu_dataset *data, const char *path,
                                             const struct melu_table_options *options, melu_error *err);

/* Reads a table of ratings, one a line, of users and items that are there, and appends them, as melu_dataset_read_users
 * does. Errors: as of melu_dataset_read_users; MELU_ENOTFOUND (also: no such user or item). Since: 1.0 */
MELU_API melu_status melu_dataset_read_ratings(melu_dataset *data, const char *path,
                                               const struct melu_table_options *options, melu_error *err);

/* Appends to an empty schema the eight fields of the paper, with the vocabularies that the folder of the MeLU reference
 * code has in m_*.txt: "rate", "genre", "director", "actor" of an item; "gender", "age", "occupation", "zip" of a user.
 * Errors: MELU_EINVAL, MELU_ESTATE (not empty), MELU_ENOTFOUND (no such file), MELU_EIO, MELU_EFORMAT, MELU_ELIMIT,
 * MELU_ECANCELED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_schema_add_melu(melu_schema *schema, const char *folder, melu_error *err);

/* Appends the same as melu_schema_add_melu and, after the paper's fields of an item, what else the folder tells of a
 * movie: "movie" (MELU_ONE), the movie itself, whose vocabulary are the ids in movies_extrainfos.dat as texts, and
 * "year" (MELU_NUMERIC, width 1, shift 1990, scale 0.1), missing where the file has "N/A", nothing or 0. It is for
 * presets that know items by name. Errors: as of melu_schema_add_melu. Since: 1.0 */
MELU_API melu_status melu_schema_add_melu_items(melu_schema *schema, const char *folder, melu_error *err);

/* Reads the folder of the MeLU reference code into an empty data set with one of these two schemas: all users
 * (users.dat), all movies (movies_extrainfos.dat), and the ratings in the .json and _y.json of one state:
 * "warm_state", "user_cold_state", "item_cold_state" or "user_and_item_cold_state". Calls the progress callback.
 * Errors: as of melu_schema_add_melu; MELU_ESCHEMA (another schema), MELU_ERANGE. Since: 1.0 */
MELU_API melu_status melu_dataset_read_melu(melu_dataset *data, const char *folder, const char *state, melu_error *err);

/* ------------------------------------------------------------------------------------------------- shards */

/* How a shard folder is written: a data set that may be larger than memory, written once, as n_files files, each of
 * which is small enough to be read whole. File f has the users u with mix64(u) % n_files == f (mix64 as in
 * melu_split_order), with their profiles and all their ratings. A manifest, written last, has the schema, the items,
 * and what files there are (docs/file-format.md). With S slots, n_files being a multiple of S, the users of slot s are
 * those of the files f with f % S == s. */
struct melu_shard_options {
  size_t size;            /* of this struct */
  size_t n_files;         /* up to 65,536; 0: 256. Best are some 100 thousand ratings a file */
  size_t buffer_bytes;    /* memory for what is added, at least 512 bytes a file; 0: 64 MiB */
  int users_from_ratings; /* not 0: who was not added, but rated, is a user without a profile; 0: that is an error */
};

/* Returns a new writer of a data set into a folder, which must exist and not have one yet. `data` has the schema and
 * the items; it may be open or frozen, is borrowed, and must stay as it is. Its users and ratings are the first that
 * are added. What is added goes to memory and then to a temporary file without a name in that folder, which is open
 * until all is finished: 16 bytes a rating; of a user 32 bytes, and 16 an id or number. Errors: MELU_EINVAL,
 * MELU_ELIMIT (n_files), MELU_ESTATE (the folder has a data set), MELU_EIO, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_shard_writer_new(melu_shard_writer **out, const melu_context *ctx, const char *folder,
                                           const melu_dataset *data, const struct melu_shard_options *options,
                                           melu_error *err);

/* Frees the writer, and removes the files that it wrote if they are not finished. Since: 1.0 */
MELU_API void melu_shard_writer_free(melu_shard_writer *writer);

/* Adds a user, as melu_dataset_add_user does, in any order. That the id is new is found out when the set is finished.
 * Errors: MELU_EINVAL, MELU_ERANGE, MELU_ESTATE (finished), MELU_EIO, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_shard_writer_add_user(melu_shard_writer *writer, uint64_t id, const struct melu_value *values,
                                                melu_error *err);

/* Adds a rating, as melu_dataset_add_rating does, before or after its user. Errors: MELU_ENOTFOUND (item), MELU_ERANGE
 * (rating not finite), MELU_EINVAL, MELU_ESTATE (finished), MELU_EIO, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_shard_writer_add_rating(melu_shard_writer *writer, uint64_t user_id, uint64_t item_id,
                                                  float rating, melu_error *err);

/* Sorts what was added into the files, and writes the manifest: from here on it is a data set. Takes 32 bytes of memory
 * a rating of the largest file, and as much an id or number of its profiles, beside the buffer. Calls the progress
 * callback. On error, what was added is still there: who finds room on the disk, or adds the user who is missing, can
 * finish again. Errors: MELU_ESTATE (finished; a user was added twice), MELU_ENOTFOUND (a rating by a user who was not
 * added), MELU_ELIMIT (a file would have more than 2^22 ratings, or 2^22 ids, numbers and twice users: take more
 * files), MELU_EINVAL, MELU_EIO, MELU_ECANCELED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_shard_writer_finish(melu_shard_writer *writer, melu_error *err);

/* Returns a new handle of a shard folder: reads and checks the manifest. Errors: MELU_EINVAL, MELU_ENOTFOUND (no
 * manifest), MELU_EIO, MELU_EFORMAT, MELU_ECORRUPT, MELU_EVERSION, MELU_ERANGE, MELU_ELIMIT, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_shards_open(melu_shards **out, const melu_context *ctx, const char *folder, melu_error *err);

/* Frees the handle; the data sets that were read of it must be gone. Since: 1.0 */
MELU_API void melu_shards_free(melu_shards *shards);

/* What the manifest of a shard folder says. */
struct melu_shards_info {
  size_t size;          /* of this struct */
  uint64_t n_users;     /* in all files */
  uint64_t n_ratings;   /* of them all */
  uint64_t max_ratings; /* of one user */
  size_t n_items;       /* that they may be of */
  size_t n_files;       /* of the folder, beside the manifest */
  float rating_min;     /* the smallest rating; 0 if there are none */
  float rating_max;     /* the largest rating; 0 if there are none */
};

/* Describes a shard folder; set info->size before. Errors: MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_shards_describe(struct melu_shards_info *info, const melu_shards *shards, melu_error *err);

/* The schema and the items, as a frozen data set without users: for making models and catalogues, and for predictions.
 * Belongs to the handle. Since: 1.0 */
MELU_API const melu_dataset *melu_shards_items(const melu_shards *shards);

/* Returns a new, frozen data set of one file: its users with profiles and ratings, and the items, which are the
 * handle's, so that the handle must outlive it. A file that differs in one bit from what was written is refused, and so
 * is one of another folder. Errors: MELU_EINVAL, MELU_ERANGE (no such file, or what it says), and as of
 * melu_shards_open. Since: 1.0 */
MELU_API melu_status melu_shards_read(melu_dataset **out, const melu_shards *shards, size_t file, melu_error *err);

/* -------------------------------------------------------------------------------------------------- batch */

/* Returns a new, empty task batch. Each task will be a user, a support set to adapt to and a query set to be judged by.
 * Borrows the data set, which must be frozen, and copies nothing of it. Errors: MELU_EINVAL, MELU_ESTATE (not frozen),
 * MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_batch_new(melu_batch **out, const melu_context *ctx, const melu_dataset *data,
                                    melu_error *err);

/* Frees the batch, or nothing if it is NULL. Since: 1.0 */
MELU_API void melu_batch_free(melu_batch *batch);

/* Removes all tasks and keeps the memory. Since: 1.0 */
MELU_API void melu_batch_clear(melu_batch *batch);

/* Appends a task. `support` (n_support) and `query` (n_query) are positions among the user's ratings, as
 * melu_dataset_ratings gives them; they are copied. A support set may be empty (no inner step is made), a query set may
 * not. Errors: MELU_EINVAL, MELU_ERANGE (user or a position; `index` says which), MELU_ELIMIT (65,535 rows, support and
 * query together), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_batch_add(melu_batch *batch, uint32_t user, const uint32_t *support, size_t n_support,
                                    const uint32_t *query, size_t n_query, melu_error *err);

/* How many tasks the batch has. Since: 1.0 */
MELU_API size_t melu_batch_n_tasks(const melu_batch *batch);

/* The order in which an evaluation split takes a user's n ratings: positions by ascending mix64 key, where
 * key = mix64((split << 48) ^ (user_id << 16) ^ position); the last ones are the query set, the others the support
 * set, in that order. mix64(x) is what SplitMix64 makes of the state x. `order`: (n). Errors: MELU_EINVAL, MELU_ERANGE
 * (n > 65,536). Since: 1.0 */
MELU_API melu_status melu_split_order(uint32_t *order, uint64_t user_id, uint64_t split, size_t n, melu_error *err);

/* -------------------------------------------------------------------------------------------------- model */

/* The network. */
typedef enum melu_network {
  MELU_LAYERS = 1, /* MeLU's (eq. 1-4): h0 = [item fields, user fields], h_l = relu(h_{l-1} W_l' + b_l), y = h W' + b */
  MELU_FACTORS = 2 /* a user's vector on items' vectors: y = o_i + w_u . [phi_i, 1, new_i]; see melu_model_new */
} melu_network;

/* How the inner loop adapts to a support set. */
typedef enum melu_rule {
  MELU_STEPS = 1,      /* gradient steps (MAML) */
  MELU_CLOSED_FORM = 2 /* ridge regression of the ratings on the features of the last layer: solved, not stepped
                          towards, and differentiated through the solution. The last layer alone is adapted; inner
                          steps and first_order say nothing then */
} melu_rule;

/* What the inner loop may change; a sum of them. */
enum {
  MELU_ADAPT_HEAD = 1,   /* the last layer; in MELU_FACTORS the user's vector (alone: ANIL, Raghu et al., ICLR 2020) */
  MELU_ADAPT_HIDDEN = 2, /* the layers below it */
  MELU_ADAPT_USER = 4,   /* the user's part of the input; needs a user field */
  MELU_ADAPT_ITEMS = 8   /* the embedding rows that the support set touches: an attribute gets an embedding of this
                            user's own. Items share them as they share ids */
};

/* Whether inner learning rates are learnt by the outer loop; they begin at inner_lr. */
typedef enum melu_rates {
  MELU_RATE_FIXED = 1,      /* not learnt */
  MELU_RATE_PER_TENSOR = 2, /* one for each tensor that is adapted */
  MELU_RATE_PER_ENTRY = 3   /* one for each number (Meta-SGD, Li et al., 2017) */
} melu_rates;

/* What the outer loop minimizes over the query set; the inner loop's steps minimize the same (MELU_LAYERS, but for
 * MELU_PAIRWISE) or the squared error (MELU_FACTORS, but for MELU_LOGISTIC). e = prediction - rating, in units of the
 * ratings' standard deviation where the network is MELU_FACTORS. */
typedef enum melu_loss {
  MELU_SQUARED = 1,  /* e^2 */
  MELU_ABSOLUTE = 2, /* sqrt(e^2 + 0.01) */
  MELU_HUBER = 3,    /* e^2 below 1, 2 |e| - 1 above */
  MELU_MIXED = 4,    /* e^2 + sqrt(e^2 + 0.01) / 2 */
  MELU_LOGISTIC = 5, /* clicks: ratings are 0 or 1, the score is the logit of 1; cross-entropy */
  MELU_PAIRWISE = 6  /* mean over pairs of the query set with r_i > r_j of -log sigmoid(s_i - s_j) (BPR) */
} melu_loss;

/* Options of melu_model_new. Zeros are the preset's choices. A switch is on above 0 and off below. */
struct melu_model_options {
  size_t size;
  const char *preset; /* "melu", the paper's; "best", the most accurate known to us (docs/accuracy.md); NULL: "melu" */
  uint64_t seed;      /* of the initial parameters */
  const size_t *hidden; /* widths of the hidden layers; NULL: the preset's (64, 64). MELU_FACTORS: of the hidden layer
                           of the items' encoder, at most one (96) */
  size_t n_hidden;      /* up to 8; MELU_NONE: none, for MELU_FACTORS alone */
  size_t inner_steps;   /* 0: the preset's (5); MELU_NONE: none; up to 64 */
  double inner_lr;      /* inner learning rate; 0: the preset's (0.01; "best" 0.1) */
  int first_order;      /* not 0: the inner gradients are constants to the outer loop (FOMAML) */
  double rating_min;    /* predictions are clipped to this range where a metric says so; both 0: 1 and 5, with
                           MELU_LOGISTIC 0 and 1 */
  double rating_max;    /* see rating_min */
  melu_network network; /* the preset's: "melu" MELU_LAYERS, "best" MELU_FACTORS */
  size_t rank;          /* MELU_FACTORS: numbers in an item's vector, up to 255; 0: the preset's (48) */
  melu_rule rule;       /* the preset's: "melu" MELU_STEPS, "best" MELU_CLOSED_FORM */
  unsigned adapt;       /* sum of MELU_ADAPT_*; the preset's: "melu" HEAD + HIDDEN, "best" HEAD */
  melu_rates rates;     /* the preset's: MELU_RATE_FIXED */
  melu_loss loss;       /* the preset's: "melu" MELU_SQUARED, "best" MELU_MIXED */
  int multi_step; /* switch: the outer loss is the mean of the losses after each inner step (MAML++, Antoniou et al.,
                     ICLR 2019), not that after the last */
  int history;    /* switch, MELU_FACTORS: the user's prior mean knows which items were rated, and how */
  int learn_precision; /* switch, MELU_FACTORS and MELU_CLOSED_FORM: the prior's precision is learnt; else it is 1 */
};

/* Returns a new model with random parameters for data of that schema, whose vocabularies must be complete. Copies the
 * schema. Errors: MELU_EINVAL, MELU_ESTATE, MELU_ELIMIT, MELU_ENOMEM.
 *
 * Parameters of MELU_LAYERS: "E.<field>" (n_values + 1, width) for each field of ids; "W1" (64, inputs), "b1" (64), ...
 * up to the output layer (1, 64), (1). Learnt rates of what is adapted: "rate.W1", "rate.b1", ..., "rate.user" and
 * "rate.items": (1, 1), or per entry of the tensor's shape, (1, user's width) and (1, item's width), the rate of a
 * column being that of all rows. They begin at inner_lr and may become negative. Closed form: "precision" (1, h + 1),
 * P = diag(softplus(precision)), at first 1: w = m + (H'H + P)^-1 H'(r - H m), m = the output layer's [W, b], H = the
 * last hidden layer of the support rows and a column of ones.
 *
 * Parameters of MELU_FACTORS, with K = rank, and vectors of K + 2 numbers that go with an item's
 * x_i = [phi_i, 1, new_i]; widths of id fields do not matter:
 *
 * - "E.<item field>" (n_values + 1, 2 K + 3) and "N.item" (numbers of an item, 2 K + 3): an item is the sum of its
 *   fields, of each the sum of its ids' rows over the root of their count, and of its numbers times N. An id of the
 *   item's own beside attributes makes the prior hierarchical; an item whose id is new falls back to its attributes.
 *   The sum is [phi (K), o, y (K + 2)].
 * - "H1" (hidden, K), "h1" (1, hidden), "H2" (K, hidden): relu(5 phi H1' + h1) H2' is added to phi.
 * - "names" (1, id fields of an item): 1 for a field that names items, found by melu_fit: it has one id an item, and no
 *   two rated items share one. Where that id is missing, unknown, or its row all zeros, new_i is 1 and not 0.
 * - "new" (1, 3): how much larger phi and o of new items are taken, phi (1 + new[0]), o (1 + new[1]); new[2] see
 *   melu_predict_variance.
 * - "E.<user field>" (n_values + 1, K + 2), "N.user" (numbers of a user, K + 2), "prior" (1, K + 2): summed likewise to
 *   m_u.
 * - "pool" and "pool_rated" (K + 3, K + 2), "shrink" (1, 1): with history, and n support rows, the prior's mean is
 *   m = m_u + (sum y_i + sum [x_i, o_i] pool + sum (r_i - o_i) [x_i, o_i] pool_rated) / (n + softplus(shrink)).
 * - "precision" (1, K + 2): P = diag(softplus(precision)); those of phi are 1 unless learn_precision.
 * - "rate" (1, 1) or (1, K + 2): learnt inner rates. "noise" (1, 1): see melu_predict_variance.
 * - "scale" (1, 2): mean and spread of ratings, set by melu_fit from its data; r above is (rating - mean) / spread.
 *
 * Closed form: w = m + (F'F + P)^-1 F' (r - o - F m), F = rows x_i of the support set. Steps begin at m and descend the
 * same sum of squares, each by inner_lr / (1 + n / 4) of the gradient. With MELU_LOGISTIC: one Newton step from m with
 * the bound 1/4 for the curvature (Boehning & Lindsay, 1988). Score: mean + spread (o_i + w . x_i). Since: 1.0 */
MELU_API melu_status melu_model_new(melu_model **out, const melu_context *ctx, const melu_schema *schema,
                                    const struct melu_model_options *options, melu_error *err);

/* Frees the model, or nothing if it is NULL. What borrows it must be gone. Since: 1.0 */
MELU_API void melu_model_free(melu_model *model);

/* The model's copy of the schema. Belongs to the model. Since: 1.0 */
MELU_API const melu_schema *melu_model_schema(const melu_model *model);

/* The options as they are in force: no zero that stands for a default is left; no inner steps are MELU_NONE. `hidden`
 * belongs to the model. Set options->size before. Errors: MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_model_get_options(struct melu_model_options *options, const melu_model *model,
                                            melu_error *err);

/* A parameter of a model. */
struct melu_param {
  const char *name; /* belongs to the model */
  size_t rows;      /* its shape is (rows, cols) */
  size_t cols;      /* see rows; of a bias 1 row of so many */
  int is_table;     /* an embedding table: its gradient has only the rows that the batch touched */
  int is_sharded;   /* a table of which this rank has some rows: */
  size_t own_rows;  /* so many; else all */
};

/* How many parameters the model has. Since: 1.0 */
MELU_API size_t melu_model_n_params(const melu_model *model);

/* Describes the parameter with that index, from 0. Errors: MELU_EINVAL, MELU_ERANGE (no such index). Since: 1.0 */
MELU_API melu_status melu_model_param(struct melu_param *out, const melu_model *model, size_t index, melu_error *err);

/* Copies rows of a parameter out of the model. `values`: (n_rows, cols). Errors: MELU_ENOTFOUND (name), MELU_ERANGE
 * (rows), MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_model_read(float *values, const melu_model *model, const char *name, size_t first_row,
                                     size_t n_rows, melu_error *err);

/* Copies rows of a parameter into the model, which is another one from then on to users and catalogues that were made
 * with it. `values`: (n_rows, cols). Errors: MELU_ENOTFOUND (name), MELU_ERANGE (rows, or a value is not finite; then
 * nothing is written), MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_model_write(melu_model *model, const char *name, size_t first_row, size_t n_rows,
                                      const float *values, melu_error *err);

/* Saves the model, schema and vocabularies included, as a safetensors file (docs/file-format.md), atomically: after a
 * failure the file is the old one (or the new one, if only the folder could not be forced to disk, which the message
 * says). What exists under that name and is no regular file is refused. Where tables are sharded it is collective, and
 * rank 0 alone writes the file, which any number of ranks may load. Errors: MELU_EIO, MELU_ELIMIT (larger than the
 * format allows), MELU_ENOMEM, MELU_EINVAL, MELU_EPEER. Since: 1.0 */
MELU_API melu_status melu_model_save(const melu_model *model, const char *path, melu_error *err);

/* Returns a new model from a file. A file that differs in one bit from what was saved is refused. Errors: MELU_EINVAL,
 * MELU_EIO, MELU_ENOTFOUND (no such file), MELU_EFORMAT, MELU_ECORRUPT, MELU_EVERSION, MELU_ERANGE (a weight is not
 * finite), MELU_ELIMIT, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_model_load(melu_model **out, const melu_context *ctx, const char *path, melu_error *err);

/* Writes all parameters from a safetensors file that another program made, under this model's names and of its shapes,
 * in any order; those called b... have one dimension. "F32" alone is read, and what the file's metadata say is not
 * looked at. On error the model is as before. Errors: MELU_EINVAL, MELU_EIO, MELU_ENOTFOUND (no such file),
 * MELU_EFORMAT (also: a parameter is missing or of another shape, or a tensor is none of the model's), MELU_ECORRUPT
 * (the file became shorter meanwhile), MELU_ERANGE (a weight is not finite), MELU_ELIMIT, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_model_import(melu_model *model, const char *path, melu_error *err);

/* How many bytes a model's digest has. */
#define MELU_DIGEST_BYTES 16

/* The XXH3 digest of all that predictions depend on: schema, vocabularies, options and parameters. A model that was
 * saved and loaded has the same. Takes about as long as reading the parameters once. Collective where tables are
 * sharded. Errors: MELU_EINVAL; where tables are sharded MELU_EPEER, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_model_digest(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model,
                                       melu_error *err);

/* ----------------------------------------------------------------------------------------------- training */

/* Returns a new, empty gradient for this model, which it borrows: room for the meta-gradient of a batch, and the memory
 * that computing it takes. Errors: MELU_EINVAL, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_gradient_new(melu_gradient **out, const melu_model *model, melu_error *err);

/* Frees the gradient, or nothing if it is NULL; before its model. Since: 1.0 */
MELU_API void melu_gradient_free(melu_gradient *gradient);

/* Computes the gradient of the mean over tasks of the mean loss over the query set after the inner steps,
 *     L = 1/T sum_t L_q(theta_K(t)),   theta_{k+1} = theta_k - inner_lr * dL_s(theta_k) / dtheta,
 * (MELU_FACTORS: of the mean over all query rows of the batch, whosever they are) with respect to every parameter,
 * through the inner steps (unless the model is first_order). If the computation fails the gradient is empty. Its bits
 * do not depend on the number of threads. Errors: MELU_EINVAL (no task, or a gradient for another model), MELU_ESCHEMA,
 * MELU_EDIVERGED (loss or gradient not finite; `index` is the task), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_meta_gradient(melu_gradient *gradient, const melu_model *model, const melu_batch *batch,
                                        melu_error *err);

/* A host's own loss of a task's query set: writes its value and its derivatives by the scores, given the scores and
 * ratings of the n query rows, in the order of the batch. `task`: the task's number. Returns 0; anything else ends the
 * call with MELU_ECANCELED. Called from the thread that made the call, task by task. */
typedef int (*melu_loss_fn)(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                            float *slopes);

/* The same as melu_meta_gradient for the mean over tasks of a loss of the host's own, after the adaptation: the inner
 * loop remains that of the model's options, multi_step says nothing. `arg` is what `loss` is given. Takes about one and
 * a half times as long. Errors: as of melu_meta_gradient; MELU_EDIVERGED (also: what `loss` wrote is not finite),
 * MELU_ECANCELED (`loss` asked to stop). Since: 1.0 */
MELU_API melu_status melu_meta_gradient_of(melu_gradient *gradient, const melu_model *model, const melu_batch *batch,
                                           melu_loss_fn loss, void *arg, melu_error *err);

/* The mean of the tasks' query losses, and the loss of each, in the order of the batch: *losses, if not NULL, receives
 * an array of one number a task, which belongs to the gradient until it is next computed. Since: 1.0 */
MELU_API double melu_gradient_loss(const melu_gradient *gradient, const double **losses);

/* Copies the whole gradient of a parameter, zeros included. `values`: (rows, cols). Errors: MELU_ENOTFOUND (name),
 * MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_gradient_read(float *values, const melu_gradient *gradient, const char *name,
                                        melu_error *err);

/* How many rows of a parameter's gradient may differ from zero: of a table those that the batch touched, of any other
 * parameter all; 0 for an unknown name or an empty gradient. Since: 1.0 */
MELU_API size_t melu_gradient_n_rows(const melu_gradient *gradient, const char *name);

/* Copies the rows that melu_gradient_n_rows counts, by ascending row. `rows`: (n_rows); `values`: (n_rows, cols).
 * Errors: MELU_ENOTFOUND (name), MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_gradient_read_rows(uint32_t *rows, float *values, const melu_gradient *gradient,
                                             const char *name, melu_error *err);

/* The rule of an outer update of a number w with the gradient g, after clipping. */
typedef enum melu_optimizer_kind {
  MELU_ADAM = 0,  /* Kingma & Ba, 2015: m and v are the moments of g; w -= lr m^ / (sqrt(v^) + epsilon) */
  MELU_ADAMW = 1, /* Loshchilov & Hutter, 2019: the same, and w -= lr weight_decay w besides */
  MELU_SGD = 2    /* w -= lr (g + weight_decay w) */
} melu_optimizer_kind;

/* Options of melu_optimizer_new. */
struct melu_optimizer_options {
  size_t size;
  melu_optimizer_kind kind; /* 0: MELU_ADAM */
  double lr;                /* outer learning rate; 0: 1e-3 */
  double beta1;             /* of the first moment; 0: 0.9; its square must be below beta2 */
  double beta2;             /* of the second moment; 0: 0.999 */
  double epsilon;           /* 0: 1e-8 */
  double weight_decay;      /* of MELU_ADAMW and MELU_SGD */
  double clip_value;        /* each gradient entry is clamped to +-this; 0: 10; negative: not */
  double clip_norm;         /* the whole gradient is scaled to at most this norm; 0: not */
  int dense;                /* not 0: every row of every table is updated, touched or not. 0: a row's moments decay only
                               when the row is touched ("lazy"), so that a step costs what the batch touches */
};

/* Returns a new optimizer for this model, which it borrows, with its moments at zero. Errors: MELU_EINVAL, MELU_ERANGE
 * (an option), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_optimizer_new(melu_optimizer **out, const melu_model *model,
                                        const struct melu_optimizer_options *options, melu_error *err);

/* Frees the optimizer, or nothing if it is NULL; before its model. Since: 1.0 */
MELU_API void melu_optimizer_free(melu_optimizer *optimizer);

/* Applies one outer update to the model, on the context's threads; the same bits whatever their number. Errors:
 * MELU_EINVAL (also: another model), MELU_ESTATE (the gradient is empty), MELU_EDIVERGED (a weight or moment would not
 * be finite; nothing was changed). Since: 1.0 */
MELU_API melu_status melu_optimizer_step(melu_optimizer *optimizer, melu_model *model, const melu_gradient *gradient,
                                         melu_error *err);

/* Changes the outer learning rate from the next step on; for a schedule of the host's own. Errors: MELU_EINVAL,
 * MELU_ERANGE (negative or not finite). Since: 1.0 */
MELU_API melu_status melu_optimizer_set_lr(melu_optimizer *optimizer, double lr, melu_error *err);

/* Options of melu_fit. Defaults are the model's preset's: "melu", and in brackets "best". A switch is on above 0 and
 * off below.
 *
 * The priors are Gaussian, on the parameters, as so many ratings' worth of squared error: a number x costs prior x^2 in
 * the sum of losses over all training ratings, whatever the batch and the vocabulary. A table row's share is taken when
 * it is next updated.
 *
 * With validation some users are left out of training and asked the same episodes after each epoch: the weights after
 * the best epoch are kept. */
struct melu_fit_options {
  size_t size;
  size_t n_epochs;    /* passes over the users; 0: 30 (40) */
  size_t batch_tasks; /* tasks an update; 0: 32 (64) */
  size_t n_query;     /* query ratings drawn from each user, afresh in every epoch; 0: 10 (80) */
  size_t min_ratings; /* users with fewer ratings are left out; 0: n_query + 3 (2) */
  size_t max_ratings; /* users with more are left out; 0: 100 (MELU_NONE); MELU_NONE: no limit */
  size_t max_support; /* support ratings drawn from the rest; 0: all of them (160) */
  uint64_t seed;      /* of the order of users and the draws */
  const struct melu_optimizer_options *optimizer; /* NULL: its defaults, and lr 1e-3 (3e-3) */
  int random_support;   /* switch, off (on): query sets have n_query ratings or a third of the user's, the support set a
                           number of them drawn from 0 to the largest possible: none in 3 of 20 episodes, all in 3 */
  int cosine;           /* switch, off (on): the learning rate rises over the first tenth of the updates, and falls to a
                           hundredth as a cosine */
  double prior_vectors; /* prior of embedding rows; MELU_FACTORS: of phi of items (in N.item too) and of rows of users;
                           0: none (800); negative: none */
  double prior_offsets; /* MELU_FACTORS: prior of o of items; 0: none (300); negative: none */
  double prior_pooled;  /* MELU_FACTORS: prior of y of items; 0: none (3); negative: none */
  double prior_dense;   /* prior of weights of layers; MELU_FACTORS: of pool, H1, H2, N.user; 0: none (30); negative:
                           none */
  double validation;    /* share of the eligible users, chosen by the seed, who are left out; below 1; 0: none */
  size_t patience;      /* with validation: training ends after so many epochs that were not better; 0: it does not */
  const uint32_t *validation_users; /* these users, by position, are left out instead of a share */
  size_t n_validation_users;        /* how many */
  /* A file that the training is written to, atomically, so that it can be resumed: before the first update of every
   * epoch but the first, or after each checkpoint_updates updates, and when it is cancelled. NULL: none. What was
   * written is known to be good: the gradient after it was finite. */
  const char *checkpoint;
  size_t checkpoint_updates; /* 0: once an epoch */
  int resume; /* not 0: goes on from that file if there is one, else begins. `model` may be a new one, or any of that
                 schema and those options: its parameters are replaced. Data and options must be those of the file.
                 The result has the same bits as a training that was never interrupted, whatever the number of threads,
                 with the same kernels (others are told to the log) */
};

/* Meta-trains the model. Every epoch each eligible user is one task, its query set drawn at random, the others being
 * the support set. Same model, data, options and seed: same bits, whatever the number of threads. The first training of
 * a new MELU_FACTORS model that nothing was written to sets its "scale", and to zero all table rows that no rating
 * trained on leads to: an item that was never rated is what its attributes say. Calls the context's progress callback.
 * Arguments are checked before the first update; whatever ends the training after it (cancelled, no memory), the
 * weights are those of the last finished update. If it diverges they are those of the last update after which losses
 * and gradients were finite. A training that is cancelled and has a checkpoint makes one more gradient first. Errors:
 * MELU_EINVAL (also: the checkpoint is of other data or options), MELU_ERANGE, MELU_ELIMIT, MELU_ESCHEMA (also: the
 * checkpoint is of another model), MELU_ESTATE (not frozen), MELU_ENOTFOUND (no eligible user), MELU_ECANCELED,
 * MELU_EDIVERGED, MELU_ENOMEM; of the checkpoint MELU_EIO, MELU_EFORMAT, MELU_ECORRUPT, MELU_EVERSION. Since: 1.0 */
MELU_API melu_status melu_fit(melu_model *model, const melu_dataset *data, const struct melu_fit_options *options,
                              melu_error *err);

/* Meta-trains the model as melu_fit does, on the users of a shard folder, one file of which is in memory at a time: as
 * a data set, and while it is read as it is on the disk too. Before the first epoch all files are read once, and twice
 * for a new MELU_FACTORS model; then once an epoch, and once more if users are left out. The files have another order
 * in each epoch, and so have the users of a file: the bits are not those of melu_fit. Each user is left out with the
 * chance `validation`, drawn by the seed and her id; there must be no validation_users. Errors: as of melu_fit and of
 * melu_shards_read, after which the weights are those of the last finished update too. Since: 1.0 */
MELU_API melu_status melu_fit_shards(melu_model *model, const melu_shards *shards,
                                     const struct melu_fit_options *options, melu_error *err);

/* ----------------------------------------------------------------------------------------------- adapting */

/* Returns a new workspace: one thread's scratch for adapting this model, which it borrows, to at most max_support
 * ratings and predicting any number of items. With it, melu_adapt and melu_predict allocate nothing, but for
 * melu_adapt of a user who is told more than ever before, or of a model with MELU_ADAPT_ITEMS. Errors: MELU_EINVAL,
 * MELU_ELIMIT (4,096), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_workspace_new(melu_workspace **out, const melu_model *model, size_t max_support,
                                        melu_error *err);

/* Frees the workspace, or nothing if it is NULL; before its model. Since: 1.0 */
MELU_API void melu_workspace_free(melu_workspace *workspace);

/* Returns a new user of this model, which it borrows, of whom nothing is known: predictions are the model's own.
 * Errors: MELU_EINVAL, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_user_new(melu_user **out, const melu_model *model, melu_error *err);

/* Frees the user, or nothing if it is NULL; before its model. Since: 1.0 */
MELU_API void melu_user_free(melu_user *user);

/* Makes `user` the person with this profile (one value per user field, NULL: all missing) who gave these ratings: the
 * inner loop, from the model's parameters. `items`: (n) positions in `data`, whose items are described in the model's
 * schema; `ratings`: (n). n may be 0. Everything is copied. What `user` was before is gone, unless the call fails.
 * With MELU_ADAPT_ITEMS user and workspace grow with the support sets that they meet, by the embedding rows that these
 * touch and n^2 numbers a field of ids. Errors: MELU_EINVAL, MELU_ERANGE (`index` says which), MELU_ESCHEMA,
 * MELU_ESTATE (`data` is not frozen), MELU_ELIMIT (n > max_support), MELU_EDIVERGED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_adapt(melu_user *user, melu_workspace *workspace, const melu_model *model,
                                const melu_dataset *data, const struct melu_value *profile, const uint32_t *items,
                                const float *ratings, size_t n, melu_error *err);

/* Predicts the user's ratings of n items. `scores`: (n), the raw output of the network, not clipped; with MELU_LOGISTIC
 * the logit of a click. `items`: (n) positions in `data`. The model must be the one that adapted the user, unchanged
 * since. Errors: MELU_EINVAL, MELU_ERANGE (`index` says which item), MELU_ESCHEMA, MELU_ESTATE (`data` is not frozen,
 * or the model was changed), MELU_EDIVERGED (a score is not finite). Since: 1.0 */
MELU_API melu_status melu_predict(float *scores, melu_workspace *workspace, const melu_model *model,
                                  const melu_user *user, const melu_dataset *data, const uint32_t *items, size_t n,
                                  melu_error *err);

/* Variances of the user's ratings of n items around melu_predict's scores, of MELU_FACTORS with MELU_CLOSED_FORM:
 *     spread^2 noise (1 + x (F'F + P)^-1 x' + new_i new[2]),   x = [phi_i, 1, new_i],
 * what is not known of the user, and what no knowledge of her would tell; "noise" (1, 1), a parameter, is set by
 * melu_fit such that they are right on average. Half of the width of an 80 % interval is 1.2816 times the root. With
 * MELU_LOGISTIC it is the variance of the logit, 4 x (F'F + 4 P)^-1 x'. `variances`: (n); `items` as of melu_predict.
 * Errors: as of melu_predict; MELU_EINVAL (also: a model without variances). Since: 1.0 */
MELU_API melu_status melu_predict_variance(float *variances, melu_workspace *workspace, const melu_model *model,
                                           const melu_user *user, const melu_dataset *data, const uint32_t *items,
                                           size_t n, melu_error *err);

/* ------------------------------------------------------------------------------------- the adapted user */

/* The user's ratings, in the order in which they were given; *items (the host's ids) and *ratings, if not NULL, receive
 * arrays of the returned length, which belong to the user until she is next changed.
 *
 * A user remembers her profile and her ratings: 12 bytes a rating, 4 an id or number of the profile, and with
 * MELU_FACTORS a row of 4 (rank + 3) bytes, up to the next 32, of each item. Calls that change her allocate when that
 * is more than she ever had. Items are remembered by the host's ids, so that `data` may be another set from call to
 * call, as long as it has her items. Since: 1.0 */
MELU_API size_t melu_user_ratings(const melu_user *user, const uint64_t **items, const float **ratings);

/* Adds a rating to the user's, or corrects it if she rated that item (the last time, if several times), and adapts her:
 * the same bits as melu_adapt of all. With MELU_FACTORS only the new item is encoded, those before being as they were;
 * inner steps of MELU_LAYERS begin at the model's parameters again, since each depends on all ratings. `item`: position
 * in `data`. On error the user is as before. Errors: as of melu_adapt; MELU_ENOTFOUND (`data` does not have an item
 * that she rated), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_user_rate(melu_user *user, melu_workspace *workspace, const melu_model *model,
                                    const melu_dataset *data, uint32_t item, float rating, melu_error *err);

/* Takes the user's rating of an item back, the last one if there are several, and adapts her: the same bits as
 * melu_adapt of the others. `item`: position in `data`. On error the user is as before. Errors: as of melu_user_rate;
 * MELU_ENOTFOUND (also: she did not rate it). Since: 1.0 */
MELU_API melu_status melu_user_forget(melu_user *user, melu_workspace *workspace, const melu_model *model,
                                      const melu_dataset *data, uint32_t item, melu_error *err);

/* How an adapted user is written down. */
typedef enum melu_user_form {
  MELU_USER_COMPACT = 0, /* profile and ratings: 56 bytes, 12 a rating, 4 a field, 4 an id or number. Adapted again when
                            loaded, to the same bits with the same kernels */
  MELU_USER_READY = 1    /* the adapted numbers too: nothing is computed when it is loaded */
} melu_user_form;

/* Writes the user down (docs/file-format.md), bound to the model by its digest, with a checksum. `bytes`: (*n), NULL to
 * ask for the size alone. *n becomes the size, also when it was too small. The workspace keeps the model's digest,
 * which is computed on its first use and when the model has changed. Errors: MELU_EINVAL, MELU_ELIMIT (*n too small),
 * MELU_ESTATE (READY: the model was changed since she was adapted). Since: 1.0 */
MELU_API melu_status melu_user_save(unsigned char *bytes, size_t *n, melu_workspace *workspace, const melu_user *user,
                                    melu_user_form form, melu_error *err);

/* Makes `user` the one that was written down, in either form. Untrusted bytes are welcome: nothing that differs in one
 * bit from what was written is taken. On error the user is as before. Errors: MELU_EINVAL, MELU_EFORMAT (no user, or
 * not of this length), MELU_EVERSION, MELU_ECORRUPT (checksum), MELU_ESCHEMA (another model), MELU_ENOTFOUND (`data`
 * lacks an item; `index` says which of hers), MELU_ELIMIT (more ratings than the workspace is for), MELU_ERANGE,
 * MELU_ESTATE, MELU_EDIVERGED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_user_load(melu_user *user, melu_workspace *workspace, const melu_model *model,
                                    const melu_dataset *data, const unsigned char *bytes, size_t n, melu_error *err);

/* How each of the user's ratings pulls her prediction of one item: `pulls`: (her ratings), in units of a rating,
 *     pull_i = d score / d c_i  at c = 1,
 * where rating i counts c_i times in the inner loop (in the mean of its loss, in sums, in the history's counts): by how
 * much, to first order, the score would fall without it (Koh & Liang, ICML 2017), taken through the whole adaptation.
 * Makes a plan for that number of ratings on its first use, and allocates. Errors: as of melu_predict; MELU_ENOTFOUND
 * (`data` lacks an item that she rated), MELU_ELIMIT (more ratings than the workspace is for), MELU_EINVAL (also:
 * MELU_ADAPT_ITEMS), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_explain(float *pulls, melu_workspace *workspace, const melu_model *model,
                                  const melu_user *user, const melu_dataset *data, uint32_t item, melu_error *err);

/* ------------------------------------------------------------------------------------------------ ranking */

/* Returns a new catalogue of n items of a data set, prepared for ranking them with this model: for each the input row
 * and what the first layer makes of it before a user comes, 4 (item width + first layer's width) bytes. `items`: (n)
 * positions in `data`, NULL for all of it; they become the items' numbers, by which the catalogue knows them. `data`
 * may go. The model must stay as it is while the catalogue is used. Const: any number of threads may rank with one,
 * each with its own workspace. Errors: MELU_EINVAL (also: a model that adapts items), MELU_ERANGE (`index` says which;
 * an item twice), MELU_ESCHEMA, MELU_ESTATE (not frozen), MELU_ELIMIT (2^31 items), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_catalog_new(melu_catalog **out, const melu_model *model, const melu_dataset *data,
                                      const uint32_t *items, size_t n, melu_error *err);

/* Frees the catalogue, or nothing if it is NULL; before its model. Since: 1.0 */
MELU_API void melu_catalog_free(melu_catalog *catalog);

/* How many items the catalogue has. Since: 1.0 */
MELU_API size_t melu_catalog_n_items(const melu_catalog *catalog);

/* The catalogue's items by number, in the order of melu_catalog_score: (n_items), belongs to the catalogue until it is
 * next changed. Since: 1.0 */
MELU_API const uint32_t *melu_catalog_items(const melu_catalog *catalog);

/* Puts n items of a data set into the catalogue, under `numbers` (n), or their positions if that is NULL; what had the
 * number before is replaced. A data set of the new items alone will do, if numbers are given. Costs what the n items
 * cost; the catalogue takes 4 bytes a number up to the largest. On error it is as before. New items come last in its
 * order. Errors: as of melu_catalog_new; MELU_ESTATE (also: the model was changed since the catalogue was made),
 * MELU_ERANGE (a number of 2^31 or more, or twice). Since: 1.0 */
MELU_API melu_status melu_catalog_put(melu_catalog *catalog, const melu_dataset *data, const uint32_t *items,
                                      const uint32_t *numbers, size_t n, melu_error *err);

/* Removes n items by number; the catalogue's last items take their places in its order. On error it is as before.
 * Errors: MELU_EINVAL, MELU_ENOTFOUND (`index` says which), MELU_ERANGE (a number twice). Since: 1.0 */
MELU_API melu_status melu_catalog_remove(melu_catalog *catalog, const uint32_t *numbers, size_t n, melu_error *err);

/* Predicts the user's ratings of the whole catalogue. `scores`: (n_items), in the catalogue's order; the same bits as
 * melu_predict's up to rounding. Allocates nothing. Errors: MELU_EINVAL, MELU_ESTATE (the model was changed since the
 * catalogue was made), MELU_EDIVERGED (a score is not finite). Since: 1.0 */
MELU_API melu_status melu_catalog_score(float *scores, melu_workspace *workspace, const melu_catalog *catalog,
                                        const melu_user *user, melu_error *err);

/* Predicts the user's ratings of n of the catalogue's items. `scores`: (n); `numbers`: (n) numbers of items. An item
 * has the same bits as in melu_catalog_score. Allocates nothing. Errors: as of melu_catalog_score; MELU_ENOTFOUND
 * (`index` says which). Since: 1.0 */
MELU_API melu_status melu_catalog_score_list(float *scores, melu_workspace *workspace, const melu_catalog *catalog,
                                             const melu_user *user, const uint32_t *numbers, size_t n, melu_error *err);

/* What may be among the best: options of melu_catalog_top and melu_catalog_top_users. */
struct melu_top_options {
  size_t size;
  const uint32_t *exclude;               /* numbers that are left out, in any order; what was rated, say. It is read
                                            once for every 30,720 items of the catalogue */
  size_t n_exclude;                      /* how many */
  int (*keep)(void *arg, uint32_t item); /* NULL: all; called for items that would be among the best; 0 leaves it out */
  void *keep_arg;                        /* what `keep` is given */
  const uint64_t *allow; /* NULL: all; else a bitmap: number i is let in if bit i % 64 of allow[i / 64] is set */
  size_t n_allow;        /* bits of it; larger numbers are left out */
};

/* The *n items of the catalogue that the user would rate highest, best first, equal scores by number. `items`: (*n)
 * numbers; `scores`: (*n). *n becomes how many there are: fewer than were asked for if no more are left. On error *n
 * stays, and what is in the arrays says nothing. Allocates nothing. Errors: as of melu_catalog_score. Since: 1.0 */
MELU_API melu_status melu_catalog_top(uint32_t *items, float *scores, size_t *n, melu_workspace *workspace,
                                      const melu_catalog *catalog, const melu_user *user,
                                      const struct melu_top_options *options, melu_error *err);

/* The best k items for each of n_users users, as melu_catalog_top finds them, but the catalogue is read once. `items`,
 * `scores`: (n_users, k); `n`: (n_users), how many there are of each; `users`: (n_users); `options`: (n_users), or
 * NULL. Errors: as of melu_catalog_score; `index` is the user. Since: 1.0 */
MELU_API melu_status melu_catalog_top_users(uint32_t *items, float *scores, size_t *n, size_t k,
                                            melu_workspace *workspace, const melu_catalog *catalog,
                                            const melu_user *const *users, size_t n_users,
                                            const struct melu_top_options *options, melu_error *err);

/* -------------------------------------------------------------------------------------------------- asking */

/* How melu_candidates chooses. */
typedef enum melu_candidate_rule {
  MELU_EXPECTED_ERROR = 1, /* one after the other, that whose answers, with those before it, lower the absolute errors
                              of other ratings most. Two fifths of each user's ratings, up to 32, judge and are not
                              asked about, in each split others; who did not rate an item has no answer */
  MELU_GRADIENT_NORM = 2   /* MeLU, section 3.3: the mean over users of the norm of the inner loop's first gradient from
                              that one rating, times the number of ratings, each scaled to [0, 1] over the items */
} melu_candidate_rule;

/* Options of melu_candidates. */
struct melu_candidate_options {
  size_t size;
  melu_candidate_rule rule; /* 0: MELU_EXPECTED_ERROR */
  const uint32_t *users;    /* from whose ratings to learn, by position; NULL: all */
  size_t n_users;           /* how many */
  const uint32_t *items;    /* among which to choose, by position; NULL: all that were rated */
  size_t n_items;           /* how many */
  size_t max_items;         /* EXPECTED_ERROR: only the most rated ones of them; 0: 256; MELU_NONE: all */
  size_t n_splits;          /* EXPECTED_ERROR: how often users are split, melu_split_order's 0, 1, ...; 0: 4 */
};

/* The *n items to ask a new user about, best first: MeLU's evidence candidates. `items`: (*n); `scores`: (*n) or NULL:
 * the judges' mean absolute error once it and those before it were answered, or the product. *n becomes how many there
 * are. Users are taken with their profiles. Works on the context's threads, calls the progress callback; the same
 * result whatever the number of threads. Errors: MELU_EINVAL, MELU_ERANGE, MELU_ESCHEMA, MELU_ESTATE (not frozen),
 * MELU_ENOTFOUND (no ratings, or nobody has three), MELU_ELIMIT (EXPECTED_ERROR: *n of 4,096 or more),
 * MELU_EDIVERGED, MELU_ECANCELED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_candidates(uint32_t *items, double *scores, size_t *n, const melu_model *model,
                                     const melu_dataset *data, const struct melu_candidate_options *options,
                                     melu_error *err);

/* Options of melu_ask. */
struct melu_ask_options {
  size_t size;
  const uint32_t *items; /* among which to choose, each once, by position; NULL: all that she did not rate */
  size_t n_items;        /* how many */
  const float *chances;  /* that she has an answer, of each of them (n_items; of each item of the data set if `items` is
                            NULL), from 0 to 1; NULL: 1 */
  const uint32_t *targets; /* what is to be predicted well; more than once what matters more. NULL: what may be asked */
  size_t n_targets;        /* how many */
};

/* The *n best next questions for this user, each as if it were the only one, best first, equal ones by position.
 * `items`: (*n) positions in `data`; `gains`: (*n) or NULL. *n becomes how many there are. The gain of asking about x
 * is the mean over targets t of the expected square of what the answer changes in t's score, times the chance of an
 * answer: with melu_predict_variance's A = (F'F + P)^-1 it is by how much the variance of t falls,
 *     spread^2 noise (t A x')^2 / (1 + x A x' + new_x new[2]);
 * else (d score_t / d answer)^2, found by adapting with one more rating, a quarter of the ratings' range from the
 * prediction, towards its middle. Allocates. Errors: as of melu_predict; MELU_ERANGE (also: a chance outside [0, 1]),
 * MELU_ENOMEM; where answers are tried, MELU_ELIMIT (she has as many ratings as the workspace is for) and
 * MELU_ENOTFOUND (`data` lacks an item that she rated). Since: 1.0 */
MELU_API melu_status melu_ask(uint32_t *items, float *gains, size_t *n, melu_workspace *workspace,
                              const melu_model *model, const melu_user *user, const melu_dataset *data,
                              const struct melu_ask_options *options, melu_error *err);

/* --------------------------------------------------------------------------------------------- evaluation */

/* Means over users of what was added. nDCG is at 1, 3, 5 and 10; the ranking is by raw score, ties by the order of the
 * queries; "paper" has gains 2^rating - 1 (MeLU, eq. 8), "linear" has the rating itself. Where the best possible gain
 * is not positive, nDCG is 1. log_loss, auc and coverage are set where they apply, else 0. */
struct melu_metrics {
  size_t n_users;        /* how many users were added */
  size_t n_queries;      /* and how many queries of theirs */
  double mae;            /* mean over users of the mean absolute error; predictions clipped to the rating range */
  double mse;            /* mean over users of the mean squared error, clipped likewise */
  double rmse;           /* its square root */
  double rmse_pooled;    /* square root of the mean over all queries */
  double rmse_user;      /* mean over users of the square root */
  double ndcg_paper[4];  /* mean nDCG at 1, 3, 5, 10 */
  double ndcg_linear[4]; /* likewise */
  double log_loss;       /* MELU_LOGISTIC: mean cross-entropy, in nats; by melu_metrics_clicks too */
  double auc;         /* MELU_LOGISTIC: how often a click has a higher score than none, over all pairs of queries; equal
                         scores count half. Without both kinds 0.5 */
  double coverage;    /* with `intervals`: share of queries inside their 80 % interval */
  double reserved[8]; /* 0: room for what later versions measure */
};

/* Adds one user's n queries to the means; start with a struct of zeros. Errors: MELU_EINVAL (NULL, n = 0, rating_min
 * above rating_max), MELU_ERANGE (a score or rating is not finite). Since: 1.0 */
MELU_API melu_status melu_metrics_add(struct melu_metrics *metrics, const float *scores, const float *ratings, size_t n,
                                      double rating_min, double rating_max, melu_error *err);

/* Sets log_loss and auc of `metrics` from all queries: scores are logits, labels 1 for a click (above 0.5) and 0 for
 * none; both (n). Errors: MELU_EINVAL (NULL, n = 0), MELU_ERANGE (not finite), MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_metrics_clicks(struct melu_metrics *metrics, const melu_context *ctx, const float *scores,
                                         const float *labels, size_t n, melu_error *err);

/* Options of melu_evaluate. */
struct melu_evaluate_options {
  size_t size;
  const uint32_t *users;       /* judge those of these users, by position, who are eligible; NULL: of all */
  size_t n_users;              /* how many */
  uint64_t split;              /* which split: see melu_split_order */
  size_t n_query;              /* 0: 10 */
  size_t min_ratings;          /* users with fewer ratings are left out; 0: n_query + 3 */
  size_t max_ratings;          /* 0: 100; MELU_NONE: no limit */
  size_t max_support;          /* the first so many of the support order; 0: all; MELU_NONE: none */
  const melu_dataset *history; /* what else is known of users, by their ids: their ratings in this set, of the same
                                  items, join the support set. NULL: nothing */
  int intervals;      /* not 0: measure the coverage too, of models that have variances (melu_predict_variance) */
  size_t max_history; /* of a longer list so many, those first in the order of split 0; 0: all */
};

/* Adapts the model to the support set of each eligible user and judges it by the query set. Calls the progress
 * callback. Messages name the user. Errors: MELU_EINVAL, MELU_ELIMIT (more than 4,096 support ratings), MELU_ERANGE (a
 * user with more than 65,536 ratings), MELU_ESCHEMA, MELU_ESTATE, MELU_ENOTFOUND (no eligible user), MELU_EDIVERGED,
 * MELU_ECANCELED, MELU_ENOMEM. Since: 1.0 */
MELU_API melu_status melu_evaluate(struct melu_metrics *out, const melu_model *model, const melu_dataset *data,
                                   const struct melu_evaluate_options *options, melu_error *err);

/* Options of melu_choose. */
struct melu_choose_options {
  size_t size;
  double validation; /* share of the users with enough ratings to be judged by who are not trained on; 0: 0.1 */
  uint64_t seed;     /* of who they are */
  const struct melu_evaluate_options *evaluate; /* how they are judged; its users are drawn. NULL: its defaults */
};

/* Chooses settings: trains a model for each of n candidates, models[i] with fits[i], on the same users, and judges it
 * by the others: by mean absolute error, or log loss with MELU_LOGISTIC. `errors`: (n), what each came to; NULL if not
 * wanted. *best: the index of the smallest, the first of equal ones. Nothing is kept of the models: train the best one
 * on all users. The same arguments give the same choice, whatever the number of threads. A candidate whose training
 * diverges has the error INFINITY; if all do, MELU_EDIVERGED. Errors: as of melu_model_new, melu_fit and melu_evaluate;
 * MELU_EINVAL, MELU_ERANGE, MELU_ENOTFOUND (too few users). Since: 1.0 */
MELU_API melu_status melu_choose(size_t *best, double *errors, const melu_context *ctx, const melu_dataset *data,
                                 const struct melu_model_options *models, const struct melu_fit_options *fits, size_t n,
                                 const struct melu_choose_options *options, melu_error *err);

#ifdef __cplusplus
}
#endif

#endif
