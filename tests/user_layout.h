/* SPDX-License-Identifier: BSD-3-Clause */
/* Where things are in an adapted user's bytes, as docs/file-format.md says, and not as the library's code does. */
#ifndef MELU_TESTS_USER_LAYOUT_H
#define MELU_TESTS_USER_LAYOUT_H

enum {
  AT_VERSION = 8,
  AT_FORM = 12,
  AT_DIGEST = 16,
  AT_RATINGS = 32,
  AT_FIELDS = 36,
  AT_CELLS = 40,
  AT_NUMBERS = 44,
  AT_COUNTS = 48 /* of the profile's fields; what follows depends on them */
};

#endif
