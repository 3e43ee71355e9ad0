/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/undo.h"

#include <string.h>

void melu__undo_free(struct melu__undo *undo) {
  if (!undo->model) return;
  const struct melu_allocator *a = &undo->model->ctx->allocator;
  melu__free(a, undo->rows);
  melu__free(a, undo->values);
  *undo = (struct melu__undo){0};
}

static void keep(struct melu__undo *undo, const real *values, size_t n) {
  memcpy(undo->values + undo->n_values, values, n * sizeof *values);
  undo->n_values += n;
}

int melu__undo_begin(struct melu__undo *undo, const melu_model *model, const size_t *n_rows) {
  const struct melu_allocator *a = &model->ctx->allocator;
  size_t rows = 0, values = 0;
  undo->model = model;
  undo->filled = 0;
  undo->n_rows = undo->n_values = 0;
  for (size_t i = 0; i < model->n_params; i++) {
    const size_t n = i < model->n_tables ? n_rows[i] : model->params[i].rows;
    if (i < model->n_tables) rows += n;
    values += n * model->params[i].cols;
  }
  if (!melu__grow(a, &undo->rows, &undo->rows_capacity, 0, rows, sizeof *undo->rows) ||
      !melu__grow(a, &undo->values, &undo->values_capacity, 0, values, sizeof *undo->values))
    return 0;
  for (size_t i = model->n_tables; i < model->n_params; i++)
    keep(undo, model->params[i].data, model->params[i].rows * model->params[i].cols);
  undo->filled = 1;
  return 1;
}

void melu__undo_add(struct melu__undo *undo, size_t table, size_t row) {
  const struct melu__param *p = &undo->model->params[table];
  undo->rows[undo->n_rows++] = (struct melu__undo_row){(uint32_t)table, (uint32_t)row};
  keep(undo, p->data + row * p->cols, p->cols);
}

void melu__undo_restore(struct melu__undo *undo, melu_model *model) {
  const real *values = undo->values;
  if (!undo->filled) return;
  for (size_t i = model->n_tables; i < model->n_params; i++) {
    const size_t n = model->params[i].rows * model->params[i].cols;
    memcpy(model->params[i].data, values, n * sizeof *values);
    values += n;
  }
  for (size_t k = 0; k < undo->n_rows; k++) {
    const struct melu__param *p = &model->params[undo->rows[k].table];
    memcpy(p->data + undo->rows[k].row * p->cols, values, p->cols * sizeof *values);
    values += p->cols;
  }
  undo->filled = 0;
  model->version++;
}
