#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof 13: one small error after another is planted in the operators and conditions of lib/, and the test programs must
notice. The source tree is left alone: the changed file is compiled beside it, as the build folder compiles it but with
less optimisation, and linked in front of the library. Which mutants are drawn depends on the seed alone. Tests that
noticed something in the same file before come first; who survives was given to all of them.
Usage: 13_mutants.py [--full] [--seed N] [--mutants N] [--jobs N] [--only TEXT] [--report FILE]"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('MELU_BUILD', SOURCE / 'build-test')).resolve()
SMALL, FULL, MUST = 20, 500, 0.95
EXPLAINED = SOURCE / 'tests' / 'proofs' / 'survivors.txt'

# What is put in place of what. Of an operator that has several meanings in C only the one between two operands counts.
SWAPS = {
    '<': ['<=', '>'], '<=': ['<'], '>': ['>=', '<'], '>=': ['>'], '==': ['!='], '!=': ['=='], '&&': ['||'],
    '||': ['&&'], '+': ['-'], '-': ['+'], '*': ['+'], '/': ['*'], '%': ['+'], '+=': ['-='], '-=': ['+='], '*=': ['+='],
    '<<': ['>>'], '>>': ['<<'], '&': ['|'], '|': ['&'], '?': ['&& 0 ?', '|| 1 ?'],
}
OPERATOR = re.compile(r'(?<=[\w)\]] )(' + '|'.join(re.escape(o) for o in sorted(SWAPS, key=len, reverse=True)) +
                      r')(?= [\w(&*!+-])')
CONDITION = re.compile(r'\b(if|while) \(')
NOT = re.compile(r'!(?=[\w(])')


def blank(text):
    """The text with comments, texts, characters and directives as blanks: offsets stay what they are."""
    def erase(match):
        return re.sub(r'[^\n]', ' ', match.group())
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^[ \t]*#(?:\\\n|[^\n])*', erase, text,
                  flags=re.S | re.M)


def closing(code, at):
    """Where the parenthesis that opens at `at` is closed."""
    depth = 0
    for i in range(at, len(code)):
        depth += {'(': 1, ')': -1}.get(code[i], 0)
        if depth == 0:
            return i
    raise ValueError('a parenthesis stays open')


def is_declaration(code, at):
    """Whether the * or & there belongs to a type: `real * x` is not written in this house, a cast is."""
    return code[at - 1] == '(' or code[at + 1:at + 2] == ')'


def sites_of(path, text):
    code = blank(text)
    for found in OPERATOR.finditer(code):
        if not is_declaration(code, found.start()):
            for other in SWAPS[found.group()]:
                yield path, found.start(), found.group(), other
    for found in NOT.finditer(code):
        yield path, found.start(), '!', ''
    for found in CONDITION.finditer(code):
        first = found.end() - 1
        last = closing(code, first)
        whole = text[first:last + 1]
        yield path, first, whole, f'(!{whole})'


def all_sites():
    sites = []
    for path in sorted((SOURCE / 'lib').rglob('*')):
        if path.suffix in ('.c', '.h', '.inc'):
            sites += sites_of(path.relative_to(SOURCE / 'lib'), path.read_text())
    return sites


class Workshop:
    """What the build folder knows: how objects are compiled, what they include, how programs are linked."""

    def __init__(self):
        self.lib = os.path.relpath(SOURCE / 'lib', BUILD)
        self.compile = {}
        for entry in json.loads((BUILD / 'compile_commands.json').read_text()):
            if entry['output'].startswith('lib/') and 'kernels_v4' not in entry['output']:
                self.compile[entry['output']] = entry['command']
        self.includes = collections.defaultdict(set)
        output = None
        for line in self.ninja('-t', 'deps').splitlines():
            if line and not line.startswith(' '):
                output = line.split(':')[0]
            elif output in self.compile and f'{self.lib}/' in line:
                self.includes[line.strip().split(f'{self.lib}/')[1]].add(output)
        names = json.loads(subprocess.run(['meson', 'introspect', '--targets', BUILD], check=True,
                                          capture_output=True).stdout)
        self.programs = {}
        for target in names:
            name = target['name']
            is_test = re.match(r'test_(?!hpp)|proof_0[78]', name) and target['type'] == 'executable'
            if is_test and target['defined_in'].startswith(str(SOURCE / 'tests')):
                file = os.path.relpath(target['filename'][0], BUILD)
                self.programs[name] = shlex.split(self.ninja('-t', 'commands', '-s', file))

    @staticmethod
    def ninja(*args):
        return subprocess.run(['ninja', '-C', BUILD, '--quiet', *args], check=True, capture_output=True, text=True).stdout

    def objects_of(self, path, double):
        return sorted(o for o in self.includes[str(path)] if ('double' in o) == double)

    def compiled(self, folder, output):
        """Compiles an object from the folder's copy of lib/."""
        args = shlex.split(self.compile[output].replace(f'{self.lib}/', f'{folder}/lib/').replace(
            f'-I{self.lib}', f'-I{folder}/lib'))
        for flag in ('-MQ', '-MF', '-o'):
            at = args.index(flag)
            del args[at:at + 2]
        to = folder / output.replace('/', '_')
        args = ['-O1' if a in ('-O2', '-O3') else a for a in args if a not in ('-MD', '-Werror')] + ['-w', '-o', str(to)]
        done = subprocess.run(args, cwd=BUILD, capture_output=True)
        return to if done.returncode == 0 else None

    def link(self, program, objects, to):
        args = list(self.programs[program])
        args[args.index('-o') + 1] = str(to)
        at = next(i for i, a in enumerate(args) if re.fullmatch(r'.*lib/libmelu(_double)?\.a', a))
        subprocess.run(args[:at] + [str(o) for o in objects] + args[at:], cwd=BUILD, check=True, capture_output=True)


