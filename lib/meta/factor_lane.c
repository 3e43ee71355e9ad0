/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/factor_lane.h"

#include <string.h>

#include "base/error.h"
#include "meta/factors.h"
#include "model/embed.h"
#include "model/gradient.h"

enum { BLOCK = 128, STEP = 8 }; /* rows of one encoder plan; the last one has a multiple of STEP */

/* ---------------------------------------------------------------------------------------------- preparing */

/* Rows of all tasks, in the order of the batch. */
static melu_status place_tasks(struct melu__factor_lanes *f, size_t *most_rows, melu_error *err) {
  struct melu__lanes *l = f->l;
  melu_status status = MELU_OK;
  l->n_rows = 0;
  for (size_t i = 0; i < l->batch->n_tasks && !status; i++) {
    const struct melu__task *t = &l->batch->tasks[i];
    const size_t n_rows = melu__padded(t->n_support) + melu__padded(t->n_query);
    status = melu__task_plan_in(&l->tasks[i].plan, &f->plans, f->l->model, l->kind, melu__padded(t->n_support),
                                melu__padded(t->n_query), err);
    l->tasks[i].row = l->n_rows;
    l->n_rows += n_rows;
    if (n_rows > *most_rows) *most_rows = n_rows;
  }
  f->weight = (real)l->whole.n_tasks / (real)l->whole.n_query;
  return status;
}

static uint32_t item_of(const melu_batch *batch, const struct melu__task *t, size_t k) {
  uint32_t item;
  melu__task_items(batch, t, k, 1, &item);
  return item;
}

static size_t row_of(const struct melu__lane_task *t, const struct melu__task *task, size_t k) {
  return t->row + (k < task->n_support ? k : melu__padded(task->n_support) + k - task->n_support);
}

static int make_room(struct melu__factor_lanes *f) {
  const melu_batch *batch = f->l->batch;
  const struct melu_allocator *a = &f->l->model->ctx->allocator;
  const size_t n_items = melu_dataset_n_items(batch->data), n = batch->n_positions;
  if (n_items > f->number_capacity) {
    if (!melu__grow(a, &f->number, &f->number_capacity, 0, n_items, sizeof *f->number)) return 0;
    memset(f->number, 0, f->number_capacity * sizeof *f->number);
  }
  return melu__grow(a, &f->items, &f->items_capacity, 0, n, sizeof *f->items) &&
         melu__grow(a, &f->item_row, &f->row_capacity, 0, n, sizeof *f->item_row) &&
         melu__grow(a, &f->start, &f->start_capacity, 0, n + 2, sizeof *f->start) &&
         melu__grow(a, &f->occurrences, &f->occurrences_capacity, 0, n, sizeof *f->occurrences);
}

/* Numbers the part's items, gives them rows, and counts the occurrences of each in start[number + 2]. */
static void number_items(struct melu__factor_lanes *f, struct melu__part *part) {
  const melu_batch *batch = f->l->batch;
  part->first_item = f->n;
  part->item_row = f->n_item_rows;
  for (size_t t = part->first_task; t < part->end_task; t++) {
    const struct melu__task *task = &batch->tasks[t];
    for (size_t k = 0; k < task->n_support + task->n_query; k++) {
      const uint32_t item = item_of(batch, task, k);
      if (!f->number[item]) {
        f->items[f->n++] = item;
        f->number[item] = (uint32_t)(f->n - part->first_item);
      }
      f->start[part->first_item + f->number[item] + 1]++;
      f->item_row[task->start + k] = (uint32_t)(part->item_row + f->number[item] - 1);
    }
  }
  part->end_item = f->n;
  f->n_item_rows += melu__size_align(part->end_item - part->first_item, STEP);
  for (size_t i = part->first_item; i < part->end_item; i++) f->number[f->items[i]] = 0;
}

static void place_users(struct melu__factor_lanes *f, struct melu__part *part) {
  part->user_row = f->n_user_rows;
  for (size_t t = part->first_task; t < part->end_task; t++)
    f->l->tasks[t].user = part->user_row + t - part->first_task;
  f->n_user_rows += melu__size_align(part->end_task - part->first_task, STEP);
}

