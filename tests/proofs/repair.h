/* SPDX-License-Identifier: BSD-3-Clause */
/* Checksums set right by somebody who altered what they are of: docs/file-format.md. */
#ifndef MELU_TESTS_REPAIR_H
#define MELU_TESTS_REPAIR_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "proof.h"

/* Of a model or a checkpoint. Without a place for it nothing is done. */
static inline void repair_file(struct proof_bytes b) {
  static const char key[] = "\"melu.checksum\":\"";
  const size_t n_key = sizeof key - 1;
  char digits[17];
  for (size_t i = 8; i + n_key + 16 <= b.n; i++) {
    if (memcmp(b.at + i, key, n_key) != 0) continue;
    memcpy(b.at + i + n_key, "0000000000000000", 16);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)XXH3_64bits(b.at + 8, b.n - 8));
    memcpy(b.at + i + n_key, digits, 16);
    return;
  }
}

/* Of an adapted user, of 8 bytes or more. */
static inline void repair_user(struct proof_bytes b) {
  melu__put_bits(b.at + b.n - 8, XXH3_64bits(b.at, b.n - 8), 8);
}

#endif
