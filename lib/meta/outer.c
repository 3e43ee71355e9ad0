/* SPDX-License-Identifier: BSD-3-Clause */
/* The meta-gradient of a task batch.
 *
 * Sums are taken in a fixed order over fixed places, so that their bits do not depend on threads: the tasks of a slot
 * are dealt to at most MOST_LANES lanes by a rule that knows only these tasks, a lane's tasks add to the lane's sums
 * one after another, the lanes' sums are added in their order, and a table row collects its contributions in the order
 * of the batch. The slots' sums are added along their tree. */
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
  void *const all[] = {o->l.parts, o->l.tasks, o->l.lanes, o->l.memory, o->l.zeros, o->l.transposed,
                       o->order,   o->slots,   o->sums,    o->arenas,   o->largest, o};
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

/* Every lane costs a sum of its own: few of them for few tasks, and of many slots. */
static size_t count_lanes(size_t n_tasks, size_t n_slots) {
  const size_t few = n_slots < FEW_LANES ? FEW_LANES / n_slots : 1,
               most = n_slots < MOST_LANES ? MOST_LANES / n_slots : 1;
  size_t n = n_tasks / TASKS_PER_LANE;
  n = n < few ? few : n > most ? most : n;
  return n < n_tasks ? n : n_tasks;
}

/* Tasks by descending cost, then in the order of the batch: each to the lane that has least to do so far. */
static void deal(struct melu__outer *o, const struct melu__part *part) {
  const size_t n_tasks = part->end_task - part->first_task, n_lanes = part->end_lane - part->first_lane;
  struct task_cost *order = o->order + part->first_task;
  double load[MOST_LANES] = {0};
  qsort(order, n_tasks, sizeof *order, dearer_first);
  for (size_t i = 0; i < n_tasks; i++) {
    size_t lane = 0;
    for (size_t l = 1; l < n_lanes; l++)
      if (load[l] < load[lane]) lane = l;
    o->l.tasks[order[i].task].lane = part->first_lane + lane;
    load[lane] += order[i].cost;
  }
}

/* The slots that have tasks, and their lanes. Returns 0 if there is no memory. */
static int list_parts(struct melu__outer *o) {
  struct melu__lanes *l = &o->l;
  const struct melu_allocator *a = &o->g->model->ctx->allocator;
  const struct melu__slots own = l->whole.own;
  l->n_parts = l->n_lanes = 0;
  if (!melu__grow(a, &l->parts, &l->parts_capacity, 0, own.hi - own.lo, sizeof *l->parts) ||
      !melu__grow(a, &o->slots, &o->slots_capacity, 0, own.hi - own.lo, sizeof *o->slots))
    return 0;
  for (uint32_t s = own.lo; s < own.hi; s++) {
    const size_t first = s == own.lo ? 0 : l->whole.end[s - own.lo - 1], end = l->whole.end[s - own.lo];
    if (end == first) continue;
    struct melu__part *part = &l->parts[l->n_parts];
    *part = (struct melu__part){
        .slot = {s, s + 1}, .first_task = first, .end_task = end, .first_lane = l->n_lanes, .end_lane = l->n_lanes};
    part->end_lane += count_lanes(end - first, l->whole.n_slots);
    l->n_lanes = part->end_lane;
    o->slots[l->n_parts++] = part->slot;
  }
  return 1;
}

