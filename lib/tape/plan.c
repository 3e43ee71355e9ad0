/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/plan.h"

#include <string.h>

#include "base/error.h"
#include "tape/ops.h"
#include "tape/simplify.h"

struct melu__plan {
  const struct melu_allocator *alloc;
  struct melu__node *nodes; /* in the order of the run; all are needed */
  size_t n_nodes;
  size_t *offset;  /* of each node's value in the arena; inputs have none */
  size_t *scratch; /* of each node's scratch in the arena */
  struct melu__output *outputs;
  size_t n_outputs;
  size_t arena_size;
  double flops;
};

/* ----------------------------------------------------------------------------------------------- planning */

/* Drops the nodes that simplification left without a reader. keep[] follows. */
static void compact(struct melu__tape *t, melu__ref *keep, size_t n_keep, melu__ref *map) {
  for (size_t i = 0; i < t->n; i++) map[i] = 0;
  for (size_t i = 0; i < n_keep; i++) map[keep[i]] = 1;
  for (size_t i = t->n; i-- > 0;) {
    const int arity = map[i] ? melu__ops[t->nodes[i].op].arity : 0;
    if (arity > 0) map[t->nodes[i].a] = 1;
    if (arity > 1) map[t->nodes[i].b] = 1;
  }
  size_t n = 0;
  for (size_t i = 0; i < t->n; i++) {
    if (!map[i]) continue;
    struct melu__node node = t->nodes[i];
    if (melu__ops[node.op].arity > 0) node.a = map[node.a];
    if (melu__ops[node.op].arity > 1) node.b = map[node.b];
    t->nodes[n] = node;
    map[i] = (melu__ref)n++;
  }
  t->n = n;
  for (size_t i = 0; i < n_keep; i++) keep[i] = map[keep[i]];
}

/* Blocks of the arena that are in use, by ascending offset. */
struct block {
  size_t offset, size;
  size_t last; /* the node that reads it last */
};

struct blocks {
  struct block *at;
  size_t n;
};

static size_t place(struct blocks *live, size_t size, size_t last) {
  size_t offset = 0, i = 0;
  for (; i < live->n && live->at[i].offset < offset + size; i++) offset = live->at[i].offset + live->at[i].size;
  memmove(live->at + i + 1, live->at + i, (live->n - i) * sizeof *live->at);
  live->at[i] = (struct block){offset, size, last};
  live->n++;
  return offset;
}

static void release(struct blocks *live, size_t node) {
  size_t n = 0;
  for (size_t i = 0; i < live->n; i++)
    if (live->at[i].last > node) live->at[n++] = live->at[i];
  live->n = n;
}

static size_t block_size(size_t n_numbers) {
  return melu__size_align(n_numbers ? n_numbers : 1, MELU__ALIGN / sizeof(real));
}

static size_t node_size(const struct melu__node *n) {
  return block_size(melu__size_mul(n->rows, n->cols));
}

static size_t scratch_size(const struct melu__plan *p, const struct melu__node *n) {
  const struct melu__op_info *op = &melu__ops[n->op];
  return op->scratch ? op->scratch(n, p->nodes[n->a].rows) : 0;
}

/* First fit by lifetime. last[i]: the last reader of node i; outputs are read after the end. */
static melu_status place_all(struct melu__plan *p, size_t *last, struct blocks *live, melu_error *err) {
  for (size_t i = 0; i < p->n_nodes; i++) {
    const int arity = melu__ops[p->nodes[i].op].arity;
    last[i] = i;
    if (arity > 0) last[p->nodes[i].a] = i;
    if (arity > 1) last[p->nodes[i].b] = i;
  }
  for (size_t i = 0; i < p->n_outputs; i++) last[p->outputs[i].node] = p->n_nodes;
  for (size_t i = 0; i < p->n_nodes; i++) {
    if (p->nodes[i].op == MELU__INPUT) continue;
    const size_t size = node_size(&p->nodes[i]), extra = scratch_size(p, &p->nodes[i]);
    if (size >= SIZE_MAX / sizeof(real) / 4) return melu__fail_memory(err);
    p->offset[i] = place(live, size, last[i]);
    if (p->offset[i] + size > p->arena_size) p->arena_size = p->offset[i] + size;
    if (extra) {
      p->scratch[i] = place(live, block_size(extra), i);
      if (p->scratch[i] + block_size(extra) > p->arena_size) p->arena_size = p->scratch[i] + block_size(extra);
    }
    release(live, i);
  }
  return MELU_OK;
}

static double count_flops(const struct melu__plan *p) {
  double flops = 0;
  for (size_t i = 0; i < p->n_nodes; i++) {
    const struct melu__node *n = &p->nodes[i];
    const struct melu__op_info *op = &melu__ops[n->op];
    if (op->flops) flops += op->flops(n, p->nodes[n->a].rows, p->nodes[n->a].cols);
  }
  return flops;
}

