/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "io/atomic_file.h"

#define CHECKSUM "melu.checksum"
#define NO_CHECKSUM "0000000000000000"

enum { LENGTH_BYTES = 8, CHECKSUM_DIGITS = 16, PIECE = 16384 };

/* ---------------------------------------------------------------------------------------------- bit orders */

static void put_u64(unsigned char *to, uint64_t x) {
  for (int i = 0; i < LENGTH_BYTES; i++) to[i] = (unsigned char)(x >> 8 * i);
}

static uint64_t get_u64(const unsigned char *from) {
  uint64_t x = 0;
  for (int i = 0; i < LENGTH_BYTES; i++) x |= (uint64_t)from[i] << 8 * i;
  return x;
}

static void put_float(unsigned char *to, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  for (int i = 0; i < 4; i++) to[i] = (unsigned char)(bits >> 8 * i);
}

static float get_float(const unsigned char *from) {
  uint32_t bits = 0;
  float value;
  for (int i = 0; i < 4; i++) bits |= (uint32_t)from[i] << 8 * i;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The checksum is taken with its own digits as zeros. */
static char *find_checksum(char *header, size_t n) {
  static const char key[] = "\"" CHECKSUM "\":\"";
  for (size_t i = 0; i + sizeof key - 1 + CHECKSUM_DIGITS <= n; i++)
    if (memcmp(header + i, key, sizeof key - 1) == 0) return header + i + sizeof key - 1;
  return NULL;
}

/* -------------------------------------------------------------------------------------------------- saving */

static size_t tensor_size(const struct melu__tensor *t) {
  size_t n = 1;
  for (size_t i = 0; i < t->n_dims; i++) n = melu__size_mul(n, t->dims[i]);
  return n;
}

static json_t *tensor_entry(const struct melu__tensor *t, uint64_t begin) {
  const uint64_t end = begin + 4 * (uint64_t)tensor_size(t);
  json_t *shape = json_array();
  for (size_t i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer((json_int_t)t->dims[i]));
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets", (json_int_t)begin,
                   (json_int_t)end);
}

char *melu__json_text(size_t *n, const json_t *json, const struct melu_allocator *a) {
  const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(17);
  *n = json_dumpb(json, NULL, 0, flags);
  char *text = *n ? melu__alloc(a, *n + 1, 1) : NULL;
  if (!text) return NULL;
  json_dumpb(json, text, *n, flags);
  text[*n] = '\0';
  return text;
}

/* The header as JSON. */
static json_t *make_header(const json_t *metadata, const struct melu__tensor *tensors, size_t n_tensors) {
  uint64_t offset = 0;
  json_t *meta = json_pack("{s:s}", CHECKSUM, NO_CHECKSUM), *root = json_object();
  int failed = !meta || !root || json_object_update(meta, (json_t *)metadata);
  failed |= json_object_set_new(root, "__metadata__", meta) != 0;
  for (size_t i = 0; i < n_tensors && !failed; i++) {
    failed = json_object_set_new(root, tensors[i].name, tensor_entry(&tensors[i], offset)) != 0;
    offset += 4 * (uint64_t)tensor_size(&tensors[i]);
  }
  if (!failed) return root;
  json_decref(root);
  return NULL;
}

/* The header as text, padded with blanks so that the data begins on a multiple of 8. */
static char *header_text(size_t *n, const json_t *header, const struct melu_allocator *a) {
  size_t length;
  char *text = melu__json_text(&length, header, a);
  *n = melu__size_align(length, 8);
  char *padded = text ? melu__alloc(a, *n, 1) : NULL;
  if (padded) {
    memset(padded, ' ', *n);
    memcpy(padded, text, length);
  }
  melu__free(a, text);
  return padded;
}

