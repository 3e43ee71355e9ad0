#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The reference is complete: each function that libmelu and libmelu_mpi export has a comment of its own in melu.h or
melu/mpi.h, with its errors and since when it is there, and nothing is documented that is not exported; doxygen makes pages
of all headers without a warning, and each function is on one; melu(3) names each, and mandoc has nothing to say.
Usage: check_reference.py SOURCE_DIR DOXYFILE MELU_3"""
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
SOURCE, DOXYFILE, MELU_3 = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, str(SOURCE / 'docs'))
import header  # noqa: E402

HEADERS = ('melu.h', 'melu.hpp', 'melu/mpi.h')
MAPS = {'melu.h': 'melu.map', 'melu/mpi.h': 'mpi/melu_mpi.map'}
WITHOUT_COMMENT = {'MELU_H', 'melu_error'}  # the guard; and the handle's other name, below the struct that has one


def version_of(declared):
    parts = {d.name: d.code.split()[2] for d in declared if d.name.startswith('MELU_VERSION_')}
    return int(parts['MELU_VERSION_MAJOR']), int(parts['MELU_VERSION_MINOR'])


def complaints_of_function(function, text, names, version):
    since = re.search(r'Since: (\d+)\.(\d+)$', text)
    if not since:
        yield 'does not end with "Since: X.Y"'
    elif (int(since[1]), int(since[2])) > version:
        yield f'is there since {since[1]}.{since[2]}, and this is {version[0]}.{version[1]}'
    if function.code.startswith('MELU_API melu_status ') and 'Errors' not in text:
        yield 'can fail, and no errors are named'
    if re.search(r'\bas (above|below)\b|Errors as', text):
        yield 'refers to another comment without its name'
    for name in re.findall(r'\bmelu_[a-z_]+\b', text):
        if name not in names:
            yield f'speaks of {name}, which is not there'


def complaints(path, exported, others=()):
    """Of one header; `others`: declarations that it may speak of, too."""
    declared = header.read(path)
    functions = [d for d in declared if d.kind == 'function']
    names, version = {d.name for d in [*declared, *others]}, version_of([*declared, *others])
    for declaration in declared:
        if not declaration.comment and declaration.name not in WITHOUT_COMMENT and declaration.kind != 'macro':
            yield f'{declaration.name}: has no comment of its own'
    for function in functions:
        text = ' '.join(' '.join(header.text_of(function.comment)).split()) if function.comment else ''
        for complaint in complaints_of_function(function, text, names, version) if text else ():
            yield f'{function.name}: {complaint}'
    documented = [d.name for d in functions]
    for name in sorted(set(exported) - set(documented)):
        yield f'{name}: is exported, and not documented'
    for name in sorted(set(documented) - set(exported)):
        yield f'{name}: is documented, and not exported'
    for name in sorted({name for name in documented if documented.count(name) > 1}):
        yield f'{name}: is documented twice'


def doxygen(folder, *headers):
    """What doxygen says of the headers, and the names that it has made an entry for."""
    tags = folder / 'tags.xml'
    changes = [f'OUTPUT_DIRECTORY = {folder}', f'INPUT = {" ".join(map(str, headers))}', f'GENERATE_TAGFILE = {tags}']
    done = subprocess.run(['doxygen', '-'], input='\n'.join([DOXYFILE.read_text(), *changes]), capture_output=True,
                          text=True, timeout=120)
    said = done.stdout + done.stderr
    assert bool(said.strip()) == (done.returncode != 0), f'doxygen ended with {done.returncode} and said {said!r}'
    return said, set(re.findall(r'<member kind="function">.*?<name>(melu_\w+)</name>', tags.read_text(), re.S))


def all_of(exported):
    return {name for names in exported.values() for name in names}


def check_comments(exported):
    found, core = [], header.read(SOURCE / 'include/melu.h')
    for name, names in exported.items():
        found += complaints(SOURCE / 'include' / name, names, core if name != 'melu.h' else ())
    assert not found, '\n'.join(found)
    return f'{len(all_of(exported))} functions, each with a comment of its own'


def check_doxygen(exported):
    with tempfile.TemporaryDirectory() as folder:
        said, names = doxygen(pathlib.Path(folder), *(SOURCE / 'include' / name for name in HEADERS))
    assert not said, said
    assert all_of(exported) <= names, f'no entry for {sorted(all_of(exported) - names)}'
    return 'doxygen: no warning'


def check_man(exported):
    done = subprocess.run(['mandoc', '-T', 'lint', '-W', 'warning', MELU_3], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    told = re.findall(r'^\.It Fn (\w+)$', MELU_3.read_text(), re.M)
    assert sorted(told) == sorted(all_of(exported)), f'melu(3): {sorted(set(told) ^ all_of(exported))}'
    return 'melu(3): clean, and names each function'


# What may go wrong in melu.h: (pattern, what it becomes, the complaint that must come).
PLANTS = [
    (r'/\* How many tasks the batch has.*\n', '', 'melu_batch_n_tasks: has no comment of its own'),
    (r'(?=MELU_API melu_status melu_fit\()', r'\n', 'melu_fit: has no comment of its own'),
    (r'(?=struct melu_param \{)', r'\n', 'melu_param: has no comment of its own'),
    (r' Since: [\d.]+(?= \*/\nMELU_API melu_status melu_fit\()', '', 'melu_fit: does not end with'),
    (r'Since: [\d.]+(?= \*/\nMELU_API melu_status melu_fit\()', 'Since: 99.0', 'melu_fit: is there since 99.0'),
    (r'(?<=Returns a new, empty schema\.) Errors: [^.]*\.', '', 'melu_schema_new: can fail, and no errors are named'),
    (r'melu_fit(?=\(melu_model)', 'melu_fits', 'melu_fits: is documented, and not exported'),
    (r'melu_fit(?=\(melu_model)', 'melu_fits', 'melu_fit: is exported, and not documented'),
    (r'Errors: as of melu_user_rate', 'Errors: as above', 'melu_user_forget: refers to another comment'),
    (r'as of melu_user_rate', 'as of melu_user_grade', 'melu_user_forget: speaks of melu_user_grade'),
]
MPI_PLANTS = [
    (r' Since: [\d.]+(?= \*/\nMELU_API void melu_mpi_leave\()', '', 'melu_mpi_leave: does not end with'),
    (r'(?=MELU_API melu_status melu_mpi_member\()', r'\n', 'melu_mpi_member: has no comment of its own'),
    (r'melu_mpi_member(?=\(struct)', 'melu_mpi_members', 'melu_mpi_member: is exported, and not documented'),
]
# And what doxygen must notice.
DOXYGEN_PLANTS = [
    ('melu/mpi.h', r'(?<=  double time_limit;) */\* [^/]* \*/', '', 'time_limit'),
    ('melu.h', r'(?<=  size_t n_skip;) */\* .* \*/', '', 'n_skip'),
    ('melu.hpp', r' */\* The first n\. \*/\n', '', 'first'),
]


def plant(name, pattern, replacement, folder):
    text, n = re.subn(pattern, replacement, (SOURCE / 'include' / name).read_text())
    assert n == 1, f'{pattern} is {n} times in {name}, so nothing can be planted'
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def check_plants(exported):
    with tempfile.TemporaryDirectory() as folder:
        core = header.read(SOURCE / 'include/melu.h')
        for name, others, plants in (('melu.h', (), PLANTS), ('melu/mpi.h', core, MPI_PLANTS)):
            for pattern, replacement, complaint in plants:
                found = list(complaints(plant(name, pattern, replacement, pathlib.Path(folder)), exported[name], others))
                assert any(c.startswith(complaint) for c in found), f'planted, and not noticed: {complaint}; but {found}'
        headers = {name: SOURCE / 'include' / name for name in HEADERS}
        for name, pattern, replacement, complaint in DOXYGEN_PLANTS:
            planted = dict(headers, **{name: plant(name, pattern, replacement, pathlib.Path(folder))})
            said, _ = doxygen(pathlib.Path(folder), *planted.values())
            assert re.search(complaint, said), f'planted, and not noticed: {complaint}: {said!r}'
    return f'{len(PLANTS) + len(MPI_PLANTS) + len(DOXYGEN_PLANTS)} planted gaps were found'


def main():
    exported = {name: re.findall(r'^\s*(melu_\w+);', (SOURCE / 'lib' / path).read_text(), re.M) for name, path in MAPS.items()}
    assert all(exported.values())
    for check in (check_comments, check_doxygen, check_man, check_plants):
        print(check(exported))


main()
