/* SPDX-License-Identifier: BSD-3-Clause */
#include "tape/simplify.h"

#include <string.h>

#include "tape/ops.h"

/* The nodes of `to` by content: open addressing, at most half full. */
struct index {
  melu__ref *slot;
  size_t mask;
  const uint32_t *transposed; /* by input slot; NULL: none */
};

static uint64_t mix(uint64_t h, uint64_t x) {
  h = (h ^ x) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

static uint64_t node_hash(const struct melu__node *n) {
  uint64_t s;
  memcpy(&s, &n->s, sizeof s);
  uint64_t h = mix(n->op, (uint64_t)n->trans_a << 1 | n->trans_b);
  h = mix(h, (uint64_t)n->a << 32 | n->b);
  h = mix(h, (uint64_t)n->rows << 32 | n->cols);
  return mix(mix(h, n->index), s);
}

static int node_equal(const struct melu__node *p, const struct melu__node *q) {
  return p->op == q->op && p->trans_a == q->trans_a && p->trans_b == q->trans_b && p->a == q->a && p->b == q->b &&
         p->rows == q->rows && p->cols == q->cols && p->index == q->index && memcmp(&p->s, &q->s, sizeof p->s) == 0;
}

/* Where the node of that content is in the index, or belongs. */
static melu__ref *find_slot(const struct melu__tape *to, const struct index *index, const struct melu__node *node) {
  size_t i = (size_t)node_hash(node) & index->mask;
  while (index->slot[i] != MELU__NO_NODE && !node_equal(&to->nodes[index->slot[i]], node)) i = (i + 1) & index->mask;
  return &index->slot[i];
}

static melu__ref find(const struct melu__tape *to, const struct index *index, const struct melu__node *node) {
  return *find_slot(to, index, node);
}

/* Whether a factor comes second, where whoever looks for it expects it: a mask, what scales rows. */
static int goes_second(const struct melu__tape *to, melu__ref factor) {
  return to->nodes[factor].op == MELU__STEP || to->nodes[factor].op == MELU__COLS;
}

/* The node of that content in `to`: the one that is there, or a new one. */
static melu__ref intern(struct melu__tape *to, struct index *index, struct melu__node node) {
  if (to->status) return MELU__NO_NODE;
  const int commutes = node.op == MELU__ADD || (node.op == MELU__MUL && !goes_second(to, node.b));
  if (commutes && node.a > node.b) {
    const melu__ref a = node.a;
    node.a = node.b;
    node.b = a;
  }
  melu__ref *slot = find_slot(to, index, &node);
  if (*slot == MELU__NO_NODE) *slot = melu__tape_push(to, node);
  return *slot;
}

static melu__ref constant(struct melu__tape *to, struct index *index, const struct melu__node *like, double s) {
  return intern(
      to, index,
      (struct melu__node){
          .op = MELU__CONST, .a = MELU__NO_NODE, .b = MELU__NO_NODE, .rows = like->rows, .cols = like->cols, .s = s});
}

static int is_const(const struct melu__node *n, double s) {
  return n->op == MELU__CONST && n->s == s;
}

static melu__ref scaled(struct melu__tape *to, struct index *index, melu__ref a, double s) {
  if (to->status) return MELU__NO_NODE;
  const struct melu__node inner = to->nodes[a];
  if (s == 1) return a;
  if (inner.op == MELU__CONST) return constant(to, index, &inner, s * inner.s);
  if (inner.op == MELU__SCALE) return scaled(to, index, inner.a, s * inner.s);
  return intern(to, index,
                (struct melu__node){
                    .op = MELU__SCALE, .a = a, .b = MELU__NO_NODE, .rows = inner.rows, .cols = inner.cols, .s = s});
}

static melu__ref record(struct melu__tape *to, struct index *index, struct melu__node n);

static melu__ref record_unary(struct melu__tape *to, struct index *index, enum melu__op op, melu__ref a, uint32_t rows,
                              uint32_t cols) {
  return record(to, index,
                (struct melu__node){.op = (uint8_t)op, .a = a, .b = MELU__NO_NODE, .rows = rows, .cols = cols});
}

/* Scales move outward through what is linear, until a sum takes them as coefficients: f(s a) = s f(a). */
static int takes_scale_out(const struct melu__tape *to, const struct melu__node *n, int *side) {
  const int linear = n->op == MELU__MATMUL || n->op == MELU__MUL || n->op == MELU__SUM_ROWS || n->op == MELU__SUM_ALL ||
                     n->op == MELU__SUM_COLS || n->op == MELU__COLS || n->op == MELU__ROWS || n->op == MELU__FILL ||
                     n->op == MELU__TRANSPOSE;
  *side = to->nodes[n->a].op == MELU__SCALE ? 0 : 1;
  if (!linear) return 0;
  return *side == 0 || (melu__ops[n->op].arity > 1 && to->nodes[n->b].op == MELU__SCALE);
}

static melu__ref scale_out(struct melu__tape *to, struct index *index, struct melu__node n, int side) {
  melu__ref *operand = side ? &n.b : &n.a;
  const struct melu__node scale = to->nodes[*operand];
  *operand = scale.a;
  return scaled(to, index, record(to, index, n), scale.s);
}

/* Sums and broadcasts of a constant are constants; those that change nothing are their operand. */
static melu__ref reshaped(struct melu__tape *to, struct index *index, const struct melu__node *n) {
  const struct melu__node a = to->nodes[n->a];
  if (n->rows == a.rows && n->cols == a.cols) return n->a;
  if (a.op != MELU__CONST) return intern(to, index, *n);
  const double times = n->op == MELU__SUM_ROWS   ? a.rows
                       : n->op == MELU__SUM_COLS ? a.cols
                       : n->op == MELU__SUM_ALL  ? (double)a.rows * a.cols
                                                 : 1;
  return constant(to, index, n, times * a.s);
}

/* The product that a node is, up to a scale. */
static struct melu__node scaled_product(const struct melu__tape *to, melu__ref i, double *scale) {
  struct melu__node n = to->nodes[i];
  *scale = 1;
  if (n.op == MELU__SCALE) {
    *scale = n.s;
    n = to->nodes[n.a];
  }
  return n;
}

/* Whether the nodes are s A X and s A' X. */
static int are_twins(const struct melu__tape *to, melu__ref i, melu__ref j) {
  double s, t;
  const struct melu__node p = scaled_product(to, i, &s), q = scaled_product(to, j, &t);
  return p.op == MELU__MATMUL && q.op == MELU__MATMUL && p.a == q.a && p.b == q.b && p.trans_b == 0 && q.trans_b == 0 &&
         p.trans_a != q.trans_a && memcmp(&s, &t, sizeof s) == 0;
}

/* s (A + A') X, of one of the twins. */
static melu__ref both_twins(struct melu__tape *to, struct index *index, melu__ref i) {
  double s;
  struct melu__node p = scaled_product(to, i, &s);
  const struct melu__node a = to->nodes[p.a];
  const melu__ref turned = record_unary(to, index, MELU__TRANSPOSE, p.a, a.cols, a.rows);
  const struct melu__node sum = {.op = MELU__ADD, .a = p.a, .b = turned, .rows = a.rows, .cols = a.cols};
  p.a = record(to, index, sum);
  p.trans_a = 0;
  return scaled(to, index, record(to, index, p), s);
}

/* The sum `sum` with its term that is i's twin replaced by both; MELU__NO_NODE if it has none. One product is saved:
 * the gradient of X X' is (D + D') X. */
static melu__ref join_twin(struct melu__tape *to, struct index *index, melu__ref sum, melu__ref i, int depth) {
  if (to->status) return MELU__NO_NODE;
  if (are_twins(to, sum, i)) return both_twins(to, index, i);
  struct melu__node n = to->nodes[sum];
  if (n.op != MELU__ADD || depth == 0) return MELU__NO_NODE;
  for (int side = 0; side < 2; side++) {
    const melu__ref joined = join_twin(to, index, side ? n.b : n.a, i, depth - 1);
    if (joined == MELU__NO_NODE) continue;
    if (side)
      n.b = joined;
    else
      n.a = joined;
    return intern(to, index, n);
  }
  return MELU__NO_NODE;
}

static melu__ref added(struct melu__tape *to, struct index *index, const struct melu__node *n) {
  if (to->status) return MELU__NO_NODE;
  enum { DEPTH = 6 };
  const melu__ref joined = join_twin(to, index, n->a, n->b, DEPTH);
  if (joined != MELU__NO_NODE) return joined;
  const melu__ref other_way = join_twin(to, index, n->b, n->a, DEPTH);
  if (other_way != MELU__NO_NODE) return other_way;
  const struct melu__node a = to->nodes[n->a], b = to->nodes[n->b];
  if (is_const(&a, 0)) return n->b;
  if (is_const(&b, 0)) return n->a;
  if (n->a == n->b) return scaled(to, index, n->a, 2);
  if (a.op == MELU__SCALE && b.op == MELU__SCALE && memcmp(&a.s, &b.s, sizeof a.s) == 0) {
    struct melu__node inner = *n;
    inner.a = a.a;
    inner.b = b.a;
    return scaled(to, index, record(to, index, inner), a.s);
  }
  return intern(to, index, *n);
}

/* A factor that is the step of a ReLU is a mask: it comes second, and once. */
static melu__ref multiplied(struct melu__tape *to, struct index *index, struct melu__node n) {
  if (to->nodes[n.a].op == MELU__CONST) return scaled(to, index, n.b, to->nodes[n.a].s);
  if (to->nodes[n.b].op == MELU__CONST) return scaled(to, index, n.a, to->nodes[n.b].s);
  if (goes_second(to, n.a) && to->nodes[n.b].op != MELU__STEP) {
    const melu__ref swap = n.a;
    n.a = n.b;
    n.b = swap;
  }
  const struct melu__node a = to->nodes[n.a];
  if (to->nodes[n.b].op == MELU__STEP && a.op == MELU__MUL && a.b == n.b) return n.a;
  return intern(to, index, n);
}

/* A D B with a diagonal D of a row of numbers: the columns of A are scaled where they are fewer numbers than the rows
 * of B. */
static melu__ref with_scaled_columns(struct melu__tape *to, struct index *index, const struct melu__node *n) {
  const struct melu__node a = to->nodes[n->a], b = to->nodes[n->b], by = to->nodes[b.b];
  const struct melu__node rows = {.op = MELU__ROWS, .a = by.a, .b = MELU__NO_NODE, .rows = a.rows, .cols = a.cols};
  struct melu__node scaled_a = {.op = MELU__MUL, .a = n->a, .rows = a.rows, .cols = a.cols}, product = *n;
  scaled_a.b = record(to, index, rows);
  product.a = record(to, index, scaled_a);
  product.b = b.a;
  return record(to, index, product);
}

static int has_scaled_rows(const struct melu__tape *to, const struct melu__node *n) {
  const struct melu__node *b = &to->nodes[n->b];
  return !n->trans_a && !n->trans_b && n->rows < n->cols && b->op == MELU__MUL && to->nodes[b->b].op == MELU__COLS &&
         to->nodes[b->b].trans_a;
}

/* The kernels read op(b) by rows. A vector is its own transpose, but for an input, whose rows may lie apart. */
static melu__ref product(struct melu__tape *to, struct index *index, struct melu__node n) {
  const struct melu__node a = to->nodes[n.a], b = to->nodes[n.b];
  if (is_const(&a, 0) || is_const(&b, 0)) return constant(to, index, &n, 0);
  if (has_scaled_rows(to, &n)) return with_scaled_columns(to, index, &n);
  const int vector = b.rows == 1 || (b.cols == 1 && b.op != MELU__INPUT);
  if (n.trans_b && !vector) {
    n.b = record_unary(to, index, MELU__TRANSPOSE, n.b, b.cols, b.rows);
    n.trans_b = 0;
  }
  return intern(to, index, n);
}

/* A transpose that the run brings along, or that undoes another, is not made. */
static melu__ref transposed(struct melu__tape *to, struct index *index, struct melu__node n) {
  const struct melu__node a = to->nodes[n.a];
  if (a.op == MELU__TRANSPOSE) return a.a;
  if (a.op == MELU__INPUT && index->transposed && index->transposed[a.index]) {
    struct melu__node twin = a;
    twin.index = index->transposed[a.index];
    twin.rows = a.cols;
    twin.cols = a.rows;
    return intern(to, index, twin);
  }
  return intern(to, index, n);
}

/* step(z) = step(relu(z)): where the ReLU is there anyway, z need not be. */
static melu__ref stepped(struct melu__tape *to, struct index *index, struct melu__node n) {
  struct melu__node relu = n;
  relu.op = MELU__RELU;
  const melu__ref known = find(to, index, &relu);
  if (known != MELU__NO_NODE) n.a = known;
  return intern(to, index, n);
}

/* Records one node whose operands are nodes of `to` already. */
static melu__ref record(struct melu__tape *to, struct index *index, struct melu__node n) {
  int side;
  if (to->status) return MELU__NO_NODE;
  if (melu__ops[n.op].arity > 0 && takes_scale_out(to, &n, &side)) return scale_out(to, index, n, side);
  switch (n.op) {
    case MELU__DETACH:
      return n.a;
    case MELU__SCALE:
      return scaled(to, index, n.a, n.s);
    case MELU__SUB:
      n.op = MELU__ADD;
      n.b = scaled(to, index, n.b, -1);
      return added(to, index, &n);
    case MELU__ADD_ROW:
      n.op = MELU__ADD;
      n.b = record_unary(to, index, MELU__ROWS, n.b, n.rows, n.cols);
      return added(to, index, &n);
    case MELU__ADD:
      return added(to, index, &n);
    case MELU__MUL:
      return multiplied(to, index, n);
    case MELU__MATMUL:
      return product(to, index, n);
    case MELU__STEP:
      return stepped(to, index, n);
    case MELU__TRANSPOSE:
      return transposed(to, index, n);
    case MELU__COLS:
    case MELU__SUM_COLS:
    case MELU__SUM_ROWS:
    case MELU__SUM_ALL:
    case MELU__ROWS:
    case MELU__FILL:
      return reshaped(to, index, &n);
    default:
      return intern(to, index, n);
  }
}

void melu__mark_live(const struct melu__tape *t, const melu__ref *keep, size_t n_keep, unsigned char *live) {
  memset(live, 0, t->n);
  for (size_t i = 0; i < n_keep; i++) live[keep[i]] = 1;
  for (size_t i = t->n; i-- > 0;) {
    const int arity = live[i] ? melu__ops[t->nodes[i].op].arity : 0;
    if (arity > 0) live[t->nodes[i].a] = 1;
    if (arity > 1) live[t->nodes[i].b] = 1;
  }
}

void melu__simplify(struct melu__tape *to, const struct melu__tape *from, const uint32_t *transposed, melu__ref *keep,
                    size_t n_keep) {
  struct index index = {NULL, 63, transposed};
  while (index.mask < 16 * from->n) index.mask = 2 * index.mask + 1; /* a node is recorded as eight at most */
  index.slot = melu__alloc(from->alloc, index.mask + 1, sizeof *index.slot);
  unsigned char *live = melu__alloc(from->alloc, from->n, 1);
  melu__ref *map = melu__alloc(from->alloc, from->n, sizeof *map);
  if (!index.slot || !live || !map) {
    to->status = MELU_ENOMEM;
    goto done;
  }
  memset(index.slot, 0xff, (index.mask + 1) * sizeof *index.slot); /* MELU__NO_NODE everywhere */
  melu__mark_live(from, keep, n_keep, live);
  for (size_t i = 0; i < from->n && !to->status; i++) {
    struct melu__node n = from->nodes[i];
    if (!live[i]) continue;
    if (melu__ops[n.op].arity > 0) n.a = map[n.a];
    if (melu__ops[n.op].arity > 1) n.b = map[n.b];
    map[i] = record(to, &index, n);
  }
  for (size_t i = 0; i < n_keep && !to->status; i++) keep[i] = map[keep[i]];
done:
  melu__free(from->alloc, map);
  melu__free(from->alloc, live);
  melu__free(from->alloc, index.slot);
}
