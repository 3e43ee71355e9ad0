/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/start.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/embed.h"

/* A new model, and what is found out about those who are trained on. */
struct start {
  melu_model *model;
  const melu_dataset *items;
  unsigned char *is_rated; /* (items) */
  unsigned char **count;   /* (tables), (rows): how many items, or users, have each row: 0, 1, or 2 for more */
  double sum, squares, n_ratings;
};

/* ---------------------------------------------------------------------------------------------------- the ratings */

static void count_ids(unsigned char *count, const struct melu__column *column, size_t entity) {
  size_t n_ids;
  const uint32_t *ids = melu__column_ids(column, entity, &n_ids);
  for (size_t j = 0; j < n_ids; j++) count[ids[j]] = (unsigned char)(count[ids[j]] + (count[ids[j]] < 2));
}

static void count_user(const struct start *s, const melu_dataset *data, uint32_t user) {
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const struct melu__table_use use = melu__embed_use(s->model, t);
    if (use.owner == MELU_USER) count_ids(s->count[t], &data->tables[MELU_USER].columns[use.column], user);
  }
}

static melu_status look_at_users(void *arg, size_t slot, const melu_dataset *data, const uint32_t *users, size_t n,
                                 melu_error *err) {
  struct start *s = arg;
  (void)slot;
  (void)err;
  for (size_t i = 0; i < n; i++) {
    const uint32_t *items;
    const float *ratings;
    const size_t n_ratings = melu_dataset_ratings(data, users[i], &items, &ratings);
    count_user(s, data, users[i]);
    for (size_t k = 0; k < n_ratings; k++) {
      s->is_rated[items[k]] = 1;
      s->sum += ratings[k];
      s->squares += (double)ratings[k] * ratings[k];
    }
    s->n_ratings += (double)n_ratings;
  }
  return MELU_OK;
}

static void count_items(const struct start *s) {
  for (size_t t = 0; t < s->model->n_tables; t++) {
    const struct melu__table_use use = melu__embed_use(s->model, t);
    for (size_t i = 0; i < melu_dataset_n_items(s->items) && use.owner == MELU_ITEM; i++)
      if (s->is_rated[i]) count_ids(s->count[t], &s->items->tables[MELU_ITEM].columns[use.column], i);
  }
}

/* ------------------------------------------------------------------------------------------------------ the model */

/* Mean and spread of the ratings that are trained on. */
static void set_scale(const struct start *s) {
  const double mean = s->sum / s->n_ratings, variance = s->squares / s->n_ratings - mean * mean;
  real *scale = s->model->factors[MELU__F_SCALE];
  if (s->model->options.loss == MELU_LOGISTIC) {
    const double p = fmin(fmax(mean, 1e-3), 1 - 1e-3);
    scale[0] = 0;
    s->model->factors[MELU__F_PRIOR][s->model->options.rank] = (real)log(p / (1 - p));
    return;
  }
  scale[0] = (real)mean;
  if (variance > 1e-12 * (1 + mean * mean)) scale[1] = (real)sqrt(variance);
}

/* A table of one id an item in which no row has two items names them. The last row, of unknown ids, may have many. */
static int is_name(const struct start *s, size_t table) {
  const struct melu__field *field = melu__table_field(s->model->schema, table);
  if (field->owner != MELU_ITEM || field->kind != MELU_ONE) return 0;
  int any = 0;
  for (size_t r = 0; r + 1 < s->model->params[table].rows; r++) {
    if (s->count[table][r] > 1) return 0;
    any |= s->count[table][r];
  }
  return any;
}

/* What training will not touch says nothing. */
static void clear_rows(const struct start *s, size_t t) {
  const struct melu__param *p = &s->model->params[t];
  if (is_name(s, t)) s->model->factors[MELU__F_NAMES][t] = 1;
  for (size_t r = 0; r < p->rows; r++)
    if (!s->count[t][r]) memset(p->data + r * p->cols, 0, p->cols * sizeof *p->data);
}

static int allocate(struct start *s) {
  const struct melu_allocator *a = &s->model->ctx->allocator;
  s->is_rated = melu__calloc(a, melu_dataset_n_items(s->items), 1);
  s->count = melu__calloc(a, s->model->n_tables, sizeof *s->count);
  if (!s->is_rated || !s->count) return 0;
  for (size_t t = 0; t < s->model->n_tables; t++) {
    s->count[t] = melu__calloc(a, s->model->params[t].rows, 1);
    if (!s->count[t]) return 0;
  }
  return 1;
}

static void release(struct start *s) {
  const struct melu_allocator *a = &s->model->ctx->allocator;
  for (size_t t = 0; s->count && t < s->model->n_tables; t++) melu__free(a, s->count[t]);
  melu__free(a, s->count);
  melu__free(a, s->is_rated);
}

melu_status melu__start(melu_model *model, struct melu__source *source, melu_error *err) {
  struct start s = {.model = model, .items = source->items};
  if (!melu__is_factors(model)) return MELU_OK;
  melu_status status = allocate(&s) ? MELU_OK : melu__fail_memory(err);
  if (!status) status = source->kind->visit(source, look_at_users, &s, err);
  if (!status) {
    count_items(&s);
    for (size_t t = 0; t < model->n_tables; t++) clear_rows(&s, t);
    set_scale(&s);
    model->version++;
    model->largest = (real)melu__model_largest(model);
  }
  release(&s);
  return status;
}
