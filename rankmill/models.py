"""A model's name to a local folder that is safe to load: safetensors, nothing pickled.

Names are hub ids, folders, `demo`, and `null` for benchmarks.
"""

from __future__ import annotations

from pathlib import Path

from rankmill.errors import ModelUnavailable
from rankmill.settings import CHECKOUT

DEMO = "demo"
NULL = "null"  # scores nothing; for benchmarks, see worker/null.py

_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def locate(model_id: str, revision: str | None = None) -> Path:
    """The local folder of a model, fetched from the hub where it is a hub id.

    Raises:
        ModelUnavailable: saying what is wrong and what to do.
    """
    if model_id == DEMO:
        folder = CHECKOUT / "models" / "demo-reranker"
    elif is_local(model_id):
        folder = Path(model_id)
    else:
        folder = _fetch(model_id, revision)
    check_folder(folder)
    return folder


def null_rate(model_id: str) -> float | None:
    """Pairs a second of `null:RATE`; None for plain `null`, which takes no time.

    Raises:
        ModelUnavailable: the rate is no positive number.
    """
    name, separator, rate = model_id.partition(":")
    if not separator:
        return None
    try:
        pairs_per_s = float(rate)
    except ValueError:
        pairs_per_s = -1.0
    if not 0 < pairs_per_s < float("inf"):
        raise ModelUnavailable(f"{model_id}: say {name} or {name}:PAIRS_PER_SECOND")
    return pairs_per_s


def is_null(model_id: str) -> bool:
    return model_id.partition(":")[0] == NULL


def is_built_in(model_id: str) -> bool:
    """Whether a name is ours whatever lies in the folder one is in."""
    return model_id == DEMO or is_null(model_id)


def is_local(model_id: str) -> bool:
    """Whether a model is named by its folder; else it is a hub id, `owner/name`."""
    return model_id.startswith(("/", ".", "~")) or Path(model_id).exists()


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be loaded safely, before anything is started.

    Raises:
        ModelUnavailable: no such folder, no config, no tokenizer, no or only pickled weights.
    """
    if not folder.is_dir():
        raise ModelUnavailable(f"{folder}: no such model folder")
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ModelUnavailable(f"{folder}: no config.json; is this a Hugging Face model folder?")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith(_PICKLED))
        if pickled:
            raise ModelUnavailable(
                f"{folder}: only pickled weights ({', '.join(pickled)}), which can run code; "
                "convert them with model.save_pretrained(folder)"
            )
        raise ModelUnavailable(f"{folder}: no weights (*.safetensors)")
    if not names & {"tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "tokenizer.model"}:
        raise ModelUnavailable(f"{folder}: no tokenizer (tokenizer.json)")


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def tokenizer_files(folder: Path) -> list[Path]:
    """Everything beside the weights that decides what the model sees."""
    return sorted(p for pattern in _FILES[1:] for p in folder.glob(pattern) if p.is_file())


def _fetch(model_id: str, revision: str | None) -> Path:
    # Comes with the worker's dependencies; a producer alone has no use for it.
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise ModelUnavailable(
            f"{model_id}: fetching from the hub needs the worker's packages "
            "(pip install 'rankmill[worker]')"
        ) from error
    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(_FILES)))
    except HFValidationError:
        raise ModelUnavailable(f"{model_id}: neither a folder nor a hub id (owner/name)") from None
    except RepositoryNotFoundError:
        raise ModelUnavailable(
            f"{model_id}: the hub has no such model, or it needs a token (HF_TOKEN)"
        ) from None
    except Exception as error:  # the hub's client raises many kinds for one trouble: no answer
        raise ModelUnavailable(
            f"{model_id}: not in the local cache and the hub is out of reach "
            f"({type(error).__name__}); give a folder with --model PATH, or --model demo to try"
        ) from error
