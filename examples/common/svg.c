/* SPDX-License-Identifier: BSD-3-Clause */
#include "svg.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "args.h"

enum { WIDTH = 720, HEIGHT = 440, LEFT = 72, RIGHT = 540, TOP = 64, BOTTOM = 372, MAX_LINES = 6 };

/* Told apart by people of any colour vision, and by lightness in print. */
static const char *const colours[MAX_LINES] = {"#0b5fa5", "#d55e00", "#8a8a8a", "#3a9d77", "#b0569a", "#5b4a3a"};

/* Where the numbers are on the paper. */
struct frame {
  double x_min, x_max, y_min, y_max, y_step;
};

static double at_x(const struct frame *f, double x) {
  return LEFT + (x - f->x_min) / (f->x_max - f->x_min) * (RIGHT - LEFT);
}

static double at_y(const struct frame *f, double y) {
  return BOTTOM - (y - f->y_min) / (f->y_max - f->y_min) * (BOTTOM - TOP);
}

/* The y axis runs over whole steps of 1, 2 or 5 times a power of ten, four to ten of them. */
static struct frame frame_of(const struct svg_chart *chart) {
  double low = chart->lines[0].y[0], high = low;
  for (size_t l = 0; l < chart->n_lines; l++) {
    for (size_t i = 0; i < chart->n_points; i++) {
      low = fmin(low, chart->lines[l].y[i]);
      high = fmax(high, chart->lines[l].y[i]);
    }
  }
  if (!(high > low)) high = low + 1;
  double step = pow(10, floor(log10(high - low)) - 1);
  for (int i = 0; (high - low) / step > 8; i++) step *= i % 3 == 1 ? 2.5 : 2;
  return (struct frame){.x_min = chart->x[0],
                        .x_max = chart->x[chart->n_points - 1],
                        .y_min = step * floor(low / step),
                        .y_max = step * ceil(high / step),
                        .y_step = step};
}

static void write_text(FILE *file, const char *text) {
  for (; *text; text++) {
    const char c = *text;
    const char *entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : NULL;
    if (entity) {
      fputs(entity, file);
    } else {
      fputc(c, file);
    }
  }
}

static void write_label(FILE *file, const char *attributes, const char *text) {
  fprintf(file, "<text %s>", attributes);
  write_text(file, text);
  fputs("</text>\n", file);
}

static void write_axes(FILE *file, const struct svg_chart *chart, const struct frame *f) {
  const int decimals = f->y_step < 0.1 ? 2 : f->y_step < 1 ? 1 : 0;
  const int n_steps = (int)lround((f->y_max - f->y_min) / f->y_step);
  for (int i = 0; i <= n_steps; i++) {
    const double value = f->y_min + i * f->y_step, y = at_y(f, value);
    fprintf(file, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='%s'/>\n", LEFT, RIGHT, y, y,
            i == 0 ? "#444444" : "#e2e2e2");
    fprintf(file, "<text x='%d' y='%.1f' text-anchor='end'>%.*f</text>\n", LEFT - 8, y + 5, decimals, value);
  }
  for (size_t i = 0; i < chart->n_points; i++) {
    const double x = at_x(f, chart->x[i]);
    fprintf(file, "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' stroke='#444444'/>\n", x, x, BOTTOM, BOTTOM + 5);
    fprintf(file, "<text x='%.1f' y='%d' text-anchor='middle'>%g</text>\n", x, BOTTOM + 22, chart->x[i]);
  }
  char attributes[128];
  snprintf(attributes, sizeof attributes, "x='%d' y='32' font-size='18' font-weight='bold'", LEFT);
  write_label(file, attributes, chart->title);
  snprintf(attributes, sizeof attributes, "x='%d' y='%d' text-anchor='middle'", (LEFT + RIGHT) / 2, BOTTOM + 48);
  write_label(file, attributes, chart->x_label);
  snprintf(attributes, sizeof attributes, "transform='translate(22 %d) rotate(-90)' text-anchor='middle'",
           (TOP + BOTTOM) / 2);
  write_label(file, attributes, chart->y_label);
}

static void write_line(FILE *file, const struct svg_chart *chart, const struct frame *f, size_t l) {
  const double *y = chart->lines[l].y;
  fprintf(file, "<polyline fill='none' stroke='%s' stroke-width='%s' stroke-linejoin='round' points='", colours[l],
          l == 0 ? "3.5" : "2");
  for (size_t i = 0; i < chart->n_points; i++) fprintf(file, "%.1f,%.1f ", at_x(f, chart->x[i]), at_y(f, y[i]));
  fputs("'/>\n", file);
  for (size_t i = 0; i < chart->n_points; i++) {
    fprintf(file, "<circle cx='%.1f' cy='%.1f' r='%s' fill='%s'/>\n", at_x(f, chart->x[i]), at_y(f, y[i]),
            l == 0 ? "4.5" : "3.5", colours[l]);
  }
}

static void write_legend(FILE *file, const struct svg_chart *chart) {
  for (size_t l = 0; l < chart->n_lines; l++) {
    const int y = TOP + 10 + 26 * (int)l;
    fprintf(file, "<line x1='%d' x2='%d' y1='%d' y2='%d' stroke='%s' stroke-width='%s'/>\n", RIGHT + 24, RIGHT + 50, y,
            y, colours[l], l == 0 ? "3.5" : "2");
    char attributes[64];
    snprintf(attributes, sizeof attributes, "x='%d' y='%d'%s", RIGHT + 58, y + 5, l == 0 ? " font-weight='bold'" : "");
    write_label(file, attributes, chart->lines[l].name);
  }
}

void svg_write(const char *path, const struct svg_chart *chart) {
  if (chart->n_points < 2 || chart->n_lines < 1 || chart->n_lines > MAX_LINES) give_up("%s: not a chart", path);
  FILE *file = fopen(path, "w");
  if (!file) give_up("%s: %s", path, strerror(errno));
  const struct frame frame = frame_of(chart);
  fprintf(file,
          "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' viewBox='0 0 %d %d' "
          "font-family='Helvetica, Arial, sans-serif' font-size='14' fill='#222222'>\n"
          "<rect width='%d' height='%d' fill='#ffffff'/>\n",
          WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
  write_axes(file, chart, &frame);
  for (size_t l = chart->n_lines; l-- > 0;) write_line(file, chart, &frame, l); /* the first one on top */
  write_legend(file, chart);
  fputs("</svg>\n", file);
  const int failed = ferror(file);
  if (fclose(file) != 0 || failed) give_up("%s: %s", path, strerror(errno));
}
