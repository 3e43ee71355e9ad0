/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks of a data set in memory. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "meta/episode.h"
#include "meta/source.h"

struct memory_source {
  const melu_context *ctx;
  const melu_dataset *data;
  uint64_t seed;
  struct melu__slots own;
  uint32_t *users; /* slot by slot: those that are trained on, then those left out */
  size_t *start;   /* (own.hi - own.lo + 1): where each slot's begin */
  struct melu__source_slot *slots;
  struct melu__episodes episodes;
  uint64_t *item_hashes; /* by position; NULL before the first digest */
};

static size_t n_own(const struct memory_source *m) {
  return m->own.hi - m->own.lo;
}

/* --------------------------------------------------------------------------------------------------- making */

static void free_source(void *arg) {
  struct memory_source *m = arg;
  const struct melu_allocator *a = &m->ctx->allocator;
  void *const all[] = {m->users, m->start, m->slots, m->episodes.positions, m->item_hashes, m};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

static melu_status mark_listed(const struct memory_source *m, const struct melu_fit_options *o, unsigned char *listed,
                               melu_error *err) {
  const size_t n = melu_dataset_n_users(m->data);
  for (size_t i = 0; i < o->n_validation_users; i++) {
    const uint32_t u = o->validation_users[i];
    if (u >= n)
      return melu__fail_at(err, MELU_ERANGE, i, "validation_users[%zu] is %lu, the data set has %zu users", i,
                           (unsigned long)u, n);
    listed[u] = 1;
  }
  return MELU_OK;
}

/* A user who may be trained on. */
struct candidate {
  size_t slot;
  int is_listed;
  uint64_t order; /* in the list */
  uint32_t user;
};

static int by_place(const void *a, const void *b) {
  const struct candidate *x = a, *y = b;
  if (x->slot != y->slot) return x->slot < y->slot ? -1 : 1;
  if (x->is_listed != y->is_listed) return x->is_listed - y->is_listed;
  return (x->order > y->order) - (x->order < y->order);
}

/* The order must not depend on which data set a user is in; but that of one slot alone is the data set's. */
static melu_status list_candidates(struct memory_source *m, const struct melu_fit_options *o,
                                   const unsigned char *listed, struct candidate *all, size_t *n, melu_error *err) {
  const melu_context *ctx = m->ctx;
  *n = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(m->data); u++) {
    const uint64_t id = melu_dataset_user_id(m->data, u);
    const size_t n_ratings = melu_dataset_ratings(m->data, u, NULL, NULL), slot = melu_slot(id, ctx->n_slots);
    if (slot < m->own.lo || slot >= m->own.hi)
      return melu__fail_at(err, MELU_EINVAL, u, "user %llu belongs to slot %zu, which rank %zu has",
                           (unsigned long long)id, slot, melu__rank_of_slot(ctx, slot));
    if (n_ratings < o->min_ratings || n_ratings > o->max_ratings) continue;
    all[(*n)++] = (struct candidate){slot - m->own.lo, listed[u], ctx->n_slots > 1 ? id : u, u};
  }
  qsort(all, *n, sizeof *all, by_place);
  return MELU_OK;
}

static melu_status take_candidates(struct memory_source *m, const struct candidate *all, size_t n, melu_error *err) {
  const struct melu_allocator *a = &m->ctx->allocator;
  size_t longest = 0;
  m->users = melu__alloc(a, n, sizeof *m->users);
  m->start = melu__calloc(a, n_own(m) + 1, sizeof *m->start);
  m->slots = melu__calloc(a, n_own(m), sizeof *m->slots);
  if (!m->users || !m->start || !m->slots) return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) {
    struct melu__source_slot *slot = &m->slots[all[i].slot];
    const size_t n_ratings = melu_dataset_ratings(m->data, all[i].user, NULL, NULL);
    m->users[i] = all[i].user;
    m->start[all[i].slot + 1]++;
    (*(all[i].is_listed ? &slot->n_left_out : &slot->n_users))++;
    if (n_ratings > longest) longest = n_ratings;
  }
  for (size_t s = 0; s < n_own(m); s++) m->start[s + 1] += m->start[s];
  m->episodes.positions = melu__alloc(a, longest, sizeof *m->episodes.positions);
  return m->episodes.positions ? MELU_OK : melu__fail_memory(err);
}

