/* SPDX-License-Identifier: BSD-3-Clause */
#include "readers.h"

#include <string.h>
#include <unistd.h>

#include "../tiny_folder.h"
#include "base/digest.h"
#include "data/dataset.h"
#include "savers.h"

#define STATE "s" /* of the tiny folder */
#define MODEL "saved-0"
#define CHECKPOINT "saved-1"
#define MANIFEST "manifest.safetensors" /* the scene's folder is a shard folder, too */
#define SHARD "users-00000.safetensors"

/* ------------------------------------------------------------------------------------------------- the files */

void readers_prepare(const struct scene *s) {
  melu_error err;
  for (size_t i = 0; i < N_TINY_FILES; i++)
    proof_write_file(scene_path(s, tiny_files[i].name), tiny_files[i].text, strlen(tiny_files[i].text));
  PROOF_TRY(savers[0].save(s, 1, scene_path(s, MODEL), &err));
  PROOF_TRY(savers[1].save(s, 1, scene_path(s, CHECKPOINT), &err));
  melu_shard_writer *writer;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 1};
  PROOF_TRY(melu_shard_writer_new(&writer, s->ctx, s->folder, s->data, &options, &err));
  PROOF_TRY(melu_shard_writer_finish(writer, &err));
  melu_shard_writer_free(writer);
}

void readers_clean(const struct scene *s) {
  for (size_t i = 0; i < N_TINY_FILES; i++) unlink(scene_path(s, tiny_files[i].name));
  unlink(scene_path(s, MODEL));
  unlink(scene_path(s, CHECKPOINT));
  unlink(scene_path(s, MANIFEST));
  unlink(scene_path(s, SHARD));
}

/* ------------------------------------------------------------------------------------------------ the readers */

static void open_nothing(struct subject *t) {
  (void)t;
}

static melu_status load_model(struct subject *t, melu_error *err) {
  return melu_model_load(&t->model, t->scene->ctx, scene_path(t->scene, MODEL), err);
}

static void open_model(struct subject *t) {
  t->model = saver_model(t->scene, 0);
}

static melu_status import(struct subject *t, melu_error *err) {
  return melu_model_import(t->model, scene_path(t->scene, MODEL), err);
}

static melu_status resume(struct subject *t, melu_error *err) {
  return saver_train(t->model, t->scene, scene_path(t->scene, CHECKPOINT), 1, err);
}

static void open_tables(struct subject *t) {
  melu_error err;
  PROOF_TRY(melu_dataset_new(&t->data, t->scene->ctx, t->scene->schema, &err));
}

static melu_status read_table(struct subject *t, enum scene_table table, melu_error *err) {
  return scene_read(t->data, table, scene_path(t->scene, scene_table_names[table]), err);
}

static melu_status read_items(struct subject *t, melu_error *err) {
  return read_table(t, SCENE_TABLE_ITEMS, err);
}

static melu_status read_users(struct subject *t, melu_error *err) {
  return read_table(t, SCENE_TABLE_USERS, err);
}

static void open_entities(struct subject *t) {
  melu_error err;
  open_tables(t);
  PROOF_TRY(read_items(t, &err));
  PROOF_TRY(read_users(t, &err));
}

static melu_status read_ratings(struct subject *t, melu_error *err) {
  return read_table(t, SCENE_TABLE_RATINGS, err);
}

static void open_schema(struct subject *t) {
  melu_error err;
  PROOF_TRY(melu_schema_new(&t->schema, t->scene->ctx, &err));
}

static melu_status add_melu(struct subject *t, melu_error *err) {
  return melu_schema_add_melu(t->schema, t->scene->folder, err);
}

static melu_status add_melu_items(struct subject *t, melu_error *err) {
  return melu_schema_add_melu_items(t->schema, t->scene->folder, err);
}

static void open_melu(struct subject *t) {
  melu_error err;
  open_schema(t);
  PROOF_TRY(add_melu_items(t, &err));
  PROOF_TRY(melu_dataset_new(&t->data, t->scene->ctx, t->schema, &err));
}

static melu_status read_melu(struct subject *t, melu_error *err) {
  return melu_dataset_read_melu(t->data, t->scene->folder, STATE, err);
}

