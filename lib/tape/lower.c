/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/lower.h"

#include <string.h>

#include "tape/ops.h"

/* A term of a sum that is being collected. */
struct term {
  struct melu__addend value;
  int is_summed; /* it is the sums of that value's rows */
};

/* What a product that has more than one reader is made with, while it is in registers: a sum that takes it times a
 * vector, and the sums of its rows multiplied by those of other matrices, a partial value. */
struct along {
  melu__ref sum;  /* MELU__NO_NODE: none */
  melu__ref sums; /* MELU__NO_NODE: none */
  size_t n_pairs;
  struct melu__pair pair[2];
};

/* Nodes are visited from the last to the first; an instruction marks what it reads as needed, and what no instruction
 * reads is never made. So a node that its only reader took in (a product in a sum, a sum under a ReLU) vanishes. */
struct lowering {
  const struct melu__tape *t;
  struct melu__code *code;
  uint32_t *uses;        /* by live nodes, and one for being kept */
  unsigned char *needed; /* some instruction reads it, or it is kept */
  melu__ref *relu_of;    /* the ReLU that the instruction of this node makes along */
  struct along *along;   /* what else the instruction of this product makes along */
  struct term *terms;
  size_t n_terms, terms_capacity;
  int joins_rows;
  int out_of_memory;
};

static const struct melu__node *at(const struct lowering *l, melu__ref i) {
  return &l->t->nodes[i];
}

static int is_product(const struct melu__node *n) {
  return n->op == MELU__MATMUL || n->op == MELU__SUM_ROWS || n->op == MELU__SUM_COLS;
}

/* Rows times the numbers of a vector, as simplification writes it. The numbers of an input's column may lie apart. */
static int is_scaled(const struct lowering *l, const struct melu__node *n) {
  if (n->op != MELU__MUL || at(l, n->b)->op != MELU__COLS) return 0;
  const struct melu__node *by = at(l, n->b);
  return by->trans_a || at(l, by->a)->op != MELU__INPUT;
}

/* Two rows element by element, where that may be joined with the sum that it is in. */
static int is_row_times_row(const struct lowering *l, const struct melu__node *n) {
  return l->joins_rows && n->op == MELU__MUL && n->rows == 1 && n->cols > 1 && at(l, n->b)->op != MELU__STEP;
}

static int is_sum(const struct lowering *l, const struct melu__node *n) {
  return n->op == MELU__ADD || n->op == MELU__SCALE || is_product(n) || is_scaled(l, n) || is_row_times_row(l, n);
}

/* x where mask > 0, as simplification writes it. */
static int is_masked(const struct lowering *l, const struct melu__node *n) {
  return n->op == MELU__MUL && at(l, n->b)->op == MELU__STEP;
}

static int is_along(const struct lowering *l, melu__ref product) {
  return l->along[product].sum != MELU__NO_NODE || l->along[product].n_pairs > 0;
}

/* Whether a value is not a node's. */
static int is_partial(const struct lowering *l, melu__ref value) {
  return value >= l->t->n;
}

static void need(struct lowering *l, melu__ref value) {
  if (!is_partial(l, value)) l->needed[value] = 1;
}

/* ------------------------------------------------------------------------------------------- instructions */

static struct melu__instr blank(melu__ref out) {
  const struct melu__addend none = {MELU__NO_NODE, MELU__NO_NODE, 0, 0};
  struct melu__instr in;
  memset(&in, 0, sizeof in);
  in.is_sum = 1;
  in.out = out;
  in.pre = in.raw = in.sums = in.mask = in.by = MELU__NO_NODE;
  in.by_scale = 1;
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
    if (in->product[i].b != MELU__NO_NODE) visit(arg, in->product[i].b);
  }
  for (size_t i = 0; i < in->n_terms; i++) {
    visit(arg, in->term[i].value);
    if (in->term[i].by != MELU__NO_NODE) visit(arg, in->term[i].by);
  }
  for (size_t i = 0; i < in->n_pairs; i++) {
    if (in->pair[i].a != MELU__NO_NODE) visit(arg, in->pair[i].a);
    visit(arg, in->pair[i].b);
  }
  const melu__ref rest[] = {in->by, in->row.value, in->number.value, in->post.value, in->mask};
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

static void add_term(struct lowering *l, struct term term) {
  if (!melu__grow(l->code->alloc, &l->terms, &l->terms_capacity, l->n_terms, l->n_terms + 1, sizeof *l->terms)) {
    l->out_of_memory = 1;
    return;
  }
  l->terms[l->n_terms++] = term;
}

