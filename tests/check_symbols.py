#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds what the libraries export against lib/melu.map and melu.h, what libmelu.so imports against what a guest may call,
and the static library against writable globals. Usage: check_symbols.py SOURCE_DIR LIBMELU_SO LIBMELU_A"""
import re
import subprocess
import sys

# Calls that would print, end the process, or change what belongs to the host. The fortified and stack-protected forms
# of harmless calls (__*_chk, __stack_chk_fail) are the compiler's.
FORBIDDEN = {'printf', 'puts', 'putchar', 'perror', 'abort', 'exit', '_exit', 'quick_exit', '__assert_fail', 'getenv',
             'secure_getenv', 'setenv', 'putenv', 'signal', 'sigaction', 'setlocale', 'uselocale', 'system', 'rand',
             'srand', 'raise', 'fesetround', 'feenableexcept', 'stdout', 'stderr', '__printf_chk', 'vprintf',
             '__vprintf_chk'}
# Calls about files and folders other than those that tests/proofs/calls.c makes fail, so that none goes untried.
UNTRIED = {f'{name}{suffix}' for suffix in ('', '64') for name in (
    'access', 'chmod', 'creat', 'dup', 'fclose', 'fcntl', 'fdatasync', 'fdopen', 'fopen', 'fread', 'freopen', 'fstatat',
    'ftruncate', 'fwrite', 'getline', 'link', 'lseek', 'lstat', 'mkdir', 'mkostemp', 'mkstemp', 'mmap', 'msync',
    'openat', 'opendir', 'preadv', 'pwritev', 'readdir', 'readlink', 'readv', 'realpath', 'renameat',
    'rmdir', 'scandir', 'symlink', 'sync_file_range', 'sync', 'tmpfile', 'truncate', 'unlinkat', 'writev')}


def nm(*args):
    return subprocess.run(['nm', *args], check=True, capture_output=True, text=True).stdout.split('\n')


def names(lines):
    return {line.split()[-1].split('@')[0] for line in lines if line.split() and not line.endswith(':')}


def writable(static):
    """Names of data that is not constant. What the loader relocates and then protects (.data.rel.ro) is constant."""
    for line in nm('-f', 'sysv', static):
        columns = [column.strip() for column in line.split('|')]
        if len(columns) == 7 and re.match(r'\.(data(?!\.rel\.ro)|bss|tdata|tbss)|\*COM\*', columns[6]):
            yield columns[0]


def main():
    root, shared, static = sys.argv[1:]
    found = []
    mapped = set(re.findall(r'^\s*(melu_\w+);', open(f'{root}/lib/melu.map').read(), re.M))
    header = re.sub(r'/\*.*?\*/', '', open(f'{root}/include/melu.h').read(), flags=re.S)
    declared = set(re.findall(r'MELU_API[^;]*?\b(melu_\w+)\(', header))
    exported = names(l for l in nm('-D', '--defined-only', shared) if ' A ' not in l)
    for what, a, b in (('exported, but not in the map', exported, mapped), ('in the map, but not exported', mapped, exported),
                       ('declared, but not in the map', declared, mapped), ('in the map, but not declared', mapped, declared)):
        found += [f'{name}: {what}' for name in sorted(a - b)]
    for name in sorted(names(nm('-g', '--defined-only', static))):
        if not name.startswith(('melu_', 'melu__')):
            found.append(f'{name}: a name of ours in the static library that does not begin with melu')
    for name in sorted(names(nm('-D', '--undefined-only', shared)) & FORBIDDEN):
        found.append(f'{name}: imported, and no call for a guest')
    for name in sorted(names(nm('-D', '--undefined-only', shared)) & UNTRIED):
        found.append(f'{name}: imported, and proof 3 does not make it fail')
    found += [f'{name}: a writable global' for name in writable(static)]
    print('\n'.join(found) or f'{len(exported)} symbols, as mapped and declared')
    return 1 if found else 0


sys.exit(main())