static melu_status open_shards(struct subject *t, melu_error *err) {
  return melu_shards_open(&t->shards, t->scene->ctx, t->scene->folder, err);
}

static void have_shards(struct subject *t) {
  melu_error err;
  PROOF_TRY(open_shards(t, &err));
}

static melu_status read_shard(struct subject *t, melu_error *err) {
  return melu_shards_read(&t->data, t->shards, 0, err);
}

const struct reader readers[N_READERS] = {
    {"melu_model_load", open_nothing, load_model, {MODEL}, 1, 0},
    {"melu_model_import", open_model, import, {MODEL}, 0, 0},
    {"melu_fit that resumes", open_model, resume, {CHECKPOINT}, 1, 0},
    {"melu_dataset_read_items", open_tables, read_items, {"items.csv"}, 0, 1},
    {"melu_dataset_read_users", open_tables, read_users, {"users.csv"}, 0, 1},
    {"melu_dataset_read_ratings", open_entities, read_ratings, {"ratings.csv"}, 0, 1},
    {"melu_schema_add_melu",
     open_schema,
     add_melu,
     {"m_rate.txt", "m_genre.txt", "m_director.txt", "m_actor.txt", "m_gender.txt", "m_age.txt", "m_occupation.txt",
      "m_zipcode.txt"},
     0,
     1},
    {"melu_schema_add_melu_items",
     open_schema,
     add_melu_items,
     {"m_rate.txt", "m_genre.txt", "m_director.txt", "m_actor.txt"},
     0,
     1},
    {"melu_dataset_read_melu",
     open_melu,
     read_melu,
     {"users.dat", "movies_extrainfos.dat", STATE ".json", STATE "_y.json"},
     0,
     1},
    {"melu_shards_open", open_nothing, open_shards, {MANIFEST}, 1, 1},
    {"melu_shards_read", have_shards, read_shard, {SHARD}, 1, 1}};

/* ----------------------------------------------------------------------------------------------- the subjects */

void subject_open(struct subject *t, const struct scene *s, const struct reader *reader) {
  *t = (struct subject){.scene = s};
  reader->open(t);
}

void subject_close(struct subject *t) {
  melu_model_free(t->model);
  melu_dataset_free(t->data);
  melu_shards_free(t->shards);
  melu_schema_free(t->schema);
}

void subject_freeze(struct subject *t) {
  melu_error err;
  if (t->data && !t->data->frozen) PROOF_TRY(melu_dataset_freeze(t->data, &err));
}

static void digest_schema(struct melu__digest *d, const melu_schema *schema) {
  melu_error err;
  for (int owner = MELU_USER; owner <= MELU_ITEM; owner++)
    for (size_t i = 0; i < melu_schema_n_fields(schema, (melu_owner)owner); i++) {
      struct melu_field field = {.size = sizeof field};
      PROOF_TRY(melu_schema_field(&field, schema, (melu_owner)owner, i, &err));
      melu__digest_text(d, field.name);
      melu__digest_bits(d, field.n_values);
      const char *text;
      for (uint32_t id = 0; (text = melu_schema_value_text(schema, field.name, id)) != NULL; id++)
        melu__digest_text(d, text);
    }
}

static void digest_data(struct melu__digest *d, const melu_dataset *data) {
  digest_schema(d, melu_dataset_schema(data));
  melu__digest_bits(d, melu_dataset_n_users(data));
  melu__digest_bits(d, melu_dataset_n_items(data));
  melu__digest_bits(d, melu_dataset_n_ratings(data));
  if (data->frozen) melu__dataset_digest(d, data);
}

void subject_digest(unsigned char digest[MELU_DIGEST_BYTES], const struct subject *t) {
  melu_error err;
  struct melu__digest d;
  melu__digest_begin(&d);
  if (t->model) {
    PROOF_TRY(melu_model_digest(digest, t->model, &err));
    for (int i = 0; i < MELU_DIGEST_BYTES; i++) melu__digest_bits(&d, digest[i]);
  }
  if (t->schema) digest_schema(&d, t->schema);
  if (t->data) digest_data(&d, t->data);
  if (t->shards) digest_data(&d, melu_shards_items(t->shards));
  melu__digest_end(digest, &d);
}
