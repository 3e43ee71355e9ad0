/* SPDX-License-Identifier: BSD-3-Clause */
/* The collective of one rank of a gang, each call of which a test may let fail instead. */
#ifndef MELU_TESTS_WIRE_H
#define MELU_TESTS_WIRE_H

#include "gang.h"

enum { WIRE_GATHER, WIRE_BEGIN, WIRE_END, WIRE_REDUCE, WIRE_FUNCTIONS }; /* no training waits at a barrier */

/* Of which one rank of a process has one. */
static struct wire {
  struct melu_collective real;
  const struct gang_rank *gang;
  melu_status (*cut)(size_t function, melu_error *err); /* before each call; 0: it goes on */
} wire;

static inline melu_status wire_gather(void *arg, void *all, const size_t *counts, melu_error *err) {
  const melu_status status = wire.cut(WIRE_GATHER, err);
  return status ? status : wire.real.all_gather(arg, all, counts, err);
}

static inline melu_status wire_begin(void *arg, const struct melu_message *out, struct melu_message *in,
                                     melu_error *err) {
  const melu_status status = wire.cut(WIRE_BEGIN, err);
  return status ? status : wire.real.all_to_all_begin(arg, out, in, err);
}

static inline melu_status wire_end(void *arg, melu_error *err) {
  const melu_status status = wire.cut(WIRE_END, err);
  return status ? status : wire.real.all_to_all_end(arg, err);
}

static inline melu_status wire_reduce(void *arg, void *value, size_t n, melu_fold_fn fold, melu_error *err) {
  const melu_status status = wire.cut(WIRE_REDUCE, err);
  return status ? status : wire.real.reduce(arg, value, n, fold, err);
}

static inline void wire_put_between(const struct gang_rank *gang, struct melu_collective *c,
                                    melu_status (*cut)(size_t function, melu_error *err)) {
  wire = (struct wire){*c, gang, cut};
  c->all_gather = wire_gather;
  c->all_to_all_begin = wire_begin;
  c->all_to_all_end = wire_end;
  c->reduce = wire_reduce;
}

#endif
