/* SPDX-License-Identifier: BSD-3-Clause */
/* Shard folders by somebody who sets checksums right: whatever a manifest or a file claims is checked. */
#include <math.h>

#include "base/bytes.h"
#include "file_edit.h"
#include "io/metadata.h"
#include "io/schema_text.h"
#include "io/shards.h"
#include "io/table_tensors.h"
#include "run_suite.h"
#include "shard_world.h"

static melu_error err;
static struct shard_world world;
static char manifest[128], shard[128];

static void setup(void) {
  shard_world_open(&world, NULL, 1);
  snprintf(manifest, sizeof manifest, "%s/manifest.safetensors", world.folder);
  snprintf(shard, sizeof shard, "%s/users-00000.safetensors", world.folder);
}

static void teardown(void) {
  shard_world_close(&world);
}

static void write_again(size_t n_files) {
  folder_files(world.folder, 1);
  shard_write(&world, n_files);
}

static void refuse_open(melu_status expected, const char *why) {
  melu_shards *shards;
  const melu_status status = melu_shards_open(&shards, world.ctx, world.folder, &err);
  ck_assert_msg(status == expected && err.status == expected && strstr(err.message, why), "%s: %s instead of %s: %s",
                melu_status_name(status), err.message, melu_status_name(expected), why);
  ck_assert_msg(strstr(err.message, "manifest.safetensors: "), "%s", err.message);
  ck_assert_ptr_null(shards);
  ck_assert_int_eq(melu_shards_open(&shards, world.ctx, world.folder, NULL), expected);
}

static void refuse_read(size_t file, melu_status expected, const char *why) {
  melu_shards *shards;
  melu_dataset *data;
  SHARD_TRY(melu_shards_open(&shards, world.ctx, world.folder, &err));
  const melu_status status = melu_shards_read(&data, shards, file, &err);
  ck_assert_msg(status == expected && err.status == expected && strstr(err.message, why), "%s: %s instead of %s: %s",
                melu_status_name(status), err.message, melu_status_name(expected), why);
  ck_assert_msg(strstr(err.message, "users-0000"), "%s", err.message);
  ck_assert_ptr_null(data);
  melu_shards_free(shards);
}

/* Puts the checksum of file 0 into the manifest. */
static void match_manifest(void) {
  unsigned char bytes[8];
  struct edited e = edit_begin(shard);
  const char *digits = (const char *)edit_find(&e, "\"melu.checksum\":\"") + 17;
  melu__put_bits(bytes, strtoull(digits, NULL, 16), sizeof bytes);
  free(e.bytes);
  edit_tensor(manifest, "files.checksums", 0, bytes, sizeof bytes);
}

/* One number of a tensor. */
struct change {
  const char *tensor;
  size_t offset, n_bytes;
  uint64_t bits;
  melu_status status;
  const char *why;
};

static void edit(const char *path, const struct change *c) {
  unsigned char bytes[8];
  melu__put_bits(bytes, c->bits, sizeof bytes);
  edit_tensor(path, c->tensor, c->offset, bytes, c->n_bytes);
}

/* ---------------------------------------------------------------------------------------------------- manifests */

START_TEST(numbers_of_a_manifest) {
  static const struct change changes[] = {
      {"files.users", 8, 8, (1 << 22) + 1, MELU_ERANGE, "file 1 is out of range"},
      {"files.ratings", 8, 8, (1 << 22) + 1, MELU_ERANGE, "file 1 is out of range"},
      {"files.most", 0, 8, 1 << 20, MELU_ERANGE, "file 0 is out of range"},
      {"files.users", 0, 8, 0, MELU_ERANGE, "file 0 is out of range"},
      {"files.range", 0, 4, 0x7f7fffff, MELU_ERANGE, "file 0 is out of range"},
      {"files.range", 12, 4, 0x7f800000, MELU_ERANGE, "\"files.range\": row 1 is not finite"},
      {"item.ids", 8, 8, 1000, MELU_EFORMAT, "item 1000 is there twice"},
      {"item.tags.offsets", 0, 4, 1, MELU_EFORMAT, "\"item.tags.offsets\": offset 0"},
      {"item.tags.offsets", 4, 4, 0xffffffff, MELU_EFORMAT, "\"item.tags.offsets\": offset 1"},
      {"item.tags.ids", 0, 4, 5, MELU_ERANGE, "field \"tags\": id 5 is not below 5"},
      {"item.self.offsets", 4, 4, 2, MELU_EFORMAT, "item 1000: field \"self\": 2 ids are more than one"},
      {"item.self.ids", 0, 4, 11, MELU_ERANGE, "item 1000: field \"self\": id 11 is not below 11"},
      {"item.sizes.numbers", 4, 4, 0x7fc00000, MELU_ERANGE, "\"item.sizes.numbers\": row 0 is not finite"},
      {"item.sizes.offsets", 124 - 4, 4, 26, MELU_EFORMAT, "\"item.sizes.numbers\" is not of the type and shape"},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    write_again(2);
    edit(manifest, &changes[i]);
    refuse_open(changes[i].status, changes[i].why);
  }
}
END_TEST

