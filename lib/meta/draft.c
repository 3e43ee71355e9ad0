/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/draft.h"

#include <stdlib.h>
#include <string.h>

#include "model/embed.h"

/* --------------------------------------------------------------------------------------------------- life */

int melu__draft_model_init(struct melu__draft_model *w, const melu_model *model) {
  *w = (struct melu__draft_model){.whole = model, .model = *model};
  w->params = melu__alloc(&model->ctx->allocator, model->n_params, sizeof *w->params);
  if (!w->params) return 0;
  memcpy(w->params, model->params, model->n_params * sizeof *w->params);
  for (size_t t = 0; t < model->n_tables; t++)
    if (w->params[t].is_sharded) w->params[t].rows = 1;
  w->model.params = w->params;
  return 1;
}

void melu__draft_model_free(struct melu__draft_model *w) {
  if (!w->whole) return;
  melu__free(&w->whole->ctx->allocator, w->params);
  melu__free(&w->whole->ctx->allocator, w->number);
}

int melu__draft_init(struct melu__draft *d, const melu_model *model) {
  const melu_context *ctx = model->ctx;
  const struct melu_allocator *a = &ctx->allocator;
  d->data = (melu_dataset){.ctx = ctx, .schema = model->schema, .frozen = 1};
  d->batch = (melu_batch){.ctx = ctx, .data = &d->data};
  d->tables = melu__calloc(a, model->n_tables, sizeof *d->tables);
  if (!d->tables) return 0;
  for (size_t t = 0; t < model->n_tables; t++) {
    d->tables[t].first = melu__calloc(a, (size_t)ctx->collective.n_ranks + 1, sizeof *d->tables[t].first);
    if (!d->tables[t].first) return 0;
  }
  return melu__table_init(&d->data.tables[MELU_USER], a, model->schema, MELU_USER) &&
         melu__table_init(&d->data.tables[MELU_ITEM], a, model->schema, MELU_ITEM);
}

void melu__draft_free(struct melu__draft *d, const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  for (size_t t = 0; d->tables && t < model->n_tables; t++) {
    struct melu__draft_table *w = &d->tables[t];
    void *const all[] = {w->rows, w->order, w->first, w->values};
    melu__row_map_free(&w->map, a);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
  }
  melu__table_free(&d->data.tables[MELU_USER], a);
  melu__table_free(&d->data.tables[MELU_ITEM], a);
  void *const all[] = {d->tables,          d->items,       d->batch.tasks,     d->batch.positions,
                       d->data.user_start, d->data.rating, d->data.rating_item};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
}

/* ------------------------------------------------------------------------------------- users and items */

/* Appends an entity of the source's. */
static int copy_entity(struct melu__table *to, const struct melu__table *from, uint32_t entity,
                       const struct melu_allocator *a) {
  for (size_t i = 0; i < from->n_columns; i++) {
    const struct melu__column *c = &from->columns[i];
    struct melu__column *copy = &to->columns[i];
    const size_t first = c->offsets[entity], n = c->offsets[entity + 1] - first, used = copy->offsets[to->n];
    const int is_numbers = c->field->kind == MELU_NUMERIC;
    const size_t size = is_numbers ? c->field->width * sizeof *c->numbers : sizeof *c->ids;
    void *cells = is_numbers ? (void *)&copy->numbers : (void *)&copy->ids;
    if (!melu__grow(a, &copy->offsets, &copy->offsets_capacity, to->n + 1, to->n + 2, sizeof *copy->offsets) ||
        !melu__grow(a, cells, &copy->cells_capacity, used, used + n, size))
      return 0;
    if (n && is_numbers) memcpy(copy->numbers + used * c->field->width, c->numbers + first * c->field->width, n * size);
    if (n && !is_numbers) memcpy(copy->ids + used, c->ids + first, n * size);
    copy->offsets[to->n + 1] = (uint32_t)(used + n);
  }
  to->n++;
  return 1;
}

