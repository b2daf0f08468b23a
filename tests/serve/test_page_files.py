"""The page's files: whole, in the house's colors, and without a word to other servers."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import resources
from pathlib import Path

from starlette.testclient import TestClient

from lucidate.report.theme import DARK, LIGHT, WEB_FONTS

STATIC = Path(str(resources.files("lucidate.serve"))) / "page" / "static"


def test_the_page_is_whole_and_asks_nobody_else(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    page = answer.text
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    assert named >= {"/static/page.js", "/static/page.css"}
    for path in named:
        assert path.startswith("/")
        assert client.get(path).status_code == 200
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert (STATIC / imported).is_file()
    assert "style=" not in page  # the policy forbids it
    assert "onclick" not in page


def test_the_page_has_the_houses_colors_and_fonts() -> None:
    css = (STATIC / "page.css").read_text(encoding="utf-8")
    light, dark = css.split("@media (prefers-color-scheme: dark)")[:2]
    for text, palette in ((light, LIGHT), (dark.split("\n}")[0], DARK)):
        declared = dict(re.findall(r"--([a-z_0-9]+): (#[0-9a-f]{6})", text))
        assert len(declared) > 10
        house = {each.name: getattr(palette, each.name) for each in fields(palette)}
        assert {name: color for name, color in declared.items() if house.get(name, color) != color} == {
            name: color for name, color in declared.items() if name not in house and name != "warn"
        }
    assert WEB_FONTS in css
