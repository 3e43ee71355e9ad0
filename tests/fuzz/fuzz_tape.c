/* SPDX-License-Identifier: BSD-3-Clause */
/* The input is a recording of any ops and a choice of outputs, first and second derivatives among them. A plan of it is
 * held against plain loops, and reverse mode against forward mode, which this file has for itself. How far rounding may
 * take them apart is found out by plain loops that round each number to eleven digits at random. */
#include "fuzz.h"

#define TEST_WRONG fuzz_broken
#include "../programs.h"

enum { MOST_OPS = 80, N_GRADS = 2 * PROGRAM_INPUTS, N_ROUNDINGS = 2 };

static const double rounding = 1e-11;

/* The recording: y, a number, depends on all of the program; first[i] = d y / d input i,
 *     scalar = sum_i sum(weights_i first[i]),   second[i] = d scalar / d input i. */
struct recording {
  struct program *p;
  melu__ref y, scalar;
  melu__ref first[PROGRAM_INPUTS], second[PROGRAM_INPUTS];
  struct matrix direction[NAIVE_SLOTS];         /* in which inputs move; weights stay */
  struct melu__output outputs[PROGRAM_OUTPUTS]; /* some of the program's nodes, then all derivatives */
  size_t n_chosen, n_outputs;
};

/* A pass of plain loops: what nodes are, and how fast they change along the direction. */
struct pass {
  struct matrix *values, *tangents;
  double change[2], by_grad[2]; /* of y and of scalar: forward, and the derivatives times the direction */
  double size[2];               /* the sums of the latter without signs */
};

/* ------------------------------------------------------------------------------------------------- recording */

static melu__ref sum_of_unread(struct program *p) {
  struct melu__tape *t = &p->tape;
  const size_t n = t->n;
  unsigned char *is_read = test_memory(n, 1);
  for (size_t i = 0; i < n; i++) {
    if (t->nodes[i].a != MELU__NO_NODE) is_read[t->nodes[i].a] = 1;
    if (t->nodes[i].b != MELU__NO_NODE) is_read[t->nodes[i].b] = 1;
  }
  melu__ref sum = melu__tape_const(t, 1, 1, 0);
  for (melu__ref i = 0; i < n; i++)
    if (!is_read[i]) sum = melu__tape_add(t, sum, melu__tape_sum_all(t, melu__tape_sigmoid(t, i)));
  free(is_read);
  return sum;
}

/* Some inputs are brought along transposed. */
static void bring_transposes(struct program *p) {
  for (uint32_t i = 0; i < PROGRAM_INPUTS; i++) {
    const struct matrix m = p->setting.slot[i];
    const uint32_t slot = N_GRADS + i;
    if (program_below(p, 4)) continue;
    p->setting.slot[slot] = new_matrix(m.cols, m.rows);
    for (size_t k = 0; k < size_of(m); k++) p->setting.slot[slot].v[k % m.cols * m.rows + k / m.cols] = m.v[k];
    p->transposed[i] = slot;
    p->transposed[slot] = i; /* of slot 0 this says nothing */
  }
}

