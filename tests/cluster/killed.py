#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""N times, one of 4 ranks of a training is killed with -9 at a random moment: each of the others must end by itself, with
the status that says so, when the time limit is over, but now and then one ends without a word, which is counted and was
not explained yet; and what the job has written so far, gone on from by 1 to 4 ranks, must come to the bits of a training
that nobody disturbed. By OpenMPI.
Usage: killed.py EXAMPLES [N] [--sharded]"""
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

import runs

N_RANKS, LIMIT = 4, 3
# Whole epochs: a training that is over has no checkpoint of its end.
OPTIONS = ['--users', 640, '--items', 500, '--ratings', 40, '--steps', 200, '--every', 3, '--digest', '--time-limit', LIMIT]
# Shared memory knows nothing of the dead.
ALONE = ['--mca', 'btl', 'tcp,self', '--mca', 'pml', 'ob1']
# The launcher would end all when one has ended, so it does not see that. What a rank says goes to a file.
SHELL = ['sh', '-c', '"$0" "$@" 2> "$FOLDER/said.$$" || echo $? > "$FOLDER/code.$$"; exec sleep 60']


def stat_of(pid):
    """Name, state and parent of a process; None if it is gone."""
    try:
        before, after = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)
    except OSError:
        return None
    return before.split('(', 1)[1], after.split()[0], int(after.split()[1])


def is_alive(pid):
    found = stat_of(pid)
    return found is not None and found[1] != 'Z'


def ranks_of(launcher):
    """The processes of the program, each with the shell that it is a child of."""
    pids = [int(folder.name) for folder in pathlib.Path('/proc').iterdir() if folder.name.isdigit()]
    found = {pid: stat for pid in pids if (stat := stat_of(pid))}
    return [(pid, parent) for pid, (name, _, parent) in found.items()
            if name.startswith('cluster') and parent in found and found[parent][2] == launcher]


def kill_one(command, file, whole):
    """When the training has begun to write; returns how long the others took to end, or None if it was over by then."""
    os.environ['FOLDER'] = str(file.parent)
    process = runs.start(command, *OPTIONS, *sys.argv[3:], '--checkpoint', file)
    began = time.monotonic()
    while not file.exists() and time.monotonic() - began < 60:
        time.sleep(0.01)
    ranks = ranks_of(process.pid)
    assert len(ranks) == N_RANKS, f'there are {len(ranks)} ranks'
    time.sleep(random.uniform(0, max(0, whole - (time.monotonic() - began))))
    are_there = all(is_alive(pid) for pid, _ in ranks)
    dead, _ = ranks[random.randrange(N_RANKS)]
    if are_there:
        os.kill(dead, signal.SIGKILL)
    began = time.monotonic()
    while any(is_alive(pid) for pid, _ in ranks) and time.monotonic() - began < 10 * LIMIT:
        time.sleep(0.01)
    took = time.monotonic() - began
    time.sleep(1)  # the shells write codes
    shells = [shell for pid, shell in ranks if pid != dead]
    said = [(file.parent / f'said.{shell}').read_text() for shell in shells]
    codes = [code.read_text() for shell in shells if (code := file.parent / f'code.{shell}').exists()]
    for victim in [process.pid, *(shell for _, shell in ranks)]:
        os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=60)
    if not are_there or (took < 1 and not any(said)):
        return None  # it was over, or nearly
    n_said = sum('MELU_EPEER' in s for s in said)
    assert n_said and len(codes) == N_RANKS - 1, f'the others said, after {took:.1f} s: {said}, and ended with {codes}'
    return took, N_RANKS - 1 - n_said


def main():
    n_times = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    openmpi, longest, n_over, done, by_mpi = runs.launchers(sys.argv[1])['openmpi'], 0, 0, 0, 0
    leave_alone = lambda n: [*openmpi(n)[:-1], *ALONE, *SHELL, openmpi(n)[-1]]  # noqa: E731
    began = time.monotonic()
    expected = runs.digest_of(runs.run(openmpi(N_RANKS), *OPTIONS, *sys.argv[3:]))
    whole = time.monotonic() - began
    while done < n_times:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / 'training'
            found = kill_one(leave_alone(N_RANKS), file, whole)
            if found is None:
                n_over += 1
                assert n_over < 10 + n_times, 'it is nearly always over'
                continue
            took, n = found
            by_mpi += n
            assert took < LIMIT + 3, f'the others ended after {took:.1f} s'
            longest, done = max(longest, took), done + 1
            again = runs.digest_of(runs.run(openmpi(random.randint(1, N_RANKS)), *OPTIONS, *sys.argv[3:], '--checkpoint', file,
                                            '--resume'))
            assert again == expected, f'{again} after a restart, and not {expected}'
            print(f'{done}: the others ended after {took:.2f} s', flush=True)
    print(f'{n_times} times killed: all others ended within {longest:.2f} s, limit {LIMIT}, {(N_RANKS - 1) * n_times - by_mpi} by '
          f'MELU_EPEER and {by_mpi} without a word; the restart by 1 to {N_RANKS} ranks came to the same bits. {n_over} times more '
          'it was over before.')


if __name__ == '__main__':
    sys.exit(main())
