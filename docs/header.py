# SPDX-License-Identifier: BSD-3-Clause
"""Reads melu.h as documentation: which declarations there are, and the comment that describes each. The reference in
HTML, melu.3 and the test that nothing is left out are made of this."""
import re

RULER = re.compile(r'/\* -{20,} (.*) \*/$')
RULE = re.compile(r' {2,3}([A-Z][a-z]+)\. +(?=\S)')  # one of the rules in the first comment, as "  Errors.   A function"
KINDS = (('function', re.compile(r'MELU_API [^;]*?\b(melu_\w+)\(')),
         ('type', re.compile(r'(?:typedef )?(?:struct|enum)\b ?(\w*) \{')),
         ('handle', re.compile(r'typedef struct (\w+) \1;')),
         ('callback', re.compile(r'typedef [^;{]*?\(\*(\w+)\)\(')),
         ('macro', re.compile(r'#define (MELU_\w+)')))


class Declaration:
    def __init__(self, kind, name, section, comment, code):
        self.kind, self.name, self.section, self.comment, self.code = kind, name, section, comment, code


def text_of(comment):
    """The lines of a comment without its frame."""
    body = re.sub(r'^/\*|\*/$', '', comment.strip())
    first, *more = body.split('\n')
    return [first.strip()] + [re.sub(r'^\s*\*( |$)', '', line).rstrip() for line in more]


def chunks(text):
    """The comments, directives and declarations that begin in the first column, and the blank lines between them."""
    lines, at = text.split('\n'), 0
    while at < len(lines):
        begin, depth = at, 0
        if lines[at].startswith('/*'):
            while '*/' not in lines[at]:
                at += 1
        elif lines[at] and not lines[at].startswith(('#', '}', 'extern "C"')):
            while True:
                code = re.sub(r'/\*.*?(\*/|$)|^[^/]*\*/', '', lines[at]).rstrip()
                depth += code.count('{') - code.count('}')
                if depth == 0 and code.endswith(';'):
                    break
                at += 1
        at += 1
        yield '\n'.join(lines[begin:at])


def read(path):
    """The declarations of melu.h, each with the comment that ends right above it, or is on its line."""
    with open(path, encoding='utf-8') as file:
        text = file.read()
    section, comment, found = '', '', []
    for chunk in chunks(text):
        ruler = RULER.match(chunk)
        if ruler:
            section, comment = ruler[1], ''
        elif chunk.startswith('/*'):
            comment = chunk
        else:
            for kind, pattern in KINDS:
                name = pattern.match(chunk)
                if name:
                    behind = re.search(r'/\*.*\*/$', chunk) if '\n' not in chunk else None
                    found.append(Declaration(kind, name[1], section, comment or (behind[0] if behind else ''), chunk))
            comment = ''
    return found


def opening(path):
    """The lines of the first comment of a header, without its SPDX line."""
    with open(path, encoding='utf-8') as file:
        return text_of(file.read().split('*/', 1)[0] + '*/')[2:]


def summary(comment):
    """One sentence of what a comment says: its first thought, without what is in brackets or an equation."""
    text = re.sub(r' \([^)]*\)', '', ' '.join(text_of(comment)).split('     ')[0])
    return re.split(r'[.:;](?: |$)', text)[0].rstrip(' ,') + '.'


def values(code):
    """(name, comment) of the values of an enum."""
    return [(name, ' '.join(text_of(comment))) for name, comment in
            re.findall(r'^  (MELU_\w+) = [^/]*?(/\*.*?\*/)', code, re.M | re.S)]
