/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 7: files and bytes that are cut, altered, rearranged or longer than they were. Model files and adapted users
 * are refused, and nothing is changed by them. Imported weights and tables have no checksum and may still be what they
 * should be; if they are refused, nothing is changed either. That nothing crashes is seen by this program's coming to
 * its end. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proof.h"

enum { BLOCK = 64 };

/* What is done with altered bytes; the last two say which they are. */
typedef void (*judge_fn)(void *arg, struct proof_bytes bytes, const char *how, size_t where);

static size_t n_altered;

static void judge_copy(judge_fn judge, void *arg, const unsigned char *bytes, size_t n, const char *how, size_t where) {
  const struct proof_bytes copy = proof_copy(bytes, n);
  judge(arg, copy, how, where);
  free(copy.at);
  n_altered++;
}

/* Two blocks change places; the last one may be short, and then has only as many bytes to change. */
static void swap_blocks(unsigned char *bytes, size_t n, size_t i, size_t j) {
  const size_t length = n - j * BLOCK < BLOCK ? n - j * BLOCK : BLOCK;
  unsigned char kept[BLOCK];
  memcpy(kept, bytes + i * BLOCK, length);
  memcpy(bytes + i * BLOCK, bytes + j * BLOCK, length);
  memcpy(bytes + j * BLOCK, kept, length);
}

static int blocks_differ(const unsigned char *bytes, size_t n, size_t i, size_t j) {
  return memcmp(bytes + i * BLOCK, bytes + j * BLOCK, n - j * BLOCK < BLOCK ? n - j * BLOCK : BLOCK) != 0;
}

