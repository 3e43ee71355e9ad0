/* SPDX-License-Identifier: BSD-3-Clause
 *
 * asking - which questions to ask a stranger.
 *
 * Four ways to choose what a new user is asked first: anything; MeLU's evidence candidates, a list by the norm of the
 * gradient times popularity (section 3.3 of the paper); the list whose answers lower the error of everything else most
 * among people known before; and the interview, which chooses the next question by the answers so far. All are judged
 * by ten ratings of each stranger that are never asked about, question by question.
 *
 * By default the strangers are the people held out of the questionnaire in data/; with --movielens DIR they are the
 * cold users of MovieLens-1M as the MeLU reference code splits it, who are asked about films that they rated.
 */
#include <melu.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/args.h"
#include "common/people.h"
#include "common/svg.h"

/* A failure fills it with the details; see must(). */
static melu_error err;

enum { MAX_QUESTIONS = 10, N_JUDGED = 10, MAX_TARGETS = 1000 };

enum way { ANYTHING, GRADIENT_NORM, EXPECTED_ERROR, INTERVIEW, N_WAYS };
static const char *const names[N_WAYS] = {"anything", "gradient norm", "expected error", "interview"};

/* What there is to ask about, of whom. */
struct inquiry {
  struct people people;
  uint32_t *lists[N_WAYS]; /* of the two ways that have one */
  size_t list_lengths[N_WAYS];
  uint32_t targets[MAX_TARGETS]; /* of the interview */
  size_t n_targets, n_questions, n_asked;
  double ask_seconds;
};

/* ------------------------------------------------------------------------------------------------- the lists */

/* A sample of the people is enough to see what a question tells. */
static void make_list(struct inquiry *q, enum way way, size_t length, size_t n_sample, size_t n_splits) {
  size_t n_people = melu_dataset_n_users(q->people.known);
  uint32_t *sample = malloc(n_people * sizeof *sample);
  q->lists[way] = malloc(length * sizeof **q->lists);
  if (!sample || !q->lists[way]) give_up("no memory");
  const size_t step = n_people > n_sample ? n_people / n_sample : 1;
  size_t n = 0;
  for (size_t u = 0; u < n_people; u += step) sample[n++] = (uint32_t)u;
  const struct melu_candidate_options options = {
      .size = sizeof options,
      .rule = way == GRADIENT_NORM ? MELU_GRADIENT_NORM : MELU_EXPECTED_ERROR,
      .n_splits = n_splits,
      .users = way == EXPECTED_ERROR ? sample : NULL,
      .n_users = way == EXPECTED_ERROR ? n : 0};
  q->list_lengths[way] = length;
  must(melu_candidates(q->lists[way], NULL, &q->list_lengths[way], q->people.model, q->people.known, &options, &err),
       &err);
  free(sample);
}

/* All items if they are few; else those of ratings at equal distances: what people rate, as often as they do. */
static void find_targets(struct inquiry *q) {
  const melu_dataset *data = q->people.known;
  const size_t n_items = melu_dataset_n_items(data), step = melu_dataset_n_ratings(data) / MAX_TARGETS + 1;
  size_t at = 0;
  for (uint32_t i = 0; i < n_items && n_items <= MAX_TARGETS; i++) q->targets[q->n_targets++] = i;
  if (q->n_targets) return;
  for (uint32_t u = 0; u < melu_dataset_n_users(data); u++) {
    const uint32_t *items;
    const size_t n = melu_dataset_ratings(data, u, &items, NULL);
    for (size_t i = 0; i < n; i++)
      if (at++ % step == 0) q->targets[q->n_targets++] = items[i];
  }
}

/* ------------------------------------------------------------------------------------------------ a stranger */

/* A stranger who is being asked. The last ten of her ratings are what she is judged by; of the others the first n_open
 * were not asked about. */
struct asked {
  struct stranger person;
  size_t n_open;
};

static size_t find_open(const struct asked *s, uint32_t item) {
  for (size_t i = 0; i < s->n_open; i++)
    if (s->person.items[i] == item) return i;
  return s->n_open;
}

