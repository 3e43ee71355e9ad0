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

#include "base/bytes.h"
#include "base/error.h"
#include "io/atomic_file.h"
#include "io/interrupted.h"
#include "io/json_read.h"
#include "io/json_write.h"
#include "tensor/real.h"

#define METADATA "__metadata__"
#define CHECKSUM "melu.checksum"
#define NO_CHECKSUM "0000000000000000"

enum { LENGTH_BYTES = 8, CHECKSUM_DIGITS = 16, PIECE = 16384 };

static const struct {
  const char *name;
  size_t size;
} dtypes[] = {{"F32", 4}, {"F64", 8}, {"U32", 4}, {"U64", 8}, {"I64", 8}, {"F32", 4}};

enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

size_t melu__dtype_size(enum melu__dtype dtype) {
  return dtypes[dtype].size;
}

/* ------------------------------------------------------------------------------------------------ byte order */

static uint64_t element_bits(const void *data, enum melu__dtype dtype, size_t i) {
  uint64_t bits;
  if (dtype == MELU__F32) return melu__float_bits((float)((const real *)data)[i]);
  if (dtype == MELU__FLOAT) return melu__float_bits(((const float *)data)[i]);
  if (dtype == MELU__U32) return ((const uint32_t *)data)[i];
  memcpy(&bits, (const char *)data + 8 * i, sizeof bits);
  return bits;
}

static void set_element(void *data, enum melu__dtype dtype, size_t i, uint64_t bits) {
  if (dtype == MELU__F32)
    ((real *)data)[i] = melu__bits_float(bits);
  else if (dtype == MELU__U32)
    ((uint32_t *)data)[i] = (uint32_t)bits;
  else
    memcpy((char *)data + 8 * i, &bits, sizeof bits);
}

/* The checksum is taken with its own digits as zeros. NULL if there is none. In JSON a quotation mark inside a text is
 * escaped, so nothing else looks like this. */
static char *find_checksum(char *header, size_t n) {
  static const char key[] = "\"" CHECKSUM "\":\"";
  for (size_t i = 0; i + sizeof key - 1 + CHECKSUM_DIGITS <= n; i++)
    if (memcmp(header + i, key, sizeof key - 1) == 0) return header + i + sizeof key - 1;
  return NULL;
}

/* ---------------------------------------------------------------------------------------------------- writing */

static size_t tensor_count(const struct melu__tensor *t) {
  size_t n = 1;
  for (size_t i = 0; i < t->n_dims; i++) n = melu__size_mul(n, t->dims[i]);
  return n;
}

static uint64_t tensor_bytes(const struct melu__tensor *t) {
  return (uint64_t)dtypes[t->dtype].size * tensor_count(t);
}

static uint64_t count_bytes(const struct melu__tensor *tensors, size_t n) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < n; i++) bytes += tensor_bytes(&tensors[i]);
  return bytes;
}

static json_t *tensor_entry(const struct melu__tensor *t, uint64_t begin) {
  json_t *shape = json_array();
  int failed = !shape;
  for (size_t i = 0; i < t->n_dims && !failed; i++)
    failed = json_array_append_new(shape, json_integer((json_int_t)t->dims[i])) != 0;
  if (!failed)
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[t->dtype].name, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + tensor_bytes(t)));
  json_decref(shape);
  return NULL;
}

static json_t *make_header(const json_t *metadata, const struct melu__tensor *tensors, size_t n_tensors) {
  uint64_t offset = 0;
  json_t *meta = json_pack("{s:s}", CHECKSUM, NO_CHECKSUM), *root = json_object();
  int failed = !meta || !root || json_object_update(meta, (json_t *)metadata);
  failed |= json_object_set_new(root, METADATA, meta) != 0;
  for (size_t i = 0; i < n_tensors && !failed; i++) {
    failed = json_object_set_new(root, tensors[i].name, tensor_entry(&tensors[i], offset)) != 0;
    offset += tensor_bytes(&tensors[i]);
  }
  if (!failed) return root;
  json_decref(root);
  return NULL;
}

