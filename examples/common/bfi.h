/* SPDX-License-Identifier: BSD-3-Clause */
/* The answers of 2,800 people to 25 statements about themselves (data/NOTICE.md). */
#ifndef EXAMPLE_BFI_H
#define EXAMPLE_BFI_H

#include <melu.h>

enum { BFI_STATEMENTS = 25, BFI_MIN = 1, BFI_MAX = 6 };

/* Zero stands for "not said" everywhere. */
struct bfi_person {
  unsigned answers[BFI_STATEMENTS]; /* 1 "very inaccurate" to 6 "very accurate" */
  unsigned gender;                  /* 1 man, 2 woman */
  unsigned education;               /* 1 to 5 */
  unsigned age;
};

/* Returns a new array of the people in DIR/bfi.csv, in the order of the file, for the caller to free; ends the program
 * with a message if that cannot be read. */
struct bfi_person *bfi_read(size_t *n_people, const char *dir);

/* Whether a person belongs to the fifth that is held out: by a hash of the person's number, 1-based, so that the
 * choice is the same everywhere and for ever. */
int bfi_held_out(uint64_t number);

/* What an item and a user are described by. The network sees nothing else of them. */
melu_schema *bfi_new_schema(const melu_context *ctx);

/* The values of a person's fields, in the schema's order. A field that is left zero is missing. */
struct bfi_profile {
  uint32_t gender, education;
  float age;
  struct melu_value values[3];
};
void bfi_set_profile(struct bfi_profile *profile, const struct bfi_person *person);

/* Returns a new data set: the statements, and those people who are held out, or those who are not; a person's id is the
 * number, 1-based. */
melu_dataset *bfi_new_dataset(const melu_context *ctx, const melu_schema *schema, const char *dir,
                              const struct bfi_person *people, size_t n_people, int held_out);

/* What an item says. Belongs to the data set. */
const char *bfi_statement(const melu_dataset *data, uint32_t item);

#endif
