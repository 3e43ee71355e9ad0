/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/start.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
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

/* Of one table: how many items, or users, of those that are trained on have each row: 0, 1, or, where one id an item
 * may name it, 2 for more; and which one had it first. */
struct row_counts {
  unsigned char *count;
  uint64_t *first;
};

struct start {
  melu_model *model;
  melu_owner owner; /* of those that are being counted */
  struct row_counts *tables;
  struct melu__mail *mail;
  struct cursor {
    size_t table, row;
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

static void count_entity(void *arg, const melu_dataset *data, uint32_t entity) {
  struct start *s = arg;
  const uint64_t id = melu__table_id(&data->tables[s->owner], entity);
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const struct melu__table_use use = melu__embed_use(s->model, t);
    size_t n;
    if (use.owner != s->owner) continue;
    const uint32_t *ids = melu__column_ids(&data->tables[use.owner].columns[use.column], entity, &n);
    for (size_t j = 0; j < n; j++) count_row(&s->tables[t], ids[j], 1, id);
  }
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
  return status;
}

/* -------------------------------------------------------------------------------------------- of all ranks */

struct counted {
  uint32_t table, row, count, unused;
  uint64_t first;
};

/* What has come from other ranks meanwhile may be told once more. */
static size_t pack_counts(void *arg, size_t to, char *bytes, size_t room, int *more) {
  const struct start *s = arg;
  struct cursor *c = &s->cursors[to];
  size_t n = 0;
  for (; c->table < s->model->n_tables; *c = (struct cursor){c->table + 1, 0}) {
    const struct row_counts *t = &s->tables[c->table];
    for (; c->row < s->model->params[c->table].rows; c->row++) {
      if (!t->count[c->row]) continue;
      if (room - n < sizeof(struct counted)) {
        *more = 1;
        return n;
      }
      const struct counted row = {(uint32_t)c->table, (uint32_t)c->row, t->count[c->row], 0,
                                  t->first ? t->first[c->row] : 0};
      memcpy(bytes + n, &row, sizeof row);
      n += sizeof row;
    }
  }
  return n;
}

static void unpack_counts(void *arg, size_t from, const char *bytes, size_t n) {
  const struct start *s = arg;
  (void)from;
  for (size_t at = 0; at < n; at += sizeof(struct counted)) {
    struct counted row;
    memcpy(&row, bytes + at, sizeof row);
    count_row(&s->tables[row.table], row.row, row.count, row.first);
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

/* A table in which no row has two items names them. The last row, of unknown ids, may have many. */
static int is_name(const struct start *s, size_t table) {
  int any = 0;
  for (size_t r = 0; r + 1 < s->model->params[table].rows; r++) {
    if (s->tables[table].count[r] > 1) return 0;
    any |= s->tables[table].count[r];
  }
  return any && may_name(s->model, table);
}

/* What training will not touch says nothing. */
static void clear_tables(const struct start *s) {
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const struct melu__param *p = &s->model->params[t];
    if (is_name(s, t)) s->model->factors[MELU__F_NAMES][t] = 1;
    for (size_t r = 0; r < p->rows; r++)
      if (!s->tables[t].count[r]) memset(p->data + r * p->cols, 0, p->cols * sizeof *p->data);
  }
}

static void release(struct start *s) {
  const struct melu_allocator *a = &s->model->ctx->allocator;
  for (size_t t = 0; s->tables && t < s->model->n_tables; t++) {
    melu__free(a, s->tables[t].count);
    melu__free(a, s->tables[t].first);
  }
  melu__free(a, s->tables);
  melu__free(a, s->cursors);
}

melu_status melu__start(melu_model *model, const struct melu__source *source, const struct melu__ratings *ratings,
                        struct melu__mail *mail, melu_error *err) {
  struct start s = {.model = model, .mail = mail};
  if (!melu__is_factors(model)) return MELU_OK;
  const melu_status status = count_all(&s, source, err);
  if (!status) {
    clear_tables(&s);
    set_scale(model, ratings);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  release(&s);
  return status;
}
