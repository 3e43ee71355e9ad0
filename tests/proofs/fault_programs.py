# SPDX-License-Identifier: BSD-3-Clause
"""Runs programs whose memory runs out (faults.h), for proofs 1 and 2."""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('MELU_BUILD', SOURCE / 'build-test')).resolve()
FULL = sys.argv[1:] == ['--full']
COUNTERS, WHY, WAYS = '5Q', 2000, 1 << 16  # of struct faults_report

# A life with each kind of model (whole_life.h), by number.
LAYERS, ITEMS, PAIRS, FACTORS, STEPS, CLICKS, WIDE, MELU, BEST = range(9)
SMALL_LIVES = [LAYERS, ITEMS, PAIRS, FACTORS, STEPS, CLICKS]
# What `lives planted K` does wrong, and how it is noticed; 0 does nothing wrong.
PLANTED = ['', 'written', 'left', 'signal', 'EFORMAT', 'the number', 'asks']


class Broken(Exception):
    pass


class Total:
    requests = ways = refused = endured = cut = 0

    def __str__(self):
        return (f'{self.refused:,} processes that went without memory at {self.ways:,} places of {self.requests:,} requests'
                f' ({self.endured:,} calls did without, {self.cut:,} trainings were cut off after an update)')


def build(*programs):
    """The targets, which may be in tests or tests/proofs."""
    if not (BUILD / 'build.ninja').exists():
        subprocess.run(['meson', 'setup', BUILD, SOURCE, '-Dwerror=true', '-Dtests=enabled'], stdout=sys.stderr, check=True)
    targets = [('tests/' if name.startswith('test_') else 'tests/proofs/') + 'faulty_' + name for name in programs]
    if subprocess.run(['ninja', '-C', BUILD, *targets], stdout=sys.stderr).returncode:
        raise Broken(f'{" ".join(programs)} cannot be built')
    return [BUILD / target for target in targets]


def run(level, command, **how):
    """Refuses memory in a program: the counters, and why it is broken. `how`: faults.h's MELU_FAULTS_..."""
    with tempfile.TemporaryDirectory() as folder:
        report, temporary = pathlib.Path(folder) / 'report', pathlib.Path(folder) / 't'
        temporary.mkdir()
        report.write_bytes(bytes(struct.calcsize(COUNTERS) + WHY + 8 * WAYS))
        settings = {f'MELU_FAULTS_{name.upper()}': str(value) for name, value in how.items() if value}
        environment = os.environ | settings | {'TMPDIR': str(temporary), 'MELU_FAULTS': level,
                                               'MELU_FAULTS_REPORT': str(report), 'CK_TIMEOUT_MULTIPLIER': '10000'}
        with open(pathlib.Path(folder) / 'output', 'w+') as output:
            done = subprocess.run([str(word) for word in command], env=environment, cwd=temporary, stdout=output,
                                  stderr=subprocess.STDOUT)
            output.seek(0)
            printed = output.read()
        content = report.read_bytes()
    counters = struct.unpack_from(COUNTERS, content)
    why = content[struct.calcsize(COUNTERS):][:WHY].split(b'\0')[0].decode(errors='replace')
    if done.returncode and not why and not how.get('may_fail'):
        why = f'ended with {done.returncode}: {printed[-500:]}'
    return counters, why


def refuse(total, level, name, command, **how):
    """The same for a program that must stand it."""
    counters, why = run(level, command, **how)
    if why:
        raise Broken(f'{name}: {why}')
    if counters[2] == 0 and not how.get('may_fail'):
        raise Broken(f'{name}: nothing was refused')
    for field, n in zip(('requests', 'ways', 'refused', 'endured', 'cut'), counters):
        setattr(total, field, getattr(total, field) + n)
    print(f'{name}: {counters[2]} of {counters[0]} requests', file=sys.stderr)


def check_planted(level, lives):
    for fault, words in enumerate(PLANTED):
        if level == 'system' and words == 'left':
            words = 'bytes are left'
        _, why = run(level, [lives, 'planted', fault])
        if bool(why) != bool(words) or words not in why:
            raise Broken(f'what is planted as number {fault} is {"taken for: " + why if why else "not noticed"}')


def main(number, prove):
    try:
        print(f'proof {number}: held, {prove()}')
    except Broken as error:
        print(f'proof {number}: broken, {str(error)[:1500]}'.replace('\n', ' '))
        sys.exit(1)
