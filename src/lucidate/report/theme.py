"""How figures and pages look, from one source: colors, type, and names from elsewhere, cut and made harmless.

Figures are drawn in the light palette. The gallery carries the map from light to dark colors, and its script swaps
them by value wherever a figure names a color, so a drawing function never asks which theme is on.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Palette:
    """Named colors, "#rrggbb", no two alike within a palette."""

    background: str
    surface: str
    raised: str
    ink: str
    muted: str
    faint: str
    line: str
    grid: str
    right: str
    wrong: str
    slate: str
    sand: str
    right_0: str
    right_1: str
    right_2: str
    wrong_0: str
    wrong_1: str
    wrong_2: str
    wrong_3: str


# Each in the light and in the dark palette. Right is teal and wrong vermilion: told apart under every common color
# blindness, and by lightness in gray. Scales run from "none" (almost the page) to "much"; Plotly writes white on colors
# of a brightness below 128 and gray on others, so their upper ends stay below it.
COLORS = {
    "background": ("#f8f7f4", "#101418"),
    "surface": ("#ffffff", "#181d22"),
    "raised": ("#f1f1ed", "#20262d"),
    "ink": ("#1c2127", "#e9ebee"),
    "muted": ("#57606b", "#a5aeb9"),
    "faint": ("#8b939d", "#737d89"),
    "line": ("#e0e1de", "#2c333b"),
    "grid": ("#ecedeb", "#272e35"),
    "right": ("#0e7a88", "#45b5c3"),
    "wrong": ("#d4501c", "#ff8a57"),
    "slate": ("#8494a6", "#93a4b8"),
    "sand": ("#d9a441", "#e6b95e"),
    "right_0": ("#e4f1f2", "#17343a"),
    "right_1": ("#7dbac1", "#1f5d67"),
    "right_2": ("#0d7684", "#2f96a3"),
    "wrong_0": ("#fbfaf9", "#1d2228"),
    "wrong_1": ("#fad8c6", "#5a2d1b"),
    "wrong_2": ("#ec8653", "#a84a20"),
    "wrong_3": ("#b13a0c", "#dd5a24"),
}
LIGHT = Palette(**{name: light for name, (light, _) in COLORS.items()})
DARK = Palette(**{name: dark for name, (_, dark) in COLORS.items()})

SERIES = (LIGHT.right, LIGHT.sand, LIGHT.slate)  # splits of a data set; three is what there are
WEB_FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif'


def dark_of_light() -> dict[str, str]:
    """Light color → its dark counterpart, for the gallery's script."""
    return dict(COLORS.values())


def css_variables() -> str:
    """Both palettes as CSS custom properties: `--right`, `--surface` …, and the font stack."""

    def declare(palette: Palette) -> str:
        return " ".join(f"--{name.replace('_', '-')}: {color};" for name, color in asdict(palette).items())

    light, dark = f"color-scheme: light; {declare(LIGHT)}", f"color-scheme: dark; {declare(DARK)}"
    return (
        f":root {{ --fonts: {WEB_FONTS}; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme='light']) {{ {dark} }} }}\n"
        f":root[data-theme='dark'] {{ {dark} }}\n"
    )


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


def plotly_text(text: str, limit: int | None = None) -> str:
    """External text for a Plotly label, which reads a little HTML."""
    return html.escape(shorten(text, limit), quote=False)


def matplotlib_text(text: str, limit: int | None = None) -> str:
    """External text for a Matplotlib label, where a dollar would open a formula."""
    return shorten(text, limit).replace("$", r"\$")
