"""Defaults of the command line from a file, `rankmill.toml`: of job options and of settings.

    [job]
    model = "BAAI/bge-reranker-v2-m3"
    query_col = "q"

    [settings]
    broker_url = "redis://redis:6379/0"

    [profiles.night.job]
    top_k = 100

The nearest file counts, in the current folder or above it. `--profile night` adds a named part, and
`--profile FILE.toml` names another file. Flags override variables, and variables override the file.
A relative path is relative to the file, wherever the command runs.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from rankmill import storage
from rankmill.contract.base import parse_given
from rankmill.contract.job import JobOptions
from rankmill.errors import InputError
from rankmill.models.names import absolute_model
from rankmill.settings import Settings, is_secret, settings, variable
from rankmill.wrong_value import wrong_value

FILE = "rankmill.toml"
VARIABLE = "RANKMILL_PROFILE"

_FIELDS = {"model": "model_id", "revision": "model_revision"}
_KEYS = {field: key for key, field in _FIELDS.items()}
# Options and settings with paths, which may be relative to the file.
_PATHS = (
    *("chat_template", "input_template", "reuse_from"),
    *("broker_ca", "models", "scratch", "runtime"),
)
_LISTS_OF_PATHS = ("queries", "corpus", "allowed_prefixes")
_LISTS_OF_MODELS = ("allowed_models", "model_queues")  # ids and folders
# Lists, which may also be written as one text with commas, as the flags have them.
_LISTS = ("keep_cols", "columns")
# A folder that was only unpacked must not allow code to run.
_NOT_HERE = ("remote_code_models", "device_reason")


@dataclass(frozen=True)
class Profile:
    """The defaults of a file.

    Attributes:
        path: the file.
        options: job options by field, as a user would type them.
        variables: settings by the names of their variables.
    """

    path: Path
    options: Mapping[str, Any]
    variables: Mapping[str, str]

    def use(self) -> None:
        """Set the variables that are not set, for this process and those that it starts."""
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        settings.cache_clear()

    def gave(self, name: str) -> bool:
        """Return whether a variable has its value from the file."""
        return os.environ.get(name) == self.variables.get(name, "\0")


def current() -> Profile | None:
    """Return the profile of the current folder and of RANKMILL_PROFILE; None if there is none.

    Raises:
        InputError: there is no such profile, or a key or a value is wrong.
    """
    wanted = os.environ.get(VARIABLE, "")
    is_file = wanted.endswith(".toml") or os.sep in wanted
    path = Path(wanted).absolute() if is_file else _nearest()
    if path is None:
        if wanted:
            raise InputError(f"--profile {wanted}: there is no {FILE} in {Path.cwd()} or above it")
        return None
    return _read(path, "" if is_file else wanted)


def key_of(field: str) -> str:
    """Return the key of a job option's field."""
    return _KEYS.get(field, field)


def _nearest() -> Path | None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / FILE
        if path.is_file():
            if path.stat().st_uid not in (0, os.getuid()):
                raise InputError(
                    f"{path} belongs to another user; --profile {path} uses it nevertheless"
                )
            return path
    return None


def _read(path: Path, name: str) -> Profile:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--profile {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    _check_keys(path, "", content, ("job", "settings", "profiles"))
    profiles = _table(path, content, "profiles", "")
    parts = [("", content)]
    for each in profiles:
        part = _table(path, profiles, each, "profiles.")
        _check_keys(path, f"profiles.{each}.", part, ("job", "settings"))
        if each == name:
            parts.append((f"profiles.{each}.", part))
    if name and name not in profiles:
        raise InputError(f"--profile {name}: {path} has {_meant(name, profiles)}")
    options: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for prefix, part in parts:
        options |= _options(path, prefix + "job", _table(path, part, "job", prefix))
        variables |= _variables(path, prefix + "settings", _table(path, part, "settings", prefix))
    return Profile(path, options, variables)


def _table(path: Path, content: Mapping[str, Any], name: str, prefix: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: {prefix}{name} is not a table: write [{prefix}{name}]")
    return table


def _meant(name: str, profiles: Mapping[str, Any]) -> str:
    near = get_close_matches(name, profiles, 1)
    if near:
        return f"no [profiles.{name}]; did you mean {near[0]}?"
    return f"the profiles {', '.join(profiles)}" if profiles else "no [profiles.…]"


def _options(path: Path, table: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job options of a table, as flags take them."""
    fields = [name for name, field in JobOptions.model_fields.items() if field.description]
    _check_keys(path, f"{table}.", given, [key_of(field) for field in fields])
    values = dict(_values(given, _FIELDS))
    checked = {"input_uri": "-", **values}
    for name in _LISTS:
        if isinstance(checked.get(name), str):
            checked[name] = checked[name].split(",")
    for name in ("chat_template", "input_template"):  # files, which are read when they are used
        if isinstance(checked.get(name), str):
            del checked[name]
    parse_given(JobOptions, checked, f"{path}: [{table}]", key_of)
    for name in _LISTS:
        if isinstance(values.get(name), list):
            values[name] = ",".join(values[name])
    return {name: _from(path.parent, name, value) for name, value in values.items()}


def _from(folder: Path, name: str, value: Any) -> Any:
    """Return the value of an option or a setting, with its relative paths below `folder`."""
    # It imports what reads inputs, which most commands do not need.
    from producer.reuse.earlier import LATEST

    if not isinstance(value, str) or (name, value) == ("reuse_from", LATEST):
        return value
    if name in _PATHS:
        return storage.from_folder(folder, value)
    if name == "model_id":
        return absolute_model(value, folder)
    items = [item.strip() for item in value.split(",") if item.strip()]
    if name in _LISTS_OF_PATHS:
        return ",".join(storage.from_folder(folder, item) for item in items)
    if name in _LISTS_OF_MODELS:
        return ",".join(absolute_model(item, folder) for item in items)
    return value


class _OfFile(Settings):
    """The settings of a file alone."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read no variable."""
        return (init_settings,)


def _variables(path: Path, table: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a table by the names of their variables, as text."""
    for name in _NOT_HERE:
        if name in given:
            raise InputError(f"{path}: [{table}] {name} is not for a file: set {variable(name)}")
    fields = [name for name in Settings.model_fields if name not in _NOT_HERE]
    _check_keys(path, f"{table}.", given, fields)
    values = dict(_values(given, {}))
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list) else _text(value)
        for name, value in values.items()
    }
    texts = {name: _from(path.parent, name, text) for name, text in texts.items()}
    try:
        _OfFile.model_validate(texts)
    except ValidationError as error:
        line = wrong_value(error, is_secret=is_secret)
        raise InputError(f"{path}: [{table}] {line}") from None
    return {variable(name): text for name, text in texts.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(given: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        name = key.replace("-", "_")
        yield fields.get(name, name), value


def _check_keys(path: Path, prefix: str, given: Mapping[str, Any], known: Any) -> None:
    for key in given:
        if key.replace("-", "_") not in known:
            near = get_close_matches(key, known, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{path}: unknown key {prefix}{key}{meant}")
