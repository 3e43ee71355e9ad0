/* SPDX-License-Identifier: BSD-3-Clause */
/* Shard folders: what was written, in any order, is read as it was, in memory of any size, and every refusal. */
#include <errno.h>
#include <math.h>

#include "base/mix.h"
#include "base/rng.h"
#include "io/shards.h"
#include "json_memory.h"
#include "run_suite.h"
#include "shard_world.h"
#include "support.h"

static melu_error err;

#define REFUSED(call, expected, text)                                                                                \
  do {                                                                                                               \
    const melu_status status_ = (call);                                                                              \
    ck_assert_msg(status_ == (expected) && err.status == (expected), "%s: %s: %s", #call, melu_status_name(status_), \
                  err.message);                                                                                      \
    ck_assert_msg(strstr(err.message, text), "\"%s\" does not say \"%s\"", err.message, (text));                     \
  } while (0)

static melu_shard_writer *new_writer(const struct shard_world *w, const struct melu_shard_options *options) {
  melu_shard_writer *writer;
  SHARD_TRY(melu_shard_writer_new(&writer, w->ctx, w->folder, w->data, options, &err));
  return writer;
}

static melu_shards *open_shards(const struct shard_world *w) {
  melu_shards *shards;
  SHARD_TRY(melu_shards_open(&shards, w->ctx, w->folder, &err));
  return shards;
}

/* -------------------------------------------------------------------------------------------------- round trips */

static void same_values(const struct melu_value *a, const struct melu_value *b) {
  for (size_t f = 0; f < SHARD_FIELDS; f++) {
    ck_assert_uint_eq(a[f].n_ids, b[f].n_ids);
    ck_assert_uint_eq(a[f].n_numbers, b[f].n_numbers);
    for (size_t i = 0; i < a[f].n_ids; i++) ck_assert_uint_eq(a[f].ids[i], b[f].ids[i]);
    for (size_t i = 0; i < a[f].n_numbers; i++) ck_assert(a[f].numbers[i] == b[f].numbers[i]);
  }
}

/* A user of a file against what was added. */
static void check_user(const melu_dataset *file, uint32_t at, uint32_t user) {
  static const struct melu_value missing[SHARD_FIELDS];
  struct melu_value values[SHARD_FIELDS];
  const struct melu_value *given = shard_profile(user);
  const uint32_t *items;
  const float *ratings;
  SHARD_TRY(melu_dataset_user_values(values, file, at, &err));
  same_values(values, given ? given : missing);
  ck_assert_uint_eq(melu_dataset_ratings(file, at, &items, &ratings), shard_n_ratings(user));
  for (size_t i = 0; i < shard_n_ratings(user); i++) {
    ck_assert_uint_eq(items[i], shard_item(user, i));
    ck_assert(ratings[i] == shard_rating(user, i));
  }
}

static void check_items(const struct shard_world *w, const melu_dataset *items) {
  struct melu_value values[SHARD_FIELDS], given[SHARD_FIELDS];
  melu_dataset *frozen;
  SHARD_TRY(melu_dataset_new(&frozen, w->ctx, w->schema, &err));
  shard_add_items(frozen);
  SHARD_TRY(melu_dataset_freeze(frozen, &err));
  ck_assert(melu__schema_equal(melu_dataset_schema(items), melu_dataset_schema(frozen)));
  ck_assert_uint_eq(melu_dataset_n_items(items), SHARD_ITEMS);
  ck_assert_uint_eq(melu_dataset_n_users(items), 0);
  for (uint32_t i = 0; i < SHARD_ITEMS; i++) {
    ck_assert_uint_eq(melu_dataset_item_id(items, i), shard_item_id(i));
    SHARD_TRY(melu_dataset_item_values(values, items, i, &err));
    SHARD_TRY(melu_dataset_item_values(given, frozen, i, &err));
    same_values(values, given);
  }
  melu_dataset_free(frozen);
}

