/* SPDX-License-Identifier: BSD-3-Clause */
/* A shard folder that is written again and again, for proofs 3 and 4. */
#ifndef MELU_TESTS_SHARD_SET_H
#define MELU_TESTS_SHARD_SET_H

#include "proof.h"

enum { SHARD_SET_FILES = 2 };

struct shard_set {
  const struct scene *scene;
  char folder[128], manifest[160];
  melu_shard_writer *writer; /* of the last attempt; NULL: there is none */
};

/* Makes the folder; removes it and what is in it; removes what is in it. */
void shard_set_open(struct shard_set *s, const struct scene *scene);
void shard_set_close(struct shard_set *s);
void shard_set_empty(const struct shard_set *s);

/* Writes users and ratings of the scene into the folder, most of them through the temporary file. */
melu_status shard_set_write(struct shard_set *s, melu_error *err);
void shard_set_end_writing(struct shard_set *s);

/* Of all that is in the folder, which must be a whole data set; `what` tells what happened to it. */
void shard_set_digest(unsigned char digest[MELU_DIGEST_BYTES], const struct shard_set *s, const char *what);

#endif
