/* SPDX-License-Identifier: BSD-3-Clause */
#include "guard.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_ADDRESSES = 256 };

struct visit {
  int socket, is_over;
  enum step step;
  uint64_t deadline;
  struct visit *next, **link; /* what points to it */
};

/* A token bucket: it fills at `rate` tokens a second up to twice that, and a request takes one. */
struct address {
  unsigned char bytes[16];
  double tokens;
  uint64_t when; /* it was filled last; 0: nobody's */
};

struct guard {
  struct metrics *metrics;
  uint64_t step_nanoseconds;
  double rate;
  pthread_mutex_t lock; /* of what follows */
  struct visit *visits;
  struct address addresses[N_ADDRESSES];
};

uint64_t guard_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int guard_is_token(const char *text, const char *token) {
  const size_t n = strlen(text), m = strlen(token);
  unsigned different = n != m;
  for (size_t i = 0; i < n; i++) different |= (unsigned)(text[i] ^ token[i % m]);
  return !different;
}

struct guard *guard_new(struct metrics *metrics, uint64_t step_nanoseconds, uint64_t rate) {
  struct guard *guard = calloc(1, sizeof *guard);
  if (!guard) return NULL;
  guard->metrics = metrics;
  guard->step_nanoseconds = step_nanoseconds;
  guard->rate = (double)rate;
  pthread_mutex_init(&guard->lock, NULL);
  return guard;
}

void guard_free(struct guard *guard) {
  if (!guard) return;
  pthread_mutex_destroy(&guard->lock);
  free(guard);
}

/* ------------------------------------------------------------------------------------- connections and time */

struct visit *guard_enter(struct guard *guard, int socket) {
  struct visit *visit = malloc(sizeof *visit);
  if (!visit) return NULL;
  pthread_mutex_lock(&guard->lock);
  *visit = (struct visit){.socket = socket,
                          .deadline = guard_now() + guard->step_nanoseconds,
                          .next = guard->visits,
                          .link = &guard->visits};
  if (visit->next) visit->next->link = &visit->next;
  guard->visits = visit;
  pthread_mutex_unlock(&guard->lock);
  guard->metrics->connections++;
  return visit;
}

void guard_leave(struct guard *guard, struct visit *visit) {
  if (!visit) return;
  pthread_mutex_lock(&guard->lock);
  *visit->link = visit->next;
  if (visit->next) visit->next->link = visit->link;
  pthread_mutex_unlock(&guard->lock);
  guard->metrics->connections--;
  free(visit);
}

int guard_step(struct guard *guard, struct visit *visit, enum step step) {
  if (!visit) return 0;
  pthread_mutex_lock(&guard->lock);
  const int goes_on = !visit->is_over;
  visit->step = step;
  visit->deadline = guard_now() + guard->step_nanoseconds;
  pthread_mutex_unlock(&guard->lock);
  return goes_on;
}

/* Its thread, which waits for the socket, finds it closed. The answer goes out here because that thread is in the
 * middle of reading a request, and cannot give one. */
static void end(struct guard *guard, struct visit *visit) {
  static const char body[] = "{\"error\":{\"code\":\"too_slow\",\"message\":\"the request took too long to arrive\"}}";
  static const char head[] =
      "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n";
  visit->is_over = 1;
  if (visit->step == STEP_READING) {
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (send(visit->socket, head, sizeof head - 1, flags | MSG_MORE) > 0)
      send(visit->socket, body, sizeof body - 1, flags);
  }
  if (visit->step != STEP_IDLE) guard->metrics->timed_out++;
  shutdown(visit->socket, SHUT_RDWR);
}

void guard_sweep(struct guard *guard) {
  pthread_mutex_lock(&guard->lock);
  const uint64_t now = guard_now();
  for (struct visit *visit = guard->visits; visit; visit = visit->next) {
    if (!visit->is_over && visit->deadline < now) end(guard, visit);
  }
  pthread_mutex_unlock(&guard->lock);
}

/* ------------------------------------------------------------------------------------------------- rates */

/* An IPv6 host has a whole /64 to itself. */
static void address_bytes(unsigned char bytes[16], const struct sockaddr *address) {
  memset(bytes, 0, 16);
  if (address->sa_family == AF_INET) {
    memcpy(bytes, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
  } else if (address->sa_family == AF_INET6) {
    memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 8);
  }
}

/* The bucket of an address; of a new one that which was used longest ago. Under the lock. */
static struct address *find_bucket(struct guard *guard, const unsigned char bytes[16], uint64_t now) {
  struct address *oldest = &guard->addresses[0];
  for (size_t i = 0; i < N_ADDRESSES; i++) {
    struct address *a = &guard->addresses[i];
    if (a->when && memcmp(a->bytes, bytes, 16) == 0) return a;
    if (a->when < oldest->when) oldest = a;
  }
  memcpy(oldest->bytes, bytes, 16);
  oldest->tokens = 2 * guard->rate;
  oldest->when = now;
  return oldest;
}

int guard_let_in(struct guard *guard, const struct sockaddr *address) {
  if (guard->rate == 0) return 1;
  unsigned char bytes[16];
  address_bytes(bytes, address);
  pthread_mutex_lock(&guard->lock);
  const uint64_t now = guard_now();
  struct address *a = find_bucket(guard, bytes, now);
  a->tokens += guard->rate * (double)(now - a->when) / 1e9;
  if (a->tokens > 2 * guard->rate) a->tokens = 2 * guard->rate;
  a->when = now;
  const int may = a->tokens >= 1;
  if (may) a->tokens -= 1;
  pthread_mutex_unlock(&guard->lock);
  if (!may) guard->metrics->limited++;
  return may;
}
