/* SPDX-License-Identifier: BSD-3-Clause
 *
 * melu - libmelu on the command line: train, evaluate, adapt, recommend, ask, inspect, convert, shard. The manual, in
 * man/, tells of all of it.
 */
#include <stdio.h>
#include <string.h>

#include "cli.h"

static const struct command {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *about;
} commands[] = {
    {"train", cmd_train, "make a model from tables of items, users and ratings"},
    {"evaluate", cmd_evaluate, "judge how well strangers are predicted"},
    {"adapt", cmd_adapt, "adapt a model to somebody's ratings; predict, or write her down"},
    {"recommend", cmd_recommend, "the items that somebody would rate highest, and why"},
    {"ask", cmd_ask, "the best questions to ask somebody next, or anybody first"},
    {"inspect", cmd_inspect, "what a model is made of"},
    {"convert", cmd_convert, "a PyTorch MeLU in, embeddings out"},
    {"shard", cmd_shard, "sort ratings into a folder to train from, in any number"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *file) {
  fprintf(file,
          "usage: melu COMMAND [options]\n\n"
          "Recommends to people of whom almost nothing is known, by a model that a few of their ratings adapt.\n\n"
          "commands:\n");
  for (size_t i = 0; i < N_COMMANDS; i++) fprintf(file, "  %-16s %s\n", commands[i].name, commands[i].about);
  fprintf(file, "  %-16s %s\n", "help [COMMAND]", "print this, or what a command's --help prints");
  fprintf(file, "  %-16s %s\n\n", "--version", "print the version");
  fprintf(file,
          "A model from two tables, and what it recommends after three ratings:\n\n"
          "  melu train --items items.csv --ratings ratings.csv --model model.melu\n"
          "  melu recommend --model model.melu --items items.csv --ratings mine.csv\n");
}

static const struct command *find_command(const char *name) {
  for (size_t i = 0; i < N_COMMANDS; i++)
    if (strcmp(name, commands[i].name) == 0) return &commands[i];
  fprintf(stderr, "melu: there is no command '%s'\nTry 'melu --help'.\n", name);
  return NULL;
}

static int run(int argc, char **argv) {
  static char help[] = "--help";
  if (argc < 2) {
    print_help(stderr);
    return ENDS_WRONG_USAGE;
  }
  const char *name = argv[1];
  if (strcmp(name, "--version") == 0) {
    printf("melu %s\n", melu_version());
    return 0;
  }
  const int asks = strcmp(name, "help") == 0;
  if (strcmp(name, "--help") == 0 || (asks && argc == 2)) {
    print_help(stdout);
    return 0;
  }
  const struct command *command = find_command(asks ? argv[2] : name);
  if (!command) return ENDS_WRONG_USAGE;
  char *asked[] = {argv[1], help, NULL};
  return asks ? command->run(2, asked) : command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
  const int status = run(argc, argv);
  finish_output();
  return status;
}
