"""Write the generated parts of the documentation from the code, between pairs of markers.

python docs/tables.py            writes every Markdown file of README.md and docs/
python docs/tables.py FILE …     writes these files
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from typer.main import get_command

from producer.cli.app import whole_app
from producer.cli.options import flag, meaning_unset
from rankmill import metrics
from rankmill.contract.job import JobSpec
from rankmill.metrics import Metric
from rankmill.models.recipes import Published, registry
from rankmill.settings import Settings
from tests.support.field_inputs import tried_inputs

ROOT = Path(__file__).parents[1]

# The users of docker/redis/users.acl that can log in.
ROLES = ("worker", "producer", "beat", "flower", "monitor", "keda", "health")

# The benchmark's models that run with all their layers.
WHOLE_MODELS = {"ms-marco-MiniLM-L6-v2": "MiniLM-L6", "real-reranker": "MS MARCO MiniLM-L12"}


def settings_table() -> str:
    rows = (
        (f"`RANKMILL_{name.upper()}`", f"`{field.default}`", field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return _table(("variable", "default", "meaning"), rows)


def limits_table() -> str:
    """Return the table of the settings that bound an input, with the code's error for each."""
    errors = _errors_of_limits()
    rows = (
        (
            (field.description or "").removeprefix("Maximum "),
            f"{field.default:,}",
            f"`RANKMILL_{name.upper()}`",
            errors[f"RANKMILL_{name.upper()}"],
        )
        for name, field in Settings.model_fields.items()
        if (field.description or "").startswith("Maximum ")
    )
    return _table(("limit", "default", "setting", "error"), rows)


