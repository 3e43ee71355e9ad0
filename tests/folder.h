/* SPDX-License-Identifier: BSD-3-Clause */
/* A folder of a test's own. */
#ifndef MELU_TESTS_FOLDER_H
#define MELU_TESTS_FOLDER_H

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

/* How many files it has; removes them if asked to. */
static inline size_t folder_files(const char *folder, int remove) {
  char path[512];
  size_t n = 0;
  DIR *dir = opendir(folder);
  ck_assert_ptr_nonnull(dir);
  for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
    if (e->d_name[0] == '.') continue;
    n++;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (remove) unlink(path);
  }
  closedir(dir);
  return n;
}

/* Its files go, too. */
static inline void folder_remove(const char *folder) {
  folder_files(folder, 1);
  ck_assert_int_eq(rmdir(folder), 0);
}

#endif
