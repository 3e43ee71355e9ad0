/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/shards.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "base/error.h"
#include "io/metadata.h"
#include "io/schema_text.h"
#include "io/table_tensors.h"

enum { RATING_TENSORS = 3 };

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound manifest: %s", what);
}

/* The file has these tensors, which were found, and no other. */
static melu_status check_count(const struct melu__safetensors *file, const melu_schema *schema, melu_owner owner,
                               size_t n_more, melu_error *err) {
  const size_t n = melu__n_table_tensors(melu_schema_n_fields(schema, owner)) + n_more;
  if (file->n_tensors == n) return MELU_OK;
  return melu__fail(err, MELU_EFORMAT, "it has %zu tensors and not %zu", file->n_tensors, n);
}

/* ---------------------------------------------------------------------------------------------- the manifest */

/* Each file by itself is possible. */
static melu_status check_list(const struct melu__shard_list *list, melu_error *err) {
  for (size_t f = 0; f < list->n; f++) {
    const uint64_t users = list->users[f], ratings = list->ratings[f], most = list->most[f];
    const float *range = list->range + 2 * f;
    if (users > MELU__MOST_OF_FILE || ratings > MELU__MOST_OF_FILE || most > ratings || (ratings > 0 && users == 0) ||
        range[0] > range[1])
      return melu__fail_at(err, MELU_ERANGE, f, "what it says of file %zu is out of range", f);
  }
  return MELU_OK;
}

static melu_status load_list(struct melu__shard_list *list, const struct melu__safetensors *file, melu_error *err) {
  struct melu__tensor tensors[MELU__LIST_TENSORS];
  const size_t n = melu__safetensors_length(file, "files.users");
  if (n == 0 || n > MELU__MOST_FILES) return bad(err, "it has no files, or more than 65,536");
  melu_status status = melu__shard_list_make(list, &file->ctx->allocator, n) ? MELU_OK : melu__fail_memory(err);
  if (status) return status;
  melu__shard_list_tensors(tensors, list);
  for (size_t i = 0; i < MELU__LIST_TENSORS && !status; i++) status = melu__safetensors_expect(file, &tensors[i], err);
  if (status) return status;
  melu__safetensors_copy(list->users, file, "files.users");
  melu__safetensors_copy(list->ratings, file, "files.ratings");
  melu__safetensors_copy(list->most, file, "files.most");
  melu__safetensors_copy(list->checksums, file, "files.checksums");
  melu__safetensors_copy_floats(list->range, file, "files.range");
  return check_list(list, err);
}

/* A set of the schema, whose vocabularies may still be without texts, with the file's items. Leaves a set to free,
 * whatever it returns. */
static melu_status load_items(melu_dataset **out, const struct melu__safetensors *file, const melu_schema *schema,
                              melu_error *err) {
  const struct melu_allocator *a = &file->ctx->allocator;
  const size_t n = melu__safetensors_length(file, "item.ids");
  uint64_t *ids;
  if (n > MELU__MAX_ENTITIES) return bad(err, "it has more than 2^32 - 2 items");
  melu_status status = melu__table_ids_load(&ids, file, MELU_ITEM, n, err);
  if (!status) status = check_count(file, schema, MELU_ITEM, MELU__LIST_TENSORS, err);
  if (!status) status = melu_dataset_new(out, file->ctx, schema, err);
  if (!status) {
    struct melu__table *table = &(*out)->tables[MELU_ITEM];
    melu__table_free(table, a);
    status = melu__table_load(table, file, (*out)->schema, MELU_ITEM, ids, n, err);
  }
  melu__free(a, ids);
  return status;
}

/* What takes many times its memory in the file, vocabularies and the search by id, is made last. */
static melu_status load_manifest(melu_shards *s, const struct melu__safetensors *file, melu_error *err) {
  struct melu__schema_text text = {0};
  melu_status status = melu__check_format(file, MELU__MANIFEST_FORMAT, err);
  if (!status) status = load_list(&s->list, file, err);
  if (!status) status = melu__schema_text_load(&text, s->ctx, file, err);
  if (!status) status = load_items(&s->items, file, text.schema, err);
  if (!status) status = melu__schema_text_finish(&text, s->items->schema, err);
  if (!status) status = melu_dataset_freeze(s->items, err);
  melu__schema_text_free(&text);
  return status;
}

