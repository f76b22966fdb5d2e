"""The project's texts keep to plain words: none of a list that readers had to guess at."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from rankmill.settings import CHECKOUT

# A word, and what says the same plainly.
PLAINER = {
    r"told|tells?|telling": "log, report, say, send",
    r"what became of": "outcome",
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "fix",
    r"of (?:ours|theirs)": "our own, their own",
    r"by hand": "manually",
    r"(?:says?|said) otherwise": "overrides, differs",
    r"signs? of life": "heartbeat",
    r"whoever": "the process that, anyone who",
    r"stands|stood": "is, was",
    r"beside": "next to, besides",
    r"(?:a|the|each|every|one|its|this|next|first|last) looks?(?! like)": "scan, check",
    r"(?<!here )is no (?!longer\b|more\b)\w+": "is not a",
}
_WORDS = re.compile(
    "|".join(f"(?<![A-Za-z])(?:{word})(?![A-Za-z])" for word in PLAINER), re.IGNORECASE
)
# Python's own method, and a key in Redis that older workers read.
_ALLOWED = re.compile(r"\.tell\(|def tell\(self\)|f\"told:")
_READ = {".py", ".md", ".yml", ".yaml", ".html", ".toml", ".acl", ".css", ".json", ".sh", ""}
# Written by others or by a version of before, or this list.
_LEFT_OUT = ("tests/v0_1/", "models/demo-reranker/", "LICENSE", "tests/unit/repository/test_words")


def texts() -> list[Path]:
    """Return every file of the repository with words in it."""
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True)
    names = [name for name in listed.stdout.splitlines() if not name.startswith(_LEFT_OUT)]
    return [CHECKOUT / name for name in names if Path(name).suffix in _READ]


def test_every_text_keeps_to_plain_words() -> None:
    files = texts()
    assert len(files) > 300
    found = [
        f"{path.relative_to(CHECKOUT)}:{number}: {word[0]!r} in {line.strip()[:80]!r}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (word := _WORDS.search(_ALLOWED.sub("", line)))
    ]
    assert not found, "\n".join(found)
