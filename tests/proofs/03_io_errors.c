/* SPDX-License-Identifier: BSD-3-Clause */
/* Proof 3: every call by which the library reads or writes a file fails, each in turn, with each of five errors, alone
 * and with all that follow; and transfers fewer bytes than it was asked for. Who saves leaves the old file or the new
 * one, and nothing beside it; who reads leaves everything as it was. What a signal interrupts goes on. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io_faults.h"
#include "planted.h"
#include "readers.h"
#include "shard_faults.h"

/* -------------------------------------------------------------------------------------------------- saving */

struct saving {
  const struct scene *scene;
  const struct saver *saver;
  int is_over; /* over an old file, or over none */
  char path[128];
  struct proof_bytes states[2]; /* the file of each state: the old one and the new one */
};

static void check_file(const struct saving *s, int state, const char *what) {
  if (state < 0) {
    PROOF_NEEDS(access(s->path, F_OK) != 0, "%s: there is a file, but it was refused", what);
    return;
  }
  const struct proof_bytes now = proof_read_file(s->path), *want = &s->states[state];
  PROOF_NEEDS(now.n == want->n && memcmp(now.at, want->at, now.n) == 0, "%s: the file is not the %s one", what,
              state ? "new" : "old");
  free(now.at);
}

static void put_old_file(const struct saving *s) {
  unlink(s->path);
  if (s->is_over) proof_write_file(s->path, s->states[0].at, s->states[0].n);
}

static void try_saving(void *arg, struct call_fault fault) {
  const struct saving *s = arg;
  melu_error err = {.message = ""};
  put_old_file(s);
  const size_t n_files = files_in(s->scene->folder), n_open = n_descriptors();
  calls_begin(fault);
  const melu_status status = s->saver->save(s->scene, 1, s->path, &err);
  calls_end();
  const struct call *c = call_hit(&fault);
  const char *what = describe(s->saver->name, &fault);
  const enum outcome want = outcome_of(c, &fault);
  check_status(status, &err, want, &fault, what);
  check_file(s, want != REFUSED ? 1 : s->is_over ? 0 : -1, what);
  if (may_leave()) remove_temporary(s->scene->folder);
  PROOF_NEEDS(files_in(s->scene->folder) == n_files + (want != REFUSED && !s->is_over), "%s: a file was left behind",
              what);
  PROOF_NEEDS(n_descriptors() == n_open, "%s: a descriptor was left open", what);
  calls_begin((struct call_fault){0}); /* the cause is gone */
  PROOF_TRY(s->saver->save(s->scene, 1, s->path, &err));
  calls_end();
  check_file(s, 1, what);
  figures.n_runs++;
}

static void fail_saver(const struct scene *scene, const struct saver *saver) {
  melu_error err;
  struct saving s = {.scene = scene, .saver = saver};
  snprintf(s.path, sizeof s.path, "%s", scene_path(scene, "saved"));
  for (int state = 0; state < 2; state++) {
    PROOF_TRY(saver->save(scene, state, s.path, &err));
    s.states[state] = proof_read_file(s.path);
  }
  PROOF_NEEDS(s.states[0].n != s.states[1].n || memcmp(s.states[0].at, s.states[1].at, s.states[0].n) != 0,
              "%s: both states have one file", saver->name);
  for (s.is_over = 0; s.is_over < 2; s.is_over++) {
    size_t n;
    put_old_file(&s);
    calls_begin((struct call_fault){0});
    PROOF_TRY(saver->save(scene, 1, s.path, &err));
    calls_end();
    calls_recorded(&n);
    fail_each(n, try_saving, &s);
  }
  unlink(s.path);
  for (int state = 0; state < 2; state++) free(s.states[state].at);
}

/* -------------------------------------------------------------------------------------------------- reading */

struct trying {
  const struct scene *scene;
  const struct reader *reader;
  unsigned char whole[MELU_DIGEST_BYTES]; /* what a reader makes of the file when nothing fails */
};

static void read_whole(unsigned char whole[MELU_DIGEST_BYTES], const struct reader *reader, struct subject *subject) {
  melu_error err;
  PROOF_TRY(reader->read(subject, &err));
  subject_freeze(subject);
  subject_digest(whole, subject);
}