/* The branches that have parts. */
static void list_branches(struct melu__outer *o) {
  struct melu__slots all[MELU__MAX_NODES];
  const size_t n = melu__largest_nodes(all, o->l.whole.n_slots, o->l.whole.own);
  size_t part = 0;
  o->n_branches = 0;
  for (size_t i = 0; i < n; i++) {
    const size_t first = part;
    while (part < o->l.n_parts && o->l.parts[part].slot.lo < all[i].hi) part++;
    if (part > first) o->branches[o->n_branches++] = (struct melu__branch){all[i], first, part};
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

/* Deals the tasks to lanes. Returns 0 if there is no memory. */
static int make_lanes(struct melu__outer *o) {
  struct melu__lanes *l = &o->l;
  const struct melu_allocator *a = &o->g->model->ctx->allocator;
  if (!list_parts(o) || !melu__grow(a, &l->tasks, &l->tasks_capacity, 0, l->batch->n_tasks, sizeof *l->tasks) ||
      !melu__grow(a, &o->order, &o->order_capacity, 0, l->batch->n_tasks, sizeof *o->order) ||
      !melu__grow(a, &l->lanes, &l->lanes_capacity, 0, l->n_lanes, sizeof *l->lanes))
    return 0;
  list_branches(o);
  for (size_t i = 0; i < l->batch->n_tasks; i++)
    o->order[i] = (struct task_cost){cost_of(o->g->model, &l->batch->tasks[i]), i};
  for (size_t p = 0; p < l->n_parts; p++) {
    for (size_t i = l->parts[p].first_lane; i < l->parts[p].end_lane; i++) l->lanes[i].part = p;
    deal(o, &l->parts[p]);
  }
  return 1;
}

/* Deals the tasks, finds their plans and makes room for everything that the parallel parts write. */
static melu_status prepare(struct melu__outer *o, melu_error *err) {
  const melu_model *model = o->g->model;
  const struct melu_allocator *a = &model->ctx->allocator;
  if (!make_lanes(o)) return melu__fail_memory(err);
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
  runner->run(runner->arg, run_encode, o, o->f.n_blocks);
  runner->run(runner->arg, run_tasks, o, o->l.n_lanes);
}

void melu__outer_run(struct melu__outer *o) {
  const struct melu_runner *runner = &o->g->model->ctx->runner;
  melu__outer_forward(o);
  if (melu__is_factors(o->g->model)) runner->run(runner->arg, run_collect, o, o->l.n_lanes);
}

/* --------------------------------------------------------------------------------------------------- sums */

#define NO_MEMORY (-1) /* in place of a size */

/* Some of the numbers of the dense gradient. */
struct dense_sum {
  const struct melu__outer *o;
  size_t begin, n;
  const struct melu__part *parts; /* of the branch */
};

static real *lane_sums(const struct dense_sum *d, size_t lane) {
  return d->o->sums + lane * d->o->g->n_dense + d->begin;
}

static void add_lane(const struct dense_sum *d, size_t into, size_t from) {
  d->o->g->model->ctx->kernels->axpy(1, d->n, 1, (struct melu__cmat){lane_sums(d, from), d->n},
                                     (struct melu__mat){lane_sums(d, into), d->n});
}

static void add_part(void *arg, size_t into, size_t from) {
  const struct dense_sum *d = arg;
  add_lane(d, d->parts[into].first_lane, d->parts[from].first_lane);
}

/* To the first lane of the branch's first part. */
static void sum_branch(struct dense_sum *d, const struct melu__branch *branch) {
  const struct melu__outer *o = d->o;
  d->parts = o->l.parts + branch->first_part;
  const size_t n = branch->end_part - branch->first_part;
  for (size_t p = 0; p < n; p++)
    for (size_t l = d->parts[p].first_lane + 1; l < d->parts[p].end_lane; l++) add_lane(d, d->parts[p].first_lane, l);
  melu__tree_sum(o->l.whole.n_slots, o->slots + branch->first_part, n, add_part, d);
}

static void sum_chunk(struct melu__outer *o, size_t chunk) {
  const melu_gradient *g = o->g;
  const size_t begin = chunk * CHUNK, n = g->n_dense - begin < CHUNK ? g->n_dense - begin : CHUNK;
  const struct melu__kernels *k = g->model->ctx->kernels;
  struct dense_sum d = {.o = o, .begin = begin, .n = n};
  for (size_t i = 0; i < o->n_branches; i++) sum_branch(&d, &o->branches[i]);
  if (o->l.whole.is_apart) return;
  const struct melu__cmat sum = {melu__outer_dense(o, 0) + begin, n};
  k->scale(1, n, (real)1 / (real)o->l.whole.n_tasks, sum, (struct melu__mat){g->dense + begin, n});
  o->largest[g->model->n_tables + chunk] = k->largest(n, g->dense + begin);
}

const real *melu__outer_dense(const struct melu__outer *o, size_t branch) {
  return o->sums + o->l.parts[o->branches[branch].first_part].first_lane * o->g->n_dense;
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
  const real scale = (real)1 / (real)o->l.whole.n_tasks;
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
static int add_table(struct melu__outer *o, size_t table, const struct melu__part *part) {
  const melu_model *model = o->g->model;
  const melu_batch *batch = o->l.batch;
  const struct melu__table_use use = melu__embed_use(model, table);
  const struct melu__column *column = &batch->data->tables[use.owner].columns[use.column];
  struct melu__table_grad *r = &o->g->tables[table];
  if (melu__is_factors(o->g->model) && use.owner == MELU_ITEM)
    return add_entities(o, r, column, o->f.items + part->first_item, part->end_item - part->first_item,
                        o->f.grad_x + part->item_row * model->item_width, model->item_width);
  for (size_t t = part->first_task; t < part->end_task; t++) {
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

static int add_branch(struct melu__outer *o, size_t table, const struct melu__branch *branch) {
  struct melu__table_grad *r = &o->g->tables[table];
  for (size_t p = branch->first_part; p < branch->end_part; p++) {
    melu__table_grad_enter(r, o->l.parts[p].slot);
    if (!add_table(o, table, &o->l.parts[p])) return 0;
  }
  return melu__table_grad_sum(r, o->g->model->ctx, branch->slots);
}

static void sum_table(struct melu__outer *o, size_t table) {
  const struct melu__table_grad *r = &o->g->tables[table];
  o->largest[table] = NO_MEMORY;
  for (size_t i = 0; i < o->n_branches; i++)
    if (!add_branch(o, table, &o->branches[i])) return;
  o->largest[table] = o->l.whole.is_apart ? 0 : o->g->model->ctx->kernels->largest(r->n * r->cols, r->values);
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

static void run_chunk(void *arg, size_t index, size_t thread) {
  (void)thread;
  sum_chunk(arg, index);
}

void melu__outer_sum_dense(struct melu__outer *o) {
  const struct melu_runner *runner = &o->g->model->ctx->runner;
  runner->run(runner->arg, run_chunk, o, n_chunks(o->g));
}

/* What is summed at once: of what is apart, the tables alone. */
static size_t count_sums(const struct melu__outer *o) {
  return o->g->model->n_tables + (o->l.whole.is_apart ? 0 : n_chunks(o->g));
}

static void add_loss(void *arg, size_t into, size_t from) {
  struct melu__part *parts = arg;
  parts[into].loss_sum += parts[from].loss_sum;
}

/* The parts' losses; returns their sum. */
static double sum_losses(struct melu__outer *o) {
  struct melu__part *parts = o->l.parts;
  for (size_t p = 0; p < o->l.n_parts; p++) {
    parts[p].loss = 0;
    for (size_t i = parts[p].first_task; i < parts[p].end_task; i++) parts[p].loss += o->g->losses[i];
    parts[p].loss_sum = parts[p].loss;
  }
  melu__tree_sum(o->l.whole.n_slots, o->slots, o->l.n_parts, add_loss, parts);
  return o->l.n_parts ? parts[0].loss_sum : 0;
}

static melu_status finish(struct melu__outer *o, melu_error *err) {
  melu_gradient *g = o->g;
  const size_t n_sums = count_sums(o);
  g->largest = 0;
  for (size_t i = 0; i < n_sums; i++) {
    if (o->largest[i] == NO_MEMORY) return melu__fail_memory(err);
    if (!isfinite(o->largest[i])) return melu__fail(err, MELU_EDIVERGED, "the meta-gradient is not finite");
    if (o->largest[i] > g->largest) g->largest = o->largest[i];
  }
  g->n_tasks = o->l.batch->n_tasks;
  g->loss = sum_losses(o) / (double)o->l.whole.n_tasks;
  g->filled = !o->l.whole.is_apart;
  return MELU_OK;
}

static struct melu__batch_parts whole_batch(const melu_batch *batch) {
  struct melu__batch_parts whole = {.n_slots = 1, .own = {0, 1}, .end = &batch->n_tasks, .n_tasks = batch->n_tasks};
  for (size_t i = 0; i < batch->n_tasks; i++) whole.n_query += batch->tasks[i].n_query;
  return whole;
}

/* Checks, and everything before the runs. */
melu_status melu__outer_begin(struct melu__outer **out, enum melu__plan_kind kind, melu_gradient *g,
                              const melu_model *model, const melu_batch *batch, const struct melu__batch_parts *parts,
                              melu_error *err) {
  if (!g || !model || !batch)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !g ? "gradient" : !model ? "model" : "batch");
  if (g->model != model) return melu__fail(err, MELU_EINVAL, "the gradient was made for another model");
  if (!melu__schema_equal(model->schema, batch->data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the batch's data set has another schema than the model");
  if (batch->n_tasks == 0 && !parts) return melu__fail(err, MELU_EINVAL, "the batch has no task");

  struct melu__outer *o = outer_of(g);
  if (!o) return melu__fail_memory(err);
  o->g = g;
  o->l.model = model;
  o->l.batch = batch;
  o->l.whole = parts ? *parts : whole_batch(batch);
  o->l.kind = kind;
  if (!melu__gradient_begin(g, batch->n_tasks, o->l.whole.n_slots)) return melu__fail_memory(err);
  *out = o;
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
  runner->run(runner->arg, run_sum, o, count_sums(o));
  return finish(o, err);
}

melu_status melu__meta_gradient(melu_gradient *g, const melu_model *model, const melu_batch *batch,
                                const struct melu__batch_parts *parts, melu_error *err) {
  struct melu__outer *o;
  const melu_status status = melu__outer_begin(&o, MELU__PLAN_META, g, model, batch, parts, err);
  if (status) return status;
  melu__outer_run(o);
  return melu__outer_complete(o, err);
}

melu_status melu_meta_gradient(melu_gradient *g, const melu_model *model, const melu_batch *batch, melu_error *err) {
  return melu__meta_gradient(g, model, batch, NULL, err);
}