/* Collects the sums of the rows of node i: those of products of elements are products of their own. */
static void flatten_rows(struct lowering *l, melu__ref i, double scale) {
  const struct melu__node *n = at(l, i);
  if (n->op == MELU__SCALE && l->uses[i] == 1) {
    flatten_rows(l, n->a, scale * n->s);
  } else if (n->op == MELU__ADD && l->uses[i] == 1) {
    flatten_rows(l, n->a, scale);
    flatten_rows(l, n->b, scale);
  } else {
    add_term(l, (struct term){{i, MELU__NO_NODE, 0, scale}, 1});
  }
}

/* Collects the terms of node i. What only this sum reads is taken apart; a scale never needs to be made. */
static void flatten(struct lowering *l, melu__ref i, double scale, int is_root) {
  const struct melu__node *n = at(l, i);
  if (n->op == MELU__SCALE && (is_root || l->uses[i] == 1)) {
    flatten(l, n->a, scale * n->s, 0);
  } else if (n->op == MELU__SCALE && !is_sum(l, at(l, n->a))) {
    add_term(l, (struct term){{n->a, MELU__NO_NODE, 0, scale * n->s}, 0});
  } else if (n->op == MELU__ADD && (is_root || l->uses[i] == 1)) {
    flatten(l, n->a, scale, 0);
    flatten(l, n->b, scale, 0);
  } else if (is_scaled(l, n) && (is_root || l->uses[i] == 1)) {
    add_term(l, (struct term){{n->a, at(l, n->b)->a, 0, scale}, 0});
  } else if (is_row_times_row(l, n) && (is_root || l->uses[i] == 1)) {
    add_term(l, (struct term){{n->a, n->b, 1, scale}, 0});
  } else if (n->op == MELU__SUM_COLS && (is_root || l->uses[i] == 1)) {
    flatten_rows(l, n->a, scale);
  } else {
    add_term(l, (struct term){{i, MELU__NO_NODE, 0, scale}, 0});
  }
}

static struct term take(struct lowering *l, size_t k) {
  const struct term term = l->terms[k];
  memmove(l->terms + k, l->terms + k + 1, (--l->n_terms - k) * sizeof *l->terms);
  return term;
}

/* Whether the k-th term is a product that this sum computes itself. */
static int own_product(const struct lowering *l, size_t k, melu__ref root) {
  const melu__ref i = l->terms[k].value.value;
  if (is_partial(l, i) || l->terms[k].value.whole) return 0;
  if (l->terms[k].is_summed) return 1;
  const enum melu__op op = (enum melu__op)at(l, i)->op;
  return (op == MELU__MATMUL || op == MELU__SUM_ROWS) && (i == root || l->uses[i] == 1);
}

static struct melu__factor factor(const struct lowering *l, struct term term) {
  const melu__ref i = term.value.value;
  const struct melu__node *n = at(l, i);
  const double scale = term.value.scale;
  if (!term.is_summed && n->op == MELU__SUM_ROWS) return (struct melu__factor){MELU__NO_NODE, n->a, 0, 0, scale};
  if (!term.is_summed) return (struct melu__factor){n->a, n->b, n->trans_a, 0, scale};
  if (n->op == MELU__MUL && !is_masked(l, n) && !is_scaled(l, n) && l->uses[i] == 1)
    return (struct melu__factor){n->a, n->b, 0, 1, scale};
  return (struct melu__factor){i, MELU__NO_NODE, 0, 1, scale};
}

/* The first broadcast of that op among the terms, by its operand. */
static struct melu__addend take_broadcast(struct lowering *l, enum melu__op op) {
  for (size_t k = 0; k < l->n_terms; k++) {
    const struct term *t = &l->terms[k];
    if (is_partial(l, t->value.value) || t->value.by != MELU__NO_NODE || t->is_summed) continue;
    if (at(l, t->value.value)->op != op) continue;
    struct melu__addend term = take(l, k).value;
    term.value = at(l, term.value)->a;
    return term;
  }
  return (struct melu__addend){MELU__NO_NODE, MELU__NO_NODE, 0, 0};
}

/* Whether a factor of a column is the sums of rows: a diagonal, or rows times a vector whose numbers lie side by side.
 */
static int is_of_rows(const struct lowering *l, const struct melu__factor *f) {
  return f->diagonal || (f->a != MELU__NO_NODE && !f->trans_a && at(l, f->b)->op != MELU__INPUT);
}

