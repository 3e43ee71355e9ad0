/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>
#include <unistd.h>

#include "../proofs/repair.h"
#include "readers.h"

#define MANIFEST "manifest.safetensors"
#define SHARD "users-00000.safetensors"

/* A sound folder, of the scene's data; the same for all scenes. */
static struct proof_bytes manifest, shard;

static void make_sound(const struct scene *s) {
  melu_error err = {.message = ""};
  melu_shard_writer *writer;
  const struct melu_shard_options options = {.size = sizeof options, .n_files = 1};
  unlink(scene_path(s, MANIFEST));
  FUZZ_NEEDS(!melu_shard_writer_new(&writer, s->ctx, s->folder, s->data, &options, &err) &&
                 !melu_shard_writer_finish(writer, &err),
             "no shards: %s", err.message);
  melu_shard_writer_free(writer);
  manifest = proof_read_file(scene_path(s, MANIFEST));
  shard = proof_read_file(scene_path(s, SHARD));
}

void fuzz_shards_close(const struct scene *s) {
  unlink(scene_path(s, MANIFEST));
  unlink(scene_path(s, SHARD));
  free(manifest.at);
  free(shard.at);
  manifest = shard = (struct proof_bytes){NULL, 0};
}

/* Changes bytes of a sound file: where, and to what. */
static struct proof_bytes altered(struct proof_bytes sound, struct fuzz_input *in) {
  const struct proof_bytes b = proof_copy(sound.at, sound.n);
  for (size_t n = fuzz_byte(in) % 8; n > 0 && in->n; n--) {
    const size_t at = (size_t)fuzz_byte(in) << 8 | fuzz_byte(in);
    b.at[at % b.n] = fuzz_byte(in);
  }
  repair_file(b);
  return b;
}

/* Puts the checksum of the file where the sound manifest has it. */
static void match(struct proof_bytes of_folder, struct proof_bytes file) {
  static const char key[] = "\"melu.checksum\":\"", list[] = "\"files.checksums\":";
  size_t at = 0, digits = 0;
  while (at + sizeof list < manifest.n && memcmp(manifest.at + at, list, sizeof list - 1) != 0) at++;
  while (memcmp(manifest.at + at, "\"data_offsets\":[", 16) != 0) at++;
  at = 8 + (size_t)melu__get_bits(manifest.at, 8) + strtoul((const char *)manifest.at + at + 16, NULL, 10);
  while (digits + sizeof key + 16 < file.n && memcmp(file.at + digits, key, sizeof key - 1) != 0) digits++;
  melu__put_bits(of_folder.at + at, strtoull((const char *)file.at + digits + sizeof key - 1, NULL, 16), 8);
  repair_file(of_folder);
}

static void write_folder(const struct scene *s, struct fuzz_input in, unsigned flags) {
  if (!(flags & FUZZ_REPAIRED)) {
    proof_write_file(scene_path(s, flags & FUZZ_TABLE_OPTIONS ? MANIFEST : SHARD), in.at, in.n);
    return;
  }
  const struct proof_bytes of_folder = altered(manifest, &in), file = altered(shard, &in);
  match(of_folder, file);
  proof_write_file(scene_path(s, MANIFEST), of_folder.at, of_folder.n);
  proof_write_file(scene_path(s, SHARD), file.at, file.n);
  free(of_folder.at);
  free(file.at);
}

static void read_folder(const struct scene *s) {
  melu_error err = {.message = ""};
  melu_shards *shards;
  struct melu_shards_info info = {.size = sizeof info};
  const melu_status opened = melu_shards_open(&shards, s->ctx, s->folder, &err);
  if (!fuzz_accepted("melu_shards_open", opened, FUZZ_TENSOR_REFUSALS, &err)) return;
  fuzz_check_data(melu_shards_items(shards));
  FUZZ_NEEDS(!melu_shards_describe(&info, shards, &err), "not described: %s", err.message);
  for (size_t f = 0; f < info.n_files && f < 2; f++) {
    melu_dataset *data;
    const melu_status read = melu_shards_read(&data, shards, f, &err);
    if (!fuzz_accepted("melu_shards_read", read, FUZZ_TENSOR_REFUSALS | FUZZ_BIT(MELU_ENOTFOUND), &err)) continue;
    fuzz_check_data(data);
    melu_dataset_free(data);
  }
  melu_shards_free(shards);
}

void fuzz_shards(const struct scene *s, struct fuzz_input in, unsigned flags) {
  if (!manifest.at) make_sound(s);
  proof_write_file(scene_path(s, MANIFEST), manifest.at, manifest.n);
  proof_write_file(scene_path(s, SHARD), shard.at, shard.n);
  write_folder(s, in, flags);
  read_folder(s);
}
