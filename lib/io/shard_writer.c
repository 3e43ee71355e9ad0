/* SPDX-License-Identifier: BSD-3-Clause */
/* What is added goes to two buckets for each file, one of profiles and one of ratings, which melu_shard_writer_finish
 * sorts by user, file by file. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/interrupted.h"
#include "io/shard_sorted.h"

enum { DEFAULT_FILES = 256, DEFAULT_BUFFER = 64 << 20, LEAST_BLOCK = 16, BUCKETS = 2 };

struct melu_shard_writer {
  const melu_context *ctx;
  const melu_dataset *data; /* the host's, with the items */
  melu_schema *schema;      /* its schema, with vocabularies that are complete */
  char *folder;
  struct melu_shard_options options;
  struct melu__spill spill; /* file f: profiles in bucket 2 f, ratings in bucket 2 f + 1 */
  struct melu__shard_list list;
  size_t n_written; /* files that are as they should be: none once something was added */
  size_t n_made;    /* files that may be there */
  int is_finished;
};

/* ------------------------------------------------------------------------------------------------- making one */

static melu_status resolve(struct melu_shard_options *o, const struct melu_shard_options *given, melu_error *err) {
  const melu_status status = melu__options(o, sizeof *o, given, "melu_shard_options", err);
  if (status) return status;
  if (o->n_files == 0) o->n_files = DEFAULT_FILES;
  if (o->buffer_bytes == 0) o->buffer_bytes = DEFAULT_BUFFER;
  if (o->n_files > MELU__MOST_FILES)
    return melu__fail(err, MELU_ELIMIT, "n_files is %zu, above %u", o->n_files, MELU__MOST_FILES);
  return MELU_OK;
}

/* A folder that has a manifest is a data set already. */
static melu_status check_folder(const struct melu_shard_writer *w, melu_error *err) {
  struct stat info;
  int failed;
  char *path = melu__manifest_path(&w->ctx->allocator, w->folder);
  if (!path) return melu__fail_memory(err);
  do failed = stat(path, &info);
  while (melu__interrupted(failed));
  const int error = failed ? errno : 0;
  melu__free(&w->ctx->allocator, path);
  if (error == ENOENT) return MELU_OK;
  if (error) return melu__fail_errno(err, MELU_EIO, error, "cannot look into the folder \"%.100s\"", w->folder);
  return melu__fail(err, MELU_ESTATE, "the folder \"%.100s\" has a data set already", w->folder);
}

static melu_status open_spill(struct melu_shard_writer *w, melu_error *err) {
  const size_t n_buckets = BUCKETS * w->options.n_files,
               block = w->options.buffer_bytes / n_buckets / sizeof(struct melu__record);
  return melu__spill_open(&w->spill, w->ctx, w->folder, n_buckets, block < LEAST_BLOCK ? LEAST_BLOCK : block, err);
}

/* Its items stay where they are; its users and ratings are as if they were added. */
static melu_status add_data(struct melu_shard_writer *w, melu_error *err) {
  const melu_dataset *data = w->data;
  struct melu_value values[MELU__MAX_FIELDS];
  melu_status status = MELU_OK;
  for (uint32_t u = 0; u < melu_dataset_n_users(data) && !status; u++) {
    const uint64_t id = melu_dataset_user_id(data, u);
    const uint32_t *items;
    const float *ratings;
    const size_t n = melu_dataset_ratings(data, u, &items, &ratings);
    melu__table_values(values, &data->tables[MELU_USER], u);
    status = melu_shard_writer_add_user(w, id, values, err);
    for (size_t i = 0; i < n && !status; i++)
      status = melu_shard_writer_add_rating(w, id, melu_dataset_item_id(data, items[i]), ratings[i], err);
  }
  for (size_t i = 0; i < data->n_ratings && !data->frozen && !status; i++) {
    const struct melu__rating *r = &data->added[i];
    status = melu_shard_writer_add_rating(w, melu_dataset_user_id(data, r->user), melu_dataset_item_id(data, r->item),
                                          r->rating, err);
  }
  return status;
}

melu_status melu_shard_writer_new(melu_shard_writer **out, const melu_context *ctx, const char *folder,
                                  const melu_dataset *data, const struct melu_shard_options *options, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx || !folder) return melu__fail(err, MELU_EINVAL, "%s is NULL", ctx ? "folder" : "ctx");
  if (!data) return melu__fail(err, MELU_EINVAL, "data is NULL");
  struct melu_shard_options known;
  melu_status status = resolve(&known, options, err);
  if (status) return status;
  melu_shard_writer *w = melu__calloc(&ctx->allocator, 1, sizeof *w);
  if (!w) return melu__fail_memory(err);
  w->ctx = ctx;
  w->data = data;
  w->options = known;
  w->folder = melu__strdup(&ctx->allocator, folder);
  if (!w->folder || !melu__shard_list_make(&w->list, &ctx->allocator, known.n_files)) status = melu__fail_memory(err);
  if (!status) status = melu__schema_copy(&w->schema, ctx, data->schema, err);
  if (!status) {
    melu__schema_close(w->schema);
    status = check_folder(w, err);
  }
  if (!status) status = open_spill(w, err);
  if (!status) status = add_data(w, err);
  if (status)
    melu_shard_writer_free(w);
  else
    *out = w;
  return status;
}

static void remove_file(const struct melu_allocator *a, char *path) {
  if (path) melu__remove_file(path);
  melu__free(a, path);
}

