/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may do how much: how long a request may take, how many an address may make, and who knows the token. */
#ifndef SERVICE_GUARD_H
#define SERVICE_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "metrics.h"

/* Nanoseconds of a clock that is never set. */
uint64_t guard_now(void);

/* Whether a text is the token. Takes the same time however much of it is right. */
int guard_is_token(const char *text, const char *token);

/* ------------------------------------------------------------------------------------- connections and time */

/* What a connection is at. Each step has the same time; nobody gets more of it by sending a byte now and then. */
enum step { STEP_IDLE, STEP_READING, STEP_ANSWERING };

struct guard;
struct visit; /* a connection */

/* Returns a new guard, NULL if there is no memory. `rate`: requests a second that an address may make, with twice as
 * many at once; 0: any number. */
struct guard *guard_new(struct metrics *metrics, uint64_t step_nanoseconds, uint64_t rate);
void guard_free(struct guard *guard);

/* A connection begins and ends. The socket is open in between. Returns NULL if there is no memory. */
struct visit *guard_enter(struct guard *guard, int socket);
void guard_leave(struct guard *guard, struct visit *visit);

/* A connection takes a step. 0 if it may not: its time is over. */
int guard_step(struct guard *guard, struct visit *visit, enum step step);

/* Ends connections whose time is over, those that were sending a request with 408. To be called every second or so. */
void guard_sweep(struct guard *guard);

/* ------------------------------------------------------------------------------------------------- rates */

/* Counts a request of that address. 0 if it has made too many. */
int guard_let_in(struct guard *guard, const struct sockaddr *address);

#endif
