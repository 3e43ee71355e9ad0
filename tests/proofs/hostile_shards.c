/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 8: shard folders by somebody who sets all checksums right, those that the manifest has of the files too. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostile.h"
#include "repair.h"

enum { MANY = 50000 }; /* items and users, of which nothing takes more than their ids */

/* A folder, and the two files in it as they were written. */
struct folder {
  const melu_context *ctx;
  char path[128];
  struct proof_bytes manifest, file;
  melu_shards *shards; /* opened, where it is the file that is hostile */
};

/* So many bytes of a tensor are others. */
static const struct shard_change {
  const char *tensor;
  size_t at, n;
  uint64_t bits;
  melu_status status;
  const char *says;
} manifests[] =
    {
        {"files.users", 0, 8, UINT64_MAX, MELU_ERANGE, "file 0 is out of range"},
        {"files.ratings", 0, 8, (uint64_t)1 << 60, MELU_ERANGE, "file 0 is out of range"},
        {"files.most", 0, 8, UINT64_MAX, MELU_ERANGE, "file 0 is out of range"},
        {"files.range", 0, 4, 0x7fc00000, MELU_ERANGE, "row 0 is not finite"},
        {"item.tags.offsets", 4, 4, UINT32_MAX, MELU_EFORMAT, "offset 1"},
        {"item.tags.offsets", 160, 4, UINT32_MAX, MELU_EFORMAT, "not of the type and shape"},
        {"item.self.ids", 0, 4, 0x80000000, MELU_ERANGE, "field \"self\""},
        {"item.sizes.numbers", 0, 4, 0x7f800000, MELU_ERANGE, "row 0 is not finite"},
        {"item.ids", 312, 8, 100, MELU_EFORMAT, "item 100 is there twice"},
},
  files[] =
      {
          {"user.ids", 0, 8, 7, MELU_EFORMAT, "user 7 is there twice"},
          {"user.likes.offsets", 4, 4, UINT32_MAX, MELU_EFORMAT, "offset 1"},
          {"user.likes.ids", 0, 4, 0x7fffffff, MELU_ERANGE, "field \"likes\""},
          {"user.age.numbers", 0, 4, 0xff800000, MELU_ERANGE, "row 0 is not finite"},
          {"ratings.offsets", 32, 4, UINT32_MAX, MELU_EFORMAT, "4294967295 ratings"},
          {"ratings.items", 0, 4, UINT32_MAX - 1, MELU_ERANGE, "rating 0"},
          {"ratings.values", 0, 4, 0x7f7fffff, MELU_ERANGE, "rating 0"},
},
  many[] =
      {
          {"item.ids", 8 * (MANY - 1), 8, 0, MELU_EFORMAT, "item 0 is there twice"},
},
  many_users[] = {
      {"user.ids", 8 * (MANY - 1), 8, 0, MELU_EFORMAT, "user 0 is there twice"},
      {"ratings.offsets", 4 * MANY, 4, 5, MELU_EFORMAT, "5 ratings"},
};

static const char *path_of(const struct folder *f, const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s.safetensors", f->path, name);
  return path;
}

#define MANIFEST "manifest"
#define SHARD "users-00000"

/* Where the data of a tensor begins. */
static unsigned char *tensor(struct proof_bytes b, const char *name) {
  char wanted[80];
  const size_t length = (size_t)melu__get_bits(b.at, 8), n = (size_t)snprintf(wanted, sizeof wanted, "\"%s\":", name);
  size_t at = 8;
  while (at + n < b.n && memcmp(b.at + at, wanted, n) != 0) at++;
  while (at + 16 < b.n && memcmp(b.at + at, "\"data_offsets\":[", 16) != 0) at++;
  PROOF_NEEDS(at < 8 + length, "there is no %s", name);
  return b.at + 8 + length + strtoul((const char *)b.at + at + 16, NULL, 10);
}

static struct proof_bytes changed(struct proof_bytes b, const struct shard_change *c) {
  const struct proof_bytes copy = proof_copy(b.at, b.n);
  melu__put_bits(tensor(copy, c->tensor) + c->at, c->bits, c->n);
  repair_file(copy);
  return copy;
}

