"""The longest input of a model by its folder: one rule for the producer and the engine.

This module imports the standard library alone, because the engine runs where the rest of the
package's dependencies may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Sentence Transformers reads the settings of its Transformer module from the first that exists.
_SETTINGS_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# Model types whose position embeddings start after the padding id.
_OFFSET_POSITIONS = (
    *("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm"),
    *("data2vec-text", "ibert", "xmod", "mpnet"),
)

# MPNet of transformers counts from this padding id, whatever its config says.
_MPNET_PAD_ID = 1

# Model types whose decoder can answer whether a pair is relevant, as monoT5's.
_SEQ2SEQ = ("t5", "mt5")


def settings_file(folder: Path) -> Path:
    """Return the file with the settings of the Transformer module; it may be missing."""
    name = next((each for each in _SETTINGS_FILES if (folder / each).is_file()), _SETTINGS_FILES[0])
    return folder / name


def takes_messages(settings: Mapping[str, Any]) -> bool:
    """Return whether the Transformer module sends pairs through the chat template."""
    return _object(settings, "modality_config").get("message") is not None


def stated_lengths(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the lengths in the settings of the Transformer module as (key, value).

    The first one counts, as in Sentence Transformers. Values are not checked.
    """
    processing = _object(settings, "processing_kwargs")
    order = ("chat_template", "text", "common") if takes_messages(settings) else ("common", "text")
    lengths = {
        f"processing_kwargs.{part}.max_length": _object(processing, part).get("max_length")
        for part in order
    }
    # The tokenizer's own arguments override max_seq_length; the second is the older name.
    for key in ("processor_kwargs", "tokenizer_args"):
        lengths[f"{key}.model_max_length"] = _object(settings, key).get("model_max_length")
    lengths["max_seq_length"] = settings.get("max_seq_length")
    yield from ((key, value) for key, value in lengths.items() if value is not None)


def is_seq2seq(model_type: str | None, architectures: Sequence[str] | None) -> bool:
    """Return whether two settings of a config are those of a T5, whose decoder answers."""
    architecture = str((architectures or [""])[0])
    return model_type in _SEQ2SEQ and architecture.endswith("ForConditionalGeneration")


def usable_positions(model_type: str | None, n_positions: int, pad_token_id: int) -> int:
    """Return the tokens that a table of `n_positions` position embeddings can number."""
    if model_type == "mpnet":
        pad_token_id = _MPNET_PAD_ID
    return n_positions - pad_token_id - 1 if model_type in _OFFSET_POSITIONS else n_positions


def _object(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}
