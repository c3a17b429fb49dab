#!/usr/bin/env python3
"""Prints kRuns of llm.h, of which its comment says how it is read. Needs the Python package unicodedata2 (16.0)."""

import unicodedata2

WHITE_SPACE = [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]


def kind(code_point):
    category = unicodedata2.category(chr(code_point))[0]
    return " " if code_point in WHITE_SPACE else "!" if category == "N" else "" if category == "L" else None


def spelled(number):  # the last digit of base 57 says that it is the last, those of base 34 before it that more follow
    before, last = divmod(number, 57)
    digits = chr(ord("#") + last)
    while before:
        before, digit = divmod(before, 34)
        digits = chr(ord("]") + digit) + digits
    return digits


kinds = [kind(code_point) for code_point in range(0x110000)] + [None]
table, end, begin = "", 0, 0
for code_point in range(1, len(kinds)):
    if kinds[code_point] != kinds[begin]:
        if kinds[begin] is not None:
            table += kinds[begin] + spelled(begin - end) + spelled(code_point - begin)
            end = code_point
        begin = code_point
while table:
    print(f'    "{table[:114]}"')
    table = table[114:]