def _errors_of_limits() -> dict[str, str]:
    """Return the error that advises to raise each limit; … is a value in it."""
    found: dict[str, str] = {}
    for path in (*ROOT.glob("rankmill/**/*.py"), *ROOT.glob("producer/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    each.value if isinstance(each, ast.Constant) else "…" for each in node.values
                ]
                text = "".join(map(str, parts)).removeprefix("…: ")
                found |= dict.fromkeys(re.findall(r"set (RANKMILL_MAX_\w+) higher", text), text)
    return found


def options_table() -> str:
    rows = (
        (f"`{flag(name)}`", f"`{name}`", _default(name, field), field.description or "")
        for name, field in JobSpec.model_fields.items()
        if field.description
    )
    return _table(("option", "field", "default", "meaning"), rows)


def metrics_table(declared: Iterable[Metric]) -> str:
    rows = (
        (f"`{each.name}`", each.kind, " ".join(f"`{name}`" for name in each.labels), each.meaning)
        for each in declared
    )
    return _table(("metric", "kind", "labels", "meaning"), rows)


def models_table() -> str:
    """Return the table of docs/models.json; the zoo's test loads and scores each row.

    The speeds are those of bench/speeds.py.
    """
    models = json.loads(Path(__file__).with_name("models.json").read_text())
    speeds = {each["shape"]: each for each in _speeds()["results"]}
    header = ("model", "loaded as", "path", "activation", "`max_length`", "scores", "pairs/s")
    return _table(header, (_model_row(row, speeds) for row in models))


def _speeds() -> Any:
    return json.loads((ROOT / "bench" / "results" / "speeds-cpu.json").read_text())


def _model_row(row: dict[str, str], speeds: dict[str, Any]) -> tuple[str, ...]:
    name = row["model"] + (", its code allowed" if "code" in row else "")
    if "refused" in row:
        return name, "", "refused", "", "", row["refused"], ""
    path = f"{row['path']}: {row['reason']}" if "reason" in row else row["path"]
    facts = (f"`{row['architecture']}`", path, row["activation"], str(row["max_length"]))
    scores = f"recipe `{row['recipe']}`" if "recipe" in row else "equal"
    if "shape" not in row:
        return name, *facts, scores, "not measured"
    speed = speeds[row["shape"]]
    if speed["path"] != row["path"]:
        raise ValueError(f"{name} is {row['path']}, but was measured as {speed['path']}")
    return name, *facts, scores, _rate(speed["pairs_per_core_s"])


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"


def speeds_table() -> str:
    """Return the table of bench/results/speeds-cpu.json, below a sentence on the machine."""
    content = _speeds()
    machine = content["machine"]
    versions = ", ".join(
        f"{name} {machine['versions'][name]}" for name in ("torch", "transformers")
    )
    sentence = (
        f"One thread of {machine['cpu']} with {machine['instructions']}, {versions}; "
        f"{content['n_pairs']} documents of one query, mix *{content['mix']}*.\n\n"
    )
    header = ("shape", "as in", "layers", "tokens a pair", "precision", "pairs/s")
    return sentence + _table(header, map(_speed_row, content["results"]))


def _speed_row(row: dict[str, Any]) -> tuple[str, ...]:
    layers = f"all {row['n_layers']}"
    if row["measured_layers"] != [row["n_layers"]]:
        measured = " and ".join(map(str, row["measured_layers"]))
        layers = f"{measured} of {row['n_layers']}, the others by arithmetic"
    tokens = f"{row['tokens_per_pair']:.0f}"
    facts = (row["shape"], row["like"], layers, tokens, row["precision"])
    return *facts, _rate(row["pairs_per_core_s"])


def recipes_table() -> str:
    """Return the table of rankmill/models/recipes.toml, with the input of each recipe."""
    header = ("recipe", "models", "input", "score", "`max_length`")
    return _table(header, map(_recipe_row, registry()))


def _recipe_row(each: Published) -> tuple[str, ...]:
    recipe = each.recipe
    shown = "".join(recipe.prompted or recipe.pieces).replace("\n", "↵")
    answers = f"logit of `{recipe.yes}`" if recipe.yes else "logit"
    if recipe.no:
        answers += f" minus `{recipe.no}`"
    if recipe.divide_by != 1:
        answers += f", divided by {recipe.divide_by:g}"
    if recipe.activation == "sigmoid":
        answers = f"sigmoid of the {answers}"
    what = {"texts": " for both texts", "all": ""}[recipe.counts]
    length = f"{recipe.max_length}{what}" if recipe.max_length else "the model's"
    models = ", ".join(f"`{pattern}`" for pattern in each.models)
    return recipe.name, models, f"`{shown}`", answers, length


def rights_table() -> str:
    """Return the table of docs/redis-rights.json; the users' test tries each cell."""
    rights = json.loads(Path(__file__).with_name("redis-rights.json").read_text())
    rows = (
        (row["action"], *("yes" if role in row["roles"] else "" for role in ROLES))
        for row in rights
    )
    return _table(("action", *(f"`{role}`" for role in ROLES)), rows)


def commands_text() -> str:
    """Return a section for each command: usage, help, and the options that are its own."""
    return "\n".join(
        _command_section(name, command) for name, command in commands() if not _children(command)
    )


def commands() -> Iterator[tuple[str, Any]]:
    """Yield the name of every command and group, such as `schedule add`, and the command."""

    def below(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
        for name, child in _children(command).items():
            yield prefix + name, child
            yield from below(f"{prefix}{name} ", child)

    return below("", get_command(whole_app()))


def _children(command: Any) -> dict[str, Any]:
    children: dict[str, Any] = getattr(command, "commands", {})
    return children


def _command_section(name: str, command: Any) -> str:
    job_options = {flag(field) for field, each in JobSpec.model_fields.items() if each.description}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    takes_job = job_options <= {name for each in options for name in each.opts}
    usage = " ".join(["rankmill", name, *(each.name.upper() for each in arguments)])
    text = f"## {usage}\n\n{' '.join((command.help or '').split())}\n"
    if takes_job:
        text += "\nTakes every [job option](options.md).\n"
    own = [each for each in options if not (takes_job and job_options & set(each.opts))]
    rows = [_option_row(each) for each in own]
    if rows:
        text += f"\n{_table(('option', 'default', 'meaning'), rows)}"
    line = command.epilog.splitlines()[-1].strip()
    return text + f"\n```console\n{line}\n```\n"


def _option_row(option: Any) -> tuple[str, ...]:
    names = "`, `".join((*option.opts, *option.secondary_opts))
    default = option.default
    has_default = (
        default is not None and not callable(default) and default not in (False, "", (), [])
    )
    shown = f"`{default}`" if has_default else ""
    return (
        f"`{names}`",
        option.show_default if isinstance(option.show_default, str) else shown,
        " ".join((option.help or "").split()),
    )


def hours_table() -> str:
    """Return the hours that a million pairs take by the engine's benchmark, of whole models."""
    found = json.loads((ROOT / "bench" / "results" / "engine-cpu.json").read_text())
    hours: dict[tuple[str, str], dict[str, float]] = {}
    for each in found["results"]:
        if each["model"] in WHOLE_MODELS:
            key = WHOLE_MODELS[each["model"]], f"{each['mean_tokens']:.0f}"
            seconds = each["engine"]["wall_s"] / each["n_pairs"]
            hours.setdefault(key, {})[each["precision"]] = seconds * 1e6 / 3600
    precisions = ("fp32", "bf16", "int8")
    rows = (
        (*key, *(f"{by_precision[precision]:.1f}" for precision in precisions))
        for key, by_precision in hours.items()
        if len(by_precision) == len(precisions)  # some mixes are measured in one alone
    )
    return _table(("model", "tokens a pair", *(f"{each}, hours" for each in precisions)), rows)


def tried_inputs_table() -> str:
    """Return the table of tests/support/field_inputs.py; each input is prepared as by a job."""
    header = ("input", "options", "what happens")
    rows = (
        (each.name, f"`{each.shown}`" if each.shown else "", each.end) for each in tried_inputs()
    )
    return _table(header, rows)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "limits": limits_table,
    "hours": hours_table,
    "tried inputs": tried_inputs_table,
    "options": options_table,
    "commands": commands_text,
    "worker metrics": lambda: metrics_table(metrics.OF_WORKER),
    "GPU metrics": lambda: metrics_table(metrics.OF_GPU),
    "cluster metrics": lambda: metrics_table(metrics.OF_CLUSTER),
    "recorded metrics": lambda: metrics_table(metrics.OF_RULES),
    "models": models_table,
    "speeds": speeds_table,
    "recipes": recipes_table,
    "redis rights": rights_table,
}


def with_tables(text: str) -> str:
    """Return the text with the content of each pair of markers generated again."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin in text:
            pattern = re.escape(begin) + ".*?" + re.escape(end)
            replacement = f"{begin}\n{table()}{end}"
            text = re.sub(pattern, lambda _, new=replacement: new, text, flags=re.DOTALL)
    return text


def pages() -> list[Path]:
    """Return README.md and every Markdown file of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _default(name: str, field: FieldInfo) -> str:
    return meaning_unset(name) or ("" if field.default is None else f"`{field.default}`")


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    escaped = (tuple(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join("| " + " | ".join(line) + " |\n" for line in escaped)


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or pages():
        path.write_text(with_tables(path.read_text()))
