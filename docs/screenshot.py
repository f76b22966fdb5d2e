"""Take the pictures of a report page and of a terminal that the documentation shows.

python -m docs.screenshot demo-out docs
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import MONOKAI

from producer.quality.job_page import write_page
from rankmill.output.output import Output
from tests.support.browser import chromium, show_as
from tests.support.terminal import in_terminal

_DESK, _PHONE = (1000, 1250), (375, 812)
_COLUMNS, _SCREEN_WIDTH = 112, 1100
_COLOURS = 64
_GAP = 24
_ROOT = Path(__file__).resolve().parent.parent
_QRELS = _ROOT / "examples" / "packages.qrels"
_SOURCE = "examples/packages.parquet"
# A line that is drawn again, and the start of the one that takes its place.
_REDRAWN = re.compile(r"[^\n]*\n\r\x1b\[1A\x1b\[2K|[^\n]*\r\x1b\[2K")
_SCORING = re.compile(r"\x1b\[2K(scoring  [^\r]*busy[^\r]*)")


def picture(page: Path, size: tuple[int, int], scheme: str = "light") -> Image.Image:
    """Return the top of a page, in light or dark; a height of 0 is that of the page."""
    width, height = size
    with chromium(width) as browser:
        show_as(browser, scheme=scheme)
        browser.get(page.absolute().as_uri())
        whole = browser.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height or whole, "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip}
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", options)
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


def gallery(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures next to each other, as high as the lowest, on grey."""
    height = min(each.height for each in pictures)
    width = sum(each.width + _GAP for each in pictures) + _GAP
    whole = Image.new("RGB", (width, height + 2 * _GAP), "#8a8f98")
    left = _GAP
    for each in pictures:
        whole.paste(each.crop((0, 0, each.width, height)), (left, _GAP))
        left += each.width + _GAP
    return whole


def terminal_page(command: list[str], shown: str) -> str:
    """Return a page with what a terminal showed while a command scored, and at its end."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    shown = re.sub(r"\x1b\[\?25[hl]", "", shown.replace("\r\n", "\n"))
    meanwhile = _SCORING.findall(shown)
    typed = f"$ rankmill {' '.join(command)}"
    for text in (f"{typed}\n{meanwhile[len(meanwhile) // 2]}\n\n", _REDRAWN.sub("", shown)):
        for line in AnsiDecoder().decode(text):
            console.print(line)
    return console.export_html(theme=MONOKAI, inline_styles=True)


def _save(image: Image.Image, target: Path) -> None:
    image.quantize(_COLOURS).save(target, optimize=True)


def _nobodys(text: str, *places: Path) -> str:
    """Return a text with a neutral name in place of some folders."""
    for place in sorted(map(str, places), key=len, reverse=True):
        text = text.replace(place, "/home/you/rankmill")
    return text


def main(output: Path, target: Path) -> None:
    """Write report.png, report-dark.png, report-phone.png, gallery.png and terminal.png."""
    page = Path(write_page(Output(str(output.absolute())), qrels=str(_QRELS))).read_text()
    with tempfile.TemporaryDirectory(prefix="rankmill-") as folder:
        shown = Path(folder, "report.html")
        shown.write_text(_nobodys(page, output.absolute().parent, _ROOT))
        light, dark = (picture(shown, _DESK, scheme) for scheme in ("light", "dark"))
        phone = picture(shown, _PHONE, "dark")
        command = ["run", _SOURCE, "demo-out", "--model", "demo", "--top-k", "10"]
        place = Path(folder, "demo-out")
        typed = [str(place) if word == "demo-out" else word for word in command]
        _, said = in_terminal(_COLUMNS, _ROOT, *typed)
        screen = Path(folder, "terminal.html")
        screen.write_text(_nobodys(terminal_page(command, said), Path(folder)))
        _save(picture(screen, (_SCREEN_WIDTH, 0)), target / "terminal.png")
    _save(light, target / "report.png")
    _save(dark, target / "report-dark.png")
    _save(phone, target / "report-phone.png")
    _save(gallery([light, phone]), target / "gallery.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
