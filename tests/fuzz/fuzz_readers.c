/* SPDX-License-Identifier: BSD-3-Clause */
/* The input's first byte says which reader, the second how it is called; the rest is what it reads. Checksums are set
 * right where the second byte says so, as by somebody who means harm. What is refused changes nothing, and what is
 * accepted can be used. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "../proofs/repair.h"
#include "../proofs/savers.h"
#include "../support.h"
#include "../user_layout.h"
#include "readers.h"

/* Of the input's second byte; readers.h has the other bits. */
enum { OF_FACTORS = 1 };

enum { N_SCENES = SCENE_FACTORS + 1 };

static struct test_heap heap;
static struct scene scenes[N_SCENES];
static melu_model *importers[N_SCENES]; /* into which weights are imported */
static melu_user *loaded[N_SCENES];     /* who is whom the bytes say */

/* Nothing is forced to the disk: no power is cut here, and forcing takes long. */
int __wrap_fsync(int descriptor);
int __wrap_fsync(int descriptor) {
  (void)descriptor;
  return 0;
}

struct fuzz_input fuzz_part(struct fuzz_input *in) {
  const uint8_t *cut = in->n ? memchr(in->at, FUZZ_CUT, in->n) : NULL;
  const struct fuzz_input part = {in->at, cut ? (size_t)(cut - in->at) : in->n};
  const size_t taken = part.n + (cut != NULL);
  *in = (struct fuzz_input){taken ? in->at + taken : in->at, in->n - taken};
  return part;
}

int fuzz_accepted(const char *what, melu_status status, unsigned allowed, const melu_error *err) {
  if (!status) return 1;
  FUZZ_NEEDS(status >= MELU_EPEER && status < 0 && allowed & FUZZ_BIT(status), "%s: %s", what,
             melu_status_name(status));
  FUZZ_NEEDS(err->status == status && err->message[0] && memchr(err->message, 0, sizeof err->message),
             "%s: %s, but the error does not say so", what, melu_status_name(status));
  return 0;
}

/* ------------------------------------------------------------------------------------------- files of tensors */

/* The input itself; or, repaired, its two parts as header and data, with the right length and checksum. */
static const char *write_input(const struct scene *s, struct fuzz_input in, unsigned flags) {
  const char *path = scene_path(s, "input");
  if (!(flags & FUZZ_REPAIRED)) {
    proof_write_file(path, in.at, in.n);
    return path;
  }
  const struct fuzz_input header = fuzz_part(&in);
  const struct proof_bytes b = {malloc(8 + header.n + in.n), 8 + header.n + in.n};
  FUZZ_NEEDS(b.at, "no memory");
  melu__put_bits(b.at, header.n, 8);
  if (header.n) memcpy(b.at + 8, header.at, header.n);
  if (in.n) memcpy(b.at + 8 + header.n, in.at, in.n);
  repair_file(b);
  proof_write_file(path, b.at, b.n);
  free(b.at);
  return path;
}

static void digest_of(unsigned char digest[MELU_DIGEST_BYTES], const melu_model *model) {
  melu_error err = {.message = ""};
  FUZZ_NEEDS(!melu_model_digest(digest, model, &err), "no digest: %s", err.message);
}

/* A data set of the schema with one item, which has a value in each field. */
static melu_dataset *one_item(const melu_context *ctx, const melu_schema *schema) {
  static const uint32_t id = 0;
  static const float numbers[4096];
  const size_t n = melu_schema_n_fields(schema, MELU_ITEM);
  struct melu_value *values = calloc(n + 1, sizeof *values);
  melu_dataset *data;
  melu_error err = {.message = ""};
  FUZZ_NEEDS(values && !melu_dataset_new(&data, ctx, schema, &err), "no data set: %s", err.message);
  for (size_t i = 0; i < n; i++) {
    struct melu_field f = {.size = sizeof f};
    FUZZ_NEEDS(!melu_schema_field(&f, schema, MELU_ITEM, i, &err), "no field: %s", err.message);
    if (f.kind == MELU_NUMERIC)
      values[i] = (struct melu_value){.numbers = numbers, .n_numbers = f.width};
    else
      values[i] = (struct melu_value){.ids = &id, .n_ids = 1};
  }
  FUZZ_NEEDS(!melu_dataset_add_item(data, 1, values, NULL, &err), "no item: %s", err.message);
  FUZZ_NEEDS(!melu_dataset_freeze(data, &err), "not frozen: %s", err.message);
  free(values);
  return data;
}

