/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lecturers - the control: data in which there is little to learn about a person.
 *
 * Students of ETH Zurich marked their lecturers from 1 to 5. The marks are nearly the sum of what the lecturer gets on
 * average and how kind the student is: no model known beats that one. So none should be worse. A fifth of the students
 * is held out, and ten marks of each are asked for after none, one, three, ... or all others were seen.
 *
 *     cc lecturers.c common/[a-z]*.c $(pkg-config --cflags --libs melu) -lm
 */
#include <melu.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/args.h"
#include "common/baselines.h"

#ifndef EXAMPLE_DATA_DIR
#define EXAMPLE_DATA_DIR "data"
#endif

enum { MAX_ID = 10000, N_COUNTS = 7 };
static const size_t counts[N_COUNTS] = {MELU_NONE, 1, 3, 5, 10, 20, 0}; /* as melu_evaluate has it: 0 is all */
static const char *const count_names[N_COUNTS] = {"0", "1", "3", "5", "10", "20", "all"};

static melu_error err;

/* ---------------------------------------------------------------------------------------------------- data */

struct mark {
  unsigned student, lecturer, semesters, department;
  float mark;
};

static struct mark *read_marks(size_t *n, const char *dir) {
  char path[4096], line[256];
  size_t capacity = 0;
  struct mark *marks = NULL;
  snprintf(path, sizeof path, "%s/insteval.csv", dir);
  FILE *file = fopen(path, "r");
  if (!file) give_up("%s: %s", path, strerror(errno));
  *n = 0;
  while (fgets(line, sizeof line, file)) {
    struct mark m;
    const int got =
        sscanf(line, "%u,%u,%u,%*u,%*u,%u,%f", &m.student, &m.lecturer, &m.semesters, &m.department, &m.mark);
    if (got != 5 && *n == 0 && capacity == 0 && line[0] == 's') continue; /* the names of the columns */
    if (got != 5 || m.student >= MAX_ID || m.lecturer >= MAX_ID) give_up("%s: a line is not a mark: %s", path, line);
    if (*n == capacity) {
      capacity = capacity ? 2 * capacity : 1024;
      marks = realloc(marks, capacity * sizeof *marks);
      if (!marks) give_up("out of memory");
    }
    marks[(*n)++] = m;
  }
  fclose(file);
  return marks;
}

static melu_schema *new_schema(const melu_context *ctx) {
  melu_schema *schema;
  must(melu_schema_new(&schema, ctx, &err), &err);
  const struct melu_field fields[] = {
      {.size = sizeof fields[0], .name = "lecturer", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = MAX_ID},
      {.size = sizeof fields[0], .name = "department", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = 32},
      {.size = sizeof fields[0], .name = "semesters", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 32},
  };
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) must(melu_schema_add(schema, &fields[i], &err), &err);
  return schema;
}

/* The students who are held out, or the others, and what they gave; all lecturers. */
static melu_dataset *new_dataset(const melu_context *ctx, const melu_schema *schema, const struct mark *marks, size_t n,
                                 int held_out) {
  melu_dataset *data;
  uint32_t position;
  must(melu_dataset_new(&data, ctx, schema, &err), &err);
  for (size_t i = 0; i < n; i++) {
    const struct mark *m = &marks[i];
    const uint32_t lecturer = m->lecturer, department = m->department, semesters = m->semesters;
    const struct melu_value item[] = {{.ids = &lecturer, .n_ids = 1}, {.ids = &department, .n_ids = 1}};
    const struct melu_value user[] = {{.ids = &semesters, .n_ids = 1}};
    if (melu_dataset_find_item(&position, data, m->lecturer, NULL) == MELU_ENOTFOUND)
      must(melu_dataset_add_item(data, m->lecturer, item, NULL, &err), &err);
    if ((m->student * 2654435761u >> 16) % 5 == 0 ? !held_out : held_out) continue;
    if (melu_dataset_find_user(&position, data, m->student, NULL) == MELU_ENOTFOUND)
      must(melu_dataset_add_user(data, m->student, user, NULL, &err), &err);
    must(melu_dataset_add_rating(data, m->student, m->lecturer, m->mark, &err), &err);
  }
  must(melu_dataset_freeze(data, &err), &err);
  return data;
}

/* ---------------------------------------------------------------------------------------------------- main */

int main(int argc, char **argv) {
  uint64_t seed = 1, n_splits = 5, n_threads = 2;
  const char *dir = EXAMPLE_DATA_DIR;
  const struct option options[] = {
      {"--seed", "N", "seed of parameters and draws", &seed, 0, UINT64_MAX, NULL},
      {"--splits", "N", "how often each student's marks are split", &n_splits, 1, 20, NULL},
      {"--threads", "N", "threads; the result is the same for any number", &n_threads, 1, 256, NULL},
  };
  const struct usage usage = {.program = "lecturers",
                              .operand = "[DIR]",
                              .about = "Meta-trains on marks that students gave, in which there is little to find.",
                              .options = options,
                              .n_options = sizeof options / sizeof options[0]};
  read_args(&usage, &dir, argc, argv);
  melu_context *ctx;
  const struct melu_context_options context = {
      .size = sizeof context, .n_threads = n_threads, .progress = show_progress};
  must(melu_context_new(&ctx, &context, &err), &err);
  size_t n;
  struct mark *marks = read_marks(&n, dir);
  melu_schema *schema = new_schema(ctx);
  melu_dataset *data = new_dataset(ctx, schema, marks, n, 0), *asked = new_dataset(ctx, schema, marks, n, 1);
  melu_model *model;
  const struct melu_model_options shape = {.size = sizeof shape, .preset = "best", .seed = seed};
  const struct melu_fit_options fit = {.size = sizeof fit, .seed = seed};
  must(melu_model_new(&model, ctx, schema, &shape, &err), &err);
  must(melu_fit(model, data, &fit, &err), &err);
  struct bias bias;
  bias_fit(&bias, data, 0);

  printf("mean absolute error on 10 marks of each student held out; means over %llu splits\n",
         (unsigned long long)n_splits);
  printf("  %-10s%10s%10s%12s%10s\n", "seen", "best", "bias", "difference", "inside");
  for (size_t c = 0; c < N_COUNTS; c++) {
    double best = 0, plain = 0, inside = 0;
    for (uint64_t split = 0; split < n_splits; split++) {
      struct melu_metrics of_best, of_bias;
      const struct melu_evaluate_options how = {
          .size = sizeof how, .split = split, .max_support = counts[c], .intervals = 1};
      const size_t most = counts[c] == MELU_NONE ? 0 : counts[c] == 0 ? MELU_NONE : counts[c];
      must(melu_evaluate(&of_best, model, asked, &how, &err), &err);
      judge(&of_bias, ctx, bias_predict, &bias, asked, split, most, 1, 5);
      best += of_best.mae / (double)n_splits;
      plain += of_bias.mae / (double)n_splits;
      inside += of_best.coverage / (double)n_splits;
    }
    printf("  %-10s%10.4f%10.4f%+12.4f%10.3f\n", count_names[c], best, plain, best - plain, inside);
  }
  bias_free(&bias);
  melu_model_free(model);
  melu_dataset_free(asked);
  melu_dataset_free(data);
  melu_schema_free(schema);
  melu_context_free(ctx);
  free(marks);
  return 0;
}