/* Everything is there, once, where it belongs, users in the order of their ids. */
static void check_all(const struct shard_world *w, size_t n_files) {
  melu_shards *shards = open_shards(w);
  struct melu_shards_info info = {.size = sizeof info};
  size_t n_users = 0, n_ratings = 0;
  check_items(w, melu_shards_items(shards));
  for (size_t f = 0; f < n_files; f++) {
    melu_dataset *file;
    SHARD_TRY(melu_shards_read(&file, shards, f, &err));
    for (uint32_t at = 0; at < melu_dataset_n_users(file); at++) {
      const uint64_t id = melu_dataset_user_id(file, at);
      uint32_t user = 0;
      while (shard_user_id(user) != id) ck_assert_uint_lt(++user, SHARD_USERS);
      check_user(file, at, user);
      ck_assert(at == 0 || id > melu_dataset_user_id(file, at - 1));
      ck_assert_uint_eq(melu__mix64(id) % n_files, f);
    }
    n_users += melu_dataset_n_users(file);
    n_ratings += melu_dataset_n_ratings(file);
    melu_dataset_free(file);
  }
  SHARD_TRY(melu_shards_describe(&info, shards, &err));
  ck_assert_uint_eq(info.n_users, n_users);
  ck_assert_uint_eq(n_users, SHARD_USERS);
  ck_assert_uint_eq(info.n_ratings, n_ratings);
  ck_assert_uint_eq(info.n_items, SHARD_ITEMS);
  ck_assert_uint_eq(info.n_files, n_files);
  ck_assert_uint_eq(info.max_ratings, 12);
  ck_assert(info.rating_min == -1 && info.rating_max == 3.75F);
  melu_shards_free(shards);
}

static const size_t file_counts[] = {1, 2, 15, 128}; /* of the last some are empty */

START_TEST(a_data_set_comes_back) {
  const size_t n_files = file_counts[_i / 2];
  struct shard_world w;
  shard_world_open(&w, NULL, 1);
  if (_i % 2) SHARD_TRY(melu_dataset_freeze(w.data, &err));
  shard_write(&w, n_files);
  ck_assert_uint_eq(folder_files(w.folder, 0), n_files + 1);
  check_all(&w, n_files);
  shard_world_close(&w);
}
END_TEST

/* Users and ratings one by one, users in a random order, each one's ratings before and behind her, many ratings for one
 * block. */
static void add_shuffled(melu_shard_writer *writer) {
  struct melu__rng rng = melu__rng(1, 0, 0, 0);
  uint32_t order[SHARD_USERS];
  for (uint32_t u = 0; u < SHARD_USERS; u++) order[u] = u;
  melu__rng_shuffle(&rng, order, SHARD_USERS);
  for (size_t i = 0; i < 13; i++)
    for (size_t k = 0; k < SHARD_USERS; k++) {
      const uint32_t u = order[k];
      if (i == u % 13) SHARD_TRY(melu_shard_writer_add_user(writer, shard_user_id(u), shard_profile(u), &err));
      if (i < shard_n_ratings(u))
        SHARD_TRY(melu_shard_writer_add_rating(writer, shard_user_id(u), shard_item_id(shard_item(u, i)),
                                               shard_rating(u, i), &err));
    }
}

/* The bytes of a file; to be freed. */
static char *bytes_of(const struct shard_world *w, size_t file, size_t *n) {
  char path[128];
  snprintf(path, sizeof path, "%s/users-%05zu.safetensors", w->folder, file);
  FILE *stream = fopen(path, "rb");
  ck_assert_ptr_nonnull(stream);
  fseek(stream, 0, SEEK_END);
  *n = (size_t)ftell(stream);
  rewind(stream);
  char *bytes = malloc(*n);
  ck_assert(bytes && fread(bytes, 1, *n, stream) == *n);
  fclose(stream);
  return bytes;
}

