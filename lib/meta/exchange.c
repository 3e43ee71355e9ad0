/* SPDX-License-Identifier: BSD-3-Clause */
/* The gradient: from all ranks' parts to what each rank is to update. First table rows travel, while what is dense is
 * summed up; then that does, while each rank sums up the table rows that it got. */
#include "meta/exchange.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/exchange_parts.h"

/* Bytes of a message that may be under way to each rank, and to all of them. */
#define MOST_ROOM ((size_t)1 << 20)
#define LEAST_ROOM ((size_t)1 << 16)
#define ALL_ROOM ((size_t)1 << 24)

/* --------------------------------------------------------------------------------------------------- life */

struct melu__piece melu__piece_of(const struct melu__exchange *x, size_t rank) {
  const struct melu__slots slots = melu__slots_of_rank(x->model->ctx, rank);
  const size_t begin = melu__dense_begin(x->own, slots.lo, x->share.n_slots);
  return (struct melu__piece){begin, melu__dense_begin(x->own, slots.hi, x->share.n_slots) - begin};
}

/* The branches that ranks may have sums of. */
static size_t list_terms(const struct melu__exchange *x, struct melu__term *terms) {
  size_t n = 0;
  for (size_t r = 0; r < melu__n_ranks(x); r++) {
    struct melu__slots nodes[MELU__MAX_NODES];
    const size_t n_nodes = melu__largest_nodes(nodes, x->share.n_slots, melu__slots_of_rank(x->model->ctx, r));
    for (size_t i = 0; i < n_nodes; i++, n++)
      if (terms) terms[n] = (struct melu__term){nodes[i], 0};
  }
  return n;
}

static int allocate(struct melu__exchange *x) {
  const struct melu_allocator *a = &x->model->ctx->allocator;
  const size_t n = melu__n_ranks(x), n_tables = x->model->n_tables, piece = melu__piece_of(x, melu__own_rank(x)).n;
  x->n_terms = list_terms(x, NULL);
  x->cursors = melu__alloc(a, n, sizeof *x->cursors);
  x->sorted = melu__calloc(a, n_tables, sizeof *x->sorted);
  x->terms = melu__alloc(a, x->n_terms, sizeof *x->terms);
  x->term_values = melu__alloc(a, melu__size_mul(x->n_terms, piece), sizeof *x->term_values);
  x->term_list = melu__alloc(a, x->n_terms, sizeof *x->term_list);
  x->term_nodes = melu__alloc(a, x->n_terms, sizeof *x->term_nodes);
  x->largest = melu__alloc(a, n_tables + melu__count_chunks(piece), sizeof *x->largest);
  x->asked = melu__calloc(a, n * n_tables, sizeof *x->asked);
  if (!x->cursors || !x->sorted || !x->terms || !x->term_values || !x->term_list || !x->term_nodes || !x->largest ||
      !x->asked)
    return 0;
  for (size_t t = 0; t < n_tables; t++) {
    x->sorted[t].first = melu__alloc(a, n + 1, sizeof *x->sorted[t].first);
    if (!x->sorted[t].first) return 0;
  }
  list_terms(x, x->terms);
  return melu__exchange_allocate_numbers(x);
}

melu_status melu__exchange_init(struct melu__exchange *x, struct melu__ranks *ranks, melu_model *model,
                                const melu_optimizer *optimizer, struct melu__undo *undo, melu_error *err) {
  const size_t n = ranks->collective->n_ranks, even = ALL_ROOM / n;
  const size_t room = even < LEAST_ROOM ? LEAST_ROOM : even > MOST_ROOM ? MOST_ROOM : even;
  *x = (struct melu__exchange){
      .model = model, .share = melu__own_share(model->ctx), .ranks = ranks, .optimizer = optimizer, .undo = undo};
  const melu_status status = melu__gradient_new(&x->own, model, err);
  if (status) return status;
  if (!melu__mail_init(&x->mail, ranks, &model->ctx->allocator, room) || !allocate(x)) return melu__fail_memory(err);
  return MELU_OK;
}

