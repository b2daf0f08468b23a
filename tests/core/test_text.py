from __future__ import annotations

import pytest

from lucidate.core.text import brief, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat, 猫, कुत्ता, سگ\u200cها, 👩\u200d🔬", "a cat, 猫, कुत्ता, سگ\u200cها, 👩\u200d🔬"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J", r"\x9b2J"),  # the same in one character
        ("a\nb\r\tc\x00\x7f", r"a\nb\r\tc\x00\x7f"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
        ("\u2067a\u2069\u200f\u061c", r"\u2067a\u2069\u200f\u061c"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\udcff", r"\udcff"),
        ("", ""),
    ],
)
def test_nothing_steers_the_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(shown) == shown
    shown.encode()


def test_values_are_cut_before_they_are_written() -> None:
    tuples: object = (1,)
    lists: list[object] = []
    sets: object = frozenset({1})
    for _ in range(100):
        tuples, lists = (tuples, tuples), [lists, lists, {1: lists}]
        sets = frozenset({sets, 2})
    for value in (tuples, lists, sets, "x" * 10**6, b"x" * 10**6, bytearray(10**6), 1 << 10**6, object):
        assert 0 < len(brief(value)) <= 60
    assert brief(["cat", b"dog", 3]) == "['cat', b'dog', 3]"
    assert brief(1 << 10**6) == "a number of 1000001 bits"
