"""Turn errors of the libraries that read a model's folder into one line that names it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class UnusableFolder(ValueError):
    """The folder is not the cross-encoder that its files promise; the message is one line."""


class UnusableOption(UnusableFolder):
    """A job's option does not fit the folder; another host would refuse it, too."""


_LONGEST_MESSAGE = 300
_CODE = re.compile("trust_remote_code|execute the (configuration|modeling|tokenization) file")


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Convert any error of the libraries on a bad file into UnusableFolder.

    Only read files inside it: errors of forwards and devices are not the folder's.
    """
    try:
        yield
    except (UnusableFolder, MemoryError):
        raise
    except BaseException as error:
        # The Rust libraries panic on some files; a panic is not an Exception in Python.
        is_panic = type(error).__name__ == "PanicException"
        if not is_panic and not isinstance(error, Exception):
            raise
        if _CODE.search(str(error)):
            raise UnusableFolder(
                f"{folder}: brings Python code of its own, which runs only where the operator "
                "lists the model in RANKMILL_REMOTE_CODE_MODELS"
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = lines[0] if lines else "no message"
        if message.endswith(":") and len(lines) > 1:
            message = f"{message} {lines[1]}"
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[:_LONGEST_MESSAGE]}…"
        raise UnusableFolder(
            f"{folder}: {what} cannot be read: {type(error).__name__}: {message}"
        ) from error


@contextmanager
def silent() -> Iterator[None]:
    """Leave out transformers' progress bar and warnings; the checks here name what is wrong."""
    from transformers.utils import logging  # transformers is slow to import

    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Stop Python code of this thread at its next line after some seconds.

    Raises:
        TimeoutError: the code ran longer.
    """
    until = time.monotonic() + seconds
    before = sys.gettrace()

    def check(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > until:
            raise TimeoutError(f"{what} does not end within {seconds:g} s")
        return check

    sys.settrace(check)
    try:
        yield
    finally:
        sys.settrace(before)
