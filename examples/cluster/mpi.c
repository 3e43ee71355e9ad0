/* SPDX-License-Identifier: BSD-3-Clause */
#include <melu/mpi.h>
#include <signal.h>

#include "../common/args.h"
#include "cluster.h"

void run_mpi(const struct choices *choices, int *argc, char ***argv) {
  melu_error err;
  melu_mpi *mpi;
  int provided, rank;
  struct melu_collective collective = {.size = sizeof collective};
  const struct melu_mpi_options options = {.size = sizeof options, .time_limit = (double)choices->time_limit};
  /* Over TCP, MPI writes to who is gone, too, and that signal would end this process before it could say so. */
  signal(SIGPIPE, SIG_IGN);
  if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) give_up("MPI cannot be started");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  rank_must((uint32_t)rank, melu_mpi_new(&mpi, MPI_COMM_WORLD, &options, &err), &err);
  rank_must((uint32_t)rank, melu_mpi_member(&collective, mpi, &err), &err);
  run_rank(choices, &collective);
  melu_mpi_free(mpi);
  MPI_Finalize();
}
