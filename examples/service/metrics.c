/* SPDX-License-Identifier: BSD-3-Clause */
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>

static const unsigned codes[N_CODES] = {200, 400, 401, 403, 404, 405, 413, 429, 431, 500, 503, 0};

/* Upper limits in seconds. */
static const double limits[N_BUCKETS] = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01,
                                         0.02,   0.05,   0.1,    0.2,   0.5,   1,     5};

void metrics_add(struct metrics *metrics, size_t path, unsigned code, uint64_t nanoseconds) {
  struct path_metrics *p = &metrics->paths[path];
  size_t c = 0, b = 0;
  while (c < N_CODES - 1 && codes[c] != code) c++;
  while (b < N_BUCKETS && (double)nanoseconds > 1e9 * limits[b]) b++;
  p->by_code[c]++;
  p->by_time[b]++;
  p->nanoseconds += nanoseconds;
}

static void head(FILE *out, const char *name, const char *type, const char *help) {
  fprintf(out, "# HELP melu_%s %s\n# TYPE melu_%s %s\n", name, help, name, type);
}

static void one(FILE *out, const char *name, const char *type, const char *help, uint64_t value) {
  head(out, name, type, help);
  fprintf(out, "melu_%s %llu\n", name, (unsigned long long)value);
}

static void print_codes(FILE *out, const struct path_metrics *p) {
  for (size_t c = 0; c < N_CODES; c++) {
    if (p->by_code[c] == 0) continue;
    fprintf(out, "melu_requests_total{path=\"%s\",code=\"%u\"} %llu\n", p->name, codes[c],
            (unsigned long long)p->by_code[c]);
  }
}

static void print_times(FILE *out, const struct path_metrics *p) {
  unsigned long long n = 0;
  for (size_t b = 0; b < N_BUCKETS; b++) {
    n += p->by_time[b];
    fprintf(out, "melu_request_seconds_bucket{path=\"%s\",le=\"%g\"} %llu\n", p->name, limits[b], n);
  }
  n += p->by_time[N_BUCKETS];
  fprintf(out, "melu_request_seconds_bucket{path=\"%s\",le=\"+Inf\"} %llu\n", p->name, n);
  fprintf(out, "melu_request_seconds_sum{path=\"%s\"} %.6f\n", p->name, (double)p->nanoseconds / 1e9);
  fprintf(out, "melu_request_seconds_count{path=\"%s\"} %llu\n", p->name, n);
}

char *metrics_text(const struct metrics *metrics, uint64_t n_ratings, size_t *length) {
  char *text = NULL;
  FILE *out = open_memstream(&text, length);
  if (!out) return NULL;
  head(out, "requests_total", "counter", "Requests that were answered.");
  for (const struct path_metrics *p = metrics->paths; p->name; p++) print_codes(out, p);
  head(out, "request_seconds", "histogram", "From the request line to the last byte of the answer.");
  for (const struct path_metrics *p = metrics->paths; p->name; p++) print_times(out, p);
  one(out, "ratings", "gauge", "Ratings in the store.", n_ratings);
  one(out, "in_flight", "gauge", "Requests that are being read or answered.", metrics->in_flight);
  one(out, "connections", "gauge", "Open connections.", metrics->connections);
  one(out, "reloads_total", "counter", "Models that took the place of another one.", metrics->reloads);
  one(out, "reloads_refused_total", "counter", "Models that could not be used.", metrics->refused_reloads);
  one(out, "rejected_total", "counter", "Requests over an address's rate.", metrics->limited);
  one(out, "timed_out_total", "counter", "Connections that were closed for taking too long.", metrics->timed_out);
  if (fclose(out) == 0) return text;
  free(text);
  return NULL;
}