/* The model adapts and predicts, unless its weights are such that it diverges. */
static void check_serving(const melu_context *ctx, const melu_model *model) {
  static const uint32_t item = 0;
  static const float rating = 1;
  melu_error err = {.message = ""};
  melu_dataset *data = one_item(ctx, melu_model_schema(model));
  melu_workspace *ws;
  melu_user *user;
  float score = NAN;
  FUZZ_NEEDS(!melu_workspace_new(&ws, model, 2, &err), "no workspace: %s", err.message);
  FUZZ_NEEDS(!melu_user_new(&user, model, &err), "no user: %s", err.message);
  melu_status status = melu_adapt(user, ws, model, data, NULL, &item, &rating, 1, &err);
  FUZZ_NEEDS(!status || status == MELU_EDIVERGED, "melu_adapt: %s: %s", melu_status_name(status), err.message);
  status = melu_predict(&score, ws, model, user, data, &item, 1, &err);
  FUZZ_NEEDS(status ? status == MELU_EDIVERGED : isfinite(score), "melu_predict: %s: %s", melu_status_name(status),
             err.message);
  melu_user_free(user);
  melu_workspace_free(ws);
  melu_dataset_free(data);
}

/* Saved and loaded it is the same model, and the same file. */
static void check_saving(const struct scene *s, const melu_model *model) {
  unsigned char digest[MELU_DIGEST_BYTES], again[MELU_DIGEST_BYTES];
  melu_error err = {.message = ""};
  melu_model *same;
  const char *path = scene_path(s, "saved");
  FUZZ_NEEDS(!melu_model_save(model, path, &err), "cannot be saved: %s", err.message);
  const struct proof_bytes first = proof_read_file(path);
  FUZZ_NEEDS(!melu_model_load(&same, s->ctx, path, &err), "was saved, and cannot be loaded: %s", err.message);
  digest_of(digest, model);
  digest_of(again, same);
  FUZZ_NEEDS(memcmp(digest, again, sizeof digest) == 0, "was saved and loaded, and has another digest");
  FUZZ_NEEDS(!melu_model_save(same, path, &err), "cannot be saved again: %s", err.message);
  const struct proof_bytes second = proof_read_file(path);
  FUZZ_NEEDS(first.n == second.n && memcmp(first.at, second.at, first.n) == 0, "another file of the same model");
  free(second.at);
  free(first.at);
  melu_model_free(same);
}

static void read_model(const struct scene *s, struct fuzz_input in, unsigned flags) {
  melu_error err = {.message = ""};
  melu_model *model = s->model;
  const melu_status status = melu_model_load(&model, s->ctx, write_input(s, in, flags), &err);
  if (fuzz_accepted("melu_model_load", status, FUZZ_TENSOR_REFUSALS, &err)) {
    check_saving(s, model);
    check_serving(s->ctx, model);
    melu_model_free(model);
  } else {
    FUZZ_NEEDS(!model, "melu_model_load: refused, but there is a model");
  }
}

static void read_weights(const struct scene *s, struct fuzz_input in, unsigned flags) {
  melu_error err = {.message = ""};
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  melu_model *model = importers[flags & OF_FACTORS];
  digest_of(before, model);
  const melu_status status = melu_model_import(model, write_input(s, in, flags), &err);
  if (fuzz_accepted("melu_model_import", status, FUZZ_TENSOR_REFUSALS, &err)) {
    check_serving(s->ctx, model);
    FUZZ_NEEDS(!melu_model_import(model, scene_path(s, "sound"), &err), "cannot be undone: %s", err.message);
  }
  digest_of(after, model);
  FUZZ_NEEDS(memcmp(before, after, sizeof before) == 0, "melu_model_import: refused, but taken");
}

/* A training that goes on, from a file that says where it was. */
static void read_checkpoint(const struct scene *s, struct fuzz_input in, unsigned flags) {
  enum { ENDS = FUZZ_BIT(MELU_EDIVERGED), OTHER = FUZZ_BIT(MELU_ESCHEMA) | FUZZ_BIT(MELU_EINVAL) };
  melu_error err = {.message = ""};
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  melu_model *model = saver_model(s, 0);
  digest_of(before, model);
  const melu_status status = saver_train(model, s, write_input(s, in, flags), 1, &err);
  const int accepted = fuzz_accepted("a checkpoint", status, FUZZ_TENSOR_REFUSALS | ENDS | OTHER, &err);
  digest_of(after, model);
  if (accepted || status == MELU_EDIVERGED)
    check_serving(s->ctx, model);
  else
    FUZZ_NEEDS(memcmp(before, after, sizeof before) == 0, "a checkpoint: refused (%s), but taken", err.message);
  melu_model_free(model);
}

/* ------------------------------------------------------------------------------------------------------ users */