/* Whether the k-th term can be the next product of the instruction: the same vector multiplies the rows of all, and
 * diagonals are computed with what else is a column of products of rows. */
static int takes_product(const struct lowering *l, const struct melu__instr *in, size_t k, melu__ref root) {
  if (in->n_products == 2 || in->raw != MELU__NO_NODE || in->n_pairs || !own_product(l, k, root)) return 0;
  if (in->n_products == 0) return 1;
  const struct melu__factor next = factor(l, l->terms[k]), *first = &in->product[0];
  const int are_alike = first->diagonal == next.diagonal,
            are_rows = at(l, root)->cols == 1 && is_of_rows(l, first) && is_of_rows(l, &next);
  return in->by == l->terms[k].value.by && (are_alike || are_rows);
}

/* Whether the k-th term cannot be added to products by their instruction: rows times rows, and a row times a number to
 * a row of diagonals, which is computed as a column. */
static int goes_alone(const struct lowering *l, const struct melu__instr *in, size_t k, melu__ref root) {
  const int is_row = at(l, root)->rows == 1 && at(l, root)->cols > 1;
  if (in->n_products == 0) return 0;
  return l->terms[k].value.whole || (is_row && in->product[0].diagonal && l->terms[k].value.by != MELU__NO_NODE);
}

/* Moves up to two products and so many matrices of the terms into the instruction. */
static void fill(struct lowering *l, struct melu__instr *in, melu__ref root, size_t most_terms) {
  for (size_t k = 0; k < l->n_terms;) {
    if (takes_product(l, in, k, root)) {
      in->by = l->terms[k].value.by;
      in->product[in->n_products++] = factor(l, take(l, k));
    } else {
      k++;
    }
  }
  for (size_t k = 0; k < l->n_terms && in->n_terms < most_terms;) {
    if (own_product(l, k, root) || goes_alone(l, in, k, root))
      k++;
    else
      in->term[in->n_terms++] = take(l, k).value;
  }
}

/* ------------------------------------------------------------------------------------------------ made along */

/* A product that others read, too, and that is larger than its factors: to move it to memory and back takes as long as
 * to make it. */
static int is_shared_product(const struct lowering *l, melu__ref i) {
  const struct melu__node *n = at(l, i);
  if (n->op != MELU__MATMUL || l->uses[i] == 1 || l->relu_of[i] != MELU__NO_NODE) return 0;
  return (n->trans_a ? at(l, n->a)->rows : at(l, n->a)->cols) < n->cols;
}

/* The matrices of a term that is the sums of the rows of their product, element by element. */
static int is_pair(const struct lowering *l, size_t k, struct melu__pair *pair) {
  if (!l->terms[k].is_summed) return 0;
  const struct melu__factor f = factor(l, l->terms[k]);
  *pair = (struct melu__pair){f.a, f.b, f.scale};
  return f.b != MELU__NO_NODE;
}

/* The product that a pair has in it, whose rows may be summed up by its instruction: the other matrix is there before
 * it. */
static melu__ref product_of(const struct lowering *l, struct melu__pair *pair) {
  for (int side = 0; side < 2; side++) {
    const melu__ref p = side ? pair->b : pair->a, other = side ? pair->a : pair->b;
    if (!is_shared_product(l, p) || other >= p) continue;
    if (l->along[p].n_pairs > 0) continue;
    pair->a = MELU__NO_NODE;
    pair->b = other;
    return p;
  }
  return MELU__NO_NODE;
}

/* Has the instruction of a product sum up the rows of pairs of which one is with that product, and of others that are
 * there by then; the sums become one term. Returns 0 if there is no such product. */
static int sum_along(struct lowering *l, melu__ref root) {
  struct melu__pair pair;
  melu__ref p = MELU__NO_NODE;
  for (size_t k = 0; k < l->n_terms && p == MELU__NO_NODE; k++)
    if (is_pair(l, k, &pair) && (p = product_of(l, &pair)) != MELU__NO_NODE) take(l, k);
  if (p == MELU__NO_NODE) return 0;
  struct along *along = &l->along[p];
  along->pair[along->n_pairs++] = pair;
  along->sums = new_partial(l, root);
  for (size_t k = 0; k < l->n_terms && along->n_pairs < 2;) {
    if (is_pair(l, k, &pair) && pair.a < p && pair.b < p) {
      along->pair[along->n_pairs++] = pair;
      take(l, k);
    } else {
      k++;
    }
  }
  add_term(l, (struct term){{along->sums, MELU__NO_NODE, 0, 1}, 0});
  return 1;
}

