/* SPDX-License-Identifier: BSD-3-Clause */
/* What every collective must do: the ranks of a gang check it together, each running the same function. */
#ifndef MELU_TESTS_COLLECTIVE_H
#define MELU_TESTS_COLLECTIVE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gang.h"
#include "world.h"

enum { COLLECTIVE_RANKS = 8, COLLECTIVE_ROUNDS = 200, COLLECTIVE_FAILURES = 5 };

/* -------------------------------------------------------------------------------------------- calls that work */

static inline void collective_pause(uint64_t *random) {
  const struct timespec t = {0, (long)(world_random(random) % 8 == 0) * 200000};
  nanosleep(&t, NULL);
}

/* Often 0; in some rounds above a MiB. */
static inline size_t collective_size(size_t round, size_t from, size_t to) {
  const size_t n = (round * 7 + from * 3 + to) % 11;
  return n < 4 ? 0 : n * n * (round % 64 == 5 ? 15000 : 37);
}

static inline unsigned char collective_byte(size_t round, size_t from, size_t to, size_t i) {
  return (unsigned char)(round * 31 + from * 17 + to * 5 + i + i / 1000);
}

/* One check for all bytes: Check writes down each. */
static inline void collective_expect(const unsigned char *bytes, size_t n, size_t round, size_t from, size_t to) {
  size_t n_wrong = 0;
  for (size_t i = 0; i < n; i++) n_wrong += bytes[i] != collective_byte(round, from, to, i);
  ck_assert_uint_eq(n_wrong, 0);
}

static inline void collective_gather(const struct gang_rank *self, size_t round) {
  const struct melu_collective *c = &self->collective;
  size_t counts[COLLECTIVE_RANKS], own = 0, n = 0;
  for (size_t r = 0; r < self->n_ranks; n += counts[r++]) {
    if (r == self->rank) own = n;
    counts[r] = collective_size(round, r, 0);
  }
  unsigned char *all = calloc(1, n + 1);
  for (size_t i = 0; i < counts[self->rank]; i++) all[own + i] = collective_byte(round, self->rank, 0, i);
  melu_error e;
  ck_assert_int_eq(c->all_gather(c->arg, all, counts, &e), MELU_OK);
  n = 0;
  for (size_t r = 0; r < self->n_ranks; n += counts[r++]) collective_expect(all + n, counts[r], round, r, 0);
  ck_assert_uint_eq(all[n], 0);
  free(all);
}

static inline void collective_exchange(const struct gang_rank *self, size_t round, uint64_t *random) {
  const struct melu_collective *c = &self->collective;
  struct melu_message out[COLLECTIVE_RANKS], in[COLLECTIVE_RANKS];
  for (size_t r = 0; r < self->n_ranks; r++) {
    const size_t n_out = collective_size(round, self->rank, r),
                 room = collective_size(round, r, self->rank) + round % 3;
    unsigned char *bytes = malloc(n_out + 1);
    for (size_t i = 0; i < n_out; i++) bytes[i] = collective_byte(round, self->rank, r, i);
    out[r] = (struct melu_message){bytes, n_out};
    in[r] = (struct melu_message){malloc(room + 1), room};
  }
  melu_error e;
  ck_assert_int_eq(c->all_to_all_begin(c->arg, out, in, &e), MELU_OK);
  collective_pause(random);
  ck_assert_int_eq(c->all_to_all_end(c->arg, &e), MELU_OK);
  for (size_t r = 0; r < self->n_ranks; r++) {
    if (r != self->rank) {
      ck_assert_uint_eq(in[r].n, collective_size(round, r, self->rank));
      collective_expect(in[r].bytes, in[r].n, round, r, self->rank);
    }
    free(in[r].bytes);
    free(out[r].bytes);
  }
}

/* Of texts: order matters, brackets do not. */
static inline void collective_fold_texts(void *into, const void *from) {
  char *text = into;
  const size_t n = strlen(text);
  snprintf(text + n, 64 - n, "%s", (const char *)from);
}

static inline void collective_fold(const struct gang_rank *self) {
  const struct melu_collective *c = &self->collective;
  char text[64] = "", expected[64] = "";
  text[0] = (char)('a' + self->rank);
  for (size_t r = 0; r < self->n_ranks; r++) expected[r] = (char)('a' + r);
  melu_error e;
  ck_assert_int_eq(c->reduce(c->arg, text, sizeof text, collective_fold_texts, &e), MELU_OK);
  ck_assert_str_eq(text, expected);
}

