"""The options of commands. Those of a job are made from the fields of JobOptions."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from producer.cli.template_file import read_template
from rankmill.contract.base import parse_given
from rankmill.contract.job import JobOptions
from rankmill.devices.choice import check_device
from rankmill.errors import InputError
from rankmill.settings import settings
from rankmill.wrong_value import check_positive

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's output folder or its id")
]


def positive(
    context: typer.Context, parameter: typer.CallbackParam, value: float | None
) -> float | None:
    """Return an option's value, a positive number.

    Raises:
        InputError: it is 0, negative, infinite or not a number.
    """
    check_positive(parameter.opts[0], value)
    return value


PriceFlag = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour", callback=positive, help="Price of a device for an hour, for the cost"
    ),
]


def _use_device(wanted: str | None) -> str | None:
    """Set RANKMILL_DEVICE for this process and those that it starts."""
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
        show_default="RANKMILL_DEVICE, or auto",
        help="Device to score on: auto, cpu, cuda or cuda:N",
        rich_help_panel="Speed",
    ),
]

_FLAGS = {"model_id": "--model", "model_revision": "--revision"}
_ARGUMENTS = {"input_uri": "input", "output_uri": "output"}
_HELPS = {
    "input": "Parquet, Arrow, JSONL, CSV, TSV, TREC run, Delta or Iceberg; a file, folder, glob or "
    "a comma-separated list of these, on disk, s3:// or hf://",
    "output": "Folder for the result, on disk or s3://",
}
# The panels of the help, in their order.
_PANELS: dict[str, tuple[str, ...]] = {
    "Input": (
        *("layout", "queries", "corpus", "columns", "query_col", "document_col", "title_col"),
        *("query_id_col", "doc_id_col", "cluster"),
        *("input_version", "queries_version", "corpus_version"),
    ),
    "Model": ("model_id", "model_revision", "precision", "activation"),
    "Prompt": (
        *("prompt", "prompt_col", "chat_template", "input_template", "yes_token", "no_token"),
        *("query_prefix", "document_prefix"),
    ),
    "Lengths": (
        *("max_length", "long_docs", "passage_tokens", "passage_stride"),
        *("max_query_tokens", "max_document_tokens"),
    ),
    "Output": ("top_k", "keep_cols", "explode", "trec_run", "for_reuse"),
    "Fusion": ("fuse", "fuse_col", "fuse_k", "fuse_weight"),
    "Speed": ("reuse_from", "shard_pairs", "max_batch_tokens", "priority"),
    "Limits": ("max_reject_rate", "duplicates", "damaged"),
}
_LISTS = {"keep_cols", "columns"}
# Given as a file, since workers see none of the producer's; the job has its text.
_FILES = {"chat_template", "input_template"}


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command INPUT, OUTPUT and every job option, and call it with their `spec`.

    A command whose `spec` is a JobOptions gets no OUTPUT. A parameter before `spec` comes before
    INPUT. A value that the spec refuses raises InputError with the flag's name.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    first = [own.pop(name) for name in list(own)[: list(own).index("spec")]]
    contract: type[JobOptions] = own.pop("spec").annotation
    places, options = _places(contract), _job_parameters()

    def with_spec(**arguments: Any) -> None:
        values = {
            field: arguments.pop(name) for field, name in _ARGUMENTS.items() if name in places
        }
        for name in options:
            value = arguments.pop(name)
            if value is not None:
                if name in _LISTS:
                    value = tuple(value.split(","))
                elif name in _FILES:
                    value = read_template(flag(name), value)
                values[name] = value
        command(spec=parse_given(contract, values, "", flag), **arguments)

    parameters = [
        *first,
        *places.values(),
        *options.values(),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.values()),
    ]
    # inspect.signature, which typer calls, reads it first (PEP 362). No function type declares it.
    with_spec.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_spec.__annotations__ = {each.name: each.annotation for each in parameters}
    with_spec.__name__ = command.__name__
    with_spec.__doc__ = command.__doc__
    return with_spec


def flag(field_name: str) -> str:
    """Return the name of a job option on the command line."""
    if field_name in _ARGUMENTS:
        return _ARGUMENTS[field_name].upper()
    return _FLAGS.get(field_name, "--" + field_name.replace("_", "-"))


def _places(contract: type[JobOptions]) -> dict[str, inspect.Parameter]:
    return {
        name: inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=str,
            default=typer.Argument(
                ..., metavar=name.upper(), help=_HELPS[name], show_default=False
            ),
        )
        for field, name in _ARGUMENTS.items()
        if field in contract.model_fields
    }


def _job_parameters() -> dict[str, inspect.Parameter]:
    parameters = {}
    for panel, names in _PANELS.items():
        for name in names:
            field = JobOptions.model_fields[name]
            option = typer.Option(
                field.default,
                flag(name),
                help=field.description,
                show_default=meaning_unset(name) or True,
                rich_help_panel=panel,
                metavar="FILE" if name in _FILES else None,
            )
            parameters[name] = inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=str | None if name in _LISTS else field.annotation,
                default=option,
            )
    return parameters


def meaning_unset(field_name: str) -> str:
    """Return what a job option without a value means; empty where its default says it."""
    extra = JobOptions.model_fields[field_name].json_schema_extra
    return str(extra["unset"]) if isinstance(extra, dict) else ""
