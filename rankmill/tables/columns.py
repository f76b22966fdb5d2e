"""Names of columns as readers compare them: DuckDB and Spark take no notice of case."""

from __future__ import annotations

import unicodedata


def folded(name: str) -> str:
    """Equal for names that some reader, or a person, takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()
