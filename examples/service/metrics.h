/* SPDX-License-Identifier: BSD-3-Clause */
/* What the service counts, for GET /metrics. Any thread may add at any time. */
#ifndef SERVICE_METRICS_H
#define SERVICE_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { N_CODES = 12, N_BUCKETS = 14, MOST_PATHS = 16 };

struct path_metrics {
  const char *name;                      /* NULL after the last path; set before anything is counted */
  atomic_uint_fast64_t by_code[N_CODES]; /* the last for all others, as code 0 */
  atomic_uint_fast64_t by_time[N_BUCKETS + 1];
  atomic_uint_fast64_t nanoseconds;
};

struct metrics {
  struct path_metrics paths[MOST_PATHS];
  atomic_uint_fast64_t in_flight, connections, reloads, refused_reloads, limited, timed_out;
};

/* Adds an answered request. */
void metrics_add(struct metrics *metrics, size_t path, unsigned code, uint64_t nanoseconds);

/* Returns the text in Prometheus' form, for the caller to free; NULL if there is no memory. */
char *metrics_text(const struct metrics *metrics, uint64_t n_ratings, size_t *length);

#endif