static melu_status find_users(struct memory_source *m, const struct melu_fit_options *o, melu_error *err) {
  const struct melu_allocator *a = &m->ctx->allocator;
  const size_t n_users = melu_dataset_n_users(m->data);
  unsigned char *listed = melu__calloc(a, n_users, 1);
  struct candidate *all = melu__alloc(a, n_users, sizeof *all);
  size_t n = 0;
  melu_status status = listed && all ? mark_listed(m, o, listed, err) : melu__fail_memory(err);
  if (!status) status = list_candidates(m, o, listed, all, &n, err);
  if (!status) status = take_candidates(m, all, n, err);
  melu__free(a, listed);
  melu__free(a, all);
  return status;
}

/* -------------------------------------------------------------------------------------------------- lists */

/* Numbers of their own for each slot; those of the first one are as if there were no others. */
static void shuffle(struct memory_source *m, size_t s, uint32_t epoch, uint32_t purpose) {
  struct melu__rng rng = melu__rng(m->seed, MELU__RNG_ORDER, epoch, 2 * (m->own.lo + (uint32_t)s) + purpose);
  melu__rng_shuffle(&rng, m->users + m->start[s], m->slots[s].n_users);
}

static void add_up_ratings(struct memory_source *m, size_t s) {
  struct melu__source_slot *slot = &m->slots[s];
  for (size_t i = 0; i < slot->n_users; i++) {
    const float *ratings;
    const size_t n = melu_dataset_ratings(m->data, m->users[m->start[s] + i], NULL, &ratings);
    melu__source_slot_add(slot, ratings, n);
  }
}

static melu_status leave_out(void *arg, const uint64_t *n, melu_error *err) {
  struct memory_source *m = arg;
  (void)err;
  for (size_t s = 0; s < n_own(m); s++) {
    if (n[s]) shuffle(m, s, UINT32_MAX, 1);
    m->slots[s].n_users -= n[s];
    m->slots[s].n_left_out += n[s];
    add_up_ratings(m, s);
  }
  return MELU_OK;
}

/* The order of an epoch is that of the epoch before, shuffled. */
static void begin_epoch(void *arg, uint32_t epoch) {
  struct memory_source *m = arg;
  for (size_t s = 0; s < n_own(m); s++) shuffle(m, s, epoch, 0);
}

/* ------------------------------------------------------------------------------------------------- batches */

static melu_status new_batch(void *arg, melu_batch **out, melu_error *err) {
  const struct memory_source *m = arg;
  return melu_batch_new(out, m->ctx, m->data, err);
}

static void free_batch(void *arg, melu_batch *batch) {
  (void)arg;
  melu_batch_free(batch);
}

/* Draws are named by what does not depend on the data set that a user is in, where there may be several. */
static uint64_t draw_key(const struct memory_source *m, uint32_t user) {
  return m->ctx->n_slots > 1 ? melu_dataset_user_id(m->data, user) : user;
}

static melu_status fill(void *arg, melu_batch *batch, enum melu__list list, uint32_t draw, const uint64_t *first,
                        const uint64_t *end, size_t *n_tasks, melu_error *err) {
  const struct memory_source *m = arg;
  melu_status status = MELU_OK;
  melu_batch_clear(batch);
  for (size_t s = 0; s < n_own(m) && !status; s++) {
    const uint32_t *users = m->users + m->start[s] + (list == MELU__LEFT_OUT ? m->slots[s].n_users : 0);
    for (uint64_t i = first[s]; i < end[s] && !status; i++)
      status = melu__episode_add(&m->episodes, batch, users[i], draw_key(m, users[i]), draw, err);
    n_tasks[s] = batch->n_tasks;
  }
  return status;
}