/* The header as text, padded with blanks so that the data begins on a multiple of 8. */
static char *header_text(size_t *n, json_t *header, const struct melu_allocator *a) {
  size_t length;
  char *text = melu__json_dump(&length, header, a);
  *n = melu__size_align(length, 8);
  char *padded = text ? melu__alloc(a, *n, 1) : NULL;
  if (padded) {
    memset(padded, ' ', *n);
    memcpy(padded, text, length);
  }
  melu__free(a, text);
  return padded;
}

/* Numbers on their way to the file. */
struct encoding {
  enum melu__dtype dtype;
  melu_status (*visit)(void *arg, const void *bytes, size_t n, melu_error *err);
  void *arg;
};

/* Piece by piece, as the file holds them. */
static melu_status encode(void *arg, const void *numbers, size_t n, melu_error *err) {
  const struct encoding *e = arg;
  const size_t size = dtypes[e->dtype].size;
  unsigned char bytes[PIECE];
  for (size_t at = 0; at < n;) {
    const size_t piece = n - at < PIECE / size ? n - at : PIECE / size;
    for (size_t i = 0; i < piece; i++) melu__put_bits(bytes + size * i, element_bits(numbers, e->dtype, at + i), size);
    const melu_status status = e->visit(e->arg, bytes, size * piece, err);
    if (status) return status;
    at += piece;
  }
  return MELU_OK;
}

/* Visits the data of all tensors. */
static melu_status each_piece(const struct melu__tensor *tensors, size_t n_tensors,
                              melu_status (*visit)(void *arg, const void *bytes, size_t n, melu_error *err), void *arg,
                              melu_error *err) {
  melu_status status = MELU_OK;
  for (const struct melu__tensor *t = tensors; t < tensors + n_tensors && !status; t++) {
    struct encoding e = {t->dtype, visit, arg};
    status = t->each ? t->each(t->each_arg, t, encode, &e, err) : encode(&e, t->data, tensor_count(t), err);
  }
  return status;
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
  melu__put_bits(length, n_header, LENGTH_BYTES);
  melu_status status = melu__atomic_open(&file, ctx, path, err);
  if (status) return status;
  status = melu__atomic_write(&file, length, sizeof length, err);
  if (!status) status = melu__atomic_write(&file, header, n_header, err);
  if (!status) status = each_piece(tensors, n_tensors, write_piece, &file, err);
  if (!status) status = melu__atomic_commit(&file, err);
  melu__atomic_abandon(&file);
  return status;
}

melu_status melu__safetensors_save(struct melu__saved *saved, const melu_context *ctx, const char *path,
                                   const json_t *metadata, const struct melu__tensor *tensors, size_t n_tensors,
                                   melu_error *err) {
  size_t n = 0;
  XXH3_state_t hash;
  char digits[CHECKSUM_DIGITS + 1];
  json_t *root = make_header(metadata, tensors, n_tensors);
  char *header = root ? header_text(&n, root, &ctx->allocator) : NULL;
  json_decref(root);
  if (!header) return melu__fail_memory(err);
  melu_status status = MELU_OK;
  if (n > MELU__MAX_HEADER)
    status = melu__fail(err, MELU_ELIMIT, "\"%.100s\" would have a header of %zu bytes, more than %zu", path, n,
                        MELU__MAX_HEADER);
  XXH3_64bits_reset(&hash);
  XXH3_64bits_update(&hash, header, n);
  if (!status) status = each_piece(tensors, n_tensors, hash_piece, &hash, err);
  const uint64_t checksum = XXH3_64bits_digest(&hash);
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)checksum);
  memcpy(find_checksum(header, n), digits, CHECKSUM_DIGITS); /* it is there: make_header */
  if (!status) status = write_all(ctx, path, header, n, tensors, n_tensors, err);
  if (!status && saved) *saved = (struct melu__saved){LENGTH_BYTES + n + count_bytes(tensors, n_tensors), checksum};
  melu__free(&ctx->allocator, header);
  return status;
}