static inline void collective_calls(const struct gang_rank *self) {
  uint64_t order = 5, random = self->rank;
  melu_error e;
  for (size_t round = 0; round < COLLECTIVE_ROUNDS; round++) {
    collective_pause(&random);
    switch (world_random(&order) % 4) {
      case 0:
        collective_gather(self, round);
        break;
      case 1:
        collective_exchange(self, round, &random);
        break;
      case 2:
        collective_fold(self);
        break;
      default:
        ck_assert_int_eq(self->collective.barrier(self->collective.arg, &e), MELU_OK);
    }
  }
}

/* --------------------------------------------------------------------------------------------- calls that do not */

static inline void collective_lost(melu_status status, const melu_error *e, const char *why) {
  ck_assert_msg(status == MELU_EPEER && e->status == MELU_EPEER && strstr(e->message, why), "%s: \"%s\", not \"%s\"",
                melu_status_name(status), e->message, why);
}

/* Every later call fails too, for the same reason. */
static inline void collective_all_lost(const struct gang_rank *self, const char *why) {
  const struct melu_collective *c = &self->collective;
  struct melu_message none[COLLECTIVE_RANKS] = {{NULL, 0}};
  size_t counts[COLLECTIVE_RANKS] = {0};
  char text[64] = "";
  melu_error e;
  collective_lost(c->all_gather(c->arg, NULL, counts, &e), &e, why);
  collective_lost(c->all_to_all_begin(c->arg, none, none, &e), &e, why);
  collective_lost(c->all_to_all_end(c->arg, &e), &e, why);
  collective_lost(c->reduce(c->arg, text, sizeof text, collective_fold_texts, &e), &e, why);
  collective_lost(c->barrier(c->arg, &e), &e, why);
}

static inline void collective_last_is_late(const struct gang_rank *self) {
  char why[64];
  melu_error e;
  if (self->rank + 1 == self->n_ranks) return;
  snprintf(why, sizeof why, "rank %zu did not come within 0.5 seconds", self->n_ranks - 1);
  collective_lost(self->collective.barrier(self->collective.arg, &e), &e, why);
  collective_all_lost(self, why);
}

static inline void collective_leave(const struct gang_rank *self) {
  const struct timespec t = {0, 50000000};
  nanosleep(&t, NULL);
  self->leave(self);
  collective_all_lost(self, "rank 1 has left");
}

static inline void collective_leave_while_all_wait(const struct gang_rank *self) {
  if (self->rank == 1)
    collective_leave(self);
  else
    collective_all_lost(self, "rank 1 has left");
}

static inline void collective_leave_before_end(const struct gang_rank *self) {
  const struct melu_collective *c = &self->collective;
  struct melu_message none[COLLECTIVE_RANKS] = {{NULL, 0}};
  melu_error e;
  if (self->rank == 1) {
    collective_leave(self);
    return;
  }
  const melu_status begun = c->all_to_all_begin(c->arg, none, none, &e);
  ck_assert(begun == MELU_OK || begun == MELU_EPEER);
  const melu_status ended = c->all_to_all_end(c->arg, &e);
  collective_lost(ended, &e, "rank 1 has left");
}

static inline void collective_different_calls(const struct gang_rank *self) {
  const struct melu_collective *c = &self->collective;
  char text[64] = "";
  melu_error e;
  if (self->rank == 1)
    collective_lost(c->barrier(c->arg, &e), &e, "collective call");
  else
    collective_lost(c->reduce(c->arg, text, sizeof text, collective_fold_texts, &e), &e, "collective call");
}

/* Whom it does not concern may hear of it with the next call. */
static inline void collective_too_much(const struct gang_rank *self) {
  const struct melu_collective *c = &self->collective;
  static const char why[] = "rank 1 sends rank 0 8 bytes, more than the 7";
  char bytes[2][8] = {"1234567", ""};
  struct melu_message out[COLLECTIVE_RANKS] = {{NULL, 0}}, in[COLLECTIVE_RANKS] = {{NULL, 0}};
  melu_error e;
  if (self->rank == 1) out[0] = (struct melu_message){bytes[0], 8};
  if (self->rank == 0) in[1] = (struct melu_message){bytes[1], 7};
  ck_assert_int_eq(c->all_to_all_begin(c->arg, out, in, &e), MELU_OK);
  const melu_status status = c->all_to_all_end(c->arg, &e);
  if (status || self->rank == 0) collective_lost(status, &e, why);
  collective_all_lost(self, why);
}

/* From two ranks on. */
static const struct collective_failure {
  double time_limit;
  void (*run)(const struct gang_rank *self);
} collective_failures[COLLECTIVE_FAILURES] = {{0.5, collective_last_is_late},
                                              {1000, collective_leave_while_all_wait},
                                              {1000, collective_leave_before_end},
                                              {1000, collective_different_calls},
                                              {1000, collective_too_much}};

#endif