/* In memory for a few records a file, and for all of them, there are the same files. */
START_TEST(any_order_and_memory) {
  const size_t n_files = 4, buffers[] = {1, 0};
  struct shard_world w, other;
  shard_world_open(&w, NULL, 0);
  shard_world_open(&other, NULL, 1);
  shard_write(&other, n_files);
  const struct melu_shard_options options = {.size = sizeof options, .n_files = n_files, .buffer_bytes = buffers[_i]};
  melu_shard_writer *writer = new_writer(&w, &options);
  ck_assert_uint_eq(folder_files(w.folder, 0), 0); /* the temporary file has no name */
  add_shuffled(writer);
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  check_all(&w, n_files);
  for (size_t f = 0; f < n_files; f++) {
    size_t n, m;
    char *ours = bytes_of(&w, f, &n), *theirs = bytes_of(&other, f, &m);
    ck_assert(n == m && memcmp(ours, theirs, n) == 0);
    free(ours);
    free(theirs);
  }
  shard_world_close(&w);
  shard_world_close(&other);
}
END_TEST

/* A file can be written again, from what was read. */
START_TEST(files_are_data_sets) {
  struct shard_world w, copy;
  shard_world_open(&w, NULL, 1);
  shard_world_open(&copy, NULL, 0);
  shard_write(&w, 1);
  melu_shards *shards = open_shards(&w);
  melu_dataset_free(copy.data);
  SHARD_TRY(melu_shards_read(&copy.data, shards, 0, &err));
  shard_write(&copy, 8);
  melu_dataset_free(copy.data);
  copy.data = NULL;
  check_all(&copy, 8);
  melu_shards_free(shards);
  shard_world_close(&copy);
  shard_world_close(&w);
}
END_TEST

/* The schema of people of whom nothing is known, and items of which nothing is. */
START_TEST(without_fields) {
  struct shard_world w;
  shard_world_open(&w, NULL, 0);
  melu_dataset_free(w.data);
  melu_schema_free(w.schema);
  SHARD_TRY(melu_schema_new(&w.schema, w.ctx, &err));
  SHARD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  SHARD_TRY(melu_dataset_add_item(w.data, 5, NULL, NULL, &err));
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 2, .users_from_ratings = 1};
  melu_shard_writer *writer = new_writer(&w, &options);
  SHARD_TRY(melu_shard_writer_add_rating(writer, 9, 5, 0.5F, &err));
  SHARD_TRY(melu_shard_writer_add_user(writer, 8, NULL, &err));
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  melu_shards *shards = open_shards(&w);
  struct melu_shards_info info = {.size = sizeof info};
  SHARD_TRY(melu_shards_describe(&info, shards, &err));
  ck_assert(info.n_users == 2 && info.n_ratings == 1 && info.rating_min == 0.5F && info.rating_max == 0.5F);
  melu_shards_free(shards);
  shard_world_close(&w);
}
END_TEST