void melu__exchange_free(struct melu__exchange *x) {
  if (!x->model) return;
  const struct melu_allocator *a = &x->model->ctx->allocator;
  for (size_t t = 0; x->sorted && t < x->model->n_tables; t++) {
    melu__free(a, x->sorted[t].entries);
    melu__free(a, x->sorted[t].first);
  }
  for (size_t i = 0; x->asked && i < melu__n_ranks(x) * x->model->n_tables; i++) melu__free(a, x->asked[i].rows);
  void *const all[] = {x->asked,     x->cursors,    x->sorted,  x->terms, x->term_values,
                       x->term_list, x->term_nodes, x->largest, x->words, x->word_counts};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
  melu__mail_free(&x->mail);
  melu_gradient_free(x->own);
}

melu_status melu__exchange_letters(struct melu__exchange *x, const struct melu__letters *letters, melu_error *err) {
  memset(x->cursors, 0, melu__n_ranks(x) * sizeof *x->cursors);
  return melu__mail_exchange(&x->mail, letters, err);
}

void melu__exchange_out_of_memory(struct melu__exchange *x) {
  melu_error err;
  melu__mail_fail(&x->mail, melu__fail_memory(&err), &err);
}

/* ----------------------------------------------------------------------------------------------- table rows */

/* Of all rows of the table, which one has that number in this rank's part of the gradient. */
static uint32_t row_of(const struct melu__exchange *x, size_t table, uint32_t number) {
  return x->model->params[table].is_sharded ? x->now->tables[table].rows[number] : number;
}

static size_t rank_of(const struct melu__exchange *x, size_t table, uint32_t number) {
  return melu__rank_of_slot(x->model->ctx, row_of(x, table, number) % x->share.n_slots);
}

/* Sorts a table's entries by rank, those of a rank in their order. Returns 0 if there is no memory. */
static int sort_table(struct melu__exchange *x, size_t table) {
  const struct melu__table_grad *t = &x->part->tables[table];
  struct melu__sorted *s = &x->sorted[table];
  const size_t n = melu__n_ranks(x);
  if (!melu__grow(&x->model->ctx->allocator, &s->entries, &s->capacity, 0, t->n, sizeof *s->entries)) return 0;
  memset(s->first, 0, (n + 1) * sizeof *s->first);
  for (size_t e = 0; e < t->n; e++) s->first[rank_of(x, table, t->rows[e]) + 1]++;
  for (size_t r = 0; r < n; r++) s->first[r + 1] += s->first[r];
  for (size_t e = 0; e < t->n; e++) s->entries[s->first[rank_of(x, table, t->rows[e])]++] = (uint32_t)e;
  for (size_t r = n; r > 0; r--) s->first[r] = s->first[r - 1];
  s->first[0] = 0;
  return 1;
}

/* As many of the entries that belong to one node as there is room for; returns how many. */
static size_t put_rows(const struct melu__exchange *x, size_t table, const uint32_t *entries, size_t n,
                       struct melu__packing *p) {
  const struct melu__table_grad *t = &x->part->tables[table];
  const size_t size = t->cols * sizeof(real);
  struct melu__section section = {.what = (uint32_t)table, .node = t->met[entries[0]].node};
  n = melu__fitting(p, n, sizeof *t->rows + size);
  while (section.n < n && t->met[entries[section.n]].node.lo == section.node.lo) section.n++;
  if (section.n == 0) return 0;
  melu__put(p, &section, sizeof section);
  for (size_t i = 0; i < section.n; i++) {
    const uint32_t row = row_of(x, table, t->rows[entries[i]]);
    melu__put(p, &row, sizeof row);
    melu__put(p, t->values + entries[i] * t->cols, size);
  }
  return section.n;
}

static size_t pack_rows(void *arg, size_t to, char *bytes, size_t room, int *more) {
  const struct melu__exchange *x = arg;
  struct melu__cursor *c = &x->cursors[to];
  struct melu__packing p = {bytes, room};
  while (c->what < x->model->n_tables) {
    const struct melu__sorted *s = &x->sorted[c->what];
    const size_t at = s->first[to] + c->at;
    if (at == s->first[to + 1]) {
      c->what++;
      c->at = 0;
      continue;
    }
    const size_t n = put_rows(x, c->what, s->entries + at, s->first[to + 1] - at, &p);
    c->at += n;
    if (n == 0) {
      *more = 1;
      break;
    }
  }
  return room - p.left;
}

