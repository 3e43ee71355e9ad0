/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/undo.h"

#include <string.h>

int melu__undo_init(struct melu__undo *undo, const melu_model *model) {
  *undo = (struct melu__undo){.model = model};
  undo->n_rows = melu__calloc(&model->ctx->allocator, model->n_params, sizeof *undo->n_rows);
  return undo->n_rows != NULL;
}

void melu__undo_free(struct melu__undo *undo) {
  if (!undo->model) return;
  const struct melu_allocator *a = &undo->model->ctx->allocator;
  melu__free(a, undo->n_rows);
  melu__free(a, undo->rows);
  melu__free(a, undo->values);
  *undo = (struct melu__undo){0};
}

int melu__undo_save(struct melu__undo *undo, const melu_gradient *g) {
  const struct melu_allocator *a = &undo->model->ctx->allocator;
  size_t n_rows = 0, n_values = 0;
  undo->filled = 0;
  for (size_t i = 0; i < undo->model->n_params; i++) {
    undo->n_rows[i] = melu__gradient_part(g, i).n;
    n_rows += undo->n_rows[i];
    n_values += undo->n_rows[i] * undo->model->params[i].cols;
  }
  if (!melu__grow(a, &undo->rows, &undo->rows_capacity, 0, n_rows, sizeof *undo->rows) ||
      !melu__grow(a, &undo->values, &undo->values_capacity, 0, n_values, sizeof *undo->values))
    return 0;
  uint32_t *rows = undo->rows;
  real *values = undo->values;
  for (size_t i = 0; i < undo->model->n_params; i++) {
    const struct melu__param *p = &undo->model->params[i];
    const struct melu__gradient_part part = melu__gradient_part(g, i);
    for (size_t k = 0; k < part.n; k++, values += p->cols) {
      const size_t row = part.rows ? part.rows[k] : k;
      *rows++ = (uint32_t)row;
      memcpy(values, p->data + row * p->cols, p->cols * sizeof *values);
    }
  }
  undo->filled = 1;
  return 1;
}

void melu__undo_restore(struct melu__undo *undo, melu_model *model) {
  const uint32_t *rows = undo->rows;
  const real *values = undo->values;
  if (!undo->filled) return;
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    for (size_t k = 0; k < undo->n_rows[i]; k++, values += p->cols)
      memcpy(p->data + *rows++ * p->cols, values, p->cols * sizeof *values);
  }
  undo->filled = 0;
  model->version++;
}
