/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls that a signal of the host's cut short are made again:
 *
 *     do fd = open(path, O_RDONLY);
 *     while (melu__interrupted(fd));
 *
 * All but close: whether it closes what it was interrupted at differs, and on Linux it does. */
#ifndef MELU__INTERRUPTED_H
#define MELU__INTERRUPTED_H

#include <errno.h>

/* `result`: of a call that returns a negative number when it fails. */
static inline int melu__interrupted(long result) {
  return result < 0 && errno == EINTR;
}

#endif