/* The number of an item, which is added if it is new; UINT32_MAX if there is no memory. */
static uint32_t number_of(struct melu__draft *d, struct melu__draft_model *w, const melu_dataset *from, uint32_t item) {
  const struct melu_allocator *a = &w->whole->ctx->allocator;
  struct melu__table *items = &d->data.tables[MELU_ITEM];
  if (w->number[item]) return w->number[item] - 1;
  if (!melu__grow(a, &d->items, &d->items_capacity, d->n_items, d->n_items + 1, sizeof *d->items) ||
      !copy_entity(items, &from->tables[MELU_ITEM], item, a))
    return UINT32_MAX;
  d->items[d->n_items++] = item;
  w->number[item] = (uint32_t)d->n_items;
  return w->number[item] - 1;
}

/* A task's user, with those of her ratings that the task has, in its order. */
static int copy_task(struct melu__draft *d, struct melu__draft_model *w, const melu_batch *batch, size_t task) {
  const struct melu__task *t = &batch->tasks[task];
  const uint32_t *items;
  const float *ratings;
  melu_dataset_ratings(batch->data, t->user, &items, &ratings);
  d->batch.tasks[task] = *t;
  d->batch.tasks[task].user = (uint32_t)task;
  d->data.user_start[task + 1] = t->start + t->n_support + t->n_query;
  for (uint32_t k = 0; k < t->n_support + t->n_query; k++) {
    const uint32_t position = batch->positions[t->start + k], number = number_of(d, w, batch->data, items[position]);
    if (number == UINT32_MAX) return 0;
    d->batch.positions[t->start + k] = k;
    d->data.rating_item[t->start + k] = number;
    d->data.rating[t->start + k] = ratings[position];
  }
  return copy_entity(&d->data.tables[MELU_USER], &batch->data->tables[MELU_USER], t->user, &w->whole->ctx->allocator);
}

static int make_room(struct melu__draft *d, struct melu__draft_model *w, const melu_batch *batch) {
  const struct melu_allocator *a = &w->whole->ctx->allocator;
  const size_t n_items = melu_dataset_n_items(batch->data), n_tasks = batch->n_tasks, n = batch->n_positions;
  if (n_items > w->number_capacity) {
    if (!melu__grow(a, &w->number, &w->number_capacity, 0, n_items, sizeof *w->number)) return 0;
    memset(w->number, 0, w->number_capacity * sizeof *w->number);
  }
  return melu__grow(a, &d->batch.tasks, &d->batch.tasks_capacity, 0, n_tasks, sizeof *d->batch.tasks) &&
         melu__grow(a, &d->batch.positions, &d->batch.positions_capacity, 0, n, sizeof *d->batch.positions) &&
         melu__grow(a, &d->data.user_start, &d->start_capacity, 0, n_tasks + 1, sizeof *d->data.user_start) &&
         melu__grow(a, &d->data.rating_item, &d->rated_capacity, 0, n, sizeof *d->data.rating_item) &&
         melu__grow(a, &d->data.rating, &d->rating_capacity, 0, n, sizeof *d->data.rating);
}

static int copy_batch(struct melu__draft *d, struct melu__draft_model *w, const melu_batch *batch) {
  int copied = make_room(d, w, batch);
  d->n_items = d->data.tables[MELU_USER].n = d->data.tables[MELU_ITEM].n = 0;
  d->batch.n_tasks = batch->n_tasks;
  d->batch.n_positions = d->data.n_ratings = batch->n_positions;
  if (copied) d->data.user_start[0] = 0;
  for (size_t t = 0; t < batch->n_tasks && copied; t++) copied = copy_task(d, w, batch, t);
  for (size_t i = 0; i < d->n_items; i++) w->number[d->items[i]] = 0;
  return copied;
}

/* ---------------------------------------------------------------------------------------------------- rows */

#define LAST UINT32_MAX /* the table's last row, until it is known how many there are before it */

