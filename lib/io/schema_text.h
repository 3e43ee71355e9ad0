/* SPDX-License-Identifier: BSD-3-Clause */
/* A schema in a file's metadata: docs/file-format.md, "Metadata". */
#ifndef MELU__SCHEMA_TEXT_H
#define MELU__SCHEMA_TEXT_H

#include "data/schema.h"
#include "io/safetensors.h"

/* The schema, whose vocabularies are complete, as JSON; NULL if there is no memory. */
json_t *melu__schema_json(const melu_schema *schema, const struct melu_allocator *a);

/* What a file says of a schema. */
struct melu__schema_text {
  const melu_context *ctx;
  melu_schema *schema;                             /* its vocabularies still without texts; owned */
  struct melu__byte_text *texts[MELU__MAX_FIELDS]; /* those of field i, in the file's memory; NULL if it has none */
};

/* Reads the metadata's "schema". Memory is asked for in proportion to the file; vocabularies, which take many times as
 * much as short texts, are given to `schema`, this one or a copy, by melu__schema_text_finish when the rest of the file
 * was found sound. There is something to free, whatever they return. Errors: MELU_EFORMAT, and those of
 * melu_schema_add. */
melu_status melu__schema_text_load(struct melu__schema_text *s, const melu_context *ctx,
                                   const struct melu__safetensors *file, melu_error *err);
melu_status melu__schema_text_finish(const struct melu__schema_text *s, melu_schema *schema, melu_error *err);

/* One that is all zeros has nothing to free. */
void melu__schema_text_free(struct melu__schema_text *s);

#endif
