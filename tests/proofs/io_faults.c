/* SPDX-License-Identifier: BSD-3-Clause */
#include "io_faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int errors[] = {ENOSPC, EIO, EDQUOT, EINTR, EMFILE};
enum { N_ERRORS = sizeof errors / sizeof *errors };

/* Bytes that every transfer has at most. */
static const size_t pieces[] = {1, 7, 1000};
enum { N_PIECES = sizeof pieces / sizeof *pieces };

struct io_figures figures;

/* ------------------------------------------------------------------------------------------------- the faults */

size_t n_descriptors(void) {
  size_t n = 0;
  for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
  return n;
}

/* Whether a file that is closed has lost its name before, so that nobody will ever read it. */
static int is_nameless(const struct call *calls, const struct call *closing) {
  if (closing->file == CALL_NO_FILE) return 0;
  const char *name = calls[closing->file].path;
  for (const struct call *c = calls + closing->file; c < closing; c++)
    if (c->kind == CALL_UNLINK && name && c->path && strcmp(c->path, name) == 0) return 1;
  return 0;
}

static int is_harmless(const struct call *calls, const struct call *c) {
  return c->kind == CALL_UNLINK || (c->kind == CALL_CLOSE && (!call_is_of_written(c) || is_nameless(calls, c)));
}

enum outcome outcome_of(const struct call *c, const struct call_fault *f) {
  size_t n;
  const struct call *calls = calls_recorded(&n);
  if (!c || !f->error || f->error == EINTR) return DONE;
  if (c->kind == CALL_FSYNC && call_is_of_folder(c)) return BETWEEN;
  for (size_t at = f->at; at <= (f->from_there_on ? n : f->at); at++)
    if (!is_harmless(calls, &calls[at - 1])) return REFUSED;
  return DONE;
}

const char *describe(const char *who, const struct call_fault *f) {
  static char text[160];
  size_t n;
  const struct call *c = calls_recorded(&n);
  if (!f->at)
    snprintf(text, sizeof text, "%s, %zu bytes at a time", who, f->most);
  else
    snprintf(text, sizeof text, "%s, call %zu (%s)%s, %s", who, f->at, call_names[c[f->at - 1].kind],
             f->from_there_on ? " and all after it" : "", f->error ? strerror(f->error) : "one byte alone");
  return text;
}

void check_status(melu_status status, const melu_error *err, enum outcome want, const struct call_fault *f,
                  const char *what) {
  const melu_status wanted = want == DONE ? MELU_OK : MELU_EIO;
  PROOF_NEEDS(status == wanted, "%s: %s instead of %s: %s", what, melu_status_name(status), melu_status_name(wanted),
              status ? err->message : "");
  if (want == DONE) return;
  PROOF_NEEDS(err->status == MELU_EIO && err->sys_errno == f->error && strstr(err->message, strerror(f->error)),
              "%s: errno %d, \"%s\"", what, err->sys_errno, err->message);
  PROOF_NEEDS(want != BETWEEN || strstr(err->message, "the folder of"), "%s: \"%s\"", what, err->message);
}

void fail_each(size_t n, void (*try_fault)(void *arg, struct call_fault fault), void *arg) {
  for (size_t at = 1; at <= n; at++)
    for (int e = 0; e < N_ERRORS; e++) {
      try_fault(arg, (struct call_fault){.at = at, .error = errors[e]});
      /* A signal in answer to every call would be an endless one. */
      if (errors[e] != EINTR) try_fault(arg, (struct call_fault){.at = at, .error = errors[e], .from_there_on = 1});
    }
  for (size_t at = 1; at <= n; at++) try_fault(arg, (struct call_fault){.at = at});
  for (int i = 0; i < N_PIECES; i++) try_fault(arg, (struct call_fault){.most = pieces[i]});
}

const struct call *call_hit(const struct call_fault *f) {
  size_t n;
  const struct call *c = calls_recorded(&n);
  PROOF_NEEDS(!f->at || f->at <= n, "call %zu was not made", f->at);
  if (!f->at) return NULL;
  figures.n_kinds[c[f->at - 1].kind]++;
  return &c[f->at - 1];
}

/* -------------------------------------------------------------------------------------------------- the folder */

size_t files_in(const char *folder) {
  size_t n = 0;
  DIR *dir = opendir(folder);
  PROOF_NEEDS(dir, "cannot look into %s", folder);
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) n += e->d_name[0] != '.';
  closedir(dir);
  return n;
}

void remove_temporary(const char *folder) {
  char path[512];
  DIR *dir = opendir(folder);
  PROOF_NEEDS(dir, "cannot look into %s", folder);
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (strstr(e->d_name, ".tmp-")) unlink(path);
  }
  closedir(dir);
}

int may_leave(void) {
  size_t n;
  const struct call *c = calls_recorded(&n);
  for (size_t i = 0; i < n; i++)
    if (c[i].kind == CALL_UNLINK && c[i].failed) return 1;
  return 0;
}
