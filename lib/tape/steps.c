/* SPDX-License-Identifier: BSD-3-Clause */
/* From instructions whose values have places to steps, which a run only has to give addresses. */
#include "tape/ops.h"
#include "tape/plan_parts.h"

/* Stands for every matrix while a sum is prepared, which only asks whether there is one. */
static const real somewhere;

/* Notes a matrix as the step's operand `which`. There is room: build() made it. */
static struct melu__cmat take(struct melu__plan *p, struct step *step, uint32_t which, melu__ref value) {
  if (value == MELU__NO_NODE) return (struct melu__cmat){NULL, 0};
  const struct place *place = &p->places[value];
  const int in_arena = place->slot == IN_ARENA;
  p->operands[p->n_operands++] = (struct operand){(uint16_t)(in_arena ? ARENA_SLOT : place->slot), (uint16_t)which,
                                                  in_arena ? (uint32_t)(place->offset / LINE) : 0};
  step->n_operands++;
  return (struct melu__cmat){&somewhere, place->ld};
}

static struct melu__mat take_out(struct melu__plan *p, struct step *step, uint32_t which, melu__ref value) {
  const struct melu__cmat m = take(p, step, which, value);
  return (struct melu__mat){(real *)m.p, m.ld};
}

static size_t inner_size(const struct melu__plan *p, const struct melu__factor *f) {
  if (f->a == MELU__NO_NODE) return p->places[f->b].rows;
  return f->trans_a ? p->places[f->a].rows : p->places[f->a].cols;
}

/* B is read as (k, cols). A vector that stands for its transpose is stored as one row: its rows are one number apart.
 */
static void take_product(struct melu__sum *s, size_t i, struct melu__plan *p, struct step *step,
                         const struct melu__factor *f) {
  s->product[i].k = inner_size(p, f);
  s->product[i].a = take(p, step, MELU__A_0 + 2 * (uint32_t)i, f->a);
  s->product[i].b = take(p, step, MELU__B_0 + 2 * (uint32_t)i, f->b);
  if (s->cols == 1 && !f->diagonal && p->places[f->b].rows == 1) s->product[i].b.ld = 1;
  s->product[i].trans_a = f->trans_a;
  s->product[i].diagonal = f->diagonal;
  s->product[i].scale = (real)f->scale;
}

struct padding {
  const struct melu__plan *plan;
  int everywhere;
};

static void look_at_padding(void *arg, melu__ref value) {
  struct padding *padding = arg;
  const struct melu__plan *p = padding->plan;
  const struct place *place = &p->places[value];
  padding->everywhere &= place->slot == IN_ARENA || place->cols % p->kernels->width == 0;
}

/* What a sum reads column by column. */
static void each_beside(const struct melu__instr *in, void (*visit)(void *arg, melu__ref value), void *arg) {
  const melu__ref rest[] = {in->row.value, in->post.value, in->mask};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
    if (rest[i] != MELU__NO_NODE) visit(arg, rest[i]);
  for (size_t i = 0; i < in->n_terms; i++) visit(arg, in->term[i].value);
  for (size_t i = 0; i < in->n_products; i++)
    if (in->product[i].b != MELU__NO_NODE) visit(arg, in->product[i].b);
}

/* The columns that a sum computes: whole vectors, if all that is read and written has them. What comes out beyond the
 * edge is never looked at, but it is computed: from zeros, for whatever else was there last may overflow. */
static size_t computed_cols(const struct melu__plan *p, const struct melu__instr *in) {
  const struct place *shape = &p->places[in->out];
  struct padding padding = {p, shape->cols > 1 && shape->cols < p->kernels->width};
  look_at_padding(&padding, in->out);
  if (in->n_pairs) return shape->cols; /* beyond the edge there is nothing to be summed up */
  if (in->pre != MELU__NO_NODE) look_at_padding(&padding, in->pre);
  if (in->raw != MELU__NO_NODE) look_at_padding(&padding, in->raw);
  each_beside(in, look_at_padding, &padding);
  for (size_t i = 0; i < in->n_products; i++)
    padding.everywhere &= !in->product[i].diagonal && p->places[in->product[i].b].cols == shape->cols;
  return padding.everywhere ? melu__plan_padded(p, shape->cols) : shape->cols;
}

