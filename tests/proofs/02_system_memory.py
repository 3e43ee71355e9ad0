#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof 2: the same as proof 1 for what the whole process asks of malloc, calloc, realloc, posix_memalign and
aligned_alloc, within public calls: the C library's, jansson's and BLIS's own requests too. Then for threads; and for the
first context on kernels that use BLIS, in a process that may grow by 0, 4, 8, ... KiB.
Usage: 02_system_memory.py [--full]"""
import subprocess
import sys

sys.dont_write_bytecode = True
import fault_programs as programs  # noqa: E402

OF_WIDE = 200  # one of so many ways in the life of a model so wide that BLIS's micro-kernel computes: it takes seconds


def printed(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise programs.Broken(done.stdout + done.stderr)
    return done.stdout.strip()


def prove():
    lives, = programs.build('lives')
    total = programs.Total()
    programs.check_planted('system', lives)
    threads, start = printed([lives, 'threads']), printed([lives, 'start'])
    if programs.FULL:
        for life in programs.SMALL_LIVES:
            programs.refuse(total, 'system', f'life {life}', [lives, life], every=1)
        programs.refuse(total, 'system', 'the wide life', [lives, programs.WIDE], ways=OF_WIDE)
    else:
        programs.refuse(total, 'system', 'life 0', [lives, programs.LAYERS], turns=1)
    return f'{total}; {threads}; {start}'


programs.main(2, prove)
