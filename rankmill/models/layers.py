"""Refuse weights that lack their embeddings, a layer, or a tensor that the other layers have.

Only the families whose layers are all alike are looked at; the engine checks every tensor of every
model when it loads it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from rankmill.errors import ModelUnavailable
from rankmill.models.checkpoint import read_json, weight_files
from rankmill.models.safetensors_header import read_header

_UNIFORM = {
    *("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet"),
    *("deberta-v2", "modernbert", "gte", "llama", "mistral", "qwen2", "qwen3", "gemma"),
}
_EMBEDDINGS = ("word_embeddings.weight", "tok_embeddings.weight", "embed_tokens.weight")
_LAYER = re.compile(r"(?P<stack>(?:^|.*\.)(?:layers?|h|blocks?))\.(?P<number>\d+)\.(?P<rest>.+)")
# The first layer of ModernBERT has no norm before its attention; the others are leftovers of
# older versions, which no load reads.
_NOT_IN_EACH = re.compile(r"(^|\.)(attn_norm\.weight|position_ids|inv_freq|masked_bias)$")


def check_layers(folder: Path) -> None:
    """
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
        found = _LAYER.fullmatch(name)
        if found is not None and not _NOT_IN_EACH.search(found["rest"]):
            layers = stacks.setdefault(found["stack"], {})
            layers.setdefault(int(found["number"]), set()).add(found["rest"])
    # A language model's head may be saved in place of the embeddings that it is tied to.
    is_tied = config.get("tie_word_embeddings", True) and "lm_head.weight" in names
    if not is_tied and not any(name.endswith(_EMBEDDINGS) for name in names):
        raise ModelUnavailable(
            f"{folder}: the weights lack the embeddings of tokens (*{_EMBEDDINGS[0]} or the like), "
            "which config.json promises; take the config.json and the weights of one model"
        )
    n_layers = config.get("num_hidden_layers") or config.get("n_layers")
    for stack, layers in stacks.items():
        counts = Counter(rest for each in layers.values() for rest in each)
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
