/* SPDX-License-Identifier: BSD-3-Clause */
#include "shard_faults.h"

#include <errno.h>
#include <string.h>

#include "io_faults.h"
#include "shard_set.h"

struct sharding {
  struct shard_set set;
  unsigned char whole[MELU_DIGEST_BYTES];
  size_t n_broken; /* attempts that failed, but had a writer to go on with */
};

static void check_whole(const struct sharding *s, const char *what) {
  unsigned char now[MELU_DIGEST_BYTES];
  shard_set_digest(now, &s->set, what);
  PROOF_NEEDS(memcmp(now, s->whole, sizeof now) == 0, "%s: it is another data set", what);
  PROOF_NEEDS(files_in(s->set.folder) == SHARD_SET_FILES + 1, "%s: a file was left behind", what);
}

/* Unlike that of a saver, the temporary file has to lose its name at once. */
static enum outcome outcome_of_shards(const struct call *c, const struct call_fault *f) {
  return c && c->kind == CALL_UNLINK && f->error && f->error != EINTR ? REFUSED : outcome_of(c, f);
}

/* Every other time in the writer that failed, else in another one. */
static void try_again(struct sharding *s, const char *what) {
  melu_error err;
  melu_shards *shards;
  if (s->set.writer && s->n_broken++ % 2) {
    PROOF_TRY(melu_shard_writer_finish(s->set.writer, &err));
    return;
  }
  shard_set_end_writing(&s->set);
  PROOF_NEEDS(files_in(s->set.folder) == 0, "%s: a file was left behind", what);
  PROOF_NEEDS(melu_shards_open(&shards, s->set.scene->ctx, s->set.folder, &err) == MELU_ENOTFOUND,
              "%s: it is a data set", what);
  PROOF_TRY(shard_set_write(&s->set, &err));
}

static void try_writing(void *arg, struct call_fault fault) {
  struct sharding *s = arg;
  melu_error err = {.message = ""};
  shard_set_empty(&s->set);
  const size_t n_open = n_descriptors();
  calls_begin(fault);
  const melu_status status = shard_set_write(&s->set, &err);
  calls_end();
  const struct call *c = call_hit(&fault);
  const char *what = describe("a shard writer", &fault);
  const enum outcome want = outcome_of_shards(c, &fault);
  check_status(status, &err, want, &fault, what);
  if (may_leave()) remove_temporary(s->set.folder);
  if (want != DONE) try_again(s, what);
  shard_set_end_writing(&s->set);
  check_whole(s, what);
  PROOF_NEEDS(n_descriptors() == n_open, "%s: a descriptor was left open", what);
  figures.n_runs++;
}

void fail_shard_writer(const struct scene *scene) {
  struct sharding s = {.n_broken = 0};
  melu_error err;
  size_t n;
  shard_set_open(&s.set, scene);
  calls_begin((struct call_fault){0});
  PROOF_TRY(shard_set_write(&s.set, &err));
  calls_end();
  shard_set_end_writing(&s.set);
  const struct call *c = calls_recorded(&n);
  PROOF_NEEDS(n > 3 && c[3].kind == CALL_WRITE, "nothing went to the temporary file");
  shard_set_digest(s.whole, &s.set, "a shard folder");
  fail_each(n, try_writing, &s);
  shard_set_close(&s.set);
}
