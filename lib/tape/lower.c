/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/lower.h"

#include <string.h>

#include "tape/ops.h"

/* Nodes are visited from the last to the first; an instruction marks what it reads as needed, and what no instruction
 * reads is never made. So a node that its only reader took in (a product in a sum, a sum under a ReLU) vanishes. */
struct lowering {
  const struct melu__tape *t;
  struct melu__code *code;
  uint32_t *uses;        /* by live nodes, and one for being kept */
  unsigned char *needed; /* some instruction reads it, or it is kept */
  melu__ref *relu_of;    /* the ReLU that the instruction of this node makes along */
  struct melu__addend *terms;
  size_t n_terms, terms_capacity;
  int out_of_memory;
};

static const struct melu__node *at(const struct lowering *l, melu__ref i) {
  return &l->t->nodes[i];
}

static int is_product(const struct melu__node *n) {
  return n->op == MELU__MATMUL || n->op == MELU__SUM_ROWS;
}

static int is_sum(const struct melu__node *n) {
  return n->op == MELU__ADD || n->op == MELU__SCALE || is_product(n);
}

/* x where mask > 0, as simplification writes it. */
static int is_masked(const struct lowering *l, const struct melu__node *n) {
  return n->op == MELU__MUL && at(l, n->b)->op == MELU__STEP;
}

static void need(struct lowering *l, melu__ref value) {
  if (value < l->t->n) l->needed[value] = 1; /* else it is a partial sum */
}

/* ------------------------------------------------------------------------------------------- instructions */

static struct melu__instr blank(melu__ref out) {
  const struct melu__addend none = {MELU__NO_NODE, 0};
  struct melu__instr in;
  memset(&in, 0, sizeof in);
  in.is_sum = 1;
  in.out = out;
  in.pre = in.mask = MELU__NO_NODE;
  in.row = in.number = in.post = none;
  return in;
}

void melu__instr_reads(const struct melu__instr *in, const struct melu__tape *t,
                       void (*visit)(void *arg, melu__ref value), void *arg) {
  if (!in->is_sum) {
    const struct melu__node *n = &t->nodes[in->out];
    if (melu__ops[n->op].arity > 0) visit(arg, n->a);
    if (melu__ops[n->op].arity > 1) visit(arg, n->b);
    return;
  }
  for (size_t i = 0; i < in->n_products; i++) {
    if (in->product[i].a != MELU__NO_NODE) visit(arg, in->product[i].a);
    visit(arg, in->product[i].b);
  }
  for (size_t i = 0; i < in->n_terms; i++) visit(arg, in->term[i].value);
  const melu__ref rest[] = {in->row.value, in->number.value, in->post.value, in->mask};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
    if (rest[i] != MELU__NO_NODE) visit(arg, rest[i]);
}

static void need_value(void *arg, melu__ref value) {
  need(arg, value);
}

static void emit(struct lowering *l, const struct melu__instr *in) {
  struct melu__code *c = l->code;
  if (!melu__grow(c->alloc, &c->instrs, &c->capacity, c->n, c->n + 1, sizeof *c->instrs)) {
    l->out_of_memory = 1;
    return;
  }
  c->instrs[c->n++] = *in;
  melu__instr_reads(in, l->t, need_value, l);
}

/* A value for a sum that takes more than one instruction. */
static melu__ref new_partial(struct lowering *l, melu__ref like) {
  struct melu__code *c = l->code;
  if (!melu__grow(c->alloc, &c->partial_of, &c->partials_capacity, c->n_partials, c->n_partials + 1,
                  sizeof *c->partial_of)) {
    l->out_of_memory = 1;
    return like;
  }
  c->partial_of[c->n_partials++] = like;
  return (melu__ref)(l->t->n + c->n_partials - 1);
}

/* --------------------------------------------------------------------------------------------------- sums */

static void add_term(struct lowering *l, melu__ref value, double scale) {
  if (!melu__grow(l->code->alloc, &l->terms, &l->terms_capacity, l->n_terms, l->n_terms + 1, sizeof *l->terms)) {
    l->out_of_memory = 1;
    return;
  }
  l->terms[l->n_terms++] = (struct melu__addend){value, scale};
}

