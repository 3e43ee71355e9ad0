/* SPDX-License-Identifier: BSD-3-Clause */
/* What the answers are read from and written with. */
#ifndef SERVICE_REPLY_H
#define SERVICE_REPLY_H

#include <jansson.h>

#include "answers.h"

/* Read a parameter, a whole number in [min, max]. *value keeps its default if the parameter is not there; `needed`:
 * that is an error. Whole numbers are digits and nothing else. */
int read_whole(uint64_t *value, const char *name, const char *text, uint64_t min, uint64_t max,
               struct problem *problem);
int read_needed(uint64_t *value, const char *name, const char *text, uint64_t min, uint64_t max,
                struct problem *problem);

/* The position of the item whose number a parameter has; 404 if there is no such item. */
int read_item(uint32_t *item, const struct world *world, const char *text, struct problem *problem);
int find_item(uint32_t *item, const struct world *world, uint64_t id, struct problem *problem);

/* The list if all of it is there; else NULL, and the list is freed. */
json_t *whole_list(json_t *list, int failed);

/* Makes the reply of a JSON value, which it frees; NULL, which is what a constructor of jansson returns when there is
 * no memory, is a problem. */
int reply_json(struct reply *reply, json_t *json, struct problem *problem);

#endif
