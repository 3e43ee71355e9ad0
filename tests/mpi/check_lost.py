#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Ranks that stop or are killed in the middle of a training: all others end with MELU_EPEER, within the time limit. And
a program that the launcher of another MPI has started says so.
Usage: check_lost.py PROGRAM OTHER_LAUNCHER|- LAUNCHER [ARGUMENT...]"""
import os
import re
import signal
import subprocess
import sys

PROGRAM, OTHER, *LAUNCH = sys.argv[1:]
LIMIT = 2
SLACK = 1.5  # seconds for a machine that does other things too
# Open MPI's launcher ends all ranks when one dies, unless told not to. MPICH's cannot be kept from it: there nobody can
# hear of a killed rank, only of one that has stopped.
IS_OPEN_MPI = '--oversubscribe' in LAUNCH
GO_ON, SIGNALS = (['--enable-recovery'], (signal.SIGSTOP, signal.SIGKILL)) if IS_OPEN_MPI else ([], (signal.SIGSTOP,))


def run(launch, n, lost, call, number):
    """The lines that the ranks have printed. Who has stopped is killed once all others have ended."""
    program = subprocess.Popen([*launch, '-n', str(n), PROGRAM, *map(str, (n, lost, call, number, LIMIT))],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, stopped, n_ends = [], None, 0
    for line in program.stdout:
        lines.append(line.strip())
        found = re.match(r'lost (\d+) ', line)
        stopped = int(found[1]) if found and number == signal.SIGSTOP else stopped
        n_ends += line.startswith('end ')
        if n_ends == n - 1 and stopped:
            os.kill(stopped, signal.SIGKILL)
            stopped = None
    program.wait()
    return lines


def check_lost(n, lost, call, number):
    lines = run([*LAUNCH, *GO_ON], n, lost, call, number)
    text = '\n'.join(lines)
    gone = re.findall(r'^lost \d+ ([\d.]+)$', text, re.M)
    ends = re.findall(r'^end (\d+) ([\d.]+) (\w+) (.*)$', text, re.M)
    assert len(gone) == 1, text
    assert sorted(int(end[0]) for end in ends) == [r for r in range(n) if r != lost], text
    took = max(float(end[1]) for end in ends) - float(gone[0])
    assert all(end[2] == 'MELU_EPEER' and f'rank {lost} ' in end[3] for end in ends), text
    assert took < LIMIT + SLACK, f'{took} seconds: {text}'
    return took


def main():
    worst = {}
    for number in SIGNALS:
        for n, lost, call in ((2, 0, 40), (2, 1, 41), (3, 1, 1), (4, 3, 90)):
            worst[number.name] = max(worst.get(number.name, 0), check_lost(n, lost, call, number))
    for name, took in worst.items():
        print(f'{name}: the others end within {took:.2f} s, of {LIMIT} allowed')
    if OTHER != '-':
        lines = run([OTHER], 2, 0, 1, signal.SIGSTOP)
        said = [line for line in lines if line.startswith('refused MELU_ESTATE there must be 2 ranks, and there are 1:')]
        assert len(said) == 2, '\n'.join(lines)
        print('started by another launcher: said so')


main()
