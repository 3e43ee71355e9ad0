/* SPDX-License-Identifier: BSD-3-Clause */
/* melu adapt: the model for new people. Writes them down, or prints what is expected of every item. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "people.h"

static melu_error err;

struct choices {
  struct people_options people;
  struct form_option form;
  const char *out;
  uint64_t ready, predict;
};

static void read_choices(struct choices *c, struct usage *usage, int argc, char **argv) {
  static struct option_list list;
  *c = (struct choices){0};
  add_people_options(&list, &c->people);
  const struct option options[] = {
      {"--out", "FILE", "write the user there; if it is a folder, each as <user>.melu", NULL, 0, 0, &c->out},
      {"--ready", NULL, "write what need not be adapted again when it is read", &c->ready, 0, 0, NULL},
      {"--predict", NULL, "print what is expected of every item", &c->predict, 0, 0, NULL},
  };
  add_options(&list, options, sizeof options / sizeof options[0]);
  add_form_options(&list, &c->form);
  read_options(usage, "melu adapt",
               "Adapts the model to the ratings of people it has never seen, of one or of several.", &list, argc, argv);
  need_people_options(usage, &c->people);
  if (!c->out && !c->predict)
    bad_usage(usage, "what for? --out FILE writes the user down, --predict prints predictions");
  if (c->ready && !c->out) bad_usage(usage, "--ready says how --out is written, which is missing");
}

/* Before anything is written: whether each user's name can be that of a file. */
static void check_names(const struct people *p, const char *folder) {
  for (uint32_t u = 0; u < p->n; u++) {
    const char *name = user_name(&p->data, u);
    if (name && (name[0] == '.' || name[0] == '\0' || strchr(name, '/'))) {
      bad_data("user \"%s\" cannot be the name of a file in %s", name, folder);
    }
  }
}

/* Where a user goes. The caller frees it. */
static char *path_of(const char *out, int is_folder, const char *user) {
  if (!user) user = "user";
  const size_t n = strlen(out) + strlen(user) + sizeof "/.melu";
  char *path = get_memory(n, 1);
  snprintf(path, n, is_folder ? "%s/%s.melu" : "%s", out, user);
  return path;
}

static size_t write_user(const struct people *p, const char *path, melu_user_form form) {
  struct out_file out;
  size_t n = 0;
  melu_status status = melu_user_save(NULL, &n, p->workspace, p->user, form, &err);
  if (status != MELU_OK && status != MELU_ELIMIT) check(status, &err);
  unsigned char *bytes = get_memory(n, 1);
  check(melu_user_save(bytes, &n, p->workspace, p->user, form, &err), &err);
  out_file_open(&out, path);
  fwrite(bytes, 1, n, out.file);
  out_file_close(&out);
  free(bytes);
  return n;
}

static void print_predictions(struct people *p, enum form form) {
  const size_t n = melu_dataset_n_items(p->data.set);
  uint32_t *items = get_memory(n, sizeof *items);
  float *scores = get_memory(n, sizeof *scores);
  struct prediction *predictions = get_memory(n, sizeof *predictions);
  struct people_columns columns;
  struct output o;
  for (size_t i = 0; i < n; i++) items[i] = (uint32_t)i;
  begin_columns(&columns, p);
  add_prediction_columns(&columns, p);
  output_begin(&o, stdout, form, columns.at, columns.n);
  for (uint32_t u = 0; u < p->n; u++) {
    const char *name = people_adapt(p, u);
    check(melu_predict(scores, p->workspace, p->model, p->user, p->data.set, items, n, &err), &err);
    people_predictions(predictions, p, scores, items, n);
    for (size_t i = 0; i < n; i++) {
      output_user_and_item(&o, p, name, items[i]);
      output_prediction(&o, p, &predictions[i]);
    }
  }
  output_end(&o);
  free(items);
  free(scores);
  free(predictions);
}

/* Prints a line for each, unless predictions follow. */
static void write_users(struct people *p, const struct choices *c, enum form form) {
  struct stat status;
  struct output o;
  const struct column columns[] = {{"ratings", 8, 0}, {"bytes", 8, 0}, {"file", -8, 0}};
  const int is_folder = stat(c->out, &status) == 0 && S_ISDIR(status.st_mode);
  if (p->n > 1 && !is_folder) bad_data("%s is no folder, and there are %zu users to be written", c->out, p->n);
  if (is_folder) {
    check_names(p, c->out);
  } else {
    check_place(c->out);
  }
  if (!c->predict) output_begin(&o, stdout, form, columns, sizeof columns / sizeof columns[0]);
  for (uint32_t u = 0; u < p->n; u++) {
    char *path = path_of(c->out, is_folder, people_adapt(p, u));
    const size_t n_bytes = write_user(p, path, c->ready ? MELU_USER_READY : MELU_USER_COMPACT);
    if (!c->predict) {
      output_whole(&o, melu_user_ratings(p->user, NULL, NULL));
      output_whole(&o, n_bytes);
      output_text(&o, path);
    }
    free(path);
  }
  if (!c->predict) output_end(&o);
}

int cmd_adapt(int argc, char **argv) {
  struct choices c;
  struct usage usage;
  struct people p;
  read_choices(&c, &usage, argc, argv);
  const enum form form = read_form(&usage, &c.form);
  people_open(&p, &c.people, &usage);
  if (c.out) write_users(&p, &c, form);
  if (c.predict) print_predictions(&p, form);
  people_free(&p);
  return 0;
}
