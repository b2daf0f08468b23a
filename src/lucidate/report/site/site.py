"""The folder of a site: figures with their data, sprites, pictures and tables, and one copy of plotly.js."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import plotly.offline
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lucidate.core.atomic import atomic_path
from lucidate.core.errors import PredictionsError
from lucidate.core.progress import Reporter, Silent
from lucidate.core.records import slug
from lucidate.report import theme
from lucidate.report.figures import frame
from lucidate.report.figures.entry import FigureEntry, Info
from lucidate.report.site.pages import Card, Table
from lucidate.report.sprites import Sprite

COLORS = 192  # of a chart's palette
PHOTO_COLORS = 128  # fitted by k-means they miss the true ones less than 192 of a median cut, in fewer bytes
EVERY = 12  # pixels each way: one of 144 is enough to fit a palette to photographs, and takes a tenth of the time
APART = 8  # levels between these and the fitted ones
INKS = ("surface", "ink", "muted", "wrong")  # colors of a grid's lines and letters, which few pixels carry


def check_pixels(pixels: NDArray[np.uint8], index: NDArray[np.int64]) -> None:
    """Refuse pixels that cannot be the images of these rows. Raises PredictionsError."""
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or len(pixels) <= index.max(initial=-1):
        raise PredictionsError(
            f"pixels: expected uint8 images of shape (N, H, W, 3), N above {index.max(initial=-1)}, "
            f"received {pixels.dtype} of shape {pixels.shape}"
        )


@contextmanager
def new_site(folder: Path, *, style: str = "") -> Iterator[Path]:
    """A site with what all pages share and no page: written aside, swapped in where the block raises nothing.

    style: a style sheet of its own, by its name in assets/.
    """
    with atomic_path(folder) as site:
        for part in ("docs", "plots", "assets/data", "assets/sprites", "assets/csv"):
            (site / part).mkdir(parents=True)
        assets = resources.files("lucidate.report.site") / "assets"
        common = theme.css_variables() + (assets / "gallery.css").read_text(encoding="utf-8")
        (site / "assets/gallery.css").write_text(common, encoding="utf-8", newline="\n")
        (site / "assets/gallery.js").write_bytes((assets / "gallery.js").read_bytes())
        (site / "assets/plotly.min.js").write_text(plotly.offline.get_plotlyjs(), encoding="utf-8", newline="\n")
        (site / ".nojekyll").touch()  # GitHub Pages would otherwise run its own generator over the folder
        if style:
            add_style(site, style)
        yield site


def write_figures(
    site: Path,
    asked: Sequence[tuple[FigureEntry, Info]],
    pixels: NDArray[np.uint8],
    *,
    dataset: str,
    task: str,
    reporter: Reporter | None = None,
) -> list[Card]:
    """Draw each info by its entry, interactive and static, and return their cards. task: what the reporter is told."""
    reporter, cards = reporter or Silent(), []
    for done, (entry, info) in enumerate(asked):
        reporter.advance(task, done, len(asked), entry.title)
        cards.append(_write_figure(site, entry, info, pixels, name=entry.file.format(dataset=slug(dataset))))
    reporter.advance(task, len(asked), len(asked))
    return cards


def write_tables(site: Path, tables: Sequence[Table]) -> None:
    """Each as a CSV file by its name."""
    for table in tables:
        (site / "assets/csv" / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8", newline="")


def add_style(site: Path, name: str) -> None:
    """Add a style sheet of some of its pages."""
    (site / "assets" / name).write_bytes((resources.files("lucidate.report.site") / "assets" / name).read_bytes())


def _write_figure(site: Path, entry: FigureEntry, info: Info, pixels: NDArray[np.uint8], *, name: str) -> Card:
    """Draw one figure both ways; write its sprite, data and picture."""
    grid = entry.grid(info) if entry.grid else None
    sprite = entry.sprite(info, pixels, url=f"../assets/sprites/{name}-001.webp")
    if sprite:
        (site / sprite.file).write_bytes(sprite.encoded())
    data = page_data(entry.interactive(info, sprite), sprite, title=entry.title)
    (site / "assets/data" / f"{name}.js").write_text(data, encoding="ascii", newline="\n")
    picture, size = png_of(entry.static(info, sprite), photographs=sprite is not None)
    (site / "plots" / f"{name}.png").write_bytes(picture)
    return Card(
        name=name,
        title=entry.title,
        group=entry.group,
        headline=info.headline,
        kind=entry.kind if sprite or entry.kind != "grid" else "chart",  # an empty grid is a sentence
        question=entry.question,
        size=size,
        sprite=sprite,
        note=entry.hint(info),
        left_out=grid.left_out if grid else 0,
    )


def page_data(figure: go.Figure, sprite: Sprite | None, *, title: str) -> str:
    """A page's data as a script, since a page opened from a disk may not fetch files.

    `lucidate.page({title, figure: {data, layout}, dark, sprite})`. dark: light color → dark color. sprite: None, or
    {sprite, columns, tile, gap: [x, y], ids}: the cell n of `sprite` (relative to docs/) has its upper left corner at
    ((n % columns) * (tile + gap[0]), floor(n / columns) * (tile + gap[1])) and shows the image ids[n], or none if null.
    """
    content = {"title": title, "figure": figure.to_plotly_json(), "dark": theme.dark_of_light()}
    content["sprite"] = sprite.address() if sprite else None
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("</", "<\\/")  # as it must be if the script is ever put inline
    return f"lucidate.page({safe});\n"


def png_of(figure: Figure, *, photographs: bool = False) -> tuple[bytes, tuple[int, int]]:
    """The figure as a palette PNG, twice the size it is shown at, and that file's (width, height) in pixels.

    Written through Pillow: a tenth of the bytes of Matplotlib's own true-color files, and no date or version inside.
    """
    figure.set_dpi(frame.PNG_DPI)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A class name in a script that no installed font has is drawn as boxes; the page beside it has the letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels[..., :3])
    buffer = BytesIO()
    if photographs:
        small = image.quantize(palette=_palette(pixels[..., :3]), dither=Image.Dither.NONE)
    else:
        small = image.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    # What is left to gain above zlib's level 6 is 1 % of photographs, in thrice the time.
    small.save(buffer, "PNG", compress_level=6 if photographs else 9)
    return buffer.getvalue(), image.size


def _palette(pixels: NDArray[np.uint8]) -> Image.Image:
    """A palette for a grid of photographs; pixels: (H, W, 3)."""
    sample = pixels[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY].reshape(-1, 3)
    inks = np.array([[round(255 * part) for part in to_rgb(getattr(theme.LIGHT, ink))] for ink in INKS], dtype=np.uint8)
    fitted = Image.fromarray(sample[None]).quantize(PHOTO_COLORS, method=Image.Quantize.MEDIANCUT, kmeans=1)
    colors = np.array(fitted.getpalette(), dtype=np.uint8).reshape(-1, 3)
    # Pillow finds the nearest color only roughly: one close to the page's white would tint the page.
    far = np.abs(colors[:, None].astype(np.int64) - inks).max(axis=2).min(axis=1) > APART
    colors = np.concatenate([inks, colors[far]])
    holder = Image.new("P", (1, 1))
    holder.putpalette(colors.tobytes())
    return holder
