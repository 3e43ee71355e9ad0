/* SPDX-License-Identifier: BSD-3-Clause */
#include "disk.h"

#include <fcntl.h>
#include <string.h>

enum { SECTOR = 512, MOST_INODES = 64, OLD = 0, NO_INODE = MOST_INODES };

/* A call, and which file it was about. */
struct disk_change {
  struct call call; /* its texts are copies */
  size_t inode, offset;
  int is_of_folder;
};

/* Names of files, in the order of their making. */
struct names {
  struct {
    const char *path;
    size_t inode;
  } at[DISK_NAMES];
  size_t n;
};

static size_t find(const struct names *names, const char *path) {
  size_t i = 0;
  while (i < names->n && strcmp(names->at[i].path, path) != 0) i++;
  return i;
}

static size_t inode_of(const struct names *names, const char *path) {
  const size_t i = find(names, path);
  return i < names->n ? names->at[i].inode : NO_INODE;
}

static void unset(struct names *names, const char *path) {
  const size_t i = find(names, path);
  if (i < names->n) names->at[i] = names->at[--names->n];
}

static void set(struct names *names, const char *path, size_t inode) {
  unset(names, path);
  PROOF_NEEDS(names->n < DISK_NAMES, "more names than there is room for");
  names->at[names->n].path = path;
  names->at[names->n++].inode = inode;
}

static int is_of_names(const struct disk_change *c) {
  return c->call.kind == CALL_RENAME || c->call.kind == CALL_UNLINK ||
         (c->call.kind == CALL_OPEN && c->call.flags & O_CREAT);
}

static void change_names(struct names *names, const struct disk_change *c) {
  if (c->call.kind != CALL_OPEN) unset(names, c->call.path);
  if (c->call.kind == CALL_OPEN) set(names, c->call.path, c->inode);
  if (c->call.kind == CALL_RENAME) set(names, c->call.to, c->inode);
}

static struct names names_before(const struct disk *d) {
  struct names names = {.n = 0};
  if (d->old.at) set(&names, d->path, OLD);
  return names;
}

/* ------------------------------------------------------------------------------------------------- recording */

static char *copy(const char *text) {
  return text ? (char *)proof_copy(text, strlen(text) + 1).at : NULL;
}

/* Which file a call is about; a new one gets the next number. */
static size_t find_inode(const struct names *names, const struct call *c, const size_t *opened, size_t *n_inodes) {
  if (c->kind != CALL_OPEN) return c->path ? inode_of(names, c->path) : opened[c->file];
  const size_t known = inode_of(names, c->path);
  if (known != NO_INODE || !(c->flags & O_CREAT)) return known;
  PROOF_NEEDS(*n_inodes < MOST_INODES, "more files than there is room for");
  return (*n_inodes)++;
}

void disk_open(struct disk *d, const char *path, struct proof_bytes old) {
  size_t n, n_inodes = 1;
  const struct call *calls = calls_recorded(&n);
  *d = (struct disk){.changes = calloc(n, sizeof *d->changes), .path = copy(path), .old = old};
  size_t *opened = calloc(n, sizeof *opened), *at = calloc(n, sizeof *at);
  PROOF_NEEDS(d->changes && opened && at, "no memory");
  struct names names = names_before(d);
  for (size_t i = 0; i < n; i++) {
    const struct call *c = &calls[i];
    if (c->failed || c->kind == CALL_STAT) continue;
    struct disk_change *change = &d->changes[d->n++];
    *change = (struct disk_change){.call = *c, .is_of_folder = call_is_of_folder(c)};
    change->call.path = copy(c->path);
    change->call.to = copy(c->to);
    change->call.bytes = c->bytes ? proof_copy(c->bytes, c->n).at : NULL;
    change->inode = find_inode(&names, c, opened, &n_inodes);
    if (is_of_names(change)) change_names(&names, change);
    if (c->kind == CALL_OPEN) opened[i] = change->inode;
    if (c->kind == CALL_WRITE) {
      change->offset = at[c->file];
      at[c->file] += c->n;
    }
  }
  free(opened);
  free(at);
}

void disk_close(struct disk *d) {
  for (size_t i = 0; i < d->n; i++) {
    free(d->changes[i].call.path);
    free(d->changes[i].call.to);
    free(d->changes[i].call.bytes);
  }
  free(d->changes);
  free((char *)d->path);
}

