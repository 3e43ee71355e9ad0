/* SPDX-License-Identifier: BSD-3-Clause */
/* Everything that the library reads from files. */
#ifndef MELU_TESTS_READERS_H
#define MELU_TESTS_READERS_H

#include "proof.h"

/* What a reader reads into; those it does not need are NULL. */
struct subject {
  const struct scene *scene;
  melu_model *model;
  melu_schema *schema;
  melu_dataset *data;
  melu_shards *shards;
};

enum { READER_FILES = 8 };
struct reader {
  const char *name;
  void (*open)(struct subject *subject); /* makes what there has to be before */
  melu_status (*read)(struct subject *subject, melu_error *err);
  const char *files[READER_FILES]; /* of the scene's folder, that it reads; NULL: no more */
  int is_sealed;                   /* by a checksum, so that whatever is altered is noticed */
  int is_of_data;                  /* what it reads is the same whatever the model is */
};

enum { N_READERS = 11 };
extern const struct reader readers[N_READERS];

/* Writes the files that are read, beside the scene's tables; removes them. */
void readers_prepare(const struct scene *s);
void readers_clean(const struct scene *s);

void subject_open(struct subject *subject, const struct scene *s, const struct reader *reader);
void subject_close(struct subject *subject);

/* Freezes the data set, if there is an open one: only then are its ratings to be seen. */
void subject_freeze(struct subject *subject);

/* Of all that is there. */
void subject_digest(unsigned char digest[MELU_DIGEST_BYTES], const struct subject *subject);

#endif
