/* SPDX-License-Identifier: BSD-3-Clause */
/* The outer update: Adam (Kingma & Ba, 2015), AdamW (Loshchilov & Hutter, 2019), SGD. */
#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "model/gradient.h"
#include "tensor/kernels.h"

/* -------------------------------------------------------------------------------------------------- life */

static melu_status in_range(double x, double low, double high, const char *name, melu_error *err) {
  if (x >= low && x < high) return MELU_OK;
  return melu__fail(err, MELU_ERANGE, "%s is %s, not in [%s, %s)", name, melu__number_show(x, 6).text,
                    melu__number_show(low, 6).text, melu__number_show(high, 6).text);
}

melu_status melu__optimizer_options(struct melu_optimizer_options *o, const struct melu_optimizer_options *given,
                                    melu_error *err) {
  melu_status status = melu__options(o, sizeof *o, given, "melu_optimizer_options", err);
  if (status) return status;
  if (o->kind != MELU_ADAM && o->kind != MELU_ADAMW && o->kind != MELU_SGD)
    return melu__fail(err, MELU_EINVAL, "optimizer kind %d is unknown", (int)o->kind);
  if (o->lr == 0) o->lr = 1e-3;
  if (o->beta1 == 0) o->beta1 = 0.9;
  if (o->beta2 == 0) o->beta2 = 0.999;
  if (o->epsilon == 0) o->epsilon = 1e-8;
  if (o->clip_value == 0) o->clip_value = 10;
  if (o->clip_value < 0) o->clip_value = INFINITY;
  if (o->clip_norm == 0) o->clip_norm = INFINITY;
  if (isnan(o->clip_value) || !(o->clip_norm > 0))
    return melu__fail(err, MELU_ERANGE, "a clip is not a positive number");
  if ((status = in_range(o->lr, 0, HUGE_VAL, "lr", err))) return status;
  if ((status = in_range(o->beta1, 0, 1, "beta1", err))) return status;
  if ((status = in_range(o->beta2, 0, 1, "beta2", err))) return status;
  if ((status = in_range(o->epsilon, 1e-30, HUGE_VAL, "epsilon", err))) return status;
  if (!(o->beta1 * o->beta1 < o->beta2))
    return melu__fail(err, MELU_ERANGE, "beta1 %s is not below the root of beta2 %s: steps would have no bound",
                      melu__number_show(o->beta1, 6).text, melu__number_show(o->beta2, 6).text);
  return in_range(o->weight_decay, 0, HUGE_VAL, "weight_decay", err);
}

static int allocate_moments(melu_optimizer *opt) {
  const melu_model *model = opt->model;
  const struct melu_allocator *a = &model->ctx->allocator;
  size_t widest = 1;
  opt->m = melu__calloc(a, model->n_params, sizeof *opt->m);
  opt->v = melu__calloc(a, model->n_params, sizeof *opt->v);
  if (!opt->m || !opt->v) return 0;
  for (size_t i = 0; i < model->n_params; i++) {
    const size_t n = model->params[i].rows * model->params[i].cols;
    if (model->params[i].cols > widest) widest = model->params[i].cols;
    if (opt->options.kind == MELU_SGD) continue;
    opt->m[i] = melu__calloc(a, n, sizeof(real));
    opt->v[i] = melu__calloc(a, n, sizeof(real));
    if (!opt->m[i] || !opt->v[i]) return 0;
  }
  opt->zero_row = melu__calloc(a, widest, sizeof(real));
  return opt->zero_row != NULL;
}

melu_status melu__optimizer_new(melu_optimizer **out, const melu_model *model,
                                const struct melu_optimizer_options *options, melu_error *err) {
  struct melu_optimizer_options resolved;
  *out = NULL;
  const melu_status status = melu__optimizer_options(&resolved, options, err);
  if (status) return status;
  melu_optimizer *opt = melu__calloc(&model->ctx->allocator, 1, sizeof *opt);
  if (!opt) return melu__fail_memory(err);
  opt->model = model;
  opt->options = resolved;
  if (!allocate_moments(opt)) {
    melu_optimizer_free(opt);
    return melu__fail_memory(err);
  }
  *out = opt;
  return MELU_OK;
}

