/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory of a plan: outputs in their slots where they can be made there, everything else in one arena, by lifetime.
 */
#include <string.h>

#include "tape/ops.h"
#include "tape/plan_parts.h"

/* Blocks of the arena that are in use, by ascending offset. */
struct block {
  size_t offset, size;
  size_t last; /* the instruction that reads it last */
};

struct blocks {
  struct block *at;
  size_t n;
};

static size_t block_size(size_t n_numbers) {
  return melu__size_align(n_numbers ? n_numbers : 1, MELU__ALIGN / sizeof(real));
}

/* Sizes saturate: an arena that no memory can hold is refused at the end. */
static size_t place_block(struct melu__plan *p, struct blocks *live, size_t n_numbers, size_t last) {
  const size_t size = block_size(n_numbers);
  size_t offset = 0, i = 0;
  for (; i < live->n && live->at[i].offset < melu__size_add(offset, size); i++)
    offset = melu__size_add(live->at[i].offset, live->at[i].size);
  memmove(live->at + i + 1, live->at + i, (live->n - i) * sizeof *live->at);
  live->at[i] = (struct block){offset, size, last};
  live->n++;
  if (melu__size_add(offset, size) > p->arena_size) p->arena_size = melu__size_add(offset, size);
  return offset;
}

static void release(struct blocks *live, size_t instr) {
  size_t n = 0;
  for (size_t i = 0; i < live->n; i++)
    if (live->at[i].last > instr) live->at[n++] = live->at[i];
  live->n = n;
}

struct reads {
  size_t *last;
  size_t instr;
};

static void mark_read(void *arg, melu__ref value) {
  const struct reads *r = arg;
  r->last[value] = r->instr;
}

static void count_read(void *arg, melu__ref value) {
  size_t *n_reads = arg;
  n_reads[value]++;
}

void melu__plan_each_read(const struct melu__plan *p, size_t i, void (*visit)(void *arg, melu__ref value), void *arg) {
  const struct melu__tape view = {.nodes = p->nodes, .n = p->n_nodes};
  melu__instr_reads(&p->code.instrs[i], &view, visit, arg);
}

static void place_value(struct melu__plan *p, struct blocks *live, melu__ref value, const size_t *last, size_t instr) {
  if (value == MELU__NO_NODE || p->places[value].slot != IN_ARENA) return;
  struct place *place = &p->places[value];
  place->offset =
      place_block(p, live, melu__size_mul(place->rows, place->ld), last[value] > instr ? last[value] : instr);
}

/* Whether the sum may be made where one of its matrices is, of the same shape: that is read element for element, and
 * not again. What is broadcast has another shape. */
static int can_replace(const struct melu__plan *p, const struct melu__instr *in, melu__ref value, const size_t *last,
                       size_t instr) {
  if (value == MELU__NO_NODE || last[value] != instr) return 0;
  if (p->places[value].slot != IN_ARENA || p->places[in->out].slot != IN_ARENA) return 0;
  for (size_t i = 0; i < in->n_products; i++)
    if (in->product[i].a == value || in->product[i].b == value) return 0;
  for (size_t i = 0; i < in->n_terms; i++)
    if (in->term[i].by == value) return 0;
  return 1;
}

/* Takes over the memory of such a matrix. The fewer places are touched, the more of them stay in the cache. */
static int place_on_top(struct melu__plan *p, struct blocks *live, const struct melu__instr *in, const size_t *last,
                        size_t instr) {
  if (!in->is_sum) return 0;
  const melu__ref candidates[] = {in->n_terms > 0 ? in->term[0].value : MELU__NO_NODE,
                                  in->n_terms > 1 ? in->term[1].value : MELU__NO_NODE,
                                  in->n_terms > 2 ? in->term[2].value : MELU__NO_NODE, in->post.value, in->mask};
  for (size_t c = 0; c < sizeof candidates / sizeof *candidates; c++) {
    if (!can_replace(p, in, candidates[c], last, instr)) continue;
    const size_t offset = p->places[candidates[c]].offset;
    for (size_t i = 0; i < live->n; i++)
      if (live->at[i].offset == offset) live->at[i].last = last[in->out];
    p->places[in->out].offset = offset;
    return 1;
  }
  return 0;
}

