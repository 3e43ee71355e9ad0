/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/json_read.h"
#include "io/json_write.h"
#include "io/metadata.h"

#define FORMAT "melu-manifest"

enum { CHECKSUM_DIGITS = 16 };

void melu__manifest_free(struct melu__manifest *m, const struct melu_allocator *a) {
  melu__free(a, m->parts);
  *m = (struct melu__manifest){NULL, 0};
}

static const char *name_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

melu_status melu__part_name(struct melu__part_file *part, const char *path, uint64_t n_done, melu_error *err) {
  const int n =
      snprintf(part->name, sizeof part->name, "%s.%" PRIu64 ".%u", name_of(path), n_done, (unsigned)part->slots.lo);
  if (n < (int)sizeof part->name) return MELU_OK;
  return melu__fail(err, MELU_ELIMIT, "the name of a part of \"%.100s\" would be longer than %zu bytes", path,
                    sizeof part->name - 1);
}

char *melu__part_path(const char *manifest_path, const struct melu__part_file *part, const struct melu_allocator *a) {
  const size_t n_folder = (size_t)(name_of(manifest_path) - manifest_path), n = strlen(part->name) + 1;
  char *path = melu__alloc(a, n_folder + n, 1);
  if (!path) return NULL;
  memcpy(path, manifest_path, n_folder);
  memcpy(path + n_folder, part->name, n);
  return path;
}

/* --------------------------------------------------------------------------------------------------- writing */

/* [["name", lo, hi, bytes, "checksum"], ...] */
static json_t *parts_json(const struct melu__manifest *m) {
  json_t *list = json_array();
  for (size_t i = 0; list && i < m->n; i++) {
    const struct melu__part_file *part = &m->parts[i];
    char digits[CHECKSUM_DIGITS + 1];
    snprintf(digits, sizeof digits, "%016" PRIx64, part->saved.checksum);
    json_t *entry = json_pack("[s, I, I, I, s]", part->name, (json_int_t)part->slots.lo, (json_int_t)part->slots.hi,
                              (json_int_t)part->saved.n_bytes, digits);
    if (json_array_append_new(list, entry) == 0) continue;
    json_decref(list);
    return NULL;
  }
  return list;
}

melu_status melu__manifest_save(const melu_context *ctx, const char *path, const struct melu__manifest *m,
                                melu_error *err) {
  size_t n = 0;
  json_t *parts = parts_json(m), *metadata = NULL;
  char *text = parts ? melu__json_dump(&n, parts, &ctx->allocator) : NULL;
  if (text)
    metadata = json_pack("{s:s, s:s, s:s, s:s%}", "format", FORMAT, "format_version", MELU__FORMAT_VERSION, "library",
                         melu_version(), "parts", text, n);
  const melu_status status =
      metadata ? melu__safetensors_save(NULL, ctx, path, metadata, NULL, 0, err) : melu__fail_memory(err);
  json_decref(metadata);
  json_decref(parts);
  melu__free(&ctx->allocator, text);
  return status;
}

/* --------------------------------------------------------------------------------------------------- reading */

static melu_status bad(melu_error *err) {
  return melu__fail(err, MELU_EFORMAT, "not a sound manifest: its parts are not a list of files");
}

/* A name of a file in the same folder, and no way out of it. */
static int take_name(struct melu__json *j, struct melu__part_file *part) {
  char *name;
  size_t n;
  if (!melu__json_string(j, &name, &n) || n == 0 || n >= sizeof part->name) return 0;
  if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return 0;
  memcpy(part->name, name, n + 1);
  return 1;
}

static int take_checksum(struct melu__json *j, struct melu__part_file *part) {
  char *digits;
  size_t n;
  if (!melu__json_string(j, &digits, &n) || n != CHECKSUM_DIGITS) return 0;
  if (strspn(digits, "0123456789abcdef") != CHECKSUM_DIGITS) return 0;
  part->saved.checksum = strtoull(digits, NULL, 16);
  return 1;
}

static int take_part(struct melu__json *j, struct melu__part_file *part) {
  uint64_t lo, hi;
  if (!melu__json_mark(j, '[') || !take_name(j, part) || !melu__json_mark(j, ',') || !melu__json_whole(j, &lo) ||
      !melu__json_mark(j, ',') || !melu__json_whole(j, &hi) || !melu__json_mark(j, ',') ||
      !melu__json_whole(j, &part->saved.n_bytes) || !melu__json_mark(j, ',') || !take_checksum(j, part) ||
      !melu__json_mark(j, ']'))
    return 0;
  part->slots = (struct melu__slots){(uint32_t)lo, (uint32_t)hi};
  return lo < hi && hi <= MELU__MAX_SLOTS;
}

