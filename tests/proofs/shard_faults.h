/* SPDX-License-Identifier: BSD-3-Clause */
/* The part of proof 3 that is about shard folders, which are more than one file. */
#ifndef MELU_TESTS_SHARD_FAULTS_H
#define MELU_TESTS_SHARD_FAULTS_H

#include "proof.h"

/* Fails each call by which a shard folder is written: it is none then, and whoever tries again gets it whole, in the
 * same writer or in another one. */
void fail_shard_writer(const struct scene *s);

#endif