melu_status melu_shards_open(melu_shards **out, const melu_context *ctx, const char *folder, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!ctx || !folder) return melu__fail(err, MELU_EINVAL, "%s is NULL", ctx ? "folder" : "ctx");
  const struct melu_allocator *a = &ctx->allocator;
  struct melu__safetensors file = {0};
  melu_shards *s = melu__calloc(a, 1, sizeof *s);
  if (!s) return melu__fail_memory(err);
  s->ctx = ctx;
  s->folder = melu__strdup(a, folder);
  char *path = melu__manifest_path(a, folder);
  melu_status status = s->folder && path ? MELU_OK : melu__fail_memory(err);
  if (!status) status = melu__safetensors_load(&file, ctx, path, 1, err);
  if (!status) {
    status = load_manifest(s, &file, err);
    if (status) status = melu__safetensors_blame(status, err, path);
  }
  melu__safetensors_free(&file);
  melu__free(a, path);
  if (status)
    melu_shards_free(s);
  else
    *out = s;
  return status;
}

void melu_shards_free(melu_shards *s) {
  if (!s) return;
  const struct melu_allocator *a = &s->ctx->allocator;
  melu_dataset_free(s->items);
  melu__shard_list_free(&s->list, a);
  melu__free(a, s->folder);
  melu__free(a, s);
}

melu_status melu_shards_describe(struct melu_shards_info *info, const melu_shards *s, melu_error *err) {
  if (!info || !s) return melu__fail(err, MELU_EINVAL, "%s is NULL", info ? "shards" : "info");
  struct melu_shards_info known = {
      .size = sizeof known, .n_items = melu_dataset_n_items(s->items), .n_files = s->list.n};
  for (size_t f = 0; f < s->list.n; f++) {
    const float *range = s->list.range + 2 * f;
    const int is_first = known.n_ratings == 0;
    known.n_users += s->list.users[f];
    known.n_ratings += s->list.ratings[f];
    if (s->list.ratings[f] == 0) continue;
    if (s->list.most[f] > known.max_ratings) known.max_ratings = s->list.most[f];
    known.rating_min = is_first ? range[0] : fminf(known.rating_min, range[0]);
    known.rating_max = is_first ? range[1] : fmaxf(known.rating_max, range[1]);
  }
  return melu__options_out(info, &known, sizeof known, "melu_shards_info", err);
}

const melu_dataset *melu_shards_items(const melu_shards *s) {
  return s ? s->items : NULL;
}

/* -------------------------------------------------------------------------------------------------- one file */

/* What is made of it. */
struct shard {
  const melu_shards *shards;
  size_t number;
  struct melu__safetensors file;
  uint64_t *user_ids;
  uint32_t *offsets;
  melu_dataset *data;
  /* Then the data set's: */
  size_t *user_start;
  uint32_t *items;
  float *ratings;
};

static melu_status check_users(const struct shard *s, size_t n, melu_error *err) {
  for (size_t u = 0; u < n; u++)
    if (melu__shard_of(s->user_ids[u], s->shards->list.n) != s->number)
      return melu__fail_at(err, MELU_EFORMAT, u, "user %llu belongs into another file",
                           (unsigned long long)s->user_ids[u]);
  return MELU_OK;
}

/* As the manifest says that they are. */
static melu_status check_ratings(const struct shard *s, size_t n_users, size_t n, melu_error *err) {
  const struct melu__shard_list *list = &s->shards->list;
  const float *range = list->range + 2 * s->number;
  const size_t n_items = melu_dataset_n_items(s->shards->items);
  for (size_t i = 0; i < n; i++)
    if (s->items[i] >= n_items || s->ratings[i] < range[0] || s->ratings[i] > range[1])
      return melu__fail_at(err, MELU_ERANGE, i, "rating %zu is out of range, or of no item", i);
  for (size_t u = 0; u < n_users; u++)
    if (s->offsets[u + 1] - s->offsets[u] > list->most[s->number])
      return melu__fail_at(err, MELU_EFORMAT, u, "user %llu has more ratings than the manifest says",
                           (unsigned long long)s->user_ids[u]);
  return MELU_OK;
}