/* Which of her open ratings to ask about next. */
static size_t next_question(struct inquiry *q, enum way way, const struct asked *s, const melu_user *user,
                            melu_workspace *workspace) {
  uint32_t item;
  size_t n = 1;
  if (way == ANYTHING) return 0;
  if (way == INTERVIEW) {
    struct timespec begin, end;
    const struct melu_ask_options options = {.size = sizeof options,
                                             .items = s->person.items,
                                             .n_items = s->n_open,
                                             .targets = q->targets,
                                             .n_targets = q->n_targets};
    clock_gettime(CLOCK_MONOTONIC, &begin);
    must(melu_ask(&item, NULL, &n, workspace, q->people.model, user, q->people.known, &options, &err), &err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    q->ask_seconds += (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    q->n_asked++;
    return find_open(s, item);
  }
  for (size_t i = 0; i < q->list_lengths[way]; i++) {
    const size_t found = find_open(s, q->lists[way][i]);
    if (found < s->n_open) return found;
  }
  return 0; /* the list is at its end: anything */
}

static double judge_user(const struct inquiry *q, const struct asked *s, const melu_user *user,
                         melu_workspace *workspace) {
  const size_t first = s->person.n - N_JUDGED;
  float scores[N_JUDGED];
  double sum = 0;
  must(melu_predict(scores, workspace, q->people.model, user, q->people.known, s->person.items + first, N_JUDGED, &err),
       &err);
  for (size_t i = 0; i < N_JUDGED; i++)
    sum += fabs(fmin(fmax((double)scores[i], q->people.rating_min), q->people.rating_max) -
                (double)s->person.ratings[first + i]);
  return sum / N_JUDGED;
}

/* Asks one stranger, and writes her error after 0, 1, ... answers. */
static void ask(double *errors, struct inquiry *q, enum way way, struct asked s, melu_user *user,
                melu_workspace *workspace) {
  must(melu_adapt(user, workspace, q->people.model, q->people.known, s.person.profile, NULL, NULL, 0, &err), &err);
  errors[0] = judge_user(q, &s, user, workspace);
  for (size_t k = 1; k <= q->n_questions; k++) {
    const size_t at = next_question(q, way, &s, user, workspace);
    const uint32_t item = s.person.items[at];
    must(melu_user_rate(user, workspace, q->people.model, q->people.known, item, s.person.ratings[at], &err), &err);
    s.n_open--;
    for (size_t i = at; i < s.n_open; i++) { /* the rest keeps its order */
      s.person.items[i] = s.person.items[i + 1];
      s.person.ratings[i] = s.person.ratings[i + 1];
    }
    errors[k] = judge_user(q, &s, user, workspace);
  }
}

/* ------------------------------------------------------------------------------------------------- all of them */

struct results {
  size_t n;
  double mean[N_WAYS][MAX_QUESTIONS + 1];
  /* Of a way's errors less another's after five answers: sums of differences and of their squares. */
  double sum[N_WAYS][N_WAYS], squares[N_WAYS][N_WAYS];
};

static size_t paired_answers(const struct inquiry *q) {
  return q->n_questions < 5 ? q->n_questions : 5;
}

static void ask_everybody(struct results *r, struct inquiry *q) {
  static struct asked s;
  melu_user *user;
  melu_workspace *workspace;
  must(melu_user_new(&user, q->people.model, &err), &err);
  must(melu_workspace_new(&workspace, q->people.model, q->n_questions + 1, &err), &err);
  const size_t k = paired_answers(q);
  for (uint32_t u = 0; u < melu_dataset_n_users(q->people.strangers); u++) {
    double errors[N_WAYS][MAX_QUESTIONS + 1];
    if (!stranger_meet(&s.person, &q->people, u, q->n_questions + N_JUDGED, STRANGER_MAX_RATINGS)) continue;
    s.n_open = s.person.n - N_JUDGED;
    r->n++;
    for (int w = 0; w < N_WAYS; w++) {
      ask(errors[w], q, (enum way)w, s, user, workspace);
      for (size_t i = 0; i <= q->n_questions; i++) r->mean[w][i] += errors[w][i];
      for (int v = 0; v < w; v++) {
        const double difference = errors[w][k] - errors[v][k];
        r->sum[w][v] += difference;
        r->squares[w][v] += difference * difference;
      }
    }
  }
  melu_workspace_free(workspace);
  melu_user_free(user);
  if (r->n == 0) give_up("no stranger has enough ratings");
  for (int w = 0; w < N_WAYS; w++)
    for (size_t i = 0; i <= q->n_questions; i++) r->mean[w][i] /= (double)r->n;
}

static void print_results(const struct results *r, const struct inquiry *q) {
  printf("mean absolute error on %d ratings of each of %zu strangers\n  %-16s", N_JUDGED, r->n, "answers");
  for (size_t k = 0; k <= q->n_questions; k++) printf("%8zu", k);
  for (int w = 0; w < N_WAYS; w++) {
    printf("\n  %-16s", names[w]);
    for (size_t k = 0; k <= q->n_questions; k++) printf("%8.4f", r->mean[w][k]);
  }
  printf("\n\npaired differences after %zu answers, with their standard errors\n", paired_answers(q));
  for (int w = 1; w < N_WAYS; w++)
    for (int v = 0; v < w; v++) {
      const double n = (double)r->n, mean = r->sum[w][v] / n;
      printf("  %-14s less %-14s %+.4f +- %.4f\n", names[w], names[v], mean,
             sqrt(fmax(r->squares[w][v] / n - mean * mean, 0) / n));
    }
  printf("\none question of the interview: %.0f microseconds in the mean\n", 1e6 * q->ask_seconds / (double)q->n_asked);
}

static void draw(const char *path, const struct results *r, const struct inquiry *q) {
  double x[MAX_QUESTIONS + 1];
  struct svg_line lines[N_WAYS];
  for (size_t k = 0; k <= q->n_questions; k++) x[k] = (double)k;
  for (int w = 0; w < N_WAYS; w++) /* the boldest first */
    lines[w] = (struct svg_line){.name = names[N_WAYS - 1 - w], .y = r->mean[N_WAYS - 1 - w]};
  const struct svg_chart chart = {.title = "What to ask a stranger",
                                  .x_label = "answers",
                                  .y_label = "mean absolute error (less is better)",
                                  .x = x,
                                  .n_points = q->n_questions + 1,
                                  .lines = lines,
                                  .n_lines = N_WAYS};
  svg_write(path, &chart);
}

/* --------------------------------------------------------------------------------------------------- main */

int main(int argc, char **argv) {
  struct people_choices choices = PEOPLE_DEFAULTS;
  static struct inquiry q;
  static struct results results;
  uint64_t n_questions = MAX_QUESTIONS;
  const char *svg = NULL;
  const struct option options[] = {
      PEOPLE_OPTIONS(&choices),
      {"--questions", "N", "questions for each stranger", &n_questions, 1, MAX_QUESTIONS, NULL},
      {"--svg", "FILE", "draw the errors against the number of answers", NULL, 0, 0, &svg},
  };
  const struct usage usage = {
      .program = "asking",
      .operand = "[DIR]",
      .about = "Compares ways to choose what strangers are asked, on the people of DIR/bfi.csv.",
      .options = options,
      .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &choices.dir, argc, argv);
  people_open(&q.people, &choices);
  q.n_questions = n_questions;

  /* The one list is quickly made; the other tries every question on every person, again and again. */
  make_list(&q, GRADIENT_NORM, melu_dataset_n_items(q.people.known), SIZE_MAX, 0);
  if (choices.movielens)
    make_list(&q, EXPECTED_ERROR, 3 * q.n_questions, 500, 2);
  else
    make_list(&q, EXPECTED_ERROR, 2 * q.n_questions, SIZE_MAX, 0);
  find_targets(&q);
  ask_everybody(&results, &q);
  print_results(&results, &q);
  if (svg) draw(svg, &results, &q);
  for (int w = 0; w < N_WAYS; w++) free(q.lists[w]);
  people_close(&q.people);
  return 0;
}