START_TEST(nothing_at_all) {
  struct shard_world w;
  struct melu_shards_info info = {.size = sizeof info};
  shard_world_open(&w, NULL, 0);
  shard_write(&w, 0);
  ck_assert_uint_eq(folder_files(w.folder, 0), 257);
  melu_shards *shards = open_shards(&w);
  SHARD_TRY(melu_shards_describe(&info, shards, &err));
  ck_assert(info.n_users == 0 && info.n_ratings == 0 && info.max_ratings == 0 && info.rating_min == 0);
  melu_shards_free(shards);
  shard_world_close(&w);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- refusals */

START_TEST(wrong_arguments) {
  struct shard_world w;
  melu_shard_writer *writer;
  melu_shards *shards;
  melu_dataset *file;
  struct melu_shard_options options = {.size = sizeof options};
  struct melu_shards_info info = {.size = sizeof info};
  shard_world_open(&w, NULL, 1);
  REFUSED(melu_shard_writer_new(NULL, w.ctx, w.folder, w.data, NULL, &err), MELU_EINVAL, "out is NULL");
  REFUSED(melu_shard_writer_new(&writer, NULL, w.folder, w.data, NULL, &err), MELU_EINVAL, "ctx is NULL");
  REFUSED(melu_shard_writer_new(&writer, w.ctx, NULL, w.data, NULL, &err), MELU_EINVAL, "folder is NULL");
  REFUSED(melu_shard_writer_new(&writer, w.ctx, w.folder, NULL, NULL, &err), MELU_EINVAL, "data is NULL");
  options.n_files = 65537;
  REFUSED(melu_shard_writer_new(&writer, w.ctx, w.folder, w.data, &options, &err), MELU_ELIMIT, "n_files is 65537");
  ck_assert_ptr_null(writer);
  options.size = 1;
  REFUSED(melu_shard_writer_new(&writer, w.ctx, w.folder, w.data, &options, &err), MELU_EINVAL, "melu_shard_options");
  REFUSED(melu_shard_writer_new(&writer, w.ctx, "/nowhere/at/all", w.data, NULL, &err), MELU_EIO, "/nowhere/at/all");
  REFUSED(melu_shard_writer_new(&writer, w.ctx, "/proc", w.data, NULL, &err), MELU_EIO, "create a temporary file");
  REFUSED(melu_shard_writer_new(&writer, w.ctx, "/dev/null", w.data, NULL, &err), MELU_EIO, "look into");
  REFUSED(melu_shard_writer_add_user(NULL, 1, NULL, &err), MELU_EINVAL, "writer is NULL");
  REFUSED(melu_shard_writer_add_rating(NULL, 1, 1, 1, &err), MELU_EINVAL, "writer is NULL");
  REFUSED(melu_shard_writer_finish(NULL, &err), MELU_EINVAL, "writer is NULL");
  melu_shard_writer_free(NULL);

  REFUSED(melu_shards_open(&shards, w.ctx, w.folder, &err), MELU_ENOTFOUND, "manifest");
  ck_assert_ptr_null(shards);
  REFUSED(melu_shards_open(NULL, w.ctx, w.folder, &err), MELU_EINVAL, "out is NULL");
  REFUSED(melu_shards_open(&shards, NULL, w.folder, &err), MELU_EINVAL, "ctx is NULL");
  REFUSED(melu_shards_open(&shards, w.ctx, NULL, &err), MELU_EINVAL, "folder is NULL");
  shard_write(&w, 2);
  shards = open_shards(&w);
  REFUSED(melu_shards_read(NULL, shards, 0, &err), MELU_EINVAL, "out is NULL");
  REFUSED(melu_shards_read(&file, NULL, 0, &err), MELU_EINVAL, "shards is NULL");
  REFUSED(melu_shards_read(&file, shards, 2, &err), MELU_ERANGE, "file 2 is not below 2");
  ck_assert_ptr_null(file);
  REFUSED(melu_shards_describe(NULL, shards, &err), MELU_EINVAL, "info is NULL");
  REFUSED(melu_shards_describe(&info, NULL, &err), MELU_EINVAL, "shards is NULL");
  ck_assert_ptr_null(melu_shards_items(NULL));
  melu_shards_free(shards);
  melu_shards_free(NULL);
  shard_world_close(&w);
}
END_TEST

/* What is refused leaves nothing behind, and the rest can be finished. */
START_TEST(wrong_users_and_ratings) {
  const uint32_t nine = 9;
  const float no_number = NAN;
  const struct melu_value outside[SHARD_FIELDS] = {{.ids = &nine, .n_ids = 1}},
                          odd[SHARD_FIELDS] = {{0}, {0}, {.numbers = &no_number, .n_numbers = 1}};
  struct shard_world w;
  shard_world_open(&w, NULL, 0);
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 4};
  melu_shard_writer *writer = new_writer(&w, &options);
  REFUSED(melu_shard_writer_add_user(writer, 7, outside, &err), MELU_ERANGE, "user 7: field \"job\": id 9");
  REFUSED(melu_shard_writer_add_user(writer, 7, odd, &err), MELU_EINVAL, "user 7: field \"age\"");
  REFUSED(melu_shard_writer_add_rating(writer, 7, 1, 1, &err), MELU_ENOTFOUND, "there is no item 1");
  REFUSED(melu_shard_writer_add_rating(writer, 7, shard_item_id(0), INFINITY, &err), MELU_ERANGE,
          "user 7: the rating of item 1000 is not finite");
  add_shuffled(writer);
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  REFUSED(melu_shard_writer_add_user(writer, 7, NULL, &err), MELU_ESTATE, "finished");
  REFUSED(melu_shard_writer_add_rating(writer, 7, shard_item_id(0), 1, &err), MELU_ESTATE, "finished");
  REFUSED(melu_shard_writer_finish(writer, &err), MELU_ESTATE, "finished");
  melu_shard_writer_free(writer);
  check_all(&w, 4);
  REFUSED(melu_shard_writer_new(&writer, w.ctx, w.folder, w.data, &options, &err), MELU_ESTATE, "a data set already");
  ck_assert_ptr_null(writer);
  check_all(&w, 4);
  shard_world_close(&w);
}
END_TEST