melu_status melu_optimizer_new(melu_optimizer **out, const melu_model *model,
                               const struct melu_optimizer_options *options, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!model) return melu__fail(err, MELU_EINVAL, "model is NULL");
  const melu_status status = melu__check_whole(model, err);
  return status ? status : melu__optimizer_new(out, model, options, err);
}

void melu_optimizer_free(melu_optimizer *opt) {
  if (!opt) return;
  const struct melu_allocator *a = &opt->model->ctx->allocator;
  for (size_t i = 0; i < opt->model->n_params; i++) {
    if (opt->m) melu__free(a, opt->m[i]);
    if (opt->v) melu__free(a, opt->v[i]);
  }
  melu__free(a, opt->m);
  melu__free(a, opt->v);
  melu__free(a, opt->zero_row);
  melu__free(a, opt);
}

melu_status melu_optimizer_set_lr(melu_optimizer *opt, double lr, melu_error *err) {
  if (!opt) return melu__fail(err, MELU_EINVAL, "optimizer is NULL");
  const melu_status status = in_range(lr, 0, HUGE_VAL, "lr", err);
  if (!status) opt->options.lr = lr;
  return status;
}

/* -------------------------------------------------------------------------------------------------- step */

static double add_squares(double sum, const real *x, size_t n) {
  for (size_t k = 0; k < n; k++) sum += (double)x[k] * (double)x[k];
  return sum;
}

