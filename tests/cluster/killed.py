#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""N times, one of 4 ranks of a training is killed with -9 at a random moment: the others must end by themselves, with the
status that says so and within the time limit; and what the job has written so far, gone on from by 1 to 4 ranks, must come
to the bits of a training that nobody disturbed. By MPICH, whose launcher can be told to leave the others alone.
Usage: killed.py EXAMPLES [N] [--sharded]"""
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

import runs

N_RANKS, LIMIT = 4, 5
# Two epochs of whole batches: a training that is over has no checkpoint of its end.
OPTIONS = ['--users', 640, '--items', 500, '--ratings', 40, '--steps', 40, '--every', 3, '--digest', '--time-limit', LIMIT]


def processes_of(launcher):
    """The ranks: processes of the program that descend from the launcher."""
    parents = {}
    for folder in pathlib.Path('/proc').iterdir():
        if not folder.name.isdigit():
            continue
        try:
            name, rest = (folder / 'stat').read_text().rsplit(')', 1)
        except OSError:
            continue
        parents[int(folder.name)] = (int(rest.split()[1]), name.split('(', 1)[1], rest.split()[0])
    def descends(pid):
        while pid in parents and pid != launcher:
            pid = parents[pid][0]
        return pid == launcher
    return [pid for pid, (_, name, state) in parents.items() if name.startswith('cluster') and state != 'Z' and descends(pid)]


def kill_one(command, options, after):
    """Returns how long the others took to end after one was killed, and what they said; None if nobody could be."""
    process = runs.start(command, *options)
    time.sleep(after)
    ranks = processes_of(process.pid)
    if len(ranks) < N_RANKS:
        process.communicate(timeout=60)
        return None
    os.kill(random.choice(ranks), signal.SIGKILL)
    began = time.monotonic()
    while processes_of(process.pid):
        assert time.monotonic() - began < 4 * LIMIT, f'{processes_of(process.pid)} have not ended'
        time.sleep(0.01)
    took = time.monotonic() - began
    os.killpg(process.pid, signal.SIGKILL)  # the launcher may wait for ever
    _, said = process.communicate(timeout=60)
    return took, said


def main():
    arguments = [a for a in sys.argv[1:] if a != '--sharded']
    n_times = int(arguments[1]) if len(arguments) > 1 else 100
    options = [*OPTIONS, *(['--sharded'] if '--sharded' in sys.argv else [])]
    mpich = runs.launchers(arguments[0])['mpich']
    leave_alone = lambda n: [mpich(n)[0], '-disable-auto-cleanup', *mpich(n)[1:]]  # noqa: E731
    began = time.monotonic()
    expected = runs.digest_of(runs.run(mpich(N_RANKS), *options))
    whole, longest, done, said_nothing, resumed = time.monotonic() - began, 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / 'training'
        with_file = [*options, '--checkpoint', file, '--resume']
        while done < n_times:
            killed = kill_one(leave_alone(N_RANKS), with_file, random.uniform(0.1, 1) * whole)
            if killed is None:
                continue
            took, said = killed
            n_said = said.count('MELU_EPEER')
            assert took < LIMIT + 2, f'the others ended after {took:.1f} s'
            assert n_said == N_RANKS - 1 or not said.count('cluster, on rank'), f'not all of the others said so:\n{said}'
            said_nothing += n_said == 0
            longest, done = max(longest, took), done + 1
            resumed += file.exists()
            again = runs.digest_of(runs.run(mpich(random.randint(1, N_RANKS)), *with_file))
            assert again == expected, f'{again} after a restart, and not {expected}'
            for part in pathlib.Path(folder).iterdir():
                part.unlink()
    assert said_nothing < n_times / 2, f'{said_nothing} of {n_times} times MPI ended all before they could say so'
    print(f'{n_times} times killed, {resumed} of them with a checkpoint: the others ended within {longest:.2f} s, '
          f'the restart came to the same bits; {said_nothing} times before the ranks had met')


if __name__ == '__main__':
    sys.exit(main())
