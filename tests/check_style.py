#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds the text of the tree against .editorconfig, sources against clang-format and for their SPDX line, and the bundled
data against the notice beside it. Usage: check_style.py SOURCE_DIR [--fix]"""
import pathlib
import re
import subprocess
import sys

C = {'.c', '.h', '.inc', '.cpp', '.hpp'}
SOURCES = C | {'.py', '.sh', '.js', '.lua', '.map', '.in'}
SOURCE_NAMES = {'meson.build', 'meson_options.txt', 'CMakeLists.txt', 'Makefile', '.editorconfig'}
TEXT = SOURCES | {'.md', '.html', '.1', '.3', '.txt', '.bash', '.ini', ''}
# Text of others', and what programs write.
AS_IT_IS = re.compile(r'examples/data/|tests/(fuzz/corpus|golden/[0-9]|oracle/\w+\.txt|abi/[0-9])|.*\.svg|COPYING')
BUILDS = re.compile(r'build.*|\..*cache|\.git|__pycache__|subprojects|bench\.json|compile_commands\.json')


def files(folder):
    for path in sorted(folder.iterdir()):
        if BUILDS.fullmatch(path.name) or path.is_symlink():
            continue
        yield from files(path) if path.is_dir() else [path]


def is_source(path, text):
    return path.suffix in SOURCES or path.name in SOURCE_NAMES or text.startswith('#!')


def complaints_of_text(name, path, text):
    if is_source(path, text) and 'SPDX-License-Identifier: BSD-3-Clause' not in '\n'.join(text.split('\n')[:4]):
        yield f'{name}: no SPDX line'
    if text and not text.endswith('\n'):
        yield f'{name}: no end of line at its end'
    for number, line in enumerate(text.split('\n'), 1):
        if line != line.rstrip() and path.suffix != '.md':
            yield f'{name}:{number}: blanks at the end of the line, or CR'
        if '\t' in line and is_source(path, text) and path.name not in ('Makefile', 'rules'):
            yield f'{name}:{number}: a tab'
        if path.suffix in C and len(line) > 120:
            yield f'{name}:{number}: {len(line)} columns'


def complaints_of_format(paths, fix):
    how = ['-i'] if fix else ['--dry-run', '-Werror']
    done = subprocess.run(['clang-format-14', *how, *paths], capture_output=True, text=True)
    return [line for line in done.stderr.split('\n') if 'error:' in line] or [done.stderr] * bool(done.returncode)


def complaints_of_data(root):
    """Each file of data is in the notice, and each licence that the notice names is there."""
    data = root / 'examples' / 'data'
    notice = (data / 'NOTICE.md').read_text()
    for path in data.iterdir():
        if path.name not in ('NOTICE.md',) and path.name not in notice:
            yield f'{path.relative_to(root)}: not in NOTICE.md'
    if 'GPL' in notice and 'GNU GENERAL PUBLIC LICENSE' not in (data / 'GPL-2.txt').read_text():
        yield 'examples/data: the licence is not there'


def check_itself():
    """What is planted must be found."""
    bad = pathlib.Path('bad.c')
    assert len(list(complaints_of_text('bad.c', bad, 'int\tx; \n' + 'x' * 121))) == 5
    assert not list(complaints_of_text('good.c', bad, '/* SPDX-License-Identifier: BSD-3-Clause */\n'))
    done = subprocess.run(['clang-format-14', '--dry-run', '-Werror', '--assume-filename=bad.c'], input='int  x ;\n',
                          capture_output=True, text=True)
    assert done.returncode, 'clang-format takes anything'


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    check_itself()
    found = list(complaints_of_data(root))
    formatted = []
    for path in files(root):
        name = path.relative_to(root).as_posix()
        if AS_IT_IS.match(name) or path.suffix not in TEXT and not is_source(path, ''):
            continue
        found += complaints_of_text(name, path, path.read_text())
        formatted += [path] * (path.suffix in C)
    found += complaints_of_format(formatted, '--fix' in sys.argv[2:])
    print('\n'.join(found) or f'{len(formatted)} files are formatted, and what else there is is in order')
    return 1 if found else 0


sys.exit(main())
