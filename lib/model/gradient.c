/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/gradient.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

size_t melu__dense_offset(const melu_model *model, size_t i) {
  size_t offset = 0;
  for (size_t p = model->n_tables; p < i; p++) offset += model->params[p].rows * model->params[p].cols;
  return offset;
}

struct melu__gradient_part melu__gradient_part(const melu_gradient *g, size_t param) {
  const melu_model *model = g->model;
  if (model->params[param].is_table)
    return (struct melu__gradient_part){g->tables[param].values, g->tables[param].rows, g->tables[param].n};
  return (struct melu__gradient_part){g->dense + melu__dense_offset(model, param), NULL, model->params[param].rows};
}

melu_status melu__gradient_new(melu_gradient **out, const melu_model *model, melu_error *err) {
  const struct melu_allocator *a = &model->ctx->allocator;
  melu_gradient *g = melu__calloc(a, 1, sizeof *g);
  *out = NULL;
  if (!g) return melu__fail_memory(err);
  g->model = model;
  g->n_dense = melu__dense_offset(model, model->n_params);
  g->dense = melu__calloc(a, g->n_dense, sizeof *g->dense);
  g->tables = melu__calloc(a, model->n_tables, sizeof *g->tables);
  if (!g->dense || !g->tables) goto fail;
  for (size_t i = 0; i < model->n_tables; i++) g->tables[i].cols = model->params[i].cols;
  if (!melu__gradient_fit(g)) goto fail;
  *out = g;
  return MELU_OK;
fail:
  melu_gradient_free(g);
  return melu__fail_memory(err);
}

int melu__gradient_fit(melu_gradient *g) {
  for (size_t i = 0; i < g->model->n_tables; i++) {
    struct melu__table_grad *t = &g->tables[i];
    melu__table_grad_empty(t, t->n_slots);
    if (!melu__table_grad_fit(t, &g->model->ctx->allocator, g->model->params[i].rows)) return 0;
  }
  return 1;
}

melu_status melu_gradient_new(melu_gradient **out, const melu_model *model, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!model) return melu__fail(err, MELU_EINVAL, "model is NULL");
  const melu_status status = melu__check_whole(model, err);
  return status ? status : melu__gradient_new(out, model, err);
}

void melu_gradient_free(melu_gradient *g) {
  if (!g) return;
  const struct melu_allocator *a = &g->model->ctx->allocator;
  for (size_t i = 0; g->tables && i < g->model->n_tables; i++) melu__table_grad_free(&g->tables[i], a);
  if (g->free_outer) g->free_outer(g->outer, g->model);
  melu__free(a, g->tables);
  melu__free(a, g->dense);
  melu__free(a, g->losses);
  melu__free(a, g);
}

/* ------------------------------------------------------------------------------------------------ filling */

int melu__gradient_begin(melu_gradient *g, size_t n_tasks, size_t n_slots) {
  g->filled = 0;
  g->n_tasks = 0;
  g->loss = 0;
  for (size_t i = 0; i < g->model->n_tables; i++) melu__table_grad_empty(&g->tables[i], n_slots);
  return melu__grow(&g->model->ctx->allocator, &g->losses, &g->losses_capacity, 0, n_tasks, sizeof *g->losses);
}

/* ------------------------------------------------------------------------------------------------ reading */

double melu_gradient_loss(const melu_gradient *g, const double **losses) {
  const int filled = g && g->filled;
  if (losses) *losses = filled ? g->losses : NULL;
  return filled ? g->loss : 0;
}

static size_t n_rows(const melu_gradient *g, const struct melu__param *p) {
  if (!g->filled) return 0;
  return p->is_table ? g->tables[p - g->model->params].n : p->rows;
}

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static const real *row_values(const melu_gradient *g, const struct melu__param *p, uint32_t row) {
  const size_t i = (size_t)(p - g->model->params);
  if (p->is_table) return melu__table_grad_row(&g->tables[i], row);
  return g->dense + melu__dense_offset(g->model, i) + row * p->cols;
}

static void to_floats(float *to, const real *from, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = (float)from[i];
}

static melu_status find(const struct melu__param **out, const melu_gradient *g, const char *name, melu_error *err) {
  if (!g || !name) return melu__fail(err, MELU_EINVAL, "%s is NULL", g ? "name" : "gradient");
  *out = melu__model_find(g->model, name);
  if (!*out) return melu__fail(err, MELU_ENOTFOUND, "no parameter \"%.64s\"", name);
  return MELU_OK;
}

size_t melu_gradient_n_rows(const melu_gradient *g, const char *name) {
  const struct melu__param *p = g && name ? melu__model_find(g->model, name) : NULL;
  return p ? n_rows(g, p) : 0;
}

melu_status melu_gradient_read_rows(uint32_t *rows, float *values, const melu_gradient *g, const char *name,
                                    melu_error *err) {
  const struct melu__param *p = NULL;
  const melu_status status = find(&p, g, name, err);
  if (status) return status;
  const size_t n = n_rows(g, p);
  if (n && (!rows || !values)) return melu__fail(err, MELU_EINVAL, "%s is NULL", rows ? "values" : "rows");
  for (size_t k = 0; k < n; k++) rows[k] = p->is_table ? g->tables[p - g->model->params].rows[k] : (uint32_t)k;
  if (p->is_table && n) qsort(rows, n, sizeof *rows, ascending);
  for (size_t k = 0; k < n; k++) to_floats(values + k * p->cols, row_values(g, p, rows[k]), p->cols);
  return MELU_OK;
}

melu_status melu_gradient_read(float *values, const melu_gradient *g, const char *name, melu_error *err) {
  const struct melu__param *p = NULL;
  const melu_status status = find(&p, g, name, err);
  if (status) return status;
  if (!values) return melu__fail(err, MELU_EINVAL, "values is NULL");
  memset(values, 0, p->rows * p->cols * sizeof *values);
  for (size_t k = 0; k < n_rows(g, p); k++) {
    const uint32_t row = p->is_table ? g->tables[p - g->model->params].rows[k] : (uint32_t)k;
    to_floats(values + row * p->cols, row_values(g, p, row), p->cols);
  }
  return MELU_OK;
}
