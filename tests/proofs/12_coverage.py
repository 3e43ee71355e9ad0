#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Proof 12: the tests and the proofs that make things fail run every line of lib/ and go both ways at every branch.
clang counts (its source-based coverage: each operand of a condition is a branch of its own). What is compiled several
times, for each set of kernels or where a header is included, counts once, as run if it ran anywhere. What cannot be run has
its reason in coverage_exclusions.txt; an exclusion that is not needed breaks the proof.
It has one size."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BESIDE = pathlib.Path(os.environ.get('MELU_BUILD', SOURCE / 'build-test')).resolve()
BUILD = BESIDE.with_name(re.sub('-test$', '', BESIDE.name) + '-coverage').resolve()
PROFILES = pathlib.Path(os.environ.get('TMPDIR', '/tmp')) / 'profiles'
LIBRARY = BUILD / 'lib' / 'libmelu.so'
EXCLUSIONS = SOURCE / 'tests' / 'proofs' / 'coverage_exclusions.txt'
# Atomic: counters of threads must not get lost, since llvm-cov subtracts them.
FLAGS = ['-fprofile-instr-generate', '-fcoverage-mapping', '-fprofile-update=atomic']
# Counting is slow: fewer random trials (tests/support.h), which are for errors of arithmetic, and longer ones.
SLOW = {'MELU_TEST_DIVISOR': '5', 'CK_TIMEOUT_MULTIPLIER': '20'}
PROOFS = ['03_io_errors', '07_readers']  # that are programs
SCRIPTS = ['01_allocations']  # that build their own
LARGEST = 2 ** 63  # counts above it are negative ones
CODE = 0  # the kind of region that has statements
NEVER_RUNS = 'never runs'


class Broken(Exception):
    pass


def run(*command, **options):
    environment = os.environ | {'LLVM_PROFILE_FILE': '/dev/null'} | options.pop('env', {})
    try:
        return subprocess.run([str(word) for word in command], env=environment, text=True, **options)
    except FileNotFoundError as error:
        raise Broken(f'there is no {error.filename}') from error


def to_stderr(*command, **options):
    return run(*command, stdout=sys.stderr, **options).returncode


def tool(name):
    """The LLVM tool of clang's own version: no other reads its profiles."""
    version = re.search(r'clang version (\d+)', run('clang', '--version', capture_output=True).stdout).group(1)
    beside = pathlib.Path(f'/usr/lib/llvm-{version}/bin') / name
    return beside if beside.exists() else name


def configure():
    if (BUILD / 'build.ninja').exists():
        to_stderr('ninja', '-C', BUILD, 'build.ninja')
        return
    only_lib = BUILD / 'only_lib.txt'
    BUILD.mkdir(parents=True, exist_ok=True)
    only_lib.write_text('src:*lib/*\n')
    flags = ' '.join(FLAGS + [f'-fprofile-list={only_lib}'])
    if to_stderr('meson', 'setup', BUILD, SOURCE, '-Dtests=enabled', '-Dexamples=false', '-Dwerror=true',
                 '-Doptimization=1', env={'CC': 'clang', 'CXX': 'clang++', 'CFLAGS': flags, 'LDFLAGS': FLAGS[0]}):
        raise Broken('it cannot be configured')


def introspect(what):
    return json.loads(run('meson', 'introspect', what, BUILD, capture_output=True).stdout)


def build():
    """Returns the test programs' tests by name."""
    configure()
    tests = {}
    for test in introspect('--tests'):
        if os.path.basename(test['cmd'][0]).startswith('test_') and not re.match('hpp|.*_double$', test['name']):
            tests[test['name']] = test
    programs = [os.path.relpath(test['cmd'][0], BUILD) for test in tests.values()]
    programs += [f'tests/proofs/proof_{proof}' for proof in PROOFS]
    # Its file has the version in its name.
    libraries = [file for target in introspect('--targets') if target['name'] == 'melu' for file in target['filename']]
    if to_stderr('ninja', '-C', BUILD, *programs, *[os.path.relpath(file, BUILD) for file in libraries]):
        raise Broken('it cannot be built')
    return tests


def profile(name, command, variables):
    """Runs a test. Processes that end at the same time write to different files."""
    environment = dict(variables, **SLOW, LLVM_PROFILE_FILE=f'{PROFILES}/{name}-%4m.profraw')
    ran = run(*command, env=environment, capture_output=True)
    if ran.returncode or 'LLVM Profile' in ran.stderr:
        print(ran.stdout, ran.stderr, file=sys.stderr)
        raise Broken(f'{name} failed')


def profile_all(tests, proofs):
    jobs = [(name, test['cmd'], test['env']) for name, test in tests.items()]
    jobs += [(proof, [SOURCE / 'tests/proofs/run', proof.split('_')[0]], {'MELU_BUILD': str(BUILD)}) for proof in proofs]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(profile, *job) for job in jobs]:
            done.result()


