#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes doxygen's comments of the plain ones in melu.h, melu.hpp and melu/mpi.h, so that the headers stay free of markup: what is
above a declaration or behind it describes it, indented lines are equations or programs, `names` are code, names of ours
are links, "Errors:" begins a paragraph and "Since:" tells the version. What melu.hpp says nothing about, because it only
calls a function of melu.h, gets a link to that function. Doxygen calls it as its INPUT_FILTER.
Usage: doxygen_filter.py HEADER"""
import pathlib
import re
import sys

import header

COMMENT = re.compile(r'/\*.*?\*/', re.S)
PATH = sys.argv[1]
IS_CPP = PATH.endswith('.hpp')
# How the file's own comment begins a page, and the group that its first declarations are in.
PAGES = {'melu.h': ('@mainpage\n', '@file\nThe C interface.', 'version'), 'mpi.h': ('@file\n', '', 'MPI')}


def names_of_ours():
    include = pathlib.Path(__file__).resolve().parent.parent / 'include'
    code = ''.join(COMMENT.sub('', (include / name).read_text(encoding='utf-8')) for name in ('melu.h', 'melu/mpi.h'))
    return set(re.findall(r'\b(?:melu|MELU)_\w+', code))


NAMES = names_of_ours()

# ------------------------------------------------------------------------------------------------- comments


def link(found):
    return f'@ref {found[0]} "{found[0]}"' if found[0] in NAMES else found[0]


def prose(text):
    """Characters that mean something to doxygen are escaped, names of ours become links."""
    text = re.sub(r'[\\@<>#%"&$]|::', lambda found: '\\' + found[0], text)
    text = re.sub(r'`([^`]*)`', r'<code>\1</code>', text)
    text = re.sub(r'\b(?:melu|MELU)_\w+\b', link, text)
    text = re.sub(r'(?:^|(?<=\s))(Errors(?:, [^:]*)?):', r'\n@par \1\n', text)
    text = re.sub(r'Since:\s+(\S+)', r'\n@since \1', text)
    return header.RULE.sub(lambda found: f'- <b>{found[1]}.</b> ', text)


def markup(lines):
    """Lines that are indented by four or more are code, unless they go on with a rule."""
    out, in_code, in_rule = [], False, False
    for line in lines:
        in_rule = bool(header.RULE.match(line)) or (in_rule and line.startswith('    '))
        is_code = line.startswith('    ') and not in_rule
        if is_code != in_code:
            out.append('@code{.unparsed}' if is_code else '@endcode')
            in_code = is_code
        out.append(line if is_code else prose(line))
    return '\n'.join(out + ['@endcode'] * in_code)


def convert(found):
    comment, text = found[0], found.string
    before = text[text.rfind('\n', 0, found.start()) + 1:found.start()]
    lines = header.text_of(comment)
    ruler = header.RULER.match(comment)
    if ruler:  # a group of functions; melu.hpp has a namespace and classes instead
        return '' if IS_CPP else f'/**@}}*/ /** @addtogroup {ruler[1].replace(" ", "_")} {ruler[1]} */ /**@{{*/'
    if found.start() == 0:
        if IS_CPP:
            return f'/** @file\n{markup(lines[2:])} */'
        page, more, group = PAGES[pathlib.Path(PATH).name]
        more = f' /** {more} */' if more else ''
        return f'/** {page}{markup(lines[2:])} */{more} /** @addtogroup {group} {group} */ /**@{{*/'
    return ('/**< ' if before.strip() else '/** ') + markup(lines) + ' */'


# ------------------------------------------------------------------------------- what goes without saying


def with_obvious(lines):
    """In melu.h: the size of an options struct, and a macro right below another one."""
    for i, line in enumerate(lines):
        if line == '  size_t size;':
            line += ' /* sizeof the struct */'
        above = re.match(r'#define (MELU_\w+)', lines[i - 1])
        if above and line.startswith('#define'):
            yield f'/* See {above[1]}. */'
        yield line


def extent(lines, at):
    """Where the declaration that begins in line `at` ends: a class with the line that opens it, else with its body."""
    if re.match(r'(class|struct) .*\{$', lines[at]):
        return at + 1
    depth, end = 0, at
    while True:
        depth += sum(map(lines[end].count, '([{')) - sum(map(lines[end].count, ')]}'))
        end += 1
        if depth == 0 and lines[end - 1].endswith((';', '}')):
            return end


def says_itself(code):
    """What a declaration of melu.hpp without a comment is, if that is clear from its text; else nothing."""
    base = re.search(r'detail::(?:handle|sized)<(melu_\w+)', code.split('\n')[0])
    if base:
        return [f'/* A {base[1]} in C++. */']
    called = sorted(set(re.findall(r'\b(melu_\w+)\(', code)) & NAMES)
    return [f'/* Calls {" and ".join(called)}. */'] if called else []


def with_calls(lines):
    """In melu.hpp: what a class is made of, and what a function calls, above those that have no comment."""
    at, is_public = 0, True
    while at < len(lines):
        line, end = lines[at], at + 1
        if re.match(r' \w+:$|\};', line):
            is_public = line in (' public:', '};')
        elif re.match(r'(?:  )?(?!namespace|inline namespace|using handle)[a-z]', line):
            end = extent(lines, at)
            if is_public and not lines[at - 1].endswith('*/'):
                yield from says_itself('\n'.join(lines[at:end]))
        yield from lines[at:end]
        at = end


def main():
    with open(PATH, encoding='utf-8') as file:
        lines = file.read().split('\n')
    text = COMMENT.sub(convert, '\n'.join((with_calls if IS_CPP else with_obvious)(lines)))
    print(text + ('' if IS_CPP else '/**@}*/'))


main()
