/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of fuzz_readers. */
#ifndef MELU_TESTS_FUZZ_READERS_H
#define MELU_TESTS_FUZZ_READERS_H

#include "../proofs/proof.h"
#include "fuzz.h"

/* An input may be cut in parts by this byte, which no reader takes for anything else. */
#define FUZZ_CUT 0x1e

/* The input up to the next cut; what is left begins after it. */
struct fuzz_input fuzz_part(struct fuzz_input *in);

/* A refusal is one of the statuses whose bits are set in `allowed`, and the error says it. Returns whether it was none.
 */
#define FUZZ_BIT(status) (1u << -(status))
int fuzz_accepted(const char *what, melu_status status, unsigned allowed, const melu_error *err);

/* Of the flags: by which of four sets of options, from this bit on; which of two schemas. */
enum { FUZZ_TABLE_OPTIONS = 4, FUZZ_MELU_ITEMS = 4 };

/* Statuses of readers of files of tensors. */
enum {
  FUZZ_TENSOR_REFUSALS = FUZZ_BIT(MELU_EFORMAT) | FUZZ_BIT(MELU_ECORRUPT) | FUZZ_BIT(MELU_EVERSION) |
                         FUZZ_BIT(MELU_ERANGE) | FUZZ_BIT(MELU_ELIMIT)
};

/* Of the flags: checksums are set right, as by somebody who means harm. */
enum { FUZZ_REPAIRED = 2 };

/* A frozen data set that was read can be used. */
void fuzz_check_data(const melu_dataset *data);

/* Shard folders; the scene's folder is one, and its files are removed by fuzz_shards_close. */
void fuzz_shards(const struct scene *s, struct fuzz_input in, unsigned flags);
void fuzz_shards_close(const struct scene *s);

/* Readers of tables, and of a folder of the MeLU reference code; `flags` say how they are called. */
void fuzz_tables(const struct scene *s, struct fuzz_input in, unsigned flags);
void fuzz_melu_folder(const struct scene *s, struct fuzz_input in, unsigned flags);

#endif