/* ---------------------------------------------------------------------------------------------------- reading */

static melu_status bad(melu_error *err, const char *what) {
  return melu__fail(err, MELU_EFORMAT, "not a sound safetensors file: %s", what);
}

/* A regular file that is not too large: its size. */
static melu_status look_at(struct melu__safetensors *f, const char *path, melu_error *err) {
  struct stat info;
  int failed;
  do failed = fstat(f->fd, &info);
  while (melu__interrupted(failed));
  if (failed) return melu__fail_errno(err, MELU_EIO, errno, "cannot look at \"%.100s\"", path);
  if (!S_ISREG(info.st_mode)) return melu__fail(err, MELU_EIO, "\"%.100s\" is no regular file", path);
  if ((uint64_t)info.st_size > f->ctx->max_file_bytes)
    return melu__fail(err, MELU_ELIMIT, "\"%.100s\" has more than %zu bytes", path, f->ctx->max_file_bytes);
  f->n_bytes = (size_t)info.st_size;
  return MELU_OK;
}

static melu_status read_some(const struct melu__safetensors *f, void *bytes, size_t n_bytes, const char *path,
                             melu_error *err) {
  for (size_t at = 0; at < n_bytes;) {
    const ssize_t n = read(f->fd, (char *)bytes + at, n_bytes - at);
    if (melu__interrupted(n)) continue;
    if (n < 0) return melu__fail_errno(err, MELU_EIO, errno, "cannot read \"%.100s\"", path);
    if (n == 0) return melu__fail(err, MELU_ECORRUPT, "\"%.100s\" became shorter while it was read", path);
    at += (size_t)n;
  }
  return MELU_OK;
}

static melu_status open_file(struct melu__safetensors *f, const char *path, melu_error *err) {
  do f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer is not waited for */
  while (melu__interrupted(f->fd));
  if (f->fd < 0)
    return melu__fail_errno(err, errno == ENOENT ? MELU_ENOTFOUND : MELU_EIO, errno, "cannot open \"%.100s\"", path);
  return look_at(f, path, err);
}

static void close_file(struct melu__safetensors *f) {
  if (f->fd >= 0) close(f->fd);
  f->fd = -1;
}

static melu_status read_bytes(struct melu__safetensors *f, const char *path, melu_error *err) {
  melu_status status = open_file(f, path, err);
  if (!status) {
    f->bytes = melu__alloc(&f->ctx->allocator, f->n_bytes, 1);
    status = f->bytes ? read_some(f, f->bytes, f->n_bytes, path, err) : melu__fail_memory(err);
  }
  close_file(f);
  return status;
}

/* The parsers return what is wrong, NULL if nothing is. */

static const char *parse_metadata(struct melu__safetensors *f, struct melu__json *j) {
  int more;
  if (!melu__json_mark(j, '{')) return "the metadata is no object";
  while ((more = melu__json_next(j, f->n_texts, '}')) != 0) {
    if (f->n_texts == MELU__MAX_TEXTS) return "the metadata has too many texts";
    char **name = &f->texts[f->n_texts].name, **text = &f->texts[f->n_texts].text;
    if (more < 0 || !melu__json_string(j, name, NULL) || !melu__json_mark(j, ':') ||
        !melu__json_string(j, text, &f->texts[f->n_texts].n))
      return "the metadata is not texts";
    if (melu__safetensors_text(f, *name, NULL)) return "the metadata has a name twice";
    f->n_texts++;
  }
  return NULL;
}

/* A list of at most two whole numbers. */
static int parse_list(struct melu__json *j, uint64_t out[2], unsigned *n) {
  int more;
  if (!melu__json_mark(j, '[')) return 0;
  for (*n = 0; (more = melu__json_next(j, *n, ']')) != 0; ++*n)
    if (more < 0 || *n == 2 || !melu__json_whole(j, &out[*n])) return 0;
  return 1;
}

