/* SPDX-License-Identifier: BSD-3-Clause */
/* The meta-gradient of a task batch.
 *
 * Sums are taken in a fixed order over fixed places, so that their bits do not depend on threads: tasks are dealt to at
 * most MOST_LANES lanes by a rule that knows only the batch, a lane's tasks add to the lane's sums one after another,
 * the lanes' sums are added in their order, and a table row collects its contributions in the order of the batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "meta/factor_lane.h"
#include "meta/outer.h"
#include "model/embed.h"
#include "model/gradient.h"

enum { FEW_LANES = 8, MOST_LANES = 16, TASKS_PER_LANE = 4, CHUNK = 2048 };

struct task_cost {
  double cost;
  size_t task;
};

static void free_outer(struct melu__outer *o, const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  void *const all[] = {o->l.tasks, o->l.lanes, o->l.memory, o->l.zeros, o->l.transposed,
                       o->order,   o->sums,    o->arenas,   o->largest, o};
  melu__factor_free(&o->f, a);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

static struct melu__outer *outer_of(melu_gradient *g) {
  const melu_context *ctx = g->model->ctx;
  if (g->outer) return g->outer;
  struct melu__outer *o = melu__calloc(&ctx->allocator, 1, sizeof *o);
  if (!o) return NULL;
  o->n_threads = ctx->runner.n_threads;
  o->l.zeros = melu__calloc(&ctx->allocator, g->n_dense, sizeof *o->l.zeros);
  o->l.transposed = melu__alloc(&ctx->allocator, melu__transposed_size(g->model), sizeof *o->l.transposed);
  if (!o->l.zeros || !o->l.transposed) {
    free_outer(o, g->model);
    return NULL;
  }
  g->outer = o;
  g->free_outer = free_outer;
  return o;
}

/* ---------------------------------------------------------------------------------------------- preparing */

static int dearer_first(const void *a, const void *b) {
  const struct task_cost *x = a, *y = b;
  if (x->cost != y->cost) return x->cost < y->cost ? 1 : -1;
  return (x->task > y->task) - (x->task < y->task);
}

/* Every lane costs a sum of its own: few of them for few tasks. */
static size_t count_lanes(size_t n_tasks) {
  if (n_tasks < FEW_LANES) return n_tasks;
  const size_t n = n_tasks / TASKS_PER_LANE;
  return n < FEW_LANES ? FEW_LANES : n > MOST_LANES ? MOST_LANES : n;
}

/* Tasks by descending cost, then in the order of the batch: each to the lane that has least to do so far. */
static void deal(struct melu__outer *o, size_t n_tasks) {
  double load[MOST_LANES] = {0};
  o->l.n_lanes = count_lanes(n_tasks);
  qsort(o->order, n_tasks, sizeof *o->order, dearer_first);
  for (size_t i = 0; i < n_tasks; i++) {
    size_t lane = 0;
    for (size_t l = 1; l < o->l.n_lanes; l++)
      if (load[l] < load[lane]) lane = l;
    o->l.tasks[o->order[i].task].lane = lane;
    load[lane] += o->order[i].cost;
  }
}

static size_t n_chunks(const melu_gradient *g) {
  return (g->n_dense + CHUNK - 1) / CHUNK;
}

/* What a task costs, up to a factor: the products over its rows. Its plan would know better, but is chosen later. */
static double cost_of(const melu_model *model, const struct melu__task *t) {
  if (melu__is_factors(model)) return t->n_support + t->n_query;
  const double m = t->n_support, q = t->n_query, h = (double)melu__model_weight(model, 0)->rows;
  const double width = (double)model->item_width, steps = (double)model->options.inner_steps;
  return (m + q) * width * h + steps * m * (h * h + m * h) + m * (m + q) * width + q * h * h;
}