static void record(struct recording *r, const uint8_t *bytes, size_t n_bytes) {
  const uint64_t seed = n_bytes ? *bytes : 0;
  struct program *p = r->p = program_begin(seed, bytes, n_bytes);
  struct melu__tape *t = &p->tape;
  melu__ref wrt[PROGRAM_INPUTS];
  const size_t n_ops = program_below(p, MOST_OPS + 1);
  program_record(p, n_ops, (int)program_below(p, 2));
  bring_transposes(p);
  r->n_chosen = r->n_outputs = program_outputs(p, r->outputs, PROGRAM_OUTPUTS - N_GRADS);
  for (melu__ref i = 0; i < PROGRAM_INPUTS; i++) wrt[i] = i;
  r->y = sum_of_unread(p);
  melu__tape_grad(t, r->y, wrt, PROGRAM_INPUTS, r->first);
  r->scalar = melu__tape_const(t, 1, 1, 0);
  for (uint32_t i = 0; i < PROGRAM_INPUTS; i++) {
    const struct matrix x = p->setting.slot[i];
    const uint32_t slot = PROGRAM_INPUTS + i;
    r->direction[i] = random_matrix(&p->random, x.rows, x.cols);
    r->direction[slot] = new_matrix(x.rows, x.cols);
    p->setting.slot[slot] = random_matrix(&p->random, x.rows, x.cols);
    const melu__ref weights = melu__tape_input(t, slot, x.rows, x.cols);
    r->scalar = melu__tape_add(t, r->scalar, melu__tape_sum_all(t, melu__tape_mul(t, weights, r->first[i])));
  }
  melu__tape_grad(t, r->scalar, wrt, PROGRAM_INPUTS, r->second);
  FUZZ_NEEDS(!t->status, "the recording has failed: %s", melu_status_name(t->status));
  for (uint32_t i = 0; i < N_GRADS; i++) {
    const uint32_t slot = NAIVE_SLOTS + (uint32_t)r->n_outputs;
    r->outputs[r->n_outputs++] = (struct melu__output){i % 2 ? r->second[i / 2] : r->first[i / 2], slot, 0, slot};
  }
}

static void record_free(struct recording *r) {
  for (size_t i = 0; i < NAIVE_SLOTS; i++) free(r->direction[i].v);
  program_free(r->p);
}

/* ---------------------------------------------------------------------------------------------- forward mode */

static void add_to(double *sum, const double *v, size_t n) {
  for (size_t i = 0; i < n; i++) sum[i] += v[i];
}

static struct matrix tangent_matmul(const struct pass *pass, const struct melu__node *n) {
  const struct matrix out = new_matrix(n->rows, n->cols), other = new_matrix(n->rows, n->cols);
  naive_matmul(n, pass->tangents[n->a], pass->values[n->b], out.v);
  naive_matmul(n, pass->values[n->a], pass->tangents[n->b], other.v);
  add_to(out.v, other.v, size_of(out));
  free(other.v);
  return out;
}

/* Of S X = B with S = (A + A') / 2: S dX = dB - dS X. */
static struct matrix tangent_solve(const struct pass *pass, const struct melu__node *n, struct matrix x) {
  const struct matrix a = pass->values[n->a], da = pass->tangents[n->a], db = pass->tangents[n->b];
  const struct matrix out = new_matrix(n->rows, n->cols), right = new_matrix(n->rows, n->cols);
  for (size_t i = 0; i < x.rows; i++)
    for (size_t j = 0; j < x.cols; j++) {
      double sum = db.v[i * x.cols + j];
      for (size_t k = 0; k < x.rows; k++)
        sum -= (da.v[i * x.rows + k] + da.v[k * x.rows + i]) / 2 * x.v[k * x.cols + j];
      right.v[i * x.cols + j] = sum;
    }
  naive_solve(a, right, out.v);
  free(right.v);
  return out;
}

static double slope(enum melu__op op, double a, double value) {
  switch (op) {
    case MELU__RELU:
      return a > 0;
    case MELU__SIGMOID:
      return value - value * value;
    case MELU__LOG:
      return 1 / a;
    case MELU__RECIP:
      return -value * value;
    default: /* MELU__SQRT */
      return 1 / (2 * value);
  }
}

static struct matrix tangent_of_entries(const struct pass *pass, const struct melu__node *n, struct matrix value) {
  const struct matrix out = new_matrix(n->rows, n->cols);
  const double *a = pass->values[n->a].v, *da = pass->tangents[n->a].v;
  for (size_t i = 0; i < size_of(out); i++)
    out.v[i] = n->op == MELU__MUL ? da[i] * pass->values[n->b].v[i] + a[i] * pass->tangents[n->b].v[i]
                                  : da[i] * slope((enum melu__op)n->op, a[i], value.v[i]);
  return out;
}

