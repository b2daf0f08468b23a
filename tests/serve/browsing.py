"""A page in headless Chromium that remembers what went wrong and what was asked for."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tab:
    """Open at a server's address."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self) -> Tab:
        self.page.goto(self.url)
        self.page.wait_for_selector('#lead:has-text("It tells apart")')
        return self

    def check(self, *expected: int) -> None:
        """No fault but refusals of these statuses, no request to anybody else, nothing beside the screen."""
        told = [f"responded with a status of {status}" for status in expected]
        assert [fault for fault in self.faults if not any(text in fault for text in told)] == []
        assert [url for url in self.requests if not url.startswith((self.url, f"blob:{self.url}"))] == []
        assert self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0

    def drop(self, content: bytes, name: str = "photo.png", kind: str = "image/png") -> None:
        self.page.dispatch_event("#stage", "drop", {"dataTransfer": self.transfer(content, name, kind)})

    def transfer(self, content: bytes, name: str, kind: str) -> Any:
        make = """([content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type }));
            return data;
        }"""
        return self.page.evaluate_handle(make, [base64.b64encode(content).decode(), name, kind])

    def shows(self, text: str) -> None:
        """Wait until the headline says so."""
        self.page.wait_for_selector(f'#verdict:text-is("{text}")')

    @property
    def bars(self) -> list[tuple[str, str]]:
        labels = self.page.locator("#bars .label").all_text_contents()
        return list(zip(labels, self.page.locator("#bars .share").all_text_contents(), strict=True))