static void alter(struct proof_bytes b, judge_fn judge, void *arg) {
  const size_t n_blocks = (b.n + BLOCK - 1) / BLOCK;
  for (size_t n = 0; n < b.n; n++) judge_copy(judge, arg, b.at, n, "cut after byte", n);
  for (size_t bit = 0; bit < 8 * b.n; bit++) {
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
    judge_copy(judge, arg, b.at, b.n, "flipped bit", bit);
    b.at[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  for (size_t i = 0; i < n_blocks; i++)
    for (size_t j = i + 1; j < n_blocks; j++) {
      if (!blocks_differ(b.at, b.n, i, j)) continue;
      swap_blocks(b.at, b.n, i, j);
      judge_copy(judge, arg, b.at, b.n, "swapped blocks, the first", i);
      swap_blocks(b.at, b.n, i, j);
    }
  const struct proof_bytes longer = {malloc(b.n + 1), b.n + 1};
  PROOF_NEEDS(longer.at, "no memory");
  memcpy(longer.at, b.at, b.n);
  for (int last = 0; last < 256; last++) {
    longer.at[b.n] = (unsigned char)last;
    judge_copy(judge, arg, longer.at, longer.n, "appended byte", (size_t)last);
  }
  free(longer.at);
}

/* Statuses of what is read without a checksum. */
static int is_refusal(melu_status status) {
  static const melu_status refusals[] = {MELU_EFORMAT, MELU_ERANGE, MELU_ENOTFOUND, MELU_ESTATE, MELU_ELIMIT};
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
    if (status == refusals[i]) return 1;
  return 0;
}

/* ----------------------------------------------------------------------------------------------------- models */

static void judge_model(void *arg, struct proof_bytes b, const char *how, size_t where) {
  const struct scene *s = arg;
  melu_error err;
  melu_model *model = s->model;
  const char *path = scene_path(s, "altered");
  proof_write_file(path, b.at, b.n);
  const melu_status status = melu_model_load(&model, s->ctx, path, &err);
  PROOF_NEEDS(status == MELU_EFORMAT || status == MELU_ECORRUPT || status == MELU_EVERSION || status == MELU_ELIMIT,
              "a model file, %s %zu: %s", how, where, melu_status_name(status));
  PROOF_NEEDS(!model && err.status == status, "a model file, %s %zu: refused, but not as promised", how, where);
}

/* Weights from elsewhere have no checksum: what has the names and shapes may be taken. If not, all stays. */
struct import {
  struct scene *scene;
  melu_model *model;
  size_t n_taken;
};

static void judge_import(void *arg, struct proof_bytes b, const char *how, size_t where) {
  struct import *i = arg;
  melu_error err;
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  const char *path = scene_path(i->scene, "altered");
  proof_write_file(path, b.at, b.n);
  PROOF_TRY(melu_model_digest(before, i->model, &err));
  const melu_status status = melu_model_import(i->model, path, &err);
  PROOF_NEEDS(status == MELU_OK || is_refusal(status), "imported weights, %s %zu: %s", how, where,
              melu_status_name(status));
  i->n_taken += status == MELU_OK;
  PROOF_TRY(melu_model_digest(after, i->model, &err));
  PROOF_NEEDS(status == MELU_OK || memcmp(before, after, sizeof after) == 0,
              "imported weights, %s %zu: refused, but taken", how, where);
}

static size_t alter_import(struct scene *s) {
  melu_error err;
  struct proof_bytes b = scene_model_bytes(s);
  struct import i = {.scene = s};
  proof_write_file(scene_path(s, "altered"), b.at, b.n);
  PROOF_TRY(melu_model_load(&i.model, s->ctx, scene_path(s, "altered"), &err));
  alter(b, judge_import, &i);
  PROOF_NEEDS(i.n_taken > 0 && i.n_taken < n_altered, "of imported weights all were taken, or none");
  unlink(scene_path(s, "altered"));
  melu_model_free(i.model);
  free(b.at);
  return i.n_taken;
}

static void alter_model(struct scene *s) {
  melu_error err;
  melu_model *model;
  struct proof_bytes b = scene_model_bytes(s);
  alter(b, judge_model, s);
  proof_write_file(scene_path(s, "altered"), b.at, b.n); /* so it was not for another reason that all was refused */
  PROOF_TRY(melu_model_load(&model, s->ctx, scene_path(s, "altered"), &err));
  melu_model_free(model);
  unlink(scene_path(s, "altered"));
  free(b.at);
}

/* ------------------------------------------------------------------------------------------------------ users */

/* Who has rated nothing, and is to stay so. */
struct somebody {
  struct scene *scene;
  melu_user *user;
  float before[SCENE_ITEMS];
};

static void predict(float *scores, const struct scene *s, const melu_user *user) {
  melu_error err;
  uint32_t items[SCENE_ITEMS];
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) items[i] = i;
  PROOF_TRY(melu_predict(scores, s->ws, s->model, user, s->data, items, SCENE_ITEMS, &err));
}

static void judge_user(void *arg, struct proof_bytes b, const char *how, size_t where) {
  struct somebody *other = arg;
  struct scene *s = other->scene;
  melu_error err;
  float now[SCENE_ITEMS];
  const uint64_t *items;
  const float *ratings;
  const melu_status status = melu_user_load(other->user, s->ws, s->model, s->data, b.at, b.n, &err);
  PROOF_NEEDS(status == MELU_EFORMAT || status == MELU_ECORRUPT || status == MELU_EVERSION,
              "a user's bytes, %s %zu: %s", how, where, melu_status_name(status));
  predict(now, s, other->user);
  const int is_same =
      memcmp(now, other->before, sizeof now) == 0 && melu_user_ratings(other->user, &items, &ratings) == 0;
  PROOF_NEEDS(is_same, "a user's bytes, %s %zu: refused, but taken", how, where);
}

static void alter_user(struct scene *s, melu_user_form form) {
  melu_error err;
  struct somebody other = {.scene = s};
  struct proof_bytes b = scene_user_bytes(s, form);
  float loaded[SCENE_ITEMS], whole[SCENE_ITEMS];
  PROOF_TRY(melu_user_new(&other.user, s->model, &err));
  predict(other.before, s, other.user);
  alter(b, judge_user, &other);
  PROOF_TRY(melu_user_load(other.user, s->ws, s->model, s->data, b.at, b.n, &err));
  predict(loaded, s, other.user);
  predict(whole, s, s->user);
  PROOF_NEEDS(memcmp(loaded, whole, sizeof whole) == 0, "a user who was written down is another one");
  melu_user_free(other.user);
  free(b.at);
}

/* ----------------------------------------------------------------------------------------------------- tables */

struct reading {
  struct scene *scene;
  enum scene_table table;
  size_t n_read;
};

static size_t count(const melu_dataset *data, enum scene_table table) {
  return table == SCENE_TABLE_ITEMS   ? melu_dataset_n_items(data)
         : table == SCENE_TABLE_USERS ? melu_dataset_n_users(data)
                                      : melu_dataset_n_ratings(data);
}

static void judge_table(void *arg, struct proof_bytes b, const char *how, size_t where) {
  struct reading *r = arg;
  const struct scene *s = r->scene;
  melu_error err;
  melu_dataset *data;
  PROOF_TRY(melu_dataset_new(&data, s->ctx, s->schema, &err));
  for (int t = 0; t < SCENE_TABLE_RATINGS && r->table == SCENE_TABLE_RATINGS; t++)
    PROOF_TRY(scene_read(data, (enum scene_table)t, scene_path(s, scene_table_names[t]), &err));
  const char *path = scene_path(s, "altered");
  proof_write_file(path, b.at, b.n);
  const melu_status status = scene_read(data, r->table, path, &err);
  const size_t n = count(data, r->table);
  PROOF_NEEDS(status == MELU_OK || is_refusal(status), "%s, %s %zu: %s", scene_table_names[r->table], how, where,
              melu_status_name(status));
  PROOF_NEEDS(status == MELU_OK || n == 0, "%s, %s %zu: refused (%s), but %zu lines were added",
              scene_table_names[r->table], how, where, err.message, n);
  r->n_read += status == MELU_OK;
  PROOF_TRY(melu_dataset_freeze(data, &err));
  melu_dataset_free(data);
}

static size_t alter_table(struct scene *s, enum scene_table table) {
  struct reading r = {.scene = s, .table = table};
  struct proof_bytes b = proof_read_file(scene_path(s, scene_table_names[table]));
  alter(b, judge_table, &r);
  unlink(scene_path(s, "altered"));
  free(b.at);
  return r.n_read;
}

int main(int argc, char **argv) {
  const int full = proof_begin(7, argc, argv), n_settings = full ? SCENE_SETTINGS : SCENE_MELU;
  struct scene s;
  size_t n_read = 0;
  for (int setting = 0; setting < n_settings; setting++) {
    scene_open(&s, setting, NULL);
    alter_model(&s);
    alter_user(&s, MELU_USER_COMPACT);
    alter_user(&s, MELU_USER_READY);
    scene_close(&s);
  }
  const size_t n_refused = n_altered;
  scene_open(&s, SCENE_LAYERS, NULL);
  const size_t n_taken = alter_import(&s), n_imported = n_altered - n_refused;
  for (int table = 0; table < SCENE_TABLES; table++) n_read += alter_table(&s, (enum scene_table)table);
  scene_close(&s);
  proof_held(
      "%zu altered model files and users of %d models, all refused; without a checksum, %zu altered files of "
      "weights, %zu taken, and %zu tables, %zu taken",
      n_refused, n_settings, n_imported, n_taken, n_altered - n_refused - n_imported, n_read);
}
