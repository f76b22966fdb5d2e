"""A real Chromium that shows a page and logs its requests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

from tests.support.programs import program

# No window, no profile, no updates, nothing that talks to anybody.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def show_as(browser: webdriver.Chrome, *, scheme: str = "light", media: str = "screen") -> None:
    """Show pages as a system in `light` or `dark`, or as printed with the media `print`."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def lowest_contrast(browser: webdriver.Chrome) -> tuple[float, float, str]:
    """Return the lowest contrast of a text on the page, what WCAG AA needs there, and the text."""
    script = Path(__file__).with_name("contrast.js").read_text()
    ratio, needed, text = browser.execute_script(script)
    return ratio, needed, text


@contextmanager
def chromium(width: int) -> Iterator[webdriver.Chrome]:
    """Yield a browser with pages of `width` CSS pixels, and logs of its network and console."""
    # A helper of Chromium's may outlive it a little and still write there.
    with tempfile.TemporaryDirectory(prefix="rankmill-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        browser = webdriver.Chrome(options, webdriver.ChromeService(program("chromedriver")))
        try:
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get("about:blank")
            browser.get_log("performance")  # what the browser's own first page did
            yield browser
        finally:
            browser.quit()
