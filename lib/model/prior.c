/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/prior.h"

#include <math.h>
#include <string.h>

#include "tensor/kernels.h"

int melu__prior_init(struct melu__prior *p, const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  p->model = model;
  p->last = melu__calloc(a, model->n_tables, sizeof *p->last);
  if (!p->last) return 0;
  for (size_t i = 0; i < model->n_tables; i++) {
    p->last[i] = melu__calloc(a, model->params[i].rows, sizeof **p->last);
    if (!p->last[i]) return 0;
  }
  return 1;
}

void melu__prior_free(struct melu__prior *p) {
  if (!p->model) return;
  const struct melu_allocator *a = &p->model->ctx->allocator;
  for (size_t i = 0; p->last && i < p->model->n_tables; i++) melu__free(a, p->last[i]);
  melu__free(a, p->last);
}

/* Columns [first, first + n) of a parameter with a prior of their own. */
struct group {
  size_t first, n;
  double prior;
};

/* Biases, and what is no weight, have no prior. */
static int is_weight(const melu_model *model, const struct melu__param *what) {
  static const enum melu__factor_param weights[] = {MELU__F_POOL, MELU__F_POOL_RATED, MELU__F_H1, MELU__F_H2,
                                                    MELU__F_N_USER};
  if (!melu__is_factors(model)) return what->name[0] == 'W';
  for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
    if (what->data == model->factors[weights[i]]) return 1;
  return 0;
}

static size_t groups_of(struct group groups[3], const struct melu__prior *p, size_t param) {
  const melu_model *model = p->model;
  const struct melu__param *what = &model->params[param];
  const size_t rank = model->options.rank;
  const int is_factors = melu__is_factors(model);
  const int is_item = what->is_table ? melu__table_field(model->schema, param)->owner == MELU_ITEM
                                     : is_factors && param == model->n_tables + model->factor_weight[MELU__F_N_ITEM];
  if (is_factors && is_item) {
    groups[0] = (struct group){0, rank, p->vectors};
    groups[1] = (struct group){rank, 1, p->offsets};
    groups[2] = (struct group){rank + 1, what->cols - rank - 1, p->pooled};
    return 3;
  }
  if (!what->is_table && !is_weight(model, what)) return 0;
  groups[0] = (struct group){0, what->cols, what->is_table ? p->vectors : p->dense};
  return 1;
}

/* To columns [first, end) of a row. */
static void add_row(const struct melu__prior *p, size_t param, size_t row, size_t first, size_t end, real *g,
                    double shares) {
  const struct melu__param *what = &p->model->params[param];
  struct group groups[3];
  const size_t n = groups_of(groups, p, param);
  for (size_t i = 0; i < n; i++) {
    const struct group *c = &groups[i];
    const size_t from = c->first > first ? c->first : first, to = c->first + c->n < end ? c->first + c->n : end;
    const real times = (real)(2 * c->prior / p->n_ratings * shares);
    if (times == 0 || from >= to) continue;
    p->model->ctx->kernels->axpy(1, to - from, times,
                                 (struct melu__cmat){what->data + row * what->cols + from, to - from},
                                 (struct melu__mat){g + from, to - from});
  }
}

static void see_largest(const melu_model *model, melu_gradient *g, size_t n, const real *values) {
  const real largest = model->ctx->kernels->largest(n, values);
  if (largest > g->largest) g->largest = largest;
}

static void add_to_table(struct melu__prior *p, melu_gradient *g, size_t table) {
  const struct melu__table_grad *t = &g->tables[table];
  const uint32_t step = (uint32_t)p->step;
  for (size_t k = 0; k < t->n; k++) {
    uint32_t *last = &p->last[table][t->rows[k]];
    add_row(p, table, t->rows[k], 0, t->cols, t->values + k * t->cols, (double)(step - *last));
    *last = step;
  }
  see_largest(p->model, g, t->n * t->cols, t->values);
}

/* To numbers [begin, end) of the dense gradient, of which the parameter's begin at `at`. */
static void add_to_dense(const struct melu__prior *p, melu_gradient *g, size_t param, size_t at, size_t begin,
                         size_t end) {
  const struct melu__param *what = &p->model->params[param];
  const size_t n = what->rows * what->cols, first = begin > at ? begin - at : 0, last = end < at + n ? end - at : n;
  if (end <= at || first >= last) return;
  for (size_t row = first / what->cols; row * what->cols < last; row++) {
    const size_t start = row * what->cols, from = first > start ? first - start : 0,
                 to = last < start + what->cols ? last - start : what->cols;
    add_row(p, param, row, from, to, g->dense + at + start, 1);
  }
  see_largest(p->model, g, last - first, g->dense + at + first);
}

void melu__prior_add(struct melu__prior *p, melu_gradient *g, const struct melu__share *share) {
  const melu_model *model = p->model;
  const size_t begin = melu__dense_begin(g, share->own.lo, share->n_slots),
               end = melu__dense_begin(g, share->own.hi, share->n_slots);
  if (p->vectors == 0 && p->offsets == 0 && p->pooled == 0 && p->dense == 0) return;
  p->step++;
  for (size_t i = 0, at = 0; i < model->n_params; i++) {
    if (i < model->n_tables) {
      add_to_table(p, g, i);
      continue;
    }
    add_to_dense(p, g, i, at, begin, end);
    at += model->params[i].rows * model->params[i].cols;
  }
}
