/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "meta/packing.h"
#include "model/embed.h"

/* Mean and spread of the ratings that are trained on. */
static void set_scale(melu_model *model, const struct melu__ratings *r) {
  const double mean = r->sum / r->n, variance = r->squares / r->n - mean * mean;
  real *scale = model->factors[MELU__F_SCALE];
  if (model->options.loss == MELU_LOGISTIC) {
    const double p = fmin(fmax(mean, 1e-3), 1 - 1e-3);
    scale[0] = 0;
    model->factors[MELU__F_PRIOR][model->options.rank] = (real)log(p / (1 - p));
    return;
  }
  scale[0] = (real)mean;
  if (variance > 1e-12 * (1 + mean * mean)) scale[1] = (real)sqrt(variance);
}

/* ----------------------------------------------------------------------------------------------- counting */

/* That a row is somebody's. */
struct owned {
  uint32_t row, rank; /* of all rows; the rank that has it */
  uint64_t id;
};

/* Of one table: how many items, or users, of those that are trained on have each row that is stored here: 0, 1, or,
 * where one id an item may name it, 2 for more; and which one had it first. Of a sharded table, what is first listed to
 * be told. */
struct row_counts {
  unsigned char *count;
  uint64_t *first;
  struct owned *owned;
  size_t n_owned, capacity;
};

struct start {
  melu_model *model;
  struct melu__share share;
  melu_owner owner; /* of those that are being counted */
  struct row_counts *tables;
  int no_memory;
  struct melu__mail *mail;
  struct cursor {
    size_t table, at;
  } * cursors; /* of the message to each rank */
};

/* A table of one id an item. */
static int may_name(const melu_model *model, size_t table) {
  const struct melu__field *field = melu__table_field(model->schema, table);
  return field->owner == MELU_ITEM && !melu__kinds[field->kind].is_list;
}

static void count_row(struct row_counts *c, size_t row, unsigned count, uint64_t id) {
  if (c->count[row] == 0) {
    c->count[row] = (unsigned char)count;
    if (c->first) c->first[row] = id;
  } else if (c->first && (count > 1 || c->first[row] != id)) {
    c->count[row] = 2;
  }
}

static void list_row(struct start *s, struct row_counts *c, uint32_t row, uint64_t id) {
  const melu_context *ctx = s->model->ctx;
  if (!melu__grow(&ctx->allocator, &c->owned, &c->capacity, c->n_owned, c->n_owned + 1, sizeof *c->owned))
    s->no_memory = 1;
  else
    c->owned[c->n_owned++] = (struct owned){row, (uint32_t)melu__rank_of_slot(ctx, row % ctx->n_slots), id};
}

static void count_entity(void *arg, const melu_dataset *data, uint32_t entity) {
  struct start *s = arg;
  const uint64_t id = melu__table_id(&data->tables[s->owner], entity);
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const struct melu__table_use use = melu__embed_use(s->model, t);
    size_t n;
    if (use.owner != s->owner) continue;
    const uint32_t *ids = melu__column_ids(&data->tables[use.owner].columns[use.column], entity, &n);
    for (size_t j = 0; j < n; j++)
      if (s->model->params[t].is_sharded)
        list_row(s, &s->tables[t], ids[j], id);
      else
        count_row(&s->tables[t], ids[j], 1, id);
  }
}

static int by_rank(const void *a, const void *b) {
  const struct owned *x = a, *y = b;
  return (x->rank > y->rank) - (x->rank < y->rank);
}

static melu_status count_own(struct start *s, const struct melu__source *source, melu_error *err) {
  const struct melu_allocator *a = &s->model->ctx->allocator;
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const size_t n = s->model->params[t].rows;
    s->tables[t].count = melu__calloc(a, n, 1);
    if (may_name(s->model, t)) s->tables[t].first = melu__alloc(a, n, sizeof *s->tables[t].first);
    if (!s->tables[t].count || (may_name(s->model, t) && !s->tables[t].first)) return melu__fail_memory(err);
  }
  melu_status status = MELU_OK;
  for (int owner = 0; owner < 2 && !status; owner++) {
    s->owner = (melu_owner)owner;
    status = source->visit(source->arg, s->owner, count_entity, s, err);
  }
  if (!status && s->no_memory) status = melu__fail_memory(err);
  for (size_t t = 0; t < s->model->n_tables && !status; t++)
    if (s->tables[t].n_owned) qsort(s->tables[t].owned, s->tables[t].n_owned, sizeof *s->tables[t].owned, by_rank);
  return status;
}

/* -------------------------------------------------------------------------------------------- of all ranks */

struct counted {
  uint32_t table, row, count, unused;
  uint64_t first;
};

static int put_count(struct melu__packing *p, const struct counted *row) {
  if (p->left < sizeof *row) return 0;
  melu__put(p, row, sizeof *row);
  return 1;
}

