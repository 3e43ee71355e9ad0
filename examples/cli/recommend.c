/* SPDX-License-Identifier: BSD-3-Clause */
/* melu recommend: the items that somebody would rate highest, and why. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "people.h"

static melu_error err;

struct choices {
  struct people_options people;
  struct form_option form;
  uint64_t k, exclude_rated, explain;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){.k = 10};
  add_people_options(&list, &c->people);
  const struct option options[] = {
      {"-k", "N", "how many items", &c->k, 1, 1000000, NULL},
      {"--exclude-rated", NULL, "leave out what was rated", &c->exclude_rated, 0, 0, NULL},
      {"--explain", NULL, "tell which ratings pull a score up or down, and how far", &c->explain, 0, 0, NULL},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  add_form_options(&list, &c->form);
  read_options(
      usage, "melu recommend",
      "Prints the items with the highest scores, best first, after the ratings that are given; without any, for\n"
      "somebody of whom nothing is known. low and high are an 80 % interval, where the model knows one.",
      &list, argc, argv);
  need_people_options(usage, &c->people);
}

/* The items that the user rated, as positions; returns how many. The caller frees *items. */
static size_t rated_items(uint32_t **items, const struct people *p) {
  const uint64_t *ids;
  const size_t n = melu_user_ratings(p->user, &ids, NULL);
  *items = get_memory(n, sizeof **items);
  for (size_t i = 0; i < n; i++) check(melu_dataset_find_item(&(*items)[i], p->data.set, ids[i], &err), &err);
  return n;
}

/* ------------------------------------------------------------------------------------------------ explanations */

struct pull {
  float size;
  uint32_t item;
};

static int larger_first(const void *a, const void *b) {
  const struct pull *x = a, *y = b;
  const float difference = fabsf(y->size) - fabsf(x->size);
  return difference > 0 ? 1 : difference < 0 ? -1 : (x->item > y->item) - (x->item < y->item);
}

/* All pulls in JSON, largest first; in a cell the three largest. */
static void output_pulls(struct output *o, const struct people *p, uint32_t item, const uint32_t *rated, size_t n) {
  enum { N_SHOWN = 3 };
  char cell[512] = "";
  float *sizes = get_memory(n, sizeof *sizes);
  struct pull *pulls = get_memory(n, sizeof *pulls);
  json_t *json = json_array();
  check(melu_explain(sizes, p->workspace, p->model, p->user, p->data.set, item, &err), &err);
  for (size_t i = 0; i < n; i++) pulls[i] = (struct pull){sizes[i], rated[i]};
  qsort(pulls, n, sizeof *pulls, larger_first);
  for (size_t i = 0, at = 0; i < n; i++) {
    const char *name = p->data.items[pulls[i].item];
    const double size = (double)pulls[i].size;
    if (json_array_append_new(json, json_pack("{s:s, s:f}", "item", name, "pull", size)) != 0) give_up("out of memory");
    if (i >= N_SHOWN || at >= sizeof cell) continue;
    at += (size_t)snprintf(cell + at, sizeof cell - at, "%s%s %+.2f", i ? ", " : "", name, size);
  }
  output_parts(o, cell, json);
  free(pulls);
  free(sizes);
}

/* ------------------------------------------------------------------------------------------------------- ranking */

static void print_best(struct output *o, struct people *p, const melu_catalog *catalog, const struct choices *c,
                       uint32_t user) {
  const char *name = people_adapt(p, user);
  const size_t n_items = melu_dataset_n_items(p->data.set);
  size_t n = c->k < n_items ? (size_t)c->k : n_items;
  uint32_t *items = get_memory(n, sizeof *items), *rated;
  float *scores = get_memory(n, sizeof *scores);
  struct prediction *predictions = get_memory(n, sizeof *predictions);
  const size_t n_rated = rated_items(&rated, p);
  const struct melu_top_options options = {
      .size = sizeof options, .exclude = rated, .n_exclude = c->exclude_rated ? n_rated : 0};
  check(melu_catalog_top(items, scores, &n, p->workspace, catalog, p->user, &options, &err), &err);
  people_predictions(predictions, p, scores, items, n);
  for (size_t i = 0; i < n; i++) {
    output_user_and_item(o, p, name, items[i]);
    output_prediction(o, p, &predictions[i]);
    if (c->explain) output_pulls(o, p, items[i], rated, n_rated);
  }
  free(items);
  free(rated);
  free(scores);
  free(predictions);
}

int cmd_recommend(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  struct people p;
  struct people_columns columns;
  struct output o;
  melu_catalog *catalog;
  read_choices(&c, &usage, argc, argv);
  const enum form form = read_form(&usage, &c.form);
  people_open(&p, &c.people, &usage);
  check(melu_catalog_new(&catalog, p.model, p.data.set, NULL, 0, &err), &err);
  begin_columns(&columns, &p);
  add_prediction_columns(&columns, &p);
  if (c.explain) add_column(&columns, form == FORM_JSON ? "pulls" : "because", -8, 0);
  output_begin(&o, stdout, form, columns.at, columns.n);
  for (uint32_t u = 0; u < p.n; u++) print_best(&o, &p, catalog, &c, u);
  output_end(&o);
  melu_catalog_free(catalog);
  people_free(&p);
  return 0;
}