static melu_status load_ratings(struct shard *s, size_t n_users, size_t n, melu_error *err) {
  const struct melu_allocator *a = &s->shards->ctx->allocator;
  const struct melu__tensor items = {.name = "ratings.items", .dtype = MELU__U32, .n_dims = 1, .dims = {n}};
  const struct melu__tensor values = {.name = "ratings.values", .dtype = MELU__FLOAT, .n_dims = 1, .dims = {n}};
  size_t n_all;
  melu_status status = melu__offsets_load(&s->offsets, &n_all, &s->file, "ratings.offsets", n_users, err);
  if (!status && n_all != n)
    status = melu__fail(err, MELU_EFORMAT, "it has %zu ratings and not the %zu of the manifest", n_all, n);
  if (!status) status = melu__safetensors_expect(&s->file, &items, err);
  if (!status) status = melu__safetensors_expect(&s->file, &values, err);
  if (status) return status;
  s->user_start = melu__alloc(a, n_users + 1, sizeof *s->user_start);
  s->items = melu__alloc(a, n, sizeof *s->items);
  s->ratings = melu__alloc(a, n, sizeof *s->ratings);
  if (!s->user_start || !s->items || !s->ratings) return melu__fail_memory(err);
  for (size_t u = 0; u <= n_users; u++) s->user_start[u] = s->offsets[u];
  melu__safetensors_copy(s->items, &s->file, items.name);
  melu__safetensors_copy_floats(s->ratings, &s->file, values.name);
  return check_ratings(s, n_users, n, err);
}

/* Users are made last: searching them by id takes many times the memory of the ids. */
static melu_status make_data(struct shard *s, melu_error *err) {
  const melu_shards *shards = s->shards;
  const struct melu__shard_list *list = &shards->list;
  const struct melu_allocator *a = &shards->ctx->allocator;
  const size_t n_users = (size_t)list->users[s->number], n_ratings = (size_t)list->ratings[s->number];
  melu_status status = melu__check_format(&s->file, MELU__SHARD_FORMAT, err);
  if (!status && s->file.checksum != list->checksums[s->number])
    status = melu__fail(err, MELU_ECORRUPT, "it is not the file that the manifest is of");
  if (!status) status = melu__table_ids_load(&s->user_ids, &s->file, MELU_USER, n_users, err);
  if (!status) status = check_users(s, n_users, err);
  if (!status) status = load_ratings(s, n_users, n_ratings, err);
  if (!status) status = check_count(&s->file, shards->items->schema, MELU_USER, RATING_TENSORS, err);
  if (!status) status = melu__dataset_beside(&s->data, shards->items, err);
  if (status) return status;
  melu__table_free(&s->data->tables[MELU_USER], a);
  status =
      melu__table_load(&s->data->tables[MELU_USER], &s->file, s->data->schema, MELU_USER, s->user_ids, n_users, err);
  return status ? status : melu__dataset_freeze_with(s->data, s->user_start, s->items, s->ratings, err);
}

melu_status melu_shards_read(melu_dataset **out, const melu_shards *shards, size_t file, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!shards) return melu__fail(err, MELU_EINVAL, "shards is NULL");
  if (file >= shards->list.n) return melu__fail(err, MELU_ERANGE, "file %zu is not below %zu", file, shards->list.n);
  const struct melu_allocator *a = &shards->ctx->allocator;
  struct shard s = {.shards = shards, .number = file};
  char *path = melu__shard_path(a, shards->folder, file);
  if (!path) return melu__fail_memory(err);
  melu_status status = melu__safetensors_load(&s.file, shards->ctx, path, 1, err);
  if (!status) {
    status = make_data(&s, err);
    if (status) status = melu__safetensors_blame(status, err, path);
  }
  if (status) {
    melu_dataset_free(s.data);
    melu__free(a, s.user_start);
    melu__free(a, s.items);
    melu__free(a, s.ratings);
  } else {
    *out = s.data;
  }
  melu__safetensors_free(&s.file);
  melu__free(a, s.user_ids);
  melu__free(a, s.offsets);
  melu__free(a, path);
  return status;
}

/* If it fails, the file is read later. */
void melu__shard_expect(const melu_shards *shards, size_t file) {
  const struct melu_allocator *a = &shards->ctx->allocator;
  int fd = -1;
  char *path = melu__shard_path(a, shards->folder, file);
  if (path) fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) {
    posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
    close(fd);
  }
  melu__free(a, path);
}
