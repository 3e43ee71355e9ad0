#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""N times, one of 4 ranks of a training is killed with -9 at a random moment: each of the others must end by itself, with
MELU_EPEER, when the time limit is over; and what the job has written so far, gone on from by 1 to 4 ranks, must come to the
bits of a training that nobody disturbed. By Open MPI, which ends a rank itself if a message to the dead one was on its way:
that is the one other end that counts, known by its exit status and by what it says, and how often it came is told. With
--narrow, sockets hold so little that it is always so.
Usage: killed.py EXAMPLES [N] [--sharded] [--narrow]"""
import collections
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

import runs

N_RANKS, LIMIT = 4, 3
# Whole epochs: a training that is over has no checkpoint of its end.
OPTIONS = ['--users', 640, '--items', 500, '--ratings', 40, '--steps', 200, '--every', 3, '--digest', '--time-limit', LIMIT]
# Shared memory knows nothing of the dead.
ALONE = ['--enable-recovery', '--mca', 'btl', 'tcp,self', '--mca', 'pml', 'ob1']
NARROW = ['--mca', 'btl_tcp_sndbuf', '4096', '--mca', 'btl_tcp_rcvbuf', '4096']
# The launcher would end all when one has ended, so it does not see that. What a rank says and ends with goes to files.
SHELL = ['sh', '-c', '"$0" "$@" > "$FOLDER/said.$$" 2>&1; echo $? > "$FOLDER/code.$$"; exec sleep 60']
# Open MPI's transport, at the end of a message whose connection has broken.
BY_MPI = re.compile(r'pml_ob1_\w+\.c:\d+ FATAL$', re.M)


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


def how_it_ended(code, said):
    if code == 1 and said.rstrip().endswith('(MELU_EPEER)'):
        return 'MELU_EPEER'
    if code == 255 and BY_MPI.search(said):
        return 'Open MPI'
    return 'over' if code == 0 else f'{code}, saying {said!r}'


def kill_one(command, file, whole):
    """When the training has begun to write; returns how long the others took to end, and how."""
    os.environ['FOLDER'] = str(file.parent)
    process = runs.start(command, *OPTIONS, *given('--sharded'), '--checkpoint', file)
    began = time.monotonic()
    while not file.exists() and time.monotonic() - began < 60:
        time.sleep(0.01)
    ranks = ranks_of(process.pid)
    assert len(ranks) == N_RANKS, f'there are {len(ranks)} ranks'
    time.sleep(random.uniform(0, max(0, whole - (time.monotonic() - began))))
    dead, its_shell = ranks[random.randrange(N_RANKS)]
    if is_alive(dead):
        os.kill(dead, signal.SIGKILL)
    began = time.monotonic()
    while any(is_alive(pid) for pid, _ in ranks) and time.monotonic() - began < 10 * LIMIT:
        time.sleep(0.01)
    took = time.monotonic() - began
    time.sleep(1)  # the shells write codes
    files = [file.parent / f'code.{shell}' for _, shell in ranks if shell != its_shell]
    ends = [how_it_ended(int(code.read_text()), code.with_name(code.name.replace('code', 'said')).read_text())
            for code in files if code.exists()]
    for victim in [process.pid, *(shell for _, shell in ranks)]:
        os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(ends) == N_RANKS - 1, f'only {ends} after {took:.1f} s'
    return took, ends


def given(option):
    return [option] if option in sys.argv[2:] else []


def main():
    numbers = [int(x) for x in sys.argv[2:] if not x.startswith('-')]
    n_times = numbers[0] if numbers else 100
    openmpi, longest, n_over, done, ways = runs.launchers(sys.argv[1])['openmpi'], 0, 0, 0, collections.Counter()
    transport = ALONE + (NARROW if given('--narrow') else [])
    leave_alone = lambda n: [*openmpi(n)[:-1], *transport, *SHELL, openmpi(n)[-1]]  # noqa: E731
    began = time.monotonic()
    expected = runs.digest_of(runs.run(openmpi(N_RANKS), *OPTIONS, *given('--sharded')))
    whole = time.monotonic() - began
    while done < n_times:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / 'training'
            took, ends = kill_one(leave_alone(N_RANKS), file, whole)
            if all(end == 'over' for end in ends):
                n_over += 1
                assert n_over < 10 + n_times, 'it is nearly always over'
                continue
            assert set(ends) <= {'MELU_EPEER', 'Open MPI'}, f'after {took:.1f} s the others ended with {ends}'
            assert took < LIMIT + 3, f'the others ended after {took:.1f} s'
            longest, done = max(longest, took), done + 1
            ways.update(ends)
            again = runs.digest_of(runs.run(openmpi(random.randint(1, N_RANKS)), *OPTIONS, *given('--sharded'), '--checkpoint', file,
                                            '--resume'))
            assert again == expected, f'{again} after a restart, and not {expected}'
            print(f'{done}: the others ended after {took:.2f} s: {", ".join(ends)}', flush=True)
    print(f'{n_times} times killed: all others ended within {longest:.2f} s, limit {LIMIT}, {ways["MELU_EPEER"]} by MELU_EPEER and '
          f'{ways["Open MPI"]} by Open MPI itself; the restart by 1 to {N_RANKS} ranks came to the same bits. {n_over} times more '
          'it was over before.')


if __name__ == '__main__':
    sys.exit(main())
