/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bad_data(const char *format, ...) {
  char message[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  /* Texts from files are quoted in it, and they may try to write on the terminal. */
  for (char *at = message; *at; at++) {
    if ((unsigned char)*at < ' ' || *at == 0x7f) *at = '?';
  }
  fprintf(stderr, "error: %s\n", message);
  exit(ENDS_BAD_DATA);
}

void check(melu_status status, const melu_error *err) {
  switch (status) {
    case MELU_EINVAL:
    case MELU_EFORMAT:
    case MELU_ECORRUPT:
    case MELU_EVERSION:
    case MELU_ESCHEMA:
    case MELU_ERANGE:
    case MELU_ELIMIT:
    case MELU_ENOTFOUND:
      bad_data("%s (%s)", err->message, melu_status_name(status));
    default:
      must(status, err);
  }
}

void *get_memory(size_t n, size_t size) {
  void *memory = calloc(n ? n : 1, size);
  if (!memory) give_up("out of memory");
  return memory;
}

char *copy_text(const char *text) {
  char *copy = get_memory(strlen(text) + 1, 1);
  return strcpy(copy, text);
}

void *grow(void *array, size_t n, size_t *capacity, size_t size) {
  if (n < *capacity) return array;
  *capacity = *capacity ? 2 * *capacity : 64;
  array = *capacity <= SIZE_MAX / size ? realloc(array, *capacity * size) : NULL;
  if (!array) give_up("out of memory");
  return array;
}

uint64_t n_processors(void) {
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > 256 ? 256 : (uint64_t)n;
}

melu_context *new_context(uint64_t n_threads, melu_progress_fn progress) {
  melu_context *ctx;
  melu_error err;
  const struct melu_context_options options = {.size = sizeof options, .n_threads = n_threads, .progress = progress};
  check(melu_context_new(&ctx, &options, &err), &err);
  return ctx;
}

melu_model *load_model(const melu_context *ctx, const char *path) {
  melu_model *model;
  melu_error err;
  check(melu_model_load(&model, ctx, path, &err), &err);
  return model;
}

struct melu_model_options options_of(const melu_model *model) {
  struct melu_model_options options = {.size = sizeof options};
  melu_error err;
  check(melu_model_get_options(&options, model, &err), &err);
  return options;
}

/* ------------------------------------------------------------------------------------------------ options */

void add_options(struct option_list *list, const struct option *more, size_t n) {
  if (n > MAX_OPTIONS - list->n) give_up("more than %d options", MAX_OPTIONS);
  memcpy(list->at + list->n, more, n * sizeof *more);
  list->n += n;
}

void read_options(struct usage *usage, const char *program, const char *about, const struct option_list *list, int argc,
                  char **argv) {
  *usage = (struct usage){.program = program, .about = about, .options = list->at, .n_options = list->n};
  read_args(usage, NULL, argc, argv);
}

void need_options(const struct usage *usage, const struct needed *needed, size_t n) {
  char missing[512] = "", example[512];
  size_t at = 0, shown = (size_t)snprintf(example, sizeof example, "%s", usage->program);
  for (size_t i = 0; i < n; i++) {
    shown += (size_t)snprintf(example + shown, sizeof example - shown, " %s %s", needed[i].name, needed[i].example);
    if (needed[i].value) continue;
    at += (size_t)snprintf(missing + at, sizeof missing - at, "%s%s", at ? ", " : "", needed[i].name);
  }
  if (at) bad_usage(usage, "missing: %s\nFor example: %s", missing, example);
}

int parse_real(double *out, const char *text) {
  char *end;
  /* strtod would take blanks, "inf", "nan" and hexadecimal digits, too. */
  if (text[0] == '\0' || text[strspn(text, "0123456789+-.eE")] != '\0') return 0;
  *out = strtod(text, &end);
  return *end == '\0' && isfinite(*out);
}

double real_option(const struct usage *usage, const char *name, const char *text, double min, double max) {
  double x;
  if (parse_real(&x, text) && x >= min && x <= max) return x;
  if (isinf(max) && isinf(min)) bad_usage(usage, "%s takes a number, not '%s'", name, text);
  if (isinf(max)) bad_usage(usage, "%s takes a number from %g on, not '%s'", name, min, text);
  bad_usage(usage, "%s takes a number from %g to %g, not '%s'", name, min, max, text);
}

size_t sizes_option(size_t *sizes, size_t room, const struct usage *usage, const char *name, const char *text,
                    size_t min, int allow_all) {
  size_t n = 0;
  for (const char *at = text; n < room; at++) {
    char *end;
    errno = 0;
    const unsigned long long size = strtoull(at, &end, 10);
    if (allow_all && strncmp(at, "all", 3) == 0) {
      sizes[n] = MELU_NONE;
      at += 3;
    } else if (*at < '0' || *at > '9' || errno || size < min || size > UINT32_MAX) {
      break;
    } else {
      sizes[n] = (size_t)size;
      at = end;
    }
    n++;
    if (*at == '\0') return n;
    if (*at != ',') break;
  }
  bad_usage(usage, "%s takes %s%s%s, not '%s'", name, room > 1 ? "whole numbers separated by commas" : "a whole number",
            min ? " from 1 on" : "", allow_all ? ", or \"all\"" : "", text);
}

size_t choice_option(const struct usage *usage, const char *name, const char *text, const char *const *names,
                     size_t n) {
  char all[256] = "";
  size_t at = 0;
  for (size_t i = 0; i < n; i++) {
    if (strcmp(text, names[i]) == 0) return i;
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", names[i]);
  }
  bad_usage(usage, "%s takes %s, not '%s'", name, all, text);
}
