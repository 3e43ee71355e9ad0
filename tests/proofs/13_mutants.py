#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof 13: one small error after another is planted in the operators and conditions of lib/, and the test programs must
notice. The source tree is left alone: the changed file is compiled beside it, as the build folder compiles it but with
less optimisation, and linked in front of the library. Which mutants are drawn depends on the seed alone. Tests that
noticed something in the same file before come first, with few random trials; who survives all of them meets them again
with as many as usual. A program that computes much longer than before, or waits forever, has noticed.
Usage: 13_mutants.py [--full] [--seed N] [--mutants N] [--jobs N] [--only TEXT] [--report FILE]
FILE gets a line for each mutant; what stands in it already, as of a run that was cut off, is not tried again."""
import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('MELU_BUILD', SOURCE / 'build-test')).resolve()
SMALL, FULL, MUST = 20, 500, 0.95
DIVISORS = [10, 1]  # of random trials: tests/support.h
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


def wait(process, seconds):
    """The exit status and what was used, or None after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage
        time.sleep(0.01)
    return None


def runs(program, usual, folder, divisor):
    """Seconds of a core, or None if it fails: also if any of its processes takes much longer than all of them usually
    do, in which case the clock is given more, since other programs may be in the way."""
    limit = int(10 + 5 * usual)
    env = {**os.environ, 'MELU_SOURCE_DIR': str(SOURCE), 'CK_VERBOSITY': 'silent', 'CK_TIMEOUT_MULTIPLIER': '500',
           'MELU_TEST_DIVISOR': str(divisor), 'TMPDIR': str(folder)}
    process = subprocess.Popen([program], env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True,
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)))
    try:
        ended = wait(process, 120 + 10 * limit)
    finally:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        process.wait()
    return ended[1].ru_utime + ended[1].ru_stime if ended and ended[0] == 0 else None


class Trial:
    def __init__(self, workshop):
        self.w = workshop
        self.lock = threading.Lock()
        self.kills = collections.Counter()
        self.seconds = {}

    def measure(self, folder):
        for name in sorted(self.w.programs):
            program = BUILD / 'tests' / ('proofs' if name.startswith('proof') else '') / name
            for divisor in DIVISORS:
                self.seconds[name, divisor] = runs(program, 200, folder, divisor)
                if self.seconds[name, divisor] is None:
                    raise SystemExit(f'proof 13: broken, {name} fails before anything is changed')

    def order(self, path):
        """Those that are known to notice much of this file, or of its folder, for their time."""
        def worth(name):
            hits = 100 * self.kills[name, path] + 10 * self.kills[name, path.parent] + self.kills[name]
            return (hits + 1 + 50 * (path.stem.split('_')[0] in name)) / (0.2 + self.seconds[name, DIVISORS[0]])
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
            for divisor, program in itertools.product(DIVISORS, self.order(path)):
                double = program.endswith('_double')
                if double not in objects:
                    objects[double] = [self.w.compiled(folder, o) for o in self.w.objects_of(path, double)]
                if None in objects[double]:
                    return 'nonsense'
                if not objects[double] or (divisor != DIVISORS[0] and not self.has_trials(program)):
                    continue
                self.w.link(program, objects[double], folder / 'program')
                if runs(folder / 'program', self.seconds[program, divisor], folder, divisor) is None:
                    with self.lock:
                        for what in ((program, path), (program, path.parent), program):
                            self.kills[what] += 1
                    return program
        return 'survived'

    def has_trials(self, program):
        """Whether random trials are much of it."""
        return self.seconds[program, DIVISORS[-1]] > 1.1 * self.seconds[program, DIVISORS[0]] + 0.05


def describe(site):
    path, at, old, new = site
    text = (SOURCE / 'lib' / path).read_text()
    line = text.count('\n', 0, at) + 1
    whole = text.splitlines()[line - 1].strip()
    return f'{path}:{line}: {old.split(chr(10))[0]} -> {new.split(chr(10))[0]}: {whole}'


def earlier(report):
    """What became of mutants by an earlier report."""
    lines = pathlib.Path(report).read_text().splitlines() if report and os.path.exists(report) else []
    return {line.split('\t', 1)[1]: line.split('\t', 1)[0] for line in lines}


def explained():
    """Survivors that are known to change nothing: a line of lib/, what is changed, and why, separated by tabs."""
    lines = [line.split('\t') for line in EXPLAINED.read_text().splitlines() if line and not line.startswith('#')]
    return {(line[0], line[1]): line[2] for line in lines}


class Ends:
    """What became of mutants; a report keeps it."""

    def __init__(self, report):
        self.before = earlier(report)
        self.file = open(report, 'a') if report else sys.stderr
        self.count, self.survivors = collections.Counter(), []

    def n(self):
        return sum(self.count.values()) - self.count['nonsense']

    def note(self, site, end):
        self.count[end] += 1
        if end == 'survived':
            self.survivors.append(site)
        if describe(site) not in self.before:
            print(f'{end}\t{describe(site)}', file=self.file, flush=True)


def judge_some(ends, trial, sites, wanted, jobs):
    """The first so many of the sites at which there is something to be judged."""
    waiting = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for site in sites:
            if describe(site) in ends.before:
                ends.note(site, ends.before[describe(site)])
            else:
                waiting[pool.submit(trial.judge, site)] = site
            while waiting and (len(waiting) == jobs or ends.n() + len(waiting) >= wanted):
                for done in concurrent.futures.wait(waiting, return_when='FIRST_COMPLETED').done:
                    ends.note(waiting.pop(done), done.result())
            if ends.n() >= wanted:
                break
        for done, site in waiting.items():
            ends.note(site, done.result())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--mutants', type=int)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--only', default='')
    parser.add_argument('--report')
    args = parser.parse_args()
    sites = [s for s in all_sites() if args.only in str(s[0])]
    random.Random(args.seed).shuffle(sites)
    subprocess.run(['ninja', '-C', BUILD], check=True, stdout=sys.stderr)
    trial, ends = Trial(Workshop()), Ends(args.report)
    with tempfile.TemporaryDirectory() as folder:
        trial.measure(folder)
    judge_some(ends, trial, sites, args.mutants or (FULL if args.full else SMALL), args.jobs)
    n, n_survived, known = ends.n(), len(ends.survivors), explained()
    unknown = [s for s in ends.survivors if (f'lib/{s[0]}', describe(s).split(': ', 1)[1]) not in known]
    print(f'{n} of {len(sites)} mutants; survivors without an explanation:' if unknown else f'{n} of {len(sites)} mutants')
    for site in unknown:
        print(f'  lib/{describe(site)}')
    share = 1 - n_survived / n
    figures = f'{n - n_survived} of {n} mutants noticed ({100 * share:.1f} %), seed {args.seed}, {n_survived} survived'
    if share < MUST or unknown:
        print(f'proof 13: broken, {figures}, {len(unknown)} of them unexplained')
        return 1
    print(f'proof 13: held, {figures}, each explained')
    return 0


sys.exit(main())
