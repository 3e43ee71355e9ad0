/* SPDX-License-Identifier: BSD-3-Clause */
/* A JSON object of lists, one list at a time: parsing a whole file takes many times its bytes, and longer. */
#ifndef MELU__JSON_LISTS_H
#define MELU__JSON_LISTS_H

#include <melu.h>

#include "io/text_file.h"

/* An element of a list. */
struct melu__json_item {
  enum { MELU__JSON_TEXT, MELU__JSON_NUMBER, MELU__JSON_WORD } kind; /* a word: null, true or false */
  struct melu__slice text;
  double number; /* infinite if it is too large */
};

/* Receives one member of the object; all is valid during the call. */
typedef melu_status melu__json_list_fn(void *arg, struct melu__slice key, const struct melu__json_item *items, size_t n,
                                       melu_error *err);

/* Calls `each` for the members of the object that the text is, in its order, until one fails. A key may come twice. The
 * text is overwritten. Calls the context's progress callback with `done` more bytes than were parsed. Errors:
 * MELU_EFORMAT (with the line), MELU_ENOMEM, MELU_ECANCELED, and those of `each`. */
melu_status melu__json_lists(const struct melu__text *text, uint64_t done, melu__json_list_fn *each, void *arg,
                             melu_error *err);

#endif
