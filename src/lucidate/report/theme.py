"""Colours and type of every figure and page, from one source.

Figures are drawn in the light palette. The gallery carries the map from light to dark colours, and its script swaps
them by value wherever a figure names a colour, so a drawing function never asks which theme is on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from lucidate.report.labels import shorten


@dataclass(frozen=True)
class Palette:
    """Named colours, "#rrggbb", no two alike within a palette.

    Right is teal and wrong vermilion: told apart under every common colour blindness, and by lightness in grey.
    """

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
    # Scales run from "none" (almost the page) to "much". Plotly writes white on colors of a brightness below 128 and
    # grey on others, so their upper ends stay below it.
    right_0: str
    right_1: str
    right_2: str
    wrong_0: str
    wrong_1: str
    wrong_2: str
    wrong_3: str


LIGHT = Palette(
    background="#f8f7f4",
    surface="#ffffff",
    raised="#f1f1ed",
    ink="#1c2127",
    muted="#57606b",
    faint="#8b939d",
    line="#e0e1de",
    grid="#ecedeb",
    right="#0e7a88",
    wrong="#d4501c",
    slate="#8494a6",
    sand="#d9a441",
    right_0="#e4f1f2",
    right_1="#7dbac1",
    right_2="#0d7684",
    wrong_0="#fbfaf9",
    wrong_1="#fad8c6",
    wrong_2="#ec8653",
    wrong_3="#b13a0c",
)

DARK = Palette(
    background="#101418",
    surface="#181d22",
    raised="#20262d",
    ink="#e9ebee",
    muted="#a5aeb9",
    faint="#737d89",
    line="#2c333b",
    grid="#272e35",
    right="#45b5c3",
    wrong="#ff8a57",
    slate="#93a4b8",
    sand="#e6b95e",
    right_0="#17343a",
    right_1="#1f5d67",
    right_2="#2f96a3",
    wrong_0="#1d2228",
    wrong_1="#5a2d1b",
    wrong_2="#a84a20",
    wrong_3="#dd5a24",
)

SERIES = (LIGHT.right, LIGHT.sand, LIGHT.slate)  # splits of a data set; three is what there are
WEB_FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif'


def dark_of_light() -> dict[str, str]:
    """Light colour → its dark counterpart, for the gallery's script."""
    return {getattr(LIGHT, field.name): getattr(DARK, field.name) for field in fields(Palette)}


def css_variables() -> str:
    """Both palettes as CSS custom properties: `--right`, `--surface` …, and the font stack."""

    def declare(palette: Palette) -> str:
        return " ".join(f"--{f.name.replace('_', '-')}: {getattr(palette, f.name)};" for f in fields(palette))

    light, dark = f"color-scheme: light; {declare(LIGHT)}", f"color-scheme: dark; {declare(DARK)}"
    return (
        f":root {{ --fonts: {WEB_FONTS}; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme='light']) {{ {dark} }} }}\n"
        f":root[data-theme='dark'] {{ {dark} }}\n"
    )


def plotly_text(text: str, limit: int | None = None) -> str:
    """External text for a Plotly label, which reads a little HTML."""
    return shorten(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def matplotlib_text(text: str, limit: int | None = None) -> str:
    """External text for a Matplotlib label, where a dollar would open a formula."""
    return shorten(text, limit).replace("$", r"\$")