/* Who is missing may come later; who is there twice is so for good. */
START_TEST(missing_and_double_users) {
  struct shard_world w;
  shard_world_open(&w, NULL, 1);
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 4};
  melu_shard_writer *writer = new_writer(&w, &options);
  SHARD_TRY(melu_shard_writer_add_rating(writer, 77, shard_item_id(3), 2, &err));
  REFUSED(melu_shard_writer_finish(writer, &err), MELU_ENOTFOUND, "there is no user 77, but ratings");
  SHARD_TRY(melu_shard_writer_add_user(writer, 77, NULL, &err));
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  melu_shards *shards = open_shards(&w);
  struct melu_shards_info info = {.size = sizeof info};
  SHARD_TRY(melu_shards_describe(&info, shards, &err));
  ck_assert_uint_eq(info.n_users, SHARD_USERS + 1);
  melu_shards_free(shards);
  folder_files(w.folder, 1);

  writer = new_writer(&w, &options);
  SHARD_TRY(melu_shard_writer_add_user(writer, shard_user_id(5), NULL, &err));
  REFUSED(melu_shard_writer_finish(writer, &err), MELU_ESTATE, "the id is taken");
  melu_shard_writer_free(writer);
  ck_assert_uint_eq(folder_files(w.folder, 0), 0);
  shard_world_close(&w);
}
END_TEST

static int stop_at_second(void *arg, const struct melu_progress *progress) {
  size_t *n = arg;
  ck_assert_str_eq(progress->phase, "write");
  ck_assert_uint_eq(progress->total, 4);
  return ++*n == 2 && progress->done == 2;
}

/* A folder that was begun is no data set; who goes on ends with the same one. */
START_TEST(interrupted) {
  size_t n = 0;
  const struct melu_context_options host = {.size = sizeof host, .progress = stop_at_second, .progress_arg = &n};
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 4};
  struct shard_world w;
  melu_shards *shards;
  shard_world_open(&w, &host, 1);
  melu_shard_writer *writer = new_writer(&w, &options);
  REFUSED(melu_shard_writer_finish(writer, &err), MELU_ECANCELED, "");
  ck_assert_uint_eq(folder_files(w.folder, 0), 2);
  REFUSED(melu_shards_open(&shards, w.ctx, w.folder, &err), MELU_ENOTFOUND, "manifest");
  if (_i == 0) {
    melu_shard_writer_free(writer);
    ck_assert_uint_eq(folder_files(w.folder, 0), 0);
    shard_write(&w, 4);
  } else {
    SHARD_TRY(melu_shard_writer_finish(writer, &err));
    ck_assert_uint_eq(n, 4);
    melu_shard_writer_free(writer);
  }
  check_all(&w, 4);
  shard_world_close(&w);
}
END_TEST

