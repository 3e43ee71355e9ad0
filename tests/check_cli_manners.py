#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""How `melu`, the program, behaves: wrong usage, bad input of every sort, full disks and broken pipes, help, the man
page and completion.
Usage: check_cli_manners.py SOURCE_DIR MELU"""
import os
import pty
import re
import subprocess

from cli_support import CLI, COMMANDS, MELU, melu, refused, rows, run_checks, start, write


def check_usage(w):
    refused(2, 'usage: melu COMMAND')
    refused(2, "no command 'trian'", 'trian')
    refused(2, "no command 'trian'", 'help', 'trian')
    refused(2, r'missing: --items, --ratings, --model\nFor example: melu train --items', 'train')
    refused(2, r'missing: --ratings', 'evaluate', *w.on)
    refused(2, r'missing: --model, --items', 'recommend')
    refused(2, r'missing: MODEL', 'inspect')
    refused(2, r'either --from', 'convert')
    refused(2, r'either --from', 'convert', '--from', 'x', '--model', 'y')
    refused(2, r'missing: --embeddings', 'convert', '--model', w.model, '--out', '-')
    refused(2, 'what for', 'adapt', *w.on)
    refused(2, '--out', 'adapt', *w.on, '--predict', '--ready')
    refused(2, "no option '--colour'", 'ask', '--colour', 'red')
    refused(2, '--items takes a value', 'ask', '--items')
    refused(2, '--json takes no value', 'ask', '--json=1')
    refused(2, "'x' is no option", 'ask', 'x')
    refused(2, '-k takes a whole number', 'recommend', *w.on, '-k', '-1')
    refused(2, '--format takes table, csv, tsv or json', 'recommend', *w.on, '--format', 'xml')
    refused(2, '--rule takes error or gradient', 'ask', *w.on, '--rule', 'any')
    refused(2, '--candidates', 'ask', *w.on, '--candidates')
    refused(2, '--users is one too many', 'adapt', *w.on, '--user', 'a', '--users', 'b', '--predict')
    on = ['evaluate', *w.on, '--ratings', w.folder / 'test.csv']
    refused(2, '--curve takes', *on, '--curve', '1,,2')
    refused(2, '--support takes', *on, '--support', 'some')
    refused(2, '--svg draws', *on, '--curve', '3,1', '--svg', w.folder / 'x.svg')
    for option, value in (('--validation', '1'), ('--lr', '1e999'), ('--inner-lr', '0'), ('--hidden', '0'),
                          ('--rating-min', '3'), ('--preset', 'worst'), ('--field', 'gender=two'),
                          ('--field', 'colour=one'), ('--field', 'gender=one:0'), ('--threads', '0')):
        refused(2, option, *w.train, '--model', w.folder / 'never.melu', option, value)
    assert not (w.folder / 'never.melu').exists()
    assert melu('help') == melu('--help')
    assert re.fullmatch(r'melu \d+\.\d+\.\d+\n', melu('--version'))
    return 'usage: what is wrong is told, and what is missing'


def check_tables(w):
    def bad(words, text, status=3):
        path = w.folder / 'bad.csv'
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(status, words, 'recommend', *w.on, '--ratings', path)

    bad('the file is empty', '')
    bad('no column "rating" among item, stars; --rating-column', 'item,stars\nA1,2\n')
    bad('no column "item"', 'rating\n2\n')
    bad(r'bad.csv:3: there is no item "Z1" in', 'item,rating\nA1,2\nZ1,2\n')
    bad(r'bad.csv:2: 3 cells, but the first line names 2', 'item,rating\nA1,2,3\n')
    bad(r'bad.csv:3: 1 cells', 'item,rating\nA1,2\nA2\n')
    bad(r'bad.csv:2: rating "good" is not a number', 'item,rating\nA1,good\n')
    for word in ('', 'NA', 'nan', 'inf', '0x10', '1e999', ' 1', '1,5'.replace(',', ';')):
        bad(r'bad.csv:2: rating ', f'item,rating\nA1,{word}\n')
    bad('too large', 'item,rating\nA1,1e39\n')
    bad('not closed', 'item,rating\n"A1,2\n')
    bad('not closed', 'item,rating\n"A1""')
    bad('after a closing quotation mark', 'item,rating\n"A1"x,2\n')
    bad('bad.csv:4: there is no item "Z1"', 'item,rating,note\nA1,2,"two\nlines"\nZ1,2,x\n')
    bad(r'bad.csv:2: there is no item "Z\?\[31m\?1"', 'item,rating\n"Z\x1b[31m\n1",2\n')
    bad('a byte of it is 0', b'item,rating\nA1,2\0\n')
    bad('not UTF-8', b'user,item,rating\n\xff,A1,2\n')
    bad('no ratings in it', 'user,item,rating\n')
    bad('the user is missing', 'user,item,rating\n,A1,2\n')
    path = w.folder / 'empty.csv'
    path.write_text('item,rating\n')
    assert rows('recommend', *w.on, '--ratings', path) == rows('recommend', *w.on), 'no ratings are as good as none'
    return 'tables: bad ones are refused with file and line'


def check_bad_files(w):
    """Each input in turn is missing, a folder, or something else."""
    never, nowhere = w.folder / 'never.melu', w.folder / 'nowhere'
    for option in ('--items', '--users', '--ratings'):
        refused(3, 'nowhere', *w.train, '--model', never, option, nowhere)
        refused(1, str(w.folder), *w.train, '--model', never, option, w.folder)
    refused(1, 'nowhere', *w.train, '--model', nowhere / 'x.melu')
    refused(1, 'is a folder', *w.train, '--model', w.folder)
    refused(3, 'nowhere', 'inspect', nowhere)
    refused(3, '', 'inspect', w.items)
    refused(3, 'bfi_items.tsv', 'recommend', '--model', w.items, '--items', w.items)
    model = bytearray(w.model.read_bytes())
    model[-1] ^= 1
    never.write_bytes(model)
    refused(3, 'MELU_ECORRUPT', 'inspect', never)
    never.write_bytes(model[:-5])
    refused(3, '', 'inspect', never)
    few = write(w.folder / 'few.csv', ['user', 'item', 'rating'], [['a', 'A1', 2], ['b', 'A1', 3]])
    two = write(w.folder / 'two.csv', ['user', 'gender'], [['a', 1], ['b', 2]])
    paper = [*w.train, '--preset', 'melu', '--model', nowhere]
    refused(3, 'no user to train on', *paper, '--ratings', few, '--users', two)
    same = write(w.folder / 'same.csv', ['user', 'item', 'rating'], [['1', 'A1', 2], ['1', 'A2', 2]])
    refused(3, 'all ratings are 2', *w.train, '--ratings', same, '--model', nowhere)
    refused(3, 'there is no user "x"', *w.train, '--model', nowhere, '--ratings',
            write(w.folder / 'x.csv', ['user', 'item', 'rating'], [['x', 'A1', 2]]))
    refused(3, 'cannot be a field.*=skip', 'train', '--model', nowhere, '--ratings', few, '--items',
            write(w.folder / 'blank.csv', ['item', 'release date'], [['A1', 'x'], ['A2', 'x'], ['A3', 'y']]))
    refused(3, 'no field "colour" with a table; there are item, trait, gender', 'convert', '--model', w.model,
            '--embeddings', 'colour', '--out', nowhere)
    films = write(w.folder / 'films.csv', ['film', 'genre'], [['f1', 'Drama'], ['f2', 'Crime']])
    refused(3, 'no column "item" among film, genre; --item-column', 'recommend', '--model', w.model, '--items', films)
    refused(3, 'there is no column "', 'recommend', '--model', w.model, '--items', films, '--item-column', 'film')
    assert not nowhere.exists() and not list(w.folder.glob('*.tmp-*'))
    return 'files: missing, folders, altered, of no use'


def check_bad_users(w):
    """Somebody who was written down, cut, altered, or brought to another model or to other items."""
    path, other = w.folder / 'broken.melu', w.folder / 'other.melu'
    melu('adapt', *w.on, '--ratings', w.mine, '--out', path, '--ready')
    melu(*w.train, '--seed', '2', '--model', other)
    user = path.read_bytes()
    for broken in (user[:-1], user[:20], b'', user[:60] + bytes([user[60] ^ 1]) + user[61:], b'x' * 200):
        path.write_bytes(broken)
        refused(3, '', 'recommend', *w.on, '--user', path)
    path.write_bytes(user)
    refused(3, 'MELU_ESCHEMA', 'recommend', '--model', other, '--items', w.items, '--user', path)
    half = w.folder / 'half.tsv'
    lines = w.items.read_text().split('\n')
    half.write_text('\n'.join([lines[0], *lines[10:]]))
    refused(3, 'MELU_ENOTFOUND', 'recommend', '--model', w.model, '--items', half, '--user', path)
    return 'users: cut, altered, of another model'


def on_terminal(*args):
    """What a command that succeeds writes to stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([str(a) for a in (MELU, *args)], stderr=theirs, stdout=subprocess.DEVNULL) as running:
        os.close(theirs)
        shown = b''
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:  # how Linux tells that nobody has the other end any more
            pass
    os.close(ours)
    assert running.returncode == 0, shown
    return shown.decode()


