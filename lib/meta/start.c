/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/start.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/embed.h"

/* A new model, and what it is going to be trained on. */
struct start {
  melu_model *model;
  const melu_dataset *data;
  const uint32_t *users;
  size_t n_users;
};

/* Mean and spread of the ratings that are trained on. */
static void set_scale(struct start *s) {
  double sum = 0, squares = 0, n_ratings = 0;
  for (size_t i = 0; i < s->n_users; i++) {
    const float *ratings;
    const size_t n = melu_dataset_ratings(s->data, s->users[i], NULL, &ratings);
    for (size_t k = 0; k < n; k++) {
      sum += ratings[k];
      squares += (double)ratings[k] * ratings[k];
    }
    n_ratings += (double)n;
  }
  const double mean = sum / n_ratings, variance = squares / n_ratings - mean * mean;
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

/* How many items, or users, of those that are trained on have each row of a table: 0, 1, or 2 for more. */
static void count_rows(const struct start *s, size_t table, const unsigned char *is_rated, unsigned char *count) {
  const struct melu__table_use use = melu__embed_use(s->model, table);
  const struct melu__column *column = &s->data->tables[use.owner].columns[use.column];
  const size_t n = use.owner == MELU_ITEM ? melu_dataset_n_items(s->data) : s->n_users;
  for (size_t i = 0; i < n; i++) {
    const size_t entity = use.owner == MELU_ITEM ? i : s->users[i];
    size_t n_ids;
    const uint32_t *ids = melu__column_ids(column, entity, &n_ids);
    if (use.owner == MELU_ITEM && !is_rated[i]) continue;
    for (size_t j = 0; j < n_ids; j++) count[ids[j]] = (unsigned char)(count[ids[j]] + (count[ids[j]] < 2));
  }
}

/* A table of one id an item in which no row has two items names them. The last row, of unknown ids, may have many. */
static int is_name(const struct start *s, size_t table, const unsigned char *count) {
  const struct melu__field *field = melu__table_field(s->model->schema, table);
  if (field->owner != MELU_ITEM || melu__kinds[field->kind].is_list) return 0;
  int any = 0;
  for (size_t r = 0; r + 1 < s->model->params[table].rows; r++) {
    if (count[r] > 1) return 0;
    any |= count[r];
  }
  return any;
}

/* What training will not touch says nothing. */
static void clear_table(struct start *s, size_t t, const unsigned char *is_rated, unsigned char *count) {
  const struct melu__param *p = &s->model->params[t];
  memset(count, 0, p->rows);
  count_rows(s, t, is_rated, count);
  if (is_name(s, t, count)) s->model->factors[MELU__F_NAMES][t] = 1;
  for (size_t r = 0; r < p->rows; r++)
    if (!count[r]) memset(p->data + r * p->cols, 0, p->cols * sizeof *p->data);
}

static melu_status clear_rows(struct start *s, melu_error *err) {
  const struct melu_allocator *a = &s->model->ctx->allocator;
  size_t most = 0;
  for (size_t t = 0; t < s->model->n_tables; t++)
    if (s->model->params[t].rows > most) most = s->model->params[t].rows;
  unsigned char *is_rated = melu__calloc(a, melu_dataset_n_items(s->data), 1), *count = melu__alloc(a, most, 1);
  if (!is_rated || !count) {
    melu__free(a, is_rated);
    melu__free(a, count);
    return melu__fail_memory(err);
  }
  for (size_t i = 0; i < s->n_users; i++) {
    const uint32_t *items;
    const size_t n = melu_dataset_ratings(s->data, s->users[i], &items, NULL);
    for (size_t k = 0; k < n; k++) is_rated[items[k]] = 1;
  }
  for (size_t t = 0; t < s->model->n_tables; t++) clear_table(s, t, is_rated, count);
  melu__free(a, is_rated);
  melu__free(a, count);
  return MELU_OK;
}

melu_status melu__start(melu_model *model, const melu_dataset *data, const uint32_t *users, size_t n_users,
                        melu_error *err) {
  struct start s = {model, data, users, n_users};
  if (!melu__is_factors(model)) return MELU_OK;
  const melu_status status = clear_rows(&s, err);
  if (status) return status;
  set_scale(&s);
  model->version++;
  model->largest = (real)melu__model_largest(model);
  return MELU_OK;
}