/* So that a file of any folder can be read whole in memory that is known. */
START_TEST(largest_files) {
  enum { MOST = 1 << 22 };
  struct shard_world w;
  struct melu_shards_info info = {.size = sizeof info};
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 1, .users_from_ratings = 1};
  shard_world_open(&w, NULL, 0);
  melu_shard_writer *writer = new_writer(&w, &options);
  melu_status status = MELU_OK; /* an assertion costs more than a rating */
  for (uint32_t i = 0; i < MOST && !status; i++)
    status = melu_shard_writer_add_rating(writer, i % 2, shard_item_id(i % SHARD_ITEMS), 1, &err);
  SHARD_TRY(status);
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  melu_shards *shards = open_shards(&w);
  SHARD_TRY(melu_shards_describe(&info, shards, &err));
  ck_assert(info.n_ratings == MOST && info.max_ratings == MOST / 2);
  melu_shards_free(shards);
  folder_files(w.folder, 1);

  writer = new_writer(&w, &options);
  for (uint32_t i = 0; i <= MOST; i++) SHARD_TRY(melu_shard_writer_add_rating(writer, i, shard_item_id(0), 1, &err));
  REFUSED(melu_shard_writer_finish(writer, &err), MELU_ELIMIT, "4194305 ratings, more than 4194304");
  melu_shard_writer_free(writer);
  writer = new_writer(&w, &options);
  for (uint32_t i = 0; i <= MOST / 2 && !status; i++) status = melu_shard_writer_add_user(writer, i, NULL, &err);
  SHARD_TRY(status);
  REFUSED(melu_shard_writer_finish(writer, &err), MELU_ELIMIT, "of profiles, more than 4194304");
  melu_shard_writer_free(writer);
  shard_world_close(&w);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ memory */

static struct test_heap heap;

static void open_counted(struct shard_world *w) {
  static struct melu_allocator allocator;
  memset(&heap, 0, sizeof heap);
  allocator = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  shard_world_open(w, &options, 1);
}

/* The next request number n is refused, and so on until none is. */
static void refuse(size_t n) {
  heap.fail_at = atomic_load(&heap.made) + n;
}

static size_t fail_each(melu_status (*call)(void *arg), void *arg) {
  size_t n = 1;
  for (;; n++) {
    const size_t live = atomic_load(&heap.live);
    refuse(n);
    const melu_status status = call(arg);
    heap.fail_at = 0;
    if (status == MELU_OK) return n;
    ck_assert_msg(status == MELU_ENOMEM && err.status == MELU_ENOMEM, "request %zu: %s", n, err.message);
    ck_assert_msg(atomic_load(&heap.live) == live, "request %zu: memory is lost", n);
  }
}

struct writing {
  struct shard_world *w;
  melu_shard_writer *writer;
  melu_shards *shards;
};

static melu_status make(void *arg) {
  struct writing *t = arg;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 2, .buffer_bytes = 1};
  return melu_shard_writer_new(&t->writer, t->w->ctx, t->w->folder, t->w->data, &options, &err);
}

static melu_status open_all(void *arg) {
  struct writing *t = arg;
  return melu_shards_open(&t->shards, t->w->ctx, t->w->folder, &err);
}

static melu_status read_all(void *arg) {
  const struct writing *t = arg;
  melu_dataset *file;
  const melu_status status = melu_shards_read(&file, t->shards, 1, &err);
  melu_dataset_free(file);
  return status;
}

static melu_status finish(void *arg) {
  const struct writing *t = arg;
  return melu_shard_writer_finish(t->writer, &err);
}

START_TEST(no_memory) {
  struct shard_world w;
  open_counted(&w);
  struct writing t = {.w = &w};
  ck_assert_uint_gt(fail_each(make, &t), 10);
  ck_assert_uint_gt(fail_each(finish, &t), 20);
  melu_shard_writer_free(t.writer);
  ck_assert_uint_gt(fail_each(open_all, &t), 20);
  ck_assert_uint_gt(fail_each(read_all, &t), 20);
  melu_shards_free(t.shards);
  check_all(&w, 2);
  shard_world_close(&w);
  ck_assert_uint_eq(atomic_load(&heap.live), 0);
}
END_TEST

/* A writer of one file that keeps next to nothing in memory, and a data set of no users yet. */
static melu_shard_writer *new_users(struct shard_world *w) {
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 1, .buffer_bytes = 1};
  melu_dataset_free(w->data);
  SHARD_TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  shard_add_items(w->data);
  return new_writer(w, &options);
}