/* Whether the instruction of product p can add that: a matrix that is there before it. */
static int is_there_before(const struct lowering *l, const struct melu__addend *a, melu__ref p) {
  const uint8_t op = at(l, a->value)->op;
  if (op == MELU__ROWS || op == MELU__FILL) return 0;
  return (a->value < p || op == MELU__INPUT) && (a->by == MELU__NO_NODE || a->by <= p);
}

/* Whether the sum is left to the instruction of a product in it that others read, too. */
static int goes_along(struct lowering *l, melu__ref root) {
  size_t with = SIZE_MAX; /* the term with the product */
  l->n_terms = 0;
  flatten(l, root, 1, 1);
  for (size_t k = 0; k < l->n_terms; k++) {
    const struct term *t = &l->terms[k];
    const melu__ref i = t->value.value;
    if ((with == SIZE_MAX || i > l->terms[with].value.value) && t->value.by != MELU__NO_NODE && !t->value.whole &&
        is_shared_product(l, i) && l->along[i].sum == MELU__NO_NODE)
      with = k;
  }
  if (with == SIZE_MAX) return 0;
  const struct melu__addend product = l->terms[with].value;
  if (product.by > product.value) return 0;
  for (size_t k = 0; k < l->n_terms; k++)
    if (k != with && !is_there_before(l, &l->terms[k].value, product.value)) return 0;
  l->along[product.value].sum = root;
  return 1;
}

/* Makes product p the product of the instruction, of which there is no other. */
static void begin_with(struct lowering *l, struct melu__instr *in, melu__ref p) {
  size_t k = 0;
  while (l->terms[k].value.value != p) k++;
  struct term term = take(l, k);
  in->by = term.value.by;
  in->by_scale = term.value.scale;
  term.value.scale = 1;
  in->product[in->n_products++] = factor(l, term);
}

/* Instructions are emitted last first: the finishing one, which `in` is when called, then those of its partial sums. */
static void emit_sum(struct lowering *l, melu__ref root, melu__ref product, struct melu__instr in) {
  l->n_terms = 0;
  flatten(l, root, 1, 1);
  if (product != MELU__NO_NODE) begin_with(l, &in, product); /* there was memory for its terms before */
  while (sum_along(l, root)) continue;
  in.row = take_broadcast(l, MELU__ROWS);
  in.number = take_broadcast(l, MELU__FILL);
  const int joins = l->joins_rows && at(l, root)->rows == 1;
  for (size_t most_terms = product != MELU__NO_NODE || joins ? MELU__SUM_TERMS : 2;; most_terms = joins ? 3 : 2) {
    fill(l, &in, root, most_terms);
    if (l->n_terms == 0 || l->out_of_memory) break;
    /* The rest is summed first, and takes the place of one matrix. */
    const melu__ref partial = new_partial(l, root);
    if (in.n_terms > 1) add_term(l, (struct term){in.term[--in.n_terms], 0});
    in.term[in.n_terms++] = (struct melu__addend){partial, MELU__NO_NODE, 0, 1};
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
    const int other_is_inside = is_sum(l, at(l, *other)) && l->uses[*other] == 1;
    if (l->uses[x] == 1 && is_masked(l, at(l, x)) && !other_is_inside) return x;
  }
  return MELU__NO_NODE;
}

/* x where y > 0: one instruction if only this reads x and x is a sum. */
static void emit_masked(struct lowering *l, melu__ref masked, struct melu__instr in) {
  const struct melu__node *n = at(l, masked);
  const struct melu__node *x = at(l, n->a);
  in.mask = l->needed[n->b] ? n->b : at(l, n->b)->a; /* the step will do, if it is made */
  if (is_sum(l, x) && l->uses[n->a] == 1) {
    emit_sum(l, n->a, MELU__NO_NODE, in);
    return;
  }
  if (x->op == MELU__ROWS)
    in.row = (struct melu__addend){x->a, MELU__NO_NODE, 0, 1};
  else
    in.term[in.n_terms++] = (struct melu__addend){n->a, MELU__NO_NODE, 0, 1};
  emit(l, &in);
}

