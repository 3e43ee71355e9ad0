/* SPDX-License-Identifier: BSD-3-Clause */
/* A catalogue's items: each has a number, by which the host knows it, and a row, where it is. */
#include "serve/catalog.h"

#include <string.h>

#include "base/error.h"
#include "model/embed.h"
#include "serve/factor_user.h"

#define MAX_ITEMS 0x80000000u
#define SEEN 0x80000000u /* with the row of a number that was met in this call: rows are smaller */

/* What one call puts into the catalogue. */
struct arrivals {
  const melu_dataset *data;
  const uint32_t *items;   /* NULL: 0, 1, ... */
  const uint32_t *numbers; /* NULL: the items */
  size_t n;
};

static uint32_t item_of(const struct arrivals *a, size_t i) {
  return a->items ? a->items[i] : (uint32_t)i;
}

static uint32_t number_of(const struct arrivals *a, size_t i) {
  return a->numbers ? a->numbers[i] : item_of(a, i);
}

/* -------------------------------------------------------------------------------------------------- marks */

/* Makes every number one that the catalogue knows of. */
static melu_status reserve_numbers(melu_catalog *c, const struct arrivals *a, melu_error *err) {
  size_t need = c->n_numbers;
  for (size_t i = 0; i < a->n; i++) {
    const uint32_t number = number_of(a, i);
    if (number >= MAX_ITEMS)
      return melu__fail_at(err, MELU_ERANGE, i, "number %lu is not below 2^31", (unsigned long)number);
    if (number >= need) need = (size_t)number + 1;
  }
  if (!melu__grow(&c->model->ctx->allocator, &c->rows, &c->numbers_capacity, c->n_numbers, need, sizeof *c->rows))
    return melu__fail_memory(err);
  for (; c->n_numbers < need; c->n_numbers++) c->rows[c->n_numbers] = MELU__NO_ROW;
  return MELU_OK;
}

static void unmark_one(melu_catalog *c, uint32_t number) {
  const uint32_t row = c->rows[number] & ~SEEN;
  c->rows[number] = row < c->n ? row : MELU__NO_ROW;
}

static void unmark(melu_catalog *c, const struct arrivals *a) {
  for (size_t i = 0; i < a->n; i++) unmark_one(c, number_of(a, i));
}

static melu_status fail_twice(uint32_t number, size_t i, melu_error *err) {
  return melu__fail_at(err, MELU_ERANGE, i, "number %lu is given twice", (unsigned long)number);
}

/* Gives rows to new numbers, from the last one on; *n_new of them. Marks all that arrive. */
static melu_status mark(size_t *n_new, melu_catalog *c, const struct arrivals *a, melu_error *err) {
  *n_new = 0;
  for (size_t i = 0; i < a->n; i++) {
    uint32_t *row = &c->rows[number_of(a, i)];
    if (*row == MELU__NO_ROW && c->n + *n_new < MAX_ITEMS - 1) {
      *row = SEEN | (uint32_t)(c->n + (*n_new)++);
    } else if (*row < SEEN) {
      *row |= SEEN;
    } else {
      const int is_full = *row == MELU__NO_ROW;
      unmark(c, &(struct arrivals){a->data, a->items, a->numbers, i});
      return is_full ? melu__fail(err, MELU_ELIMIT, "there would be 2^31 items or more")
                     : fail_twice(number_of(a, i), i, err);
    }
  }
  return MELU_OK;
}

/* --------------------------------------------------------------------------------------------------- rows */

/* Room for n rows, at least twice what there was. Returns 0, and all is as it was, if there is no memory. */
static int reserve_rows(melu_catalog *c, size_t n) {
  const struct melu_allocator *a = &c->model->ctx->allocator;
  const size_t wx = melu__rank_x(c->model), wz = melu__rank_z(c->model);
  if (n <= c->capacity) return 1;
  if (n < 2 * c->capacity) n = 2 * c->capacity;
  const size_t capacity = (n + MELU__RANK_ROWS - 1) / MELU__RANK_ROWS * MELU__RANK_ROWS;
  uint32_t *items = melu__alloc(a, capacity, sizeof *items);
  real *x = melu__alloc(a, melu__size_mul(capacity, wx), sizeof *x);
  real *z = melu__alloc(a, melu__size_mul(capacity, wz), sizeof *z);
  const int ok = items && x && z;
  if (ok && c->n) {
    memcpy(items, c->items, c->n * sizeof *items);
    memcpy(x, c->x, c->n * wx * sizeof *x);
    memcpy(z, c->z, c->n * wz * sizeof *z);
  }
  melu__free(a, ok ? c->items : items);
  melu__free(a, ok ? c->x : x);
  melu__free(a, ok ? c->z : z);
  if (!ok) return 0;
  c->items = items;
  c->x = x;
  c->z = z;
  c->capacity = capacity;
  return 1;
}

