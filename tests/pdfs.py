"""What a PDF holds."""

from __future__ import annotations

from pathlib import Path

from pypdf import PdfReader


def text_of(pdf: Path) -> str:
    """All words, single spaces between them."""
    text = " ".join(page.extract_text() for page in PdfReader(pdf).pages)
    return " ".join(text.replace("\u200b", "").split())


def pages_of(pdf: Path) -> int:
    return len(PdfReader(pdf).pages)


def images_of(pdf: Path) -> int:
    """How many pictures of pixels there are on all pages."""
    return sum(len(page.images) for page in PdfReader(pdf).pages)
