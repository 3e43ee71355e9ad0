/* SPDX-License-Identifier: BSD-3-Clause */
/* Locales that need not be installed: they are made by localedef, of the package locales. */
#ifndef MELU_TESTS_LOCALES_H
#define MELU_TESTS_LOCALES_H

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

/* Goes to a locale, as "de_DE", with UTF-8. Returns 0 if it cannot be made. */
static inline int locale_go_to(const char *name) {
  char folder[] = "/tmp/melu-locale-XXXXXX", text[160];
  if (!mkdtemp(folder)) return 0;
  snprintf(text, sizeof text, "localedef -i %s -f UTF-8 %s/%s.UTF-8 > /dev/null", name, folder, name);
  int went = system(text) == 0 && setenv("LOCPATH", folder, 1) == 0;
  snprintf(text, sizeof text, "%s.UTF-8", name);
  went = went && setlocale(LC_ALL, text);
  snprintf(text, sizeof text, "rm -r %s", folder);
  return system(text) == 0 && went;
}

#endif
