/* SPDX-License-Identifier: BSD-3-Clause */
/* What a file says of the model that it holds: docs/file-format.md. */
#ifndef MELU__METADATA_H
#define MELU__METADATA_H

#include "io/safetensors.h"
#include "model/model.h"

#define MELU__FORMAT_VERSION "1"

/* Format, version, library, and the model's schema and options as JSON: an object of strings that the caller may add
 * to; NULL if there is no memory. */
json_t *melu__metadata(const melu_model *model, const char *format);

/* Demands a file of that format, in a version that is known. Errors: MELU_EFORMAT, MELU_EVERSION. */
melu_status melu__check_format(const struct melu__safetensors *file, const char *format, melu_error *err);

#endif