static melu_status predict(float *scores, const struct scene *s, const melu_user *user) {
  melu_error err = {.message = ""};
  uint32_t items[SCENE_ITEMS];
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) items[i] = i;
  const melu_status status = melu_predict(scores, s->ws, s->model, user, s->data, items, SCENE_ITEMS, &err);
  FUZZ_NEEDS(!status || status == MELU_EDIVERGED, "melu_predict: %s: %s", melu_status_name(status), err.message);
  for (size_t i = 0; i < SCENE_ITEMS && !status; i++) FUZZ_NEEDS(isfinite(scores[i]), "score %zu is not finite", i);
  return status;
}

/* She is written down as the bytes that she was read from, and is explained and told more. */
static void check_user(const struct scene *s, melu_user *user, struct proof_bytes b) {
  float scores[SCENE_ITEMS], pulls[SCENE_MOST];
  melu_error err = {.message = ""};
  const struct proof_bytes again = proof_user_bytes(s->ws, user, (melu_user_form)b.at[AT_FORM]);
  FUZZ_NEEDS(again.n == b.n && memcmp(again.at, b.at, b.n) == 0, "a user is written down as another one");
  free(again.at);
  predict(scores, s, user);
  melu_status status = melu_explain(pulls, s->ws, s->model, user, s->data, 0, &err);
  FUZZ_NEEDS(!status || status == MELU_EDIVERGED, "melu_explain: %s: %s", melu_status_name(status), err.message);
  status = melu_user_rate(user, s->ws, s->model, s->data, 1, 2, &err);
  FUZZ_NEEDS(!status || status == MELU_EDIVERGED || status == MELU_ELIMIT, "melu_user_rate: %s: %s",
             melu_status_name(status), err.message);
}

static void read_user(const struct scene *s, struct fuzz_input in, unsigned flags) {
  enum { OTHER = FUZZ_BIT(MELU_ESCHEMA) | FUZZ_BIT(MELU_ENOTFOUND) | FUZZ_BIT(MELU_EDIVERGED) };
  melu_error err = {.message = ""};
  const struct proof_bytes b = proof_copy(in.at, in.n);
  melu_user *user = loaded[flags & OF_FACTORS];
  float before[SCENE_ITEMS], after[SCENE_ITEMS];
  if (flags & FUZZ_REPAIRED && b.n >= AT_COUNTS + 8) {
    digest_of(b.at + AT_DIGEST, s->model);
    repair_user(b);
  }
  predict(before, s, user);
  const melu_status status = melu_user_load(user, s->ws, s->model, s->data, b.at, b.n, &err);
  if (fuzz_accepted("melu_user_load", status, FUZZ_TENSOR_REFUSALS | OTHER, &err)) {
    check_user(s, user, b);
    FUZZ_NEEDS(!melu_adapt(user, s->ws, s->model, s->data, NULL, NULL, NULL, 0, &err), "no stranger: %s", err.message);
  }
  predict(after, s, user);
  FUZZ_NEEDS(memcmp(before, after, sizeof before) == 0, "melu_user_load: refused, but taken");
  free(b.at);
}

/* --------------------------------------------------------------------------------------------------------- all */

static void (*const all_readers[])(const struct scene *s, struct fuzz_input in, unsigned flags) = {
    read_model, read_weights, read_checkpoint, read_user, fuzz_tables, fuzz_melu_folder, fuzz_shards};
enum { N_READERS = sizeof all_readers / sizeof *all_readers };

static void close_all(void) {
  for (int i = 0; i < N_SCENES; i++) {
    melu_user_free(loaded[i]);
    melu_model_free(importers[i]);
    unlink(scene_path(&scenes[i], "sound"));
    unlink(scene_path(&scenes[i], "input"));
    unlink(scene_path(&scenes[i], "saved"));
    unlink(scene_path(&scenes[i], "table"));
    fuzz_shards_close(&scenes[i]);
    scene_close(&scenes[i]);
  }
}

static void open_all(void) {
  melu_error err = {.message = ""};
  static struct melu_allocator allocator;
  allocator = test_allocator(&heap);
  for (int i = 0; i < N_SCENES; i++) {
    struct scene *s = &scenes[i];
    scene_open(s, i, &allocator);
    importers[i] = saver_model(s, 0);
    FUZZ_NEEDS(!melu_model_save(importers[i], scene_path(s, "sound"), &err), "not saved: %s", err.message);
    FUZZ_NEEDS(!melu_user_new(&loaded[i], s->model, &err), "no user: %s", err.message);
  }
  atexit(close_all);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
  static int is_open;
  struct fuzz_input in = {bytes, n};
  if (!is_open) open_all();
  is_open = 1;
  const uint8_t reader = fuzz_byte(&in), flags = fuzz_byte(&in);
  all_readers[reader % N_READERS](&scenes[flags & OF_FACTORS], in, flags);
  return 0;
}