/* Visits the data of all tensors, piece by piece, as the file holds it. */
static melu_status each_piece(const struct melu__tensor *tensors, size_t n_tensors,
                              melu_status (*visit)(void *arg, const void *bytes, size_t n, melu_error *err), void *arg,
                              melu_error *err) {
  unsigned char bytes[PIECE];
  for (size_t t = 0; t < n_tensors; t++) {
    const size_t n = tensor_size(&tensors[t]);
    for (size_t at = 0; at < n;) {
      const size_t piece = n - at < PIECE / 4 ? n - at : PIECE / 4;
      for (size_t i = 0; i < piece; i++) put_float(bytes + 4 * i, (float)tensors[t].data[at + i]);
      const melu_status status = visit(arg, bytes, 4 * piece, err);
      if (status) return status;
      at += piece;
    }
  }
  return MELU_OK;
}

static melu_status hash_piece(void *arg, const void *bytes, size_t n, melu_error *err) {
  (void)err;
  XXH3_64bits_update(arg, bytes, n);
  return MELU_OK;
}

static melu_status write_piece(void *arg, const void *bytes, size_t n, melu_error *err) {
  return melu__atomic_write(arg, bytes, n, err);
}

static melu_status write_all(const melu_context *ctx, const char *path, const char *header, size_t n_header,
                             const struct melu__tensor *tensors, size_t n_tensors, melu_error *err) {
  unsigned char length[LENGTH_BYTES];
  struct melu__atomic_file file;
  put_u64(length, n_header);
  melu_status status = melu__atomic_open(&file, ctx, path, err);
  if (status) return status;
  status = melu__atomic_write(&file, length, sizeof length, err);
  if (!status) status = melu__atomic_write(&file, header, n_header, err);
  if (!status) status = each_piece(tensors, n_tensors, write_piece, &file, err);
  if (!status) status = melu__atomic_commit(&file, err);
  melu__atomic_abandon(&file);
  return status;
}

melu_status melu__safetensors_save(const melu_context *ctx, const char *path, const json_t *metadata,
                                   const struct melu__tensor *tensors, size_t n_tensors, melu_error *err) {
  size_t n = 0;
  XXH3_state_t hash;
  char digits[CHECKSUM_DIGITS + 1];
  json_t *root = make_header(metadata, tensors, n_tensors);
  char *header = root ? header_text(&n, root, &ctx->allocator) : NULL;
  json_decref(root);
  if (!header) return melu__fail_memory(err);
  XXH3_64bits_reset(&hash);
  XXH3_64bits_update(&hash, header, n);
  melu_status status = each_piece(tensors, n_tensors, hash_piece, &hash, err);
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)XXH3_64bits_digest(&hash));
  memcpy(find_checksum(header, n), digits, CHECKSUM_DIGITS); /* it is there: make_header */
  if (!status) status = write_all(ctx, path, header, n, tensors, n_tensors, err);
  melu__free(&ctx->allocator, header);
  return status;
}

/* ------------------------------------------------------------------------------------------------- reading */

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound safetensors file: %s", what);
}

static melu_status read_fd(struct melu__safetensors *f, int fd, const char *path, melu_error *err) {
  struct stat info;
  if (fstat(fd, &info) != 0) return melu__fail_errno(err, MELU_EIO, errno, "cannot look at \"%.100s\"", path);
  if (!S_ISREG(info.st_mode)) return melu__fail(err, MELU_EIO, "\"%.100s\" is no regular file", path);
  if ((uint64_t)info.st_size > f->ctx->max_file_bytes)
    return melu__fail(err, MELU_ELIMIT, "\"%.100s\" has more than %zu bytes", path, f->ctx->max_file_bytes);
  f->n_bytes = (size_t)info.st_size;
  f->bytes = melu__alloc(&f->ctx->allocator, f->n_bytes, 1);
  if (!f->bytes) return melu__fail_memory(err);
  for (size_t at = 0; at < f->n_bytes;) {
    const ssize_t n = read(fd, f->bytes + at, f->n_bytes - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return melu__fail_errno(err, MELU_EIO, errno, "cannot read \"%.100s\"", path);
    if (n == 0) return melu__fail(err, MELU_ECORRUPT, "\"%.100s\" became shorter while it was read", path);
    at += (size_t)n;
  }
  return MELU_OK;
}

static melu_status read_bytes(struct melu__safetensors *f, const char *path, melu_error *err) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return melu__fail_errno(err, errno == ENOENT ? MELU_ENOTFOUND : MELU_EIO, errno, "cannot open \"%.100s\"", path);
  const melu_status status = read_fd(f, fd, path, err);
  close(fd);
  return status;
}