/* Ids become numbers of the rows that they touch. */
static int number_rows(struct melu__draft_table *t, const struct melu__param *p, struct melu__column *column,
                       size_t n_entities, const struct melu_allocator *a) {
  const size_t n_ids = column->offsets[n_entities];
  melu__row_map_clear(&t->map);
  t->has_last = 0;
  for (size_t i = 0; i < n_ids; i++) {
    const uint32_t row = column->ids[i];
    if (row + 1 == p->all_rows) {
      t->has_last = 1;
      column->ids[i] = LAST;
      continue;
    }
    column->ids[i] = melu__row_map_add(&t->map, a, row);
    if (column->ids[i] == UINT32_MAX) return 0;
  }
  for (size_t i = 0; i < n_ids; i++)
    if (column->ids[i] == LAST) column->ids[i] = (uint32_t)t->map.n;
  t->n_rows = t->map.n + (size_t)t->has_last;
  if (!melu__grow(a, &t->rows, &t->rows_capacity, 0, t->n_rows, sizeof *t->rows) ||
      !melu__grow(a, &t->order, &t->order_capacity, 0, t->n_rows, sizeof *t->order) ||
      !melu__grow(a, &t->values, &t->values_capacity, 0, (t->map.n + 1) * p->cols, sizeof *t->values))
    return 0;
  if (t->map.n) memcpy(t->rows, t->map.rows, t->map.n * sizeof *t->rows);
  if (t->has_last) t->rows[t->map.n] = (uint32_t)p->all_rows - 1;
  memset(t->values + t->map.n * p->cols, 0, p->cols * sizeof *t->values); /* nobody asks for it, or it will come */
  return 1;
}

static void sort_by_rank(struct melu__draft_table *t, const melu_context *ctx) {
  const size_t n = ctx->collective.n_ranks;
  memset(t->first, 0, (n + 1) * sizeof *t->first);
  for (size_t i = 0; i < t->n_rows; i++) t->first[melu__rank_of_slot(ctx, t->rows[i] % ctx->n_slots) + 1]++;
  for (size_t r = 0; r < n; r++) t->first[r + 1] += t->first[r];
  for (size_t i = 0; i < t->n_rows; i++)
    t->order[t->first[melu__rank_of_slot(ctx, t->rows[i] % ctx->n_slots)]++] = (uint32_t)i;
  for (size_t r = n; r > 0; r--) t->first[r] = t->first[r - 1];
  t->first[0] = 0;
}

/* Long lists of ids are kept sorted too: lib/data/column.h. */
static int sort_lists(struct melu__table *items, const struct melu_allocator *a) {
  melu__table_unprepare(items, a);
  if (!melu__table_prepare(items, a)) return 0;
  melu__table_finish(items);
  return 1;
}

int melu__draft_make(struct melu__draft *d, struct melu__draft_model *w, const melu_batch *batch) {
  const melu_context *ctx = w->whole->ctx;
  if (!copy_batch(d, w, batch)) return 0;
  for (size_t t = 0; t < w->whole->n_tables; t++) {
    const struct melu__table_use use = melu__embed_use(w->whole, t);
    struct melu__table *entities = &d->data.tables[use.owner];
    if (!w->whole->params[t].is_sharded) continue;
    if (!number_rows(&d->tables[t], &w->whole->params[t], &entities->columns[use.column], entities->n, &ctx->allocator))
      return 0;
    sort_by_rank(&d->tables[t], ctx);
  }
  return sort_lists(&d->data.tables[MELU_ITEM], &ctx->allocator);
}

void melu__draft_model_take(struct melu__draft_model *w, const struct melu__draft *d) {
  for (size_t t = 0; t < w->whole->n_tables; t++)
    if (w->params[t].is_sharded) {
      w->params[t].rows = d->tables[t].map.n + 1;
      w->params[t].data = d->tables[t].values;
    }
}
