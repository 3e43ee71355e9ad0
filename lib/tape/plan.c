/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/plan.h"

#include "base/error.h"
#include "tape/ops.h"
#include "tape/plan_parts.h"
#include "tape/simplify.h"

/* ------------------------------------------------------------------------------------------------ making */

/* An output that is added to what is in a slot is a sum with the slot as an input; it may be made in place. */
static void add_outputs(struct melu__tape *t, const struct melu__output *outputs, melu__ref *keep, size_t n) {
  for (size_t i = 0; i < n && !t->status; i++) {
    const struct melu__node node = t->nodes[keep[i]];
    if (!outputs[i].add) continue;
    const melu__ref slot = melu__tape_input(t, outputs[i].base, node.rows, node.cols);
    const int nothing = node.op == MELU__CONST && node.s == 0;
    keep[i] = nothing ? slot : melu__tape_add(t, keep[i], slot);
  }
}

static double count_flops(const struct melu__plan *p, const unsigned char *live) {
  double flops = 0;
  for (size_t i = 0; i < p->n_nodes; i++) {
    const struct melu__node *n = &p->nodes[i];
    const struct melu__op_info *op = &melu__ops[n->op];
    if (live[i] && op->flops) flops += op->flops(n, p->nodes[n->a].rows, p->nodes[n->a].cols);
  }
  return flops;
}

/* The instructions of a simplified tape, and their memory. Takes over the tape's nodes. */
static int build(struct melu__plan *p, struct melu__tape *t, const struct melu__plan_setting *setting,
                 const struct melu__output *outputs, const melu__ref *keep, size_t n_outputs) {
  int ok = 0;
  p->nodes = t->nodes;
  p->n_nodes = t->n;
  t->nodes = NULL;
  const struct melu__tape view = {.alloc = p->alloc, .nodes = p->nodes, .n = p->n_nodes};
  if (!melu__lower(&p->code, &view, keep, n_outputs, setting->joins_rows)) return 0;
  p->n_values = p->n_nodes + p->code.n_partials;
  p->places = melu__alloc(p->alloc, p->n_values, sizeof *p->places);
  p->steps = melu__calloc(p->alloc, p->code.n, sizeof *p->steps);
  p->scratch = melu__calloc(p->alloc, p->code.n, sizeof *p->scratch);
  p->copies = melu__alloc(p->alloc, n_outputs, sizeof *p->copies);
  unsigned char *live = melu__alloc(p->alloc, p->n_nodes, 1);
  if (p->places && p->steps && p->scratch && p->copies && live &&
      melu__plan_place(p, setting->ld, outputs, keep, n_outputs) && melu__plan_prepare_steps(p)) {
    melu__mark_live(&view, keep, n_outputs, live);
    p->flops = count_flops(p, live);
    ok = melu__size_mul(p->arena_size, sizeof(real)) != SIZE_MAX && p->arena_size / LINE <= UINT32_MAX;
  }
  melu__free(p->alloc, live);
  melu__free(p->alloc, p->scratch);
  p->scratch = NULL;
  return ok;
}

melu_status melu__plan_new(struct melu__plan **out, const struct melu__plan_setting *setting,
                           const struct melu__tape *tape, const struct melu__output *outputs, size_t n_outputs,
                           melu_error *err) {
  const struct melu_allocator *alloc = setting->alloc;
  struct melu__tape t;
  *out = NULL;
  melu__tape_init(&t, alloc);
  melu__ref *keep = melu__alloc(alloc, n_outputs, sizeof *keep);
  struct melu__plan *p = melu__calloc(alloc, 1, sizeof *p);
  if (p) *p = (struct melu__plan){.alloc = alloc, .kernels = setting->kernels, .tag = setting->tag};
  if (!keep || !p) {
    t.status = MELU_ENOMEM;
  } else {
    for (size_t i = 0; i < n_outputs; i++) keep[i] = outputs[i].node;
    melu__simplify(&t, tape, setting->transposed, keep, n_outputs);
    if (!t.status) add_outputs(&t, outputs, keep, n_outputs);
    if (!t.status && !build(p, &t, setting, outputs, keep, n_outputs)) t.status = MELU_ENOMEM;
  }
  const melu_status status = melu__tape_status(&t, err);
  melu__tape_free(&t);
  melu__free(alloc, keep);
  if (status) {
    melu__plan_free(p);
    return status;
  }
  *out = p;
  return MELU_OK;
}