static int is_count(const json_t *j) {
  return json_is_integer(j) && json_integer_value(j) >= 0;
}

/* The number of bytes that the shape implies; SIZE_MAX for what is no shape. */
static size_t shape_bytes(const json_t *shape) {
  size_t n = 4;
  if (!json_is_array(shape) || json_array_size(shape) > 2) return SIZE_MAX;
  for (size_t i = 0; i < json_array_size(shape); i++) {
    const json_t *dim = json_array_get(shape, i);
    if (!is_count(dim) || (uint64_t)json_integer_value(dim) > SIZE_MAX) return SIZE_MAX;
    n = melu__size_mul(n, (size_t)json_integer_value(dim));
  }
  return n;
}

struct span {
  uint64_t begin, end;
};

static melu_status check_tensor(struct span *span, const json_t *t, size_t n_data, melu_error *err) {
  const json_t *dtype = json_object_get(t, "dtype"), *offsets = json_object_get(t, "data_offsets");
  const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
  if (!json_is_object(t) || json_object_size(t) != 3 || !json_is_string(dtype) || json_array_size(offsets) != 2)
    return bad(err, "an entry is not dtype, shape and data_offsets");
  if (strcmp(json_string_value(dtype), "F32") != 0) return bad(err, "a dtype is not F32");
  if (!is_count(begin) || !is_count(end)) return bad(err, "an offset is not a whole number");
  *span = (struct span){(uint64_t)json_integer_value(begin), (uint64_t)json_integer_value(end)};
  if (span->begin > span->end || span->end > n_data) return bad(err, "an offset is outside the data");
  if (span->end - span->begin != shape_bytes(json_object_get(t, "shape")))
    return bad(err, "a shape and its data are not of one size");
  return MELU_OK;
}

static int by_begin(const void *a, const void *b) {
  const struct span *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end);
}

/* Every byte of the data belongs to exactly one tensor. */
static melu_status check_spans(struct span *spans, size_t n, size_t n_data, melu_error *err) {
  uint64_t at = 0;
  qsort(spans, n, sizeof *spans, by_begin);
  for (size_t i = 0; i < n; i++) {
    if (spans[i].begin != at) return bad(err, spans[i].begin < at ? "tensors overlap" : "there is a hole in the data");
    at = spans[i].end;
  }
  return at == n_data ? MELU_OK : bad(err, "data behind the last tensor");
}

static melu_status check_header(const struct melu__safetensors *f, melu_error *err) {
  const size_t n_data = f->n_bytes - (size_t)(f->data - f->bytes);
  const json_t *meta = json_object_get(f->root, "__metadata__");
  const char *key;
  json_t *value;
  size_t n = 0;
  if (!json_is_object(f->root) || !json_is_object(meta)) return bad(err, "the header has no metadata");
  json_object_foreach((json_t *)meta, key, value) if (!json_is_string(value)) return bad(err,
                                                                                         "metadata that is no text");
  struct span *spans = melu__alloc(&f->ctx->allocator, json_object_size(f->root), sizeof *spans);
  if (!spans) return melu__fail_memory(err);
  melu_status status = MELU_OK;
  json_object_foreach(f->root, key, value) {
    if (value == meta) continue;
    status = check_tensor(&spans[n++], value, n_data, err);
    if (status) break;
  }
  if (!status) status = check_spans(spans, n, n_data, err);
  melu__free(&f->ctx->allocator, spans);
  return status;
}

