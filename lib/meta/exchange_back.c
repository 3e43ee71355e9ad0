/* SPDX-License-Identifier: BSD-3-Clause */
/* What all ranks are to know: a few numbers before an update, and the weights after it. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/exchange.h"
#include "meta/exchange_parts.h"

/* ------------------------------------------------------------------------------------------------- numbers */

int melu__numbers_init(struct melu__numbers *numbers, const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  *numbers = (struct melu__numbers){.losses = melu__calloc(a, model->ctx->n_slots, sizeof *numbers->losses),
                                    .squares = melu__calloc(a, model->ctx->n_slots, sizeof *numbers->squares),
                                    .n_rows = melu__calloc(a, model->n_tables, sizeof *numbers->n_rows)};
  return numbers->losses && numbers->squares && numbers->n_rows;
}

void melu__numbers_free(struct melu__numbers *numbers, const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  melu__free(a, numbers->losses);
  melu__free(a, numbers->squares);
  melu__free(a, numbers->n_rows);
}

void melu__numbers_clear(struct melu__numbers *numbers, const melu_model *model) {
  numbers->largest = numbers->n_query = 0;
  memset(numbers->losses, 0, model->ctx->n_slots * sizeof *numbers->losses);
  memset(numbers->squares, 0, model->ctx->n_slots * sizeof *numbers->squares);
  memset(numbers->n_rows, 0, model->n_tables * sizeof *numbers->n_rows);
}

/* A rank's words: these, how many rows it updates of each table, and loss and squares of each of its slots. */
enum { HAS_FAILED, LARGEST, N_QUERY, N_ROWS };

static size_t count_words(const struct melu__exchange *x, size_t rank) {
  const struct melu__slots slots = melu__slots_of_rank(x->model->ctx, rank);
  return N_ROWS + x->model->n_tables + 2 * (size_t)(slots.hi - slots.lo);
}

int melu__exchange_allocate_numbers(struct melu__exchange *x) {
  const struct melu_allocator *a = &x->model->ctx->allocator;
  const size_t n = melu__n_ranks(x);
  size_t n_words = 0;
  for (size_t r = 0; r < n; r++) n_words += count_words(x, r);
  x->words = melu__calloc(a, n_words, sizeof *x->words);
  x->word_counts = melu__alloc(a, n, sizeof *x->word_counts);
  for (size_t r = 0; x->word_counts && r < n; r++) x->word_counts[r] = count_words(x, r) * sizeof *x->words;
  return x->words && x->word_counts;
}

static double *words_of(const struct melu__exchange *x, size_t rank) {
  double *words = x->words;
  for (size_t r = 0; r < rank; r++) words += count_words(x, r);
  return words;
}

static void say(struct melu__exchange *x, const struct melu__numbers *numbers) {
  double *words = words_of(x, melu__own_rank(x));
  words[HAS_FAILED] = x->mail.failure.status != MELU_OK;
  words[LARGEST] = numbers->largest;
  words[N_QUERY] = numbers->n_query;
  words += N_ROWS;
  for (size_t t = 0; t < x->model->n_tables; t++) *words++ = (double)numbers->n_rows[t];
  for (size_t s = x->share.own.lo; s < x->share.own.hi; s++) {
    *words++ = numbers->losses[s];
    *words++ = numbers->squares[s];
  }
}

/* Returns whether the rank has failed. */
static int hear(const struct melu__exchange *x, struct melu__numbers *numbers, size_t rank) {
  const struct melu__slots slots = melu__slots_of_rank(x->model->ctx, rank);
  const double *words = words_of(x, rank);
  const int has_failed = words[HAS_FAILED] != 0;
  numbers->largest = fmax(numbers->largest, words[LARGEST]);
  numbers->n_query += words[N_QUERY];
  words += N_ROWS;
  for (size_t t = 0; t < x->model->n_tables; t++) numbers->n_rows[t] += (size_t)*words++;
  for (size_t s = slots.lo; s < slots.hi; s++) {
    numbers->losses[s] = *words++;
    numbers->squares[s] = *words++;
  }
  return has_failed;
}

melu_status melu__exchange_numbers(struct melu__exchange *x, struct melu__numbers *numbers, melu_error *err) {
  int has_failed = 0;
  say(x, numbers);
  const melu_status status = melu__ranks_gather(x->ranks, x->words, x->word_counts, err);
  if (status) return status;
  numbers->largest = numbers->n_query = 0;
  memset(numbers->n_rows, 0, x->model->n_tables * sizeof *numbers->n_rows);
  for (size_t r = 0; r < melu__n_ranks(x); r++) has_failed |= hear(x, numbers, r);
  return has_failed ? melu__mail_agree(&x->mail, err) : MELU_OK;
}

