/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 7: files and bytes that are cut, altered, rearranged or longer than they were. Model files, checkpoints, shard
 * folders and adapted users are refused, and nothing is changed by them. Imported weights, tables and the files of the
 * MeLU reference code have no checksum and may still be what they should be; if they are refused, nothing is changed
 * either. That nothing crashes is seen by this program's coming to its end. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "readers.h"

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

/* ------------------------------------------------------------------------------------------------------ files */

/* A reader that is given an altered file, again and again, and must stay as it was. */
struct reading {
  const struct scene *scene;
  const struct reader *reader;
  const char *file;
  struct subject subject;
  unsigned char before[MELU_DIGEST_BYTES];
  size_t n_taken;
};

static void reading_open(struct reading *r) {
  subject_open(&r->subject, r->scene, r->reader);
  subject_digest(r->before, &r->subject);
}

static int is_refusal(melu_status status, int is_sealed) {
  static const melu_status refusals[] = {MELU_EFORMAT, MELU_ELIMIT,    MELU_ECORRUPT, MELU_EVERSION, /* and unsealed: */
                                         MELU_ERANGE,  MELU_ENOTFOUND, MELU_ESTATE};
  for (size_t i = 0; i < (is_sealed ? 4 : sizeof refusals / sizeof *refusals); i++)
    if (status == refusals[i]) return 1;
  return 0;
}

static void judge_file(void *arg, struct proof_bytes b, const char *how, size_t where) {
  struct reading *r = arg;
  melu_error err = {.message = ""};
  unsigned char after[MELU_DIGEST_BYTES];
  proof_write_file(scene_path(r->scene, r->file), b.at, b.n);
  const melu_status status = r->reader->read(&r->subject, &err);
  if (status == MELU_OK) {
    PROOF_NEEDS(!r->reader->is_sealed, "%s: %s, %s %zu: taken", r->reader->name, r->file, how, where);
    r->n_taken++;
    subject_freeze(&r->subject);
    subject_close(&r->subject);
    reading_open(r);
    return;
  }
  PROOF_NEEDS(is_refusal(status, r->reader->is_sealed) && err.status == status && err.message[0], "%s: %s, %s %zu: %s",
              r->reader->name, r->file, how, where, melu_status_name(status));
  subject_digest(after, &r->subject);
  PROOF_NEEDS(memcmp(after, r->before, sizeof after) == 0, "%s: %s, %s %zu: refused (%s), but something is changed",
              r->reader->name, r->file, how, where, err.message);
}

/* Returns how many altered files were taken. */
static size_t alter_file(const struct scene *s, const struct reader *reader, const char *file) {
  melu_error err;
  struct reading r = {.scene = s, .reader = reader, .file = file};
  struct proof_bytes b = proof_read_file(scene_path(s, file));
  reading_open(&r);
  alter(b, judge_file, &r);
  proof_write_file(scene_path(s, file), b.at, b.n); /* so it was not for another reason that all was refused */
  PROOF_TRY(reader->read(&r.subject, &err));
  subject_close(&r.subject);
  free(b.at);
  return r.n_taken;
}

/* All files of all readers that are sealed, or of all that are not; what is the same for all models, with the first
 * one.
 */
static size_t alter_files(const struct scene *s, int setting, int is_sealed) {
  size_t n_taken = 0;
  readers_prepare(s);
  for (int i = 0; i < N_READERS; i++) {
    if (readers[i].is_sealed != is_sealed || (readers[i].is_of_data && setting != SCENE_LAYERS)) continue;
    for (int f = 0; f < READER_FILES && readers[i].files[f]; f++)
      n_taken += alter_file(s, &readers[i], readers[i].files[f]);
  }
  readers_clean(s);
  return n_taken;
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

/* ------------------------------------------------------------------------------------------- what is planted */

/* Items, and users if the items are refused. */
static melu_status leave_something(struct subject *t, melu_error *err) {
  const melu_status status = readers[3].read(t, err);
  if (status) readers[4].read(t, NULL);
  return status;
}

static melu_status take_anything(struct subject *t, melu_error *err) {
  readers[3].read(t, err);
  return MELU_OK;
}

static const struct scene *planted_scene;

static void alter_planted(void *arg) {
  const struct reader *reader = arg;
  alter_file(planted_scene, reader, reader->files[0]);
}

static void plant(const struct scene *s) {
  struct reader flawed[] = {readers[3], readers[3], readers[3]};
  const struct proof_bytes b = proof_read_file(scene_path(s, flawed[0].files[0]));
  flawed[1].read = leave_something;
  flawed[2].read = take_anything;
  flawed[2].is_sealed = 1;
  planted_scene = s;
  for (int i = 0; i < 3; i++) {
    const int noticed = proof_notices(alter_planted, &flawed[i]);
    PROOF_NEEDS(noticed == (i > 0), "planted reader %d was %snoticed", i, noticed ? "" : "not ");
    proof_write_file(scene_path(s, flawed[i].files[0]), b.at, b.n);
  }
  free(b.at);
}

int main(int argc, char **argv) {
  const int full = proof_begin(7, argc, argv), n_settings = full ? SCENE_SETTINGS : SCENE_MELU;
  struct scene s;
  scene_open(&s, SCENE_LAYERS, NULL);
  plant(&s);
  const size_t n_taken = alter_files(&s, SCENE_LAYERS, 0), n_unsealed = n_altered;
  scene_close(&s);
  for (int setting = 0; setting < n_settings; setting++) {
    scene_open(&s, setting, NULL);
    alter_user(&s, MELU_USER_COMPACT);
    alter_user(&s, MELU_USER_READY);
    alter_files(&s, setting, 1); /* which changes the model */
    scene_close(&s);
  }
  proof_held(
      "%zu altered models, checkpoints, shards and users of %d models, all refused; without a checksum, %zu altered "
      "files "
      "of %d readers, %zu of them taken",
      n_altered - n_unsealed, n_settings, n_unsealed, N_READERS - 4, n_taken);
}
