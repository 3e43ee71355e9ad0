/* SPDX-License-Identifier: BSD-3-Clause
 *
 * melu/mpi.h - the ranks of an MPI program as those of a training.
 *
 * A library of its own, libmelu_mpi, for the MPI that it was built with; libmelu knows nothing of MPI. Link with what
 * `pkg-config --cflags --libs melu-mpi` says, by the compiler of that MPI (mpicc).
 *
 *     MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
 *     melu_mpi_new(&mpi, MPI_COMM_WORLD, NULL, &err);
 *     struct melu_collective ranks = {.size = sizeof ranks};
 *     melu_mpi_member(&ranks, mpi, &err);
 *     struct melu_context_options options = {.size = sizeof options, .collective = &ranks};
 *     melu_context_new(&ctx, &options, &err);
 *     ...                                               users of the rank's own slots, melu_fit and so on
 *     melu_context_free(ctx);
 *     melu_mpi_free(mpi);
 *     MPI_Finalize();
 *
 * The rules of melu.h hold here too. The host initialises MPI and finalises it. MPI_THREAD_FUNNELED is enough: MPI is
 * called only by the thread that calls the library; where a context has one thread, MPI_THREAD_SINGLE is.
 *
 * Ranks talk on a duplicate of the host's communicator, which returns errors, so that nothing ends the process. Each
 * collective function sends one message to every other rank, or more where it is long: a MiB each, less with more than
 * 32 ranks. They go through memory of the library, 2 messages a rank, so that MPI never writes to what was freed.
 *
 * Once a rank is gone, silent or out of step, every call ends with MELU_EPEER on all ranks, and MPI itself is seldom of
 * use: MPI_Finalize may wait for ever. End the process (MPI_Abort), and start the job again from the last checkpoint.
 * Most launchers end all ranks when one dies, before any of them could say so. MPI itself may do that to a process,
 * too: what Open MPI 4.1 writes to a rank that is gone, over TCP, raises SIGPIPE, which a host that wants to hear of
 * MELU_EPEER ignores, and it ends the process, with status 255, if a message was on its way to that rank.
 */
#ifndef MELU_MPI_H
#define MELU_MPI_H

#include <melu.h>
#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The ranks of an MPI communicator. */
typedef struct melu_mpi melu_mpi;

/* Options of melu_mpi_new. */
struct melu_mpi_options {
  size_t size;
  const struct melu_allocator *allocator; /* copied; NULL: malloc and free */
  double time_limit; /* seconds without a byte from the ranks that are waited for, until they count as gone; 0: 60 */
  size_t n_ranks;    /* that there must be; 0: any number. A program started by another MPI's launcher finds itself
                        alone, as often as it was started */
};

/* Returns a new handle for the ranks of `comm`, which may be freed afterwards. Collective: all ranks of `comm` make
 * this call. The time limit holds for it too.
 * Errors: MELU_EINVAL (options, MPI_COMM_NULL or an inter-communicator), MELU_ESTATE (MPI is not initialised, or is
 * finalised; the thread is not the one that may call it; there are not n_ranks ranks), MELU_ENOMEM, MELU_EPEER.
 * Since: 1.0 */
MELU_API melu_status melu_mpi_new(melu_mpi **out, MPI_Comm comm, const struct melu_mpi_options *options,
                                  melu_error *err);

/* Frees the handle. No context that was made with it may be in use. Collective, unless a call has failed: it waits for
 * the other ranks, up to the time limit, and those that make another call end with MELU_EPEER. After a failure, what
 * MPI has not let go of stays allocated. Since: 1.0 */
MELU_API void melu_mpi_free(melu_mpi *mpi);

/* Describes this rank for its context; set collective->size before. It borrows the handle.
 * Errors: MELU_EINVAL. Since: 1.0 */
MELU_API melu_status melu_mpi_member(struct melu_collective *collective, melu_mpi *mpi, melu_error *err);

/* Says that this rank will make no more collective calls: those that the others are in, or make after it, end with
 * MELU_EPEER at once. Since: 1.0 */
MELU_API void melu_mpi_leave(melu_mpi *mpi);

#ifdef __cplusplus
}
#endif

#endif
