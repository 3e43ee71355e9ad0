/* SPDX-License-Identifier: BSD-3-Clause */
/* Users, items and ratings with everything that a field can have, and a folder to write them to. */
#ifndef MELU_TESTS_SHARD_WORLD_H
#define MELU_TESTS_SHARD_WORLD_H

#include <check.h>
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "folder.h"

enum { SHARD_ITEMS = 30, SHARD_USERS = 90, SHARD_FIELDS = 3 };

#define SHARD_TRY(call)                                                                  \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

struct shard_world {
  char folder[64];
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data; /* open */
};

static inline uint64_t shard_item_id(uint32_t item) {
  return 1000 + 7 * (uint64_t)item;
}

static inline uint64_t shard_user_id(uint32_t user) {
  return user == 0 ? UINT64_MAX : user == 1 ? 0 : user * (uint64_t)0x123456789abcdu;
}

static inline size_t shard_n_ratings(uint32_t user) {
  return user * 5 % 13;
}

static inline uint32_t shard_item(uint32_t user, size_t i) {
  return (uint32_t)(user * 3 + i * i) % SHARD_ITEMS; /* now and then the same one twice */
}

static inline float shard_rating(uint32_t user, size_t i) {
  return (float)(user % 5) + 0.25F * (float)(i % 4) - 1;
}

/* The values of a user, which stay until the next call. Each third one has none at all. */
static inline const struct melu_value *shard_profile(uint32_t user) {
  static uint32_t job, likes[9];
  static float age[2];
  static struct melu_value values[SHARD_FIELDS];
  job = user % 5 == 4 ? MELU_UNKNOWN : user % 5;
  for (uint32_t i = 0; i < 9; i++) likes[i] = (user + i) % 7 == 6 ? MELU_UNKNOWN : (user + i) % 6;
  age[0] = (float)user;
  age[1] = -0.5F;
  values[0] = (struct melu_value){.ids = &job, .n_ids = user % 4 != 0};
  values[1] = (struct melu_value){.ids = likes, .n_ids = user % 10};
  values[2] = (struct melu_value){.numbers = age, .n_numbers = user % 2 ? 2 : 0};
  return user % 3 ? values : NULL;
}

static inline void shard_add_items(melu_dataset *data) {
  melu_error err;
  for (uint32_t i = 0; i < SHARD_ITEMS; i++) {
    char text[16];
    uint32_t self, tags[2] = {i % 5, i % 4 ? i % 3 : MELU_UNKNOWN};
    const float sizes[2] = {(float)i, 0.1F};
    snprintf(text, sizeof text, "name %u", (unsigned)i % 11);
    SHARD_TRY(melu__dataset_text_id(&self, data, MELU_ITEM, 0, text, strlen(text), &err));
    const struct melu_value values[SHARD_FIELDS] = {{.ids = &self, .n_ids = i % 6 != 5},
                                                    {.ids = tags, .n_ids = i % 3},
                                                    {.numbers = sizes, .n_numbers = i % 7 ? 2 : 0}};
    SHARD_TRY(melu_dataset_add_item(data, shard_item_id(i), values, NULL, &err));
  }
}

static inline void shard_add_users(melu_dataset *data) {
  melu_error err;
  for (uint32_t u = 0; u < SHARD_USERS; u++) {
    SHARD_TRY(melu_dataset_add_user(data, shard_user_id(u), shard_profile(u), NULL, &err));
    for (size_t i = 0; i < shard_n_ratings(u); i++)
      SHARD_TRY(
          melu_dataset_add_rating(data, shard_user_id(u), shard_item_id(shard_item(u, i)), shard_rating(u, i), &err));
  }
}

static inline melu_schema *shard_schema(const melu_context *ctx) {
  static const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .width = 3}, /* learns its vocabulary */
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .n_values = 4, .width = 2},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 5, .width = 2},
      {.size = sizeof *fields, .name = "likes", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 6, .width = 2},
      {.size = sizeof *fields, .name = "sizes", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2, .scale = 0.3},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .width = 2, .shift = 30.1},
  };
  melu_error err;
  melu_schema *schema;
  SHARD_TRY(melu_schema_new(&schema, ctx, &err));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) SHARD_TRY(melu_schema_add(schema, &fields[i], &err));
  return schema;
}

/* `with_users`: the data set has them, and their ratings. */
static inline void shard_world_open(struct shard_world *w, const struct melu_context_options *options, int with_users) {
  melu_error err;
  snprintf(w->folder, sizeof w->folder, "/tmp/melu-shards-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(w->folder));
  SHARD_TRY(melu_context_new(&w->ctx, options, &err));
  w->schema = shard_schema(w->ctx);
  SHARD_TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  shard_add_items(w->data);
  if (with_users) shard_add_users(w->data);
}

static inline void shard_world_close(struct shard_world *w) {
  folder_remove(w->folder);
  melu_dataset_free(w->data);
  melu_schema_free(w->schema);
  melu_context_free(w->ctx);
}

/* Writes all that the data set has. */
static inline void shard_write(const struct shard_world *w, size_t n_files) {
  melu_error err;
  melu_shard_writer *writer;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = n_files};
  SHARD_TRY(melu_shard_writer_new(&writer, w->ctx, w->folder, w->data, &options, &err));
  SHARD_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
}

#endif
