/* SPDX-License-Identifier: BSD-3-Clause */
#include "model/gather_rows.h"

#include <string.h>

#include "base/error.h"

#define ROOM ((size_t)1 << 16) /* bytes of a block: the longest row fits */

static size_t row_bytes(const struct melu__param *p) {
  return p->cols * sizeof *p->data;
}

static size_t block_rows(const struct melu__param *p) {
  return ROOM / row_bytes(p);
}

static size_t count_blocks(const struct melu__param *p) {
  return (p->all_rows + block_rows(p) - 1) / block_rows(p);
}

static void free_gathering(struct melu__gathering *g) {
  const struct melu_allocator *a = &g->model->ctx->allocator;
  melu__mail_free(&g->mail);
  melu__free(a, g->block);
}

melu_status melu__gathering_begin(struct melu__gathering *g, const melu_model *model, size_t n_passes,
                                  melu_error *err) {
  const struct melu_allocator *a = &model->ctx->allocator;
  *g = (struct melu__gathering){.model = model, .ranks = melu__ranks_begin(model->ctx)};
  for (size_t t = 0; t < model->n_tables; t++)
    if (model->params[t].is_sharded) g->n_left += n_passes * count_blocks(&model->params[t]);
  g->block = melu__alloc(a, ROOM, 1);
  const int made = melu__mail_init(&g->mail, &g->ranks, a, ROOM) && g->block;
  const melu_status status = melu__ranks_agree(&g->ranks, made ? MELU_OK : melu__fail_memory(err), err);
  if (status) free_gathering(g);
  return status;
}

/* The first of a rank's rows from `row` on; the block's end if there is none. */
static size_t next_row(const struct melu__gathering *g, size_t rank, size_t row) {
  const melu_context *ctx = g->model->ctx;
  while (row < g->first + g->n && melu__rank_of_slot(ctx, row % ctx->n_slots) != rank) row++;
  return row;
}

static size_t pack_block(void *arg, size_t to, char *bytes, size_t room, int *more) {
  const struct melu__gathering *g = arg;
  const struct melu__share share = melu__own_share(g->model->ctx);
  const size_t size = row_bytes(g->table), rank = g->model->ctx->collective.rank;
  size_t n = 0;
  (void)room; /* a block's rows fit */
  (void)more;
  if (to != 0) return 0;
  for (size_t row = next_row(g, rank, g->first); row < g->first + g->n; row = next_row(g, rank, row + 1), n += size)
    memcpy(bytes + n, g->table->data + melu__share_number(&share, row) * g->table->cols, size);
  return n;
}

static void unpack_block(void *arg, size_t from, const char *bytes, size_t n) {
  struct melu__gathering *g = arg;
  const size_t size = row_bytes(g->table);
  size_t row = g->first;
  for (size_t at = 0; at < n; at += size, row++) {
    row = next_row(g, from, row);
    memcpy(g->block + (row - g->first) * g->table->cols, bytes + at, size);
  }
}

melu_status melu__gather_rows(struct melu__gathering *g, size_t table,
                              melu_status (*visit)(void *arg, const real *numbers, size_t n, melu_error *err),
                              void *arg, melu_error *err) {
  const struct melu__letters letters = {g, pack_block, unpack_block, NULL};
  const struct melu__param *p = g->table = &g->model->params[table];
  for (g->first = 0; g->first < p->all_rows; g->first += g->n) {
    g->n = p->all_rows - g->first < block_rows(p) ? p->all_rows - g->first : block_rows(p);
    melu_status status = melu__mail_exchange(&g->mail, &letters, err);
    g->is_over = status != MELU_OK;
    if (status) return status;
    g->n_left--;
    if (g->model->ctx->collective.rank == 0) status = visit(arg, g->block, g->n * p->cols, err);
    if (status) return status;
  }
  return MELU_OK;
}

/* As long as there are blocks to come, the others wait for one of them. */
melu_status melu__gathering_end(struct melu__gathering *g, melu_status mine, melu_error *err) {
  const struct melu__letters letters = {g, pack_block, unpack_block, NULL};
  if (mine) melu__mail_fail(&g->mail, mine, err);
  if (!g->is_over) mine = g->n_left ? melu__mail_exchange(&g->mail, &letters, err) : melu__mail_agree(&g->mail, err);
  free_gathering(g);
  return mine;
}
