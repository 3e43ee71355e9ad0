/* SPDX-License-Identifier: BSD-3-Clause */
#include "shard_faults.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "data/dataset.h"
#include "io_faults.h"

enum { N_FILES = 2 };

struct sharding {
  const struct scene *scene;
  char folder[128];
  melu_shard_writer *writer; /* of the attempt; NULL: there is none */
  unsigned char whole[MELU_DIGEST_BYTES];
  size_t n_tried;
};

static void empty_folder(const struct sharding *s) {
  char path[512];
  DIR *dir = opendir(s->folder);
  PROOF_NEEDS(dir, "cannot look into %s", s->folder);
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
    snprintf(path, sizeof path, "%s/%s", s->folder, e->d_name);
    if (e->d_name[0] != '.') unlink(path);
  }
  closedir(dir);
}

/* Blocks are so small that most of what is added goes to the temporary file. */
static melu_status write_all(struct sharding *s, melu_error *err) {
  const struct melu_shard_options options = {.size = sizeof options, .n_files = N_FILES, .buffer_bytes = 1};
  const melu_status status = melu_shard_writer_new(&s->writer, s->scene->ctx, s->folder, s->scene->data, &options, err);
  return status ? status : melu_shard_writer_finish(s->writer, err);
}

/* Of all that is in the folder, which must be a whole data set. */
static void digest_folder(unsigned char digest[MELU_DIGEST_BYTES], const struct sharding *s, const char *what) {
  melu_error err;
  melu_shards *shards;
  struct melu__digest d;
  const melu_status status = melu_shards_open(&shards, s->scene->ctx, s->folder, &err);
  PROOF_NEEDS(status == MELU_OK, "%s: there is no data set: %s", what, err.message);
  melu__digest_begin(&d);
  melu__dataset_digest(&d, melu_shards_items(shards));
  for (size_t f = 0; f < N_FILES; f++) {
    melu_dataset *data;
    PROOF_TRY(melu_shards_read(&data, shards, f, &err));
    melu__dataset_digest(&d, data);
    melu_dataset_free(data);
  }
  melu__digest_end(digest, &d);
  melu_shards_free(shards);
}

static void check_whole(struct sharding *s, const char *what) {
  unsigned char now[MELU_DIGEST_BYTES];
  digest_folder(now, s, what);
  PROOF_NEEDS(memcmp(now, s->whole, sizeof now) == 0, "%s: it is another data set", what);
  PROOF_NEEDS(files_in(s->folder) == N_FILES + 1, "%s: a file was left behind", what);
}

/* Unlike that of a saver, the temporary file has to lose its name at once. */
static enum outcome outcome_of_shards(const struct call *c, const struct call_fault *f) {
  return c && c->kind == CALL_UNLINK && f->error && f->error != EINTR ? REFUSED : outcome_of(c, f);
}

static void try_writing(void *arg, struct call_fault fault) {
  struct sharding *s = arg;
  melu_error err = {.message = ""};
  empty_folder(s);
  const size_t n_open = n_descriptors();
  calls_begin(fault);
  const melu_status status = write_all(s, &err);
  calls_end();
  const struct call *c = call_hit(&fault);
  const char *what = describe("a shard writer", &fault);
  const enum outcome want = outcome_of_shards(c, &fault);
  check_status(status, &err, want, &fault, what);
  if (may_leave()) remove_temporary(s->folder);
  if (want != DONE && s->writer && s->n_tried++ % 2) PROOF_TRY(melu_shard_writer_finish(s->writer, &err));
  const int is_done = want == DONE || (s->writer && s->n_tried % 2 == 0);
  melu_shard_writer_free(s->writer);
  if (!is_done) {
    melu_shards *shards;
    PROOF_NEEDS(files_in(s->folder) == 0, "%s: a file was left behind", what);
    PROOF_NEEDS(melu_shards_open(&shards, s->scene->ctx, s->folder, &err) == MELU_ENOTFOUND, "%s: it is a data set",
                what);
    PROOF_TRY(write_all(s, &err));
    melu_shard_writer_free(s->writer);
  }
  check_whole(s, what);
  PROOF_NEEDS(n_descriptors() == n_open, "%s: a descriptor was left open", what);
  figures.n_runs++;
}

void fail_shard_writer(const struct scene *scene) {
  struct sharding s = {.scene = scene};
  melu_error err;
  size_t n;
  snprintf(s.folder, sizeof s.folder, "%s", scene_path(scene, "shards"));
  PROOF_NEEDS(mkdir(s.folder, 0777) == 0, "no folder %s", s.folder);
  calls_begin((struct call_fault){0});
  PROOF_TRY(write_all(&s, &err));
  calls_end();
  const struct call *c = calls_recorded(&n);
  PROOF_NEEDS(n > 3 && c[3].kind == CALL_WRITE, "nothing went to the temporary file");
  melu_shard_writer_free(s.writer);
  digest_folder(s.whole, &s, "a shard folder");
  fail_each(n, try_writing, &s);
  empty_folder(&s);
  rmdir(s.folder);
}
