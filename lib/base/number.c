/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/number.h"

#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sets aside what the host has set: what is too large or too small raises no trap, and nothing is rounded but to the
 * nearest. */
static void begin(fenv_t *host) {
  fegetenv(host);
  fesetenv(FE_DFL_ENV);
}

static void end(const fenv_t *host) {
  fesetenv(host);
}

double melu__number_read(const char *text) {
  fenv_t host;
  begin(&host);
  const double x = strtod(text, NULL);
  end(&host);
  return x;
}

float melu__number_read_float(const char *text) {
  fenv_t host;
  begin(&host);
  const float x = strtof(text, NULL);
  end(&host);
  return x;
}

/* Whether the locale "C" would write it. */
static int is_plain(char c) {
  return strchr("0123456789+-einfa", c) != NULL;
}

struct melu__number melu__number_show(double x, int n_digits) {
  struct melu__number written, shown;
  fenv_t host;
  char *to = shown.text;
  begin(&host);
  snprintf(written.text, sizeof written.text, "%.*g", n_digits, x);
  end(&host);
  for (const char *c = written.text; *c; c++) {
    const int continues = c > written.text && !is_plain(c[-1]); /* a decimal point may have some bytes */
    if (is_plain(*c) || !continues) *to++ = is_plain(*c) ? *c : '.';
  }
  *to = '\0';
  return shown;
}
