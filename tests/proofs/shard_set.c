/* SPDX-License-Identifier: BSD-3-Clause */
#include "shard_set.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "data/dataset.h"

void shard_set_open(struct shard_set *s, const struct scene *scene) {
  *s = (struct shard_set){.scene = scene};
  snprintf(s->folder, sizeof s->folder, "%s", scene_path(scene, "shards"));
  snprintf(s->manifest, sizeof s->manifest, "%s/manifest.safetensors", s->folder);
  PROOF_NEEDS(mkdir(s->folder, 0777) == 0, "no folder %s", s->folder);
}

void shard_set_close(struct shard_set *s) {
  shard_set_empty(s);
  PROOF_NEEDS(rmdir(s->folder) == 0, "cannot remove %s", s->folder);
}

void shard_set_empty(const struct shard_set *s) {
  char path[512];
  DIR *dir = opendir(s->folder);
  PROOF_NEEDS(dir, "cannot look into %s", s->folder);
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
    snprintf(path, sizeof path, "%s/%s", s->folder, e->d_name);
    if (e->d_name[0] != '.') unlink(path);
  }
  closedir(dir);
}

melu_status shard_set_write(struct shard_set *s, melu_error *err) {
  const struct melu_shard_options options = {.size = sizeof options, .n_files = SHARD_SET_FILES, .buffer_bytes = 1};
  const melu_status status = melu_shard_writer_new(&s->writer, s->scene->ctx, s->folder, s->scene->data, &options, err);
  return status ? status : melu_shard_writer_finish(s->writer, err);
}

void shard_set_end_writing(struct shard_set *s) {
  melu_shard_writer_free(s->writer);
  s->writer = NULL;
}

void shard_set_digest(unsigned char digest[MELU_DIGEST_BYTES], const struct shard_set *s, const char *what) {
  melu_error err;
  melu_shards *shards;
  struct melu__digest d;
  const melu_status status = melu_shards_open(&shards, s->scene->ctx, s->folder, &err);
  PROOF_NEEDS(status == MELU_OK, "%s: there is no data set: %s", what, err.message);
  melu__digest_begin(&d);
  melu__dataset_digest(&d, melu_shards_items(shards));
  for (size_t f = 0; f < SHARD_SET_FILES; f++) {
    melu_dataset *data;
    PROOF_TRY(melu_shards_read(&data, shards, f, &err));
    melu__dataset_digest(&d, data);
    melu_dataset_free(data);
  }
  melu__digest_end(digest, &d);
  melu_shards_free(shards);
}
