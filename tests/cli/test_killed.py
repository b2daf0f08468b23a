"""Stages that are killed at random moments and called again leave the same bytes. More of it: bench/kill_test.py."""

from __future__ import annotations

import pytest

from bench_scripts import script

pytestmark = pytest.mark.slow


def test_killed_stages_end_in_the_same_bytes_or_start_clean() -> None:
    found = script("kill_test").kill_stages(["train", "gallery", "report", "explain", "pack"], kills=10, seed=1)
    assert sum(each["kills"] for each in found.values()) >= 10