/* Collects the terms of node i. What only this sum reads is taken apart; a scale never needs to be made. */
static void flatten(struct lowering *l, melu__ref i, double scale, int is_root) {
  const struct melu__node *n = at(l, i);
  if (n->op == MELU__SCALE && (is_root || l->uses[i] == 1)) {
    flatten(l, n->a, scale * n->s, 0);
  } else if (n->op == MELU__SCALE && !is_product(at(l, n->a)) && at(l, n->a)->op != MELU__ADD) {
    add_term(l, n->a, scale * n->s);
  } else if (n->op == MELU__ADD && (is_root || l->uses[i] == 1)) {
    flatten(l, n->a, scale, 0);
    flatten(l, n->b, scale, 0);
  } else {
    add_term(l, i, scale);
  }
}

static struct melu__addend take(struct lowering *l, size_t k) {
  const struct melu__addend term = l->terms[k];
  memmove(l->terms + k, l->terms + k + 1, (--l->n_terms - k) * sizeof *l->terms);
  return term;
}

/* Whether the k-th term is a product that this sum computes itself. */
static int own_product(const struct lowering *l, size_t k, melu__ref root) {
  const melu__ref i = l->terms[k].value;
  return is_product(at(l, i)) && (i == root || l->uses[i] == 1);
}

static struct melu__factor factor(const struct lowering *l, struct melu__addend term) {
  const struct melu__node *n = at(l, term.value);
  if (n->op == MELU__SUM_ROWS) return (struct melu__factor){MELU__NO_NODE, n->a, 0, term.scale};
  return (struct melu__factor){n->a, n->b, n->trans_a, term.scale};
}

/* The first broadcast of that op among the terms, by its operand. */
static struct melu__addend take_broadcast(struct lowering *l, enum melu__op op) {
  for (size_t k = 0; k < l->n_terms; k++) {
    if (at(l, l->terms[k].value)->op != op) continue;
    struct melu__addend term = take(l, k);
    term.value = at(l, term.value)->a;
    return term;
  }
  return (struct melu__addend){MELU__NO_NODE, 0};
}

/* Moves up to two products and two matrices of the terms into the instruction. */
static void fill(struct lowering *l, struct melu__instr *in, melu__ref root) {
  for (size_t k = 0; k < l->n_terms && in->n_products < 2;) {
    if (own_product(l, k, root))
      in->product[in->n_products++] = factor(l, take(l, k));
    else
      k++;
  }
  for (size_t k = 0; k < l->n_terms && in->n_terms < 2;) {
    if (own_product(l, k, root))
      k++;
    else
      in->term[in->n_terms++] = take(l, k);
  }
}

/* Instructions are emitted last first: the finishing one, which `in` is when called, then those of its partial sums. */
static void emit_sum(struct lowering *l, melu__ref root, struct melu__instr in) {
  l->n_terms = 0;
  flatten(l, root, 1, 1);
  in.row = take_broadcast(l, MELU__ROWS);
  in.number = take_broadcast(l, MELU__FILL);
  for (;;) {
    fill(l, &in, root);
    if (l->n_terms == 0 || l->out_of_memory) break;
    /* The rest is summed first, and takes the place of one matrix. */
    const melu__ref partial = new_partial(l, root);
    if (in.n_terms == 2) {
      in.n_terms = 1;
      add_term(l, in.term[1].value, in.term[1].scale);
    }
    in.term[in.n_terms++] = (struct melu__addend){partial, 1};
    emit(l, &in);
    in = blank(partial);
  }
  emit(l, &in);
}

/* ----------------------------------------------------------------------------------------------- epilogues */

/* mask(x) + y, where only this sum reads mask(x): the masked node, and y in *other. */
static melu__ref masked_and_other(const struct lowering *l, melu__ref i, melu__ref *other) {
  const struct melu__node *n = at(l, i);
  if (n->op != MELU__ADD) return MELU__NO_NODE;
  for (int side = 0; side < 2; side++) {
    const melu__ref x = side ? n->b : n->a;
    *other = side ? n->a : n->b;
    const int other_is_inside = is_sum(at(l, *other)) && l->uses[*other] == 1;
    if (l->uses[x] == 1 && is_masked(l, at(l, x)) && !other_is_inside) return x;
  }
  return MELU__NO_NODE;
}

/* x where y > 0: one instruction if only this reads x and x is a sum. */
static void emit_masked(struct lowering *l, melu__ref masked, struct melu__instr in) {
  const struct melu__node *n = at(l, masked);
  in.mask = at(l, n->b)->a;
  if (is_sum(at(l, n->a)) && l->uses[n->a] == 1) {
    emit_sum(l, n->a, in);
    return;
  }
  in.term[in.n_terms++] = (struct melu__addend){n->a, 1};
  emit(l, &in);
}

