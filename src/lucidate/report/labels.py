"""Names from elsewhere as pages and figures print them: harmless, and cut so that what tells them apart stays."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Sequence

LABEL_LIMIT = 22  # characters of a class name on an axis; hover and tables give all of it
LEAST = 4  # characters that names must have in common at their start to be worth leaving out
# Control characters, and those that turn the direction of the text after them: a name must not reorder a page.
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_BORDER = re.compile(r"[\s_\-/.,:;]")


def escape(text: str) -> str:
    """External text for a page, its quotes too; what would be unseen stands as its code point, such as ‹U+202E›."""
    return html.escape(_UNSEEN.sub(lambda found: f"‹U+{ord(found[0]):04X}›", text))


def shorten(text: str, limit: int | None = LABEL_LIMIT) -> str:
    """At most `limit` characters on one line. Lost ones are cut from the middle: names often differ at their ends."""
    line = "".join(character if character.isprintable() else " " for character in text)
    if limit is None or len(line) <= limit:
        return line
    tail = limit // 3
    return f"{line[: limit - 1 - tail].rstrip()}…{line[len(line) - tail :].lstrip()}"


def short_names(names: Sequence[str], limit: int = LABEL_LIMIT) -> list[str]:
    """All of the names in at most `limit` characters each: what all begin with goes first, then what is in the middle.

    Names that are alike thereafter lose what they have in common at their start, so that they differ wherever the rest
    has room.
    """
    lines = telling(names, limit)
    short = [shorten(line, limit) for line in lines]
    alike = defaultdict(list)
    for position, label in enumerate(short):
        alike[label].append(position)
    for positions in alike.values():
        rest = _without_start([lines[position] for position in positions], in_words=True)
        for position, line in zip(positions, rest, strict=True):
            short[position] = shorten(line, limit)
    return short


def telling(names: Sequence[str], limit: int = LABEL_LIMIT) -> list[str]:
    """The names on one line each; where one exceeds `limit` characters, all without what they have in common."""
    lines = [shorten(name, None) for name in names]
    return _without_start(lines) if max(map(len, lines), default=0) > limit else lines


def _without_start(lines: list[str], *, in_words: bool = False) -> list[str]:
    """Lines without their common start, up to the last border of words in it; as they are where that is short.

    in_words: cut within a word where there is no border.
    """
    if len(set(lines)) < 2:
        return lines
    first, last = min(lines), max(lines)  # what these two begin with, all do
    alike = next((position for position, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = first[:alike]
    borders = [found.end() for found in _BORDER.finditer(common)]
    end = borders[-1] if borders else len(common) if in_words else 0
    if end < LEAST or min(map(len, lines)) <= end:
        return lines
    return [f"…{line[end:]}" for line in lines]
