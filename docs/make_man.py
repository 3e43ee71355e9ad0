#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes the manual page of the library, melu(3), from melu.h: its first comment, its handles, the first thought of what
it says about each function, and its statuses; handles and functions of melu/mpi.h, too. Usage: make_man.py MELU_H MPI_H OUT"""
import re
import sys

import header

BEGIN = r'''.\" SPDX-License-Identifier: BSD-3-Clause
.\" Made of melu.h by docs/make_man.py.
.Dd November 30, 2026
.Dt MELU 3
.Os
.Sh NAME
.Nm melu
.Nd recommend to people of whom almost nothing is known
.Sh SYNOPSIS
.In melu.h
.Pp
.Ic cc Ar program.c Li $(pkg-config --cflags --libs melu)
.Pp
.In melu.hpp
.Pp
.Ic c++ Fl std Ns = Ns c++17 Ar program.cpp Li $(pkg-config --cflags --libs melu)
.Pp
.In melu/mpi.h
.Pp
.Ic mpicc Ar program.c Li $(pkg-config --cflags --libs melu-mpi)
.Sh DESCRIPTION'''
END = r'''.Sh SEE ALSO
.Xr melu 1
.Pp
What each function takes, returns and refuses is told above its declaration in
.In melu.h
or
.In melu/mpi.h .
.Rs
.%A H. Lee
.%A J. Im
.%A S. Jang
.%A H. Cho
.%A S. Chung
.%T MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation
.%J KDD
.%D 2019
.Re'''


def plain(text):
    """Text that is no macro, every sentence on a line of its own."""
    text = re.sub(r'([.:]"?) (?=[A-Z"])', r'\1\n', text.replace('\\', '\\e'))
    return re.sub(r"^(?=[.'])", r'\\&', text, flags=re.M)


def description(lines):
    """Paragraphs, programs and rules of the first comment."""
    in_code = in_rules = after_blank = False
    for line in lines[2:]:
        rule = header.RULE.match(line)
        is_code = line.startswith('    ') and not in_rules
        if in_code and line and not is_code:
            yield '.Ed'
            in_code = False
        if line.startswith('Rules '):
            yield '.Ss ' + line
            continue
        if rule:
            if not in_rules:
                yield '.Bl -tag -width Ds'
            in_rules = True
            yield f'.It {rule[1]}'
            line = line[rule.end():]
        elif is_code and not in_code:
            yield '.Bd -literal -offset indent'
            in_code = True
        elif after_blank and line and not in_rules and not in_code:
            yield '.Pp'
        after_blank = not line and not in_code
        if line:
            yield plain(line[4:] if is_code else line.strip())
    yield '.El'


def listing(heading, entries):
    yield heading
    yield '.Bl -tag -width Ds'
    for name, text in entries:
        yield f'.It {name}'
        yield plain(text)
    yield '.El'


def page(path, mpi_path):
    declared, of_mpi = header.read(path), header.read(mpi_path)
    yield BEGIN
    yield from description(header.opening(path))
    yield from listing('.Ss Objects', [(f'Vt {d.name}', header.summary(d.comment).rstrip('.')) for d in declared + of_mpi
                                       if d.kind == 'handle' and d.comment])
    functions = [d for d in declared if d.kind == 'function']
    yield '.Sh FUNCTIONS'
    for section in dict.fromkeys(d.section for d in functions):
        yield from listing('.Ss ' + section.capitalize(),
                           [(f'Fn {d.name}', header.summary(d.comment)) for d in functions if d.section == section])
    yield from listing('.Ss By MPI, in libmelu_mpi',
                       [(f'Fn {d.name}', header.summary(d.comment)) for d in of_mpi if d.kind == 'function'])
    status = next(d for d in declared if d.name == 'melu_status')
    yield from listing('.Sh ERRORS', [(f'Er {name}', text) for name, text in header.values(status.code)])
    yield END


def main():
    source, of_mpi, out = sys.argv[1:]
    with open(out, 'w', encoding='utf-8') as file:
        file.write('\n'.join(page(source, of_mpi)) + '\n')


main()
