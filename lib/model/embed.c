/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/embed.h"

#include <string.h>

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
  return owner == MELU_ITEM ? 0 : melu__n_item_tables(model->schema);
}

/* Whether what names an item is missing, or says nothing. */
static int is_new(const melu_model *model, const struct melu__param *table, const uint32_t *ids, size_t n) {
  if (n == 0 || ids[0] >= table->rows - 1) return 1;
  return model->ctx->kernels->largest(table->cols, table->data + ids[0] * table->cols) == 0;
}

/* MELU_FACTORS: where the parts of an owner's row are. */
static size_t sum_width(const melu_model *model, melu_owner owner) {
  return owner == MELU_ITEM ? melu__item_cols(&model->options) : melu__user_cols(&model->options);
}

static int is_named_by(const melu_model *model, const struct melu__param *table) {
  const size_t t = (size_t)(table - model->params);
  return t < first_table(model, MELU_USER) && model->factors[MELU__F_NAMES][t] != 0;
}

/* Adds what ids say to the n rows of that width, of which the k-th has ids[offsets[entities[k]] ...]. */
static void add_ids(const melu_model *model, melu_owner owner, const struct melu__param *table,
                    const uint32_t *entities, const uint32_t *offsets, const uint32_t *ids, size_t n, real *rows,
                    size_t width) {
  const size_t sum = sum_width(model, owner);
  model->ctx->kernels->add_rows_of(n, entities, offsets, sum, table->data, ids, (uint32_t)(table->rows - 1), rows,
                                   width);
  for (size_t k = 0; is_named_by(model, table) && k < n; k++) {
    const uint32_t begin = offsets[entities[k]], end = offsets[entities[k] + 1];
    rows[k * width + sum] = (real)is_new(model, table, begin < end ? ids + begin : NULL, end - begin);
  }
}

/* Where an owner's numbers begin. */
static size_t first_number(const melu_model *model, melu_owner owner) {
  return sum_width(model, owner) + (owner == MELU_ITEM);
}

static void sum_values(const melu_model *model, melu_owner owner, const struct melu_value *values, real *row) {
  const struct melu__param *table = model->params + first_table(model, owner);
  const struct melu__field *field;
  const uint32_t entity = 0;
  real *numbers = row + first_number(model, owner);
  model->ctx->kernels->fill(1, first_number(model, owner), 0, (struct melu__mat){row, 0});
  for (size_t i = 0; (field = melu__schema_owner_field(model->schema, owner, i)) != NULL; i++, values++) {
    if (melu__has_numbers(field)) {
      embed_numbers(field, values->n_numbers ? values->numbers : NULL, numbers);
      numbers += field->width;
    } else {
      const uint32_t offsets[] = {0, (uint32_t)values->n_ids};
      add_ids(model, owner, table++, &entity, offsets, values->ids, 1, row, 0);
    }
  }
}

static void sum_many(const melu_model *model, const struct melu__table *known, melu_owner owner,
                     const uint32_t *entities, size_t n, real *rows, size_t width) {
  const struct melu__param *table = model->params + first_table(model, owner);
  size_t number = first_number(model, owner);
  model->ctx->kernels->fill(n, number, 0, (struct melu__mat){rows, width});
  for (size_t i = 0; i < known->n_columns; i++) {
    const struct melu__column *column = &known->columns[i];
    if (melu__has_numbers(column->field)) {
      for (size_t k = 0; k < n; k++)
        embed_numbers(column->field, melu__column_numbers(column, entities[k]), rows + k * width + number);
      number += column->field->width;
    } else {
      add_ids(model, owner, table++, entities, column->offsets, column->ids, n, rows, width);
    }
  }
}

void melu__embed_values(const melu_model *model, melu_owner owner, const struct melu_value *values, real *row) {
  const struct melu__param *table = model->params + first_table(model, owner);
  const struct melu__field *field;
  if (melu__is_factors(model)) {
    sum_values(model, owner, values, row);
    return;
  }
  for (size_t i = 0; (field = melu__schema_owner_field(model->schema, owner, i)) != NULL; i++, values++) {
    if (melu__has_numbers(field))
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
  if (melu__is_factors(model)) {
    sum_many(model, known, owner, entities, n, rows, width);
    return;
  }
  for (size_t i = 0; i < known->n_columns; i++) {
    const struct melu__column *column = &known->columns[i];
    if (melu__has_numbers(column->field)) {
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

void melu__embed_profile(const melu_model *model, const struct melu_value *profile, real *row) {
  if (profile)
    melu__embed_values(model, MELU_USER, profile, row);
  else if (model->user_width)
    memset(row, 0, model->user_width * sizeof *row);
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
  for (;; use.column++) {
    const struct melu__field *field = melu__schema_owner_field(model->schema, use.owner, use.column);
    if (!melu__has_numbers(field) && table-- == 0) return use;
    if (!melu__is_factors(model)) use.first_col += field->width;
  }
}
