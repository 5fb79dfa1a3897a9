"""Where two texts differ, and whether the figures of a text are those of a report."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest

from distillhub.errors import Fault

MEND = "build the card again"
NAMED = 20
"""Lines that are named one by one."""
COMPARED = 2000
"""Longer differences are not aligned line by line, which takes time of their square."""
FIGURE = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w-])")
"""A number that is no part of a name."""
WORDS = frozenset({"95", "0", "1"})
"""Numbers of the card's own words: 95 % intervals, pixels in [0, 1]."""


def lines(name: str, seen: str, wanted: str, source: str) -> Iterator[Fault]:
    """Lines that differ, with what they say and what they should say."""
    found = list(_different(seen.split("\n"), wanted.split("\n")))
    for number, said, meant in found[:NAMED]:
        yield Fault(_told(said, meant, source), f"{name}: line {number}", MEND)
    if len(found) > NAMED:
        yield Fault(f"{len(found)} lines differ in all", name, MEND)


def unknown_figures(name: str, text: str, report: object) -> Iterator[Fault]:
    """Figures of a card's body that no number of the report gives."""
    known = set(_written(report)) | WORDS
    fenced = False
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    for number, line in enumerate(body.split("\n"), head.count("\n") + 4):
        fenced ^= line.startswith("```")
        plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)
        for figure in FIGURE.findall(plain) if not fenced else ():
            if figure not in known:
                yield Fault(
                    f"says {figure}, not a figure of the report", f"{name}: line {number}", MEND
                )


def short(value: object) -> str:
    """A value as text, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}..."


def _different(seen: list[str], wanted: list[str]) -> Iterator[tuple[int, str | None, str | None]]:
    """Line number, what stands there and what should, after the common head, before the tail."""
    least = min(len(seen), len(wanted))
    head = next((i for i in range(least) if seen[i] != wanted[i]), least)
    tail = next((i for i in range(least - head) if seen[-1 - i] != wanted[-1 - i]), least - head)
    a, b = seen[head : len(seen) - tail], wanted[head : len(wanted) - tail]
    blocks = [("replace", 0, len(a), 0, len(b))]
    if max(len(a), len(b)) <= COMPARED:
        blocks = list(SequenceMatcher(None, a, b, autojunk=False).get_opcodes())
    for kind, a_from, a_to, b_from, b_to in blocks:
        if kind != "equal":
            pairs = zip_longest(a[a_from:a_to], b[b_from:b_to])
            for number, (said, meant) in enumerate(pairs, head + a_from + 1):
                yield number, said, meant


def _told(said: str | None, meant: str | None, source: str) -> str:
    """What a line says and what it should say; the figure alone where only one differs."""
    if said is None:
        return f"missing: {short(meant)}"
    if meant is None:
        return f"not from {source}: {short(said)}"
    a, b = (re.split(r"([\s|\[\],`]+)", text) for text in (said, meant))
    apart = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
    if len(a) == len(b) and len(apart) == 1:
        return f"says {short(apart[0][0])}, {source} gives {short(apart[0][1])}"
    return f"says {short(said)}, {source} gives {short(meant)}"


def _written(value: object) -> Iterator[str]:
    """Every way in which a card may write the numbers of a report."""
    match value:
        case dict():
            for key, part in value.items():
                yield from _written(key)
                yield from _written(part)
        case list():
            for part in value:
                yield from _written(part)
        case str():
            yield from re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", value)
        case bool():
            pass
        case int() | float():
            size = abs(value)
            yield from (str(size), f"{size:,}", f"{size:.1f}", f"{size:.2f}", f"{size:.3f}")
            yield from (f"{size:.4g}", f"{100 * size:.1f}")
