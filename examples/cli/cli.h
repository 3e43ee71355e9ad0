/* SPDX-License-Identifier: BSD-3-Clause */
/* What the sub-commands share: how the program ends, options, and where results go. */
#ifndef CLI_H
#define CLI_H

#include <melu.h>

#include "../common/args.h"

/* How the program ends, beside 0. The man page tells what is what. */
enum { ENDS_FAILED = 1, ENDS_WRONG_USAGE = 2, ENDS_BAD_DATA = 3 };

/* The sub-commands; argv[0] is the name of the command. Each returns 0, or ends the program itself. */
int cmd_train(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_adapt(int argc, char **argv);
int cmd_recommend(int argc, char **argv);
int cmd_ask(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_shard(int argc, char **argv);

/* Ends the program with a message and ENDS_BAD_DATA. */
_Noreturn void bad_data(const char *format, ...);

/* Ends the program with the library's message if a call failed: with ENDS_BAD_DATA if what it was given is to blame,
 * with ENDS_FAILED if the system is. */
void check(melu_status status, const melu_error *err);

/* Memory, or the end of the program. */
void *get_memory(size_t n, size_t size);

/* A copy of a text; to be freed. */
char *copy_text(const char *text);

/* Makes room for one element more in an array of n that malloc made; *capacity is 0 at first. */
void *grow(void *array, size_t n, size_t *capacity, size_t size);

melu_context *new_context(uint64_t n_threads, melu_progress_fn progress);
melu_model *load_model(const melu_context *ctx, const char *path);
struct melu_model_options options_of(const melu_model *model);

/* How many processors there are, from 1 to 256. */
uint64_t n_processors(void);

/* ------------------------------------------------------------------------------------------------ options */

enum { MAX_OPTIONS = 40 };

/* The options of a command, put together from those that several have and those of its own. */
struct option_list {
  struct option at[MAX_OPTIONS];
  size_t n;
};

void add_options(struct option_list *list, const struct option *more, size_t n);

/* Reads the command line of a command without an operand; *usage keeps what later messages need. */
void read_options(struct usage *usage, const char *program, const char *about, const struct option_list *list, int argc,
                  char **argv);

/* An option that a command cannot do without, and an example of its value. */
struct needed {
  const char *name, *value, *example;
};

/* Ends the program with a message that names all that are missing and shows a whole command line. */
void need_options(const struct usage *usage, const struct needed *needed, size_t n);

/* A number in [min, max]; `name` is the option's. */
double real_option(const struct usage *usage, const char *name, const char *text, double min, double max);

/* Sizes separated by commas, from `min` on; "all" is MELU_NONE if allow_all. Returns how many, at most `room`. */
size_t sizes_option(size_t *sizes, size_t room, const struct usage *usage, const char *name, const char *text,
                    size_t min, int allow_all);

/* The index among n names. */
size_t choice_option(const struct usage *usage, const char *name, const char *text, const char *const *names, size_t n);

/* The whole text as a finite decimal number; 0 if it is none. */
int parse_real(double *out, const char *text);

#endif
