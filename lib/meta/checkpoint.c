/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/metadata.h"
#include "io/param_tensors.h"
#include "meta/exchange_parts.h"
#include "tensor/kernels.h"

enum { ARRAYS = 5, LISTS = 4 };

/* ------------------------------------------------------------------------------------------------- what it is */

/* The digests of this rank's slots, then of all. */
static melu_status digest_slots(struct melu__fit *f, unsigned char (*all)[MELU_DIGEST_BYTES], size_t *counts,
                                melu_error *err) {
  melu_status status = MELU_OK;
  for (size_t s = f->share.own.lo; s < f->share.own.hi && !status; s++) {
    struct melu__digest d;
    melu__digest_begin(&d);
    status = f->source.digest(f->source.arg, &d, s - f->share.own.lo, err);
    melu__digest_end(all[s], &d);
  }
  status = melu__ranks_agree(&f->ranks, status, err);
  for (size_t r = 0; r < f->ctx->collective.n_ranks; r++) {
    const struct melu__slots slots = melu__slots_of_rank(f->ctx, r);
    counts[r] = (slots.hi - slots.lo) * sizeof *all;
  }
  return status ? status : melu__ranks_gather(&f->ranks, all, counts, err);
}

melu_status melu__fit_identify(struct melu__fit *f, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  unsigned char(*all)[MELU_DIGEST_BYTES] = melu__calloc(a, f->share.n_slots, sizeof *all), digest[MELU_DIGEST_BYTES];
  size_t *counts = melu__alloc(a, f->ctx->collective.n_ranks, sizeof *counts);
  melu_status status = melu__ranks_agree(&f->ranks, all && counts ? MELU_OK : melu__fail_memory(err), err);
  if (!status) status = digest_slots(f, all, counts, err);
  if (!status) {
    struct melu__digest d;
    melu__digest_begin(&d);
    for (size_t s = 0; s < f->share.n_slots; s++) melu__digest_words(&d, all[s], sizeof all[s] / 4);
    melu__digest_end(digest, &d);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(f->identity + 2 * i, 3, "%02x", (unsigned)digest[i]);
  }
  melu__free(a, all);
  melu__free(a, counts);
  return status;
}

/* ------------------------------------------------------------------------------------------------- a part */

/* A replicated table's rows of some slots, which lie apart. */
static melu_status each_row(void *arg, const struct melu__tensor *tensor, melu__take_numbers_fn take, void *take_arg,
                            melu_error *err) {
  const struct melu__checkpoint *c = arg;
  const struct melu__place *p = &c->places[tensor->index];
  const size_t row_bytes = p->cols * p->size;
  char block[1 << 15]; /* a row fits */
  size_t n = 0;
  melu_status status = MELU_OK;
  for (size_t k = 0; k < tensor->dims[0] && !status; k++) {
    memcpy(block + n, (const char *)p->data + melu__share_row(&c->share, k) * row_bytes, row_bytes);
    n += row_bytes;
    if (n + row_bytes <= sizeof block && k + 1 < tensor->dims[0]) continue;
    status = take(take_arg, block, n / p->size, err);
    n = 0;
  }
  return status;
}

/* Appends an array of that shape; nothing if there is none. */
static void add(struct melu__checkpoint *c, const char *prefix, struct melu__tensor shape, const void *data,
                const struct melu__param *table) {
  struct melu__tensor *t = &c->tensors[c->n];
  if (!data) return;
  snprintf(c->names[c->n], MELU__TENSOR_NAME, "%s%s", prefix, shape.name);
  *t = shape;
  t->name = c->names[c->n];
  t->data = data;
  c->places[c->n] =
      (struct melu__place){.data = (void *)(uintptr_t)data,
                           .cols = shape.n_dims == 2 ? shape.dims[1] : 1,
                           .size = shape.dtype == MELU__F32 ? sizeof(real) : melu__dtype_size(shape.dtype),
                           .is_table = table != NULL,
                           .is_sharded = table && table->is_sharded};
  if (table) t->dims[0] = melu__share_rows(&c->share, table->all_rows);
  if (table && !table->is_sharded && c->f->is_apart) t->each = each_row;
  t->each_arg = c;
  t->index = c->n++;
}

static void add_list(struct melu__checkpoint *c, const char *prefix, const char *name, enum melu__dtype dtype, size_t n,
                     const void *data, const struct melu__param *table) {
  add(c, prefix, (struct melu__tensor){.name = name, .dtype = dtype, .n_dims = 1, .dims = {n}}, data, table);
}

/* The arrays of a parameter, of which `best` has the values after the best epoch. */
static void add_param(struct melu__checkpoint *c, size_t i, const real *best) {
  const struct melu__fit *f = c->f;
  const struct melu__param *p = &f->model->params[i], *table = p->is_table ? p : NULL;
  const struct melu__tensor tensor = melu__param_tensor(p, f->model->options.rates);
  add(c, "", tensor, p->data, table);
  add(c, "first_moment.", tensor, f->optimizer->m[i], table);
  add(c, MELU__SECOND, tensor, f->optimizer->v[i], table);
  add(c, "best.", tensor, best, table);
  if (table) add_list(c, "last_update.", p->name, MELU__U32, p->rows, f->prior.last[i], table);
}

