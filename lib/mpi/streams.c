/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/streams.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"

enum { TAG = 1 };

static const char *const call_names[] = {"all_gather", "all_to_all", "reduce", "barrier", "melu_mpi_free"};

/* -------------------------------------------------------------------------------------------------- time */

double melu__now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Asking again at once takes the processor from whom we wait for, where there are more ranks than processors; a pause
 * of an eighth of the time so far is never much of it. */
void melu__back_off(double waited) {
  if (waited < 100e-6) return;
  const double pause = waited / 8 < 1e-3 ? waited / 8 : 1e-3;
  nanosleep(&(struct timespec){0, (long)(pause * 1e9)}, NULL);
}

/* ---------------------------------------------------------------------------------------------- failures */

melu_status melu__fail_mpi(melu_error *err, melu_status status, int code, const char *what) {
  char text[MPI_MAX_ERROR_STRING + 1] = "";
  int n = 0;
  MPI_Error_string(code, text, &n);
  return melu__fail(err, status, "%s: %s", what, text);
}

static melu_status why_broken(const melu_mpi *m, melu_error *err) {
  if (m->broken.status && err) *err = m->broken;
  return m->broken.status;
}

static int is_finalized(void) {
  int is = 0;
  MPI_Finalized(&is);
  return is;
}

void melu__break_up(melu_mpi *m, const melu_error *why) {
  if (m->broken.status) return;
  m->broken = *why;
  if (is_finalized()) return;
  m->farewell.head.call = MELU__FAREWELL;
  memcpy(m->farewell.message, why->message, sizeof m->farewell.message);
  for (size_t r = 0; r < m->n_ranks; r++) {
    MPI_Request *coming = &m->requests[m->n_ranks + r];
    if (r == m->rank) continue;
    MPI_Isend(&m->farewell, sizeof m->farewell, MPI_BYTE, (int)r, TAG, m->comm, &m->requests[2 * m->n_ranks + r]);
    if (*coming != MPI_REQUEST_NULL) MPI_Cancel(coming);
  }
}

#define BREAK_UP(m, ...)                        \
  do {                                          \
    melu_error why_;                            \
    melu__fail(&why_, MELU_EPEER, __VA_ARGS__); \
    melu__break_up(m, &why_);                   \
  } while (0)

static void break_up_by_mpi(melu_mpi *m, size_t r, int code) {
  char what[64];
  melu_error why;
  snprintf(what, sizeof what, "rank %zu is out of reach", r);
  melu__fail_mpi(&why, MELU_EPEER, code, what);
  melu__break_up(m, &why);
}

/* ---------------------------------------------------------------------------------------------- messages */

static void send_next(melu_mpi *m, size_t r) {
  struct melu__stream *s = &m->streams[r];
  char *message = m->memory + r * m->message_bytes;
  const struct melu__head head = {(uint32_t)m->call, 0, s->n_out};
  const size_t room = m->message_bytes - sizeof head, left = s->n_out - s->n_sent, n = left < room ? left : room;
  memcpy(message, &head, sizeof head);
  if (n) memcpy(message + sizeof head, s->out + s->n_sent, n);
  s->n_sent += n;
  const int code = MPI_Isend(message, (int)(sizeof head + n), MPI_BYTE, (int)r, TAG, m->comm, &m->requests[r]);
  if (code != MPI_SUCCESS) break_up_by_mpi(m, r, code);
}

static void await_next(melu_mpi *m, size_t r) {
  char *message = m->memory + (m->n_ranks + r) * m->message_bytes;
  const int code =
      MPI_Irecv(message, (int)m->message_bytes, MPI_BYTE, (int)r, TAG, m->comm, &m->requests[m->n_ranks + r]);
  if (code != MPI_SUCCESS) break_up_by_mpi(m, r, code);
}

/* Whether what rank r has sent is what is to come now; everything is broken if not. */
static int is_due(melu_mpi *m, size_t r, const struct melu__head *head, size_t n) {
  const struct melu__stream *s = &m->streams[r];
  if (head->call > MELU__END)
    BREAK_UP(m, "rank %zu sends what is no message of this library", r);
  else if (head->call != (uint32_t)m->call)
    BREAK_UP(m, "rank %zu makes the collective call %s, and rank %zu %s", r, call_names[head->call], m->rank,
             call_names[m->call]);
  else if (head->n > s->room)
    BREAK_UP(m, "rank %zu sends rank %zu %llu bytes, more than the %zu that it has room for", r, m->rank,
             (unsigned long long)head->n, s->room);
  else if ((m->call != MELU__ALL_TO_ALL && head->n != s->room) || n > head->n - s->n_received)
    BREAK_UP(m, "rank %zu sends rank %zu %llu bytes, and not %zu", r, m->rank, (unsigned long long)head->n, s->room);
  return !m->broken.status;
}