static int get_rows(struct melu__exchange *x, const struct melu__section *section, struct melu__unpacking *p) {
  struct melu__table_grad *t = &x->own->tables[section->what];
  melu__table_grad_enter(t, section->node);
  for (size_t i = 0; i < section->n; i++) {
    uint32_t row;
    melu__get(p, &row, sizeof row);
    const size_t stored = melu__stored_row(x->model, section->what, &x->share, row);
    const uint32_t entry = melu__table_grad_meet(t, &x->model->ctx->allocator, (uint32_t)stored);
    if (entry == MELU__NO_PLACE) return 0;
    melu__get(p, t->values + entry * t->cols, t->cols * sizeof *t->values);
  }
  return 1;
}

static void unpack_rows(void *arg, size_t from, const char *bytes, size_t n) {
  struct melu__exchange *x = arg;
  struct melu__unpacking p = {bytes, n};
  struct melu__section section;
  (void)from;
  while (p.left && !x->mail.failure.status) {
    melu__get(&p, &section, sizeof section);
    if (!get_rows(x, &section, &p)) melu__exchange_out_of_memory(x);
  }
}

/* --------------------------------------------------------------------------------------------- dense numbers */

int melu__put_chunk(struct melu__packing *p, const struct melu__exchange *x, struct melu__slots node, size_t chunk,
                    struct melu__piece piece, const real *numbers) {
  const struct melu__section section = {(uint32_t)x->model->n_tables, (uint32_t)chunk, node};
  const size_t n = melu__chunk_size(piece.n, chunk);
  if (!melu__fitting(p, 1, n * sizeof *numbers)) return 0;
  melu__put(p, &section, sizeof section);
  melu__put(p, numbers + chunk * MELU__DENSE_CHUNK, n * sizeof *numbers);
  return 1;
}

void melu__get_chunk(struct melu__unpacking *p, const struct melu__section *section, struct melu__piece piece,
                     real *numbers) {
  melu__get(p, numbers + (size_t)section->n * MELU__DENSE_CHUNK,
            melu__chunk_size(piece.n, section->n) * sizeof *numbers);
}

static int put_dense(const struct melu__exchange *x, size_t to, struct melu__packing *p) {
  struct melu__cursor *c = &x->cursors[to];
  const struct melu__piece piece = melu__piece_of(x, to);
  const size_t n_branches = x->part->outer->n_branches, n_chunks = melu__count_chunks(piece.n);
  for (; c->what < n_branches; c->what++, c->at = 0) {
    const struct melu__outer *o = x->part->outer;
    const real *numbers = melu__outer_dense(o, c->what) + piece.begin;
    while (c->at < n_chunks && melu__put_chunk(p, x, o->branches[c->what].slots, c->at, piece, numbers)) c->at++;
    if (c->at < n_chunks) return 0;
  }
  return 1;
}

static size_t pack_dense(void *arg, size_t to, char *bytes, size_t room, int *more) {
  struct melu__exchange *x = arg;
  struct melu__packing p = {bytes, room};
  if (!put_dense(x, to, &p) || !melu__put_asks(x, to, &p)) *more = 1;
  return room - p.left;
}

static struct melu__term *find_term(const struct melu__exchange *x, struct melu__slots node) {
  struct melu__term *term = x->terms;
  while (term->node.lo != node.lo) term++;
  return term;
}

static void unpack_dense(void *arg, size_t from, const char *bytes, size_t n) {
  struct melu__exchange *x = arg;
  struct melu__unpacking p = {bytes, n};
  struct melu__section section;
  const struct melu__piece piece = melu__piece_of(x, melu__own_rank(x));
  while (p.left) {
    melu__get(&p, &section, sizeof section);
    if (section.what > x->model->n_tables) {
      melu__get_asks(x, from, &section, &p);
      continue;
    }
    struct melu__term *term = find_term(x, section.node);
    term->is_there = 1;
    melu__get_chunk(&p, &section, piece, x->term_values + (size_t)(term - x->terms) * piece.n);
  }
}

/* --------------------------------------------------------------------------------------------------- sums */

#define NO_MEMORY (-1) /* in place of a size */

static void sum_table(void *arg, size_t table, size_t thread) {
  struct melu__exchange *x = arg;
  const struct melu_context *ctx = x->model->ctx;
  struct melu__table_grad *t = &x->own->tables[table];
  const int is_summed = melu__table_grad_sum(t, ctx, (struct melu__slots){0, (uint32_t)x->share.n_slots});
  (void)thread;
  x->largest[table] = is_summed ? ctx->kernels->largest(t->n * t->cols, t->values) : NO_MEMORY;
}