static void add_all(struct melu__checkpoint *c) {
  const melu_model *model = c->f->model;
  const real *best = c->f->best;
  for (size_t i = 0; i < model->n_params; i++) {
    if (i < model->n_tables || c->share.own.lo == 0) add_param(c, i, best);
    if (best) best += model->params[i].rows * model->params[i].cols;
  }
  if (c->share.own.lo != 0) return;
  add_list(c, "training.", "cursor", MELU__U64, MELU__N_CURSOR, c->cursor, NULL);
  add_list(c, "training.", "losses", MELU__F64, MELU__N_LOSSES, c->losses, NULL);
  add_list(c, "training.", "counts", MELU__U64, MELU__N_COUNTS, c->counts, NULL);
  add_list(c, "training.", "numbers", MELU__F64, MELU__N_NUMBERS, c->numbers, NULL);
}

void melu__checkpoint_release(struct melu__checkpoint *c) {
  const struct melu_allocator *a = &c->f->ctx->allocator;
  melu__free(a, c->tensors);
  melu__free(a, c->names);
  melu__free(a, c->places);
}

melu_status melu__checkpoint_describe(struct melu__checkpoint *c, const struct melu__fit *f, struct melu__slots slots,
                                      melu_error *err) {
  const size_t most = ARRAYS * f->model->n_params + LISTS;
  struct melu__count counts[MELU__N_COUNTS];
  struct melu__number_option numbers[MELU__N_NUMBERS];
  *c = (struct melu__checkpoint){.f = f, .share = {f->share.n_slots, slots}};
  c->tensors = melu__alloc(&f->ctx->allocator, most, sizeof *c->tensors);
  c->names = melu__alloc(&f->ctx->allocator, most, sizeof *c->names);
  c->places = melu__alloc(&f->ctx->allocator, most, sizeof *c->places);
  if (!c->tensors || !c->names || !c->places) {
    melu__checkpoint_release(c);
    return melu__fail_memory(err);
  }
  melu__fit_list_options(counts, numbers, f);
  for (size_t i = 0; i < MELU__N_COUNTS; i++) c->counts[i] = counts[i].value;
  for (size_t i = 0; i < MELU__N_NUMBERS; i++) c->numbers[i] = numbers[i].value;
  add_all(c);
  return MELU_OK;
}

static melu_status save_part(const struct melu__fit *f, const char *path, struct melu__saved *saved, melu_error *err) {
  struct melu__checkpoint c;
  char slots[48];
  melu_status status = melu__checkpoint_describe(&c, f, f->share.own, err);
  if (status) return status;
  c.cursor[0] = f->n_done;
  c.cursor[1] = f->best_epoch;
  c.losses[0] = f->loss_sum;
  c.losses[1] = f->validation;
  c.losses[2] = f->best_validation;
  snprintf(slots, sizeof slots, "%u %u %zu", (unsigned)f->share.own.lo, (unsigned)f->share.own.hi, f->share.n_slots);
  json_t *metadata = melu__metadata(f->model, MELU__CHECKPOINT_FORMAT);
  if (metadata && !json_object_set_new(metadata, "data", json_string(f->identity)) &&
      !json_object_set_new(metadata, "slots", json_string(slots)) &&
      !json_object_set_new(metadata, "kernels", json_string(f->ctx->kernels->name)))
    status = melu__safetensors_save(saved, f->ctx, path, metadata, c.tensors, c.n, err);
  else
    status = melu__fail_memory(err);
  json_decref(metadata);
  melu__checkpoint_release(&c);
  return status;
}

/* -------------------------------------------------------------------------------------------------- all parts */

melu_status melu__fit_prepare_parts(struct melu__fit *f, melu_error *err) {
  const struct melu_allocator *a = &f->ctx->allocator;
  const size_t n = f->ctx->collective.n_ranks;
  struct melu__fit_parts *p = &f->parts;
  if (!f->is_apart || !f->options.checkpoint) return MELU_OK;
  p->told = melu__calloc(a, n, sizeof *p->told);
  p->counts = melu__alloc(a, n, sizeof *p->counts);
  p->moments = melu__alloc(a, f->gradient->n_dense, sizeof *p->moments);
  p->last.parts = melu__calloc(a, n, sizeof *p->last.parts);
  p->next.parts = melu__calloc(a, n, sizeof *p->next.parts);
  p->last.n = p->next.n = n;
  if (p->told && p->counts && p->moments && p->last.parts && p->next.parts) return MELU_OK;
  return melu__fail_memory(err);
}