/* A user who could not be added has no part in what is written. */
START_TEST(no_memory_for_a_user) {
  struct shard_world w;
  open_counted(&w);
  melu_shard_writer *writer = new_users(&w);
  size_t n_refused = 0;
  for (uint32_t u = 0; u < SHARD_USERS; u++) {
    refuse(1); /* when a block is full, now and then, in the midst of her profile */
    if (melu_shard_writer_add_user(writer, shard_user_id(u), shard_profile(u), &err)) {
      n_refused++;
      heap.fail_at = 0;
      if (u % 2) SHARD_TRY(melu_shard_writer_add_user(writer, shard_user_id(u), shard_profile(u), &err));
    }
    heap.fail_at = 0;
    for (size_t i = 0; i < shard_n_ratings(u); i++)
      SHARD_TRY(melu_shard_writer_add_rating(writer, shard_user_id(u), shard_item_id(shard_item(u, i)),
                                             shard_rating(u, i), &err));
  }
  ck_assert_uint_gt(n_refused, 2);
  melu_status status;
  for (size_t n = 0; (status = melu_shard_writer_finish(writer, &err)) == MELU_ENOTFOUND; n++) {
    uint32_t u = 0;
    const uint64_t id = strtoull(strstr(err.message, "user ") + 5, NULL, 10);
    while (shard_user_id(u) != id) u++;
    ck_assert_uint_lt(n, n_refused);
    SHARD_TRY(melu_shard_writer_add_user(writer, id, shard_profile(u), &err));
  }
  SHARD_TRY(status);
  melu_shard_writer_free(writer);
  melu_shards *shards = open_shards(&w);
  melu_dataset *file;
  SHARD_TRY(melu_shards_read(&file, shards, 0, &err));
  for (uint32_t at = 0; at < melu_dataset_n_users(file); at++) {
    uint32_t user = 0;
    while (shard_user_id(user) != melu_dataset_user_id(file, at)) ck_assert_uint_lt(++user, SHARD_USERS);
    check_user(file, at, user);
  }
  melu_dataset_free(file);
  melu_shards_free(shards);
  shard_world_close(&w);
}
END_TEST

/* Whoever could not be added, and was not tried again, is not there. */
START_TEST(no_memory_for_users_without_ratings) {
  enum { TIMES = 40 };
  struct shard_world w;
  unsigned char is_added[TIMES * SHARD_USERS];
  open_counted(&w);
  melu_shard_writer *writer = new_users(&w);
  size_t n_added = 0;
  for (uint32_t u = 0; u < TIMES * SHARD_USERS; u++) {
    if (u % 2) refuse(1); /* when a block is full, in the midst of a profile; the next one makes room */
    is_added[u] = melu_shard_writer_add_user(writer, u, shard_profile(u), &err) == MELU_OK;
    heap.fail_at = 0;
    n_added += is_added[u];
  }
  ck_assert_uint_lt(n_added, TIMES * SHARD_USERS);
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  melu_shards *shards = open_shards(&w);
  melu_dataset *file;
  SHARD_TRY(melu_shards_read(&file, shards, 0, &err));
  ck_assert_uint_eq(melu_dataset_n_users(file), n_added);
  for (uint32_t at = 0; at < n_added; at++) ck_assert(is_added[melu_dataset_user_id(file, at)]);
  melu_dataset_free(file);
  melu_shards_free(shards);
  shard_world_close(&w);
}
END_TEST

/* A writer that ends when there is no memory any more leaves what it cannot remove, and loses nothing. */
START_TEST(no_memory_from_there_on) {
  struct shard_world w;
  open_counted(&w);
  struct writing t = {.w = &w};
  const size_t live = atomic_load(&heap.live);
  size_t n_refused = 0;
  melu_status status;
  do {
    SHARD_TRY(make(&t));
    heap.from_there_on = 1;
    refuse(++n_refused);
    status = finish(&t);
    ck_assert(status == MELU_OK || status == MELU_ENOMEM);
    melu_shard_writer_free(t.writer);
    heap.from_there_on = 0;
    heap.fail_at = 0;
    ck_assert_uint_eq(atomic_load(&heap.live), live);
    if (status) folder_files(w.folder, 1);
  } while (status);
  ck_assert_uint_gt(n_refused, 20);
  check_all(&w, 2);
  shard_world_close(&w);
}
END_TEST