static void clear_rows(melu_catalog *c, size_t first, size_t end) {
  const size_t wx = melu__rank_x(c->model), wz = melu__rank_z(c->model);
  if (first == end) return; /* there may be no rows at all */
  memset(c->x + first * wx, 0, (end - first) * wx * sizeof *c->x);
  memset(c->z + first * wz, 0, (end - first) * wz * sizeof *c->z);
}

static void copy_row(melu_catalog *c, size_t to, const real *x, const real *z) {
  const size_t wx = melu__rank_x(c->model), wz = melu__rank_z(c->model);
  memcpy(c->x + to * wx, x, wx * sizeof *x);
  memcpy(c->z + to * wz, z, wz * sizeof *z);
}

/* ----------------------------------------------------------------------------------------------- encoding */

/* Arrivals are encoded by blocks, each in its thread's memory: x and z, and for MELU_FACTORS what that takes. */
struct filling {
  melu_catalog *catalog;
  const struct arrivals *arrivals;
  const struct melu__plan *plan; /* MELU_FACTORS */
  real *scratch;
  size_t z, encoding, arena, size; /* where in a thread's part what begins, and how large the part is */
};

static size_t lines(size_t n_numbers) {
  return melu__size_align(n_numbers, MELU__ALIGN / sizeof(real));
}

static void encode(const struct filling *f, const uint32_t *items, size_t n, real *memory) {
  const melu_model *model = f->catalog->model;
  const melu_dataset *data = f->arrivals->data;
  if (melu__is_factors(model)) {
    melu__factor_rows(model, data, items, n, MELU__RANK_ROWS, f->plan, memory + f->encoding, memory + f->arena, memory,
                      NULL);
    return;
  }
  const size_t width = model->item_width, h = melu__rank_z(model);
  const struct melu__cmat w = {melu__model_weight(model, 0)->data, width + model->user_width};
  melu__embed_many(model, data, MELU_ITEM, items, n, memory);
  model->ctx->kernels->gemm(0, 1, n, h, width, 1, (struct melu__cmat){memory, width}, w, 0,
                            (struct melu__mat){memory + f->z, h});
}

static void fill_block(void *arg, size_t block, size_t thread) {
  const struct filling *f = arg;
  melu_catalog *c = f->catalog;
  uint32_t items[MELU__RANK_ROWS];
  const size_t first = block * MELU__RANK_ROWS, left = f->arrivals->n - first;
  const size_t n = left < MELU__RANK_ROWS ? left : MELU__RANK_ROWS;
  real *memory = f->scratch + thread * f->size;
  for (size_t i = 0; i < n; i++) items[i] = item_of(f->arrivals, first + i);
  encode(f, items, n, memory);
  for (size_t i = 0; i < n; i++)
    copy_row(c, c->rows[number_of(f->arrivals, first + i)], memory + i * melu__rank_x(c->model),
             memory + f->z + i * melu__rank_z(c->model));
}

static melu_status prepare(struct filling *f, melu_error *err) {
  const melu_model *model = f->catalog->model;
  f->z = lines(MELU__RANK_ROWS * melu__rank_x(model));
  f->encoding = f->arena = f->size = f->z + lines(MELU__RANK_ROWS * melu__rank_z(model));
  if (melu__is_factors(model)) {
    const melu_status status = melu__task_plan(&f->plan, model, MELU__PLAN_ITEMS, 0, MELU__RANK_ROWS, err);
    if (status) return status;
    f->arena += lines(MELU__RANK_ROWS * (model->item_width + melu__encoded_cols(model)));
    f->size = f->arena + lines(melu__plan_arena_size(f->plan));
  }
  const size_t n_threads = model->ctx->runner.n_threads;
  /* Zeros, since the gap at the end of a task's row is ranked too. */
  f->scratch = melu__calloc(&model->ctx->allocator, melu__size_mul(n_threads, f->size), sizeof *f->scratch);
  return f->scratch ? MELU_OK : melu__fail_memory(err);
}

