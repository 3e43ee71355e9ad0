#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Adds up a run of `meson test`: the checks of the Check programs, and one for every other test.
Usage: totals.py TESTLOG_JSON"""
import json
import re
import sys


def count(test):
    """(passed, failed) of one test. A program that died before its summary, or after it, is one failure more."""
    passed = failed = 0
    for checks, failures, errors in re.findall(r'Checks: (\d+), Failures: (\d+), Errors: (\d+)', test.get('stdout', '')):
        failed += int(failures) + int(errors)
        passed += int(checks) - int(failures) - int(errors)
    if test['result'] != 'OK' and failed == 0:
        failed = 1
    return (passed, failed) if passed + failed else (1, 0)


def main():
    with open(sys.argv[1]) as log:
        tests = [json.loads(line) for line in log]
    counts = [count(test) for test in tests]
    for test, (passed, failed) in zip(tests, counts):
        print(f'{test["name"]:20} {passed:5} passed {failed:4} failed  {test["duration"]:7.1f} s')
        for line in test.get('stdout', '').splitlines():
            if line and not re.match('Running suite|\\d+%: Checks', line):  # what a test found, or could not find
                print(f'    {line}')
    passed, failed = (sum(column) for column in zip(*counts))
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0


sys.exit(main())
