/* SPDX-License-Identifier: BSD-3-Clause */
/* The answers of 2,800 people to 25 statements about themselves (data/NOTICE.md). */
#ifndef EXAMPLE_BFI_H
#define EXAMPLE_BFI_H

#include <stddef.h>
#include <stdint.h>

enum { BFI_STATEMENTS = 25 };

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

#endif
