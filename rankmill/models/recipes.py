"""The registry of recipes: `recipes.toml`, by a model's name and config, under a job's options."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from rankmill.contract.job import JobOptions
from rankmill.models.folder_files import read_json
from rankmill.models.names import is_model_folder
from rankmill.models.recipe import Recipe
from rankmill.models.scoring_settings import states_scoring

_LISTS = ("pieces", "prompted", "tokens")


@dataclass(frozen=True)
class Published:
    """A recipe of the registry, and the models that it is for.

    Attributes:
        models: patterns of hub ids.
        architectures: of config.json, one of which a model must have.
        model_types: of config.json, each enough without a name.
    """

    recipe: Recipe
    models: tuple[str, ...]
    architectures: tuple[str, ...]
    model_types: tuple[str, ...] = ()

    def is_for(self, names: list[str], config: dict[str, Any]) -> bool:
        """Return whether the recipe is that of a model.

        Args:
            names: the model's names; their owners do not count, nor do those of patterns.
            config: its config.json.
        """
        architecture = str((config.get("architectures") or [""])[0])
        if architecture not in self.architectures:
            return False
        if config.get("model_type") in self.model_types:
            return True
        return any(_matches(name, pattern) for name in names for pattern in self.models)


@cache
def registry() -> tuple[Published, ...]:
    """Return all recipes, in the order in which they are tried."""
    content = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text())
    known = {field.name for field in fields(Recipe)}
    found = []
    for entry in content["recipe"]:
        match = {name: tuple(entry.pop(name)) for name in set(entry) - known}
        values: dict[str, Any] = {
            key: tuple(each) if key in _LISTS else each for key, each in entry.items()
        }
        found.append(Published(Recipe(**values), **match))
    return tuple(found)


def recipe_for(folder: Path, options: JobOptions) -> Recipe:
    """Return the recipe that a model's files and a job's options make; empty if neither says one.

    Args:
        folder: the model's folder.
        options: the job's, with the model's name.
    """
    return with_options(published_recipe(folder, options.model_id), options)


def published_recipe(folder: Path, model_id: str) -> Recipe:
    """Return the registry's recipe of a model, or an empty one."""
    if states_scoring(folder):
        return Recipe()
    config = read_json(folder / "config.json")
    names = list(_names(folder, model_id, config))
    return next((each.recipe for each in registry() if each.is_for(names, config)), Recipe())


def with_options(recipe: Recipe, options: JobOptions) -> Recipe:
    """Return a recipe with what a job's options put in its place."""
    changes: dict[str, Any] = {}
    if options.input_template is not None:
        changes |= {"pieces": (options.input_template,), "prompted": (), "special_tokens": True}
    if options.chat_template is not None:
        changes |= {"pieces": (), "prompted": (), "chat_template": options.chat_template}
    if options.input_template is not None or options.chat_template is not None:
        # These belong to the template that is not used.
        changes |= {"prompt": None, "tokens": (), "strip": False, "query_share": None}
        changes |= {"max_length": None, "counts": "all"}
    if options.yes_token is not None:
        changes |= {"yes": options.yes_token, "no": options.no_token}
        changes |= {"yes_id": None, "no_id": None, "divide_by": 1.0, "activation": None}
    given = ("prompt", "query_prefix", "document_prefix")
    changes |= {name: getattr(options, name) for name in given if getattr(options, name)}
    if options.prompt_col is not None:
        changes["has_prompt_col"] = True
    return replace(recipe, **changes, has_options=True) if changes else recipe


def _names(folder: Path, model_id: str, config: dict[str, Any]) -> Iterator[str]:
    """Yield a model's names: as given, kept by the model store or the hub's cache, in its config.

    A path counts by its last part.
    """
    yield Path(model_id).name if is_model_folder(model_id) else model_id
    real = folder.resolve()
    index = real.parent / "model.json"
    if index.is_file():
        yield str(read_json(index).get("model_id", ""))
    if real.parent.name == "snapshots":
        yield real.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    yield folder.name
    stated = str(config.get("_name_or_path") or "")
    yield stated if stated.count("/") == 1 and not stated.startswith(".") else Path(stated).name


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatchcase(name.rpartition("/")[2], pattern.rpartition("/")[2]) if name else False
