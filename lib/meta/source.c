/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/source.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"

size_t melu__source_count(const struct melu__source *source, enum melu__part part) {
  size_t n = 0;
  for (size_t s = 0; s < source->n_slots; s++) n += source->n_users[part][s];
  return n;
}

/* ------------------------------------------------------------------------------------------- users of a data set */

struct in_memory {
  struct melu__source source;
  uint64_t seed;
  uint32_t *users; /* by position: those who are trained on, in the epoch's order, then those who are left out */
  size_t n[MELU__N_PARTS];
  uint32_t n_orders; /* epochs that were ordered */
};

/* The order of an epoch is that of the epoch before, shuffled. */
static void order(struct melu__source *source, uint32_t epoch) {
  struct in_memory *m = (struct in_memory *)source;
  for (; m->n_orders <= epoch; m->n_orders++) {
    struct melu__rng rng = melu__rng(m->seed, MELU__RNG_ORDER, m->n_orders, 0);
    melu__rng_shuffle(&rng, m->users, m->n[MELU__TRAINED]);
  }
}

static void begin(struct melu__source *source) {
  (void)source; /* positions are those in the data set */
}

static melu_status add(struct melu__source *source, melu_batch *batch, const struct melu__episodes *episodes,
                       enum melu__part part, size_t slot, size_t first, size_t n, uint32_t epoch, melu_error *err) {
  const struct in_memory *m = (struct in_memory *)source;
  const uint32_t *users = m->users + (part == MELU__LEFT_OUT ? m->n[MELU__TRAINED] : 0) + first;
  melu_status status = MELU_OK;
  (void)slot;
  for (size_t i = 0; i < n && !status; i++) status = melu__episode_add(episodes, batch, users[i], users[i], epoch, err);
  return status;
}

static melu_status visit(struct melu__source *source, melu__visit_fn look, void *arg, melu_error *err) {
  const struct in_memory *m = (struct in_memory *)source;
  return look(arg, 0, source->users, m->users, m->n[MELU__TRAINED], err);
}

static void identify(const struct melu__source *source, struct melu__digest *d) {
  const struct in_memory *m = (const struct in_memory *)source;
  melu__dataset_digest(d, source->users);
  melu__digest_bits(d, m->n[MELU__TRAINED]);
  melu__digest_words(d, m->users, m->n[MELU__TRAINED] + m->n[MELU__LEFT_OUT]);
}

static void free_memory(struct melu__source *source) {
  struct in_memory *m = (struct in_memory *)source;
  if (!m) return;
  melu__free(&source->ctx->allocator, m->users);
  melu__free(&source->ctx->allocator, m);
}

static const struct melu__source_kind in_memory = {order, begin, add, visit, identify, free_memory};

/* ------------------------------------------------------------------------------------------------- who is in it */

/* Puts a share of them behind the others. */
static void leave_out(struct in_memory *m, double share) {
  if (share == 0) return;
  const size_t n = m->n[MELU__TRAINED];
  struct melu__rng rng = melu__rng(m->seed, MELU__RNG_ORDER, UINT32_MAX, 1);
  melu__rng_shuffle(&rng, m->users, n);
  m->n[MELU__LEFT_OUT] = (size_t)ceil(share * (double)n);
  m->n[MELU__TRAINED] = n - m->n[MELU__LEFT_OUT];
}

/* Adds the eligible users who are listed, or those who are not, behind all others; returns how many. */
static size_t add_users(struct in_memory *m, const struct melu__eligible *e, const unsigned char *is_listed,
                        int listed) {
  const melu_dataset *data = m->source.users;
  uint32_t *to = m->users + m->n[MELU__TRAINED];
  size_t n_added = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const size_t n = melu_dataset_ratings(data, u, NULL, NULL);
    if (is_listed[u] != listed || n < e->min_ratings || n > e->max_ratings) continue;
    to[n_added++] = u;
    if (n > m->source.longest) m->source.longest = n;
  }
  return n_added;
}

static melu_status mark_listed(unsigned char *is_listed, const struct melu__eligible *e, size_t n_users,
                               melu_error *err) {
  for (size_t i = 0; i < e->n_listed; i++) {
    const uint32_t u = e->listed[i];
    if (u >= n_users)
      return melu__fail_at(err, MELU_ERANGE, i, "validation_users[%zu] is %lu, the data set has %zu users", i,
                           (unsigned long)u, n_users);
    is_listed[u] = 1;
  }
  return MELU_OK;
}

static melu_status find_users(struct in_memory *m, const struct melu__eligible *e, melu_error *err) {
  const struct melu_allocator *a = &m->source.ctx->allocator;
  const size_t n = melu_dataset_n_users(m->source.users);
  unsigned char *is_listed = melu__calloc(a, n, 1);
  m->users = melu__alloc(a, n, sizeof *m->users);
  const melu_status status = m->users && is_listed ? mark_listed(is_listed, e, n, err) : melu__fail_memory(err);
  if (!status) {
    m->n[MELU__TRAINED] = add_users(m, e, is_listed, 0);
    m->n[MELU__LEFT_OUT] = add_users(m, e, is_listed, 1);
    leave_out(m, e->share);
  }
  melu__free(a, is_listed);
  return status;
}

melu_status melu__source_of_data(struct melu__source **out, const melu_context *ctx, const melu_dataset *data,
                                 const struct melu__eligible *eligible, melu_error *err) {
  struct in_memory *m = melu__calloc(&ctx->allocator, 1, sizeof *m);
  *out = NULL;
  if (!m) return melu__fail_memory(err);
  m->seed = eligible->seed;
  m->source = (struct melu__source){.kind = &in_memory, .ctx = ctx, .items = data, .users = data, .n_slots = 1};
  for (int part = 0; part < MELU__N_PARTS; part++) m->source.n_users[part] = &m->n[part];
  const melu_status status = find_users(m, eligible, err);
  if (status) {
    free_memory(&m->source);
    return status;
  }
  for (size_t i = 0; i < m->n[MELU__TRAINED]; i++)
    m->source.n_ratings += (double)melu_dataset_ratings(data, m->users[i], NULL, NULL);
  *out = &m->source;
  return MELU_OK;
}