static void lower_relu(struct lowering *l, melu__ref i) {
  struct melu__instr in = blank(i);
  const melu__ref x = at(l, i)->a;
  in.relu = 1;
  if (is_sum(at(l, x)) && l->uses[x] == 1) {
    emit_sum(l, x, in);
  } else if (is_sum(at(l, x))) {
    l->relu_of[x] = i; /* there is one, as equal nodes are shared: made along with x, when the visit comes there */
    l->needed[x] = 1;
  } else {
    in.term[in.n_terms++] = (struct melu__addend){x, 1};
    emit(l, &in);
  }
}

static void lower_sum(struct lowering *l, melu__ref i) {
  struct melu__instr in = blank(i);
  melu__ref other;
  const melu__ref masked = masked_and_other(l, i, &other);
  if (l->relu_of[i] != MELU__NO_NODE) {
    in.pre = i;
    in.out = l->relu_of[i];
    in.relu = 1;
    emit_sum(l, i, in);
  } else if (masked != MELU__NO_NODE) {
    in.post = (struct melu__addend){other, 1};
    emit_masked(l, masked, in);
  } else {
    emit_sum(l, i, in);
  }
}

static void lower_node(struct lowering *l, melu__ref i) {
  const struct melu__node *n = at(l, i);
  struct melu__instr in = blank(i);
  if (n->op == MELU__INPUT) return;
  if (is_sum(n)) {
    lower_sum(l, i);
  } else if (n->op == MELU__RELU) {
    lower_relu(l, i);
  } else if (is_masked(l, n)) {
    emit_masked(l, i, in);
  } else if (n->op == MELU__ROWS) {
    in.row = (struct melu__addend){n->a, 1};
    emit(l, &in);
  } else if (n->op == MELU__FILL) {
    in.number = (struct melu__addend){n->a, 1};
    emit(l, &in);
  } else {
    in.is_sum = 0;
    emit(l, &in);
  }
}

static void count_uses(struct lowering *l, const melu__ref *keep, size_t n_keep) {
  for (size_t i = 0; i < n_keep; i++) {
    l->uses[keep[i]]++;
    l->needed[keep[i]] = 1;
  }
  for (size_t i = l->t->n; i-- > 0;) {
    const struct melu__node *n = &l->t->nodes[i];
    if (l->uses[i] == 0) continue;
    if (melu__ops[n->op].arity > 0) l->uses[n->a]++;
    if (melu__ops[n->op].arity > 1) l->uses[n->b]++;
  }
}

int melu__lower(struct melu__code *code, const struct melu__tape *t, const melu__ref *keep, size_t n_keep) {
  struct lowering l = {.t = t, .code = code};
  memset(code, 0, sizeof *code);
  code->alloc = t->alloc;
  l.uses = melu__calloc(t->alloc, t->n, sizeof *l.uses);
  l.needed = melu__calloc(t->alloc, t->n, 1);
  l.relu_of = melu__alloc(t->alloc, t->n, sizeof *l.relu_of);
  if (!l.uses || !l.needed || !l.relu_of) {
    l.out_of_memory = 1;
  } else {
    for (size_t i = 0; i < t->n; i++) l.relu_of[i] = MELU__NO_NODE;
    count_uses(&l, keep, n_keep);
    for (size_t i = t->n; i-- > 0 && !l.out_of_memory;)
      if (l.needed[i]) lower_node(&l, (melu__ref)i);
  }
  for (size_t i = 0; i < code->n / 2; i++) {
    const struct melu__instr swap = code->instrs[i];
    code->instrs[i] = code->instrs[code->n - 1 - i];
    code->instrs[code->n - 1 - i] = swap;
  }
  melu__free(t->alloc, l.terms);
  melu__free(t->alloc, l.relu_of);
  melu__free(t->alloc, l.needed);
  melu__free(t->alloc, l.uses);
  if (l.out_of_memory) melu__code_free(code);
  return !l.out_of_memory;
}

void melu__code_free(struct melu__code *code) {
  if (!code->alloc) return;
  melu__free(code->alloc, code->instrs);
  melu__free(code->alloc, code->partial_of);
  memset(code, 0, sizeof *code);
}