/* -------------------------------------------------------------------------------------------------- crashing */

/* How often something that was not forced is there all the same: never, sometimes, nearly always, always. */
static double draw_mood(struct melu__rng *rng) {
  static const double moods[] = {0, 0.5, 0.95, 1};
  return moods[melu__rng_below(rng, 4)];
}

/* Up to which change all that was done to the folder, or to a file, is forced to the disk. */
static size_t forced_folder(const struct disk *d, size_t n) {
  while (n > 0 && !(d->changes[n - 1].call.kind == CALL_FSYNC && d->changes[n - 1].is_of_folder)) n--;
  return n;
}

static size_t forced_file(const struct disk *d, size_t n, size_t inode) {
  while (n > 0 && !(d->changes[n - 1].call.kind == CALL_FSYNC && !d->changes[n - 1].is_of_folder &&
                    d->changes[n - 1].inode == inode))
    n--;
  return n;
}

/* A write of which some sectors are there; returns where the last one of them ends. */
static size_t write_some(unsigned char *file, const struct disk_change *c, double mood, struct melu__rng *rng) {
  size_t end = 0;
  for (size_t at = 0, n; at < c->call.n; at += n) {
    const size_t left = SECTOR - (c->offset + at) % SECTOR;
    n = c->call.n - at < left ? c->call.n - at : left;
    if (melu__rng_unit(rng) >= mood) continue;
    const size_t whole = mood < 1 && melu__rng_below(rng, 4) == 0 ? melu__rng_below(rng, (uint32_t)n) : n;
    memcpy(file + c->offset + at, c->call.bytes + at, whole);
    end = c->offset + at + whole;
  }
  return end;
}

/* A file as it may be found after n changes. */
static struct proof_bytes draw_file(const struct disk *d, size_t n, size_t inode, struct melu__rng *rng) {
  const size_t forced = forced_file(d, n, inode);
  const double mood = draw_mood(rng);
  size_t room = d->old.n + 1, length = 0, longest = 0;
  for (size_t i = 0; i < n; i++) room += d->changes[i].call.n;
  struct proof_bytes file = {malloc(room), 0};
  PROOF_NEEDS(file.at, "no memory");
  memset(file.at, melu__rng_below(rng, 2) ? 0 : 0xa5, room);
  if (inode == OLD && d->old.at) memcpy(file.at, d->old.at, length = longest = d->old.n);
  for (size_t i = 0; i < n; i++) {
    const struct disk_change *c = &d->changes[i];
    if (c->inode != inode) continue;
    if (c->call.kind == CALL_OPEN && c->call.flags & O_TRUNC && (i < forced || melu__rng_unit(rng) < mood))
      length = longest = 0;
    if (c->call.kind != CALL_WRITE) continue;
    const size_t end = write_some(file.at, c, i < forced ? 1 : mood, rng);
    if (end > length) length = end;
    if (c->offset + c->call.n > longest) longest = c->offset + c->call.n;
  }
  file.n = length;
  if (longest > length && melu__rng_below(rng, 2)) file.n += melu__rng_below(rng, (uint32_t)(longest - length + 1));
  return file;
}

void disk_crash(struct disk_files *found, const struct disk *d, size_t n, struct melu__rng *rng) {
  const size_t forced = forced_folder(d, n);
  const double mood = draw_mood(rng);
  struct names names = names_before(d);
  for (size_t i = 0; i < n; i++)
    if (is_of_names(&d->changes[i]) && (i < forced || melu__rng_unit(rng) < mood)) change_names(&names, &d->changes[i]);
  found->n = names.n;
  for (size_t i = 0; i < names.n; i++)
    found->at[i] = (struct disk_file){names.at[i].path, draw_file(d, n, names.at[i].inode, rng)};
}

void disk_files_free(struct disk_files *files) {
  for (size_t i = 0; i < files->n; i++) free(files->at[i].bytes.at);
}

const struct proof_bytes *disk_file(const struct disk_files *files, const char *path) {
  for (size_t i = 0; i < files->n; i++)
    if (strcmp(files->at[i].path, path) == 0) return &files->at[i].bytes;
  return NULL;
}