/* Sorts the rows by item. */
static void list_occurrences(struct melu__factor_lanes *f) {
  const struct melu__lanes *l = f->l;
  for (size_t i = 1; i <= f->n + 1; i++) f->start[i] += f->start[i - 1];
  for (const struct melu__part *part = l->parts; part < l->parts + l->n_parts; part++)
    for (size_t t = part->first_task; t < part->end_task; t++) {
      const struct melu__task *task = &l->batch->tasks[t];
      for (size_t k = 0; k < task->n_support + task->n_query; k++) {
        const size_t number = part->first_item + f->item_row[task->start + k] - part->item_row;
        f->occurrences[f->start[number + 1]++] = (struct melu__occurrence){
            (uint32_t)row_of(&l->tasks[t], task, k), k < task->n_support ? (uint32_t)l->tasks[t].user + 1 : 0};
      }
    }
}

/* Blocks of so many rows from `first` on, and of what pads them. */
static melu_status add_blocks(struct melu__factor_lanes *f, int is_items, size_t first, size_t n, melu_error *err) {
  const melu_model *model = f->l->model;
  struct melu__blocks b;
  const melu_status status = melu__find_blocks(&b, &f->plans, model, is_items ? MELU__PLAN_ITEMS : MELU__PLAN_USERS,
                                               is_items ? MELU__PLAN_ITEMS_GRAD : MELU__PLAN_USERS_GRAD,
                                               melu__size_align(n, STEP), BLOCK, err);
  if (status) return status;
  for (size_t at = 0; at < b.n; at += BLOCK, f->n_blocks++) {
    const int is_full = b.n - at >= BLOCK;
    if (!melu__grow(&model->ctx->allocator, &f->blocks, &f->blocks_capacity, f->n_blocks, f->n_blocks + 1,
                    sizeof *f->blocks))
      return melu__fail_memory(err);
    f->blocks[f->n_blocks] = (struct melu__factor_block){.first = first + at,
                                                         .n = n - at < BLOCK ? n - at : BLOCK,
                                                         .end = first + (is_full ? at + BLOCK : b.n),
                                                         .is_items = is_items,
                                                         .plan = is_full ? b.full : b.rest,
                                                         .grad = is_full ? b.full_grad : b.rest_grad};
  }
  return MELU_OK;
}

static melu_status place_parts(struct melu__factor_lanes *f, melu_error *err) {
  struct melu__lanes *l = f->l;
  melu_status status = MELU_OK;
  f->n = f->n_item_rows = f->n_user_rows = f->n_blocks = 0;
  memset(f->start, 0, (l->batch->n_positions + 2) * sizeof *f->start);
  for (struct melu__part *part = l->parts; part < l->parts + l->n_parts && !status; part++) {
    number_items(f, part);
    place_users(f, part);
    part->first_block = f->n_blocks;
    status = add_blocks(f, 1, part->item_row, part->end_item - part->first_item, err);
    if (!status) status = add_blocks(f, 0, part->user_row, part->end_task - part->first_task, err);
    part->end_block = f->n_blocks;
  }
  return status;
}

static int allocate(struct melu__factor_lanes *f) {
  struct melu__lanes *l = f->l;
  const melu_model *model = l->model;
  const size_t item_cols = melu__encoded_cols(model), width = melu__user_cols(&model->options);
  const size_t n = f->n_item_rows, n_users = f->n_user_rows;
  const struct melu__array arrays[] = {{&f->x, n, model->item_width},
                                       {&f->z, n, item_cols},
                                       {&f->grad_x, n, model->item_width},
                                       {&f->grad_z, n, item_cols},
                                       {&l->grad_x, l->n_rows, melu__task_row(model)},
                                       {&l->xu, n_users, model->user_width},
                                       {&l->row, n_users, width},
                                       {&l->grad_xu, n_users, model->user_width},
                                       {&l->grad_row, n_users, width},
                                       {&f->pooled, n_users, width}};
  return melu__place_arrays(&model->ctx->allocator, &f->memory, &f->memory_capacity, arrays,
                            sizeof arrays / sizeof *arrays);
}

