/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/lane.h"

#include <string.h>

#include "base/error.h"
#include "meta/overlap.h"
#include "model/embed.h"
#include "model/gradient.h"

enum { ITEM_BLOCK = 512, ITEM_STEP = 16, USER_BLOCK = 16 }; /* rows of one plan at most; multiples of them */

/* ---------------------------------------------------------------------------------------------- preparing */

melu_status melu__find_blocks(struct melu__blocks *b, size_t *arena, const melu_model *model, enum melu__plan_kind kind,
                              enum melu__plan_kind grad, size_t n, size_t most, melu_error *err) {
  const size_t rest = n % most;
  melu_status status = MELU_OK;
  *b = (struct melu__blocks){.n = n, .most = most};
  if (n >= most) status = melu__task_plan_in(&b->full, arena, model, kind, 0, most, err);
  if (n >= most && !status) status = melu__task_plan_in(&b->full_grad, arena, model, grad, 0, most, err);
  if (rest && !status) status = melu__task_plan_in(&b->rest, arena, model, kind, 0, rest, err);
  if (rest && !status) status = melu__task_plan_in(&b->rest_grad, arena, model, grad, 0, rest, err);
  return status;
}

/* Rows for the tasks of a lane that have one form. */
static void place_tasks(struct melu__lanes *l, size_t lane, int tag) {
  const struct melu__part *part = &l->parts[l->lanes[lane].part];
  for (size_t i = part->first_task; i < part->end_task; i++) {
    struct melu__lane_task *t = &l->tasks[i];
    if (t->lane != lane || melu__plan_tag(t->plan) != tag) continue;
    t->row = l->n_rows;
    t->user = l->n_users++;
    l->n_rows = melu__size_add(l->n_rows, l->batch->tasks[i].n_support + l->batch->tasks[i].n_query);
  }
}

static melu_status place_lane(struct melu__lanes *l, size_t number, melu_error *err) {
  struct melu__lane *lane = &l->lanes[number];
  lane->row = l->n_rows;
  lane->user = l->n_users;
  place_tasks(l, number, MELU__DUAL);
  l->n_rows = melu__size_align(l->n_rows, ITEM_STEP);
  lane->n_rows = l->n_rows - lane->row;
  lane->n_users = l->n_users - lane->user;
  place_tasks(l, number, MELU__DIRECT);
  l->n_rows = melu__size_align(l->n_rows, ITEM_STEP);
  const melu_status status = melu__find_blocks(&lane->items, &l->arena, l->model, MELU__PLAN_ITEMS,
                                               MELU__PLAN_ITEMS_GRAD, lane->n_rows, ITEM_BLOCK, err);
  if (status) return status;
  return melu__find_blocks(&lane->users, &l->arena, l->model, MELU__PLAN_USERS, MELU__PLAN_USERS_GRAD, lane->n_users,
                           USER_BLOCK, err);
}

int melu__place_arrays(const struct melu_allocator *a, real **memory, size_t *capacity,
                       const struct melu__array *arrays, size_t n) {
  const size_t line = MELU__ALIGN / sizeof(real);
  size_t total = 0;
  for (size_t i = 0; i < n; i++)
    total = melu__size_add(total, melu__size_add(melu__size_mul(arrays[i].rows, arrays[i].cols), line));
  if (!melu__grow(a, memory, capacity, 0, total, sizeof **memory)) return 0;
  real *at = *memory;
  for (size_t i = 0; i < n; i++) {
    *arrays[i].p = at;
    at += melu__size_align(arrays[i].rows * arrays[i].cols, line);
  }
  return 1;
}

static int allocate(struct melu__lanes *l) {
  const size_t h = melu__model_weight(l->model, 0)->rows, items = l->model->item_width, users = l->model->user_width;
  const struct melu__array arrays[] = {
      {&l->x, l->n_rows, items},      {&l->y, l->n_rows, 1},          {&l->z, l->n_rows, h},
      {&l->grad_x, l->n_rows, items}, {&l->grad_z, l->n_rows, h},     {&l->xu, l->n_users, users},
      {&l->row, l->n_users, h},       {&l->kappa, l->n_users, 1},     {&l->grad_xu, l->n_users, users},
      {&l->grad_row, l->n_users, h},  {&l->grad_kappa, l->n_users, 1}};
  return melu__place_arrays(&l->model->ctx->allocator, &l->memory, &l->memory_capacity, arrays,
                            sizeof arrays / sizeof *arrays);
}

