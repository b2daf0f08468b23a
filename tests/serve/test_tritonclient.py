"""The stock client of Triton works unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers import Server

TALK = Path(__file__).with_name("triton_talk.py")


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_the_stock_client_is_understood(server: Server, kind: str) -> None:
    command = [sys.executable, str(TALK), urlsplit(server.url).netloc, server.models[0], kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