/* ------------------------------------------------------------------------------------------------- weights */

static size_t count_rows(const struct melu__exchange *x, size_t table) {
  return melu__optimizer_n_rows(x->optimizer, x->own, &x->share, table);
}

static size_t put_rows(const struct melu__exchange *x, size_t table, size_t first, struct melu__packing *p) {
  const struct melu__param *param = &x->model->params[table];
  const size_t size = param->cols * sizeof *param->data;
  struct melu__section section = {.what = (uint32_t)table};
  section.n = (uint32_t)melu__fitting(p, count_rows(x, table) - first, sizeof(uint32_t) + size);
  if (section.n == 0) return 0;
  melu__put(p, &section, sizeof section);
  for (size_t k = first; k < first + section.n; k++) {
    const uint32_t row = melu__optimizer_row(x->optimizer, x->own, &x->share, table, k);
    melu__put(p, &row, sizeof row);
    melu__put(p, param->data + row * param->cols, size);
  }
  return section.n;
}

/* Tables, then the dense numbers, which were brought together in own->dense. Returns whether that is all. */
static int put_weights(const struct melu__exchange *x, struct melu__cursor *c, struct melu__packing *p) {
  const size_t n_tables = x->model->n_tables;
  const struct melu__piece piece = melu__piece_of(x, melu__own_rank(x));
  const real *dense = x->own->dense + piece.begin;
  for (; c->what < n_tables; c->what++, c->at = 0) {
    if (x->model->params[c->what].is_sharded) continue;
    const size_t n = count_rows(x, c->what);
    if (c->at < n) c->at += put_rows(x, c->what, c->at, p);
    if (c->at < n) return 0;
  }
  const size_t n_chunks = melu__count_chunks(piece.n);
  while (c->at < n_chunks && melu__put_chunk(p, x, x->share.own, c->at, piece, dense)) c->at++;
  return c->at == n_chunks;
}

static size_t pack_weights(void *arg, size_t to, char *bytes, size_t room, int *more) {
  struct melu__exchange *x = arg;
  struct melu__packing p = {bytes, room};
  if ((to != melu__own_rank(x) && !put_weights(x, &x->cursors[to], &p)) || !melu__put_answers(x, to, &p)) *more = 1;
  return room - p.left;
}

/* Between the model's dense parameters and the numbers [first, first + n) of an array laid out like the gradient's. */
static void copy_dense(const melu_model *model, real *all, size_t first, size_t n, int to_model) {
  for (size_t i = model->n_tables, at = 0; i < model->n_params; i++) {
    const struct melu__param *param = &model->params[i];
    const size_t next = at + param->rows * param->cols, begin = first > at ? first : at,
                 end = first + n < next ? first + n : next;
    if (begin < end && to_model)
      memcpy(param->data + begin - at, all + begin, (end - begin) * sizeof *all);
    else if (begin < end)
      memcpy(all + begin, param->data + begin - at, (end - begin) * sizeof *all);
    at = next;
  }
}

static void get_rows(struct melu__exchange *x, const struct melu__section *section, struct melu__unpacking *p) {
  const struct melu__param *param = &x->model->params[section->what];
  for (size_t i = 0; i < section->n; i++) {
    uint32_t row;
    melu__get(p, &row, sizeof row);
    melu__undo_add(x->undo, section->what, row);
    melu__get(p, param->data + row * param->cols, param->cols * sizeof *param->data);
  }
}

static void unpack_weights(void *arg, size_t from, const char *bytes, size_t n) {
  struct melu__exchange *x = arg;
  struct melu__unpacking p = {bytes, n};
  struct melu__section section;
  const struct melu__piece piece = melu__piece_of(x, from);
  while (p.left) {
    melu__get(&p, &section, sizeof section);
    if (section.what < x->model->n_tables) {
      get_rows(x, &section, &p);
      continue;
    }
    if (section.what > x->model->n_tables) {
      melu__get_answers(x, from, &section, &p);
      continue;
    }
    melu__get_chunk(&p, &section, piece, x->own->dense + piece.begin);
    copy_dense(x->model, x->own->dense, piece.begin + (size_t)section.n * MELU__DENSE_CHUNK,
               melu__chunk_size(piece.n, section.n), 1);
  }
}

melu_status melu__exchange_weights(struct melu__exchange *x, melu_error *err) {
  const struct melu__letters letters = {x, pack_weights, unpack_weights, NULL};
  const struct melu__piece piece = melu__piece_of(x, melu__own_rank(x));
  copy_dense(x->model, x->own->dense, piece.begin, piece.n, 0);
  return melu__exchange_letters(x, &letters, err);
}
