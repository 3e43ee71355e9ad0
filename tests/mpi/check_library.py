#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""libmelu knows nothing of MPI; libmelu_mpi exports what its map says (check_reference.py: what melu/mpi.h describes);
melu/mpi.h compiles in every language that melu.h promises.
Usage: check_library.py SOURCE_DIR LIBMELU_SO LIBMELU_MPI_SO LIBMELU_MPI_A PKG_CONFIG_NAME"""
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

SOURCE, CORE, SHARED, STATIC, MPI = sys.argv[1:]


def said(*command, text=None):
    return subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout


def names(*args):
    lines = said('nm', *args).split('\n')
    return {line.split()[-1].split('@')[0] for line in lines if line.split() and ' A ' not in line and line[-1] != ':'}


def needed(library):
    return re.findall(r'\(NEEDED\).*\[(.*)\]', said('readelf', '-d', library))


def check_symbols():
    mapped = set(re.findall(r'^\s*(melu_\w+);', pathlib.Path(SOURCE, 'lib/mpi/melu_mpi.map').read_text(), re.M))
    exported = names('-D', '--defined-only', SHARED)
    assert mapped == exported, f'{mapped}, {exported}'
    assert all(name.startswith('melu_') for name in names('-g', '--defined-only', STATIC))


def check_needs():
    assert not [name for name in needed(CORE) if 'mpi' in name.lower()], f'libmelu needs {needed(CORE)}'
    assert [name for name in needed(SHARED) if 'mpi' in name.lower()], f'libmelu_mpi needs {needed(SHARED)}'
    assert not [name for name in names('-D', '--undefined-only', CORE) if name.startswith('MPI_')]
    assert 'libmelu_mpi.so.' in said('readelf', '-d', SHARED).split('SONAME')[1].split('\n')[0]


def check_header():
    cflags = re.sub(r'-I', '-isystem', said('pkg-config', '--cflags-only-I', MPI))
    flags = ['-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow', '-Werror', '-fsyntax-only',
             f'-I{SOURCE}/include', *shlex.split(cflags), '-DOMPI_SKIP_MPICXX', '-DMPICH_SKIP_MPICXX']
    for compiler in filter(shutil.which, ('gcc', 'clang')):
        for language, standard in (('c', 'c99'), ('c', 'c11'), ('c', 'c17'), ('c++', 'c++98'), ('c++', 'c++17')):
            # MPI's own headers want long long of C++98.
            more = ['-Wno-long-long'] if standard == 'c++98' else []
            said(compiler, f'-std={standard}', *flags, *more, '-x', language, '-', text='#include <melu/mpi.h>\n')


check_symbols()
check_needs()
check_header()
print('libmelu_mpi: symbols, needs and header hold')
