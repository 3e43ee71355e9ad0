/* SPDX-License-Identifier: BSD-3-Clause */
/* A public call, and what may not be another after it has failed. */
#ifndef MELU_TESTS_FAULT_CALL_H
#define MELU_TESTS_FAULT_CALL_H

#include "faults.h"

enum { FAULT_CALL_MOST = 4 };

struct fault_call {
  const char *name;
  int never_asks, resumes;
  void *object; /* address of the pointer to a new object; NULL: there is none */
  struct fault_written {
    void *at, *before; /* `before`: a copy */
    size_t n_bytes;
  } written[FAULT_CALL_MOST];
  struct fault_changed {
    enum faults_kind kind;
    const void *object;
    uint64_t before; /* a digest */
  } changed[FAULT_CALL_MOST];
  size_t n_written, n_changed;
  struct fault_served {
    melu_workspace *ws; /* NULL: nobody is served */
    const melu_model *model;
    const melu_user *user;
    const melu_dataset *data;
    uint64_t before;
  } served;
  uint64_t updated; /* the digest of the model after the last update of a training; 0: there was none */
};

void fault_call_begin(struct fault_call *c, const char *name);
void fault_call_end(struct fault_call *c);

void fault_call_written(struct fault_call *c, void *at, size_t n_bytes);
void fault_call_changed(struct fault_call *c, enum faults_kind kind, const void *object);
void fault_call_served(struct fault_call *c, const struct fault_served *served);

/* The training that is this call has made an update. */
void fault_call_update(struct fault_call *c);

/* What is not as it was, or NULL. *is_cut: but for a training that has made updates, whose last one it is as after. */
const char *fault_call_harm(const struct fault_call *c, int *is_cut);

#endif
