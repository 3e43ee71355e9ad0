/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 4: the power fails after any number of a save's calls. The calls of a real save are recorded; a disk (disk.h)
 * is made of the first n of them, for every n and many draws of what had reached it. There must be the old file, or
 * none if there was none, or the new one, byte for byte; the new one once the save had returned with success. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "planted.h"
#include "shard_set.h"

enum { SAVED_AGAIN = 50 }; /* of so many crashes one is followed by another save */

static struct { size_t n_crashes, n_old, n_new, n_saved, n_shards; } figures;

struct losing {
  const struct scene *scene;
  const struct saver *saver;
  char path[128];
  struct proof_bytes states[2]; /* the file of each state: the old one and the new one */
  int is_over;                  /* over an old file, or over none */
  size_t n_seeds;
};

static int is_state(const struct proof_bytes *found, const struct losing *l, int state) {
  const struct proof_bytes *want = &l->states[state];
  return found && found->n == want->n && memcmp(found->at, want->at, want->n) == 0;
}

/* Who comes back after the crash saves again. */
static void save_again(const struct losing *l, const struct disk_files *found) {
  melu_error err;
  for (size_t i = 0; i < found->n; i++)
    proof_write_file(found->at[i].path, found->at[i].bytes.at, found->at[i].bytes.n);
  calls_begin((struct call_fault){0});
  const melu_status status = l->saver->save(l->scene, 1, l->path, &err);
  calls_end();
  PROOF_NEEDS(status == MELU_OK, "%s after a crash: %s", l->saver->name, err.message);
  const struct proof_bytes now = proof_read_file(l->path);
  PROOF_NEEDS(is_state(&now, l, 1), "%s after a crash: the file is another one", l->saver->name);
  free(now.at);
  for (size_t i = 0; i < found->n; i++) unlink(found->at[i].path);
  unlink(l->path);
  figures.n_saved++;
}

static void crash(const struct losing *l, const struct disk *d, size_t n, int is_saved, uint64_t seed) {
  struct disk_files found;
  struct melu__rng rng = melu__rng(seed, 0, (uint32_t)n, (uint32_t)l->is_over);
  disk_crash(&found, d, n, &rng);
  const struct proof_bytes *file = disk_file(&found, l->path);
  const int is_new = is_state(file, l, 1), is_old = l->is_over ? is_state(file, l, 0) : !file;
  PROOF_NEEDS(is_new || is_old, "%s: after %zu of %zu calls and seed %zu there is %s, of %zu bytes", l->saver->name, n,
              d->n, (size_t)seed, file ? "something torn" : "nothing", file ? file->n : 0);
  PROOF_NEEDS(is_new || !is_saved, "%s: returned with success, but with seed %zu the old file comes back",
              l->saver->name, (size_t)seed);
  figures.n_crashes++;
  figures.n_new += (size_t)is_new;
  figures.n_old += (size_t)is_old;
  if (melu__rng_below(&rng, SAVED_AGAIN) == 0) save_again(l, &found);
  disk_files_free(&found);
}

/* Every prefix of a save, in which something may have failed. */
static void lose(const struct losing *l, struct call_fault fault, size_t n_seeds) {
  melu_error err;
  struct disk d;
  unlink(l->path);
  if (l->is_over) proof_write_file(l->path, l->states[0].at, l->states[0].n);
  calls_begin(fault);
  const melu_status status = l->saver->save(l->scene, 1, l->path, &err);
  calls_end();
  PROOF_NEEDS(!status || fault.at, "%s: %s", l->saver->name, err.message);
  disk_open(&d, l->path, l->is_over ? l->states[0] : (struct proof_bytes){NULL, 0});
  unlink(l->path);
  for (size_t seed = 0; seed < n_seeds; seed++)
    for (size_t n = 0; n <= d.n; n++) crash(l, &d, n, !status && n == d.n, seed);
  disk_close(&d);
}

/* The two files, which are read as two different things. */
static void make_states(struct losing *l) {
  melu_error err;
  unsigned char digests[2][MELU_DIGEST_BYTES];
  for (int state = 0; state < 2; state++) {
    PROOF_TRY(l->saver->save(l->scene, state, l->path, &err));
    PROOF_TRY(l->saver->load(digests[state], l->scene, l->path, &err));
    l->states[state] = proof_read_file(l->path);
  }
  PROOF_NEEDS(memcmp(digests[0], digests[1], MELU_DIGEST_BYTES) != 0, "%s: both states are one", l->saver->name);
}