/* Room in every arena for the overlaps of any task, behind what plans take. */
static void place_overlaps(struct melu__lanes *l) {
  size_t most = 0;
  for (size_t i = 0; i < l->batch->n_tasks; i++) {
    const struct melu__task *t = &l->batch->tasks[i];
    const size_t n = melu__overlap_size(l->model, (size_t)t->n_support + t->n_query, t->n_support);
    if (n > most) most = n;
  }
  l->plans = l->arena;
  l->arena = melu__size_align(melu__size_add(l->plans, most), MELU__ALIGN / sizeof(real));
}

melu_status melu__lanes_prepare(struct melu__lanes *l, melu_error *err) {
  melu_status status = MELU_OK;
  l->n_rows = l->n_users = l->arena = 0;
  for (size_t i = 0; i < l->batch->n_tasks && !status; i++) {
    const struct melu__task *t = &l->batch->tasks[i];
    status = melu__task_plan_in(&l->tasks[i].plan, &l->arena, l->model, l->kind, t->n_support, t->n_query, err);
  }
  for (size_t i = 0; i < l->n_lanes && !status; i++) status = place_lane(l, i, err);
  place_overlaps(l);
  if (!status && !allocate(l)) status = melu__fail_memory(err);
  return status;
}

/* ------------------------------------------------------------------------------------------------ running */

static void gather(const struct melu__lanes *l, size_t i) {
  const melu_model *model = l->model;
  const struct melu__lane_task *t = &l->tasks[i];
  const struct melu__task *task = &l->batch->tasks[i];
  const uint32_t *position = l->batch->positions + task->start, *items;
  const float *ratings;
  real *x = l->x + t->row * model->item_width;
  melu_dataset_ratings(l->batch->data, task->user, &items, &ratings);
  for (size_t k = 0; k < task->n_support + task->n_query; k++) l->y[t->row + k] = ratings[position[k]];
  if (l->kind == MELU__PLAN_META_LINEAR)
    memcpy(l->y + t->row + task->n_support, l->slopes + task->start + task->n_support, task->n_query * sizeof *l->y);
  melu__embed(model, l->batch->data, MELU_USER, task->user, l->xu + t->user * model->user_width);
  for (size_t done = 0, n; done < task->n_support + task->n_query; done += n) {
    uint32_t rated[128];
    n = melu__task_items(l->batch, task, done, sizeof rated / sizeof *rated, rated);
    melu__embed_many(model, l->batch->data, MELU_ITEM, rated, n, x + done * model->item_width);
  }
}

/* Points the slots of a task's rows, or of a block of rows, into the arrays. */
static void row_slots(real *slots[MELU__N_SLOTS], const struct melu__lanes *l, size_t row, size_t n_support) {
  const size_t width = l->model->item_width, h = melu__model_weight(l->model, 0)->rows, query = row + n_support;
  slots[MELU__SLOT_XS] = l->x + row * width;
  slots[MELU__SLOT_XQ] = l->x + query * width;
  slots[MELU__SLOT_YS] = l->y + row;
  slots[MELU__SLOT_YQ] = l->y + query;
  slots[MELU__SLOT_ZS] = l->z + row * h;
  slots[MELU__SLOT_ZQ] = l->z + query * h;
  slots[MELU__SLOT_GRAD_XS] = l->grad_x + row * width;
  slots[MELU__SLOT_GRAD_XQ] = l->grad_x + query * width;
  slots[MELU__SLOT_GRAD_ZS] = l->grad_z + row * h;
  slots[MELU__SLOT_GRAD_ZQ] = l->grad_z + query * h;
}

static void user_slots(real *slots[MELU__N_SLOTS], const struct melu__lanes *l, size_t user) {
  const size_t width = l->model->user_width, h = melu__model_weight(l->model, 0)->rows;
  slots[MELU__SLOT_XU] = l->xu + user * width;
  slots[MELU__SLOT_ROW] = l->row + user * h;
  slots[MELU__SLOT_KAPPA] = l->kappa + user;
  slots[MELU__SLOT_GRAD_XU] = l->grad_xu + user * width;
  slots[MELU__SLOT_GRAD_ROW] = l->grad_row + user * h;
  slots[MELU__SLOT_GRAD_KAPPA] = l->grad_kappa + user;
}

/* From the first gradient on, what comes next is added to it. */
enum { W1_ITEM, W1_USER, B1, FIRST_UPPER };
static void begun(real *slots[MELU__N_SLOTS], size_t first, size_t end) {
  for (size_t i = first; i < end; i++) slots[MELU__SLOT_BASES + i] = slots[MELU__SLOT_GRADS + i];
}

static void item_slots(real *slots[MELU__N_SLOTS], const struct melu__lanes *l, size_t row) {
  row_slots(slots, l, row, 0);
}

