/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP, by libmicrohttpd: a thread for each connection, which reads a request, checks it against the limits, has it
 * answered, and counts it. */
#ifndef SERVICE_HTTP_H
#define SERVICE_HTTP_H

#include "answers.h"

struct http_options {
  const char *address; /* a number, IPv4 or IPv6 */
  uint16_t port;       /* 0: any that is free */
  unsigned connections;
  uint64_t step_seconds; /* see guard_step */
  uint64_t rate;         /* see guard_new */
  const char *token;     /* who changes anything has to send it; NULL: nobody has to */
};

struct http;

/* Returns a new server that runs; NULL with the problem. Borrows all. */
struct http *http_start(struct service *service, const struct http_options *options, struct problem *problem);

uint16_t http_port(const struct http *http);

/* Ends connections that take too long; to be called every second or so. */
void http_sweep(struct http *http);

/* Accepts nothing more, lets those finish who have begun, but not for ever, and ends. */
void http_stop(struct http *http);

#endif