void melu__plan_free(struct melu__plan *p) {
  if (!p) return;
  const struct melu_allocator *alloc = p->alloc;
  melu__free(alloc, p->copies);
  melu__free(alloc, p->operands);
  melu__free(alloc, p->steps);
  melu__free(alloc, p->places);
  melu__code_free(&p->code);
  melu__free(alloc, p->nodes);
  melu__free(alloc, p);
}

size_t melu__plan_arena_size(const struct melu__plan *p) {
  return p->arena_size;
}

double melu__plan_flops(const struct melu__plan *p) {
  return p->flops;
}

int melu__plan_tag(const struct melu__plan *p) {
  return p->tag;
}

size_t melu__plan_n_steps(const struct melu__plan *p) {
  return p->code.n;
}

/* ------------------------------------------------------------------------------------------------ running */

static void run_op(const struct melu__plan *p, const struct op_step *op, real *const *m, const struct melu__bags *bags,
                   real *arena) {
  const struct melu__node *n = &p->nodes[op->node];
  const struct melu__run run = {.kernels = p->kernels,
                                .node = n,
                                .a_rows = op->a_rows,
                                .a_cols = op->a_cols,
                                .b_cols = op->b_cols,
                                .a = {m[OP_A], op->a_ld},
                                .b = {m[OP_B], op->b_ld},
                                .out = {m[OP_OUT], op->out_ld},
                                .bags = bags,
                                .scratch = arena + op->scratch};
  melu__ops[n->op].run(&run);
}

/* Zeros beyond the columns of a matrix. */
static void clear_edge(size_t rows, size_t cols, size_t ld, real *to) {
  for (size_t j = cols; j < ld; j++)
    for (size_t i = 0; i < rows; i++) to[i * ld + j] = 0;
}

static void clear_edges(const struct melu__plan *p, const struct step *step, real *const *m) {
  if (!step->is_sum) {
    const struct melu__node *n = &p->nodes[step->as.op.node];
    clear_edge(n->rows, n->cols, step->as.op.out_ld, m[OP_OUT]);
    return;
  }
  const struct melu__sum_job *job = &step->as.sum;
  if (step->clears) clear_edge(job->rows, job->cols, job->out_ld, m[MELU__OUT]);
  if (step->clears_pre) clear_edge(job->rows, job->cols, job->pre_ld, m[MELU__PRE]);
  if (step->clears_raw) clear_edge(job->rows, job->cols, job->raw_ld, m[MELU__RAW]);
}

void melu__plan_run_step(const struct melu__plan *p, size_t i, real *const *slots, const struct melu__bags *bags,
                         real *arena) {
  const struct step *step = &p->steps[i];
  const struct operand *o = &p->operands[step->first_operand];
  real *m[MELU__N_OPERANDS];
  m[OP_A] = m[OP_B] = NULL; /* an op may have none */
  for (size_t k = 0; k < step->n_operands; k++)
    m[o[k].which] = o[k].slot == ARENA_SLOT ? arena + (size_t)o[k].line * LINE : slots[o[k].slot];
  if (step->is_sum)
    p->kernels->run_sum(&step->as.sum, m);
  else
    run_op(p, &step->as.op, m, bags, arena);
  if (step->clears | step->clears_pre | step->clears_raw) clear_edges(p, step, m);
}

void melu__plan_run(const struct melu__plan *p, real *const *slots, const struct melu__bags *bags, real *arena) {
  for (size_t i = 0; i < p->code.n; i++) melu__plan_run_step(p, i, slots, bags, arena);
  for (size_t i = 0; i < p->n_copies; i++) {
    const struct copy *c = &p->copies[i];
    const struct place *place = &p->places[c->from];
    const struct melu__mat to = {slots[c->slot], c->ld};
    const real *from = place->slot == IN_ARENA ? arena + place->offset : slots[place->slot];
    p->kernels->copy(place->rows, place->cols, (struct melu__cmat){from, place->ld}, to);
  }
}