def runs(program, limit, folder):
    """Seconds, or None if it fails."""
    begin = time.monotonic()
    env = {**os.environ, 'MELU_SOURCE_DIR': str(SOURCE), 'CK_VERBOSITY': 'silent', 'CK_TIMEOUT_MULTIPLIER': '50',
           'TMPDIR': str(folder)}
    process = subprocess.Popen([program], env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        status = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
    return time.monotonic() - begin if status == 0 else None


class Trial:
    def __init__(self, workshop):
        self.w = workshop
        self.lock = threading.Lock()
        self.kills = collections.Counter()
        self.seconds = {}

    def measure(self, folder):
        for name in sorted(self.w.programs):
            self.seconds[name] = runs(BUILD / 'tests' / ('proofs' if name.startswith('proof') else '') / name, 600, folder)
            if self.seconds[name] is None:
                raise SystemExit(f'proof 13: broken, {name} fails before anything is changed')

    def order(self, path):
        """Those that are known to notice much of this file, or of its folder, for their time."""
        def worth(name):
            hits = 100 * self.kills[name, path] + 10 * self.kills[name, path.parent] + self.kills[name]
            return (hits + 1 + 50 * (path.stem.split('_')[0] in name)) / (0.2 + self.seconds[name])
        with self.lock:
            return sorted(self.w.programs, key=worth, reverse=True)

    def judge(self, site):
        """The program that noticed, 'survived', or 'nonsense' if it does not compile."""
        path, at, old, new = site
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            subprocess.run(['cp', '-r', SOURCE / 'lib', folder / 'lib'], check=True)
            text = (SOURCE / 'lib' / path).read_text()
            (folder / 'lib' / path).write_text(text[:at] + new + text[at + len(old):])
            objects = {}
            for program in self.order(path):
                double = program.endswith('_double')
                if double not in objects:
                    objects[double] = [self.w.compiled(folder, o) for o in self.w.objects_of(path, double)]
                if None in objects[double]:
                    return 'nonsense'
                if not objects[double]:
                    continue
                self.w.link(program, objects[double], folder / 'program')
                if runs(folder / 'program', 10 + 5 * self.seconds[program], folder) is None:
                    with self.lock:
                        for what in ((program, path), (program, path.parent), program):
                            self.kills[what] += 1
                    return program
        return 'survived'


def describe(site):
    path, at, old, new = site
    text = (SOURCE / 'lib' / path).read_text()
    line = text.count('\n', 0, at) + 1
    whole = text.splitlines()[line - 1].strip()
    return f'{path}:{line}: {old.split(chr(10))[0]} -> {new.split(chr(10))[0]}: {whole}'


def explained():
    """Survivors that are known to change nothing: a line of lib/, what is changed, and why, separated by tabs."""
    lines = [line.split('\t') for line in EXPLAINED.read_text().splitlines() if line and not line.startswith('#')]
    return {(line[0], line[1]): line[2] for line in lines}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--mutants', type=int)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--only', default='')
    parser.add_argument('--report')
    args = parser.parse_args()
    wanted = args.mutants or (FULL if args.full else SMALL)
    sites = [s for s in all_sites() if args.only in str(s[0])]
    random.Random(args.seed).shuffle(sites)
    subprocess.run(['ninja', '-C', BUILD], check=True, stdout=sys.stderr)
    trial = Trial(Workshop())
    ends, survivors = collections.Counter(), []
    report = open(args.report, 'a') if args.report else sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        trial.measure(folder)
    remaining = iter(sites)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        waiting = {}
        while len(ends) == 0 or sum(ends.values()) - ends['nonsense'] < wanted or waiting:
            room = wanted - (sum(ends.values()) - ends['nonsense']) - len(waiting)
            while len(waiting) < args.jobs and room > 0 and (site := next(remaining, None)):
                waiting[pool.submit(trial.judge, site)] = site
                room -= 1
            if not waiting:
                break
            for done in concurrent.futures.wait(waiting, return_when='FIRST_COMPLETED').done:
                site = waiting.pop(done)
                end = done.result()
                ends[end] += 1
                print(f'{end}\t{describe(site)}', file=report, flush=True)
                if end == 'survived':
                    survivors.append(site)
    n = sum(ends.values()) - ends['nonsense']
    known = explained()
    unknown = [s for s in survivors if (f'lib/{s[0]}', describe(s).split(': ', 1)[1]) not in known]
    print(f'{n} of {len(sites)} mutants; survivors without an explanation:' if unknown else f'{n} of {len(sites)} mutants')
    for site in unknown:
        print(f'  lib/{describe(site)}')
    share = 1 - len(survivors) / n
    figures = f'{n - len(survivors)} of {n} mutants noticed ({100 * share:.1f} %), seed {args.seed}, {len(survivors)} survived'
    if share < MUST or unknown:
        print(f'proof 13: broken, {figures}, {len(unknown)} of them unexplained')
        return 1
    print(f'proof 13: held, {figures}, each explained')
    return 0


sys.exit(main())