static melu_status add_part(struct melu__manifest *m, const melu_context *ctx, size_t *capacity,
                            const struct melu__part_file *part, melu_error *err) {
  if (part->slots.lo != (m->n ? m->parts[m->n - 1].slots.hi : 0)) return bad(err);
  if (!melu__grow(&ctx->allocator, &m->parts, capacity, m->n, m->n + 1, sizeof *m->parts))
    return melu__fail_memory(err);
  m->parts[m->n++] = *part;
  return MELU_OK;
}

static melu_status parse_parts(struct melu__manifest *m, const melu_context *ctx, const struct melu__safetensors *file,
                               melu_error *err) {
  size_t n = 0, capacity = 0;
  int more = 0;
  char *text = melu__safetensors_text(file, "parts", &n);
  struct melu__json j = {text, text ? text + n : NULL};
  melu_status status = text && file->n_tensors == 0 && melu__json_mark(&j, '[') ? MELU_OK : bad(err);
  for (size_t i = 0; !status && (more = melu__json_next(&j, i, ']')) != 0; i++) {
    struct melu__part_file part;
    status = more > 0 && take_part(&j, &part) ? add_part(m, ctx, &capacity, &part, err) : bad(err);
  }
  if (status) return status;
  if (m->n == 0 || !melu__json_end(&j)) return bad(err);
  const size_t n_slots = m->parts[m->n - 1].slots.hi;
  if (n_slots == ctx->n_slots) return MELU_OK;
  return melu__fail(err, MELU_EINVAL, "n_slots was %zu and is %zu now", n_slots, ctx->n_slots);
}

static melu_status nothing(void *arg, const struct melu__stored *tensor, size_t first, const unsigned char *bytes,
                           size_t n, melu_error *err) {
  (void)arg;
  (void)tensor;
  (void)first;
  (void)bytes;
  (void)n;
  (void)err;
  return MELU_OK;
}

static melu_status load_manifest(struct melu__manifest *m, const melu_context *ctx, struct melu__safetensors *file,
                                 const char *path, melu_error *err) {
  melu_status status = melu__check_format(file, FORMAT, err);
  if (!status) status = melu__safetensors_scan(file, path, nothing, NULL, err);
  return status ? status : parse_parts(m, ctx, file, err);
}

melu_status melu__manifest_load(struct melu__manifest *m, const melu_context *ctx, const char *path, melu_error *err) {
  struct melu__safetensors file;
  *m = (struct melu__manifest){NULL, 0};
  melu_status status = melu__safetensors_open(&file, ctx, path, err);
  if (status) return status;
  const char *format = melu__safetensors_text(&file, "format", NULL);
  if (format && strcmp(format, FORMAT) == 0) {
    status = load_manifest(m, ctx, &file, path, err);
    if (status) melu__safetensors_name(err, path);
  } else {
    size_t capacity = 0;
    struct melu__part_file whole = {.slots = {0, (uint32_t)ctx->n_slots}};
    snprintf(whole.name, sizeof whole.name, "%s", name_of(path)); /* a longer name cannot have been opened */
    status = add_part(m, ctx, &capacity, &whole, err);
  }
  if (status) melu__manifest_free(m, &ctx->allocator);
  melu__safetensors_free(&file);
  return status;
}

/* Whether it is what a part of that manifest is called: nothing else is removed, whatever a file says. */
static int is_part_name(const char *name, const char *path) {
  const char *base = name_of(path);
  const size_t n = strlen(base);
  if (strncmp(name, base, n) != 0 || name[n] != '.') return 0;
  const size_t n_done = strspn(name + n + 1, "0123456789"), at = n + 1 + n_done;
  return n_done && name[at] == '.' && name[at + 1] && name[at + 1 + strspn(name + at + 1, "0123456789")] == 0;
}

void melu__manifest_remove(const struct melu__manifest *old, const struct melu__manifest *now, const char *path,
                           const struct melu_allocator *a) {
  for (size_t i = 0; i < old->n; i++) {
    int failed = !is_part_name(old->parts[i].name, path);
    for (size_t k = 0; k < now->n; k++) failed |= strcmp(old->parts[i].name, now->parts[k].name) == 0;
    char *name = failed ? NULL : melu__part_path(path, &old->parts[i], a);
    if (!name) continue;
    melu__remove_file(name);
    melu__free(a, name);
  }
}
