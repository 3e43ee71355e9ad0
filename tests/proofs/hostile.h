/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of proof 8. */
#ifndef MELU_TESTS_HOSTILE_H
#define MELU_TESTS_HOSTILE_H

#include "proof.h"

/* The status of a refusal and, as many have the same, a piece of its reason. */
struct refusal {
  melu_status status;
  const char *says;
};

/* `load`: reads what is in arg. A machine that does something else meanwhile makes a time too long, never too short.
 * What a workspace takes for later users it keeps, once: so it is the second time that must give all back. */
void hostile_measure(melu_status (*load)(void *arg, melu_error *err), void *arg, size_t n_bytes, struct refusal want,
                     const char *what);

/* Loads hostile bytes of users of the scene's model. */
void hostile_users(struct scene *s);

/* Opens and reads hostile shard folders. */
void hostile_shards(struct scene *s);

#endif