/* ------------------------------------------------------------------------------------------- for the start */

static melu_status visit_items(const struct memory_source *m, melu__visit_fn visit, void *visit_arg, melu_error *err) {
  unsigned char *is_rated = melu__calloc(&m->ctx->allocator, melu_dataset_n_items(m->data), 1);
  if (!is_rated) return melu__fail_memory(err);
  for (size_t s = 0; s < n_own(m); s++)
    for (size_t i = 0; i < m->slots[s].n_users; i++) {
      const uint32_t *items;
      const size_t n = melu_dataset_ratings(m->data, m->users[m->start[s] + i], &items, NULL);
      for (size_t k = 0; k < n; k++) is_rated[items[k]] = 1;
    }
  for (uint32_t i = 0; i < melu_dataset_n_items(m->data); i++)
    if (is_rated[i]) visit(visit_arg, m->data, i);
  melu__free(&m->ctx->allocator, is_rated);
  return MELU_OK;
}

static melu_status visit_all(void *arg, melu_owner owner, melu__visit_fn visit, void *visit_arg, melu_error *err) {
  const struct memory_source *m = arg;
  if (owner == MELU_ITEM) return visit_items(m, visit, visit_arg, err);
  for (size_t s = 0; s < n_own(m); s++)
    for (size_t i = 0; i < m->slots[s].n_users; i++) visit(visit_arg, m->data, m->users[m->start[s] + i]);
  return MELU_OK;
}

/* A digest of each item's values. */
static int hash_items(struct memory_source *m) {
  const size_t n = melu_dataset_n_items(m->data);
  m->item_hashes = melu__alloc(&m->ctx->allocator, n, sizeof *m->item_hashes);
  if (!m->item_hashes) return 0;
  for (uint32_t i = 0; i < n; i++) m->item_hashes[i] = melu__entity_hash(m->data, MELU_ITEM, i);
  return 1;
}

static melu_status digest(void *arg, struct melu__digest *d, size_t slot, melu_error *err) {
  struct memory_source *m = arg;
  const struct melu__source_slot *counts = &m->slots[slot];
  if (!m->item_hashes && !hash_items(m)) return melu__fail_memory(err);
  melu__digest_bits(d, counts->n_users);
  melu__digest_bits(d, counts->n_left_out);
  for (size_t i = m->start[slot]; i < m->start[slot + 1]; i++) {
    const uint32_t *items, user = m->users[i];
    const float *ratings;
    const size_t n = melu_dataset_ratings(m->data, user, &items, &ratings);
    melu__digest_bits(d, melu__entity_hash(m->data, MELU_USER, user));
    melu__digest_bits(d, n);
    for (size_t k = 0; k < n; k++) melu__digest_bits(d, m->item_hashes[items[k]]);
    melu__digest_words(d, ratings, n);
  }
  return MELU_OK;
}

melu_status melu__memory_source(struct melu__source *out, const melu_context *ctx, const melu_dataset *data,
                                const struct melu_fit_options *o, melu_error *err) {
  *out = (struct melu__source){.arg = NULL};
  struct memory_source *m = melu__calloc(&ctx->allocator, 1, sizeof *m);
  if (!m) return melu__fail_memory(err);
  m->ctx = ctx;
  m->data = data;
  m->seed = o->seed;
  m->own = melu__own_slots(ctx);
  m->episodes = (struct melu__episodes){
      .seed = o->seed, .n_query = o->n_query, .max_support = o->max_support, .random_support = o->random_support};
  const melu_status status = find_users(m, o, err);
  if (status) {
    free_source(m);
    return status;
  }
  *out = (struct melu__source){.arg = m,
                               .own = m->own,
                               .slots = m->slots,
                               .leave_out = leave_out,
                               .new_batch = new_batch,
                               .free_batch = free_batch,
                               .begin_epoch = begin_epoch,
                               .fill = fill,
                               .visit = visit_all,
                               .digest = digest,
                               .free = free_source};
  return MELU_OK;
}