melu_status melu__factor_prepare(struct melu__factor_lanes *f, melu_error *err) {
  struct melu__lanes *l = f->l;
  size_t most_rows = 0;
  f->plans = 0;
  melu_status status = place_tasks(f, &most_rows, err);
  if (!status && !make_room(f)) status = melu__fail_memory(err);
  if (!status) status = place_parts(f, err);
  if (status) return status;
  list_occurrences(f);
  if (!allocate(f)) return melu__fail_memory(err);
  /* Rows, ratings, weights and scores of a task, and its pooled rows. */
  f->plans = melu__size_align(f->plans, MELU__ALIGN / sizeof(real));
  l->arena = melu__size_add(f->plans, melu__size_mul(most_rows, melu__task_row(l->model) + 3));
  l->arena =
      melu__size_align(melu__size_add(l->arena, melu__user_cols(&l->model->options)), MELU__ALIGN / sizeof(real));
  return MELU_OK;
}

void melu__factor_free(struct melu__factor_lanes *f, const struct melu_allocator *a) {
  void *const all[] = {f->number, f->items, f->item_row, f->start, f->occurrences, f->blocks, f->memory};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

/* ------------------------------------------------------------------------------------------------ encoding */

static void clear(real *rows, size_t width, size_t first, size_t end) {
  memset(rows + first * width, 0, (end - first) * width * sizeof *rows);
}

/* The part whose rows these are. */
static const struct melu__part *part_of(const struct melu__factor_lanes *f, size_t block) {
  const struct melu__part *part = f->l->parts;
  while (block >= part->end_block) part++;
  return part;
}

static void encode_items(const struct melu__factor_lanes *f, const struct melu__factor_block *b,
                         const struct melu__part *part, real *slots[MELU__N_SLOTS]) {
  const melu_model *model = f->l->model;
  const size_t width = model->item_width;
  const uint32_t *items = f->items + part->first_item + b->first - part->item_row;
  melu__embed_many(model, f->l->batch->data, MELU_ITEM, items, b->n, f->x + b->first * width);
  clear(f->x, width, b->first + b->n, b->end);
  slots[MELU__SLOT_XS] = f->x + b->first * width;
  slots[MELU__SLOT_ZS] = f->z + b->first * melu__encoded_cols(model);
}

static void encode_users(const struct melu__factor_lanes *f, const struct melu__factor_block *b,
                         const struct melu__part *part, real *slots[MELU__N_SLOTS]) {
  const struct melu__lanes *l = f->l;
  const size_t width = l->model->user_width;
  const struct melu__task *tasks = l->batch->tasks + part->first_task + b->first - part->user_row;
  for (size_t i = 0; i < b->n; i++)
    melu__embed(l->model, l->batch->data, MELU_USER, tasks[i].user, l->xu + (b->first + i) * width);
  clear(l->xu, width, b->first + b->n, b->end);
  slots[MELU__SLOT_XU] = l->xu + b->first * width;
  slots[MELU__SLOT_ROW] = l->row + b->first * melu__user_cols(&l->model->options);
}

void melu__factor_encode(const struct melu__factor_lanes *f, size_t block, real *arena) {
  const struct melu__factor_block *b = &f->blocks[block];
  real *slots[MELU__N_SLOTS];
  melu__model_slots(slots, f->l->model, f->l->transposed);
  (b->is_items ? encode_items : encode_users)(f, b, part_of(f, block), slots);
  melu__plan_run(b->plan, slots, NULL, arena);
}

/* --------------------------------------------------------------------------------------------------- tasks */

/* Rows of n of a task's items, from its k-th on, and their ratings, padding behind them. */
static void gather(const struct melu__factor_lanes *f, const struct melu__task *task, size_t k, size_t n, real *x,
                   real *y, real *pooled) {
  const melu_model *model = f->l->model;
  const melu_batch *batch = f->l->batch;
  const real *scale = model->factors[MELU__F_SCALE];
  const size_t item_cols = melu__encoded_cols(model), ld = melu__task_row(model);
  const float *ratings;
  melu_dataset_ratings(batch->data, task->user, NULL, &ratings);
  if (pooled) clear(pooled, melu__user_cols(&model->options), 0, 1);
  for (size_t i = 0; i < n; i++) {
    const uint32_t position = batch->positions[task->start + k + i];
    const real *encoded = f->z + f->item_row[task->start + k + i] * item_cols;
    melu__set_task_row(model, encoded, x + i * ld);
    if (pooled) melu__add_to_pool(model, encoded, pooled);
    y[i] = (ratings[position] - scale[0]) / scale[1];
  }
  clear(x, ld, n, melu__padded(n));
  clear(y, 1, n, melu__padded(n));
}

/* A task's inputs and outputs but its rows' gradients, in the thread's memory behind the plans. */
struct task_rows {
  real *xs, *xq, *ys, *yq, *wq, *scores, *pooled;
};

static struct task_rows rows_in(real *memory, const melu_model *model, size_t ns, size_t nq) {
  struct task_rows r = {.xs = memory};
  r.xq = r.xs + ns * melu__task_row(model);
  r.ys = r.xq + nq * melu__task_row(model);
  r.yq = r.ys + ns;
  r.wq = r.yq + nq;
  r.scores = r.wq + nq;
  r.pooled = r.scores + nq;
  return r;
}

static void input_slots(real *slots[MELU__N_SLOTS], const struct task_rows *r, size_t width) {
  slots[MELU__SLOT_XS] = r->xs;
  slots[MELU__SLOT_ZS] = r->xs + width;
  slots[MELU__SLOT_XQ] = r->xq;
  slots[MELU__SLOT_ZQ] = r->xq + width;
  slots[MELU__SLOT_YS] = r->ys;
  slots[MELU__SLOT_YQ] = r->yq;
  slots[MELU__SLOT_WQ] = r->wq;
  slots[MELU__SLOT_POOLED] = r->pooled;
  slots[MELU__SLOT_SCORES] = r->scores;
}

static void gradient_slots(real *slots[MELU__N_SLOTS], const struct melu__factor_lanes *f, size_t task, size_t ns) {
  const struct melu__lanes *l = f->l;
  const size_t ld = melu__task_row(l->model), width = melu__user_cols(&l->model->options), user = l->tasks[task].user;
  real *grad = l->grad_x + l->tasks[task].row * ld;
  slots[MELU__SLOT_ROW] = l->row + user * width;
  slots[MELU__SLOT_GRAD_XS] = grad;
  slots[MELU__SLOT_GRAD_ZS] = grad + width;
  slots[MELU__SLOT_GRAD_XQ] = grad + ns * ld;
  slots[MELU__SLOT_GRAD_ZQ] = grad + ns * ld + width;
  slots[MELU__SLOT_GRAD_ROW] = l->grad_row + user * width;
  slots[MELU__SLOT_GRAD_POOLED] = f->pooled + user * width;
}

static void run_task(const struct melu__factor_lanes *f, size_t i, real *slots[MELU__N_SLOTS], real *arena,
                     double *losses) {
  const struct melu__lanes *l = f->l;
  const struct melu__task *task = &l->batch->tasks[i];
  const real *scale = l->model->factors[MELU__F_SCALE];
  const size_t ns = melu__padded(task->n_support), nq = melu__padded(task->n_query), at = task->start + task->n_support;
  const struct task_rows r = rows_in(arena + f->plans, l->model, ns, nq);
  real loss = 0;
  gather(f, task, 0, task->n_support, r.xs, r.ys, r.pooled);
  gather(f, task, task->n_support, task->n_query, r.xq, r.yq, NULL);
  for (size_t k = 0; k < nq; k++) r.wq[k] = k < task->n_query ? f->weight : 0;
  for (size_t k = 0; l->kind == MELU__PLAN_META_LINEAR && k < task->n_query; k++)
    r.yq[k] = scale[1] * l->slopes[at + k];
  input_slots(slots, &r, melu__user_cols(&l->model->options));
  gradient_slots(slots, f, i, ns);
  slots[MELU__SLOT_LOSS] = &loss;
  melu__plan_run(l->tasks[i].plan, slots, NULL, arena);
  for (size_t k = 0; l->kind == MELU__PLAN_META_SCORES && k < task->n_query; k++)
    l->scores[at + k] = scale[0] + scale[1] * r.scores[k];
  losses[i] = loss;
}

/* Weights, and the lane's sums of their gradients, which what comes is added to. */
static void lane_slots(real *slots[MELU__N_SLOTS], const struct melu__lanes *l, size_t lane) {
  melu__model_slots(slots, l->model, l->transposed);
  melu__dense_slots(slots + MELU__SLOT_GRADS, l->model, l->lanes[lane].sums);
  melu__dense_slots(slots + MELU__SLOT_BASES, l->model, l->lanes[lane].sums);
}

void melu__factor_tasks(const struct melu__factor_lanes *f, size_t lane, real *arena, double *losses) {
  const struct melu__lanes *l = f->l;
  const size_t n_dense = melu__dense_offset(l->model, l->model->n_params);
  const struct melu__part *part = &l->parts[l->lanes[lane].part];
  real *slots[MELU__N_SLOTS];
  memset(l->lanes[lane].sums, 0, n_dense * sizeof *l->lanes[lane].sums);
  lane_slots(slots, l, lane);
  for (size_t i = part->first_task; i < part->end_task; i++)
    if (l->tasks[i].lane == lane) run_task(f, i, slots, arena, losses);
}

/* -------------------------------------------------------------------------------------------------- collecting */

/* The sum of what came back to an item from its rows, in their order, to that row. */
static void collect_item(const struct melu__factor_lanes *f, size_t item, size_t row) {
  const struct melu__lanes *l = f->l;
  const struct melu__kernels *k = l->model->ctx->kernels;
  const size_t rank = l->model->options.rank, width = melu__user_cols(&l->model->options);
  const size_t ld = melu__task_row(l->model), cols = melu__encoded_cols(l->model);
  real *sum = f->grad_z + row * cols;
  clear(sum, cols, 0, 1);
  for (size_t i = f->start[item]; i < f->start[item + 1]; i++) {
    const struct melu__occurrence at = f->occurrences[i];
    const real *g = l->grad_x + at.row * ld;
    k->axpy(1, rank, 1, (struct melu__cmat){g, rank}, (struct melu__mat){sum, rank});
    sum[rank] += g[width];
    if (at.pooled)
      k->axpy(1, width, 1, (struct melu__cmat){f->pooled + (at.pooled - 1) * width, width},
              (struct melu__mat){sum + rank + 1, width});
  }
}

static void collect_items(const struct melu__factor_lanes *f, const struct melu__factor_block *b,
                          const struct melu__part *part, real *slots[MELU__N_SLOTS]) {
  const size_t width = f->l->model->item_width, cols = melu__encoded_cols(f->l->model);
  const size_t first_item = part->first_item + b->first - part->item_row;
  for (size_t i = 0; i < b->n; i++) collect_item(f, first_item + i, b->first + i);
  clear(f->grad_z, cols, b->first + b->n, b->end);
  slots[MELU__SLOT_XS] = f->x + b->first * width;
  slots[MELU__SLOT_GRAD_XS] = f->grad_x + b->first * width;
  slots[MELU__SLOT_GRAD_ZS] = f->grad_z + b->first * cols;
}

static void collect_users(const struct melu__factor_lanes *f, const struct melu__factor_block *b,
                          real *slots[MELU__N_SLOTS]) {
  const struct melu__lanes *l = f->l;
  const size_t width = l->model->user_width, cols = melu__user_cols(&l->model->options);
  clear(l->grad_row, cols, b->first + b->n, b->end);
  slots[MELU__SLOT_XU] = l->xu + b->first * width;
  slots[MELU__SLOT_GRAD_XU] = l->grad_xu + b->first * width;
  slots[MELU__SLOT_GRAD_ROW] = l->grad_row + b->first * cols;
}

/* Blocks are dealt to the lanes, so that their sums of dense gradients have a fixed order too. */
void melu__factor_collect(const struct melu__factor_lanes *f, size_t lane, real *arena) {
  const struct melu__lanes *l = f->l;
  const struct melu__part *part = &l->parts[l->lanes[lane].part];
  const size_t n_lanes = part->end_lane - part->first_lane;
  real *slots[MELU__N_SLOTS];
  lane_slots(slots, l, lane);
  for (size_t block = part->first_block + lane - part->first_lane; block < part->end_block; block += n_lanes) {
    const struct melu__factor_block *b = &f->blocks[block];
    if (b->is_items)
      collect_items(f, b, part, slots);
    else
      collect_users(f, b, slots);
    melu__plan_run(b->grad, slots, NULL, arena);
  }
}