static int overruns(const struct melu__plan *p, const struct melu__instr *in) {
  return in->is_sum && computed_cols(p, in) != p->places[in->out].cols;
}

static void mark_overrun(void *arg, melu__ref value) {
  struct melu__plan *p = arg;
  p->places[value].is_overrun = 1;
}

/* Whether the edge of what an instruction writes must be cleared: it is read, and the instruction does not write it. */
static uint8_t must_clear(const struct melu__plan *p, const struct melu__instr *in, melu__ref written) {
  if (written == MELU__NO_NODE || overruns(p, in)) return 0;
  return p->places[written].is_overrun != 0;
}

/* X X' or X' X, and a number perhaps: half of it is computed. */
static int is_symmetric(const struct melu__plan *p, const struct melu__instr *in) {
  const struct melu__factor *f = &in->product[0];
  if (in->n_products != 1 || in->n_terms || f->a == MELU__NO_NODE || in->row.value != MELU__NO_NODE) return 0;
  if (f->diagonal || in->by != MELU__NO_NODE || in->step) return 0;
  if (in->pre != MELU__NO_NODE || in->mask != MELU__NO_NODE) return 0; /* and so no post */
  const struct melu__node *a = &p->nodes[f->a], *b = &p->nodes[f->b];
  const int a_is_turned = a->op == MELU__TRANSPOSE && a->a == f->b,
            b_is_turned = b->op == MELU__TRANSPOSE && b->a == f->a;
  return f->trans_a ? f->a == f->b : a_is_turned || b_is_turned;
}

static void prepare_op(struct melu__plan *p, struct step *step, melu__ref node, size_t scratch) {
  const struct melu__node *n = &p->nodes[node];
  const int arity = melu__ops[n->op].arity;
  struct op_step op = {.scratch = scratch, .node = node};
  if (arity > 0) {
    op.a_rows = p->nodes[n->a].rows;
    op.a_cols = p->nodes[n->a].cols;
    op.a_ld = (uint32_t)take(p, step, OP_A, n->a).ld;
  }
  if (arity > 1) {
    op.b_cols = p->nodes[n->b].cols;
    op.b_ld = (uint32_t)take(p, step, OP_B, n->b).ld;
  }
  op.out_ld = (uint32_t)take(p, step, OP_OUT, node).ld;
  step->as.op = op;
}

static void prepare_step(struct melu__plan *p, struct step *step, const struct melu__instr *in, size_t scratch) {
  const struct place *shape = &p->places[in->out];
  step->is_sum = in->is_sum != 0;
  step->clears = must_clear(p, in, in->out);
  step->clears_pre = must_clear(p, in, in->pre);
  step->clears_raw = must_clear(p, in, in->raw);
  step->first_operand = (uint32_t)p->n_operands;
  if (!in->is_sum) {
    prepare_op(p, step, in->out, scratch);
    return;
  }
  struct melu__sum s = {.rows = shape->rows,
                        .cols = computed_cols(p, in),
                        .n_products = in->n_products,
                        .n_terms = in->n_terms,
                        .row = take(p, step, MELU__ROW, in->row.value).p,
                        .row_scale = (real)in->row.scale,
                        .number = take(p, step, MELU__NUMBER, in->number.value).p,
                        .number_scale = (real)in->number.scale,
                        .by = take(p, step, MELU__BY, in->by).p,
                        .relu = in->relu,
                        .step = in->step,
                        .mask = take(p, step, MELU__MASK, in->mask),
                        .post = take(p, step, MELU__POST, in->post.value),
                        .post_scale = (real)in->post.scale,
                        .out = take_out(p, step, MELU__OUT, in->out),
                        .pre = take_out(p, step, MELU__PRE, in->pre),
                        .raw = take_out(p, step, MELU__RAW, in->raw),
                        .sums = take_out(p, step, MELU__SUMS, in->sums).p,
                        .by_scale = (real)in->by_scale,
                        .n_pairs = in->n_pairs};
  for (size_t i = 0; i < in->n_products; i++) take_product(&s, i, p, step, &in->product[i]);
  s.symmetric = is_symmetric(p, in);
  for (size_t i = 0; i < in->n_terms; i++) {
    s.term[i].m = take(p, step, MELU__TERM_0 + (uint32_t)i, in->term[i].value);
    s.term[i].by = take(p, step, MELU__BY_0 + (uint32_t)i, in->term[i].by).p;
    s.term[i].whole = in->term[i].whole;
    s.term[i].scale = (real)in->term[i].scale;
  }
  for (size_t i = 0; i < in->n_pairs; i++) {
    s.pair[i].a = take(p, step, MELU__PAIR_A_0 + 2 * (uint32_t)i, in->pair[i].a);
    s.pair[i].b = take(p, step, MELU__PAIR_B_0 + 2 * (uint32_t)i, in->pair[i].b);
    s.pair[i].scale = (real)in->pair[i].scale;
  }
  p->kernels->prepare_sum(&step->as.sum, &s);
}

