/* SPDX-License-Identifier: BSD-3-Clause */
/* A checkpoint in parts: a file that names them. The parts lie beside it. */
#ifndef MELU__MANIFEST_H
#define MELU__MANIFEST_H

#include "base/slots.h"
#include "io/safetensors.h"

enum { MELU__PART_NAME = 256 };

struct melu__part_file {
  char name[MELU__PART_NAME]; /* without its folder */
  struct melu__slots slots;
  struct melu__saved saved;
};

struct melu__manifest {
  struct melu__part_file *parts; /* by ascending slots */
  size_t n;
};

void melu__manifest_free(struct melu__manifest *m, const struct melu_allocator *a);

/* The name of the part with these slots of what was written at `path` after n_done tasks. Errors: MELU_ELIMIT. */
melu_status melu__part_name(struct melu__part_file *part, const char *path, uint64_t n_done, melu_error *err);

/* The path of a part, to be freed; NULL if there is no memory. */
char *melu__part_path(const char *manifest_path, const struct melu__part_file *part, const struct melu_allocator *a);

/* Writes the manifest, atomically. Errors: as of melu__safetensors_save. */
melu_status melu__manifest_save(const melu_context *ctx, const char *path, const struct melu__manifest *m,
                                melu_error *err);

/* Reads what is at `path`: a manifest, or else a checkpoint that is whole, whose one part has all slots and a checksum
 * of 0. Demands that the parts have each of n_slots slots once. Errors: as of melu__safetensors_open; MELU_EFORMAT,
 * MELU_EVERSION, MELU_EINVAL (of another number of slots). */
melu_status melu__manifest_load(struct melu__manifest *m, const melu_context *ctx, const char *path, melu_error *err);

/* Removes parts of `old` that `now` does not name, as far as that can be done. */
void melu__manifest_remove(const struct melu__manifest *old, const struct melu__manifest *now, const char *path,
                           const struct melu_allocator *a);

#endif