static int parse_dtype(struct melu__json *j, enum melu__dtype *out) {
  char *name;
  if (!melu__json_string(j, &name, NULL)) return 0;
  for (int i = 0; i < N_DTYPES; i++) {
    *out = (enum melu__dtype)i;
    if (strcmp(name, dtypes[i].name) == 0) return 1;
  }
  return 0;
}

/* The bytes that a shape implies; SIZE_MAX, which no file has, for too many. */
static size_t stored_bytes(const struct melu__stored *t) {
  size_t n = dtypes[t->dtype].size;
  for (unsigned i = 0; i < t->n_dims; i++) n = melu__size_mul(n, t->dims[i] < SIZE_MAX ? (size_t)t->dims[i] : SIZE_MAX);
  return n;
}

static const char *parse_tensor(struct melu__stored *t, struct melu__json *j, size_t n_data) {
  enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
  uint64_t offsets[2];
  unsigned seen = 0, member = 0, n_offsets = 0;
  char *name;
  int more;
  if (!melu__json_mark(j, '{')) return "an entry is no object";
  for (size_t i = 0; (more = melu__json_next(j, i, '}')) != 0; i++, seen |= member) {
    if (more < 0 || !melu__json_string(j, &name, NULL) || !melu__json_mark(j, ':')) return "an entry is not JSON";
    member = strcmp(name, "dtype") == 0 ? DTYPE : strcmp(name, "shape") == 0 ? SHAPE : OFFSETS;
    if (seen & member || (member == OFFSETS && strcmp(name, "data_offsets") != 0)) break;
    if (member == DTYPE && !parse_dtype(j, &t->dtype)) return "a dtype is unknown";
    if (member == SHAPE && !parse_list(j, t->dims, &t->n_dims)) return "a shape is not up to two whole numbers";
    if (member == OFFSETS && !parse_list(j, offsets, &n_offsets)) return "an offset is not a whole number";
  }
  if (more || seen != ALL) return "an entry is not dtype, shape and data_offsets";
  if (n_offsets != 2) return "a tensor has not two offsets";
  if (offsets[0] > offsets[1] || offsets[1] > n_data) return "an offset is outside the data";
  t->begin = offsets[0];
  t->end = offsets[1];
  return t->end - t->begin == stored_bytes(t) ? NULL : "a shape and its data are not of one size";
}

static int by_begin(const void *a, const void *b) {
  const struct melu__stored *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct melu__stored *)a)->name, ((const struct melu__stored *)b)->name);
}

/* Every byte of the data belongs to exactly one tensor, and no two have one name. Leaves the tensors in order. */
static const char *check_tensors(struct melu__safetensors *f) {
  uint64_t at = 0;
  if (f->n_tensors == 0) return f->n_data ? "data without a tensor" : NULL;
  qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_begin);
  for (size_t i = 0; i < f->n_tensors; at = f->tensors[i++].end)
    if (f->tensors[i].begin != at) return f->tensors[i].begin < at ? "tensors overlap" : "there is a hole in the data";
  if (at != f->n_data) return "there is data behind the last tensor";
  qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_name);
  for (size_t i = 1; i < f->n_tensors; i++)
    if (by_name(&f->tensors[i - 1], &f->tensors[i]) == 0) return "two tensors have one name";
  return NULL;
}

static melu_status parse_header(struct melu__safetensors *f, struct melu__json *j, int ours, melu_error *err) {
  size_t capacity = 0;
  int more, has_metadata = 0;
  char *name;
  if (!melu__json_mark(j, '{')) return bad(err, "the header is no object");
  for (size_t i = 0; (more = melu__json_next(j, i, '}')) != 0; i++) {
    if (more < 0 || !melu__json_string(j, &name, NULL) || !melu__json_mark(j, ':'))
      return bad(err, "the header is not JSON");
    const int is_metadata = strcmp(name, METADATA) == 0;
    if (is_metadata && has_metadata++) return bad(err, "there is metadata twice");
    if (!is_metadata &&
        !melu__grow(&f->ctx->allocator, &f->tensors, &capacity, f->n_tensors, f->n_tensors + 1, sizeof *f->tensors))
      return melu__fail_memory(err);
    struct melu__stored *t = is_metadata ? NULL : &f->tensors[f->n_tensors++];
    if (t) *t = (struct melu__stored){.name = name};
    const char *why = is_metadata ? parse_metadata(f, j) : parse_tensor(t, j, f->n_data);
    if (why) return bad(err, why);
  }
  if (!melu__json_end(j)) return bad(err, "something follows the header's object");
  const char *why = has_metadata || !ours ? check_tensors(f) : "the header has no metadata";
  return why ? bad(err, why) : MELU_OK;
}

