/* SPDX-License-Identifier: BSD-3-Clause */
/* A saver of our own that has a flaw, or none, for the proofs to notice. All of them write what they should while
 * nothing goes wrong. */
#ifndef MELU_TESTS_PLANTED_H
#define MELU_TESTS_PLANTED_H

#include "savers.h"

enum flaw {
  FLAWLESS,
  /* Seen when calls fail. */
  IGNORES_FAILED_WRITES,
  IGNORES_FAILED_CLOSE,
  TRUSTS_WRITES_TO_BE_WHOLE,
  GIVES_UP_WHEN_INTERRUPTED,
  LEAVES_ITS_TEMPORARY_FILE,
  LEAVES_A_DESCRIPTOR,
  SAYS_NOT_WHY,
  /* Seen when the power fails. */
  WRITES_IN_PLACE,
  DOES_NOT_FORCE_THE_FILE,
  DOES_NOT_FORCE_THE_FOLDER,
  FORCES_TOO_LATE,
  N_FLAWS
};
extern const char *const flaw_names[N_FLAWS];

/* Sets the flaw of this saver. */
const struct saver *planted_saver(enum flaw flaw);

#endif
