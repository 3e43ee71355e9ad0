/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers as text, the same whatever the host does: its locale's decimal point, its rounding mode and its traps are not
 * looked at, and its floating-point state is afterwards as it was. */
#ifndef MELU__NUMBER_H
#define MELU__NUMBER_H

/* The nearest number to what digits and an exponent say, as in "-123e-4". Without a point, so that the C library takes
 * it in any locale. Infinite if it is too large. */
double melu__number_read(const char *text);
float melu__number_read_float(const char *text);

struct melu__number {
  char text[32];
};

/* The number as printf's %.*g writes it in the locale "C". 17 digits give back the same number. */
struct melu__number melu__number_show(double x, int n_digits);

#endif
