/* SPDX-License-Identifier: BSD-3-Clause */
/* The end of every test program's main. */
#ifndef MELU_TESTS_RUN_SUITE_H
#define MELU_TESTS_RUN_SUITE_H

#include <check.h>

/* Runs the suite, which is freed; returns what main is to return: 0 if no test failed. */
static inline int run_suite(Suite *suite) {
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int n_failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return n_failed != 0;
}

#endif
