/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/plan.h"

#include <string.h>

#include "base/error.h"
#include "tape/lower.h"
#include "tape/ops.h"
#include "tape/simplify.h"
#include "tensor/sum.h"

/* Where a value is: in a slot of the run, or in the arena. */
struct place {
  uint32_t rows, cols;
  uint32_t slot; /* IN_ARENA: at `offset` */
  size_t offset, ld;
};

#define IN_ARENA 0xffffffffu

/* Where a matrix is that a step takes: in a slot, or in the arena at so many lines. */
struct operand {
  uint16_t slot; /* ARENA_SLOT: in the arena */
  uint16_t which;
  uint32_t line;
};

#define ARENA_SLOT 0xffffu
enum { LINE = MELU__ALIGN / sizeof(real) };

/* An output that is made elsewhere. */
struct copy {
  melu__ref from;
  uint32_t slot;
  size_t ld;
};

/* An op that is no sum; its operands are those of enum op_operand. */
struct op_step {
  size_t scratch; /* in the arena */
  uint32_t node, a_rows, a_cols, b_cols, a_ld, b_ld, out_ld;
};
enum op_operand { OP_A, OP_B, OP_OUT, N_OP_OPERANDS };

/* An instruction with everything decided but addresses. Small, since a run reads all of them once. */
struct step {
  uint32_t first_operand;
  uint16_t n_operands, is_sum;
  union {
    struct melu__sum_job sum;
    struct op_step op;
  } as;
};

struct melu__plan {
  const struct melu_allocator *alloc;
  const struct melu__kernels *kernels;
  struct melu__node *nodes; /* simplified */
  size_t n_nodes;
  struct melu__code code;
  struct place *places; /* of the values: nodes, then partial sums */
  size_t n_values;
  struct step *steps;       /* as many as the code has instructions */
  size_t *scratch;          /* of each, in the arena, while the plan is made */
  struct operand *operands; /* of all steps */
  size_t n_operands, operands_capacity;
  struct copy *copies; /* outputs that are not where they were made */
  size_t n_copies;
  size_t arena_size;
  double flops;
  int tag;
};

/* ----------------------------------------------------------------------------------------------- planning */

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

/* Visits what the i-th instruction reads. */
static void each_read(const struct melu__plan *p, size_t i, void (*visit)(void *arg, melu__ref value), void *arg) {
  const struct melu__tape view = {.nodes = p->nodes, .n = p->n_nodes};
  melu__instr_reads(&p->code.instrs[i], &view, visit, arg);
}

static void place_value(struct melu__plan *p, struct blocks *live, melu__ref value, const size_t *last, size_t instr) {
  struct place *place = &p->places[value];
  if (value == MELU__NO_NODE || place->slot != IN_ARENA) return;
  place->offset =
      place_block(p, live, melu__size_mul(place->rows, place->ld), last[value] > instr ? last[value] : instr);
}

/* Whether the sum may be made where one of its matrices is: that is read element for element, and not again. */
static int can_replace(const struct melu__plan *p, const struct melu__instr *in, melu__ref value, const size_t *last,
                       size_t instr) {
  if (value == MELU__NO_NODE || last[value] != instr) return 0;
  const struct place *from = &p->places[value], *to = &p->places[in->out];
  if (from->slot != IN_ARENA || to->slot != IN_ARENA || from->rows != to->rows || from->ld != to->ld) return 0;
  for (size_t i = 0; i < in->n_products; i++)
    if (in->product[i].a == value || in->product[i].b == value) return 0;
  return in->row.value != value && in->number.value != value;
}

/* Takes over the memory of such a matrix. The fewer places are touched, the more of them stay in the cache. */
static int place_on_top(struct melu__plan *p, struct blocks *live, const struct melu__instr *in, const size_t *last,
                        size_t instr) {
  if (!in->is_sum) return 0;
  const melu__ref candidates[] = {in->n_terms > 0 ? in->term[0].value : MELU__NO_NODE,
                                  in->n_terms > 1 ? in->term[1].value : MELU__NO_NODE, in->post.value, in->mask};
  for (size_t c = 0; c < sizeof candidates / sizeof *candidates; c++) {
    if (!can_replace(p, in, candidates[c], last, instr)) continue;
    const size_t offset = p->places[candidates[c]].offset;
    for (size_t i = 0; i < live->n; i++)
      if (live->at[i].offset == offset) live->at[i].last = last[in->out] > instr ? last[in->out] : instr;
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
    each_read(p, i, mark_read, &r);
  }
  for (size_t i = 0; i < p->n_copies; i++) last[p->copies[i].from] = p->code.n;
  for (size_t i = 0; i < p->code.n; i++) {
    const struct melu__instr *in = &p->code.instrs[i];
    const size_t extra = scratch_size(p, in);
    if (!place_on_top(p, live, in, last, i)) place_value(p, live, in->out, last, i);
    if (in->pre != MELU__NO_NODE) place_value(p, live, in->pre, last, i);
    if (extra) p->scratch[i] = place_block(p, live, extra, i);
    release(live, i);
  }
}

