/* SPDX-License-Identifier: BSD-3-Clause
 *
 * explaining - why a stranger is expected to rate something as she is.
 *
 * melu_explain tells how each of a user's ratings pulls a prediction. The program prints that for one stranger, and
 * then compares the pulls of many with what really happens when a rating is left out: how similar is the order of the
 * ratings, from what pulls down most to what pulls up most?
 *
 * By default the strangers are the people held out of the questionnaire in data/; with --movielens DIR they are the
 * cold users of MovieLens-1M as the MeLU reference code splits it.
 */
#include <melu.h>

#include <math.h>
#include <stdio.h>

#include "common/args.h"
#include "common/bfi.h"
#include "common/people.h"

/* A failure fills it with the details; see must(). */
static melu_error err;

/* Of a stranger's ratings the last ones are predicted, the others are known. */
enum { MIN_SUPPORT = 5, MAX_SUPPORT = 90, N_ASKED = 3 };

/* By how much the prediction of an item falls when rating i is left out. */
static void leave_each_out(double *falls, const struct people *p, const struct stranger *s, melu_user *user,
                           melu_workspace *workspace, uint32_t item) {
  uint32_t items[MAX_SUPPORT];
  float ratings[MAX_SUPPORT], with, without;
  must(melu_adapt(user, workspace, p->model, p->known, s->profile, s->items, s->ratings, s->n - N_ASKED, &err), &err);
  must(melu_predict(&with, workspace, p->model, user, p->known, &item, 1, &err), &err);
  for (size_t i = 0; i < s->n - N_ASKED; i++) {
    size_t n = 0;
    for (size_t k = 0; k < s->n - N_ASKED; k++) {
      if (k == i) continue;
      items[n] = s->items[k];
      ratings[n++] = s->ratings[k];
    }
    must(melu_adapt(user, workspace, p->model, p->known, s->profile, items, ratings, n, &err), &err);
    must(melu_predict(&without, workspace, p->model, user, p->known, &item, 1, &err), &err);
    falls[i] = (double)with - (double)without;
  }
}

/* The rank of x[i]: how many are smaller, equal ones counting half. */
static double rank_of(const double *x, size_t n, size_t i) {
  double rank = 0;
  for (size_t k = 0; k < n; k++) rank += x[k] < x[i] ? 1 : x[k] == x[i] ? 0.5 : 0;
  return rank;
}

/* Spearman's: the correlation of the ranks. 0 if one side is all alike. */
static double rank_correlation(const double *x, const double *y, size_t n) {
  double xx = 0, xy = 0, yy = 0;
  for (size_t i = 0; i < n; i++) {
    const double a = rank_of(x, n, i) - (double)n / 2, b = rank_of(y, n, i) - (double)n / 2;
    xx += a * a;
    xy += a * b;
    yy += b * b;
  }
  return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

static void explain_to(double *pulls, const struct people *p, const struct stranger *s, melu_user *user,
                       melu_workspace *workspace, uint32_t item) {
  float found[MAX_SUPPORT];
  must(melu_adapt(user, workspace, p->model, p->known, s->profile, s->items, s->ratings, s->n - N_ASKED, &err), &err);
  must(melu_explain(found, workspace, p->model, user, p->known, item, &err), &err);
  for (size_t i = 0; i < s->n - N_ASKED; i++) pulls[i] = (double)found[i];
}

/* The whole explanation of one prediction. */
static void show(const struct people *p, const struct stranger *s, melu_user *user, melu_workspace *workspace) {
  const uint32_t item = s->items[s->n - N_ASKED];
  double pulls[MAX_SUPPORT], falls[MAX_SUPPORT];
  float score;
  explain_to(pulls, p, s, user, workspace, item);
  must(melu_predict(&score, workspace, p->model, user, p->known, &item, 1, &err), &err);
  leave_each_out(falls, p, s, user, workspace, item);
  printf("\"%s\": expected %.1f, in truth %.0f\n\n", bfi_statement(p->known, item), (double)score,
         (double)s->ratings[s->n - N_ASKED]);
  printf("  %-44s%6s%8s%16s\n", "she said of", "", "pull", "without it");
  for (size_t i = 0; i < s->n - N_ASKED; i++)
    printf("  %-44.44s%6.0f%+8.2f%16.2f\n", bfi_statement(p->known, s->items[i]), (double)s->ratings[i], pulls[i],
           (double)score - falls[i]);
  printf("\n");
}

static void compare(const struct people *p, size_t n_wanted, int has_texts, melu_user *user,
                    melu_workspace *workspace) {
  static struct stranger s;
  double sum = 0, lowest = 1;
  size_t n_users = 0, n = 0;
  for (uint32_t u = 0; u < melu_dataset_n_users(p->strangers) && n_users < n_wanted; u++) {
    if (!stranger_meet(&s, p, u, MIN_SUPPORT + N_ASKED, MAX_SUPPORT + N_ASKED)) continue;
    if (n_users++ == 0 && has_texts) show(p, &s, user, workspace);
    for (size_t k = 0; k < N_ASKED; k++) {
      double pulls[MAX_SUPPORT], falls[MAX_SUPPORT];
      explain_to(pulls, p, &s, user, workspace, s.items[s.n - N_ASKED + k]);
      leave_each_out(falls, p, &s, user, workspace, s.items[s.n - N_ASKED + k]);
      const double correlation = rank_correlation(pulls, falls, s.n - N_ASKED);
      sum += correlation;
      lowest = fmin(lowest, correlation);
      n++;
    }
  }
  if (n == 0) give_up("no stranger has enough ratings");
  printf(
      "pulls against leaving out, rank correlation: %.4f in the mean, %.4f at worst, of %zu predictions of %zu "
      "strangers\n",
      sum / (double)n, lowest, n, n_users);
}

/* --------------------------------------------------------------------------------------------------- main */

int main(int argc, char **argv) {
  struct people_choices choices = PEOPLE_DEFAULTS;
  struct people p;
  uint64_t n_strangers = 200;
  melu_user *user;
  melu_workspace *workspace;
  const struct option options[] = {
      PEOPLE_OPTIONS(&choices),
      {"--strangers", "N", "how many are compared", &n_strangers, 1, 100000, NULL},
  };
  const struct usage usage = {.program = "explaining",
                              .operand = "[DIR]",
                              .about = "Explains predictions for the people held out of DIR/bfi.csv.",
                              .options = options,
                              .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &choices.dir, argc, argv);
  people_open(&p, &choices);
  must(melu_user_new(&user, p.model, &err), &err);
  must(melu_workspace_new(&workspace, p.model, MAX_SUPPORT, &err), &err);
  compare(&p, n_strangers, choices.movielens == NULL, user, workspace);
  melu_workspace_free(workspace);
  melu_user_free(user);
  people_close(&p);
  return 0;
}
