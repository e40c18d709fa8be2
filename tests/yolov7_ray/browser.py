"""A real headless Chromium, for tests of pages."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def chromium() -> Iterator:
    """Playwright's browser; skips the test where there is none."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium: install it, e.g. `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


def check_everywhere(browser, path: Path, ready: str, name: str) -> None:
    """The page at ``path`` works in light and dark, at 1280 and 400 px: no error, no request, nothing sticks out.

    ``ready`` selects what must be there; screenshots go to the directory in YOLOV7_SCREENSHOT.
    """
    for width, scheme in ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page, errors, asked = context.new_page(), [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.on("request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None)
        page.goto(path.as_uri())
        page.locator(ready).first.wait_for()
        assert asked == [path.as_uri()] and not errors, "it asks for nothing"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")
        if folder := os.environ.get("YOLOV7_SCREENSHOT"):
            page.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)
        context.close()