static void hear_farewell(melu_mpi *m, const char *bytes, size_t n) {
  struct melu__farewell farewell = {.message = ""};
  memcpy(&farewell, bytes, n < sizeof farewell ? n : sizeof farewell);
  farewell.message[sizeof farewell.message - 1] = 0;
  BREAK_UP(m, "%s", farewell.message);
}

static void take_message(melu_mpi *m, size_t r, const MPI_Status *status) {
  struct melu__stream *s = &m->streams[r];
  const char *message = m->memory + (m->n_ranks + r) * m->message_bytes;
  struct melu__head head = {MELU__FAREWELL + 1, 0, 0};
  int n_bytes = 0;
  MPI_Get_count(status, MPI_BYTE, &n_bytes);
  if ((size_t)n_bytes >= sizeof head) memcpy(&head, message, sizeof head);
  if (head.call == MELU__FAREWELL) {
    hear_farewell(m, message, (size_t)n_bytes);
    return;
  }
  const size_t n = (size_t)n_bytes < sizeof head ? 0 : (size_t)n_bytes - sizeof head;
  if (!is_due(m, r, &head, n)) return;
  if (n) memcpy(s->in + s->n_received, message + sizeof head, n);
  s->n_received += n;
  s->n_in = head.n;
  if (s->n_received < s->n_in) await_next(m, r);
}

/* ----------------------------------------------------------------------------------------------- streams */

melu_status melu__streams_begin(melu_mpi *m, enum melu__call call, melu_error *err) {
  if (is_finalized() && !m->broken.status) melu__fail(&m->broken, MELU_ESTATE, "MPI is finalised");
  if (m->is_under_way)
    BREAK_UP(m, "rank %zu makes the collective call %s before the end of another", m->rank, call_names[call]);
  m->call = call;
  m->is_under_way = 1;
  for (size_t i = 1; i < m->n_ranks && !m->broken.status; i++) await_next(m, (m->rank + i) % m->n_ranks);
  for (size_t i = 1; i < m->n_ranks && !m->broken.status; i++) send_next(m, (m->rank + i) % m->n_ranks);
  return why_broken(m, err);
}

/* Takes note of one request that has come to its end. */
static void go_on(melu_mpi *m, int request, const MPI_Status *status, int has_failed) {
  const size_t n = m->n_ranks, r = (size_t)request % n;
  if (has_failed && status->MPI_ERROR != MPI_SUCCESS && status->MPI_ERROR != MPI_ERR_PENDING)
    break_up_by_mpi(m, r, status->MPI_ERROR);
  else if ((size_t)request >= n)
    take_message(m, r, status);
  else if (m->streams[r].n_sent < m->streams[r].n_out)
    send_next(m, r);
}

static void give_up(melu_mpi *m) {
  for (size_t r = 0; r < m->n_ranks; r++)
    if (m->requests[r] != MPI_REQUEST_NULL || m->requests[m->n_ranks + r] != MPI_REQUEST_NULL)
      BREAK_UP(m, "rank %zu did not come within %g seconds", r, m->time_limit);
}

melu_status melu__streams_end(melu_mpi *m, melu_error *err) {
  double last = melu__now();
  if (!m->is_under_way) BREAK_UP(m, "rank %zu ends a collective call that was not begun", m->rank);
  m->is_under_way = 0;
  while (!m->broken.status) {
    int n_ready = 0;
    const int code = MPI_Testsome((int)(2 * m->n_ranks), m->requests, &n_ready, m->ready, m->statuses);
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
      melu_error why;
      melu__fail_mpi(&why, MELU_EPEER, code, "MPI has failed");
      melu__break_up(m, &why);
    } else if (n_ready == MPI_UNDEFINED) {
      break;
    } else {
      const double now = melu__now();
      for (int i = 0; i < n_ready && !m->broken.status; i++)
        go_on(m, m->ready[i], &m->statuses[i], code == MPI_ERR_IN_STATUS);
      if (n_ready) last = now;
      if (now - last > m->time_limit) give_up(m);
      melu__back_off(now - last);
    }
  }
  return why_broken(m, err);
}