static size_t scratch_size(const struct melu__plan *p, const struct melu__instr *in) {
  if (in->is_sum) return 0;
  const struct melu__node *n = &p->nodes[in->out];
  const struct melu__op_info *op = &melu__ops[n->op];
  return op->scratch ? op->scratch(n, p->nodes[n->a].rows) : 0;
}

/* First fit by lifetime. */
static void place_all(struct melu__plan *p, size_t *last, struct blocks *live) {
  for (size_t i = 0; i < p->n_values; i++) last[i] = 0;
  for (size_t i = 0; i < p->code.n; i++) {
    struct reads r = {last, i};
    melu__plan_each_read(p, i, mark_read, &r);
  }
  for (size_t i = 0; i < p->n_copies; i++) last[p->copies[i].from] = p->code.n;
  for (size_t i = 0; i < p->code.n; i++) {
    const struct melu__instr *in = &p->code.instrs[i];
    const size_t extra = scratch_size(p, in);
    if (!place_on_top(p, live, in, last, i)) place_value(p, live, in->out, last, i);
    place_value(p, live, in->pre, last, i);
    place_value(p, live, in->raw, last, i);
    place_value(p, live, in->sums, last, i);
    if (extra) p->scratch[i] = place_block(p, live, extra, i);
    release(live, i);
  }
}

size_t melu__plan_padded(const struct melu__plan *p, size_t cols) {
  return cols == 1 ? 1 : melu__size_align(cols, p->kernels->width);
}

/* Shapes of all values; inputs are where the run says, and an output is made in its slot if it can be: a column that is
 * read again may be read as a row (lower.c), and the numbers of a slot's column may lie apart. */
static void bind_slots(struct melu__plan *p, const size_t *ld, const struct melu__output *outputs,
                       const melu__ref *keep, size_t n, const size_t *n_reads) {
  for (size_t i = 0; i < p->n_values; i++) {
    const struct melu__node *node = &p->nodes[i < p->n_nodes ? i : p->code.partial_of[i - p->n_nodes]];
    const int is_input = i < p->n_nodes && node->op == MELU__INPUT;
    p->places[i] = (struct place){
        .rows = node->rows, .cols = node->cols, .slot = is_input ? node->index : IN_ARENA, .ld = node->cols};
    if (!is_input) p->places[i].ld = melu__plan_padded(p, node->cols);
    if (is_input && ld && ld[node->index]) p->places[i].ld = ld[node->index];
  }
  for (size_t i = 0; i < n; i++) {
    struct place *place = &p->places[keep[i]];
    if (place->slot == IN_ARENA && (place->cols != 1 || n_reads[keep[i]] == 0)) {
      place->slot = outputs[i].slot;
      place->ld = ld && ld[place->slot] ? ld[place->slot] : place->cols;
    } else if (place->slot != outputs[i].slot) {
      const size_t to = ld && ld[outputs[i].slot] ? ld[outputs[i].slot] : place->cols;
      p->copies[p->n_copies++] = (struct copy){keep[i], outputs[i].slot, to};
    }
  }
}

int melu__plan_place(struct melu__plan *p, const size_t *ld, const struct melu__output *outputs, const melu__ref *keep,
                     size_t n) {
  size_t *last = melu__calloc(p->alloc, p->n_values, sizeof *last);
  struct blocks blocks = {melu__alloc(p->alloc, 5 * p->code.n + 1, sizeof *blocks.at), 0};
  const int ok = last && blocks.at;
  if (ok) {
    for (size_t i = 0; i < p->code.n; i++) melu__plan_each_read(p, i, count_read, last);
    bind_slots(p, ld, outputs, keep, n, last);
    place_all(p, last, &blocks);
  }
  melu__free(p->alloc, blocks.at);
  melu__free(p->alloc, last);
  return ok;
}