START_TEST(words_of_a_manifest) {
  static const struct {
    const char *from, *to;
    melu_status status;
    const char *why;
  } changes[] = {
      {"\"melu-shards\"", "\"melu-shard\"", MELU_EFORMAT, "does not say that it is one"},
      {"\"format_version\":\"1\"", "\"format_version\":\"2\"", MELU_EVERSION, "format version 2"},
      {"\"schema\":", "\"enigma\":", MELU_EFORMAT, "the schema has no list of fields"},
      {"\"files.users\"", "\"files.abuse\"", MELU_EFORMAT, "no files, or more"},
      {"\"files.most\"", "\"files.many\"", MELU_EFORMAT, "\"files.most\" is missing"},
      {"\"item.ids\"", "\"item.odd\"", MELU_EFORMAT, "\"item.ids\" is missing"},
      {"\"item.tags.ids\"", "\"item.tags.odd\"", MELU_EFORMAT, "\"item.tags.ids\" is missing"},
      {"\"item.tags.offsets\"", "\"item.tags.on\"", MELU_EFORMAT, "\"item.tags.offsets\" is missing"},
      {"\"item.ids\":", "\"more\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"item.ids\":", MELU_EFORMAT,
       "it has 13 tensors and not 12"},
      {"\\\"name 3\\\"", "\\\"name 2\\\"", MELU_EFORMAT, "a vocabulary has a text twice"},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    write_again(2);
    edit_header(manifest, changes[i].from, changes[i].to);
    refuse_open(changes[i].status, changes[i].why);
  }
  write_again(1); /* one number is no list of one */
  edit_header(manifest, "\"files.users\":{\"dtype\":\"U64\",\"shape\":[1]",
              "\"files.users\":{\"dtype\":\"U64\",\"shape\":[]");
  refuse_open(MELU_EFORMAT, "no files, or more");
}
END_TEST

/* A manifest of n empty files, and of items that take no room, or of those of the world if n_items is 0. */
static void write_manifest(size_t n, size_t n_items) {
  struct melu__shard_list list;
  struct melu__table_tensors items;
  const struct melu_allocator *a = &world.ctx->allocator;
  ck_assert(melu__shard_list_make(&list, a, n));
  ck_assert(melu__table_tensors_make(&items, a, &world.data->tables[MELU_ITEM], MELU_ITEM, MELU__LIST_TENSORS));
  melu__shard_list_tensors(items.at + items.n, &list);
  if (n_items) items.at[0] = (struct melu__tensor){.name = "item.ids", .n_dims = 2, .dims = {n_items, 0}};
  melu_schema *schema;
  SHARD_TRY(melu__schema_copy(&schema, world.ctx, world.data->schema, &err));
  melu__schema_close(schema);
  json_t *metadata = melu__metadata_new(MELU__MANIFEST_FORMAT);
  ck_assert(!melu__metadata_put(metadata, "schema", melu__schema_json(schema, a), a));
  SHARD_TRY(melu__safetensors_save(NULL, world.ctx, manifest, metadata, items.at, items.n + MELU__LIST_TENSORS, &err));
  json_decref(metadata);
  melu_schema_free(schema);
  melu__table_tensors_free(&items);
  melu__shard_list_free(&list, a);
}

