/* SPDX-License-Identifier: BSD-3-Clause */
/* Bytes between this rank and each of the others, both ways at once, as MPI messages of a bounded length through memory
 * of our own: MPI may go on reading and writing there after we have stopped waiting for it. */
#ifndef MELU__STREAMS_H
#define MELU__STREAMS_H

#include <melu/mpi.h>

enum melu__call {
  MELU__ALL_GATHER,
  MELU__ALL_TO_ALL,
  MELU__REDUCE,
  MELU__BARRIER,
  MELU__END,
  MELU__FAREWELL /* in place of any other: the sender makes no more calls, and says why */
};

/* At the beginning of every message. */
struct melu__head {
  uint32_t call, unused;
  uint64_t n; /* bytes of the whole stream */
};

/* To and from one rank. */
struct melu__stream {
  const char *out;
  size_t n_out, n_sent; /* what MPI is just sending included */
  char *in;
  size_t room; /* bytes that may come; must come unless the call is all_to_all */
  size_t n_in, n_received;
};

struct melu__farewell {
  struct melu__head head;
  char message[232];
};

struct melu_mpi {
  struct melu_allocator allocator;
  MPI_Comm comm;
  size_t rank, n_ranks;
  double time_limit;
  size_t message_bytes;         /* of one, its head included */
  char *memory;                 /* (2, n_ranks, message_bytes): messages going out, and coming in */
  MPI_Request *requests;        /* (3, n_ranks): going out, coming in, farewells */
  MPI_Status *statuses;         /* (3, n_ranks) */
  int *ready;                   /* (2, n_ranks) */
  struct melu__stream *streams; /* (n_ranks) */
  char *values;                 /* (n_ranks, MELU_MAX_REDUCE) */
  struct melu_message *in;      /* of all_to_all, from its beginning to its end */
  enum melu__call call;
  int is_under_way;  /* begun, and not ended */
  melu_error broken; /* why no call succeeds any more, if its status is not 0 */
  struct melu__farewell farewell;
};

/* Seconds on a clock that only goes forward. */
double melu__now(void);

/* Waits a little, the longer the longer it has been. */
void melu__back_off(double waited);

/* The status with the text of an error code of MPI's after ": ". */
melu_status melu__fail_mpi(melu_error *err, melu_status status, int code, const char *what);

/* No call succeeds from now on, because of *why; the others are told. */
void melu__break_up(melu_mpi *m, const melu_error *why);

/* Begins what mpi->streams say, for all other ranks. Errors: as every later call. */
melu_status melu__streams_begin(melu_mpi *m, enum melu__call call, melu_error *err);

/* Returns when all is sent and all has come. */
melu_status melu__streams_end(melu_mpi *m, melu_error *err);

#endif
