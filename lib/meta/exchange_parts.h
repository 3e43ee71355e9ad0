/* SPDX-License-Identifier: BSD-3-Clause */
/* What an exchange is made of, for the rooms that make it. */
#ifndef MELU__EXCHANGE_PARTS_H
#define MELU__EXCHANGE_PARTS_H

#include "meta/exchange.h"
#include "meta/packing.h"

/* How far a rank's message got: a table and one of its rows, or a branch and a chunk of its dense numbers; and in
 * asking for rows, or answering, a table and a row. */
struct melu__cursor {
  size_t what, at, table, row;
};

/* Entries of a table's gradient, those for rank r from first[r] on. */
struct melu__sorted {
  uint32_t *entries;
  size_t *first; /* (n_ranks + 1) */
  size_t capacity;
};

/* What a rank has asked for of a table: rows by the number under which they are stored; and of what this rank has asked
 * that one for, how many have come. */
struct melu__asked {
  uint32_t *rows;
  size_t n, capacity, n_come;
};

struct melu__term {
  struct melu__slots node;
  int is_there;
};

enum { MELU__DENSE_CHUNK = 2048 };
static inline size_t melu__count_chunks(size_t n) {
  return (n + MELU__DENSE_CHUNK - 1) / MELU__DENSE_CHUNK;
}
static inline size_t melu__chunk_size(size_t n, size_t chunk) {
  const size_t left = n - chunk * MELU__DENSE_CHUNK;
  return left < MELU__DENSE_CHUNK ? left : MELU__DENSE_CHUNK;
}

static inline size_t melu__n_ranks(const struct melu__exchange *x) {
  return x->ranks->collective->n_ranks;
}
static inline size_t melu__own_rank(const struct melu__exchange *x) {
  return x->ranks->collective->rank;
}

/* A rank's dense numbers: where they begin, and how many they are. */
struct melu__piece {
  size_t begin, n;
};
struct melu__piece melu__piece_of(const struct melu__exchange *x, size_t rank);

/* Appends a section of dense numbers if there is room: their chunk-th, of a rank's piece, the first of which is at
 * `numbers`. Returns 0 if there is none. */
int melu__put_chunk(struct melu__packing *p, const struct melu__exchange *x, struct melu__slots node, size_t chunk,
                    struct melu__piece piece, const real *numbers);

/* Takes the numbers of such a section, to their place among those that begin at `numbers`. */
void melu__get_chunk(struct melu__unpacking *p, const struct melu__section *section, struct melu__piece piece,
                     real *numbers);

/* Appends sections to a message as far as there is room; return 0 if that is not all. Asking is for the rows of
 * x->next, and answering tells what they are. */
int melu__put_asks(struct melu__exchange *x, size_t to, struct melu__packing *p);
int melu__put_answers(struct melu__exchange *x, size_t to, struct melu__packing *p);

/* Take a section. An ask may fail for want of memory. */
void melu__get_asks(struct melu__exchange *x, size_t from, const struct melu__section *section,
                    struct melu__unpacking *p);
void melu__get_answers(struct melu__exchange *x, size_t from, const struct melu__section *section,
                       struct melu__unpacking *p);

/* Before anybody asks. */
void melu__forget_asks(struct melu__exchange *x);

void melu__exchange_out_of_memory(struct melu__exchange *x);

/* Makes room for numbers. Returns 0 if there is no memory. */
int melu__exchange_allocate_numbers(struct melu__exchange *x);

/* One message after the other to all ranks, from the beginning. */
melu_status melu__exchange_letters(struct melu__exchange *x, const struct melu__letters *letters, melu_error *err);

#endif