/* What the steps read and write: at most so many matrices. */
static size_t count_operands(const struct melu__plan *p) {
  size_t n = 0;
  for (size_t i = 0; i < p->code.n; i++) {
    const struct melu__instr *in = &p->code.instrs[i];
    n += in->is_sum ? 2 * in->n_products + 2 * in->n_terms + 2 * in->n_pairs + 9 : N_OP_OPERANDS;
  }
  return n;
}

int melu__plan_prepare_steps(struct melu__plan *p) {
  const size_t n = count_operands(p);
  if (!melu__grow(p->alloc, &p->operands, &p->operands_capacity, 0, n, sizeof *p->operands)) return 0;
  for (size_t i = 0; i < p->code.n; i++)
    if (overruns(p, &p->code.instrs[i])) each_beside(&p->code.instrs[i], mark_overrun, p);
  for (size_t i = 0; i < p->code.n; i++) prepare_step(p, &p->steps[i], &p->code.instrs[i], p->scratch[i]);
  return 1;
}

/* ------------------------------------------------------------------------------------------------ looking */

struct size_count {
  const struct melu__plan *plan;
  double numbers;
};

static void count_size(void *arg, melu__ref value) {
  struct size_count *count = arg;
  const struct place *place = &count->plan->places[value];
  count->numbers += (double)place->rows * place->cols;
}

void melu__plan_step_info(const struct melu__plan *p, size_t i, struct melu__step_info *info) {
  const struct melu__instr *in = &p->code.instrs[i];
  const struct place *shape = &p->places[in->out];
  const int n_outputs = 1 + (in->pre != MELU__NO_NODE) + (in->raw != MELU__NO_NODE);
  struct size_count count = {p, (double)shape->rows * shape->cols * n_outputs};
  melu__plan_each_read(p, i, count_size, &count);
  *info = (struct melu__step_info){.op = "sum",
                                   .rows = shape->rows,
                                   .cols = shape->cols,
                                   .n_products = (int)in->n_products,
                                   .n_terms = (int)in->n_terms,
                                   .relu = in->relu,
                                   .mask = in->mask != MELU__NO_NODE,
                                   .post = in->post.value != MELU__NO_NODE,
                                   .pre = in->pre != MELU__NO_NODE,
                                   .raw = in->raw != MELU__NO_NODE,
                                   .sums = in->sums != MELU__NO_NODE,
                                   .row = in->row.value != MELU__NO_NODE,
                                   .bytes = sizeof(real) * count.numbers};
  if (!in->is_sum) {
    const struct melu__node *n = &p->nodes[in->out];
    const struct melu__op_info *op = &melu__ops[n->op];
    info->op = op->name;
    if (op->flops) info->flops = op->flops(n, p->nodes[n->a].rows, p->nodes[n->a].cols);
    return;
  }
  for (size_t k = 0; k < in->n_products; k++) {
    const struct melu__factor *f = &in->product[k];
    info->k[k] = inner_size(p, f);
    info->trans_a[k] = f->trans_a;
    if (f->a != MELU__NO_NODE && !f->diagonal) info->flops += 2.0 * (double)info->k[k] * shape->rows * shape->cols;
  }
}