/* Rows in the arena begin at whole vectors, so that sums may compute beyond their ends. A column is a vector itself. */
static size_t padded(const struct melu__plan *p, size_t cols) {
  return cols == 1 ? 1 : melu__size_align(cols, p->kernels->width);
}

/* Shapes of all values; inputs are where the run says, and an output is made in its slot if it can be: a column that is
 * read again may be read as a row (lower.c), and the numbers of a slot's column may lie apart. */
static void bind_slots(struct melu__plan *p, const size_t *ld, const struct melu__output *outputs,
                       const melu__ref *keep, size_t n, const size_t *n_reads) {
  for (size_t i = 0; i < p->n_values; i++) {
    const struct melu__node *node = &p->nodes[i < p->n_nodes ? i : p->code.partial_of[i - p->n_nodes]];
    const int is_input = i < p->n_nodes && node->op == MELU__INPUT;
    p->places[i] = (struct place){node->rows, node->cols, is_input ? node->index : IN_ARENA, 0, node->cols};
    if (!is_input) p->places[i].ld = padded(p, node->cols);
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

static double count_flops(const struct melu__plan *p, const unsigned char *live) {
  double flops = 0;
  for (size_t i = 0; i < p->n_nodes; i++) {
    const struct melu__node *n = &p->nodes[i];
    const struct melu__op_info *op = &melu__ops[n->op];
    if (live[i] && op->flops) flops += op->flops(n, p->nodes[n->a].rows, p->nodes[n->a].cols);
  }
  return flops;
}

static void mark_live(const struct melu__tape *t, const melu__ref *keep, size_t n_keep, unsigned char *live) {
  for (size_t i = 0; i < n_keep; i++) live[keep[i]] = 1;
  for (size_t i = t->n; i-- > 0;) {
    const int arity = live[i] ? melu__ops[t->nodes[i].op].arity : 0;
    if (arity > 0) live[t->nodes[i].a] = 1;
    if (arity > 1) live[t->nodes[i].b] = 1;
  }
}

/* --------------------------------------------------------------------------------------------- preparing */

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

/* B is read as (k, cols). A vector that stands for its transpose is stored as one row: its rows are one number apart.
 */
static void take_product(struct melu__sum *s, size_t i, struct melu__plan *p, struct step *step,
                         const struct melu__factor *f) {
  const struct place *a = &p->places[f->a == MELU__NO_NODE ? f->b : f->a], *b = &p->places[f->b];
  s->product[i].k = f->a == MELU__NO_NODE ? b->rows : f->trans_a ? a->rows : a->cols;
  s->product[i].a = take(p, step, MELU__A_0 + 2 * (uint32_t)i, f->a);
  s->product[i].b = take(p, step, MELU__B_0 + 2 * (uint32_t)i, f->b);
  if (s->cols == 1 && b->rows == 1) s->product[i].b.ld = 1;
  s->product[i].trans_a = f->trans_a;
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

/* The columns that a sum computes: whole vectors, if all that is read and written has them. What comes out beyond the
 * edge is never looked at. */
static size_t computed_cols(const struct melu__plan *p, const struct melu__instr *in) {
  const struct place *shape = &p->places[in->out];
  struct padding padding = {p, shape->cols > 1};
  look_at_padding(&padding, in->out);
  if (in->pre != MELU__NO_NODE) look_at_padding(&padding, in->pre);
  const melu__ref rest[] = {in->row.value, in->post.value, in->mask};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
    if (rest[i] != MELU__NO_NODE) look_at_padding(&padding, rest[i]);
  for (size_t i = 0; i < in->n_terms; i++) look_at_padding(&padding, in->term[i].value);
  for (size_t i = 0; i < in->n_products; i++) {
    look_at_padding(&padding, in->product[i].b);
    padding.everywhere &= p->places[in->product[i].b].cols == shape->cols;
  }
  return padding.everywhere ? padded(p, shape->cols) : shape->cols;
}

/* X X' or X' X, and a number perhaps: half of it is computed. */
static int is_symmetric(const struct melu__plan *p, const struct melu__instr *in) {
  const struct melu__factor *f = &in->product[0];
  if (in->n_products != 1 || in->n_terms || f->a == MELU__NO_NODE || in->row.value != MELU__NO_NODE) return 0;
  if (in->pre != MELU__NO_NODE || in->mask != MELU__NO_NODE || in->post.value != MELU__NO_NODE) return 0;
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
  step->is_sum = (uint16_t)in->is_sum;
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
                        .relu = in->relu,
                        .mask = take(p, step, MELU__MASK, in->mask),
                        .post = take(p, step, MELU__POST, in->post.value),
                        .post_scale = (real)in->post.scale,
                        .out = take_out(p, step, MELU__OUT, in->out),
                        .pre = take_out(p, step, MELU__PRE, in->pre)};
  for (size_t i = 0; i < in->n_products; i++) take_product(&s, i, p, step, &in->product[i]);
  s.symmetric = is_symmetric(p, in);
  for (size_t i = 0; i < in->n_terms; i++) {
    s.term[i].m = take(p, step, MELU__TERM_0 + (uint32_t)i, in->term[i].value);
    s.term[i].scale = (real)in->term[i].scale;
  }
  p->kernels->prepare_sum(&step->as.sum, &s);
}

/* What the steps read and write: at most so many matrices. */
static size_t count_operands(const struct melu__plan *p) {
  size_t n = 0;
  for (size_t i = 0; i < p->code.n; i++) {
    const struct melu__instr *in = &p->code.instrs[i];
    n += in->is_sum ? 2 * in->n_products + in->n_terms + 6 : N_OP_OPERANDS;
  }
  return n;
}

/* The instructions of a simplified tape, and their memory. Takes over the tape's nodes. */
static int build(struct melu__plan *p, struct melu__tape *t, const size_t *ld, const struct melu__output *outputs,
                 const melu__ref *keep, size_t n_outputs) {
  int ok = 0;
  p->nodes = t->nodes;
  p->n_nodes = t->n;
  t->nodes = NULL;
  const struct melu__tape view = {.alloc = p->alloc, .nodes = p->nodes, .n = p->n_nodes};
  if (!melu__lower(&p->code, &view, keep, n_outputs)) return 0;
  p->n_values = p->n_nodes + p->code.n_partials;
  p->places = melu__alloc(p->alloc, p->n_values, sizeof *p->places);
  p->steps = melu__calloc(p->alloc, p->code.n, sizeof *p->steps);
  p->scratch = melu__calloc(p->alloc, p->code.n, sizeof *p->scratch);
  p->copies = melu__alloc(p->alloc, n_outputs, sizeof *p->copies);
  size_t *last = melu__alloc(p->alloc, p->n_values, sizeof *last);
  unsigned char *live = melu__calloc(p->alloc, p->n_nodes, 1);
  struct blocks blocks = {melu__alloc(p->alloc, 3 * p->code.n + 1, sizeof *blocks.at), 0};
  const int has_room =
      melu__grow(p->alloc, &p->operands, &p->operands_capacity, 0, count_operands(p), sizeof *p->operands);
  if (p->places && p->steps && p->scratch && p->copies && last && live && blocks.at && has_room) {
    for (size_t i = 0; i < p->n_values; i++) last[i] = 0;
    for (size_t i = 0; i < p->code.n; i++) each_read(p, i, count_read, last);
    bind_slots(p, ld, outputs, keep, n_outputs, last);
    place_all(p, last, &blocks);
    for (size_t i = 0; i < p->code.n; i++) prepare_step(p, &p->steps[i], &p->code.instrs[i], p->scratch[i]);
    mark_live(&view, keep, n_outputs, live);
    p->flops = count_flops(p, live);
    ok = melu__size_mul(p->arena_size, sizeof(real)) != SIZE_MAX && p->arena_size / LINE <= UINT32_MAX;
  }
  melu__free(p->alloc, p->scratch);
  p->scratch = NULL;
  melu__free(p->alloc, blocks.at);
  melu__free(p->alloc, live);
  melu__free(p->alloc, last);
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
    if (!t.status && !build(p, &t, setting->ld, outputs, keep, n_outputs)) t.status = MELU_ENOMEM;
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
  struct size_count count = {p, (double)shape->rows * shape->cols * (in->pre == MELU__NO_NODE ? 1 : 2)};
  each_read(p, i, count_size, &count);
  *info = (struct melu__step_info){.op = "sum",
                                   .rows = shape->rows,
                                   .cols = shape->cols,
                                   .n_products = (int)in->n_products,
                                   .n_terms = (int)in->n_terms,
                                   .relu = in->relu,
                                   .mask = in->mask != MELU__NO_NODE,
                                   .post = in->post.value != MELU__NO_NODE,
                                   .pre = in->pre != MELU__NO_NODE,
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
    const struct place *a = &p->places[f->a == MELU__NO_NODE ? f->b : f->a];
    info->k[k] = f->a == MELU__NO_NODE || f->trans_a ? a->rows : a->cols;
    info->trans_a[k] = f->trans_a;
    if (f->a != MELU__NO_NODE) info->flops += 2.0 * (double)info->k[k] * shape->rows * shape->cols;
  }
}
