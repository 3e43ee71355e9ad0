/* SPDX-License-Identifier: BSD-3-Clause */
/* The functions of a collective by streams to and from all other ranks, and the life of the handle. */
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "mpi/streams.h"

enum { MOST_BYTES = 1 << 20, LEAST_BYTES = 1 << 14, BYTES_OF_ALL = 1 << 25 };

/* ------------------------------------------------------------------------------------------ the collective */

static melu_status all_gather(void *arg, void *all, const size_t *counts, melu_error *err) {
  melu_mpi *m = arg;
  char *part = all;
  const char *own = NULL;
  for (size_t r = 0; r < m->n_ranks; part = counts[r] ? part + counts[r] : part, r++) {
    m->streams[r] = (struct melu__stream){.in = part, .room = counts[r]};
    if (r == m->rank) own = part;
  }
  for (size_t r = 0; r < m->n_ranks; r++) {
    m->streams[r].out = own;
    m->streams[r].n_out = counts[m->rank];
  }
  const melu_status status = melu__streams_begin(m, MELU__ALL_GATHER, err);
  return status ? status : melu__streams_end(m, err);
}

static melu_status all_to_all_begin(void *arg, const struct melu_message *out, struct melu_message *in,
                                    melu_error *err) {
  melu_mpi *m = arg;
  m->in = in;
  for (size_t r = 0; r < m->n_ranks; r++)
    m->streams[r] = (struct melu__stream){.out = out[r].bytes, .n_out = out[r].n, .in = in[r].bytes, .room = in[r].n};
  return melu__streams_begin(m, MELU__ALL_TO_ALL, err);
}

static melu_status all_to_all_end(void *arg, melu_error *err) {
  melu_mpi *m = arg;
  const melu_status status = melu__streams_end(m, err);
  for (size_t r = 0; r < m->n_ranks && !status; r++)
    if (r != m->rank) m->in[r].n = m->streams[r].n_in;
  return status;
}

static melu_status exchange_values(melu_mpi *m, enum melu__call call, const void *value, size_t n, melu_error *err) {
  for (size_t r = 0; r < m->n_ranks; r++)
    m->streams[r] = (struct melu__stream){.out = value, .n_out = n, .in = m->values + r * MELU_MAX_REDUCE, .room = n};
  const melu_status status = melu__streams_begin(m, call, err);
  return status ? status : melu__streams_end(m, err);
}

static melu_status reduce(void *arg, void *value, size_t n, melu_fold_fn fold, melu_error *err) {
  melu_mpi *m = arg;
  if (n > MELU_MAX_REDUCE) {
    melu_error why;
    melu__fail(&why, MELU_EINVAL, "a value of %zu bytes is to be folded, above %d", n, MELU_MAX_REDUCE);
    melu__break_up(m, &why);
  }
  const melu_status status = exchange_values(m, MELU__REDUCE, value, n, err);
  if (status) return status;
  memcpy(m->values + m->rank * MELU_MAX_REDUCE, value, n);
  for (size_t r = 1; r < m->n_ranks; r++) fold(m->values, m->values + r * MELU_MAX_REDUCE);
  memcpy(value, m->values, n);
  return MELU_OK;
}

static melu_status barrier(void *arg, melu_error *err) {
  return exchange_values(arg, MELU__BARRIER, NULL, 0, err);
}

/* --------------------------------------------------------------------------------------------------- life */

/* Whether this thread may call MPI at all. */
static melu_status check_mpi(melu_error *err) {
  int is_initialized = 0, is_finalized = 0, is_main = 1, level = MPI_THREAD_MULTIPLE;
  MPI_Initialized(&is_initialized);
  if (!is_initialized) return melu__fail(err, MELU_ESTATE, "MPI is not initialised: call MPI_Init_thread before");
  MPI_Finalized(&is_finalized);
  if (is_finalized) return melu__fail(err, MELU_ESTATE, "MPI is finalised");
  MPI_Query_thread(&level);
  MPI_Is_thread_main(&is_main);
  if (level < MPI_THREAD_SERIALIZED && !is_main)
    return melu__fail(err, MELU_ESTATE, "MPI may be called only by the thread that has initialised it");
  return MELU_OK;
}

static melu_status check_comm(MPI_Comm comm, const struct melu_mpi_options *o, melu_error *err) {
  int is_inter = 0, n_ranks = 0;
  if (comm == MPI_COMM_NULL) return melu__fail(err, MELU_EINVAL, "comm is MPI_COMM_NULL");
  MPI_Comm_test_inter(comm, &is_inter);
  if (is_inter) return melu__fail(err, MELU_EINVAL, "comm is an inter-communicator");
  MPI_Comm_size(comm, &n_ranks);
  if (o->n_ranks == 0 || o->n_ranks == (size_t)n_ranks) return MELU_OK;
  return melu__fail(err, MELU_ESTATE, "there must be %zu ranks, and there are %d%s", o->n_ranks, n_ranks,
                    n_ranks == 1 ? ": was the program started by the launcher of another MPI?" : "");
}

static size_t bytes_of_message(size_t n_ranks) {
  const size_t n = BYTES_OF_ALL / n_ranks;
  return n > MOST_BYTES ? MOST_BYTES : n < LEAST_BYTES ? LEAST_BYTES : n;
}