static int by_row(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* With more slots than one, in the order of the rows: that in which they came depends on the ranks. Returns 0 if there
 * is no memory. */
static int add_table_squares(const melu_gradient *g, size_t table, const struct melu__share *share, double *by_slot) {
  const struct melu__table_grad *t = &g->tables[table];
  const melu_context *ctx = g->model->ctx;
  if (share->n_slots == 1) {
    *by_slot = add_squares(*by_slot, t->values, t->n * t->cols);
    return 1;
  }
  uint32_t *rows = melu__alloc(&ctx->allocator, t->n, sizeof *rows);
  if (!rows) return 0;
  if (t->n) memcpy(rows, t->rows, t->n * sizeof *rows);
  if (t->n) qsort(rows, t->n, sizeof *rows, by_row);
  for (size_t k = 0; k < t->n; k++) {
    double *sum = &by_slot[melu__slot_of_row(g->model, table, share, rows[k])];
    *sum = add_squares(*sum, melu__table_grad_row(t, rows[k]), t->cols);
  }
  melu__free(&ctx->allocator, rows);
  return 1;
}

melu_status melu__optimizer_squares(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                                    double *by_slot, melu_error *err) {
  if (isinf(opt->options.clip_norm)) return MELU_OK;
  for (size_t i = 0; i < opt->model->n_tables; i++)
    if (!add_table_squares(g, i, share, by_slot)) return melu__fail_memory(err);
  for (size_t s = share->own.lo; s < share->own.hi; s++) {
    const size_t begin = melu__dense_begin(g, s, share->n_slots), end = melu__dense_begin(g, s + 1, share->n_slots);
    by_slot[s] = add_squares(by_slot[s], g->dense + begin, end - begin);
  }
  return MELU_OK;
}

/* By how much the gradient is scaled so that its norm is at most clip_norm. */
static double norm_scale(const melu_optimizer *opt, const struct melu__size *size) {
  const double norm = sqrt(size->squares), most = opt->options.clip_norm;
  return norm > most ? most / norm : 1;
}

/* |m / c1| / sqrt(v / c2) is at most this, whatever the gradients were: by Cauchy and Schwarz over the past,
 * |m| <= (1 - beta1) sqrt(v) / sqrt((1 - beta2) (1 - beta1^2 / beta2)), and c1 >= 1 - beta1, c2 <= 1. */
static double adam_bound(const struct melu_optimizer_options *o) {
  return 1 / sqrt((1 - o->beta2) * (1 - o->beta1 * o->beta1 / o->beta2));
}

/* Whether every weight and moment will still be finite: nothing may be changed otherwise. Squares of what passes stay
 * far inside the range of a float. *next receives a bound for the weights after the step, from the bound before it. */
static int will_stay_finite(const melu_optimizer *opt, const struct melu__size *size, double *next) {
  const struct melu_optimizer_options *o = &opt->options;
  const double largest = sqrt((double)MELU__REAL_MAX) / 4;
  const double d = fmin(norm_scale(opt, size) * size->largest, o->clip_value);
  const double step = o->lr * (o->kind == MELU_SGD ? d : adam_bound(o)), growth = 1 + o->lr * o->weight_decay;
  if (!(d < largest) || !(step < largest) || !(o->weight_decay < largest) || !(growth < largest)) return 0;
  *next = (double)opt->model->largest * growth + step;
  return *next < MELU__REAL_MAX / 4;
}

int melu__optimizer_may_update(const melu_optimizer *opt, const struct melu__size *size) {
  double next;
  return will_stay_finite(opt, size, &next);
}

/* w := w - lr (clamp(scale g) + decay w) */
static void sgd_row(const struct melu__adam *s, size_t n, real *w, const real *g) {
  for (size_t j = 0; j < n; j++) {
    real d = s->scale * g[j];
    d = d > s->clip ? s->clip : d < -s->clip ? -s->clip : d;
    w[j] -= s->lr * (d + s->decay * w[j]);
  }
}

/* An update, in pieces that can be made at the same time: some rows of one parameter each, or, with more slots than
 * one, the dense numbers of a slot. */
struct update {
  const melu_optimizer *opt;
  const melu_gradient *g;
  const struct melu__share *share;
  struct melu__adam step;
};

enum { PIECE = 16384 }; /* numbers */

size_t melu__optimizer_n_rows(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                              size_t table) {
  const struct melu__param *p = &opt->model->params[table];
  if (!opt->options.dense) return g->tables[table].n;
  return p->is_sharded ? p->rows : melu__share_rows(share, p->rows);
}

uint32_t melu__optimizer_row(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                             size_t table, size_t k) {
  if (!opt->options.dense) return g->tables[table].rows[k];
  return (uint32_t)(opt->model->params[table].is_sharded ? k : melu__share_row(share, k));
}

/* The rows of a parameter that an update visits, and how many of them make a piece. */
static size_t count_rows(const struct update *u, size_t param) {
  const struct melu__param *p = &u->opt->model->params[param];
  if (p->is_table) return melu__optimizer_n_rows(u->opt, u->g, u->share, param);
  return u->share->n_slots > 1 ? 0 : p->rows;
}

static size_t piece_rows(const struct melu__param *p) {
  return p->cols < PIECE ? PIECE / p->cols : 1;
}

static size_t count_pieces(const struct update *u, size_t param) {
  const size_t n = piece_rows(&u->opt->model->params[param]);
  return (count_rows(u, param) + n - 1) / n;
}

/* n rows of that many columns, from number `at` of the parameter on: those numbered rows[], or all; g has just these.
 */
static void update_rows(const struct update *u, size_t param, size_t at, size_t n, size_t cols, const uint32_t *rows,
                        const real *g) {
  const melu_optimizer *opt = u->opt;
  real *w = opt->model->params[param].data + at;
  if (opt->options.kind != MELU_SGD)
    opt->model->ctx->kernels->adam(n, cols, rows, w, opt->m[param] + at, opt->v[param] + at, g, &u->step);
  else
    for (size_t k = 0; k < n; k++) sgd_row(&u->step, cols, w + (rows ? rows[k] : k) * cols, g + k * cols);
}

/* What is measured is not learnt: no decay. */
static int is_measured(const struct update *u, const struct melu__param *p) {
  for (int k = MELU__F_SCALE; k <= MELU__F_NAMES; k++)
    if (p->data == u->opt->model->factors[k]) return 1;
  return 0;
}

/* Every row, touched or not: the k-th ones from `first` on. */
static void update_all_rows(const struct update *u, size_t param, size_t first, size_t end) {
  const struct melu__table_grad *t = &u->g->tables[param];
  for (size_t k = first; k < end; k++) {
    const uint32_t row = melu__optimizer_row(u->opt, u->g, u->share, param, k);
    update_rows(u, param, row * t->cols, 1, t->cols, NULL,
                t->place[row] ? melu__table_grad_row(t, row) : u->opt->zero_row);
  }
}

static void update_piece(const struct update *u, size_t param, size_t piece) {
  const struct melu__param *p = &u->opt->model->params[param];
  const struct melu__gradient_part part = melu__gradient_part(u->g, param);
  const size_t n = piece_rows(p), first = piece * n,
               end = first + n < count_rows(u, param) ? first + n : count_rows(u, param);
  if (is_measured(u, p)) return;
  if (!p->is_table)
    update_rows(u, param, first * p->cols, end - first, p->cols, NULL, part.values + first * p->cols);
  else if (!u->opt->options.dense)
    update_rows(u, param, 0, end - first, p->cols, part.rows + first, part.values + first * p->cols);
  else
    update_all_rows(u, param, first, end);
}

/* The dense numbers of a slot, which may be a part of a parameter, or of several. */
static void update_slot(const struct update *u, size_t slot) {
  const melu_model *model = u->opt->model;
  const size_t n_slots = u->share->n_slots, begin = melu__dense_begin(u->g, slot, n_slots),
               end = melu__dense_begin(u->g, slot + 1, n_slots);
  for (size_t i = model->n_tables, at = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    const size_t next = at + p->rows * p->cols, first = begin > at ? begin : at, last = end < next ? end : next;
    if (first < last && !is_measured(u, p)) update_rows(u, i, first - at, 1, last - first, NULL, u->g->dense + first);
    at = next;
  }
}

static void run_piece(void *arg, size_t index, size_t thread) {
  const struct update *u = arg;
  (void)thread;
  for (size_t i = 0; i < u->opt->model->n_params; i++) {
    const size_t n = count_pieces(u, i);
    if (index < n) {
      update_piece(u, i, index);
      return;
    }
    index -= n;
  }
  update_slot(u, u->share->own.lo + index);
}

void melu__optimizer_update(melu_optimizer *opt, melu_model *model, const melu_gradient *g,
                            const struct melu__share *share, const struct melu__size *size) {
  const struct melu_optimizer_options *o = &opt->options;
  const double scale = norm_scale(opt, size);
  double largest = 0;
  will_stay_finite(opt, size, &largest);
  const double t = (double)++opt->n_steps;
  struct update u = {.opt = opt, .g = g, .share = share};
  u.step = (struct melu__adam){.scale = (real)scale,
                               .clip = (real)o->clip_value,
                               .decay = o->kind == MELU_ADAM ? 0 : (real)o->weight_decay,
                               .lr = (real)o->lr,
                               .beta1 = (real)o->beta1,
                               .beta2 = (real)o->beta2,
                               .c1 = (real)(1 - pow(o->beta1, t)),
                               .c2 = (real)(1 - pow(o->beta2, t)),
                               .epsilon = (real)o->epsilon};
  size_t n_pieces = share->n_slots > 1 ? share->own.hi - share->own.lo : 0;
  for (size_t i = 0; i < model->n_params; i++) n_pieces += count_pieces(&u, i);
  model->ctx->runner.run(model->ctx->runner.arg, run_piece, &u, n_pieces);
  model->largest = (real)(largest * (1 + 1e-6));
  model->version++;
}

melu_status melu_optimizer_step(melu_optimizer *opt, melu_model *model, const melu_gradient *g, melu_error *err) {
  if (!opt || !model || !g)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !opt ? "optimizer" : !model ? "model" : "gradient");
  if (opt->model != model || g->model != model)
    return melu__fail(err, MELU_EINVAL, "the %s was made for another model",
                      g->model != model ? "gradient" : "optimizer");
  if (!g->filled) return melu__fail(err, MELU_ESTATE, "the gradient is empty");
  struct melu__size size = {.largest = (double)g->largest};
  const struct melu__share all = {1, {0, 1}};
  melu__optimizer_squares(opt, g, &all, &size.squares, NULL); /* of one slot: needs no memory */
  if (!melu__optimizer_may_update(opt, &size)) model->largest = (real)melu__model_largest(model);
  if (!melu__optimizer_may_update(opt, &size))
    return melu__fail(err, MELU_EDIVERGED, "the update would make a weight or a moment infinite");
  melu__optimizer_update(opt, model, g, &all, &size);
  return MELU_OK;
}
