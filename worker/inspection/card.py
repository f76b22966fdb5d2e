"""Read the license that a model's card states."""

from __future__ import annotations

from pathlib import Path

from rankmill.errors import ModelUnavailable
from rankmill.models.folder_files import check_files
from rankmill.models.hub import stated_license

_CARD = "README.md"
_MAX_CARD_BYTES = 1_000_000


def license_of(folder: Path) -> str | None:
    """Return the license in the front matter of README.md; None if it states none."""
    from huggingface_hub import ModelCard

    card = folder / _CARD
    try:
        check_files([card], folder)
        if card.stat().st_size > _MAX_CARD_BYTES:
            return None
        text = card.read_text(errors="replace")
        return stated_license(ModelCard(text, ignore_metadata_errors=True).data.get)
    except ModelUnavailable:  # no card, or a link out of the folder
        return None
    except Exception:  # its YAML may be anything, and decides no score
        return None