/* The length of the header, whose first bytes are there. */
static melu_status header_length(size_t *n, const struct melu__safetensors *f, const unsigned char bytes[LENGTH_BYTES],
                                 melu_error *err) {
  const uint64_t length = melu__get_bits(bytes, LENGTH_BYTES);
  if (length > f->n_bytes - LENGTH_BYTES) return bad(err, "the header is longer than the file");
  if (length > MELU__MAX_HEADER) return melu__fail(err, MELU_ELIMIT, "the header has more than 100 million bytes");
  *n = (size_t)length;
  return MELU_OK;
}

/* The header is overwritten as it is parsed, so its part of the checksum is taken before. */
static melu_status take_header(struct melu__safetensors *f, char *header, size_t n, int ours, melu_error *err) {
  char *stored = ours ? find_checksum(header, n) : NULL;
  if (stored) {
    memcpy(f->stored, stored, CHECKSUM_DIGITS);
    memcpy(stored, NO_CHECKSUM, CHECKSUM_DIGITS);
  }
  XXH3_64bits_reset(&f->hash);
  XXH3_64bits_update(&f->hash, header, n);
  struct melu__json j = {header, header + n};
  const melu_status status = parse_header(f, &j, ours, err);
  if (status || !ours) return status;
  const char *text = melu__safetensors_text(f, CHECKSUM, NULL);
  return text && strcmp(text, NO_CHECKSUM) == 0 ? MELU_OK : bad(err, "it has no checksum");
}

/* Judged last, because what is no such file at all was hardly altered. */
static melu_status check_hash(struct melu__safetensors *f, melu_error *err) {
  char digits[CHECKSUM_DIGITS + 1];
  f->checksum = XXH3_64bits_digest(&f->hash);
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)f->checksum);
  if (memcmp(f->stored, digits, CHECKSUM_DIGITS) == 0) return MELU_OK;
  return melu__fail(err, MELU_ECORRUPT, "the file was altered: its checksum is not that of its content");
}

static melu_status parse(struct melu__safetensors *f, int ours, melu_error *err) {
  size_t length = 0;
  if (f->n_bytes < LENGTH_BYTES) return bad(err, "it is too short");
  melu_status status = header_length(&length, f, (unsigned char *)f->bytes, err);
  if (status) return status;
  char *header = f->bytes + LENGTH_BYTES;
  f->data = (unsigned char *)header + length;
  f->n_data = f->n_bytes - LENGTH_BYTES - length;
  status = take_header(f, header, length, ours, err);
  if (status || !ours) return status;
  XXH3_64bits_update(&f->hash, f->data, f->n_data);
  return check_hash(f, err);
}

static melu_status open_header(struct melu__safetensors *f, const char *path, melu_error *err) {
  unsigned char length_bytes[LENGTH_BYTES];
  size_t length = 0;
  melu_status status = open_file(f, path, err);
  if (status) return status;
  if (f->n_bytes < LENGTH_BYTES) return bad(err, "it is too short");
  status = read_some(f, length_bytes, LENGTH_BYTES, path, err);
  if (!status) status = header_length(&length, f, length_bytes, err);
  if (status) return status;
  f->n_data = f->n_bytes - LENGTH_BYTES - length;
  f->bytes = melu__alloc(&f->ctx->allocator, length, 1);
  status = f->bytes ? read_some(f, f->bytes, length, path, err) : melu__fail_memory(err);
  return status ? status : take_header(f, f->bytes, length, 1, err);
}
melu_status melu__safetensors_load(struct melu__safetensors *f, const melu_context *ctx, const char *path, int ours,
                                   melu_error *err) {
  *f = (struct melu__safetensors){.ctx = ctx, .fd = -1};
  melu_status status = read_bytes(f, path, err);
  if (!status) {
    status = parse(f, ours, err);
    if (status) melu__safetensors_name(err, path);
  }
  if (status) melu__safetensors_free(f);
  return status;
}

