/* SPDX-License-Identifier: BSD-3-Clause */
/* Filling the caller's struct melu_error. */
#ifndef MELU__ERROR_H
#define MELU__ERROR_H

#include <melu.h>

#if defined(__GNUC__)
#define MELU__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define MELU__PRINTF(text, first)
#endif

/* Fills *err, unless it is NULL, with the status and one sentence, and returns the status:
 *     return melu__fail(err, MELU_ERANGE, "rating %zu is not finite", i);
 * Long texts are cut. `index`, `line` and `sys_errno` are zero; the caller sets those that it knows through the
 * variants below. */
melu_status melu__fail(melu_error *err, melu_status status, const char *format, ...) MELU__PRINTF(3, 4);

/* The same with the index of the offending element. */
melu_status melu__fail_at(melu_error *err, melu_status status, uint64_t index, const char *format, ...)
    MELU__PRINTF(4, 5);

/* The same with the line of the offending text; the message should name the file. */
melu_status melu__fail_line(melu_error *err, melu_status status, uint64_t line, const char *format, ...)
    MELU__PRINTF(4, 5);

/* The same with errno's text appended after ": ". */
melu_status melu__fail_errno(melu_error *err, melu_status status, int sys_errno, const char *format, ...)
    MELU__PRINTF(4, 5);

/* MELU_ENOMEM with the usual message. */
melu_status melu__fail_memory(melu_error *err);

#endif
