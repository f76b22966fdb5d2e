"""The report page in a real Chromium: it asks for nothing, complains of nothing, fits a phone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from rankmill.report import write_report
from tests.support.browser import chromium, lowest_contrast, show_as
from tests.support.scored import EVIL, scored
from worker.finalize import make_manifest

PHONE, DESK = 375, 1200


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folder over HTTP; yield the URL and the list of the paths asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def requested(browser: webdriver.Chrome) -> list[str]:
    """Return every URL that the browser tried to fetch, allowed or not."""
    messages = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_texts_can_be_read_in_light_and_dark_and_on_paper(tmp_path: Path) -> None:
    job = scored(tmp_path)
    reports = list(job.output.reports(job.job_id))
    write_report(job.output, manifest=make_manifest(job, reports))
    with chromium(PHONE) as browser:
        browser.get(Path(job.output.report_uri).as_uri())
        papers = set()
        for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
            show_as(browser, scheme=scheme, media=media)
            ratio, needed, text = lowest_contrast(browser)
            assert text and ratio >= needed, (scheme, media, ratio, text)
            paper = "return getComputedStyle(document.body).backgroundColor"
            papers.add(browser.execute_script(paper))
        assert len(papers) == 2  # paper is white, also in the dark
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
        assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_page_with_awkward_rows_in_a_browser(tmp_path: Path, width: int) -> None:
    job = scored(tmp_path)
    write_report(job.output)
    with served(Path(job.output.report_uri).parent) as (url, asked), chromium(width) as browser:
        browser.get(f"{url}/report.html")
        assert requested(browser) == [f"{url}/report.html"]
        assert asked == ["/report.html"]
        assert browser.get_log("browser") == []
        assert browser.execute_script("return window.innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert EVIL in browser.find_element(By.TAG_NAME, "body").text
        assert browser.find_elements(By.TAG_NAME, "script") == []
        plots = browser.find_elements(By.CSS_SELECTOR, "svg[role=img]")
        assert len(plots) == 4
        for plot in plots:
            assert plot.size["width"] > 250 and plot.size["height"] > 120
            assert plot.accessible_name


def test_the_policy_stops_what_an_escape_that_failed_would_let_in(tmp_path: Path) -> None:
    job = scored(tmp_path)
    write_report(job.output)
    page = Path(job.output.report_uri)
    broken = "<script>document.title='owned'</script><img src='/stolen.png'>"
    page.write_text(page.read_text().replace("<main>", f"<main>{broken}"))
    with served(page.parent) as (url, asked), chromium(DESK) as browser:
        browser.get(f"{url}/report.html")
        assert browser.title.startswith("Rankmill job")
        assert asked == ["/report.html"]
