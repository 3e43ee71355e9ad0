#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof 1: the host's allocator refuses any request, once and from there on until the call returns. The call says
MELU_ENOMEM, leaks nothing, and leaves outputs and objects as they were; made again, with the same objects, it does what
it should, and the program ends as if nothing had been. In whole lives with every kind of model, and in full in the
examples and the test programs.
Usage: 01_allocations.py [--full]"""
import os
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import fault_programs as programs  # noqa: E402

# How the examples are run, and one of how many ways is taken: those that compute long are.
EXAMPLES = [
    ('quickstart', ['--epochs', '1'], 10),
    ('own_loop', ['--steps', '3'], 4),
    ('lecturers', ['--splits', '1'], 40),
    ('explaining', ['--epochs', '1', '--strangers', '5'], 10),
    ('asking', ['--epochs', '1', '--questions', '2'], 400),
]
OF_TOOL = 4
# Of the test programs, one way of so many. The tests of episodes write to new models behind the library's back, which
# then cannot know what they were.
OF_TESTS = 20
TESTS = sorted(path.stem for path in (programs.SOURCE / 'tests').glob('test_*.c') if path.stem != 'test_episodes')


def write_tables(folder):
    """Something for the tool to learn from."""
    def write(name, header, lines):
        (folder / name).write_text('\n'.join([header, *lines, '']))
    write('items.csv', 'item,name,tags', [f'{i},name{i},red|blue' for i in range(20)])
    write('users.csv', 'user,age', [f'{u},{20 + u}' for u in range(12)])
    write('ratings.csv', 'user,item,rating', [f'{u},{(u + 3 * i) % 20},{1 + (u + i) % 5}'
                                              for u in range(12) for i in range(14)])
    write('mine.csv', 'item,rating', ['1,5', '2,1', '7,4'])


def refuse_program(total, name, command, ways):
    """Compares what it prints, if it prints the same every time."""
    printed = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True)
        if done.returncode:
            raise programs.Broken(f'{name}: {done.stderr.decode()}')
        printed.append(done.stdout)
    with tempfile.NamedTemporaryFile() as expected:
        expected.write(printed[0])
        expected.flush()
        programs.refuse(total, 'host', name, command, ways=ways,
                        expected=expected.name if printed[0] == printed[1] else None)


def refuse_tool(total, melu):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tables(folder)
        ratings, mine = folder / 'ratings.csv', folder / 'mine.csv'
        train = ['train', '--items', folder / 'items.csv', '--users', folder / 'users.csv', '--ratings', ratings,
                 '--epochs', '1', '--model']
        on = ['--model', folder / 'model', '--items', folder / 'items.csv']
        subprocess.run([melu, *train, folder / 'model'], stdout=subprocess.DEVNULL, check=True)
        for arguments in ([*train, 'model'], ['evaluate', *on, '--users', folder / 'users.csv', '--ratings', ratings],
                          ['adapt', *on, '--ratings', mine, '--out', 'user'], ['ask', *on, '--ratings', mine],
                          ['recommend', *on, '--ratings', mine, '--explain'], ['inspect', folder / 'model']):
            refuse_program(total, f'melu {arguments[0]}', [melu, *arguments], OF_TOOL)


def refuse_examples(total):
    names = [name for name, *_ in EXAMPLES]
    for (name, arguments, ways), program in zip(EXAMPLES, programs.build(*names)):
        refuse_program(total, name, [program, *arguments], ways)


def refuse_tests(total):
    os.environ['MELU_SOURCE_DIR'] = str(programs.SOURCE)
    os.environ['CK_VERBOSITY'] = 'silent'
    for name, program in zip(TESTS, programs.build(*TESTS)):
        programs.refuse(total, 'host', name, [program], ways=OF_TESTS, may_fail=1)


def prove():
    lives, = programs.build('lives')
    total = programs.Total()
    programs.check_planted('host', lives)
    if not programs.FULL:
        for life in (programs.LAYERS, programs.FACTORS):
            programs.refuse(total, 'host', f'life {life}', [lives, life], turns=1)
        return f'{total}'
    for life in programs.SMALL_LIVES:
        programs.refuse(total, 'host', f'life {life}', [lives, life], every=1)
    for life in (programs.MELU, programs.BEST):
        programs.refuse(total, 'host', f'life {life}', [lives, life], ways=10)
    refuse_examples(total)
    refuse_tool(total, programs.build('melu')[0])
    refuse_tests(total)
    return f'{total}'


programs.main(1, prove)