/* While dense numbers travel. */
static void sum_tables(void *arg) {
  const struct melu__exchange *x = arg;
  const struct melu_runner *runner = &x->model->ctx->runner;
  runner->run(runner->arg, sum_table, arg, x->model->n_tables);
}

/* A chunk of the dense numbers, of all terms that have come. */
struct chunk_sum {
  const struct melu__exchange *x;
  size_t at, n, piece;
};

static real *term_numbers(const struct chunk_sum *c, size_t i) {
  return c->x->term_values + c->x->term_list[i] * c->piece + c->at;
}

static void add_term(void *arg, size_t into, size_t from) {
  const struct chunk_sum *c = arg;
  c->x->model->ctx->kernels->axpy(1, c->n, 1, (struct melu__cmat){term_numbers(c, from), c->n},
                                  (struct melu__mat){term_numbers(c, into), c->n});
}

static void sum_chunk(void *arg, size_t chunk, size_t thread) {
  struct melu__exchange *x = arg;
  const struct melu__kernels *k = x->model->ctx->kernels;
  const struct melu__piece piece = melu__piece_of(x, melu__own_rank(x));
  struct chunk_sum c = {x, chunk * MELU__DENSE_CHUNK, melu__chunk_size(piece.n, chunk), piece.n};
  real *sum = x->own->dense + piece.begin + c.at;
  (void)thread;
  melu__tree_sum(x->share.n_slots, x->term_nodes, x->n_come, add_term, &c);
  k->scale(1, c.n, (real)1 / (real)x->n_tasks, (struct melu__cmat){term_numbers(&c, 0), c.n},
           (struct melu__mat){sum, c.n});
  x->largest[x->model->n_tables + chunk] = k->largest(c.n, sum);
}

/* Returns how many chunks there are. */
static size_t sum_dense(struct melu__exchange *x) {
  const struct melu_runner *runner = &x->model->ctx->runner;
  const size_t n_chunks = melu__count_chunks(melu__piece_of(x, melu__own_rank(x)).n);
  x->n_come = 0;
  for (size_t i = 0; i < x->n_terms; i++)
    if (x->terms[i].is_there) {
      x->term_nodes[x->n_come] = x->terms[i].node;
      x->term_list[x->n_come++] = i;
    }
  runner->run(runner->arg, sum_chunk, x, n_chunks);
  return n_chunks;
}

/* What came is summed up; a failure is told with the next message. */
static void finish(struct melu__exchange *x) {
  melu_error err;
  const size_t n_sums = x->model->n_tables + sum_dense(x);
  x->own->largest = 0;
  for (size_t i = 0; i < n_sums; i++) {
    if (x->largest[i] == NO_MEMORY) {
      melu__exchange_out_of_memory(x);
    } else if (!isfinite(x->largest[i])) {
      melu__mail_fail(&x->mail, melu__fail(&err, MELU_EDIVERGED, "the meta-gradient is not finite"), &err);
    } else if (x->largest[i] > x->own->largest) {
      x->own->largest = x->largest[i];
    }
  }
}

static void do_meanwhile(void *arg) {
  struct melu__exchange *x = arg;
  if (x->part) melu__outer_sum_dense(x->part->outer);
  x->meanwhile(x->meanwhile_arg);
}

melu_status melu__exchange_gradient(struct melu__exchange *x, const melu_gradient *part, size_t n_tasks,
                                    void (*meanwhile)(void *arg), void *arg, melu_error *err) {
  const struct melu__letters rows = {x, pack_rows, unpack_rows, do_meanwhile},
                             dense = {x, pack_dense, unpack_dense, sum_tables};
  x->part = x->mail.failure.status ? NULL : part;
  x->n_tasks = n_tasks;
  x->meanwhile = meanwhile;
  x->meanwhile_arg = arg;
  melu__gradient_begin(x->own, 0, x->share.n_slots); /* of no tasks: needs no memory */
  for (size_t i = 0; i < x->n_terms; i++) x->terms[i].is_there = 0;
  melu__forget_asks(x);
  for (size_t t = 0; x->part && t < x->model->n_tables; t++)
    if (!sort_table(x, t)) melu__exchange_out_of_memory(x);
  melu_status status = melu__exchange_letters(x, &rows, err);
  if (!status) status = melu__exchange_letters(x, &dense, err);
  if (!status) finish(x);
  return status;
}