def check_streams(w):
    with open('/dev/full', 'w') as full:
        for args in (['--help'], ['--version'], ['train', '--help'], ['recommend', *w.on], ['inspect', w.model],
                     ['adapt', *w.on, '--predict', '--json'],
                     ['convert', '--model', w.model, '--embeddings', 'item', '--out', '-']):
            errors = start([MELU, *args], 1, stdout=full)[1]
            assert 'No space left' in errors, errors
    refused(1, '/dev/full', 'convert', '--model', w.model, '--embeddings', 'item', '--out', '/dev/full')
    read_end, write_end = os.pipe()
    os.close(read_end)
    # Python itself ignores SIGPIPE, which the program inherits here, so that it hears of it.
    errors = start([MELU, 'recommend', *w.on], 1, stdout=write_end, restore_signals=False)[1]
    os.close(write_end)
    assert 'Broken pipe' in errors, errors
    shown = on_terminal(*w.train, '--model', w.folder / 'tty.melu')
    assert 'epoch 3 of 3' in shown and shown.endswith('\r\x1b[K'), f'progress on a terminal: {shown!r}'
    return 'streams: full disk, broken pipe, progress on a terminal only'


# -------------------------------------------------------------------------------------- help, man page, completion


def options_of(command):
    help_text = melu(command, '--help')
    assert help_text == melu('help', command) and help_text.startswith(f'usage: melu {command} ')
    return set(re.findall(r'^  (--?[a-z][a-z-]*)', help_text, re.M))