START_TEST(sizes_of_a_manifest) {
  melu_shards *shards;
  write_manifest(65537, 0);
  refuse_open(MELU_EFORMAT, "no files, or more than 65,536");
  write_manifest(1, 7);
  refuse_open(MELU_EFORMAT, "\"item.ids\" is not of the type and shape");
  write_manifest(1, UINT32_MAX);
  refuse_open(MELU_EFORMAT, "more than 2^32 - 2 items");
  write_manifest(65536, 0);
  SHARD_TRY(melu_shards_open(&shards, world.ctx, world.folder, &err));
  melu_shards_free(shards);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ files */

START_TEST(numbers_of_a_file) {
  static const struct change changes[] = {
      {"user.ids", 8, 8, 0, MELU_EFORMAT, "user 0 is there twice"},
      {"user.job.ids", 0, 4, 4, MELU_ERANGE, "field \"job\": id 4 is not below 4"},
      {"user.age.numbers", 0, 4, 0xff800000, MELU_ERANGE, "\"user.age.numbers\": row 0 is not finite"},
      {"user.likes.offsets", 0, 4, 1, MELU_EFORMAT, "\"user.likes.offsets\": offset 0"},
      {"ratings.offsets", 0, 4, 1, MELU_EFORMAT, "\"ratings.offsets\": offset 0"},
      {"ratings.offsets", 4 * SHARD_USERS, 4, 0x10000, MELU_EFORMAT, "ratings and not the"},
      {"ratings.items", 4, 4, SHARD_ITEMS, MELU_ERANGE, "rating 1 is out of range, or of no item"},
      {"ratings.values", 8, 4, 0x40a00000, MELU_ERANGE, "rating 2 is out of range, or of no item"},
      {"ratings.values", 8, 4, 0xc0a00000, MELU_ERANGE, "rating 2 is out of range, or of no item"},
      {"ratings.values", 8, 4, 0x7fc00000, MELU_ERANGE, "\"ratings.values\": row 2 is not finite"},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    write_again(1);
    edit(shard, &changes[i]);
    refuse_read(0, MELU_ECORRUPT, "not the file that the manifest is of");
    match_manifest();
    refuse_read(0, changes[i].status, changes[i].why);
  }
}
END_TEST

START_TEST(words_of_a_file) {
  static const struct {
    const char *from, *to;
    melu_status status;
    const char *why;
  } changes[] = {
      {"\"melu-shard\"", "\"melu-model\"", MELU_EFORMAT, "does not say that it is one"},
      {"\"user.ids\"", "\"user.odd\"", MELU_EFORMAT, "\"user.ids\" is missing"},
      {"\"ratings.offsets\"", "\"ratings.off\"", MELU_EFORMAT, "\"ratings.offsets\" is missing"},
      {"\"ratings.items\"", "\"ratings.atoms\"", MELU_EFORMAT, "\"ratings.items\" is missing"},
      {"\"ratings.values\"", "\"ratings.vales\"", MELU_EFORMAT, "\"ratings.values\" is missing"},
      {"\"user.ids\":", "\"more\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"user.ids\":", MELU_EFORMAT,
       "it has 11 tensors and not 10"},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    write_again(1);
    edit_header(shard, changes[i].from, changes[i].to);
    match_manifest();
    refuse_read(0, changes[i].status, changes[i].why);
  }
}
END_TEST

/* What two files, or a file and the manifest, say of each other. */
START_TEST(files_that_do_not_belong) {
  static const struct change few = {"files.most", 0, 8, 11, 0, NULL}, other_user = {"user.ids", 0, 8, 7, 0, NULL};
  char second[128], kept[128];
  write_again(1);
  edit(manifest, &few);
  refuse_read(0, MELU_EFORMAT, "has more ratings than the manifest says");

  write_again(2);
  edit(shard, &other_user);
  match_manifest();
  ck_assert_uint_eq(melu__mix64(7) % 2, 1);
  refuse_read(0, MELU_EFORMAT, "user 7 belongs into another file");

  snprintf(second, sizeof second, "%s/users-00001.safetensors", world.folder);
  snprintf(kept, sizeof kept, "%s/kept", world.folder);
  write_again(2);
  ck_assert(rename(shard, kept) == 0 && rename(second, shard) == 0 && rename(kept, second) == 0);
  refuse_read(0, MELU_ECORRUPT, "not the file that the manifest is of");
  ck_assert_int_eq(unlink(second), 0);
  refuse_read(1, MELU_ENOTFOUND, "cannot open");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("shard_files");
  TCase *manifests = tcase_create("manifests"), *files = tcase_create("files");
  tcase_add_checked_fixture(manifests, setup, teardown);
  tcase_add_checked_fixture(files, setup, teardown);
  tcase_add_test(manifests, numbers_of_a_manifest);
  tcase_add_test(manifests, words_of_a_manifest);
  tcase_add_test(manifests, sizes_of_a_manifest);
  tcase_add_test(files, numbers_of_a_file);
  tcase_add_test(files, words_of_a_file);
  tcase_add_test(files, files_that_do_not_belong);
  tcase_set_timeout(manifests, 30);
  tcase_set_timeout(files, 30);
  suite_add_tcase(suite, manifests);
  suite_add_tcase(suite, files);
  return run_suite(suite);
}