melu_status melu__safetensors_open(struct melu__safetensors *f, const melu_context *ctx, const char *path,
                                   melu_error *err) {
  *f = (struct melu__safetensors){.ctx = ctx, .fd = -1};
  const melu_status status = open_header(f, path, err);
  if (!status) return MELU_OK;
  if (f->fd >= 0 && status != MELU_EIO && status != MELU_ENOMEM) melu__safetensors_name(err, path);
  melu__safetensors_free(f);
  return status;
}

/* The tensor whose data begins there: there is one unless all is read. */
static const struct melu__stored *tensor_at(const struct melu__safetensors *f, uint64_t begin) {
  const struct melu__stored *t = f->tensors;
  while (t->begin != begin || t->end == begin) t++;
  return t;
}

melu_status melu__safetensors_scan(struct melu__safetensors *f, const char *path, melu__visit_numbers_fn visit,
                                   void *arg, melu_error *err) {
  unsigned char bytes[PIECE];
  const struct melu__stored *t = NULL;
  melu_status status = MELU_OK;
  for (uint64_t at = 0, piece; at < f->n_data && !status; at += piece) {
    if (!t || at == t->end) t = tensor_at(f, at);
    const size_t size = dtypes[t->dtype].size;
    piece = t->end - at < PIECE ? t->end - at : PIECE;
    status = read_some(f, bytes, (size_t)piece, path, err);
    if (status) return status;
    XXH3_64bits_update(&f->hash, bytes, (size_t)piece);
    status = visit(arg, t, (size_t)(at - t->begin) / size, bytes, (size_t)piece / size, err);
  }
  return status ? status : check_hash(f, err);
}

melu_status melu__safetensors_each(const struct melu__safetensors *f, melu__visit_numbers_fn visit, void *arg,
                                   melu_error *err) {
  melu_status status = MELU_OK;
  for (size_t i = 0; i < f->n_tensors && !status; i++) {
    const struct melu__stored *t = &f->tensors[i];
    status = visit(arg, t, 0, f->data + t->begin, (size_t)(t->end - t->begin) / dtypes[t->dtype].size, err);
  }
  return status;
}

void melu__safetensors_free(struct melu__safetensors *f) {
  if (!f->ctx) return;
  close_file(f);
  melu__free(&f->ctx->allocator, f->tensors);
  melu__free(&f->ctx->allocator, f->bytes);
  *f = (struct melu__safetensors){0};
}

char *melu__safetensors_text(const struct melu__safetensors *f, const char *name, size_t *n) {
  for (size_t i = 0; i < f->n_texts; i++) {
    if (strcmp(f->texts[i].name, name) != 0) continue;
    if (n) *n = f->texts[i].n;
    return f->texts[i].text;
  }
  return NULL;
}

static const struct melu__stored *find(const struct melu__safetensors *f, const char *name) {
  const struct melu__stored key = {.name = name};
  return f->n_tensors ? bsearch(&key, f->tensors, f->n_tensors, sizeof key, by_name) : NULL;
}

size_t melu__safetensors_length(const struct melu__safetensors *f, const char *name) {
  const struct melu__stored *t = find(f, name);
  return t && t->n_dims ? (size_t)t->dims[0] : 0;
}

static int is_finite(enum melu__dtype dtype, uint64_t bits) {
  double value;
  if (dtype == MELU__F32) return isfinite(melu__bits_float(bits));
  memcpy(&value, &bits, sizeof value);
  return dtype != MELU__F64 || isfinite(value);
}

