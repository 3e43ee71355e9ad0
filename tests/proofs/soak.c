/* SPDX-License-Identifier: BSD-3-Clause */
#define _DEFAULT_SOURCE /* mallinfo2 */
#include "soak.h"

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

enum { MORE_IN_USE = 4096, MORE_RESIDENT = 1 << 20 };

static size_t count_entries(const char *path) {
  size_t n = 0;
  DIR *folder = opendir(path);
  if (!folder) return 0;
  while (readdir(folder)) n++;
  closedir(folder);
  return n;
}

static size_t count_lines(const char *path) {
  size_t n = 0;
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  for (int c; (c = getc(file)) != EOF;) n += c == '\n';
  fclose(file);
  return n;
}

static size_t resident(void) {
  size_t all, pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return 0;
  if (fscanf(file, "%zu %zu", &all, &pages) != 2) pages = 0;
  fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

struct soak_levels soak_levels(void) {
  const struct mallinfo2 heap = mallinfo2();
  return (struct soak_levels){heap.uordblks + heap.hblkhd, resident(), count_entries("/proc/self/fd"),
                              count_entries("/proc/self/task"), count_lines("/proc/self/maps")};
}

const char *soak_grown(const struct soak_levels *before, const struct soak_levels *after) {
  return after->in_use > before->in_use + MORE_IN_USE         ? "what malloc has given out"
         : after->resident > before->resident + MORE_RESIDENT ? "memory"
         : after->descriptors > before->descriptors           ? "open files"
         : after->threads > before->threads                   ? "threads"
         : after->mappings > before->mappings                 ? "mappings"
                                                              : NULL;
}
