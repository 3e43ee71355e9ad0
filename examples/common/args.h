/* SPDX-License-Identifier: BSD-3-Clause */
/* What every example does around the library: command line, errors, a progress line. */
#ifndef EXAMPLE_ARGS_H
#define EXAMPLE_ARGS_H

#include <melu.h>

/* One option: a whole number in [min, max], a text, or a switch, which takes no value and sets its number to 1. */
struct option {
  const char *name;  /* "--seed" */
  const char *value; /* what its value is called in the help, "N"; NULL: a switch */
  const char *help;
  uint64_t *number; /* one of the two is not NULL; it holds the default */
  uint64_t min, max;
  const char **text; /* with max = 0 the last one counts; else up to max of them are kept, and begin as NULL */
};

struct usage {
  const char *program;
  const char *operand; /* the one argument that is no option, "DIR" or "[DIR]"; NULL: there is none */
  const char *about;   /* a sentence or two */
  const struct option *options;
  size_t n_options;
};

/* Reads the command line ("--name VALUE" or "--name=VALUE") into the options' values and *operand, which keeps its
 * value if there is none. --help prints the usage and ends the program with 0; a wrong command line ends it with a
 * message and 2. */
void read_args(const struct usage *usage, const char **operand, int argc, char **argv);

/* Ends the program with a message and 2: for what read_args cannot know. */
_Noreturn void bad_usage(const struct usage *usage, const char *format, ...);

/* Ends the program with the library's own message and 1 if a call failed. A server would not; it would look at the
 * status, tell its log, and go on. */
void must(melu_status status, const melu_error *err);

/* The same for what is not the library's: prints the message and ends the program with 1. */
_Noreturn void give_up(const char *format, ...);

/* Makes sure that all of stdout has left; ends the program with a message and 1 if it could not be written. */
void finish_output(void);

/* A melu_progress_fn: rewrites one line on stderr, if that is a terminal. `arg` is not used. */
int show_progress(void *arg, const struct melu_progress *progress);

#endif
