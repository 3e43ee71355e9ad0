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

/* How many items, or users, of those that are trained on have each row of each table: 0, 1, or 2 for more. */
struct row_counts {
  const melu_model *model;
  melu_owner owner; /* of those that are being counted */
  unsigned char **tables;
};

static void count_rows(void *arg, const melu_dataset *data, uint32_t entity) {
  const struct row_counts *c = arg;
  for (size_t t = 0; t < c->model->n_tables; t++) {
    const struct melu__table_use use = melu__embed_use(c->model, t);
    size_t n;
    if (use.owner != c->owner) continue;
    const uint32_t *ids = melu__column_ids(&data->tables[use.owner].columns[use.column], entity, &n);
    unsigned char *count = c->tables[t];
    for (size_t j = 0; j < n; j++) count[ids[j]] = (unsigned char)(count[ids[j]] + (count[ids[j]] < 2));
  }
}

/* A table of one id an item in which no row has two items names them. The last row, of unknown ids, may have many. */
static int is_name(const melu_model *model, size_t table, const unsigned char *count) {
  const struct melu__field *field = melu__table_field(model->schema, table);
  if (field->owner != MELU_ITEM || field->kind != MELU_ONE) return 0;
  int any = 0;
  for (size_t r = 0; r + 1 < model->params[table].rows; r++) {
    if (count[r] > 1) return 0;
    any |= count[r];
  }
  return any;
}

/* What training will not touch says nothing. */
static void clear_tables(melu_model *model, unsigned char *const *counts) {
  for (size_t t = 0; t < model->n_tables; t++) {
    const struct melu__param *p = &model->params[t];
    if (is_name(model, t, counts[t])) model->factors[MELU__F_NAMES][t] = 1;
    for (size_t r = 0; r < p->rows; r++)
      if (!counts[t][r]) memset(p->data + r * p->cols, 0, p->cols * sizeof *p->data);
  }
}

static melu_status count_all(struct row_counts *c, const struct melu__source *source, melu_error *err) {
  const melu_model *model = c->model;
  for (size_t t = 0; t < model->n_tables; t++) {
    c->tables[t] = melu__calloc(&model->ctx->allocator, model->params[t].rows, 1);
    if (!c->tables[t]) return melu__fail_memory(err);
  }
  melu_status status = MELU_OK;
  for (int owner = 0; owner < 2 && !status; owner++) {
    c->owner = (melu_owner)owner;
    status = source->visit(source->arg, c->owner, count_rows, c, err);
  }
  return status;
}

melu_status melu__start(melu_model *model, const struct melu__source *source, const struct melu__ratings *ratings,
                        melu_error *err) {
  const struct melu_allocator *a = &model->ctx->allocator;
  struct row_counts counts = {.model = model};
  if (!melu__is_factors(model)) return MELU_OK;
  counts.tables = melu__calloc(a, model->n_tables, sizeof *counts.tables);
  const melu_status status = counts.tables ? count_all(&counts, source, err) : melu__fail_memory(err);
  if (!status) {
    clear_tables(model, counts.tables);
    set_scale(model, ratings);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  for (size_t t = 0; counts.tables && t < model->n_tables; t++) melu__free(a, counts.tables[t]);
  melu__free(a, counts.tables);
  return status;
}
