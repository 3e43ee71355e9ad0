# SPDX-License-Identifier: BSD-3-Clause
"""Runs of examples/cluster: by threads, and by each MPI whose launcher is there."""
import json
import os
import pathlib
import re
import shutil
import subprocess

# More ranks than processors, by root in a container.
OPENMPI = ['--allow-run-as-root', '--oversubscribe', '--bind-to', 'none', '--mca', 'btl_vader_single_copy_mechanism', 'none']


def launchers(examples):
    """By name, what is put in front of the options to run n ranks: [program] of threads, or [launcher ... program]."""
    program = pathlib.Path(examples) / 'cluster'
    with_mpich = program.with_name('cluster_mpich')
    found = {'threads': lambda n: [program, '--ranks', str(n)]}
    needed = subprocess.run(['ldd', program], capture_output=True, text=True, check=True).stdout
    for name, launcher, options, one in (('openmpi', 'mpirun.openmpi', OPENMPI, program),
                                         ('mpich', 'mpirun.mpich', [], with_mpich if with_mpich.exists() else program)):
        is_its = one != program or ('libmpich' in needed) == (name == 'mpich') and 'libmpi' in needed
        if shutil.which(launcher) and is_its:
            found[name] = lambda n, launcher=launcher, options=options, one=one: [launcher, *options, '-n', str(n), one]
    return found


def start(command, *options):
    # Of MPICH, because a launcher of one MPI must not see that it runs under another.
    return subprocess.Popen([str(x) for x in [*command, *options]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, 'OMPI_MCA_rmaps_base_oversubscribe': '1'}, start_new_session=True)


def run(command, *options, status=0):
    process = start(command, *options)
    out, err = process.communicate(timeout=3600)
    assert process.returncode == status, f'{command} {options} ended with {process.returncode}:\n{out}{err}'
    return out


def digest_of(text):
    found = re.findall(r'^digest ([0-9a-f]{32})$', text, re.M)
    assert len(found) == 1, f'not one digest:\n{text}'
    return found[0]


def measured(text):
    return json.loads(re.search(r'^\{.*\}$', text, re.M)[0])
