/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/embed.h"

#include <math.h>

#include "base/context.h"
#include "tensor/kernels.h"

static void embed_ids(const melu_model *model, const struct melu__param *table, const uint32_t *ids, size_t n,
                      real *row) {
  model->ctx->kernels->mean_rows(n, table->cols, table->data, ids, (uint32_t)(table->rows - 1), row);
}

static void embed_numbers(const struct melu__field *field, const float *numbers, real *row) {
  for (size_t j = 0; j < field->width; j++) row[j] = numbers ? (real)melu__field_input(field, numbers[j]) : 0;
}

/* The number of the owner's first table: those of items come before those of users. */
static size_t first_table(const melu_model *model, melu_owner owner) {
  size_t n = 0;
  const struct melu__field *field;
  if (owner == MELU_ITEM) return 0;
  for (size_t i = 0; (field = melu__schema_owner_field(model->schema, MELU_ITEM, i)) != NULL; i++)
    n += field->kind != MELU_NUMERIC;
  return n;
}

/* MELU_FACTORS: the sum over fields of the sum of the ids' rows over the root of their count; then the numbers. */
struct sum {
  const melu_model *model;
  real *row, *numbers; /* where the next field's go */
  real *is_new;        /* of an item: the name it should have says nothing; NULL for users */
  size_t width;
};

static struct sum sum_begin(const melu_model *model, melu_owner owner, real *row) {
  const size_t width = owner == MELU_ITEM ? melu__item_cols(&model->options) : melu__user_cols(&model->options);
  const int is_item = owner == MELU_ITEM;
  model->ctx->kernels->fill(1, width + (size_t)is_item, 0, (struct melu__mat){row, width});
  return (struct sum){model, row, row + width + is_item, is_item ? row + width : NULL, width};
}

static int is_zero(const struct melu__param *table, uint32_t id) {
  const real *row = table->data + (id < table->rows ? id : table->rows - 1) * table->cols;
  size_t j = 0;
  while (j < table->cols && row[j] == 0) j++;
  return j == table->cols;
}

static void sum_ids(struct sum *s, const struct melu__param *table, const uint32_t *ids, size_t n) {
  real mean[2 * MELU__MAX_RANK + 3];
  const struct melu__kernels *k = s->model->ctx->kernels;
  if (s->is_new && s->model->factors[MELU__F_NAMES][table - s->model->params] != 0)
    *s->is_new = n == 0 || is_zero(table, ids[0]);
  if (n == 0) return;
  k->mean_rows(n, s->width, table->data, ids, (uint32_t)(table->rows - 1), mean);
  k->axpy(1, s->width, (real)sqrt((double)n), (struct melu__cmat){mean, s->width}, (struct melu__mat){s->row, s->width});
}

static void sum_numbers(struct sum *s, const struct melu__field *field, const float *numbers) {
  embed_numbers(field, numbers, s->numbers);
  s->numbers += field->width;
}

static void sum_values(const melu_model *model, melu_owner owner, const struct melu_value *values, real *row) {
  const struct melu__param *table = model->params + first_table(model, owner);
  const struct melu__field *field;
  struct sum s = sum_begin(model, owner, row);
  for (size_t i = 0; (field = melu__schema_owner_field(model->schema, owner, i)) != NULL; i++, values++) {
    if (field->kind == MELU_NUMERIC)
      sum_numbers(&s, field, values->n_numbers ? values->numbers : NULL);
    else
      sum_ids(&s, table++, values->ids, values->n_ids);
  }
}

static void sum_entity(const melu_model *model, const struct melu__table *known, melu_owner owner, uint32_t entity,
                       real *row) {
  const struct melu__param *table = model->params + first_table(model, owner);
  struct sum s = sum_begin(model, owner, row);
  for (size_t i = 0; i < known->n_columns; i++) {
    const struct melu__column *column = &known->columns[i];
    size_t n;
    if (column->field->kind == MELU_NUMERIC) {
      sum_numbers(&s, column->field, melu__column_numbers(column, entity));
    } else {
      const uint32_t *ids = melu__column_ids(column, entity, &n);
      sum_ids(&s, table++, ids, n);
    }
  }
}

void melu__embed_values(const melu_model *model, melu_owner owner, const struct melu_value *values, real *row) {
  const struct melu__param *table = model->params + first_table(model, owner);
  const struct melu__field *field;
  if (model->options.network == MELU_FACTORS) {
    sum_values(model, owner, values, row);
    return;
  }
  for (size_t i = 0; (field = melu__schema_owner_field(model->schema, owner, i)) != NULL; i++, values++) {
    if (field->kind == MELU_NUMERIC)
      embed_numbers(field, values->n_numbers ? values->numbers : NULL, row);
    else
      embed_ids(model, table++, values->ids, values->n_ids, row);
    row += field->width;
  }
}

void melu__embed_many(const melu_model *model, const melu_dataset *data, melu_owner owner, const uint32_t *entities,
                      size_t n, real *rows) {
  const struct melu__param *table = model->params + first_table(model, owner);
  const struct melu__table *known = &data->tables[owner];
  const size_t width = owner == MELU_ITEM ? model->item_width : model->user_width;
  if (n == 0) return; /* `rows` may be NULL */
  if (model->options.network == MELU_FACTORS) {
    for (size_t k = 0; k < n; k++) sum_entity(model, known, owner, entities[k], rows + k * width);
    return;
  }
  for (size_t i = 0; i < known->n_columns; i++) {
    const struct melu__column *column = &known->columns[i];
    if (column->field->kind == MELU_NUMERIC) {
      for (size_t k = 0; k < n; k++)
        embed_numbers(column->field, melu__column_numbers(column, entities[k]), rows + k * width);
    } else {
      model->ctx->kernels->mean_rows_of(n, entities, column->offsets, table->cols, table->data, column->ids,
                                        (uint32_t)(table->rows - 1), rows, width);
      table++;
    }
    rows += column->field->width;
  }
}

void melu__embed(const melu_model *model, const melu_dataset *data, melu_owner owner, uint32_t entity, real *row) {
  melu__embed_many(model, data, owner, &entity, 1, row);
}

struct melu__table_use melu__embed_use(const melu_model *model, size_t table) {
  struct melu__table_use use = {MELU_ITEM, 0, 0};
  const size_t n_item_tables = first_table(model, MELU_USER);
  if (table >= n_item_tables) {
    use.owner = MELU_USER;
    table -= n_item_tables;
  }
  const struct melu__field *field;
  for (; (field = melu__schema_owner_field(model->schema, use.owner, use.column)) != NULL; use.column++) {
    if (field->kind != MELU_NUMERIC && table-- == 0) break;
    if (model->options.network == MELU_LAYERS) use.first_col += field->width;
  }
  return use;
}
