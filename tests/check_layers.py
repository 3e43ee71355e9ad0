#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds lib/ against the rules of the house: a floor includes only floors below it, blis.h stays in one file, and a
guest does not print, end the process or read the environment. Usage: check_layers.py SOURCE_DIR [--self-test]"""
import pathlib
import re
import shutil
import sys
import tempfile

FLOORS = ['base', 'tensor', 'tape', 'data', 'model', 'meta', 'serve', 'io']
TOP = {'serve', 'io'}  # neighbours on one floor: neither includes the other
FORBIDDEN = re.compile(r'\b(printf|puts|putchar|perror|abort|exit|_exit|getenv|setlocale|assert|rand|srand|signal|system)\s*\(')


def without_comments(text):
    return re.sub(r'/\*.*?\*/', lambda m: '\n' * m.group().count('\n'), text, flags=re.S)


def complaints(root):
    for path in sorted((root / 'lib').rglob('*')):
        if path.suffix not in ('.c', '.h', '.inc'):
            continue
        name, floor = path.relative_to(root), path.parent.name
        text = path.read_text()
        if 'SPDX-License-Identifier: BSD-3-Clause' not in text.split('\n', 1)[0]:
            yield f'{name}: the first line is no SPDX line'
        if floor not in FLOORS:
            yield f'{name}: {floor} is no floor of the house'
            continue
        for number, line in enumerate(without_comments(text).split('\n'), 1):
            where = f'{name}:{number}'
            call = FORBIDDEN.search(line)
            if call:
                yield f'{where}: {call.group(1)} is no call for a guest'
            include = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
            if not include:
                continue
            target = include.group(1)
            if target == 'blis.h' and str(name) != 'lib/tensor/gemm.c':
                yield f'{where}: only lib/tensor/gemm.c includes blis.h'
            other = target.split('/')[0]
            if other in FLOORS and (FLOORS.index(other) > FLOORS.index(floor) or {other, floor} == TOP):
                yield f'{where}: {floor} includes {other}, which is not below it'


def self_test(root):
    """Each planted offence must be found."""
    plants = {
        'an upward include': ('lib/tensor/solve.c', '#include "tape/tape.h"\n'),
        'blis.h elsewhere': ('lib/tape/tape.c', '#include <blis.h>\n'),
        'a print': ('lib/base/error.c', 'void f(void) { printf("x"); }\n'),
        'a neighbour': ('lib/io/table.c', '#include "serve/user.h"\n'),
    }
    for what, (file, text) in plants.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copytree(root / 'lib', copy / 'lib')
            with open(copy / file, 'a') as f:
                f.write(text)
            if len(list(complaints(copy))) <= len(list(complaints(root))):
                yield f'{what} in {file} was not noticed'


def main():
    root = pathlib.Path(sys.argv[1])
    found = list(complaints(root)) + list(self_test(root))
    print('\n'.join(found) or 'the floors hold')
    return 1 if found else 0


sys.exit(main())