void melu_shard_writer_free(melu_shard_writer *w) {
  if (!w) return;
  const struct melu_allocator *a = &w->ctx->allocator;
  melu__spill_close(&w->spill);
  if (!w->is_finished) {
    if (w->n_made && w->n_made == w->list.n)
      remove_file(a, melu__manifest_path(a, w->folder)); /* it may be there, but not for sure */
    for (size_t f = 0; f < w->n_made; f++) remove_file(a, melu__shard_path(a, w->folder, f));
  }
  melu__shard_list_free(&w->list, a);
  melu_schema_free(w->schema);
  melu__free(a, w->folder);
  melu__free(a, w);
}

/* ---------------------------------------------------------------------------------------------------- adding */

static melu_status check_open(const melu_shard_writer *w, melu_error *err) {
  if (!w) return melu__fail(err, MELU_EINVAL, "writer is NULL");
  if (w->is_finished) return melu__fail(err, MELU_ESTATE, "the data set is finished");
  return MELU_OK;
}

static melu_status add_record(melu_shard_writer *w, uint64_t user, int is_rating, uint32_t what, uint32_t value,
                              melu_error *err) {
  const size_t bucket = BUCKETS * melu__shard_of(user, w->list.n) + (is_rating != 0);
  return melu__spill_add(&w->spill, bucket, (struct melu__record){user, what, value}, err);
}

melu_status melu_shard_writer_add_user(melu_shard_writer *w, uint64_t id, const struct melu_value *values,
                                       melu_error *err) {
  melu_status status = check_open(w, err);
  if (!status) status = melu__values_check(w->schema, MELU_USER, &id, values, err);
  if (status) return status;
  const size_t n_fields = values ? melu_schema_n_fields(w->schema, MELU_USER) : 0;
  w->n_written = 0;
  status = add_record(w, id, 0, MELU__PROFILE_BEGIN, 0, err);
  for (uint32_t f = 0; f < n_fields && !status; f++) {
    const struct melu_value *v = &values[f];
    for (size_t i = 0; i < v->n_ids && !status; i++) status = add_record(w, id, 0, f, v->ids[i], err);
    for (size_t i = 0; i < v->n_numbers && !status; i++)
      status = add_record(w, id, 0, f, (uint32_t)melu__float_bits(v->numbers[i]), err);
  }
  return status ? status : add_record(w, id, 0, MELU__PROFILE_END, 0, err);
}

melu_status melu_shard_writer_add_rating(melu_shard_writer *w, uint64_t user_id, uint64_t item_id, float rating,
                                         melu_error *err) {
  melu_status status = check_open(w, err);
  uint32_t item;
  if (!status) status = melu_dataset_find_item(&item, w->data, item_id, err);
  if (status) return status;
  if (!isfinite(rating))
    return melu__fail(err, MELU_ERANGE, "user %llu: the rating of item %llu is not finite", (unsigned long long)user_id,
                      (unsigned long long)item_id);
  w->n_written = 0;
  return add_record(w, user_id, 1, item, (uint32_t)melu__float_bits(rating), err);
}

/* -------------------------------------------------------------------------------------------------- finishing */

static melu_status write_file(melu_shard_writer *w, size_t file, melu_error *err) {
  const struct melu_allocator *a = &w->ctx->allocator;
  struct melu__sorted_shard shard;
  char *path = melu__shard_path(a, w->folder, file);
  if (!path) return melu__fail_memory(err);
  melu_status status =
      melu__shard_sort(&shard, w->schema, &w->spill, BUCKETS * file, w->options.users_from_ratings, err);
  if (!status) status = melu__shard_save(&w->list, file, &shard, w->ctx, path, err);
  melu__shard_sorted_free(&shard);
  melu__free(a, path);
  return status;
}

/* What says that all is there. */
static melu_status write_manifest(const melu_shard_writer *w, melu_error *err) {
  const struct melu_allocator *a = &w->ctx->allocator;
  struct melu__table_tensors items;
  char *path = melu__manifest_path(a, w->folder);
  json_t *metadata = melu__metadata_new(MELU__MANIFEST_FORMAT);
  const int made = melu__table_tensors_make(&items, a, &w->data->tables[MELU_ITEM], MELU_ITEM, MELU__LIST_TENSORS);
  melu_status status = MELU_ENOMEM;
  if (path && made && metadata && !melu__metadata_put(metadata, "schema", melu__schema_json(w->schema, a), a)) {
    melu__shard_list_tensors(items.at + items.n, &w->list);
    status = melu__safetensors_save(NULL, w->ctx, path, metadata, items.at, items.n + MELU__LIST_TENSORS, err);
  } else {
    melu__fail_memory(err);
  }
  json_decref(metadata);
  melu__table_tensors_free(&items);
  melu__free(a, path);
  return status;
}

melu_status melu_shard_writer_finish(melu_shard_writer *w, melu_error *err) {
  melu_status status = check_open(w, err);
  while (!status && w->n_written < w->list.n) {
    if (w->n_made == w->n_written) w->n_made++;
    status = write_file(w, w->n_written, err);
    if (status) break;
    w->n_written++;
    const struct melu_progress progress = {.phase = "write", .done = w->n_written, .total = w->list.n};
    status = melu__progress(w->ctx, &progress, err);
  }
  if (!status) status = write_manifest(w, err);
  if (status) return status;
  w->is_finished = 1;
  melu__spill_close(&w->spill); /* which may have taken much room on the disk */
  return MELU_OK;
}
