/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages between all ranks, of any length in messages of a bounded one: rounds are made until nobody has more. Every
 * message says whether its sender has failed, so that each exchange is an agreement too, and nobody waits in vain. */
#ifndef MELU__MAIL_H
#define MELU__MAIL_H

#include "base/ranks.h"

struct melu__mail {
  struct melu__ranks *ranks;
  const struct melu_allocator *a;
  size_t room; /* bytes of a message that may be packed */
  char *memory;
  struct melu_message *out, *in;
  melu_error failure; /* this rank's, if its status is not 0: the others hear of it with the next message */
  int tells, hears;   /* a word of this rank's to all, and whether anybody has said it */
};

/* What an exchange is about. What is for oneself goes the same way. */
struct melu__letters {
  void *arg;
  /* Writes the next part of what is for rank `to`: returns its length, at most `room`; *more is set if it is not all.
   */
  size_t (*pack)(void *arg, size_t to, char *bytes, size_t room, int *more);
  void (*unpack)(void *arg, size_t from, const char *bytes, size_t n);
  /* NULL, or what is done while the first round is under way. */
  void (*meanwhile)(void *arg);
};

/* Returns 0 if there is no memory; the mail is then to be freed all the same. */
int melu__mail_init(struct melu__mail *m, struct melu__ranks *ranks, const struct melu_allocator *a, size_t room);
void melu__mail_free(struct melu__mail *m);

/* Takes down a failure of this rank, unless there is one. */
void melu__mail_fail(struct melu__mail *m, melu_status status, const melu_error *err);

/* Collective. Errors: those of the ranks that have failed before their last message; nothing is unpacked any more
 * then. */
melu_status melu__mail_exchange(struct melu__mail *m, const struct melu__letters *letters, melu_error *err);

/* Collective: whether any rank has failed so far. */
melu_status melu__mail_agree(struct melu__mail *m, melu_error *err);

#endif