/* Puts arrivals, which were checked but for their numbers, into the catalogue. */
static melu_status add(melu_catalog *c, const struct arrivals *a, melu_error *err) {
  const struct melu_runner *runner = &c->model->ctx->runner;
  struct filling f = {.catalog = c, .arrivals = a};
  size_t n_new;
  melu_status status = reserve_numbers(c, a, err);
  if (!status) status = prepare(&f, err);
  if (!status) status = mark(&n_new, c, a, err);
  if (!status && !reserve_rows(c, c->n + n_new)) {
    unmark(c, a);
    status = melu__fail_memory(err);
  }
  if (!status) {
    c->n += n_new;
    for (size_t i = 0; i < a->n; i++) {
      unmark_one(c, number_of(a, i));
      c->items[c->rows[number_of(a, i)]] = number_of(a, i);
    }
    runner->run(runner->arg, fill_block, &f, (a->n + MELU__RANK_ROWS - 1) / MELU__RANK_ROWS);
    clear_rows(c, c->n, (c->n + MELU__RANK_ROWS - 1) / MELU__RANK_ROWS * MELU__RANK_ROWS);
  }
  melu__free(&c->model->ctx->allocator, f.scratch);
  return status;
}

/* ------------------------------------------------------------------------------------------------- public */

melu_status melu_catalog_new(melu_catalog **out, const melu_model *model, const melu_dataset *data,
                             const uint32_t *items, size_t n, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!model || !data) return melu__fail(err, MELU_EINVAL, "%s is NULL", model ? "data" : "model");
  melu_status status = melu__check_whole(model, err);
  if (!status) status = melu__check_items(model, data, items, items ? n : 0, err);
  if (status) return status;
  if (!items) n = melu_dataset_n_items(data);
  if (n >= MAX_ITEMS) return melu__fail(err, MELU_ELIMIT, "%zu items, not below 2^31", n);
  melu_catalog *c = melu__calloc(&model->ctx->allocator, 1, sizeof *c);
  if (!c) return melu__fail_memory(err);
  c->model = model;
  c->version = model->version;
  status = add(c, &(struct arrivals){data, items, NULL, n}, err);
  if (status) {
    melu_catalog_free(c);
    return status;
  }
  *out = c;
  return MELU_OK;
}

void melu_catalog_free(melu_catalog *c) {
  if (!c) return;
  const struct melu_allocator *a = &c->model->ctx->allocator;
  melu__free(a, c->items);
  melu__free(a, c->x);
  melu__free(a, c->z);
  melu__free(a, c->rows);
  melu__free(a, c);
}

size_t melu_catalog_n_items(const melu_catalog *c) {
  return c ? c->n : 0;
}

const uint32_t *melu_catalog_items(const melu_catalog *c) {
  return c ? c->items : NULL;
}

melu_status melu_catalog_put(melu_catalog *c, const melu_dataset *data, const uint32_t *items, const uint32_t *numbers,
                             size_t n, melu_error *err) {
  if (!c || !data || (n && !items))
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !c ? "catalog" : !data ? "data" : "items");
  if (c->version != c->model->version)
    return melu__fail(err, MELU_ESTATE, "the model was changed since the catalogue was made");
  const melu_status status = melu__check_items(c->model, data, items, n, err);
  return status ? status : add(c, &(struct arrivals){data, items, numbers, n}, err);
}

/* The last item takes its place. */
static void remove_row(melu_catalog *c, size_t row) {
  const size_t last = --c->n;
  c->rows[c->items[row]] = MELU__NO_ROW;
  if (row != last) {
    c->items[row] = c->items[last];
    c->rows[c->items[row]] = (uint32_t)row;
    copy_row(c, row, c->x + last * melu__rank_x(c->model), c->z + last * melu__rank_z(c->model));
  }
  clear_rows(c, last, last + 1);
}

melu_status melu_catalog_remove(melu_catalog *c, const uint32_t *numbers, size_t n, melu_error *err) {
  if (!c || (n && !numbers)) return melu__fail(err, MELU_EINVAL, "%s is NULL", c ? "numbers" : "catalog");
  for (size_t i = 0; i < n; i++) {
    const uint32_t row = melu__catalog_row(c, numbers[i]);
    if (row < SEEN) {
      c->rows[numbers[i]] = SEEN | row;
      continue;
    }
    for (size_t k = 0; k < i; k++) c->rows[numbers[k]] &= ~SEEN;
    if (row != MELU__NO_ROW) return fail_twice(numbers[i], i, err);
    return melu__fail_at(err, MELU_ENOTFOUND, i, "number %lu is not in the catalogue", (unsigned long)numbers[i]);
  }
  for (size_t i = 0; i < n; i++) remove_row(c, c->rows[numbers[i]] & ~SEEN);
  return MELU_OK;
}
