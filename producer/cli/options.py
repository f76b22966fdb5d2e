"""The command line's options: a job's are JobOptions' fields, so that the two cannot differ."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rankmill.contract.base import parse
from rankmill.contract.job import JobOptions
from rankmill.devices.choice import check_device
from rankmill.errors import InputError
from rankmill.settings import settings

JsonFlag = Annotated[bool, typer.Option("--json", help="Print facts as JSON on stdout")]
JobArgument = Annotated[str, typer.Argument(help="The job's output folder or its id")]


def _use_device(wanted: str | None) -> str | None:
    """Make it the setting of this process and of those that it starts."""
    if wanted is not None:
        try:
            os.environ["RANKMILL_DEVICE"] = check_device(wanted)
        except ValueError as error:
            raise InputError(f"--device {error}") from None
        settings.cache_clear()
    return wanted


DeviceFlag = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=_use_device,
        show_default=False,
        help="auto, cpu, cuda or cuda:N  [RANKMILL_DEVICE]",
    ),
]

_FLAGS = {"model_id": "--model", "model_revision": "--revision"}
_ARGUMENTS = {"input_uri": "input", "output_uri": "output"}
_HELPS = {"input": "A Parquet file, folder or glob", "output": "The folder for the result"}
_NOT_FLAGS = {"version", *_ARGUMENTS}
_LISTS = {"keep_cols"}


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command INPUT, OUTPUT and every job option; it is called with `spec` in their place.

    A command whose `spec` is a JobOptions gets no OUTPUT; a parameter before `spec` comes before
    INPUT. A value that the spec refuses raises InputError naming the flag.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    first = [own.pop(name) for name in list(own)[: list(own).index("spec")]]
    contract: type[JobOptions] = own.pop("spec").annotation
    places, options = _places(contract), _job_parameters()

    def with_spec(**given: Any) -> None:
        values = {field: given.pop(name) for field, name in _ARGUMENTS.items() if name in places}
        for name in options:
            value = given.pop(name)
            if value is not None:
                values[name] = tuple(value.split(",")) if name in _LISTS else value
        command(spec=parse(contract, values, "", flag), **given)

    parameters = [
        *first,
        *places.values(),
        *options.values(),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.values()),
    ]
    # Where inspect.signature, and so typer, looks first (PEP 362); no type of a function has it.
    with_spec.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_spec.__annotations__ = {each.name: each.annotation for each in parameters}
    with_spec.__name__ = command.__name__
    with_spec.__doc__ = command.__doc__
    return with_spec


def flag(field_name: str) -> str:
    """The command line's name of a job option."""
    if field_name in _ARGUMENTS:
        return _ARGUMENTS[field_name].upper()
    return _FLAGS.get(field_name, "--" + field_name.replace("_", "-"))


def _places(contract: type[JobOptions]) -> dict[str, inspect.Parameter]:
    return {
        name: inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=str,
            default=typer.Argument(..., help=_HELPS[name], show_default=False),
        )
        for field, name in _ARGUMENTS.items()
        if field in contract.model_fields
    }


def _job_parameters() -> dict[str, inspect.Parameter]:
    return {
        name: inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=str | None if name in _LISTS else field.annotation,
            default=typer.Option(
                field.default,
                flag(name),
                help=field.description,
            ),
        )
        for name, field in JobOptions.model_fields.items()
        if name not in _NOT_FLAGS
    }
