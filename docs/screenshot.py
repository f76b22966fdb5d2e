"""Take the picture of a report page that the documentation shows.

python -m docs.screenshot demo-out docs/report.png
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.support.browser import chromium

_WIDTH = 1000
_COLOURS = 64
_ROOT = Path(__file__).resolve().parent.parent


def picture(page: Path) -> Image.Image:
    """All of a page, from top to bottom."""
    with chromium(_WIDTH) as browser:
        browser.get(page.absolute().as_uri())
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    return Image.open(io.BytesIO(base64.b64decode(taken["data"])))


def main(output: Path, target: Path) -> None:
    page = (output.absolute().parent / "_rankmill" / output.name / "report.html").read_text()
    for place in (str(output.absolute().parent), str(_ROOT)):
        page = page.replace(place, "/home/you/rankmill")  # nobody's own folders
    with tempfile.TemporaryDirectory(prefix="rankmill-") as folder:
        copy = Path(folder, "report.html")
        copy.write_text(page)
        picture(copy).convert("RGB").quantize(_COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