static void tangent_node(struct pass *pass, const struct recording *r, size_t i) {
  const struct melu__node *n = &r->p->tape.nodes[i];
  struct setting moved = {.slot = {{0, 0, NULL}}};
  switch (n->op) {
    case MELU__CONST:
    case MELU__STEP:
    case MELU__DETACH:
      pass->tangents[i] = new_matrix(n->rows, n->cols);
      break;
    case MELU__MATMUL:
      pass->tangents[i] = tangent_matmul(pass, n);
      break;
    case MELU__SOLVE:
      pass->tangents[i] = tangent_solve(pass, n, pass->values[i]);
      break;
    case MELU__MUL:
    case MELU__RELU:
    case MELU__SIGMOID:
    case MELU__LOG:
    case MELU__RECIP:
    case MELU__SQRT:
      pass->tangents[i] = tangent_of_entries(pass, n, pass->values[i]);
      break;
    default: /* linear */
      memcpy(moved.slot, r->direction, sizeof moved.slot);
      memcpy(moved.bags, r->p->setting.bags, sizeof moved.bags);
      naive_node(pass->tangents, &r->p->tape, i, &moved);
  }
}

/* --------------------------------------------------------------------------------------------------- passes */

/* By a random share of `by` at most. */
static void round_off(struct matrix m, double by, uint64_t *random) {
  for (size_t i = 0; i < size_of(m) && by > 0; i++) m.v[i] *= 1 + by * random_number(random) / 2;
}

static void multiply(struct pass *pass, const struct recording *r, int order, const melu__ref *grad) {
  for (size_t i = 0; i < PROGRAM_INPUTS; i++)
    for (size_t k = 0; k < size_of(r->direction[i]); k++) {
      const double product = pass->values[grad[i]].v[k] * r->direction[i].v[k];
      pass->by_grad[order] += product;
      pass->size[order] += fabs(product);
    }
}

static struct pass pass_new(const struct recording *r, double by, uint64_t seed) {
  const struct melu__tape *t = &r->p->tape;
  struct pass pass = {test_memory(t->n, sizeof *pass.values), test_memory(t->n, sizeof *pass.tangents), {0}, {0}, {0}};
  for (size_t i = 0; i < t->n; i++) {
    const int is_exact = t->nodes[i].op == MELU__INPUT || t->nodes[i].op == MELU__CONST || t->nodes[i].op == MELU__STEP;
    naive_node(pass.values, t, i, &r->p->setting);
    round_off(pass.values[i], is_exact ? 0 : by, &seed);
    tangent_node(&pass, r, i);
    round_off(pass.tangents[i], is_exact ? 0 : by, &seed);
  }
  pass.change[0] = pass.tangents[r->y].v[0];
  pass.change[1] = pass.tangents[r->scalar].v[0];
  multiply(&pass, r, 0, r->first);
  multiply(&pass, r, 1, r->second);
  return pass;
}

static void pass_free(struct pass *pass, size_t n) {
  naive_free(pass->values, n);
  naive_free(pass->tangents, n);
}

/* ------------------------------------------------------------------------------------------------- comparing */

static double distance(struct matrix a, struct matrix b) {
  double most = 0;
  for (size_t i = 0; i < size_of(a); i++) {
    const double d = fabs(a.v[i] - b.v[i]);
    if (!(d <= most)) most = d; /* not a number stays one */
  }
  return most;
}

static double largest(struct matrix m) {
  double most = 1;
  for (size_t i = 0; i < size_of(m); i++)
    if (fabs(m.v[i]) > most) most = fabs(m.v[i]);
  return most;
}

static int all_finite(const struct pass *pass, size_t n) {
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < size_of(pass->values[i]); k++)
      if (!isfinite(pass->values[i].v[k]) || !isfinite(pass->tangents[i].v[k])) return 0;
  return 1;
}

