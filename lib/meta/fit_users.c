/* SPDX-License-Identifier: BSD-3-Clause */
/* Who is trained on, and who is left out, on all ranks. */
#include <math.h>

#include "base/error.h"
#include "meta/compare.h"

/* How many of each slot's users are left out: of the sum of users up to a slot and with it always the same share. */
static void share_out(const struct melu__fit *f, uint64_t *n) {
  const uint64_t all = (uint64_t)ceil(f->options.validation * (double)f->n_users);
  uint64_t n_before = 0, before = 0;
  for (size_t s = 0; s < f->share.n_slots; s++) {
    n_before += f->users_of_slot[s];
    const uint64_t end = n_before == f->n_users ? all : (uint64_t)((double)all * (double)n_before / (double)f->n_users);
    n[s] = end - before < f->users_of_slot[s] ? end - before : f->users_of_slot[s];
    before = end;
  }
}

/* What ranks tell each other of each slot. */
enum { N_USERS, N_LEFT_OUT, N_RATINGS, SUM, SQUARES, N_TOLD };

static double *told_of(double *told, size_t slot) {
  return told + slot * N_TOLD;
}

static double sum_over_slots(struct melu__fit *f, double *told, size_t what) {
  for (size_t s = 0; s < f->share.n_slots; s++) f->by_slot[s] = told_of(told, s)[what];
  return melu__tree_sum_numbers(f->by_slot, f->share.n_slots);
}

/* Counts the users and ratings of all slots, of which the source has this rank's. */
static melu_status count_all(struct melu__fit *f, double *told, size_t *counts, melu_error *err) {
  for (size_t s = f->share.own.lo; s < f->share.own.hi; s++) {
    const struct melu__source_slot *slot = &f->source.slots[s - f->share.own.lo];
    double *t = told_of(told, s);
    t[N_USERS] = (double)slot->n_users;
    t[N_LEFT_OUT] = (double)slot->n_left_out;
    t[N_RATINGS] = slot->n_ratings;
    t[SUM] = slot->sum;
    t[SQUARES] = slot->squares;
  }
  for (size_t r = 0; r < f->ctx->collective.n_ranks; r++) {
    const struct melu__slots slots = melu__slots_of_rank(f->ctx, r);
    counts[r] = (slots.hi - slots.lo) * N_TOLD * sizeof *told;
  }
  const melu_status status = melu__ranks_gather(&f->ranks, told, counts, err);
  if (status) return status;
  for (size_t s = 0; s < f->share.n_slots; s++) {
    f->users_of_slot[s] = (uint64_t)told_of(told, s)[N_USERS];
    f->left_out_of_slot[s] = (uint64_t)told_of(told, s)[N_LEFT_OUT];
  }
  f->n_users = (uint64_t)sum_over_slots(f, told, N_USERS);
  f->n_left_out = (uint64_t)sum_over_slots(f, told, N_LEFT_OUT);
  f->ratings.n = sum_over_slots(f, told, N_RATINGS);
  f->ratings.sum = sum_over_slots(f, told, SUM);
  f->ratings.squares = sum_over_slots(f, told, SQUARES);
  return MELU_OK;
}

static melu_status nobody(const struct melu__fit *f, melu_error *err) {
  return melu__fail(err, MELU_ENOTFOUND, "no user to train on has between %zu and %zu ratings", f->options.min_ratings,
                    f->options.max_ratings);
}

/* This rank's part, before anything is told. */
static melu_status make_source(struct melu__fit *f, const struct melu__users_of *of, melu_error *err) {
  uint64_t n = 0;
  const melu_status status = of->data ? melu__memory_source(&f->source, f->ctx, of->data, &f->options, err)
                                      : melu__shard_source(&f->source, f->ctx, of->shards, &f->options, err);
  if (status) return status;
  for (size_t s = 0; s < f->share.own.hi - f->share.own.lo; s++)
    n += f->source.slots[s].n_users + f->source.slots[s].n_left_out;
  return n ? MELU_OK : nobody(f, err);
}

static melu_status leave_out(struct melu__fit *f, melu_error *err) {
  share_out(f, f->left_out_of_slot);
  return f->source.leave_out(f->source.arg, f->left_out_of_slot + f->share.own.lo, err);
}

static melu_status find_users(struct melu__fit *f, double *told, size_t *counts, melu_error *err) {
  melu_status status = count_all(f, told, counts, err);
  if (!status) status = melu__ranks_agree(&f->ranks, leave_out(f, err), err);
  if (!status) status = count_all(f, told, counts, err);
  if (status) return status;
  if (f->n_users == 0) return nobody(f, err);
  if (f->options.patience && f->n_left_out == 0)
    return melu__fail(err, MELU_EINVAL, "patience is %zu, but no user is left out for validation", f->options.patience);
  return MELU_OK;
}

melu_status melu__fit_find_users(struct melu__fit *f, const struct melu__users_of *of, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  const size_t n = f->share.n_slots;
  double *told = melu__calloc(a, n * N_TOLD, sizeof *told);
  size_t *counts = melu__calloc(a, f->ctx->collective.n_ranks, sizeof *counts);
  f->users_of_slot = melu__calloc(a, n, sizeof *f->users_of_slot);
  f->left_out_of_slot = melu__calloc(a, n, sizeof *f->left_out_of_slot);
  f->by_slot = melu__calloc(a, n, sizeof *f->by_slot);
  melu_status status = of ? MELU_OK : err->status;
  if (!status && !(told && counts && f->users_of_slot && f->left_out_of_slot && f->by_slot))
    status = melu__fail_memory(err);
  if (!status) status = make_source(f, of, err);
  status = melu__ranks_agree(&f->ranks, status, err);
  if (!status) status = melu__compare_trainings(f, err);
  if (!status) status = find_users(f, told, counts, err);
  melu__free(a, told);
  melu__free(a, counts);
  return status;
}
