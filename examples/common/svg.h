/* SPDX-License-Identifier: BSD-3-Clause */
/* A line chart as a picture. */
#ifndef EXAMPLE_SVG_H
#define EXAMPLE_SVG_H

#include <stddef.h>

struct svg_line {
  const char *name;
  const double *y; /* (n_points) */
};

struct svg_chart {
  const char *title, *x_label, *y_label;
  const double *x; /* (n_points), ascending */
  size_t n_points;
  const struct svg_line *lines; /* the first one is drawn boldest */
  size_t n_lines;               /* up to 6 */
};

/* Writes the chart to a file; ends the program with a message if that fails. */
void svg_write(const char *path, const struct svg_chart *chart);

#endif