static void lower_relu(struct lowering *l, melu__ref i) {
  struct melu__instr in = blank(i);
  const melu__ref x = at(l, i)->a;
  in.relu = 1;
  if (is_sum(l, at(l, x)) && l->uses[x] == 1) {
    emit_sum(l, x, MELU__NO_NODE, in);
  } else if (is_sum(l, at(l, x)) && !is_along(l, x)) {
    l->relu_of[x] = i; /* there is one, as equal nodes are shared: made along with x, when the visit comes there */
    l->needed[x] = 1;
  } else {
    in.term[in.n_terms++] = (struct melu__addend){x, MELU__NO_NODE, 0, 1};
    emit(l, &in);
  }
}

/* Where its sum is not needed either. */
static void lower_step(struct lowering *l, melu__ref i) {
  struct melu__instr in = blank(i);
  const melu__ref x = at(l, i)->a;
  if (is_sum(l, at(l, x)) && l->uses[x] == 1) {
    in.step = 1;
    emit_sum(l, x, MELU__NO_NODE, in);
  } else {
    in.is_sum = 0;
    emit(l, &in);
  }
}

/* A product, and what is made along with it. */
static void lower_shared_product(struct lowering *l, melu__ref i) {
  const struct along *along = &l->along[i];
  const melu__ref root = along->sum != MELU__NO_NODE ? along->sum : i;
  struct melu__instr in = blank(root);
  if (root != i && l->needed[i]) in.raw = i;
  in.n_pairs = along->n_pairs;
  memcpy(in.pair, along->pair, sizeof in.pair);
  in.sums = along->sums;
  emit_sum(l, root, i, in);
}

static void lower_sum(struct lowering *l, melu__ref i) {
  struct melu__instr in = blank(i);
  melu__ref other;
  const melu__ref masked = masked_and_other(l, i, &other);
  if (is_along(l, i)) {
    lower_shared_product(l, i);
  } else if (l->relu_of[i] != MELU__NO_NODE) {
    in.pre = i;
    in.out = l->relu_of[i];
    in.relu = 1;
    emit_sum(l, i, MELU__NO_NODE, in);
  } else if (masked != MELU__NO_NODE) {
    in.post = (struct melu__addend){other, MELU__NO_NODE, 0, 1};
    emit_masked(l, masked, in);
  } else if (!goes_along(l, i)) {
    emit_sum(l, i, MELU__NO_NODE, in);
  }
}

static void lower_node(struct lowering *l, melu__ref i) {
  const struct melu__node *n = at(l, i);
  struct melu__instr in = blank(i);
  if (n->op == MELU__INPUT) return;
  if (is_sum(l, n)) {
    lower_sum(l, i);
  } else if (n->op == MELU__RELU) {
    lower_relu(l, i);
  } else if (n->op == MELU__STEP) {
    lower_step(l, i);
  } else if (is_masked(l, n)) {
    emit_masked(l, i, in);
  } else if (n->op == MELU__ROWS) {
    in.row = (struct melu__addend){n->a, MELU__NO_NODE, 0, 1};
    emit(l, &in);
  } else if (n->op == MELU__FILL) {
    in.number = (struct melu__addend){n->a, MELU__NO_NODE, 0, 1};
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

int melu__lower(struct melu__code *code, const struct melu__tape *t, const melu__ref *keep, size_t n_keep,
                int joins_rows) {
  struct lowering l = {.t = t, .code = code, .joins_rows = joins_rows};
  memset(code, 0, sizeof *code);
  code->alloc = t->alloc;
  l.uses = melu__calloc(t->alloc, t->n, sizeof *l.uses);
  l.needed = melu__calloc(t->alloc, t->n, 1);
  l.relu_of = melu__alloc(t->alloc, t->n, sizeof *l.relu_of);
  l.along = melu__calloc(t->alloc, t->n, sizeof *l.along);
  if (!l.uses || !l.needed || !l.relu_of || !l.along) {
    l.out_of_memory = 1;
  } else {
    for (size_t i = 0; i < t->n; i++) l.relu_of[i] = l.along[i].sum = l.along[i].sums = MELU__NO_NODE;
    count_uses(&l, keep, n_keep);
    for (size_t i = t->n; i-- > 0 && !l.out_of_memory;)
      if (l.needed[i] || is_along(&l, (melu__ref)i)) lower_node(&l, (melu__ref)i);
  }
  for (size_t i = 0; i < code->n / 2; i++) {
    const struct melu__instr swap = code->instrs[i];
    code->instrs[i] = code->instrs[code->n - 1 - i];
    code->instrs[code->n - 1 - i] = swap;
  }
  melu__free(t->alloc, l.terms);
  melu__free(t->alloc, l.along);
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
