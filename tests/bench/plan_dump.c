/* SPDX-License-Identifier: BSD-3-Clause */
/* What the planner makes of a task: steps, floating-point operations, bytes, and time by op.
 *
 *     plan_dump [--support N] [--query N] [--kind meta|adapt|predict] [--steps]
 *
 * Times are the shortest of many runs; reading the clock costs some 20 ns a step. */
#include <melu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "args.h"
#include "meta/task.h"
#include "world.h"

enum { N_RUNS = 2000, MAX_STEPS = 4096 };

static const char *name_of(const struct melu__step_info *s, char *name, size_t size) {
  if (strcmp(s->op, "sum") != 0) {
    snprintf(name, size, "%s", s->op);
    return name;
  }
  static const char *const kinds[] = {"elements", "product", "two products"};
  const int is_vector = s->n_products && (s->rows == 1 || s->cols == 1);
  snprintf(name, size, "%s%s%s", is_vector ? "vector " : "", kinds[s->n_products],
           s->n_products && s->k[0] == 1 ? " (outer)" : "");
  return name;
}

static void print_step(size_t i, const struct melu__step_info *s, double time) {
  char name[64];
  printf("%4zu %-24s %4zu x %-4zu", i, name_of(s, name, sizeof name), s->rows, s->cols);
  for (int k = 0; k < s->n_products; k++) printf(" k %zu%s", s->k[k], s->trans_a[k] ? "'" : "");
  printf(" %s%s%s%s%s%s%s", s->raw ? " raw" : "", s->sums ? " sums" : "", s->row ? " row" : "", s->relu ? " relu" : "",
         s->mask ? " mask" : "", s->post ? " post" : "", s->pre ? " pre" : "");
  if (s->n_terms) printf(" %d term(s)", s->n_terms);
  printf("  %.0f ns %.0f GFLOP/s\n", 1e9 * time, s->flops / time / 1e9);
}

struct total {
  char name[64];
  size_t n;
  double flops, bytes, time;
};

static int by_time(const void *a, const void *b) {
  const struct total *x = a, *y = b;
  return (x->time < y->time) - (x->time > y->time);
}

static void print_totals(const struct melu__plan *plan, const double *times, int each) {
  static struct total totals[64];
  size_t n = 0;
  struct total all = {.name = "all"};
  for (size_t i = 0; i < melu__plan_n_steps(plan); i++) {
    struct melu__step_info s;
    char name[64];
    melu__plan_step_info(plan, i, &s);
    if (each) print_step(i, &s, times[i]);
    name_of(&s, name, sizeof name);
    size_t k = 0;
    while (k < n && strcmp(totals[k].name, name) != 0) k++;
    if (k == n) memcpy(totals[n++].name, name, sizeof name);
    struct total *const both[] = {&totals[k], &all};
    for (int t = 0; t < 2; t++) {
      both[t]->n++;
      both[t]->flops += s.flops;
      both[t]->bytes += s.bytes;
      both[t]->time += times[i];
    }
  }
  qsort(totals, n, sizeof *totals, by_time);
  totals[n++] = all;
  printf("%-24s %6s %10s %10s %10s %8s\n", "op", "steps", "MFLOP", "KiB", "us", "GFLOP/s");
  for (size_t k = 0; k < n; k++)
    printf("%-24s %6zu %10.3f %10.1f %10.2f %8.1f\n", totals[k].name, totals[k].n, totals[k].flops / 1e6,
           totals[k].bytes / 1024, 1e6 * totals[k].time, totals[k].flops / totals[k].time / 1e9);
}

/* All slots in memory of their own; the values matter little, but for denormals and the like. */
static void fill_slots(real **slots, const melu_model *model, size_t n_support, size_t n_query) {
  const size_t widest = model->item_width + model->user_width, most = n_support + n_query + 256;
  for (size_t i = 0; i < MELU__N_SLOTS; i++) {
    slots[i] = aligned_alloc(MELU__ALIGN, (most * widest * sizeof(real) / MELU__ALIGN + 1) * MELU__ALIGN);
    if (!slots[i]) exit(1);
    for (size_t k = 0; k < most * widest; k++) slots[i][k] = (real)((int)(k * 7 % 13) - 6) / 100;
  }
}

static void time_steps(const struct melu__plan *plan, real *const *slots, real *arena, double *times) {
  const size_t n = melu__plan_n_steps(plan);
  for (size_t i = 0; i < n; i++) times[i] = 1;
  for (int run = 0; run < N_RUNS; run++)
    for (size_t i = 0; i < n; i++) {
      const double start = now();
      melu__plan_run_step(plan, i, slots, NULL, arena);
      const double time = now() - start;
      if (time < times[i]) times[i] = time;
    }
}

int main(int argc, char **argv) {
  static const char *const kinds[] = {"meta", "adapt", "predict"};
  size_t n_support = 20, n_query = 10;
  int kind = 0, each = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--steps"))
      each = 1;
    else if (!strcmp(argv[i], "--support") && read_size(&n_support, argv[i + 1], 0, 4000))
      i++;
    else if (!strcmp(argv[i], "--query") && read_size(&n_query, argv[i + 1], 1, 4000))
      i++;
    else if (!strcmp(argv[i], "--kind"))
      for (kind = 0, i++; kind < 2 && i < argc && strcmp(kinds[kind], argv[i]) != 0;) kind++;
    else
      return fprintf(stderr, "usage: plan_dump [--support N] [--query N] [--kind meta|adapt|predict] [--steps]\n"), 2;
  }
  static double times[MAX_STEPS];
  struct world w;
  real *slots[MELU__N_SLOTS];
  const struct melu__plan *plan;
  world_open(&w, 1, 1, 1, 1);
  TRY(melu__task_plan(&plan, w.model, (enum melu__plan_kind)kind, kind == 2 ? 0 : n_support, kind == 1 ? 0 : n_query,
                      &err));
  if (melu__plan_n_steps(plan) > MAX_STEPS) return 1;
  real *arena = aligned_alloc(MELU__ALIGN, melu__plan_arena_size(plan) * sizeof *arena + MELU__ALIGN);
  if (!arena) return 1;
  fill_slots(slots, w.model, n_support, n_query);
  time_steps(plan, slots, arena, times);
  printf("%s: %s, %zu support rows, %zu query rows, arena %.1f KiB\n", melu_build_info(w.ctx), kinds[kind], n_support,
         n_query, (double)melu__plan_arena_size(plan) * sizeof(real) / 1024);
  print_totals(plan, times, each);
  for (size_t i = 0; i < MELU__N_SLOTS; i++) free(slots[i]);
  free(arena);
  world_close(&w);
  return 0;
}
