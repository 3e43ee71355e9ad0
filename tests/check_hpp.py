#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""melu.hpp: every function that the library exports is called in it, it compiles without a warning by every compiler
that is there, and without exceptions a failure cannot be ignored by leaving out the on_error. The example in C++ finds
what the quickstart finds. Usage: check_hpp.py SOURCE_DIR [RECOMMENDER QUICKSTART]"""
import pathlib
import re
import shutil
import subprocess
import sys

SOURCE, *PROGRAMS = sys.argv[1:]
WARNINGS = ('-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wold-style-cast -Wnon-virtual-dtor -Wcast-qual '
            '-Wsign-conversion -Werror').split()
THROWS, THROWS_20, STATUS = ['-std=c++17'], ['-std=c++20'], ['-std=c++17', '-fno-exceptions', '-fno-rtti']
BY_CHOICE = ['-std=c++17', '-DMELU_NO_EXCEPTIONS']
CALL = '''#include <melu.hpp>
void call(melu::model &model, const melu::dataset &data, melu_error &err) {
  melu::fit(model, data%s);
  (void)err;
}
'''


def complaints(compiler, flags, source, code=None):
    """Returns what the compiler has to say against it."""
    command = [compiler, '-fsyntax-only', *WARNINGS, *flags, f'-I{SOURCE}/include', '-xc++', source]
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    return done.stderr if done.returncode else ''


def check_names():
    hpp = pathlib.Path(f'{SOURCE}/include/melu.hpp').read_text()
    hpp = re.sub(r'/\*.*?\*/', '', hpp, flags=re.S)
    exported = re.findall(r'^\s*(melu_\w+);', pathlib.Path(f'{SOURCE}/lib/melu.map').read_text(), re.M)
    missing = [name for name in exported if not re.search(rf'\b{name}\b', hpp)]
    assert exported and not missing, f'not to be reached by melu.hpp: {missing}'
    return f'{len(exported)} functions'


def check_compilers():
    compilers = [c for c in ('g++', 'clang++') if shutil.which(c)]
    assert compilers, 'no C++ compiler'
    for compiler in compilers:
        for flags in THROWS, THROWS_20, STATUS:
            for source in 'tests/test_hpp.cpp', 'tests/test_hpp_calls.cpp':
                found = complaints(compiler, flags, f'{SOURCE}/{source}')
                assert not found, f'{compiler} {flags}: {found}'
        found = complaints(compiler, THROWS, f'{SOURCE}/examples/recommender.cpp')
        assert not found, f'{compiler}: {found}'
        for flags in THROWS, STATUS, BY_CHOICE:
            found = complaints(compiler, flags, '-', CALL % ', {}, err')
            assert not found, f'{compiler} {flags}: {found}'
            found = complaints(compiler, flags, '-', CALL % '')
            assert bool(found) == (flags != THROWS), f'{compiler} {flags}: a call without on_error: {found}'
    return f'{", ".join(compilers)}: C++17, C++20, with and without exceptions'


def check_recommender(recommender, quickstart):
    run = lambda *command: subprocess.run(command, capture_output=True, text=True)  # noqa: E731
    text = run(recommender).stdout
    errors = re.search(r'^  melu best +(.*)$', run(quickstart).stdout, re.M).group(1).split()
    for n, error in (3, errors[2]), (10, errors[4]):
        ours = re.search(rf' {n} answers known: mean absolute error ([0-9.]+)', text).group(1)
        assert abs(float(ours) - float(error)) < 6e-4, f'after {n} answers {ours}, and {error} by the quickstart'
    assert 'the same predictions' in text and 'checksum' in text and text.count('she says') == 5, text
    assert run(recommender, 'one', 'two').returncode == 2
    nowhere = run(recommender, '/nowhere')
    assert nowhere.returncode == 1 and '/nowhere' in nowhere.stderr, nowhere
    return 'the recommender has the figures of the quickstart'


def main():
    print(check_names())
    print(check_compilers())
    if PROGRAMS:
        print(check_recommender(*PROGRAMS))


main()