static melu_status check_sum(const struct melu__safetensors *f, char *header, size_t n_header, melu_error *err) {
  char digits[CHECKSUM_DIGITS + 1], *stored = find_checksum(header, n_header);
  if (!stored) return bad(err, "it has no checksum");
  char found[CHECKSUM_DIGITS];
  memcpy(found, stored, CHECKSUM_DIGITS);
  memcpy(stored, NO_CHECKSUM, CHECKSUM_DIGITS);
  const uint64_t sum = XXH3_64bits(header, f->n_bytes - LENGTH_BYTES);
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)sum);
  if (memcmp(found, digits, CHECKSUM_DIGITS) == 0) return MELU_OK;
  return melu__fail(err, MELU_ECORRUPT, "the file was altered: its checksum is not that of its content");
}

static melu_status parse(struct melu__safetensors *f, melu_error *err) {
  json_error_t json_error;
  if (f->n_bytes < LENGTH_BYTES) return bad(err, "it is too short");
  const uint64_t length = get_u64(f->bytes);
  if (length > f->n_bytes - LENGTH_BYTES) return bad(err, "the header is longer than the file");
  char *header = (char *)f->bytes + LENGTH_BYTES;
  f->data = f->bytes + LENGTH_BYTES + length;
  f->root = json_loadb(header, (size_t)length, JSON_REJECT_DUPLICATES, &json_error);
  if (!f->root) return melu__fail(err, MELU_EFORMAT, "the header is not JSON: %.120s", json_error.text);
  melu_status status = check_header(f, err);
  if (!status) status = check_sum(f, header, (size_t)length, err);
  return status;
}

melu_status melu__safetensors_load(struct melu__safetensors *f, const melu_context *ctx, const char *path,
                                   melu_error *err) {
  *f = (struct melu__safetensors){.ctx = ctx};
  melu_status status = read_bytes(f, path, err);
  if (!status) status = parse(f, err);
  if (status) melu__safetensors_free(f);
  return status;
}

void melu__safetensors_free(struct melu__safetensors *f) {
  if (!f->ctx) return;
  json_decref(f->root);
  melu__free(&f->ctx->allocator, f->bytes);
  *f = (struct melu__safetensors){0};
}

const char *melu__safetensors_text(const struct melu__safetensors *f, const char *name) {
  return json_string_value(json_object_get(json_object_get(f->root, "__metadata__"), name));
}

size_t melu__safetensors_count(const struct melu__safetensors *f) {
  return json_object_size(f->root) - 1;
}

melu_status melu__safetensors_read(real *out, const struct melu__safetensors *f, const char *name, size_t n_dims,
                                   const size_t dims[2], melu_error *err) {
  const json_t *t = json_object_get(f->root, name), *shape = json_object_get(t, "shape");
  size_t n = 1;
  if (!t || strcmp(name, "__metadata__") == 0) return melu__fail(err, MELU_EFORMAT, "tensor \"%s\" is missing", name);
  int fits = json_array_size(shape) == n_dims;
  for (size_t i = 0; i < n_dims; i++) {
    fits = fits && (uint64_t)json_integer_value(json_array_get(shape, i)) == dims[i];
    n *= dims[i];
  }
  if (!fits) return melu__fail(err, MELU_EFORMAT, "tensor \"%s\" has not the shape that the schema implies", name);
  const unsigned char *from = f->data + json_integer_value(json_array_get(json_object_get(t, "data_offsets"), 0));
  for (size_t i = 0; i < n; i++) {
    const float value = get_float(from + 4 * i);
    if (!isfinite(value)) return melu__fail_at(err, MELU_ERANGE, i, "tensor \"%s\": number %zu is not finite", name, i);
    out[i] = value;
  }
  return MELU_OK;
}
