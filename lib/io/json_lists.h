/* SPDX-License-Identifier: BSD-3-Clause */
/* A JSON object of lists, one list at a time: parsing a whole file takes many times its bytes, and longer. */
#ifndef MELU__JSON_LISTS_H
#define MELU__JSON_LISTS_H

#include <melu.h>

#include <jansson.h>

#include "io/text_file.h"

/* Receives one member of the object; both are valid during the call. */
typedef melu_status melu__json_list_fn(void *arg, struct melu__slice key, const json_t *list, melu_error *err);

/* Calls `each` for the members of the object that the text is, in its order, until one fails. A key may come twice.
 * Calls the context's progress callback with `done` more bytes than were parsed. Errors: MELU_EFORMAT, MELU_ERANGE (a
 * number), both with the line, MELU_ENOMEM, MELU_ECANCELED, and those of `each`. */
melu_status melu__json_lists(const struct melu__text *text, uint64_t done, melu__json_list_fn *each, void *arg,
                             melu_error *err);

#endif
