/* SPDX-License-Identifier: BSD-3-Clause */
/* melu ask: the questions whose answers would tell most about somebody, or about anybody. */
#include <stdlib.h>
#include <string.h>

#include "people.h"

static melu_error err;

enum { RULE_ERROR, RULE_GRADIENT, N_RULES };
static const char *const rules[N_RULES] = {"error", "gradient"};

struct choices {
  struct people_options people;
  struct form_option form;
  const char *rule;
  uint64_t k, candidates, n_threads, max_items;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){.k = 10, .rule = rules[RULE_ERROR], .n_threads = n_processors()};
  add_people_options(&list, &c->people);
  const struct option options[] = {
      {"-k", "N", "how many items", &c->k, 1, 1000000, NULL},
      {"--candidates", NULL, "a list for strangers, from the --ratings of many users", &c->candidates, 0, 0, NULL},
      {"--rule", "NAME", "of --candidates: error, or gradient as in the paper", NULL, 0, 0, &c->rule},
      {"--max-items", "N", "of --candidates: choose among the N most rated; 0: 256", &c->max_items, 0, UINT32_MAX,
       NULL},
      {"--threads", "N", "of --candidates: threads", &c->n_threads, 1, 256, NULL},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  add_form_options(&list, &c->form);
  read_options(
      usage, "melu ask",
      "Prints the items to ask somebody about next, best first: those whose rating would change most in what is\n"
      "expected of the others, after the ratings that are given. With --candidates a list that is good for\n"
      "people of whom nothing is known, to be asked from first to last.",
      &list, argc, argv);
  need_people_options(usage, &c->people);
  if (c->candidates && !c->people.files.ratings) bad_usage(usage, "--candidates learns from --ratings of many users");
  if (c->candidates && c->people.saved) bad_usage(usage, "--candidates are for everybody: --user is one too many");
}

/* The same list for all strangers. */
static void print_candidates(const struct choices *c, enum form form, melu_candidate_rule rule) {
  struct data data;
  struct output o;
  struct files files = c->people.files;
  files.user_is_optional = 0;
  melu_context *ctx = new_context(c->n_threads, show_progress);
  melu_model *model = load_model(ctx, c->people.model);
  data_open(&data, ctx, melu_model_schema(model), &files);
  size_t n = melu_dataset_n_items(data.set);
  if (c->k < n) n = (size_t)c->k;
  uint32_t *items = get_memory(n, sizeof *items);
  double *scores = get_memory(n, sizeof *scores);
  const struct melu_candidate_options options = {
      .size = sizeof options, .rule = rule, .max_items = (size_t)c->max_items};
  check(melu_candidates(items, scores, &n, model, data.set, &options, &err), &err);
  const struct column columns[] = {{"item", -20, 0}, {rule == MELU_EXPECTED_ERROR ? "error" : "score", 8, 4}};
  output_begin(&o, stdout, form, columns, sizeof columns / sizeof columns[0]);
  for (size_t i = 0; i < n; i++) {
    output_text(&o, data.items[items[i]]);
    output_real(&o, scores[i]);
  }
  output_end(&o);
  free(scores);
  free(items);
  data_free(&data);
  melu_model_free(model);
  melu_context_free(ctx);
}

static void print_questions(const struct choices *c, enum form form, const struct usage *usage) {
  struct people p;
  struct people_columns columns;
  struct output o;
  people_open(&p, &c->people, usage);
  const size_t n_items = melu_dataset_n_items(p.data.set), k = c->k < n_items ? (size_t)c->k : n_items;
  uint32_t *items = get_memory(k, sizeof *items);
  float *gains = get_memory(k, sizeof *gains);
  begin_columns(&columns, &p);
  add_column(&columns, "gain", 10, 6);
  output_begin(&o, stdout, form, columns.at, columns.n);
  for (uint32_t u = 0; u < p.n; u++) {
    size_t n = k;
    const char *name = people_adapt(&p, u);
    check(melu_ask(items, gains, &n, p.workspace, p.model, p.user, p.data.set, NULL, &err), &err);
    for (size_t i = 0; i < n; i++) {
      output_user_and_item(&o, &p, name, items[i]);
      output_real(&o, (double)gains[i]);
    }
  }
  output_end(&o);
  free(gains);
  free(items);
  people_free(&p);
}

int cmd_ask(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  read_choices(&c, &usage, argc, argv);
  const enum form form = read_form(&usage, &c.form);
  const size_t rule = choice_option(&usage, "--rule", c.rule, rules, N_RULES);
  if (c.candidates) {
    print_candidates(&c, form, rule == RULE_GRADIENT ? MELU_GRADIENT_NORM : MELU_EXPECTED_ERROR);
  } else {
    print_questions(&c, form, &usage);
  }
  return 0;
}
