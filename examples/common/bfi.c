/* SPDX-License-Identifier: BSD-3-Clause */
#include "bfi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "mix.h"

/* Reads the cell that ends at `end` and steps over it; "NA" is 0. Returns 0 if it is neither. */
static int read_cell(unsigned *value, char **text, char end) {
  char *after = *text;
  if (strncmp(after, "NA", 2) == 0) {
    *value = 0;
    after += 2;
  } else {
    const unsigned long number = strtoul(*text, &after, 10);
    if (after == *text || number > 150) return 0;
    *value = (unsigned)number;
  }
  if (*after != end && !(end == '\n' && (*after == '\r' || *after == '\0'))) return 0;
  *text = after + 1;
  return 1;
}

static int read_person(struct bfi_person *person, char *line) {
  for (size_t i = 0; i < BFI_STATEMENTS; i++) {
    if (!read_cell(&person->answers[i], &line, ',') || person->answers[i] > 6) return 0;
  }
  return read_cell(&person->gender, &line, ',') && person->gender <= 2 && read_cell(&person->education, &line, ',') &&
         person->education <= 5 && read_cell(&person->age, &line, '\n');
}

struct bfi_person *bfi_read(size_t *n_people, const char *dir) {
  char path[4096], line[256];
  if ((size_t)snprintf(path, sizeof path, "%s/bfi.csv", dir) >= sizeof path) give_up("%s: the name is too long", dir);
  FILE *file = fopen(path, "r");
  if (!file) give_up("%s: %s", path, strerror(errno));
  struct bfi_person *people = NULL;
  size_t n = 0, room = 0;
  if (!fgets(line, sizeof line, file) || strncmp(line, "A1,", 3) != 0) give_up("%s: line 1 is not the header", path);
  while (fgets(line, sizeof line, file)) {
    if (n == room) {
      room = room ? 2 * room : 1024;
      people = realloc(people, room * sizeof *people);
      if (!people) give_up("out of memory");
    }
    if (!read_person(&people[n], line)) give_up("%s: line %zu is not a person's", path, n + 2);
    n++;
  }
  if (ferror(file)) give_up("%s: %s", path, strerror(errno));
  fclose(file);
  if (n == 0) give_up("%s: there is nobody in it", path);
  *n_people = n;
  return people;
}

int bfi_held_out(uint64_t number) {
  return mix64(number) % 5 == 0;
}
