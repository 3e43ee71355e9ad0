#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes a file as an array of C. Usage: embed.py FILE OUTPUT NAME"""
import pathlib
import sys

source, output, name = sys.argv[1:]
data = pathlib.Path(source).read_bytes()
rows = (', '.join(map(str, data[i:i + 24])) for i in range(0, len(data), 24))
pathlib.Path(output).write_text(f'static const unsigned char {name}[] = {{\n  ' + ',\n  '.join(rows) + '};\n')
