/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE /* nftw */
#include "fault_files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proof.h"

enum { MOST_ROOTS = 8, MOST_FILES = 64, MOST_OPEN = 64, PATH = 300 };

static char roots[MOST_ROOTS][PATH];
static size_t n_roots;

/* A second name for each file, so that it stays the same file, with what was in it. */
static struct kept {
  char path[PATH], second[PATH];
  int is_folder;
  struct proof_bytes bytes;
  struct stat status;
} kept[MOST_FILES];
static size_t n_kept;

static off_t places[MOST_OPEN];

static void add_root(const char *path) {
  PROOF_NEEDS(n_roots < MOST_ROOTS && strlen(path) < PATH - 40, "too many folders");
  strcpy(roots[n_roots++], path);
}

char *__real_mkdtemp(char *template);
char *__wrap_mkdtemp(char *template);
char *__wrap_mkdtemp(char *template) {
  char *made = __real_mkdtemp(template);
  const char *parent = getenv("TMPDIR");
  if (made && !(parent && strncmp(made, parent, strlen(parent)) == 0)) add_root(made);
  return made;
}

/* Thousands of processes would wait for the disk, and no power is cut here. */
int __wrap_fsync(int descriptor);
int __wrap_fsync(int descriptor) {
  return fcntl(descriptor, F_GETFD) < 0 ? -1 : 0;
}

static int keep_one(const char *path, const struct stat *status, int type, struct FTW *where) {
  PROOF_NEEDS(n_kept < MOST_FILES && strlen(path) < PATH, "too many files");
  struct kept *k = &kept[n_kept];
  *k = (struct kept){.is_folder = type == FTW_D, .status = *status};
  strcpy(k->path, path);
  if (!k->is_folder) {
    snprintf(k->second, PATH, "%.*s-%zu", where->base - 1, path, n_kept); /* beside the folder, which will be emptied */
    PROOF_NEEDS(link(path, k->second) == 0, "cannot keep %s: %s", path, strerror(errno));
    k->bytes = proof_read_file(path);
  }
  n_kept++;
  return 0;
}

void fault_files_keep(void) {
  if (n_roots == 0 && getenv("TMPDIR")) add_root(getenv("TMPDIR"));
  n_kept = 0;
  for (size_t i = 0; i < n_roots; i++) nftw(roots[i], keep_one, 8, FTW_PHYS);
  for (int i = 0; i < MOST_OPEN; i++) places[i] = lseek(i, 0, SEEK_CUR);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where) {
  (void)status;
  for (size_t i = 0; i < n_kept; i++)
    if (strcmp(path, kept[i].second) == 0) return 0;
  if (where->level) (type == FTW_DP ? rmdir : unlink)(path);
  return 0;
}

static void restore_one(struct kept *k) {
  struct stat now;
  if (k->is_folder) {
    mkdir(k->path, k->status.st_mode);
    return;
  }
  PROOF_NEEDS(link(k->second, k->path) == 0, "cannot bring back %s: %s", k->path, strerror(errno));
  PROOF_NEEDS(stat(k->path, &now) == 0, "%s is lost", k->path);
  if (now.st_size != k->status.st_size || memcmp(&now.st_mtim, &k->status.st_mtim, sizeof now.st_mtim)) {
    FILE *file = fopen(k->path, "wb");
    PROOF_NEEDS(file && fwrite(k->bytes.at, 1, k->bytes.n, file) == k->bytes.n && fclose(file) == 0, "cannot write %s",
                k->path);
  }
  unlink(k->second);
}

void fault_files_forget(void) {
  for (size_t i = 0; i < n_kept; i++) free(kept[i].bytes.at);
  n_kept = 0;
}

void fault_files_restore(void) {
  for (size_t i = 0; i < n_roots; i++) nftw(roots[i], remove_one, 8, FTW_PHYS | FTW_DEPTH);
  for (size_t i = 0; i < n_kept; i++) restore_one(&kept[i]);
  fault_files_forget();
  for (int i = 0; i < MOST_OPEN; i++)
    if (places[i] >= 0) lseek(i, places[i], SEEK_SET);
}
