"""The weights of a model folder: the files that a load reads, and whether they are complete.

Nothing here needs torch: the headers of safetensors files name all tensors.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from rankmill.errors import ModelUnavailable
from rankmill.models.folder_files import module_folders, read_json
from rankmill.models.input_length import is_seq2seq
from rankmill.models.safetensors_header import Tensor, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"

# Files of torch's distributed checkpoints, which transformers prefers to model.safetensors.
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_FLOATS = ("F64", "F32", "F16", "BF16")
# Where transformers keeps the last layer of a `*ForSequenceClassification`.
_HEADS = {"classifier", "score", "classification_head", "logits_proj", "sequence_summary"}

# The families whose layers are all alike.
_UNIFORM = {
    *("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"),
    *("mpnet", "megatron-bert", "nomic_bert", "eurobert", "deberta-v2", "modernbert"),
    *("gte", "llama", "mistral", "qwen2", "qwen3", "gemma"),
}
_EMBEDDINGS = ("word_embeddings.weight", "tok_embeddings.weight", "embed_tokens.weight")
_LAYER = re.compile(r"(?P<stack>(?:^|.*\.)(?:layers?|h|blocks?))\.(?P<number>\d+)\.(?P<rest>.+)")
# The first layer of ModernBERT has no norm before its attention; the others are leftovers of
# older versions, which no load reads.
_NOT_IN_EACH = re.compile(r"(^|\.)(attn_norm\.weight|position_ids|inv_freq|masked_bias)$")


def check_weight_names(where: str, names: set[str]) -> None:
    """Refuse files that do not include weights under a name that transformers loads.

    Raises:
        ModelUnavailable: no weights, or only pickled, distributed or renamed ones.
    """
    if any(_DISTRIBUTED.fullmatch(name) for name in names):
        raise ModelUnavailable(
            f"{where}: a distributed checkpoint; save it with model.save_pretrained(folder)"
        )
    if names & {WEIGHTS, INDEX}:
        return
    suffixes = (".bin", ".pt", ".pth", ".ckpt", ".pkl", PICKLED_INDEX)
    pickled = sorted(name for name in names if name.endswith(suffixes))
    if pickled:
        raise ModelUnavailable(
            f"{where}: only pickled weights ({', '.join(pickled[:3])}), which can run code; "
            f"`rankmill models convert {where}` turns them into safetensors"
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        raise ModelUnavailable(
            f"{where}: weights under other names ({', '.join(others[:3])}) and no {INDEX}; "
            f"transformers loads {WEIGHTS} or the files that {INDEX} names"
        )
    raise ModelUnavailable(
        f"{where}: no weights (*.safetensors); where the hub has only pickled ones, run "
        "`rankmill models convert` with the model's hub id"
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the weights that a load reads: one file or the index's shards, and the modules' files.

    Raises:
        ModelUnavailable: the index or modules.json names a file that may not be opened.
    """
    is_one_file = (folder / WEIGHTS).is_file()
    names = [WEIGHTS] if is_one_file else sorted(set(_weight_map(folder).values()))
    of_modules = [folder / name / WEIGHTS for name in module_folders(folder)]
    return [folder / name for name in names] + [path for path in of_modules if path.is_file()]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the top folder by name.

    Raises:
        ModelUnavailable: a file is damaged, holds quantized weights, or lacks a tensor that the
            index names; or there is no tensor.
    """
    tensors: dict[str, Tensor] = {}
    file_of: dict[str, str] = {}
    for path in weight_files(folder):
        header = read_header(path)
        for name, tensor in header.items():
            if tensor.dtype not in _FLOATS and name.endswith(("weight", "bias")):
                raise ModelUnavailable(
                    f"{path}: {name} is {tensor.dtype}, quantized weights; take the model in "
                    "fp32, bf16 or fp16"
                )
        if path.parent == folder:
            tensors |= header
            file_of |= dict.fromkeys(header, path.name)
    if not (folder / WEIGHTS).is_file():
        lost = [name for name, file in _weight_map(folder).items() if file_of.get(name) != file]
        if lost:
            raise ModelUnavailable(
                f"{folder / INDEX}: names {len(lost)} tensors that their files do not have: "
                f"{', '.join(lost[:3])}; fetch the model again"
            )
    if not tensors:
        raise ModelUnavailable(f"{folder}: the weights hold no tensor")
    return tensors


def check_head(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse an embedding model or another task's, by its config and its tensors.

    Raises:
        ModelUnavailable: its scores would be random.
    """
    architecture = str((config.get("architectures") or [""])[0])
    answers = is_seq2seq(config.get("model_type"), config.get("architectures"))
    if architecture.endswith("ForCausalLM") or answers:
        return
    if "For" in architecture and not architecture.endswith("ForSequenceClassification"):
        raise ModelUnavailable(
            f"{folder}: a {architecture}; a reranker is a *ForSequenceClassification, a "
            "*ForCausalLM, or a T5 that answers"
        )
    if not any(_HEADS & set(name.split(".")) for name in tensors):
        raise ModelUnavailable(
            f"{folder}: the weights have no classification head (classifier.* or score.*), so that "
            "its scores would be random; this is an embedding model or a backbone: name a "
            "reranker, such as BAAI/bge-reranker-v2-m3"
        )


