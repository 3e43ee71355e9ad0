#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The book is true: its chapters, in the order of docs/book/README.md, are followed to the letter in an empty folder,
with an installed copy of the library. What a block of code is, it says itself:

    ```c, cpp, python, awk  whose first line is a comment with a file's name: that file, here; it must be used later on.
                            A name with a slash is a file of this repository, and the block must be in it ("..." skips).
    ```sh                   commands that must succeed
    ```console              commands behind "$ ", and all that they print ("..." skips); numbers with a decimal point may
                            differ by three in their last digit, or half a percent, because sums depend on the CPU
    ```text                 everything else

Also, every picture is what docs/book/pictures.py draws, and every link in README.md, CONTRIBUTING.md and docs/ leads
somewhere. --write puts what was printed into the chapters, for whoever changes them.
Usage: check_book.py SOURCE_DIR BUILD_DIR [--write]"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SOURCE, BUILD = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
BOOK = SOURCE / 'docs' / 'book'
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
NAME = re.compile(r'(?:/\*|//|#) ([\w./-]+\.(?:c|h|inc|cpp|py|awk))\b')
STRICT = {'.c': ['cc', '-std=c11', '-D_POSIX_C_SOURCE=200809L'], '.cpp': ['c++', '-std=c++17']}


def environment(root):
    """That of somebody who installed the library in a folder of his own."""
    subprocess.run(['meson', 'install', '-C', BUILD, '--no-rebuild', '--quiet', '--destdir', root], check=True,
                   stdout=subprocess.DEVNULL)
    libdir = next(root.rglob('melu.pc')).parent.parent
    program = next(path for path in root.rglob('melu') if path.parent.name == 'bin')
    return dict(os.environ, PATH=f'{program.parent}:{os.environ["PATH"]}', PKG_CONFIG_PATH=f'{libdir}/pkgconfig',
                PKG_CONFIG_SYSROOT_DIR=str(root), LD_LIBRARY_PATH=str(libdir), LC_ALL='C', MELU=str(SOURCE),
                CPATH=str(next(root.rglob('melu.h')).parent))


def chapters():
    names = re.findall(r'^\d+\. \[.*?\]\(([\w-]+\.md)\)', (BOOK / 'README.md').read_text(), re.M)
    found = {path.name for path in BOOK.glob('*.md')} - {'README.md'}
    assert set(names) == found, f'README.md lists {names}, and there are {sorted(found)}'
    return [BOOK / name for name in names]


# ------------------------------------------------------------------------------------------------- comparing


def pieces(text):
    """Words and numbers with a decimal point, apart; how text is broken into lines and columns does not matter."""
    return re.findall(r'[-+]?\d*\.\d+(?:e[-+]?\d+)?|[^\s\d.]+|\d+|\.', text)


def same_piece(told, got):
    if told == got:
        return True
    digits = re.fullmatch(r'[-+]?\d*\.(\d+)', told)
    return bool(digits and re.fullmatch(r'[-+]?\d*\.\d+', got) and
                abs(float(told) - float(got)) <= max(3.5 * 10.0 ** -len(digits[1]), 0.005 * abs(float(told))))


def same_text(told, got):
    told, got = pieces(told), pieces(got)
    return len(told) == len(got) and all(map(same_piece, told, got))


