/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory that runs out, in any program that is linked with faults.c and its kin, with what wrap_calls.py makes, and the
 * linker's --wrap. At a request for memory within a public call the process is doubled, and the child is refused the
 * request. Its call must say so, leave alone what it would have written or changed and then, repeated with the same
 * arguments, do what it should; and so on to the end of the program, which must be that of an undisturbed one. Only
 * then the parent goes on, to the next request. What is to be refused stands in the environment:
 *
 *   MELU_FAULTS           "host": requests to the context's allocator; "system": to malloc and its kin, whoever asks.
 *                         Not set: nothing
 *   MELU_FAULTS_WAYS      of the ways through the library that lead to a request, the first such request of every so
 *                         many; not set: of all
 *   MELU_FAULTS_EVERY     and one of every so many requests; not set: no others
 *   MELU_FAULTS_TURNS     1: each is refused once, or all from there on, in turns; not set: both
 *   MELU_FAULTS_MAY_FAIL  1: the program may say that it failed: it counts calls or memory
 *   MELU_FAULTS_REPORT    the file of a struct faults_report, which all processes of the program share
 *   MELU_FAULTS_EXPECTED  a file with what an undisturbed program prints; not set: nobody looks
 *
 * Contexts have one thread then, since a doubled process has one; those with a runner of the host's are left alone. */
#ifndef MELU_TESTS_FAULTS_H
#define MELU_TESTS_FAULTS_H

#include <melu.h>

enum { FAULTS_PATHS = 1 << 16, FAULTS_WHY = 2000 };

struct faults_report {
  uint64_t n_requests;  /* within public calls */
  uint64_t n_paths;     /* different ways that led to them */
  uint64_t n_refused;   /* children: a request, or all from there on until the call returned */
  uint64_t n_endured;   /* of them, those whose call did without the memory */
  uint64_t n_cut;       /* of them, trainings that had made an update: the weights are those of the last one, and what
                           comes after is not compared */
  char why[FAULTS_WHY]; /* of the first that is broken; empty if none is */
  uint64_t paths[FAULTS_PATHS];
};

/* --------------------------------------------------------------------------------- for what wrap_calls.py makes */

/* A public call begins. 0: another one makes it, or nothing is refused: it is just to be made. */
int faults_enter(const char *name);

/* What it will write if it succeeds: a new object; n elements. Or: it never asks for memory. */
void faults_new(void *object);
void faults_written(void *at, size_t n, size_t size);
void faults_never(void);

/* What it may change, and what its user is predicted. */
enum faults_kind { FAULTS_SCHEMA, FAULTS_DATASET, FAULTS_BATCH, FAULTS_MODEL, FAULTS_USER, FAULTS_CATALOG };
void faults_changed(enum faults_kind kind, const void *object);
void faults_served(melu_workspace *ws, const melu_model *model, const melu_user *user, const melu_dataset *data);

/* It is a training that goes on from a checkpoint, from which it can go on again. */
void faults_resumes(void);

/* It ended. 1: it is to be made again. */
int faults_again(melu_status status, const melu_error *err);

/* ------------------------------------------------------------------------------------------------- for programs */

/* Whether this process is not the undisturbed one; and whether what comes of it may be something else. */
int faults_is_child(void);
int faults_may_differ(void);

/* While it is not 0 nothing is refused. */
void faults_pause(int pause);

#endif
