/* SPDX-License-Identifier: BSD-3-Clause */
/* Files of named arrays and texts in the safetensors format, written atomically and read strictly:
 * docs/file-format.md. Knows nothing of models. */
#ifndef MELU__SAFETENSORS_H
#define MELU__SAFETENSORS_H

#include <jansson.h>
#include <melu.h>

#include "base/context.h"
#include "base/digest.h"

/* A longer header is neither written nor read; other readers of the format have the same limit. */
#define MELU__MAX_HEADER ((size_t)100000000)
#define MELU__MAX_TEXTS 64

/* What the file holds. In memory it is real (of tensor/real.h), double, uint32_t, uint64_t and int64_t; MELU__FLOAT is
 * float there, whatever real is, and F32 in the file. */
enum melu__dtype { MELU__F32, MELU__F64, MELU__U32, MELU__U64, MELU__I64, MELU__FLOAT };

/* Bytes of a number in the file. */
size_t melu__dtype_size(enum melu__dtype dtype);

/* --------------------------------------------------------------------------------------------------- writing */

/* Takes the next n numbers of a tensor, as they are in memory. */
typedef melu_status (*melu__take_numbers_fn)(void *arg, const void *numbers, size_t n, melu_error *err);

struct melu__tensor {
  const char *name;
  enum melu__dtype dtype;
  size_t n_dims, dims[2];
  const void *data; /* the product of the dimensions; or NULL, and the numbers come piece by piece, twice: */
  melu_status (*each)(void *arg, const struct melu__tensor *tensor, melu__take_numbers_fn take, void *take_arg,
                      melu_error *err);
  void *each_arg;
  size_t index; /* for `each` */
};

/* What was written. */
struct melu__saved {
  uint64_t n_bytes, checksum;
};

/* Writes a file that holds the tensors and `metadata`, an object of strings (borrowed). The file appears whole or not
 * at all, and a failure leaves the old one. `saved`: NULL if not wanted. Errors: MELU_EIO, MELU_ENOMEM, MELU_ELIMIT
 * (the header), and those of `each`. */
melu_status melu__safetensors_save(struct melu__saved *saved, const melu_context *ctx, const char *path,
                                   const json_t *metadata, const struct melu__tensor *tensors, size_t n_tensors,
                                   melu_error *err);

/* --------------------------------------------------------------------------------------------------- reading */

struct melu__stored {
  const char *name;
  enum melu__dtype dtype;
  unsigned n_dims;
  uint64_t dims[2], begin, end; /* begin and end count bytes of the data */
};

/* A file that was read and found sound: structure, sizes, checksum. Of one that was opened only the header was. */
struct melu__safetensors {
  const melu_context *ctx;
  char *bytes; /* the whole file, or what is before the data; names and texts point into it */
  size_t n_bytes, n_data, n_texts, n_tensors;
  const unsigned char *data; /* behind the header; NULL of a file that was opened */
  int fd;                    /* of a file that was opened, at the data; else -1 */
  char stored[17];           /* the checksum that the header tells, "" if none */
  XXH3_state_t hash;         /* of what was read */
  uint64_t checksum;         /* of a file that was read to its end, and is ours */
  struct {
    char *name, *text;
    size_t n;
  } texts[MELU__MAX_TEXTS];     /* the metadata; a text may be overwritten */
  struct melu__stored *tensors; /* by name */
};

/* `ours`: the file must have the checksum with which this library saves; other programs write neither it nor, perhaps,
 * metadata. Errors: MELU_ENOTFOUND, MELU_EIO, MELU_ELIMIT, MELU_EFORMAT, MELU_ECORRUPT, MELU_ENOMEM; the message names
 * the file. */
melu_status melu__safetensors_load(struct melu__safetensors *file, const melu_context *ctx, const char *path, int ours,
                                   melu_error *err);

/* The same up to the data: of a file that is too large for memory. It is to be freed, which closes it. */
melu_status melu__safetensors_open(struct melu__safetensors *file, const melu_context *ctx, const char *path,
                                   melu_error *err);

/* Is called for numbers [first, first + n) of a tensor, as the file has them. */
typedef melu_status (*melu__visit_numbers_fn)(void *arg, const struct melu__stored *tensor, size_t first,
                                              const unsigned char *bytes, size_t n, melu_error *err);

/* Reads the data of a file that was opened, once: all numbers of all tensors are visited, each tensor's in their order.
 * What came is not to be believed before this returns. Errors: MELU_EIO, MELU_ECORRUPT, those of `visit`. */
melu_status melu__safetensors_scan(struct melu__safetensors *file, const char *path, melu__visit_numbers_fn visit,
                                   void *arg, melu_error *err);

/* The same visits of a file that was loaded. Errors: those of `visit`. */
melu_status melu__safetensors_each(const struct melu__safetensors *file, melu__visit_numbers_fn visit, void *arg,
                                   melu_error *err);

/* A file that could not be loaded, or is all zeros, has nothing to free. */
void melu__safetensors_free(struct melu__safetensors *file);

/* A text of the metadata, *n bytes and a NUL, NULL if there is none of that name. `n` may be NULL. */
char *melu__safetensors_text(const struct melu__safetensors *file, const char *name, size_t *n);

/* The first dimension of a tensor; 0 if there is no such tensor, or it has none. */
size_t melu__safetensors_length(const struct melu__safetensors *file, const char *name);

/* Demands a tensor of that name, type and dimensions; floating-point numbers must be finite. Errors: MELU_EFORMAT,
 * MELU_ERANGE (`index` is the row). */
melu_status melu__safetensors_expect(const struct melu__safetensors *file, const struct melu__tensor *tensor,
                                     melu_error *err);

/* The same but for its numbers, which were not read yet. */
melu_status melu__safetensors_expect_shape(const struct melu__safetensors *file, const struct melu__tensor *tensor,
                                           melu_error *err);

/* Turns n numbers of that type from bytes of the file into what they are in memory; whether they are finite. */
void melu__safetensors_decode(void *out, enum melu__dtype dtype, const unsigned char *bytes, size_t n);
int melu__safetensors_finite(enum melu__dtype dtype, const unsigned char *bytes, size_t n);

/* The bytes of a tensor that was found as expected, as the file holds them, or its numbers. */
const unsigned char *melu__safetensors_data(size_t *n_bytes, const struct melu__safetensors *file, const char *name);
void melu__safetensors_copy(void *out, const struct melu__safetensors *file, const char *name);
void melu__safetensors_copy_floats(float *out, const struct melu__safetensors *file, const char *name);

/* Puts the file's name before the message of a complaint about its content. */
void melu__safetensors_name(melu_error *err, const char *path);

/* The same for a complaint of a call that was given what the file says: what would be the caller's mistake there,
 * MELU_EINVAL, is the file's, MELU_EFORMAT. Returns the status. Want of memory is nobody's fault. */
melu_status melu__safetensors_blame(melu_status status, melu_error *err, const char *path);

#endif