/* The first that is not finite; n if there is none. */
static size_t find_infinite(enum melu__dtype dtype, const unsigned char *bytes, size_t n) {
  const size_t size = dtypes[dtype].size;
  size_t i = 0;
  while (i < n && is_finite(dtype, melu__get_bits(bytes + size * i, size))) i++;
  return i;
}

int melu__safetensors_finite(enum melu__dtype dtype, const unsigned char *bytes, size_t n) {
  return find_infinite(dtype, bytes, n) == n;
}

melu_status melu__safetensors_expect_shape(const struct melu__safetensors *f, const struct melu__tensor *t,
                                           melu_error *err) {
  const struct melu__stored *found = find(f, t->name);
  if (!found) return melu__fail(err, MELU_EFORMAT, "tensor \"%s\" is missing", t->name);
  const enum melu__dtype dtype = t->dtype == MELU__FLOAT ? MELU__F32 : t->dtype; /* of which there is one in files */
  int fits = found->dtype == dtype && found->n_dims == t->n_dims;
  for (size_t i = 0; fits && i < t->n_dims; i++) fits = found->dims[i] == t->dims[i];
  if (fits) return MELU_OK;
  return melu__fail(err, MELU_EFORMAT, "tensor \"%s\" is not of the type and shape expected", t->name);
}

melu_status melu__safetensors_expect(const struct melu__safetensors *f, const struct melu__tensor *t, melu_error *err) {
  const melu_status status = melu__safetensors_expect_shape(f, t, err);
  if (status) return status;
  const struct melu__stored *found = find(f, t->name);
  const size_t n = tensor_count(t), row = t->n_dims == 2 ? t->dims[1] : 1;
  const size_t i = find_infinite(found->dtype, f->data + found->begin, n);
  if (i == n) return MELU_OK;
  return melu__fail_at(err, MELU_ERANGE, i / row, "tensor \"%s\": row %zu is not finite", t->name, i / row);
}

void melu__safetensors_decode(void *out, enum melu__dtype dtype, const unsigned char *bytes, size_t n) {
  const size_t size = dtypes[dtype].size;
  for (size_t i = 0; i < n; i++) set_element(out, dtype, i, melu__get_bits(bytes + size * i, size));
}

const unsigned char *melu__safetensors_data(size_t *n_bytes, const struct melu__safetensors *f, const char *name) {
  const struct melu__stored *t = find(f, name);
  *n_bytes = (size_t)(t->end - t->begin);
  return f->data + t->begin;
}

void melu__safetensors_copy(void *out, const struct melu__safetensors *f, const char *name) {
  size_t n_bytes;
  const enum melu__dtype dtype = find(f, name)->dtype;
  const unsigned char *data = melu__safetensors_data(&n_bytes, f, name);
  melu__safetensors_decode(out, dtype, data, n_bytes / dtypes[dtype].size);
}

void melu__safetensors_copy_floats(float *out, const struct melu__safetensors *f, const char *name) {
  size_t n_bytes;
  const unsigned char *data = melu__safetensors_data(&n_bytes, f, name);
  for (size_t i = 0; i < n_bytes / 4; i++) out[i] = melu__bits_float(melu__get_bits(data + 4 * i, 4));
}

void melu__safetensors_name(melu_error *err, const char *path) {
  melu_error before;
  if (!err) return;
  before = *err;
  const size_t n = strlen(path), shown = n < 100 ? n : 100; /* the end of a long path says more than its beginning */
  snprintf(err->message, sizeof err->message, "%s: %.120s", path + n - shown, before.message);
}

melu_status melu__safetensors_blame(melu_status status, melu_error *err, const char *path) {
  if (status == MELU_ENOMEM) return status;
  if (status == MELU_EINVAL) status = MELU_EFORMAT;
  if (err) err->status = status;
  melu__safetensors_name(err, path);
  return status;
}