def exported(merged):
    found = run(tool('llvm-cov'), 'export', '-instr-profile', merged, LIBRARY, capture_output=True)
    if found.returncode:
        raise Broken(found.stderr.strip())
    return json.loads(found.stdout)['data'][0]['functions']


class Part:
    """A piece of source that ran or did not: a region of statements, or one way to go at a branch."""

    def __init__(self, line, name):
        self.line, self.name, self.ran = line, name, False


class File:
    def __init__(self, name):
        self.name = name
        self.source = (SOURCE / name).read_text().split('\n')
        self.parts = {}
        self.regions = {}

    def add(self, place, function, what, count):
        first_line, first, last_line, last = place
        line = self.source[first_line - 1]
        text = line[first - 1:last - 1 if first_line == last_line else None] if what != NEVER_RUNS else line
        part = self.parts.setdefault((place, what), Part(first_line, f'{self.name}: {function}: "{text.strip()}" {what}'))
        part.ran = part.ran or 0 < count < LARGEST
        if what == NEVER_RUNS:
            self.regions[place] = part

    def lines(self):
        """For each line with code whether all of it ran. An inner region stands for itself, an outer one for the rest."""
        ran = {}
        for place in sorted(self.regions, key=lambda p: (p[:2], (-p[2], -p[3]))):
            first_line, _, last_line, _ = place
            for line in range(first_line, last_line + 1):
                ran[line] = self.regions[place].ran and (line > first_line or ran.get(line, True))
        return {line: all_of_it for line, all_of_it in ran.items() if is_code(self.source[line - 1])}


def is_code(line):
    return re.search(r'\w', re.sub(r'^\s*(/\*.*?(\*/|$)|\*.*)', '', line)) is not None


def look():
    """What of lib/ ran so far: its files."""
    merged = PROFILES / 'merged'
    if to_stderr(tool('llvm-profdata'), 'merge', '-sparse', '-o', merged, *PROFILES.glob('*.profraw')):
        raise Broken('the profiles cannot be merged')
    files = {}
    for function in exported(merged):
        names = [os.path.relpath(os.path.join(BUILD, name), SOURCE) for name in function['filenames']]
        own = function['name'].split(':')[-1]

        def add(place, what, count, name):
            if name.startswith('lib/'):
                if name not in files:
                    files[name] = File(name)
                files[name].add(tuple(place), own, what, count)

        for *place, count, file, _, kind in function['regions']:
            if kind == CODE:
                add(place, NEVER_RUNS, count, names[file])
        for *place, n_true, n_false, file, _, _ in function['branches']:
            add(place, 'is never true', n_true, names[file])
            add(place, 'is never false', n_false, names[file])
    return files


def exclusions():
    """What may be missing, and whether it may be there nevertheless: that depends on the processor, says its reason."""
    allowed, group = {}, []
    for line in EXCLUSIONS.read_text().splitlines():
        if line.startswith('  '):
            if not group:
                raise Broken(f'a reason for nothing: {line.strip()}')
            allowed.update((name, line.strip().startswith('Processor: ')) for name in group)
            group = []
        elif line and not line.startswith('#'):
            group.append(line)
    if group:
        raise Broken(f'without a reason: {group[0]}')
    return allowed


def judge(files):
    """Says what is missing, and what is excluded without need; returns the last line's figures."""
    allowed = exclusions()
    parts = [part for file in files.values() for part in file.parts.values()]
    missing = [part for part in parts if not part.ran]
    unexcused = [part for part in missing if part.name not in allowed]
    for part in sorted(unexcused, key=lambda part: (part.name.split(':')[0], part.line)):
        print(f'line {part.line} of {part.name}')
    needed = {part.name for part in missing}
    idle = [name for name, may_run in allowed.items() if name not in needed and not may_run]
    idle += sorted(set(allowed) - {part.name for part in parts} - set(idle))
    for name in idle:
        print(f'excluded without need: {name}')
    lines = [ran for file in files.values() for ran in file.lines().values()]
    branches = sum(what != NEVER_RUNS for file in files.values() for _, what in file.parts)
    if unexcused or idle:
        raise Broken(f'{len(unexcused)} parts of lib/ are missing, {len(idle)} exclusions are not needed; '
                     f'{sum(lines)} of {len(lines)} lines ran')
    return f'{len(lines)} lines and {branches} branches of lib/ covered, {len(needed)} exclusions'


def main():
    tests = build()
    PROFILES.mkdir(parents=True, exist_ok=True)
    profile_all({'base': tests.pop('base')}, [])
    if any(part.ran for part in look()['lib/meta/fit.c'].parts.values()):
        raise Broken('a training is seen where there is none')
    profile_all(tests, PROOFS + SCRIPTS)
    return judge(look())


try:
    print(f'proof 12: held, {main()}')
except Broken as why:
    print(f'proof 12: broken, {why}')
    sys.exit(1)