/* Deals the tasks, finds their plans and makes room for everything that the parallel parts write. */
static melu_status prepare(struct melu__outer *o, melu_error *err) {
  const melu_model *model = o->g->model;
  const struct melu_allocator *a = &model->ctx->allocator;
  const melu_batch *batch = o->l.batch;
  if (!melu__grow(a, &o->l.tasks, &o->l.tasks_capacity, 0, batch->n_tasks, sizeof *o->l.tasks) ||
      !melu__grow(a, &o->order, &o->order_capacity, 0, batch->n_tasks, sizeof *o->order) ||
      !melu__grow(a, &o->l.lanes, &o->l.lanes_capacity, 0, MOST_LANES, sizeof *o->l.lanes))
    return melu__fail_memory(err);
  for (size_t i = 0; i < batch->n_tasks; i++) o->order[i] = (struct task_cost){cost_of(model, &batch->tasks[i]), i};
  deal(o, batch->n_tasks);
  o->f.l = &o->l;
  const melu_status status =
      melu__is_factors(o->g->model) ? melu__factor_prepare(&o->f, err) : melu__lanes_prepare(&o->l, err);
  if (status) return status;
  const size_t n_dense = o->g->n_dense, arenas = melu__size_mul(o->n_threads, o->l.arena);
  if (!melu__grow(a, &o->sums, &o->sums_capacity, 0, melu__size_mul(o->l.n_lanes, n_dense), sizeof *o->sums) ||
      !melu__grow(a, &o->largest, &o->largest_capacity, 0, n_chunks(o->g) + model->n_tables, sizeof *o->largest) ||
      !melu__grow(a, &o->arenas, &o->arenas_capacity, 0, arenas, sizeof *o->arenas))
    return melu__fail_memory(err);
  for (size_t i = 0; i < o->l.n_lanes; i++) o->l.lanes[i].sums = o->sums + i * n_dense;
  return MELU_OK;
}

static real *arena_of(const struct melu__outer *o, size_t thread) {
  return o->arenas + thread * o->l.arena;
}

static void run_lane(void *arg, size_t lane, size_t thread) {
  const struct melu__outer *o = arg;
  melu__lane_run(&o->l, lane, arena_of(o, thread), o->g->losses);
}

static void run_encode(void *arg, size_t block, size_t thread) {
  const struct melu__outer *o = arg;
  melu__factor_encode(&o->f, block, arena_of(o, thread));
}

static void run_tasks(void *arg, size_t lane, size_t thread) {
  const struct melu__outer *o = arg;
  melu__factor_tasks(&o->f, lane, arena_of(o, thread), o->g->losses);
}

static void run_collect(void *arg, size_t lane, size_t thread) {
  const struct melu__outer *o = arg;
  melu__factor_collect(&o->f, lane, arena_of(o, thread));
}

/* Up to the tasks' losses or scores. */
void melu__outer_forward(struct melu__outer *o) {
  const struct melu_runner *runner = &o->g->model->ctx->runner;
  if (!melu__is_factors(o->g->model)) {
    runner->run(runner->arg, run_lane, o, o->l.n_lanes);
    return;
  }
  runner->run(runner->arg, run_encode, o, melu__factor_n_blocks(&o->f));
  runner->run(runner->arg, run_tasks, o, o->l.n_lanes);
}

void melu__outer_run(struct melu__outer *o) {
  const struct melu_runner *runner = &o->g->model->ctx->runner;
  melu__outer_forward(o);
  if (melu__is_factors(o->g->model)) runner->run(runner->arg, run_collect, o, o->l.n_lanes);
}

/* --------------------------------------------------------------------------------------------------- sums */

#define NO_MEMORY (-1) /* in place of a size */

static void sum_chunk(struct melu__outer *o, size_t chunk) {
  melu_gradient *g = o->g;
  const size_t begin = chunk * CHUNK, n = g->n_dense - begin < CHUNK ? g->n_dense - begin : CHUNK;
  const struct melu__kernels *k = g->model->ctx->kernels;
  const struct melu__mat sum = {g->dense + begin, n};
  k->copy(1, n, (struct melu__cmat){o->sums + begin, n}, sum);
  for (size_t l = 1; l < o->l.n_lanes; l++)
    k->axpy(1, n, 1, (struct melu__cmat){o->sums + l * g->n_dense + begin, n}, sum);
  k->scale(1, n, (real)1 / (real)o->l.batch->n_tasks, (struct melu__cmat){sum.p, n}, sum);
  o->largest[g->model->n_tables + chunk] = k->largest(n, sum.p);
}

