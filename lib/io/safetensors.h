/* SPDX-License-Identifier: BSD-3-Clause */
/* Files of named float arrays and texts in the safetensors format, written atomically and read strictly:
 * docs/file-format.md. Knows nothing of models. */
#ifndef MELU__SAFETENSORS_H
#define MELU__SAFETENSORS_H

#include <jansson.h>
#include <melu.h>

#include "base/context.h"
#include "tensor/real.h"

struct melu__tensor {
  const char *name;
  size_t n_dims, dims[2];
  const real *data; /* dims[0] * dims[1] numbers; written as 32-bit floats */
};

/* Writes a file that holds the tensors and `metadata`, an object of strings (borrowed). The file appears whole or not
 * at all, and a failure leaves the old one. Errors: MELU_EIO, MELU_ENOMEM, MELU_ELIMIT. */
melu_status melu__safetensors_save(const melu_context *ctx, const char *path, const json_t *metadata,
                                   const struct melu__tensor *tensors, size_t n_tensors, melu_error *err);

/* JSON as compact text of *n bytes and a NUL, in memory of the allocator; NULL if there is none. */
char *melu__json_text(size_t *n, const json_t *json, const struct melu_allocator *a);

/* A file that was read and found sound: structure, sizes, checksum. */
struct melu__safetensors {
  const melu_context *ctx;
  unsigned char *bytes;
  size_t n_bytes;
  const unsigned char *data; /* behind the header */
  json_t *root;
};

melu_status melu__safetensors_load(struct melu__safetensors *file, const melu_context *ctx, const char *path,
                                   melu_error *err);
void melu__safetensors_free(struct melu__safetensors *file);

/* A text of the metadata, NULL if there is none of that name. */
const char *melu__safetensors_text(const struct melu__safetensors *file, const char *name);

size_t melu__safetensors_count(const struct melu__safetensors *file);

/* Copies the numbers of a tensor of exactly these dimensions, all finite. Errors: MELU_EFORMAT, MELU_ERANGE. */
melu_status melu__safetensors_read(real *out, const struct melu__safetensors *file, const char *name, size_t n_dims,
                                   const size_t dims[2], melu_error *err);

#endif