melu_status melu__plan_new(struct melu__plan **out, const struct melu_allocator *alloc, const struct melu__tape *tape,
                           const struct melu__output *outputs, size_t n_outputs, melu_error *err) {
  *out = NULL;
  struct melu__tape short_tape;
  melu__tape_init(&short_tape, alloc);
  melu__ref *keep = melu__alloc(alloc, n_outputs, sizeof *keep), *map = NULL;
  size_t *last = NULL;
  struct blocks live = {NULL, 0};
  struct melu__plan *p = melu__calloc(alloc, 1, sizeof *p);
  melu_status status = MELU_ENOMEM;
  if (!keep || !p) goto done;
  p->alloc = alloc;
  for (size_t i = 0; i < n_outputs; i++) keep[i] = outputs[i].node;
  melu__simplify(&short_tape, tape, keep, n_outputs);
  status = short_tape.status;
  if (status) goto done;

  status = MELU_ENOMEM;
  const size_t n = short_tape.n;
  map = melu__alloc(alloc, n, sizeof *map);
  if (!map) goto done;
  compact(&short_tape, keep, n_outputs, map);
  p->n_nodes = short_tape.n;
  p->nodes = melu__alloc(alloc, p->n_nodes, sizeof *p->nodes);
  p->offset = melu__calloc(alloc, p->n_nodes, sizeof *p->offset);
  p->scratch = melu__calloc(alloc, p->n_nodes, sizeof *p->scratch);
  p->n_outputs = n_outputs;
  p->outputs = melu__alloc(alloc, n_outputs, sizeof *p->outputs);
  last = melu__alloc(alloc, p->n_nodes, sizeof *last);
  live.at = melu__alloc(alloc, 2 * p->n_nodes + 1, sizeof *live.at);
  if (!p->nodes || !p->offset || !p->scratch || !p->outputs || !last || !live.at) goto done;
  if (p->n_nodes) memcpy(p->nodes, short_tape.nodes, p->n_nodes * sizeof *p->nodes);
  for (size_t i = 0; i < n_outputs; i++)
    p->outputs[i] = (struct melu__output){keep[i], outputs[i].slot, outputs[i].add};
  status = place_all(p, last, &live, err);
  p->flops = count_flops(p);

done:
  melu__free(alloc, live.at);
  melu__free(alloc, last);
  melu__free(alloc, map);
  melu__free(alloc, keep);
  melu__tape_free(&short_tape);
  if (!status) {
    *out = p;
    return MELU_OK;
  }
  melu__plan_free(p);
  return status == MELU_ENOMEM ? melu__fail_memory(err) : status;
}

void melu__plan_free(struct melu__plan *p) {
  if (!p || !p->alloc) return;
  const struct melu_allocator *alloc = p->alloc;
  melu__free(alloc, p->outputs);
  melu__free(alloc, p->scratch);
  melu__free(alloc, p->offset);
  melu__free(alloc, p->nodes);
  melu__free(alloc, p);
}

size_t melu__plan_arena_size(const struct melu__plan *p) {
  return p->arena_size;
}

double melu__plan_flops(const struct melu__plan *p) {
  return p->flops;
}

size_t melu__plan_n_nodes(const struct melu__plan *p) {
  return p->n_nodes;
}

/* ------------------------------------------------------------------------------------------------ running */

static struct melu__mat value(const struct melu__plan *p, melu__ref i, const struct melu__mat *slots, real *arena) {
  const struct melu__node *n = &p->nodes[i];
  if (n->op == MELU__INPUT) return slots[n->index];
  return (struct melu__mat){arena + p->offset[i], n->cols};
}

static struct melu__cmat read_only(struct melu__mat m) {
  return (struct melu__cmat){m.p, m.ld};
}

void melu__plan_run(const struct melu__plan *p, const struct melu__kernels *kernels, const struct melu__mat *slots,
                    const struct melu__bags *bags, real *arena) {
  struct melu__run run = {.kernels = kernels, .bags = bags};
  for (size_t i = 0; i < p->n_nodes; i++) {
    const struct melu__node *n = &p->nodes[i];
    const struct melu__op_info *op = &melu__ops[n->op];
    if (n->op == MELU__INPUT) continue;
    run.node = n;
    if (op->arity > 0) {
      run.a = read_only(value(p, n->a, slots, arena));
      run.a_rows = p->nodes[n->a].rows;
      run.a_cols = p->nodes[n->a].cols;
    }
    if (op->arity > 1) {
      run.b = read_only(value(p, n->b, slots, arena));
      run.b_cols = p->nodes[n->b].cols;
    }
    run.out = value(p, (melu__ref)i, slots, arena);
    run.scratch = arena + p->scratch[i];
    op->run(&run);
  }
  for (size_t i = 0; i < p->n_outputs; i++) {
    const struct melu__output *o = &p->outputs[i];
    const struct melu__node *n = &p->nodes[o->node];
    const struct melu__cmat from = read_only(value(p, o->node, slots, arena));
    if (o->add)
      kernels->axpy(n->rows, n->cols, 1, from, slots[o->slot]);
    else
      kernels->copy(n->rows, n->cols, from, slots[o->slot]);
  }
}