/* By a plan of the first n outputs; `exact` is NULL if something is not finite. */
static void check_plan(const struct recording *r, size_t n, const struct melu__kernels *kernels,
                       const struct pass *exact, const struct pass *rounded) {
  struct matrix out[PROGRAM_OUTPUTS];
  program_run(out, r->p, r->outputs, n, kernels);
  for (size_t i = 0; i < n; i++) {
    const melu__ref node = r->outputs[i].node;
    double allowed = exact ? 1e-9 * largest(exact->values[node]) : INFINITY;
    for (size_t k = 0; k < N_ROUNDINGS && exact; k++)
      allowed += 10 * distance(exact->values[node], rounded[k].values[node]);
    const double off = exact ? distance(out[i], exact->values[node]) : 0;
    FUZZ_NEEDS(off <= allowed, "node %u of %zu, %s: the plan is off by %g, %g is allowed", (unsigned)node, r->p->tape.n,
               melu__ops[r->p->tape.nodes[node].op].name, off, allowed);
    free(out[i].v);
  }
}

static void check_derivatives(const struct pass *exact, const struct pass *rounded) {
  for (int order = 0; order < 2; order++) {
    double allowed = 1e-9 * (1 + exact->size[order]);
    for (size_t k = 0; k < N_ROUNDINGS; k++)
      allowed += 10 * (fabs(exact->change[order] - rounded[k].change[order]) +
                       fabs(exact->by_grad[order] - rounded[k].by_grad[order]));
    const double off = fabs(exact->change[order] - exact->by_grad[order]);
    FUZZ_NEEDS(off <= allowed, "derivative %d: %g in reverse, %g forward, %g is allowed", order + 1,
               exact->by_grad[order], exact->change[order], allowed);
  }
}

/* A plan that cannot have its memory is none, and keeps none. */
static void check_without_memory(const struct recording *r, const struct melu__kernels *kernels) {
  struct program *p = r->p;
  struct melu__plan *plan;
  melu_error err = {.status = MELU_OK};
  const size_t live = p->heap.live;
  const struct melu__plan_setting setting = {p->tape.alloc, kernels, NULL, p->transposed, 0, 1};
  p->heap.fail_at = p->heap.made + 1 + program_below(p, 32);
  p->heap.from_there_on = (int)program_below(p, 2);
  const melu_status status = melu__plan_new(&plan, &setting, &p->tape, r->outputs, r->n_outputs, &err);
  const int has_failed = p->heap.made >= p->heap.fail_at;
  p->heap.fail_at = 0;
  FUZZ_NEEDS(status == (has_failed ? MELU_ENOMEM : MELU_OK) && err.status == status && (plan == NULL) == has_failed,
             "without memory: %s", melu_status_name(status));
  melu__plan_free(plan);
  FUZZ_NEEDS(p->heap.live == live, "a plan that was not made has kept memory");
}

/* What derivatives read lives longer, and is placed in another way: so there is a plan without them, too. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
  const struct melu__kernels *kernels = usable_kernels(0);
  struct recording r = {.p = NULL};
  record(&r, bytes, n_bytes);
  const size_t n_nodes = r.p->tape.n;
  struct pass exact = pass_new(&r, 0, 0), rounded[N_ROUNDINGS];
  for (size_t k = 0; k < N_ROUNDINGS; k++) rounded[k] = pass_new(&r, rounding, k);
  const int is_finite = all_finite(&exact, n_nodes);
  check_plan(&r, r.n_chosen, kernels, is_finite ? &exact : NULL, rounded);
  check_plan(&r, r.n_outputs, kernels, is_finite ? &exact : NULL, rounded);
  if (is_finite) check_derivatives(&exact, rounded);
  check_without_memory(&r, kernels);
  for (size_t k = 0; k < N_ROUNDINGS; k++) pass_free(&rounded[k], n_nodes);
  pass_free(&exact, n_nodes);
  record_free(&r);
  return 0;
}
