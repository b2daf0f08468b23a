"""What a page of ours holds, for tests to look at."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path


class Reader(HTMLParser):
    """Addresses, tags and text of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.links += [value for key, value in attributes if key in ("href", "src", "srcset") and value]
        for _, style in (pair for pair in attributes if pair[0] == "style"):
            self.links += re.findall(r"url\(([^)]*)\)", style or "")

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\N{NO-BREAK SPACE}%", " %")

    def count(self, name: str) -> int:
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.tags)