def agrees(told, got):
    """Whether lines that were printed are those that are told, where "..." stands for any number of them."""
    if not told:
        return not got
    if told[0] == '...':
        return any(agrees(told[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and same_text(told[0], got[0]) and agrees(told[1:], got[1:])


# --------------------------------------------------------------------------------------------------- following


class Reader:
    """Somebody who does what the book says, in a folder of her own."""

    def __init__(self, folder, env):
        self.folder, self.env, self.unused, self.n_outputs = folder, env, {}, 0

    def run(self, command, *flags):
        done = subprocess.run(['sh', *flags, '-c', command], cwd=self.folder, env=self.env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=300)
        for name in [name for name in self.unused if re.search(rf'(?<![\w.-]){re.escape(name)}\b', command)]:
            del self.unused[name]
        return done.returncode, done.stdout

    def write(self, chapter, name, code):
        (self.folder / name).write_text(code)
        self.unused[name] = chapter
        for included in re.findall(r'#include "([\w.]+)"', code):
            self.unused.pop(included, None)
        compiler = STRICT.get(pathlib.Path(name).suffix)
        if compiler:
            done = subprocess.run([*compiler, '-Wall', '-Wextra', '-Werror', '-fsyntax-only', name], cwd=self.folder,
                                  env=self.env, capture_output=True, text=True)
            assert done.returncode == 0, f'{chapter}: {name}:\n{done.stderr}'

    def follow_console(self, chapter, text):
        """What the block should have been."""
        out = []
        for command, told in re.findall(r'^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)', text, re.M):
            status, got = self.run(command)
            self.n_outputs += 1
            out.append(f'$ {command}\n{told if agrees(told.splitlines(), got.splitlines()) else got}')
            assert status == 0 or 'echo $?' in command, f'{chapter}: {command}\nended with {status}:\n{got}'
        return ''.join(out)

    def follow(self, chapter, kind, text):
        """Does what a block says, and returns what it should have been."""
        named = NAME.match(text)
        if kind == 'sh':
            status, got = self.run(text, '-e')
            assert status == 0, f'{chapter}: {text}ended with {status}:\n{got}'
        elif kind == 'console':
            return self.follow_console(chapter, text)
        elif kind != 'text':
            assert named, f'{chapter}: a block of "{kind}" without a file name:\n{text}'
            if '/' in named[1]:
                assert is_quoted(SOURCE / named[1], text), f'{chapter}: this is not in {named[1]}:\n{text}'
            else:
                self.write(chapter, named[1], text)
        return text


def is_quoted(path, text):
    """Whether the parts of a quotation, behind its first line, are in a file in that order."""
    code, at = path.read_text(), 0
    for part in re.split(r'^ *\.\.\.\n', text.split('\n', 1)[1], flags=re.M):
        at = code.find(part.strip('\n'), at)
        if at < 0:
            return False
    return True


def follow_book(write):
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as folder:
        reader, wrong = Reader(pathlib.Path(folder), environment(pathlib.Path(root))), []
        for chapter in chapters():
            before = chapter.read_text()
            after = BLOCK.sub(lambda m: f'```{m[1]}\n{reader.follow(chapter.name, m[1], m[2])}```', before)
            if write:
                chapter.write_text(after)
            elif after != before:
                wrong.append(difference(chapter.name, before, after))
        assert not reader.unused, f'files that no command uses: {reader.unused}'
        wrong += list(compare_curves(reader.folder, write))
    assert not wrong, '\n'.join(wrong)
    statuses = re.findall(r'^  (MELU_\w+) = -?\d+,? ', (SOURCE / 'include/melu.h').read_text().split('} melu_status;')[0], re.M)
    shown = ''.join(text for kind, text in BLOCK.findall((BOOK / 'errors.md').read_text()) if kind == 'console')
    missing = [name for name in statuses if not re.search(rf'^{name} ', shown, re.M)]
    assert statuses and not missing, f'errors.md does not show {missing}'
    return f'{len(chapters())} chapters were followed, {reader.n_outputs} outputs are as told, all statuses shown'


def compare_curves(folder, write):
    """Pictures of the book that commands in it have drawn."""
    for picture in sorted(folder.glob('*.svg')):
        known = BOOK / picture.name
        if write:
            known.write_text(picture.read_text())
        elif not same_text(known.read_text(), picture.read_text()):
            yield f'{picture.name} is not what is drawn now'


def difference(name, before, after):
    pairs = zip(BLOCK.findall(before), BLOCK.findall(after))
    return '\n'.join(f'{name}: told:\n{told}\nprinted:\n{got}' for (_, told), (_, got) in pairs if told != got)


# --------------------------------------------------------------------------------------------- pictures, links


def check_pictures():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, '-B', BOOK / 'pictures.py', folder], check=True)
        drawn = sorted(pathlib.Path(folder).iterdir())
        for picture in drawn:
            assert picture.read_text() == (BOOK / picture.name).read_text(), f'{picture.name} is not what is drawn'
    return f'{len(drawn)} pictures are what pictures.py draws'


def anchors(path):
    """The anchors of headings, as they are made of their words."""
    headings = re.findall(r'^#+ (.*)$', BLOCK.sub('', path.read_text()), re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


def check_links():
    pages, n = [SOURCE / 'README.md', SOURCE / 'CONTRIBUTING.md', *(SOURCE / 'docs').rglob('*.md')], 0
    for page in pages:
        for target in re.findall(r'\]\(([^)\s]+)\)', BLOCK.sub('', page.read_text())):
            if re.match(r'\w+:', target):
                continue
            path, _, anchor = target.partition('#')
            path = page.parent / path if path else page
            assert path.exists(), f'{page.relative_to(SOURCE)}: {target} is not there'
            assert not anchor or anchor in anchors(path), f'{page.relative_to(SOURCE)}: {target}: no such heading'
            n += 1
    return f'{n} links lead somewhere'


def self_test():
    assert agrees(['a 1.23  b'], ['a 1.25 b']) and not agrees(['a 1.23'], ['a 1.28'])
    assert agrees(['x', '...', 'y'], ['x', '1', '2', 'y']) and not agrees(['x', '...', 'y'], ['x', 'z'])
    assert not agrees(['12 users'], ['13 users']) and not agrees(['1.5'], ['15']) and not agrees([], ['more'])


def main():
    self_test()
    for found in (check_links(), check_pictures(), follow_book(sys.argv[3:] == ['--write'])):
        print(found)


main()