/* One row of a gradient of X, to the table rows that made it: adjoint of melu__embed. */
static int add_to_rows(struct melu__table_grad *r, const melu_model *model, const uint32_t *ids, size_t n,
                       const real *g, real scale) {
  const melu_context *ctx = model->ctx;
  const double count = melu__is_factors(model) ? sqrt((double)n) : (double)n;
  const real share = n ? scale / (real)count : 0;
  for (size_t done = 0, k; done < n; done += k) {
    uint32_t places[64];
    for (k = 0; k < sizeof places / sizeof *places && done + k < n; k++) {
      places[k] = melu__table_grad_meet(r, &ctx->allocator, ids[done + k]);
      if (places[k] == MELU__NO_PLACE) return 0;
    }
    ctx->kernels->add_to_rows(k, places, r->cols, r->values, share, g);
  }
  return 1;
}

enum { AHEAD = 4 };

/* Asks for what the entities some steps on will need: where their ids are listed, the list, the rows' places, the rows.
 */
static void look_ahead(const struct melu__table_grad *r, const struct melu__column *column, const uint32_t *entities,
                       size_t n) {
  if (n > 4 * AHEAD) melu__prefetch(column->offsets + entities[4 * AHEAD]);
  if (n > 3 * AHEAD) melu__prefetch(column->ids + column->offsets[entities[3 * AHEAD]]);
  if (n > 2 * AHEAD)
    for (uint32_t k = column->offsets[entities[2 * AHEAD]]; k < column->offsets[entities[2 * AHEAD] + 1]; k++)
      melu__prefetch(r->place + column->ids[k]);
  if (n > AHEAD)
    for (uint32_t k = column->offsets[entities[AHEAD]]; k < column->offsets[entities[AHEAD] + 1]; k++) {
      const uint32_t place = r->place[column->ids[k]];
      for (size_t j = 0; place && j < r->cols; j += MELU__ALIGN / sizeof(real))
        melu__prefetch(r->values + (size_t)(place - 1) * r->cols + j);
    }
}

/* The sum over n entities of one field, whose gradients are `ld` apart. */
static int add_entities(struct melu__outer *o, struct melu__table_grad *r, const struct melu__column *column,
                        const uint32_t *entities, size_t n, const real *g, size_t ld) {
  const real scale = (real)1 / (real)o->l.batch->n_tasks;
  for (size_t i = 0; i < n; i++) {
    size_t n_ids;
    const uint32_t *ids = melu__column_ids(column, entities[i], &n_ids);
    look_ahead(r, column, entities + i, n - i);
    if (!add_to_rows(r, o->l.model, ids, n_ids, g + i * ld, scale)) return 0;
  }
  return 1;
}

/* The sum over the values of one table's field in the order of the batch: of the user once a task, or of the item of
 * every row. */
static int add_table(struct melu__outer *o, size_t table) {
  const melu_model *model = o->g->model;
  const melu_batch *batch = o->l.batch;
  const struct melu__table_use use = melu__embed_use(model, table);
  const struct melu__column *column = &batch->data->tables[use.owner].columns[use.column];
  struct melu__table_grad *r = &o->g->tables[table];
  if (melu__is_factors(o->g->model) && use.owner == MELU_ITEM)
    return add_entities(o, r, column, o->f.items, o->f.n, o->f.grad_x, model->item_width);
  for (size_t t = 0; t < batch->n_tasks; t++) {
    const struct melu__task *task = &batch->tasks[t];
    const real *g = o->l.grad_x + o->l.tasks[t].row * model->item_width + use.first_col;
    if (use.owner == MELU_USER) {
      g = o->l.grad_xu + o->l.tasks[t].user * model->user_width + use.first_col;
      if (!add_entities(o, r, column, &task->user, 1, g, model->user_width)) return 0;
      continue;
    }
    for (size_t done = 0, n; done < task->n_support + task->n_query; done += n) {
      uint32_t rated[128];
      n = melu__task_items(batch, task, done, sizeof rated / sizeof *rated, rated);
      if (!add_entities(o, r, column, rated, n, g + done * model->item_width, model->item_width)) return 0;
    }
  }
  return 1;
}

static void sum_table(struct melu__outer *o, size_t table) {
  const struct melu__table_grad *r = &o->g->tables[table];
  o->largest[table] = NO_MEMORY;
  if (add_table(o, table)) o->largest[table] = o->g->model->ctx->kernels->largest(r->n * r->cols, r->values);
}

/* Tables first: the largest take longest. */
static void run_sum(void *arg, size_t index, size_t thread) {
  struct melu__outer *o = arg;
  (void)thread;
  if (index < o->g->model->n_tables)
    sum_table(o, index);
  else
    sum_chunk(o, index - o->g->model->n_tables);
}

static melu_status finish(struct melu__outer *o, melu_error *err) {
  melu_gradient *g = o->g;
  const size_t n_sums = n_chunks(g) + g->model->n_tables;
  g->largest = 0;
  for (size_t i = 0; i < n_sums; i++) {
    if (o->largest[i] == NO_MEMORY) return melu__fail_memory(err);
    if (!isfinite(o->largest[i])) return melu__fail(err, MELU_EDIVERGED, "the meta-gradient is not finite");
    if (o->largest[i] > g->largest) g->largest = o->largest[i];
  }
  g->n_tasks = o->l.batch->n_tasks;
  for (size_t i = 0; i < g->n_tasks; i++) g->loss += g->losses[i];
  g->loss /= (double)g->n_tasks;
  g->filled = 1;
  return MELU_OK;
}

/* Checks, and everything before the runs. */
melu_status melu__outer_begin(struct melu__outer **out, enum melu__plan_kind kind, melu_gradient *g,
                              const melu_model *model, const melu_batch *batch, melu_error *err) {
  if (!g || !model || !batch)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !g ? "gradient" : !model ? "model" : "batch");
  if (g->model != model) return melu__fail(err, MELU_EINVAL, "the gradient was made for another model");
  if (!melu__schema_equal(model->schema, batch->data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the batch's data set has another schema than the model");
  if (batch->n_tasks == 0) return melu__fail(err, MELU_EINVAL, "the batch has no task");

  struct melu__outer *o = outer_of(g);
  if (!o || !melu__gradient_begin(g, batch->n_tasks)) return melu__fail_memory(err);
  *out = o;
  o->g = g;
  o->l.model = model;
  o->l.batch = batch;
  o->l.kind = kind;
  const melu_status status = prepare(o, err);
  if (!status) melu__transpose_weights(o->l.transposed, model);
  return status;
}

melu_status melu__outer_check(const melu_gradient *g, size_t n, melu_error *err) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(g->losses[i]))
      return melu__fail_at(err, MELU_EDIVERGED, i, "task %zu: the query loss is not finite", i);
  return MELU_OK;
}

/* From the tasks' losses to a gradient. */
melu_status melu__outer_complete(struct melu__outer *o, melu_error *err) {
  const struct melu_runner *runner = &o->g->model->ctx->runner;
  const melu_status status = melu__outer_check(o->g, o->l.batch->n_tasks, err);
  if (status) return status;
  runner->run(runner->arg, run_sum, o, n_chunks(o->g) + o->g->model->n_tables);
  return finish(o, err);
}

melu_status melu_meta_gradient(melu_gradient *g, const melu_model *model, const melu_batch *batch, melu_error *err) {
  struct melu__outer *o;
  const melu_status status = melu__outer_begin(&o, MELU__PLAN_META, g, model, batch, err);
  if (status) return status;
  melu__outer_run(o);
  return melu__outer_complete(o, err);
}
