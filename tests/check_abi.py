#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds the sources against what tests/abi says of each version so far: nothing that a program was built with may have
gone or changed, and a program that was built then runs with the library of today. Changes that break programs are planted
and must be found; those that do not must pass. Usage: check_abi.py SOURCE_DIR LIBMELU_SO"""
import os
import pathlib
import re
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).with_name('abi')))
import abi  # noqa: E402


def replaced(text, old, new):
    assert old in text, f'there is no "{old}" to plant a change in'
    return text.replace(old, new, 1)


def harmful(header, symbols):
    """Changes that break programs: what, and what of them abidiff must name."""
    swapped = replaced(replaced(header, 'MELU_ONE = 0,', 'MELU_ONE = 1,'), 'MELU_MANY = 1,', 'MELU_MANY = 0,')
    yield 'an enum in another order', 'MELU_MANY', {'header': swapped}
    yield 'a shorter struct', 'melu_error', {'header': replaced(header, 'char message[232];', 'char message[200];')}
    inserted = replaced(header, '  const uint32_t *exclude;', '  size_t planted;\n  const uint32_t *exclude;')
    yield 'an option in front of others', 'melu_top_options', {'header': inserted}
    retyped = replaced(header, 'int resume;', 'double resume;')
    yield 'an option of another type', 'resume', {'header': retyped}
    # Old programs have anything in bytes that only fill up.
    padded = replaced(header, 'int resume;', 'int resume; int planted;')
    yield 'an option where a struct was filled up', 'planted', {'header': padded}
    yield 'a symbol that is gone', 'melu_version', {'symbols': replaced(symbols, '    melu_version;\n', '')}
    yield 'symbols of another version', 'melu_adapt@@MELU_1.0', {'symbols': replaced(symbols, 'MELU_1.0 {', 'MELU_2.0 {')}
    yield 'another name of the library', 'libmelu.so.2', {'soname': 'libmelu.so.2'}


def harmless(header, symbols):
    """What a later 1.x may do: options, a status and a function more."""
    more = replaced(header, '  size_t n_allow; ', '  size_t n_allow; size_t planted; ')
    more = replaced(more, '  MELU_EPEER = -15 ', '  MELU_EPEER = -15, MELU_EPLANTED = -16 ')
    more = replaced(more, 'MELU_API const char *melu_version(void);', """MELU_API const char *melu_version(void);
__attribute__((weak, visibility("default"))) int melu_planted(void) { return 1; }""")
    return {'header': more, 'symbols': symbols + 'MELU_1.1 { global: melu_planted; } MELU_1.0;\n'}


def complaints_of_version(folder, described):
    found = abi.difference(folder / 'libmelu.abi', described)
    return [f'programs that were built for {folder.name} break:\n{found}'] if found else []


def complaints_of_present(root, folder):
    if not folder.is_dir():
        return [f'{folder} is not there: run tests/abi/update']
    return [f'{folder / name} is not that of the sources; if that is meant: tests/abi/update (docs/abi.md)'
            for name, text in abi.promises(root).items()
            if not (folder / name).exists() or (folder / name).read_text() != text]


def run_old_program(root, folder, library, work):
    """Builds it with what the folder has, nothing of today's, and runs it with the library of today."""
    work.mkdir()
    shutil.copy(folder / 'melu.h.txt', work / 'melu.h')
    symbols = folder / 'melu.map'
    (work / 'stub.c').write_text(''.join(f'void {name}(void) {{}}\n' for name in abi.mapped(symbols.read_text())))
    abi.run('gcc', '-shared', '-fPIC', '-o', work / 'libmelu.so', work / 'stub.c', '-Wl,-soname,libmelu.so.1',
            f'-Wl,--version-script={symbols}')
    abi.run('gcc', '-std=c99', '-Wall', '-Wextra', '-Werror', f'-I{work}', root / 'tests/abi/old_program.c', '-o',
            work / 'old_program', f'-L{work}', '-lmelu')
    environment = os.environ | {'LD_LIBRARY_PATH': str(library.parent), 'LD_BIND_NOW': '1'}
    return abi.run(work / 'old_program', cwd=work, env=environment).strip().split('\n')[-1]


def complaints_of_changes(root, baseline, objects, work):
    """Plants changes, each in a copy, and looks whether they are found."""
    header, symbols = (root / 'include/melu.h').read_text(), (root / 'lib/melu.map').read_text()

    def found_after(folder, header=None, symbols=symbols, **change):
        changed = abi.compile_all(root, folder, header) if header else objects
        folder.mkdir(exist_ok=True)
        return abi.difference(baseline, abi.describe(changed, symbols, folder, **change))

    for number, (what, name, change) in enumerate(harmful(header, symbols)):
        found = found_after(work / str(number), **change)
        print(f'planted {what}: {"found" if name in found else "not found"}')
        if name not in found:
            yield f'{what} was planted, and is not found:\n{found}'
    found = found_after(work / 'harmless', **harmless(header, symbols))
    if found:
        yield f'additions that break nothing are not let pass:\n{found}'


def check(root, library, work):
    symbols = (root / 'lib/melu.map').read_text()
    objects = abi.compile_all(root, work / 'sources')
    described = abi.describe(objects, symbols, work)
    present = root / 'tests' / 'abi' / abi.version(root)
    found = complaints_of_present(root, present)
    folders = sorted(path for path in (root / 'tests' / 'abi').iterdir() if re.fullmatch(r'\d+\.\d+', path.name))
    for folder in folders:
        found += complaints_of_version(folder, described)
        print(run_old_program(root, folder, library, work / f'old_{folder.name}'))
    found += complaints_of_changes(root, described, objects, work)
    return found


def main():
    with tempfile.TemporaryDirectory() as work:
        found = check(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(work))
    print('\n'.join(found) or 'nothing that programs were built with has gone or changed')
    return 1 if found else 0


sys.exit(main())
