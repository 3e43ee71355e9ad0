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

/* "--seed N", the left side of the help. */
static int print_left(char *left, size_t n, const struct option *o) {
  return snprintf(left, n, o->value ? "%s %s" : "%s", o->name, o->value);
}

static void print_usage(const struct usage *usage) {
  char left[64];
  int width = 16;
  printf("usage: %s [options]%s%s\n\n%s\n\noptions:\n", usage->program, usage->operand ? " " : "",
         usage->operand ? usage->operand : "", usage->about);
  for (size_t i = 0; i < usage->n_options; i++) {
    const int n = print_left(left, sizeof left, &usage->options[i]);
    if (n > width) width = n;
  }
  for (size_t i = 0; i < usage->n_options; i++) {
    const struct option *o = &usage->options[i];
    print_left(left, sizeof left, o);
    printf("  %-*s %s", width, left, o->help);
    if (o->number && o->value) printf(" (default %llu)", (unsigned long long)*o->number);
    if (o->text && *o->text) printf(" (default %s)", *o->text);
    printf("\n");
  }
  printf("  %-*s %s\n", width, "--help", "print this");
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

void finish_output(void) {
  /* A disk may be full from the beginning on, or when the last bytes leave; errno is that of the latest failure. */
  const int failed = ferror(stdout);
  if (fflush(stdout) != 0 || failed) give_up("the output could not be written: %s", strerror(errno));
}

void must(melu_status status, const melu_error *err) {
  if (status != MELU_OK) give_up("%s (%s)", err->message, melu_status_name(status));
}

static void read_value(const struct usage *usage, const struct option *o, const char *text) {
  if (o->text) {
    size_t n = 0;
    while (n < o->max && o->text[n]) n++;
    if (o->max > 0 && n == o->max) bad_usage(usage, "%s is given more than %zu times", o->name, n);
    o->text[n] = text;
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

/* The option that an argument names, which may go on with "=VALUE"; *value then points to that. */
static const struct option *find_option(const struct usage *usage, const char *arg, const char **value) {
  const size_t n = strcspn(arg, "=");
  *value = arg[n] ? arg + n + 1 : NULL;
  for (size_t o = 0; o < usage->n_options; o++) {
    if (strlen(usage->options[o].name) == n && strncmp(arg, usage->options[o].name, n) == 0) return &usage->options[o];
  }
  bad_usage(usage, "there is no option '%.*s'", (int)n, arg);
}

void read_args(const struct usage *usage, const char **operand, int argc, char **argv) {
  int n_operands = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      print_usage(usage);
      finish_output();
      exit(0);
    }
    if (argv[i][0] != '-') {
      if (!usage->operand) bad_usage(usage, "'%s' is no option, and nothing else is expected", argv[i]);
      if (n_operands++ > 0) bad_usage(usage, "one %s is enough, '%s' is one too many", usage->operand, argv[i]);
      *operand = argv[i];
      continue;
    }
    const char *value;
    const struct option *found = find_option(usage, argv[i], &value);
    if (!found->value) {
      if (value) bad_usage(usage, "%s takes no value", found->name);
      *found->number = 1;
      continue;
    }
    if (!value && i + 1 == argc) bad_usage(usage, "%s takes a value", found->name);
    read_value(usage, found, value ? value : argv[++i]);
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
