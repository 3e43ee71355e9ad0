#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Draws the diagrams of the book. Usage: pictures.py FOLDER"""
import pathlib
import sys

BLUE, ORANGE, GREY = '#0b5fa5', '#d55e00', '#8a8a8a'


class Picture:
    def __init__(self, width, height):
        self.parts = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
                      f"viewBox='0 0 {width} {height}' font-family='Helvetica, Arial, sans-serif' font-size='14' "
                      "fill='#222222'>", f"<rect width='{width}' height='{height}' fill='#ffffff'/>"]

    def text(self, x, y, text, anchor='middle', colour='#222222', size=14):
        text = text.replace('&', '&amp;').replace('<', '&lt;')
        self.parts.append(f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='{colour}' font-size='{size}'>{text}</text>")

    def box(self, x, y, width, height, colour, *lines):
        """A box with lines of text in its middle."""
        self.parts.append(f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='6' fill='{colour}' "
                          f"fill-opacity='0.12' stroke='{colour}' stroke-width='1.5'/>")
        first = y + height / 2 + 5 - 9 * (len(lines) - 1)
        for i, line in enumerate(lines):
            self.text(x + width / 2, first + 18 * i, line)

    def arrow(self, *points, colour='#444444'):
        """Along points, with a head at the last one."""
        path = ' '.join(f'{x},{y}' for x, y in points)
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = 7 * (x1 - x0) / length, 7 * (y1 - y0) / length
        head = f'{x1},{y1} {x1 - dx - dy / 2},{y1 - dy + dx / 2} {x1 - dx + dy / 2},{y1 - dy - dx / 2}'
        self.parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}'/>"
                          f"<polygon points='{head}' fill='{colour}'/>")

    def save(self, path):
        path.write_text('\n'.join(self.parts + ['</svg>', '']), encoding='utf-8')


def adapts(path):
    """What the outer loop learns once, and what the inner loop finds for one person."""
    p = Picture(760, 400)
    p.text(20, 28, 'preset melu: MELU_LAYERS', 'start', size=16)
    p.box(20, 50, 150, 44, BLUE, 'the item', '(tables E)')
    p.box(20, 116, 150, 44, BLUE, 'the person', '(tables E)')
    p.box(240, 70, 110, 70, ORANGE, 'W1, b1', 'relu')
    p.box(390, 70, 110, 70, ORANGE, 'W2, b2', 'relu')
    p.box(540, 70, 110, 70, ORANGE, 'W3, b3')
    for y, to in ((72, 95), (138, 115)):
        p.arrow((170, y), (205, y), (205, to), (240, to))
    for x in (350, 500):
        p.arrow((x, 105), (x + 40, 105))
    p.arrow((650, 105), (690, 105))
    p.text(698, 110, 'score', 'start')
    p.text(445, 166, 'five gradient steps on her ratings', colour=ORANGE)
    p.text(20, 222, 'preset best: MELU_FACTORS', 'start', size=16)
    p.box(20, 244, 150, 44, BLUE, 'the item: its name,', 'its attributes')
    p.box(20, 326, 150, 44, BLUE, 'the person, and', 'what she rated')
    p.box(240, 244, 170, 44, BLUE, 'vector, offset')
    p.box(240, 326, 170, 44, BLUE, 'the mean of a prior')
    p.box(480, 285, 170, 44, ORANGE, 'her vector w')
    p.arrow((170, 266), (240, 266))
    p.arrow((170, 348), (240, 348))
    p.arrow((410, 348), (565, 348), (565, 329))
    p.arrow((410, 266), (670, 266), (670, 300), (690, 300))
    p.arrow((650, 314), (690, 314))
    p.text(698, 312, 'score', 'start')
    p.text(565, 382, 'one system of equations, solved', colour=ORANGE)
    p.save(path)


def handles(path):
    """What is made of what, and who borrows whom."""
    p = Picture(760, 430)
    p.box(300, 16, 160, 40, GREY, 'context')
    p.text(380, 76, 'everything borrows the context; free it last', colour=GREY, size=12)
    p.box(20, 100, 140, 40, GREY, 'schema')
    p.box(240, 100, 140, 40, BLUE, 'data set')
    p.box(520, 100, 140, 40, BLUE, 'model')
    p.arrow((160, 112), (240, 112), colour=GREY)
    p.text(200, 104, 'copy', size=12, colour=GREY)
    p.arrow((380, 112), (520, 112), colour=GREY)
    p.text(450, 104, 'copy of its schema', size=12, colour=GREY)
    p.box(240, 190, 140, 40, BLUE, 'batch')
    p.arrow((310, 190), (310, 140))
    for x, name in ((450, 'gradient'), (610, 'optimizer')):
        p.box(x, 190, 130, 40, BLUE, name)
    for x, name in ((290, 'workspace'), (450, 'user'), (610, 'catalogue')):
        p.box(x, 300, 130, 40, ORANGE, name)
    p.arrow((515, 190), (515, 165), (560, 165), (560, 140))
    p.arrow((675, 190), (675, 165), (620, 165), (620, 140))
    for x in (355, 515, 675):
        p.arrow((x, 300), (x, 265), (590, 265), (590, 140))
    p.text(20, 214, 'training,', 'start', BLUE)
    p.text(20, 232, 'by your own loop', 'start', BLUE)
    p.text(20, 316, 'serving:', 'start', ORANGE)
    p.text(20, 334, 'a workspace a thread,', 'start', ORANGE)
    p.text(20, 352, 'a user a person,', 'start', ORANGE)
    p.text(20, 370, 'one catalogue for all', 'start', ORANGE)
    p.arrow((240, 400), (300, 400))
    p.text(310, 405, 'borrows: free it first', 'start')
    p.save(path)


def main():
    folder = pathlib.Path(sys.argv[1])
    adapts(folder / 'adapts.svg')
    handles(folder / 'handles.svg')


main()
