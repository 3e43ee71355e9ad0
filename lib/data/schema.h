/* SPDX-License-Identifier: BSD-3-Clause */
/* The fields of a user and of an item, and their vocabularies. */
#ifndef MELU__SCHEMA_H
#define MELU__SCHEMA_H

#include <melu.h>

#include "base/context.h"
#include "base/vocab.h"

#define MELU__MAX_FIELDS 256
#define MELU__MAX_WIDTH 4096
#define MELU__MAX_NAME 63
#define MELU__MAX_VALUES 0x7fffffffu /* the table has one row more */

/* What tells the kinds of fields apart. Elsewhere a kind is not asked for by
 * name, so that a new one is a line of schema.c and, if its ids do not count alike, of melu__cell_divisor (column.h).
 */
enum { MELU__N_KINDS = MELU_NUMERIC + 1 };
extern const char *const melu__owner_names[2]; /* what they are called in files */
extern const char *const melu__kind_names[MELU__N_KINDS];
extern const struct melu__kind {
  int has_numbers; /* a cell is numbers, not ids with rows of a table */
  int is_list;     /* there may be more than one id */
} melu__kinds[MELU__N_KINDS];

struct melu__field {
  char *name; /* allocated: it stays where it is when more fields are added */
  melu_owner owner;
  melu_field_kind kind;
  int learns;      /* the vocabulary is learnt from texts, and not complete yet */
  size_t n_values; /* of an id field that does not learn (any more); else 0 */
  size_t width;
  double shift, scale;       /* of MELU_NUMERIC; else 0 and 1 */
  struct melu__vocab *texts; /* of an id field with texts (learnt, or given by melu__schema_set_texts), else NULL */
  uint64_t digest;           /* of the texts of a field that does not learn (any more) */
};

struct melu_schema {
  const melu_context *ctx;
  size_t n_fields;
  struct melu__field *fields; /* in the order of adding, both owners mixed */
  size_t capacity;
};

/* A copy that lives with `ctx`, which need not be the context of the original. */
melu_status melu__schema_copy(melu_schema **out, const melu_context *ctx, const melu_schema *schema, melu_error *err);

/* The index-th field of the owner, NULL if there is none. */
const struct melu__field *melu__schema_owner_field(const melu_schema *schema, melu_owner owner, size_t index);
struct melu__field *melu__schema_find(const melu_schema *schema, const char *name);

/* Gives an id field its vocabulary, a copy of `texts` (which may be empty), and closes it: id = number of the text.
 * Errors: MELU_ENOTFOUND (no such field), MELU_EINVAL (numbers, or n_values is fixed to another count), MELU_ELIMIT,
 * MELU_ENOMEM. */
melu_status melu__schema_set_texts(melu_schema *schema, const char *name, const struct melu__vocab *texts,
                                   melu_error *err);

static inline int melu__has_numbers(const struct melu__field *field) {
  return melu__kinds[field->kind].has_numbers;
}

/* Ids of the field are below this now: n_values, or the number of texts so far. */
size_t melu__field_n_ids(const struct melu__field *field);

/* Width of the owner's part of the network's input: sum of the widths of its fields. */
size_t melu__schema_width(const melu_schema *schema, melu_owner owner);

/* True when no vocabulary is open any more. */
int melu__schema_complete(const melu_schema *schema);

/* Ends learning: n_values becomes the number of texts. Cannot fail. */
void melu__schema_close(melu_schema *schema);

/* True when both describe the same input: same fields in the same order, same texts in the vocabularies. A field that
 * still learns is not the same as one that does not. Serving asks this at every call, so the texts of complete schemas
 * are compared by a 64-bit digest, and everything that memory depends on by value. */
int melu__schema_equal(const melu_schema *a, const melu_schema *b);

#endif
