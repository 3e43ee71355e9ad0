#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds lib/ without its kernels and lib/mpi against ISO C11: gcc and clang, told to be pedantic, refuse nothing, and a word of GNU C
stands only where the preprocessor has asked for it. Usage: check_portable.py SOURCE_DIR"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

FLAGS = ['-std=c11', '-D_POSIX_C_SOURCE=200809L', '-DMELU_BUILD', '-fsyntax-only', '-Wall', '-Wextra', '-pedantic-errors',
         '-Werror']
COMPILERS = {'gcc': [], 'clang': ['-Wgnu', '-Wcast-align', '-Wmissing-prototypes', '-Wunreachable-code',
                                  '-Wassign-enum', '-Wvla']}
GNU = re.compile(r'\b(__builtin_\w+|__attribute__|__extension__|__typeof__|typeof|__asm__|asm|__int128|__thread)\b')
ASKED = re.compile(r'__GNUC__|MELU__HAVE_V[34]')  # the build defines the latter where it has such kernels


def is_kernel(path):
    return path.suffix == '.inc' or re.fullmatch(r'kernels_\w+\.c', path.name)


def unasked(text):
    """Lines with a word of GNU C that no condition around them asks for: their numbers and the word."""
    conditions = []
    code = re.sub(r'/\*.*?\*/|"(\\.|[^"\n])*"', lambda m: '\n' * m.group().count('\n'), text, flags=re.S)
    for number, line in enumerate(code.split('\n'), 1):
        directive = re.match(r'\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)', line)
        word = GNU.search(line)
        if directive and directive.group(1).startswith('if'):
            conditions.append(directive.group(2))
        elif directive and directive.group(1) == 'endif':
            conditions.pop()
        elif directive:
            conditions[-1] = directive.group(2)
        elif word and not any(ASKED.search(condition) for condition in conditions):
            yield number, word.group()


def complaints_of_text(root, path):
    return [f'{path.relative_to(root)}:{number}: {word}' for number, word in unasked(path.read_text())]


def complaints_of_compiler(root, compiler, path):
    # Headers of others are not ours to judge.
    done = subprocess.run([compiler, *FLAGS, *COMPILERS[compiler], f'-I{root}/include', f'-I{root}/lib', '-isystem',
                           '/usr/include', path], capture_output=True, text=True)
    return [done.stderr.strip()] if done.returncode else []


def check_itself(root):
    """What is planted must be found."""
    assert list(unasked('int f(void) {\n  return __builtin_popcount(3);\n}')) == [(2, '__builtin_popcount')]
    assert list(unasked('#if defined(__GNUC__)\n__attribute__((cold))\n#else\n__extension__\n#endif')) == [(4, '__extension__')]
    planted = pathlib.Path(os.environ.get('TMPDIR', '/tmp')) / f'melu-planted-{os.getpid()}.c'
    planted.write_text('int f(int x);\nint f(int x) {\n  return ({ x; });\n}\n')
    try:
        for compiler in filter(shutil.which, COMPILERS):
            assert complaints_of_compiler(root, compiler, planted), f'{compiler} takes a statement in an expression'
    finally:
        planted.unlink()


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    check_itself(root)
    ours = [path for path in sorted((root / 'lib').glob('*/*'))
            if path.suffix in ('.c', '.h') and not is_kernel(path) and path.parent.name != 'mpi']  # which wants an MPI
    found = [line for path in [*ours, root / 'include/melu.h'] for line in complaints_of_text(root, path)]
    compilers = list(filter(shutil.which, COMPILERS))
    jobs = [(root, compiler, path) for compiler in compilers for path in ours if path.suffix == '.c']
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for complaints in pool.map(lambda job: complaints_of_compiler(*job), jobs):
            found += complaints
    print('\n'.join(found) or f'{len(ours)} files in ISO C11, by {" and ".join(compilers)}')
    return 1 if found else 0


sys.exit(main())
