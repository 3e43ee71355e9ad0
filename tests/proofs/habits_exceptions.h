/* SPDX-License-Identifier: BSD-3-Clause */
/* The part of proof 16 that is C++; for both languages, which proof.h is not. */
#ifndef MELU_TESTS_HABITS_EXCEPTIONS_H
#define MELU_TESTS_HABITS_EXCEPTIONS_H

#include <melu.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Throws from every callback of melu.hpp. Reads the tables in the folder, which are of that schema, and calls `broken`
 * with what is not as promised, which does not return. Returns how often it threw. */
size_t throw_through_all(const char *folder, const melu_schema *schema, void (*broken)(const char *why));

#ifdef __cplusplus
}
#endif

#endif
