#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds lib/ against the rules of the house: a floor includes only floors below it, blis.h stays in one file, memory
comes from the host's allocator, a guest does not print, end the process or read the environment, and CONTRIBUTING.md
shows every room. Usage: check_layers.py SOURCE_DIR"""
import pathlib
import re
import shutil
import sys
import tempfile

FLOORS = ['base', 'tensor', 'tape', 'data', 'model', 'io', 'meta', 'serve', 'mpi']
# The host's allocator by default; and where BLIS, which aborts without memory, is about to ask for it.
MAY_ALLOCATE = ('lib/base/options.c', 'lib/tensor/blas_blis.c')
MEMORY = r'malloc|calloc|realloc|aligned_alloc|posix_memalign|free|strdup|strndup|getline|getdelim|alloca'
GUEST = (r'v?printf|puts|putchar|perror|abort|exit|_exit|quick_exit|getenv|setenv|putenv|setlocale|uselocale|assert|rand|'
         r'srand|signal|sigaction|raise|system|fesetround|feenableexcept')
FORBIDDEN = re.compile(rf'(?<![.>\w])({GUEST}|{MEMORY})\s*\(|\b(stdout|stderr)\b')


def code_of(text):
    """The text without comments, with all its lines."""
    return re.sub(r'/\*.*?\*/', lambda m: '\n' * m.group().count('\n'), text, flags=re.S)


def complaints_of_include(name, floor, quote, target):
    other = target.split('/')[0]
    if target == 'blis.h' and name != 'lib/tensor/blas_blis.c':
        yield 'only lib/tensor/blas_blis.c includes blis.h'
    if quote == '"' and (other not in FLOORS or '..' in target):
        yield f'"{target}" is not written from lib/'
    elif other in FLOORS and FLOORS.index(other) > FLOORS.index(floor):
        yield f'{floor} includes {other}, which is not below it'


def complaints_of_line(name, floor, line):
    call = FORBIDDEN.search(line)
    if call and not (name in MAY_ALLOCATE and call.group(1) in ('malloc', 'free')):
        yield f'{call.group(1) or call.group(2)} is nothing for a guest'
    include = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
    if include:
        yield from complaints_of_include(name, floor, *include.groups())


def is_built(name, built):
    return f"'{name}'" in built or name.startswith(('tensor/kernels_', 'tensor/blas_'))  # whose names are put together


def rooms(root):
    """What the tour of the house names, by floor."""
    rows = re.findall(r'^\| \d \| `lib/(\w+)/` \|(.*)', (root / 'CONTRIBUTING.md').read_text(), flags=re.M)
    return {floor: re.findall(r'`(\w+)`', row) for floor, row in rows}


def complaints(root):
    shown = rooms(root)
    built = (root / 'lib/meson.build').read_text()
    built += (root / 'lib/mpi/meson.build').read_text().replace('../', '')
    for path in sorted((root / 'lib').rglob('*')):
        if path.suffix not in ('.c', '.h', '.inc'):
            continue
        name, floor = path.relative_to(root).as_posix(), path.parent.name
        text = path.read_text()
        if 'SPDX-License-Identifier: BSD-3-Clause' not in text.split('\n', 1)[0]:
            yield f'{name}: the first line is no SPDX line'
        if floor not in FLOORS:
            yield f'{name}: {floor} is no floor of the house'
            continue
        if path.suffix == '.c' and not is_built(path.relative_to(root / 'lib').as_posix(), built):
            yield f'{name}: lib/meson.build does not name it'
        elif path.suffix == '.c' and path.stem not in shown.get(floor, []) and not path.stem.startswith('kernels_'):
            yield f'{name}: CONTRIBUTING.md has no such room'
        for number, line in enumerate(code_of(text).split('\n'), 1):
            for complaint in complaints_of_line(name, floor, line):
                yield f'{name}:{number}: {complaint}'


PLANTS = [
    ('an include from a higher floor', 'lib/tensor/bag.c', '#include "tape/tape.h"\n'),
    ('a higher floor in angle brackets', 'lib/base/alloc.c', '#include <io/text_file.h>\n'),
    ('a way around the floors', 'lib/base/alloc.c', '#include "../tape/tape.h"\n'),
    ('files that know of serving', 'lib/io/table.c', '#include "serve/user.h"\n'),
    ('blis.h elsewhere', 'lib/tape/tape.c', '#include <blis.h>\n'),
    ('a print', 'lib/base/error.c', 'void f(void) { printf("x"); }\n'),
    ('a print to a stream', 'lib/base/error.c', 'void f(void) { fprintf(stderr, "x"); }\n'),
    ('memory of its own', 'lib/data/dataset.c', 'void *f(void) { return malloc(1); }\n'),
    ('a file without a licence', 'lib/data/new.h', 'int melu__x;\n'),
    ('a forgotten file', 'lib/data/new.c', '/* SPDX-License-Identifier: BSD-3-Clause */\n'),
    ('a new floor', 'lib/cellar/new.c', '/* SPDX-License-Identifier: BSD-3-Clause */\n'),
]


def self_test(root):
    """Each planted offence must be found, and only the planted one."""
    for what, file, text in PLANTS:
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copytree(root / 'lib', copy / 'lib')
            shutil.copy(root / 'CONTRIBUTING.md', copy)
            (copy / file).parent.mkdir(exist_ok=True)
            with open(copy / file, 'a') as f:
                f.write(text)
            if len([c for c in complaints(copy) if c.startswith(file)]) != 1:
                yield f'{what}, planted in {file}, was not noticed'


def main():
    root = pathlib.Path(sys.argv[1])
    found = list(complaints(root)) or list(self_test(root))
    print('\n'.join(found) or f'the floors hold, and {len(PLANTS)} planted offences were found')
    return 1 if found else 0


sys.exit(main())