def check_layers(folder: Path) -> None:
    """Refuse weights that lack their embeddings, a layer, or a tensor that the other layers have.

    Only families whose layers are all alike are checked. The engine checks every tensor of every
    model when it loads it.

    Raises:
        ModelUnavailable: naming a tensor that is missing.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") not in _UNIFORM:
        return
    stacks: dict[str, dict[int, set[str]]] = {}
    bodies = [path for path in weight_files(folder) if path.parent == folder]
    names = [name for path in bodies for name in read_header(path)]
    for name in names:
        match = _LAYER.fullmatch(name)
        if match is not None and not _NOT_IN_EACH.search(match["rest"]):
            layers = stacks.setdefault(match["stack"], {})
            layers.setdefault(int(match["number"]), set()).add(match["rest"])
    # A language model's head may be saved in place of the embeddings that it is tied to.
    is_tied = config.get("tie_word_embeddings", True) and "lm_head.weight" in names
    if not is_tied and not any(name.endswith(_EMBEDDINGS) for name in names):
        raise ModelUnavailable(
            f"{folder}: the weights lack the embeddings of tokens (*{_EMBEDDINGS[0]} or the like), "
            "which config.json promises; take the config.json and the weights of one model"
        )
    n_layers = config.get("num_hidden_layers") or config.get("n_layers")
    for stack, layers in stacks.items():
        counts = Counter(rest for tensors in layers.values() for rest in tensors)
        usual = {rest for rest, n in counts.items() if 2 * n >= len(layers)}
        numbers = range(n_layers) if n_layers and len(stacks) == 1 else sorted(layers)
        for number in numbers:
            missing = sorted(usual - layers.get(number, set()))
            if missing:
                raise ModelUnavailable(
                    f"{folder}: the weights lack {stack}.{number}.{missing[0]} (of {len(usual)} "
                    f"tensors a layer, {len(missing)} are missing there), which config.json "
                    "promises; take the config.json and the weights of one model"
                )


def _weight_map(folder: Path) -> dict[str, str]:
    """Return the index's tensors and their files, each a safetensors file in the folder itself."""
    path = folder / INDEX
    index = read_json(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelUnavailable(f"{path}: no weight_map")
    if not isinstance(index.get("metadata"), dict):
        raise ModelUnavailable(f"{path}: no metadata")
    for name in sorted({str(name) for name in weight_map.values()}):
        if "/" in name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelUnavailable(
                f"{path}: names {name[:80]!r}; shards are *.safetensors in the model's folder"
            )
        if not (folder / name).is_file():
            raise ModelUnavailable(f"{folder / name}: missing, though {INDEX} names it")
    return weight_map
