/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes a tree of jansson's, but for the numbers that are not whole: it would write them with the host's decimal point
 * and then look for it in a place that threads of another locale write to. */
#ifndef MELU__JSON_WRITE_H
#define MELU__JSON_WRITE_H

#include <jansson.h>
#include <melu.h>

/* Compact text of *n bytes and a NUL, in memory of the allocator; NULL if there is none. Numbers read back as they are.
 */
char *melu__json_dump(size_t *n, json_t *json, const struct melu_allocator *a);

#endif
