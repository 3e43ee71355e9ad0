/* SPDX-License-Identifier: BSD-3-Clause */
/* What a file says of what it holds: docs/file-format.md. */
#ifndef MELU__METADATA_H
#define MELU__METADATA_H

#include "io/json_read.h"
#include "io/safetensors.h"
#include "model/model.h"

#define MELU__FORMAT_VERSION "1"

/* Format, version and library: an object of strings that the caller may add to; NULL if there is no memory. */
json_t *melu__metadata_new(const char *format);

/* Sets a text to an object, which is given away, written as JSON. Not 0 if there is no memory; `object` may be NULL
 * then. */
int melu__metadata_put(json_t *metadata, const char *name, json_t *object, const struct melu_allocator *a);

/* The same with the model's schema and options as JSON. */
json_t *melu__metadata(const melu_model *model, const char *format);

/* Demands a file of that format, in a version that is known. Errors: MELU_EFORMAT, MELU_EVERSION. */
melu_status melu__check_format(const struct melu__safetensors *file, const char *format, melu_error *err);

/* A text of the metadata that is itself JSON. Empty, which is no JSON, if it is not there. */
struct melu__json melu__metadata_json(const struct melu__safetensors *file, const char *name);

#endif