/* What the first layer makes of blocks of rows from `first` on, or what comes back to it. */
static void run_blocks(const struct melu__lanes *l, const struct melu__blocks *b, int is_grad, size_t first,
                       void (*place)(real *slots[MELU__N_SLOTS], const struct melu__lanes *l, size_t row),
                       real *slots[MELU__N_SLOTS], real *arena) {
  for (size_t done = 0, n; done < b->n; done += n) {
    const int is_full = b->n - done >= b->most;
    n = is_full ? b->most : b->n - done;
    place(slots, l, first + done);
    if (!is_grad) {
      melu__plan_run(is_full ? b->full : b->rest, slots, NULL, arena);
      continue;
    }
    melu__plan_run(is_full ? b->full_grad : b->rest_grad, slots, NULL, arena);
    if (place == item_slots)
      begun(slots, W1_ITEM, W1_USER);
    else
      begun(slots, W1_USER, FIRST_UPPER);
  }
}

static void run_first_layer(const struct melu__lanes *l, const struct melu__lane *lane, int is_grad,
                            real *slots[MELU__N_SLOTS], real *arena) {
  run_blocks(l, &lane->items, is_grad, lane->row, item_slots, slots, arena);
  run_blocks(l, &lane->users, is_grad, lane->user, user_slots, slots, arena);
}

/* Computes the overlaps of the task's rows. */
static void overlap_slots(real *slots[MELU__N_SLOTS], const struct melu__lanes *l, const struct melu__task *task,
                          real *memory) {
  struct melu__rated rated = {.positions = l->batch->positions + task->start};
  melu_dataset_ratings(l->batch->data, task->user, &rated.items, NULL);
  memory = melu__overlap(slots + MELU__SLOT_OVERLAP_S, l->model, l->batch->data, &rated, 0, task->n_support,
                         task->n_support, memory);
  melu__overlap(slots + MELU__SLOT_OVERLAP_Q, l->model, l->batch->data, &rated, task->n_support, task->n_query,
                task->n_support, memory);
}

static void run_task(const struct melu__lanes *l, size_t i, real *slots[MELU__N_SLOTS], real *arena, double *losses) {
  const struct melu__task *task = &l->batch->tasks[i];
  const struct melu__plan *plan = l->tasks[i].plan;
  real loss;
  row_slots(slots, l, l->tasks[i].row, task->n_support);
  user_slots(slots, l, l->tasks[i].user);
  overlap_slots(slots, l, task, arena + l->plans);
  slots[MELU__SLOT_LOSS] = &loss;
  if (l->kind == MELU__PLAN_META_SCORES) {
    slots[MELU__SLOT_SCORES] = l->scores + task->start + task->n_support;
    melu__plan_run(plan, slots, NULL, arena);
    return;
  }
  melu__plan_run(plan, slots, NULL, arena);
  begun(slots, melu__plan_tag(plan) == MELU__DIRECT ? W1_ITEM : FIRST_UPPER, melu__n_weights(l->model));
  losses[i] = loss;
}

/* Rows beyond the last task's must not add to products over all of them. */
static void clear_padding(const struct melu__lanes *l, const struct melu__lane *lane, size_t used) {
  const size_t width = l->model->item_width, h = melu__model_weight(l->model, 0)->rows, end = lane->row + lane->n_rows;
  memset(l->x + used * width, 0, (end - used) * width * sizeof *l->x);
  memset(l->grad_x + used * width, 0, (end - used) * width * sizeof *l->grad_x);
  memset(l->grad_z + used * h, 0, (end - used) * h * sizeof *l->grad_z);
}

void melu__lane_run(const struct melu__lanes *l, size_t number, real *arena, double *losses) {
  const struct melu__lane *lane = &l->lanes[number];
  const struct melu__part *part = &l->parts[lane->part];
  real *slots[MELU__N_SLOTS];
  size_t used = lane->row;
  melu__model_slots(slots, l->model, l->transposed);
  melu__dense_slots(slots + MELU__SLOT_GRADS, l->model, lane->sums);
  melu__dense_slots(slots + MELU__SLOT_BASES, l->model, l->zeros);
  for (size_t i = part->first_task; i < part->end_task; i++) {
    if (l->tasks[i].lane != number) continue;
    gather(l, i);
    if (melu__plan_tag(l->tasks[i].plan) == MELU__DUAL)
      used += l->batch->tasks[i].n_support + l->batch->tasks[i].n_query;
  }
  clear_padding(l, lane, used);
  run_first_layer(l, lane, 0, slots, arena);
  for (size_t i = part->first_task; i < part->end_task; i++)
    if (l->tasks[i].lane == number) run_task(l, i, slots, arena, losses);
  if (l->kind != MELU__PLAN_META_SCORES) run_first_layer(l, lane, 1, slots, arena);
}
