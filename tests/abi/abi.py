# SPDX-License-Identifier: BSD-3-Clause
"""The ABI of the sources, as abidw describes it. What has public functions is compiled without optimisation and with
debug information, which takes seconds; nothing of it runs. tests/check_abi.py compares it, tests/abi/update records it."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree

WITHOUT_PUBLIC = ('tensor', 'tape', 'mpi')  # nothing that libmelu exports
FLAGS = ['-std=c11', '-D_POSIX_C_SOURCE=200809L', '-DMELU_BUILD', '-O0', '-g', '-w', '-fPIC', '-fvisibility=hidden']
# Neither paths nor line numbers, so that it changes when the ABI does.
ABIDW = ['abidw', '--drop-private-types', '--exported-interfaces-only', '--no-show-locs', '--no-corpus-path',
         '--no-comp-dir-path', '--no-elf-needed', '--type-id-style', 'hash']
# Options and fields know their size; melu_progress is made by the library and read by the host (docs/abi.md).
MAY_GROW = re.compile('melu_.*options|melu_field|melu_progress')


class Failed(Exception):
    pass


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise Failed(f'{" ".join(map(str, command[:2]))} ...:\n{done.stdout}{done.stderr}')
    return done.stdout


def compile_all(root, work, header=None):
    """Returns the objects of the library in the folder `root`, made in the new folder `work`; with another melu.h, if given."""
    include, lib = work / 'include', root / 'lib'
    include.mkdir(parents=True)
    (include / 'melu.h').write_text(header or (root / 'include' / 'melu.h').read_text())

    def compile_one(source):
        output = work / (source.relative_to(lib).as_posix().replace('/', '_') + '.o')
        run('gcc', *FLAGS, f'-ffile-prefix-map={root}/=', f'-I{include}', f'-I{lib}', '-c', source, '-o', output)
        return output

    sources = [path for path in sorted(lib.glob('*/*.c')) if path.parent.name not in WITHOUT_PUBLIC]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def describe(objects, symbols, work, soname='libmelu.so.1'):
    """Returns the path of a description of the library of these objects, made in the folder `work`."""
    shared, script, description = work / 'libmelu.so', work / 'melu.map', work / 'libmelu.abi'
    script.write_text(symbols)
    run('gcc', '-shared', '-o', shared, *objects, f'-Wl,-soname,{soname}', f'-Wl,--version-script={script}')
    run(*ABIDW, '--headers-dir', objects[0].parent / 'include', '--out-file', description, shared)
    return description


def structs(tree):
    return {each.get('name'): each for each in tree.iter('class-decl') if each.get('size-in-bits')}


def cut(old, new, output):
    """Writes the description `new` without what was appended since `old` to structs that may grow: members behind their
    old end. (A suppression of abidiff's 2.2 for appended members hides other changes of the same struct too.)"""
    tree = xml.etree.ElementTree.parse(new)
    before = structs(xml.etree.ElementTree.parse(old))
    for name, struct in structs(tree).items():
        size = int(before[name].get('size-in-bits')) if name in before else 0
        if not MAY_GROW.fullmatch(name) or size == 0 or int(struct.get('size-in-bits')) < size:
            continue
        struct.set('size-in-bits', str(size))
        for member in list(struct):
            if int(member.get('layout-offset-in-bits', 0)) >= size:
                struct.remove(member)
    tree.write(output)


def difference(old, new):
    """What a program that was built against `old` would not find in `new`, in the words of abidiff; '' if nothing."""
    with tempfile.NamedTemporaryFile(suffix='.abi') as shorter:
        cut(old, new, shorter.name)
        done = subprocess.run(['abidiff', '--no-added-syms', old, shorter.name], capture_output=True, text=True)
    return '' if done.returncode == 0 else f'{done.stdout}{done.stderr}' or f'abidiff: {done.returncode}'


def mapped(text):
    """The names in a version script."""
    return re.findall(r'^\s*(melu_\w+);', text, re.M)


def condensed(header):
    """The header without comments, a declaration a line: what compiles like it, and shows by diff what has changed."""
    lines, declaration = [], ''
    for line in re.sub(r'/\*.*?\*/', ' ', header, flags=re.S).split('\n'):
        declaration = f'{declaration} {line.strip()}'.strip()
        alone = declaration.startswith('#') or declaration in ('extern "C" {', '}')
        if declaration and (alone or declaration.endswith(';') and declaration.count('{') == declaration.count('}')):
            lines.append(re.sub(r'\s+', ' ', declaration))
            declaration = ''
    return '\n'.join(['/* SPDX-License-Identifier: BSD-3-Clause */', *lines, ''])


def version(root):
    numbers = re.findall(r'^#define MELU_VERSION_[A-Z]+ (\d+)', (root / 'include/melu.h').read_text(), re.M)
    return '.'.join(numbers[:2])


def promises(root):
    """What a version's folder holds as text, by name: headers and maps. Of libmelu_mpi there is no more, since what abidw would
    say of it depends on the MPI."""
    headers = {'melu.h.txt': 'melu.h', 'mpi.h.txt': 'melu/mpi.h'}
    return {**{name: condensed((root / 'include' / path).read_text()) for name, path in headers.items()},
            **{name: (root / 'lib' / path).read_text() for name, path in (('melu.map', 'melu.map'),
                                                                         ('melu_mpi.map', 'mpi/melu_mpi.map'))}}


def record(root, work):
    """Makes the present version's folder of tests/abi what the sources are; returns it."""
    folder, texts = root / 'tests' / 'abi' / version(root), promises(root)
    description = describe(compile_all(root, work), texts['melu.map'], work)
    folder.mkdir(exist_ok=True)
    shutil.copy(description, folder)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder
