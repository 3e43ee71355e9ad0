/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* isatty */
#endif
#include "args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_usage(const struct usage *usage) {
  printf("usage: %s [options] %s\n\n%s\n\noptions:\n", usage->program, usage->operand, usage->about);
  for (size_t i = 0; i < usage->n_options; i++) {
    const struct option *o = &usage->options[i];
    char left[40];
    snprintf(left, sizeof left, "%s %s", o->name, o->value);
    printf("  %-16s %s", left, o->help);
    if (o->number) printf(" (default %llu)", (unsigned long long)*o->number);
    if (o->text && *o->text) printf(" (default %s)", *o->text);
    printf("\n");
  }
  printf("  %-16s %s\n", "--help", "print this");
}

void bad_usage(const struct usage *usage, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "%s: ", usage->program);
  vfprintf(stderr, format, args);
  fprintf(stderr, "\nTry '%s --help'.\n", usage->program);
  va_end(args);
  exit(2);
}

void give_up(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "error: ");
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n");
  va_end(args);
  exit(1);
}

void must(melu_status status, const melu_error *err) {
  if (status != MELU_OK) give_up("%s (%s)", err->message, melu_status_name(status));
}

static void read_value(const struct usage *usage, const struct option *o, const char *text) {
  if (o->text) {
    *o->text = text;
    return;
  }
  char *end;
  errno = 0;
  const unsigned long long number = strtoull(text, &end, 10);
  /* strtoull would take " 5" and "-1", and "" as 0. */
  if (text[0] < '0' || text[0] > '9' || *end || errno || number < o->min || number > o->max) {
    bad_usage(usage, "%s takes a whole number from %llu to %llu, not '%s'", o->name, (unsigned long long)o->min,
              (unsigned long long)o->max, text);
  }
  *o->number = number;
}

void read_args(const struct usage *usage, const char **operand, int argc, char **argv) {
  int n_operands = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      print_usage(usage);
      exit(0);
    }
    if (argv[i][0] != '-') {
      if (n_operands++ > 0) bad_usage(usage, "one %s is enough, '%s' is one too many", usage->operand, argv[i]);
      *operand = argv[i];
      continue;
    }
    const struct option *found = NULL;
    for (size_t o = 0; o < usage->n_options; o++) {
      if (strcmp(argv[i], usage->options[o].name) == 0) found = &usage->options[o];
    }
    if (!found) bad_usage(usage, "there is no option '%s'", argv[i]);
    if (i + 1 == argc) bad_usage(usage, "%s takes a value", argv[i]);
    read_value(usage, found, argv[++i]);
  }
}

int show_progress(void *arg, const struct melu_progress *progress) {
  (void)arg;
  if (!isatty(STDERR_FILENO)) return 0;
  const int finished = progress->done == progress->total;
  fprintf(stderr, "\r%s", progress->phase);
  if (progress->total) fprintf(stderr, " %3.0f %%", 100 * (double)progress->done / (double)progress->total);
  if (progress->n_epochs) {
    fprintf(stderr, "  epoch %llu of %llu  loss %.4f", (unsigned long long)progress->epoch,
            (unsigned long long)progress->n_epochs, progress->loss);
  }
  fputs(finished ? "\r\033[K" : "\033[K", stderr);
  fflush(stderr);
  return 0;
}
