/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows of sharded tables: a batch asks for those that it touches, and who has them answers. */
#include "base/error.h"
#include "meta/exchange.h"
#include "meta/exchange_parts.h"

static struct melu__asked *asked_of(const struct melu__exchange *x, size_t rank, size_t table) {
  return &x->asked[rank * x->model->n_tables + table];
}

static uint32_t section_of(const struct melu__exchange *x, size_t table) {
  return (uint32_t)(x->model->n_tables + 1 + table);
}

void melu__forget_asks(struct melu__exchange *x) {
  for (size_t i = 0; i < melu__n_ranks(x) * x->model->n_tables; i++) x->asked[i].n = x->asked[i].n_come = 0;
}

/* The next part of what is said of a table's n rows, `size` bytes each: how many. */
static size_t begin_section(const struct melu__exchange *x, struct melu__cursor *c, size_t n, size_t size,
                            struct melu__packing *p) {
  struct melu__section section = {.what = section_of(x, c->table)};
  section.n = (uint32_t)melu__fitting(p, n - c->row, size);
  if (section.n) melu__put(p, &section, sizeof section);
  return section.n;
}

int melu__put_asks(struct melu__exchange *x, size_t to, struct melu__packing *p) {
  struct melu__cursor *c = &x->cursors[to];
  for (; x->next && c->table < x->model->n_tables; c->table++, c->row = 0) {
    const struct melu__draft_table *t = &x->next->tables[c->table];
    const size_t first = t->first[to], n_rows = t->first[to + 1] - first;
    if (!x->model->params[c->table].is_sharded || n_rows == 0) continue;
    const size_t n = begin_section(x, c, n_rows, sizeof *t->rows, p);
    for (size_t i = 0; i < n; i++, c->row++) melu__put(p, &t->rows[t->order[first + c->row]], sizeof *t->rows);
    if (c->row < n_rows) return 0;
  }
  return 1;
}

void melu__get_asks(struct melu__exchange *x, size_t from, const struct melu__section *section,
                    struct melu__unpacking *p) {
  const size_t table = section->what - x->model->n_tables - 1;
  struct melu__asked *asked = asked_of(x, from, table);
  if (!melu__grow(&x->model->ctx->allocator, &asked->rows, &asked->capacity, asked->n, asked->n + section->n,
                  sizeof *asked->rows)) {
    p->left = 0;
    melu__exchange_out_of_memory(x);
    return;
  }
  for (size_t i = 0; i < section->n; i++) {
    uint32_t row;
    melu__get(p, &row, sizeof row);
    asked->rows[asked->n++] = (uint32_t)melu__share_number(&x->share, row);
  }
}

int melu__put_answers(struct melu__exchange *x, size_t to, struct melu__packing *p) {
  struct melu__cursor *c = &x->cursors[to];
  for (; c->table < x->model->n_tables; c->table++, c->row = 0) {
    const struct melu__asked *asked = asked_of(x, to, c->table);
    const struct melu__param *param = &x->model->params[c->table];
    const size_t size = param->cols * sizeof *param->data;
    if (asked->n == 0) continue;
    const size_t n = begin_section(x, c, asked->n, size, p);
    for (size_t i = 0; i < n; i++, c->row++) melu__put(p, param->data + asked->rows[c->row] * param->cols, size);
    if (c->row < asked->n) return 0;
  }
  return 1;
}

void melu__get_answers(struct melu__exchange *x, size_t from, const struct melu__section *section,
                       struct melu__unpacking *p) {
  const size_t table = section->what - x->model->n_tables - 1, cols = x->model->params[table].cols;
  struct melu__asked *asked = asked_of(x, from, table);
  struct melu__draft_table *t = &x->next->tables[table];
  for (size_t i = 0; i < section->n; i++) {
    const uint32_t number = t->order[t->first[from] + asked->n_come++];
    melu__get(p, t->values + number * cols, cols * sizeof *t->values);
  }
}

static size_t pack_asks(void *arg, size_t to, char *bytes, size_t room, int *more) {
  struct melu__packing p = {bytes, room};
  if (!melu__put_asks(arg, to, &p)) *more = 1;
  return room - p.left;
}

static size_t pack_answers(void *arg, size_t to, char *bytes, size_t room, int *more) {
  struct melu__packing p = {bytes, room};
  if (!melu__put_answers(arg, to, &p)) *more = 1;
  return room - p.left;
}

static void unpack_asks(void *arg, size_t from, const char *bytes, size_t n) {
  struct melu__unpacking p = {bytes, n};
  struct melu__section section;
  while (p.left) {
    melu__get(&p, &section, sizeof section);
    melu__get_asks(arg, from, &section, &p);
  }
}

static void unpack_answers(void *arg, size_t from, const char *bytes, size_t n) {
  struct melu__unpacking p = {bytes, n};
  struct melu__section section;
  while (p.left) {
    melu__get(&p, &section, sizeof section);
    melu__get_answers(arg, from, &section, &p);
  }
}

melu_status melu__exchange_rows(struct melu__exchange *x, melu_error *err) {
  const struct melu__letters asks = {x, pack_asks, unpack_asks, NULL},
                             answers = {x, pack_answers, unpack_answers, NULL};
  melu__forget_asks(x);
  const melu_status status = melu__exchange_letters(x, &asks, err);
  return status ? status : melu__exchange_letters(x, &answers, err);
}