static void try_reading(void *arg, struct call_fault fault) {
  const struct trying *t = arg;
  unsigned char before[MELU_DIGEST_BYTES], after[MELU_DIGEST_BYTES];
  melu_error err = {.message = ""};
  struct subject subject;
  subject_open(&subject, t->scene, t->reader);
  subject_digest(before, &subject);
  const size_t n_open = n_descriptors();
  calls_begin(fault);
  const melu_status status = t->reader->read(&subject, &err);
  calls_end();
  const struct call *c = call_hit(&fault);
  const char *what = describe(t->reader->name, &fault);
  const enum outcome want = outcome_of(c, &fault);
  check_status(status, &err, want, &fault, what);
  PROOF_NEEDS(n_descriptors() == n_open, "%s: a descriptor was left open", what);
  if (want == DONE) {
    subject_freeze(&subject);
  } else {
    subject_digest(after, &subject);
    PROOF_NEEDS(memcmp(before, after, sizeof after) == 0, "%s: refused, but something was taken", what);
    read_whole(after, t->reader, &subject);
  }
  subject_digest(after, &subject);
  PROOF_NEEDS(memcmp(after, t->whole, sizeof after) == 0, "%s: what was read is something else", what);
  subject_close(&subject);
  figures.n_runs++;
}

static void fail_reader(const struct scene *scene, const struct reader *reader) {
  struct trying t = {.scene = scene, .reader = reader};
  struct subject subject;
  size_t n;
  subject_open(&subject, scene, reader);
  calls_begin((struct call_fault){0});
  read_whole(t.whole, reader, &subject);
  calls_end();
  calls_recorded(&n);
  subject_close(&subject);
  PROOF_NEEDS(n >= 4, "%s makes %zu calls", reader->name, n);
  fail_each(n, try_reading, &t);
}

/* --------------------------------------------------------------------------------------------- what is planted */

struct planted {
  const struct scene *scene;
  enum flaw flaw;
};

static void fail_planted(void *arg) {
  const struct planted *p = arg;
  fail_saver(p->scene, planted_saver(p->flaw));
}

static melu_status leak(struct subject *t, melu_error *err) {
  const int fd = open(scene_path(t->scene, "saved-0"), O_RDONLY);
  const melu_status status = readers[0].read(t, err);
  if (!status) close(fd);
  return status;
}

static melu_status take_half(struct subject *t, melu_error *err) {
  const melu_status status = melu_dataset_read_items(t->data, scene_path(t->scene, "items.csv"), NULL, err);
  return status ? status : melu_dataset_read_users(t->data, scene_path(t->scene, "users.csv"), NULL, err);
}

static const struct scene *planted_scene;

static void fail_planted_reader(void *arg) {
  fail_reader(planted_scene, arg);
}

/* The flaws of savers that show when calls fail, and two of readers. */
static void plant(const struct scene *scene) {
  struct reader flawed[] = {{.name = "a leak", .open = readers[0].open, .read = leak},
                            {.name = "a half", .open = readers[3].open, .read = take_half}};
  for (int flaw = FLAWLESS; flaw <= WRITES_IN_PLACE; flaw++) {
    const int noticed = proof_notices(fail_planted, &(struct planted){scene, (enum flaw)flaw});
    PROOF_NEEDS(noticed == (flaw != FLAWLESS), "%s was %snoticed", flaw_names[flaw], noticed ? "" : "not ");
  }
  planted_scene = scene;
  for (size_t i = 0; i < sizeof flawed / sizeof *flawed; i++)
    PROOF_NEEDS(proof_notices(fail_planted_reader, &flawed[i]), "%s was not noticed", flawed[i].name);
}

int main(int argc, char **argv) {
  const int full = proof_begin(3, argc, argv), n_settings = full ? SCENE_SETTINGS : SCENE_MELU;
  struct scene s;
  for (int setting = 0; setting < n_settings; setting++) {
    scene_open(&s, setting, NULL);
    readers_prepare(&s);
    if (setting == SCENE_LAYERS) plant(&s);
    for (int i = 0; i < N_SAVERS; i++) fail_saver(&s, &savers[i]);
    for (int i = 0; i < N_READERS; i++) fail_reader(&s, &readers[i]);
    readers_clean(&s);
    if (setting == SCENE_LAYERS) fail_shard_writer(&s);
    scene_close(&s);
  }
  for (int kind = 0; kind < CALL_KINDS; kind++)
    PROOF_NEEDS(figures.n_kinds[kind] > 0, "no call of %s was seen", call_names[kind]);
  proof_held(
      "%zu times a call failed or was cut short, in %d savers, a writer of shards and %d readers with %d models: old "
      "or new, and "
      "nothing left",
      figures.n_runs, N_SAVERS, N_READERS, n_settings);
}
