"""Job options of the command line, made from JobSpec's fields so that the two cannot differ."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer

from rankmill.spec import JobSpec, parse

_FLAGS = {"model_id": "--model", "model_revision": "--revision"}
_ARGUMENTS = ("input_uri", "output_uri")
_NOT_FLAGS = {"version", *_ARGUMENTS}
_LISTS = {"keep_cols"}


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command INPUT, OUTPUT and every job option; it is called with `spec` in their place.

    A value that JobSpec refuses raises InputError naming the flag.
    """

    def with_spec(input: str, output: str, **given: Any) -> None:
        options = {name: given.pop(name) for name in _job_parameters()}
        values = {
            name: tuple(value.split(",")) if name in _LISTS else value
            for name, value in options.items()
            if value is not None
        }
        values |= {"input_uri": input, "output_uri": output}
        command(spec=parse(JobSpec, values, "job options"), **given)

    own = {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "spec"
    }
    parameters = [*_places(), *_job_parameters().values(), *own.values()]
    with_spec.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_spec.__annotations__ = {each.name: each.annotation for each in parameters}
    with_spec.__name__ = command.__name__
    with_spec.__doc__ = command.__doc__
    return with_spec


def flag(field_name: str) -> str:
    """The command line's name of a JobSpec field."""
    return _FLAGS.get(field_name, "--" + field_name.replace("_", "-"))


def _places() -> list[inspect.Parameter]:
    helps = {"input": "A Parquet file, folder or glob", "output": "The folder for the result"}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=str,
            default=typer.Argument(..., help=text, show_default=False),
        )
        for name, text in helps.items()
    ]


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
        for name, field in JobSpec.model_fields.items()
        if name not in _NOT_FLAGS
    }