static void free_memory(melu_mpi *m) {
  const struct melu_allocator allocator = m->allocator; /* it must outlive the memory it gives back */
  melu__free(&allocator, m->memory);
  melu__free(&allocator, m->requests);
  melu__free(&allocator, m->statuses);
  melu__free(&allocator, m->ready);
  melu__free(&allocator, m->streams);
  melu__free(&allocator, m->values);
  melu__free(&allocator, m);
}

static melu_mpi *alloc_memory(const struct melu_allocator *a, MPI_Comm comm) {
  int rank = 0, n_ranks = 0;
  melu_mpi *m = melu__calloc(a, 1, sizeof *m);
  if (!m) return NULL;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &n_ranks);
  const size_t n = (size_t)n_ranks;
  m->allocator = *a;
  m->rank = (size_t)rank;
  m->n_ranks = n;
  m->message_bytes = bytes_of_message(n);
  m->memory = melu__calloc(a, 2 * n, m->message_bytes);
  m->requests = melu__alloc(a, 3 * n, sizeof(MPI_Request));
  m->statuses = melu__calloc(a, 3 * n, sizeof *m->statuses);
  m->ready = melu__calloc(a, 2 * n, sizeof *m->ready);
  m->streams = melu__calloc(a, n, sizeof *m->streams);
  m->values = melu__calloc(a, n, MELU_MAX_REDUCE);
  if (m->memory && m->requests && m->statuses && m->ready && m->streams && m->values) {
    for (size_t i = 0; i < 3 * n; i++) m->requests[i] = MPI_REQUEST_NULL;
    return m;
  }
  free_memory(m);
  return NULL;
}

/* The duplicate of the host's communicator. If it fails, MPI may still write to m->comm. */
static melu_status duplicate(melu_mpi *m, MPI_Comm comm, melu_error *err) {
  MPI_Errhandler hosts;
  MPI_Request *request = m->requests;
  int is_there = 0;
  MPI_Comm_get_errhandler(comm, &hosts);
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  int code = MPI_Comm_idup(comm, &m->comm, request);
  const double begin = melu__now();
  double waited = 0;
  while (code == MPI_SUCCESS && !is_there && waited <= m->time_limit) {
    code = MPI_Test(request, &is_there, MPI_STATUS_IGNORE);
    waited = melu__now() - begin;
    if (!is_there) melu__back_off(waited);
  }
  MPI_Comm_set_errhandler(comm, hosts);
  MPI_Errhandler_free(&hosts);
  if (code != MPI_SUCCESS) return melu__fail_mpi(err, MELU_EPEER, code, "the communicator cannot be duplicated");
  if (!is_there) return melu__fail(err, MELU_EPEER, "some ranks did not come within %g seconds", m->time_limit);
  MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN);
  return MELU_OK;
}

melu_status melu_mpi_new(melu_mpi **out, MPI_Comm comm, const struct melu_mpi_options *options, melu_error *err) {
  struct melu_mpi_options o;
  struct melu_allocator allocator;
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  melu_status status = melu__options(&o, sizeof o, options, "melu_mpi_options", err);
  if (!status) status = melu__time_limit(&o.time_limit, err);
  if (!status) status = melu__allocator(&allocator, o.allocator, err);
  if (!status) status = check_mpi(err);
  if (!status) status = check_comm(comm, &o, err);
  if (status) return status;
  melu_mpi *m = alloc_memory(&allocator, comm);
  if (!m) return melu__fail_memory(err);
  m->time_limit = o.time_limit;
  status = duplicate(m, comm, err);
  if (status) return status; /* m stays: MPI may still write to it */
  *out = m;
  return MELU_OK;
}

/* Whether MPI has let go of all memory. */
static int has_let_go(melu_mpi *m) {
  int is_done = 0;
  const double begin = melu__now();
  do {
    MPI_Testall((int)(3 * m->n_ranks), m->requests, &is_done, m->statuses);
  } while (!is_done && melu__now() - begin < 0.01);
  return is_done;
}

/* The communicator is freed once all ranks have come to this end. Else what was sent on it and never received would be
 * found by whom MPI gives its number to. */
void melu_mpi_free(melu_mpi *m) {
  int is_finalized = 0;
  if (!m) return;
  MPI_Finalized(&is_finalized);
  if (!is_finalized) {
    if (exchange_values(m, MELU__END, NULL, 0, NULL) == MELU_OK)
      MPI_Comm_free(&m->comm);
    else if (!has_let_go(m))
      return;
  }
  free_memory(m);
}

melu_status melu_mpi_member(struct melu_collective *collective, melu_mpi *mpi, melu_error *err) {
  if (!collective || !mpi) return melu__fail(err, MELU_EINVAL, "%s is NULL", collective ? "mpi" : "collective");
  const struct melu_collective member = {.arg = mpi,
                                         .rank = (uint32_t)mpi->rank,
                                         .n_ranks = (uint32_t)mpi->n_ranks,
                                         .all_gather = all_gather,
                                         .all_to_all_begin = all_to_all_begin,
                                         .all_to_all_end = all_to_all_end,
                                         .reduce = reduce,
                                         .barrier = barrier};
  return melu__options_out(collective, &member, sizeof member, "melu_collective", err);
}

void melu_mpi_leave(melu_mpi *mpi) {
  melu_error why;
  if (!mpi) return;
  melu__fail(&why, MELU_EPEER, "rank %zu has left", mpi->rank);
  melu__break_up(mpi, &why);
}