def parse_help(command):
    """The options that --help tells of, each with the name of its value, in small letters; and what it is for."""
    options = re.findall(r'^  (--?[a-z][a-z-]*)((?: [A-Z][A-Z,.=:\[\]]*)?) ', melu(command, '--help'), re.M)
    about = re.search(rf'^  {command} +(.*)$', melu('help'), re.M)[1]
    return {name: letters(value) for name, value in options}, about


def letters(text):
    return re.sub('[^a-z]', '', text.lower())


def parse_page(source):
    """What a page describes in lists of options, likewise; all options that it speaks of; and what it is for."""
    described = {}
    for line in re.findall(r'^\.It Fl (.*)$', source, re.M):
        for option in line.split(' , Fl '):
            name, *value = re.sub(r' (Ar|Ns|Op)\b', ' ', option).split()
            described['-' + name] = letters(''.join(value))
    spoken = {'-' + name for name in re.findall(r'\bFl (-?[a-z][a-z-]*)', source)}
    return described, spoken, re.search(r'^\.Nd (.*)$', source, re.M)[1]


def lint(page):
    start(['mandoc', '-T', 'lint', '-W', 'warning', page], 0, stdout=subprocess.PIPE)
    return page.read_text()


def check_manual(w):
    """Each page tells of the options that --help tells of, and of no other, and gives their values the same names."""
    shared, _, _ = parse_page(lint(CLI / 'man' / 'melu.1'))
    for command in COMMANDS:
        options, about = parse_help(command)
        described, spoken, page_about = parse_page(lint(CLI / 'man' / f'melu-{command}.1'))
        assert about == page_about, f'{command}: "{about}" and "{page_about}"'
        for name, value in options.items():
            told = described.get(name, shared.get(name))
            assert told == value, f'{command} {name}: "{value}" by --help, "{told}" on the page'
        missing = set(options) - spoken - {'--help'}
        assert not missing, f'{command}: the page does not speak of {sorted(missing)}'
        assert spoken <= set(options), f'{command}: the page speaks of {sorted(spoken - set(options))}'
    text = start(['mandoc', '-T', 'ascii', CLI / 'man' / 'melu.1'], 0, stdout=subprocess.PIPE)[0].stdout.decode()
    text = re.sub(r'.\x08', '', text)
    for word in ('EXIT STATUS', 'SIGPIPE', *(f'melu-{command}(1)' for command in COMMANDS)):
        assert word in text, word
    return f'manual: {1 + len(COMMANDS)} clean pages, which say what --help says'


def complete(folder, *words):
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _melu; '
              '[ ${#COMPREPLY[@]} -eq 0 ] || printf "%s\\n" "${COMPREPLY[@]}"')
    env = dict(os.environ, PATH=f"{MELU.parent}:{os.environ['PATH']}")
    args = ['bash', '-c', script, 'bash', CLI / 'completion.bash', *words]
    done, _ = start(args, 0, stdout=subprocess.PIPE, cwd=folder, env=env)
    return set(done.stdout.decode().split('\n')[:-1])


def check_completion(w):
    assert complete(w.folder, 'melu', '') == {*COMMANDS, 'help', '--version', '--help'}
    assert complete(w.folder, 'melu', 'ev') == {'evaluate'}
    assert complete(w.folder, 'melu', 'help', 'r') == {'recommend'}
    for command in COMMANDS:
        assert complete(w.folder, 'melu', command, '-') == options_of(command), command
    assert complete(w.folder, 'melu', 'train', '--rating-m') == {'--rating-min', '--rating-max'}
    assert complete(w.folder, 'melu', 'train', '--preset', '') == {'best', 'melu'}
    assert complete(w.folder, 'melu', 'ask', '--format', 't') == {'table', 'tsv'}
    assert complete(w.folder, 'melu', 'ask', '--rule', 'g') == {'gradient'}
    assert complete(w.folder, 'melu', 'ask', '--ratings', 'min') == {'mine.csv'}
    assert complete(w.folder, 'melu', 'inspect', 'bf') == {'bfi.melu'}
    return 'completion: commands, options, values, files'


run_checks(check_usage, check_tables, check_bad_files, check_bad_users, check_streams, check_manual, check_completion)
