"""A real browser on the pages: the Chromium of this machine, if it has one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on PATH: apt-get install chromium, or set CHROMIUM to one"
)
SECONDS = 300
"""A wait for what a loaded machine may take long for."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; as root it has no sandbox of its own."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def tab(
    browser: Browser, address: str, *, width: int = 1280, scheme: str = "light", expected: str = r"status of 422"
) -> Iterator[Page]:
    """A tab of its own; at its end it must have met no error of a script, of the policy or of a missing file.

    ``expected``: what the errors match that are none.
    """
    context = browser.new_context(base_url=address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    unexpected = [words for words in wrong if not re.search(expected, words)]
    assert not unexpected, unexpected


def unfold(page: Page) -> None:
    """Show what a page keeps folded."""
    for part in page.query_selector_all("main details:not([open]) > summary"):
        part.click()


def check(page: Page) -> None:
    """No fault of accessibility that axe knows, and no scrolling sideways."""
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, page.url