static melu_status open_folder(void *arg, melu_error *err) {
  const struct folder *f = arg;
  melu_shards *shards;
  const melu_status status = melu_shards_open(&shards, f->ctx, f->path, err);
  melu_shards_free(shards);
  return status;
}

static melu_status read_file(void *arg, melu_error *err) {
  const struct folder *f = arg;
  melu_dataset *data;
  const melu_status status = melu_shards_read(&data, f->shards, 0, err);
  melu_dataset_free(data);
  return status;
}

static void refuse_manifests(struct folder *f, const struct shard_change *changes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const struct proof_bytes b = changed(f->manifest, &changes[i]);
    proof_write_file(path_of(f, MANIFEST), b.at, b.n);
    hostile_measure(open_folder, f, b.n, (struct refusal){changes[i].status, changes[i].says}, changes[i].tensor);
    free(b.at);
  }
  proof_write_file(path_of(f, MANIFEST), f->manifest.at, f->manifest.n);
}

/* Puts the checksum of another file into the manifest. */
static void match_manifest(const struct folder *f, struct proof_bytes file) {
  const struct proof_bytes manifest = proof_copy(f->manifest.at, f->manifest.n);
  size_t at = 0;
  while (memcmp(file.at + at, "\"melu.checksum\":\"", 17) != 0) at++;
  melu__put_bits(tensor(manifest, "files.checksums"), strtoull((const char *)file.at + at + 17, NULL, 16), 8);
  repair_file(manifest);
  proof_write_file(path_of(f, MANIFEST), manifest.at, manifest.n);
  free(manifest.at);
}

static void refuse_files(struct folder *f, const struct shard_change *changes, size_t n) {
  melu_error err;
  for (size_t i = 0; i < n; i++) {
    const struct proof_bytes b = changed(f->file, &changes[i]);
    match_manifest(f, b);
    proof_write_file(path_of(f, SHARD), b.at, b.n);
    PROOF_TRY(melu_shards_open(&f->shards, f->ctx, f->path, &err));
    hostile_measure(read_file, f, b.n, (struct refusal){changes[i].status, changes[i].says}, changes[i].tensor);
    melu_shards_free(f->shards);
    free(b.at);
  }
}

static void write_folder(struct folder *f, const struct scene *s, const melu_dataset *data) {
  melu_error err;
  melu_shard_writer *writer;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 1};
  *f = (struct folder){.ctx = s->ctx};
  snprintf(f->path, sizeof f->path, "%s", scene_path(s, "shards"));
  PROOF_NEEDS(mkdir(f->path, 0777) == 0, "no folder %s", f->path);
  PROOF_TRY(melu_shard_writer_new(&writer, s->ctx, f->path, data, &options, &err));
  PROOF_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
  f->manifest = proof_read_file(path_of(f, MANIFEST));
  f->file = proof_read_file(path_of(f, SHARD));
}

static void remove_folder(struct folder *f) {
  unlink(path_of(f, MANIFEST));
  unlink(path_of(f, SHARD));
  rmdir(f->path);
  free(f->manifest.at);
  free(f->file.at);
}

#define LENGTH(array) (sizeof(array) / sizeof *(array))

void hostile_shards(struct scene *s) {
  melu_error err;
  struct folder f;
  melu_schema *schema;
  melu_dataset *data;
  write_folder(&f, s, s->data);
  refuse_manifests(&f, manifests, LENGTH(manifests));
  refuse_files(&f, files, LENGTH(files));
  remove_folder(&f);
  PROOF_TRY(melu_schema_new(&schema, s->ctx, &err));
  PROOF_TRY(melu_dataset_new(&data, s->ctx, schema, &err));
  for (uint64_t i = 0; i < MANY; i++) {
    PROOF_TRY(melu_dataset_add_item(data, i, NULL, NULL, &err));
    PROOF_TRY(melu_dataset_add_user(data, i, NULL, NULL, &err));
  }
  write_folder(&f, s, data);
  refuse_manifests(&f, many, LENGTH(many));
  refuse_files(&f, many_users, LENGTH(many_users));
  remove_folder(&f);
  melu_dataset_free(data);
  melu_schema_free(schema);
}