static void lose_saver(const struct scene *scene, const struct saver *saver, size_t n_seeds) {
  struct losing l = {.scene = scene, .saver = saver};
  size_t n;
  snprintf(l.path, sizeof l.path, "%s", scene_path(scene, "saved"));
  make_states(&l);
  for (l.is_over = 0; l.is_over < 2; l.is_over++) {
    lose(&l, (struct call_fault){0}, n_seeds);
    calls_recorded(&n);
    /* Fewer draws of what is half lost already: one call fails, and then the power. */
    for (size_t at = 1; at <= n; at++) lose(&l, (struct call_fault){.at = at, .error = EIO}, n_seeds / 50);
  }
  for (int state = 0; state < 2; state++) free(l.states[state].at);
}

/* ---------------------------------------------------------------------------------------------- shard folders */

/* No manifest, and so no data set; or a manifest, and all of it. */
static void crash_shards(struct shard_set *s, const unsigned char whole[MELU_DIGEST_BYTES], const struct disk *d,
                         size_t n, uint64_t seed) {
  melu_error err;
  struct disk_files found;
  unsigned char now[MELU_DIGEST_BYTES];
  struct melu__rng rng = melu__rng(seed, 1, (uint32_t)n, 0);
  disk_crash(&found, d, n, &rng);
  const int is_there = disk_file(&found, s->manifest) != NULL, again = melu__rng_below(&rng, SAVED_AGAIN) == 0;
  PROOF_NEEDS(is_there || n < d->n, "a shard folder was finished, but with seed %zu it is lost", (size_t)seed);
  for (size_t i = 0; i < found.n && (is_there || again); i++)
    proof_write_file(found.at[i].path, found.at[i].bytes.at, found.at[i].bytes.n);
  if (is_there) shard_set_digest(now, s, "a shard folder after a crash");
  if (!is_there && again) {
    PROOF_TRY(shard_set_write(s, &err));
    shard_set_end_writing(s);
    shard_set_digest(now, s, "a shard folder written again");
    figures.n_saved++;
  }
  PROOF_NEEDS(!(is_there || again) || memcmp(now, whole, sizeof now) == 0, "a shard folder is another one");
  if (is_there || again) shard_set_empty(s);
  figures.n_shards++;
  disk_files_free(&found);
}

static void lose_shards(const struct scene *scene, size_t n_seeds) {
  struct shard_set s;
  melu_error err;
  struct disk d;
  unsigned char whole[MELU_DIGEST_BYTES];
  shard_set_open(&s, scene);
  calls_begin((struct call_fault){0});
  PROOF_TRY(shard_set_write(&s, &err));
  calls_end();
  shard_set_end_writing(&s);
  shard_set_digest(whole, &s, "a shard folder");
  disk_open(&d, s.manifest, (struct proof_bytes){NULL, 0});
  shard_set_empty(&s);
  for (size_t seed = 0; seed < n_seeds; seed++)
    for (size_t n = 0; n <= d.n; n++) crash_shards(&s, whole, &d, n, seed);
  disk_close(&d);
  shard_set_close(&s);
}

/* --------------------------------------------------------------------------------------------- what is planted */

struct planted {
  const struct scene *scene;
  enum flaw flaw;
  size_t n_seeds;
};

static void lose_planted(void *arg) {
  const struct planted *p = arg;
  lose_saver(p->scene, planted_saver(p->flaw), p->n_seeds);
}

static void plant(const struct scene *scene, size_t n_seeds) {
  for (int flaw = FLAWLESS; flaw < N_FLAWS; flaw++) {
    if (flaw != FLAWLESS && flaw < WRITES_IN_PLACE) continue;
    const int noticed = proof_notices(lose_planted, &(struct planted){scene, (enum flaw)flaw, n_seeds});
    PROOF_NEEDS(noticed == (flaw != FLAWLESS), "%s was %snoticed", flaw_names[flaw], noticed ? "" : "not ");
  }
}

int main(int argc, char **argv) {
  const int full = proof_begin(4, argc, argv), n_settings = full ? SCENE_SETTINGS : SCENE_MELU;
  const size_t n_seeds = full ? 1000 : 100;
  struct scene s;
  for (int setting = 0; setting < n_settings; setting++) {
    scene_open(&s, setting, NULL);
    if (setting == SCENE_LAYERS) plant(&s, n_seeds);
    for (int i = 0; i < N_SAVERS; i++) lose_saver(&s, &savers[i], n_seeds);
    if (setting == SCENE_LAYERS) lose_shards(&s, n_seeds);
    scene_close(&s);
  }
  PROOF_NEEDS(figures.n_old > 0 && figures.n_new > 0, "only old files were found, or only new ones");
  proof_held(
      "%zu crashes of %d savers with %d models and %zu seeds: %zu times the old file, %zu times the new one, "
      "none torn, and %zu crashes while a shard folder was written: none or all of it; after %zu another save worked",
      figures.n_crashes, N_SAVERS, n_settings, n_seeds, figures.n_old, figures.n_new, figures.n_shards,
      figures.n_saved);
}