START_TEST(no_memory_for_jansson) {
  struct shard_world w;
  shard_world_open(&w, NULL, 1);
  struct writing t = {.w = &w};
  SHARD_TRY(make(&t));
  size_t n = 0;
  melu_status status;
  do {
    json_refuse(++n);
    status = finish(&t);
    ck_assert_int_eq(status, json_made < n ? MELU_OK : MELU_ENOMEM);
  } while (status);
  ck_assert_uint_gt(n, 20);
  json_refuse_none();
  melu_shard_writer_free(t.writer);
  check_all(&w, 2);
  shard_world_close(&w);
}
END_TEST

/* ------------------------------------------------------------------------------------------ a system that fails */

/* The library calls these instead of the C library's: the one of that number transfers nothing. */
static size_t n_transfers, empty_transfer;

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
  if (++n_transfers == empty_transfer) return 0;
  return lseek(fd, at, SEEK_SET) < 0 ? -1 : write(fd, bytes, n);
}

ssize_t pread(int fd, void *bytes, size_t n, off_t at) {
  if (++n_transfers == empty_transfer) return 0;
  return lseek(fd, at, SEEK_SET) < 0 ? -1 : read(fd, bytes, n);
}

/* Records that did not fit into memory, and are not written, or not read; the next attempt does it. */
START_TEST(nothing_is_transferred) {
  size_t n_failed = 0, n;
  int is_over = 0;
  for (n = 1; !is_over; n += 7) {
    struct shard_world w;
    struct writing t = {.w = &w};
    shard_world_open(&w, NULL, 1);
    n_transfers = 0;
    empty_transfer = n;
    melu_status (*const calls[])(void *arg) = {make, finish};
    for (size_t i = 0; i < 2; i++) {
      const melu_status status = calls[i](&t);
      if (!status) continue;
      REFUSED(status, MELU_EIO, strerror(EIO));
      n_failed++;
      SHARD_TRY(calls[i](&t));
    }
    is_over = n_transfers < n;
    empty_transfer = 0;
    melu_shard_writer_free(t.writer);
    check_all(&w, 2);
    shard_world_close(&w);
  }
  ck_assert_uint_gt(n_failed, 10);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("shards");
  TCase *trips = tcase_create("round trips"), *refusals = tcase_create("refusals"), *memory = tcase_create("memory");
  tcase_add_loop_test(trips, a_data_set_comes_back, 0, 2 * (int)(sizeof file_counts / sizeof *file_counts));
  tcase_add_loop_test(trips, any_order_and_memory, 0, 2);
  tcase_add_test(trips, files_are_data_sets);
  tcase_add_test(trips, without_fields);
  tcase_add_test(trips, nothing_at_all);
  tcase_add_test(refusals, wrong_arguments);
  tcase_add_test(refusals, wrong_users_and_ratings);
  tcase_add_test(refusals, missing_and_double_users);
  tcase_add_loop_test(refusals, interrupted, 0, 2);
  tcase_add_test(refusals, largest_files);
  tcase_add_test(memory, no_memory);
  tcase_add_test(memory, no_memory_for_a_user);
  tcase_add_test(memory, no_memory_for_users_without_ratings);
  tcase_add_test(memory, no_memory_from_there_on);
  tcase_add_test(memory, no_memory_for_jansson);
  tcase_add_test(refusals, nothing_is_transferred);
  tcase_set_timeout(trips, 60); /* hundreds of files are forced to the disk */
  tcase_set_timeout(refusals, 60);
  suite_add_tcase(suite, trips);
  suite_add_tcase(suite, refusals);
  suite_add_tcase(suite, memory);
  return run_suite(suite);
}