/* What each row of a replicated table comes to, to everybody. What has come from others may be told once more. */
static int put_counts(const struct start *s, struct cursor *c, struct melu__packing *p) {
  const struct row_counts *t = &s->tables[c->table];
  for (; c->at < s->model->params[c->table].rows; c->at++) {
    const struct counted row = {(uint32_t)c->table, (uint32_t)c->at, t->count[c->at], 0,
                                t->first ? t->first[c->at] : 0};
    if (row.count && !put_count(p, &row)) return 0;
  }
  return 1;
}

/* Whose each row of a sharded table is, to who has it. */
static int put_owned(const struct start *s, size_t to, struct cursor *c, struct melu__packing *p) {
  const struct row_counts *t = &s->tables[c->table];
  for (; c->at < t->n_owned && t->owned[c->at].rank <= to; c->at++) {
    const struct counted row = {(uint32_t)c->table, t->owned[c->at].row, 1, 0, t->owned[c->at].id};
    if (t->owned[c->at].rank == to && !put_count(p, &row)) return 0;
  }
  return 1;
}

static size_t pack_counts(void *arg, size_t to, char *bytes, size_t room, int *more) {
  const struct start *s = arg;
  struct melu__packing p = {bytes, room};
  struct cursor *c = &s->cursors[to];
  for (; c->table < s->model->n_tables; c->table++, c->at = 0)
    if (!(s->model->params[c->table].is_sharded ? put_owned(s, to, c, &p) : put_counts(s, c, &p))) {
      *more = 1;
      break;
    }
  return room - p.left;
}

static void unpack_counts(void *arg, size_t from, const char *bytes, size_t n) {
  const struct start *s = arg;
  struct melu__unpacking p = {bytes, n};
  (void)from;
  while (p.left) {
    struct counted row;
    melu__get(&p, &row, sizeof row);
    count_row(&s->tables[row.table], melu__stored_row(s->model, row.table, &s->share, row.row), row.count, row.first);
  }
}

static melu_status count_all(struct start *s, const struct melu__source *source, melu_error *err) {
  const struct melu__letters letters = {s, pack_counts, unpack_counts, NULL};
  const struct melu_allocator *a = &s->model->ctx->allocator;
  s->tables = melu__calloc(a, s->model->n_tables, sizeof *s->tables);
  melu_status status = s->tables ? count_own(s, source, err) : melu__fail_memory(err);
  if (!s->mail) return status;
  s->cursors = melu__calloc(a, s->model->ctx->collective.n_ranks, sizeof *s->cursors);
  if (!status && !s->cursors) status = melu__fail_memory(err);
  if (status) melu__mail_fail(s->mail, status, err);
  return melu__mail_exchange(s->mail, &letters, err);
}

/* ------------------------------------------------------------------------------------------------------ all */

/* A table in which no row has two items names them: 1; 2 if some has, 0 if none has any. The last row, of unknown ids,
 * may have many. */
static double names_so_far(const struct start *s, size_t table) {
  const struct melu__param *p = &s->model->params[table];
  unsigned char most = 0;
  for (size_t k = 0; k < p->rows; k++) {
    const size_t row = p->is_sharded ? melu__share_row(&s->share, k) : k;
    if (row + 1 < p->all_rows && s->tables[table].count[k] > most) most = s->tables[table].count[k];
  }
  return most;
}

/* Which tables name items; zeros where nobody has a row: what training will not touch says nothing. */
static melu_status clear_tables(const struct start *s, melu_error *err) {
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const struct melu__param *p = &s->model->params[t];
    double names = may_name(s->model, t) ? names_so_far(s, t) : 0;
    const melu_status status = p->is_sharded ? melu__ranks_largest(s->mail->ranks, &names, err) : MELU_OK;
    if (status) return status;
    if (names == 1) s->model->factors[MELU__F_NAMES][t] = 1;
    for (size_t k = 0; k < p->rows; k++)
      if (!s->tables[t].count[k]) memset(p->data + k * p->cols, 0, p->cols * sizeof *p->data);
  }
  return MELU_OK;
}

static void release(struct start *s) {
  const struct melu_allocator *a = &s->model->ctx->allocator;
  for (size_t t = 0; s->tables && t < s->model->n_tables; t++) {
    melu__free(a, s->tables[t].count);
    melu__free(a, s->tables[t].first);
    melu__free(a, s->tables[t].owned);
  }
  melu__free(a, s->tables);
  melu__free(a, s->cursors);
}

melu_status melu__start(melu_model *model, const struct melu__source *source, const struct melu__ratings *ratings,
                        struct melu__mail *mail, melu_error *err) {
  struct start s = {.model = model, .share = melu__own_share(model->ctx), .mail = mail};
  if (!melu__is_factors(model)) return MELU_OK;
  melu_status status = count_all(&s, source, err);
  if (!status) status = clear_tables(&s, err);
  if (status) {
    melu__model_initialise(model); /* some tables may have been cleared */
  } else {
    set_scale(model, ratings);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  release(&s);
  return status;
}