void melu__fit_free_parts(struct melu__fit *f) {
  const struct melu_allocator *a = &f->ctx->allocator;
  melu__free(a, f->parts.told);
  melu__free(a, f->parts.counts);
  melu__free(a, f->parts.moments);
  melu__manifest_free(&f->parts.next, a);
  melu__manifest_free(&f->parts.last, a);
  melu__manifest_free(&f->parts.found, a);
}

/* Moments of dense numbers are with their owners until they are written down. */
static melu_status gather_moments(struct melu__fit *f, real *const *moments, melu_error *err) {
  const melu_model *model = f->model;
  real *all = f->parts.moments;
  if (f->optimizer->options.kind == MELU_SGD) return MELU_OK;
  for (size_t r = 0; r < f->ctx->collective.n_ranks; r++)
    f->parts.counts[r] = melu__piece_of(&f->exchange, r).n * sizeof *all;
  for (size_t i = model->n_tables, at = 0; i < model->n_params;
       at += model->params[i].rows * model->params[i].cols, i++)
    memcpy(all + at, moments[i], model->params[i].rows * model->params[i].cols * sizeof *all);
  const melu_status status = melu__ranks_gather(&f->ranks, all, f->parts.counts, err);
  for (size_t i = model->n_tables, at = 0; i < model->n_params && !status; i++) {
    const size_t n = model->params[i].rows * model->params[i].cols;
    memcpy(moments[i], all + at, n * sizeof *all);
    at += n;
  }
  return status;
}

/* This rank's part; then all know how all went. */
static melu_status save_own(struct melu__fit *f, melu_error *err) {
  const size_t n = f->ctx->collective.n_ranks, rank = f->ctx->collective.rank;
  struct melu__fit_parts *p = &f->parts;
  struct melu__saved saved = {0, 0};
  uint64_t any_failed = 0;
  char *path = melu__part_path(f->options.checkpoint, &p->next.parts[rank], &f->ctx->allocator);
  melu_status status = path ? save_part(f, path, &saved, err) : melu__fail_memory(err);
  if (status) melu__mail_fail(&f->exchange.mail, status, err);
  p->told[rank] = (struct melu__told){status != MELU_OK, saved};
  for (size_t r = 0; r < n; r++) p->counts[r] = sizeof *p->told;
  status = melu__ranks_gather(&f->ranks, p->told, p->counts, err);
  for (size_t r = 0; r < n && !status; r++) {
    any_failed |= p->told[r].has_failed;
    p->next.parts[r].saved = p->told[r].saved;
  }
  if (any_failed) status = melu__mail_agree(&f->exchange.mail, err);
  if (path && status && !f->ranks.lost.status) melu__remove_file(path);
  melu__free(&f->ctx->allocator, path);
  return status;
}

static melu_status save_manifest(struct melu__fit *f, melu_error *err) {
  if (f->ctx->collective.rank == 0) {
    const melu_status status = melu__manifest_save(f->ctx, f->options.checkpoint, &f->parts.next, err);
    if (status) melu__mail_fail(&f->exchange.mail, status, err);
  }
  return melu__mail_agree(&f->exchange.mail, err);
}

/* They fit, since each rank has tried a name that is as long. */
static void name_parts(struct melu__fit *f) {
  for (size_t r = 0; r < f->parts.next.n; r++) {
    f->parts.next.parts[r].slots = melu__slots_of_rank(f->ctx, r);
    melu__part_name(&f->parts.next.parts[r], f->options.checkpoint, f->n_done, NULL);
  }
}

/* What was there before goes when the new manifest is in its place. Where that is not sure, all parts stay. */
static melu_status save_parts(struct melu__fit *f, melu_error *err) {
  struct melu__fit_parts *p = &f->parts;
  name_parts(f);
  melu_status status = gather_moments(f, f->optimizer->m, err);
  if (!status) status = gather_moments(f, f->optimizer->v, err);
  if (status) return status;
  status = save_own(f, err);
  if (!status) status = save_manifest(f, err);
  if (status) return status;
  if (f->ctx->collective.rank == 0) {
    melu__manifest_remove(&p->found, &p->next, f->options.checkpoint, &f->ctx->allocator);
    melu__manifest_remove(&p->last, &p->next, f->options.checkpoint, &f->ctx->allocator);
  }
  melu__manifest_free(&p->found, &f->ctx->allocator);
  const struct melu__manifest older = p->last;
  p->last = p->next;
  p->next = older;
  return MELU_OK;
}

melu_status melu__fit_save(struct melu__fit *f, melu_error *err) {
  static const struct melu__manifest none;
  if (f->is_apart) return save_parts(f, err);
  const melu_status status = save_part(f, f->options.checkpoint, NULL, err);
  if (status) return status;
  melu__manifest_remove(&f->parts.found, &none, f->options.checkpoint, &f->ctx->allocator);
  melu__manifest_free(&f->parts.found, &f->ctx->allocator);
  return MELU_OK;
}
