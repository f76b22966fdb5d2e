"""A DuckDB database that spills to disk, takes and returns Arrow tables, and has no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from rankmill.devices.cores import n_usable_cores
from rankmill.errors import InputError, StorageRefused, is_memory_shortage, unexpected

# The size of DuckDB's own vectors; more would only make a result's batches larger.
_BATCH_ROWS = 2048


class Feed:
    """Tables that one query reads as `feed`; DuckDB would hide the errors that they raise."""

    def __init__(self, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        self.reader = pa.RecordBatchReader.from_batches(schema, self._batches(tables))
        self.error: Exception | None = None

    def _batches(self, tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.to_batches()
        except Exception as error:
            self.error = error
            raise


class Database:
    """A database in a folder, where it also spills, or a small one in memory.

    Args:
        folder: the database's folder; None for one in memory.
        memory_limit: DuckDB's limit, such as `1GB`.
        purpose: completes "cannot …" in errors.
    """

    def __init__(
        self,
        folder: Path | None = None,
        memory_limit: str = "1GB",
        purpose: str = "prepare the input",
    ) -> None:
        self._folder = folder
        self._memory_limit = memory_limit
        self._purpose = purpose

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if "_connection" in self.__dict__:
            self._connection.close()

    def run(self, statement: str, feed: Feed | None = None) -> None:
        """Run a statement without a result.

        Raises:
            StorageRefused: the disk is full, or the memory limit is too small.
        """
        with self._errors(feed):
            self._connect(feed).execute(statement).fetchall()

    def rows(self, query: str, feed: Feed | None = None) -> list[tuple[Any, ...]]:
        """Return a query's rows as tuples; errors as of `run`."""
        with self._errors(feed):
            return list(self._connect(feed).sql(query).fetchall())

    def tables(self, query: str, feed: Feed | None = None) -> Iterator[pa.Table]:
        """Yield a query's rows, 2048 at a time, with large strings; errors as of `run`."""
        with self._errors(feed):
            for batch in self._connect(feed).sql(query).to_arrow_reader(_BATCH_ROWS):
                yield pa.Table.from_batches([batch])

    def _connect(self, feed: Feed | None) -> Any:
        if feed is not None:
            self._connection.register("feed", feed.reader)
        return self._connection

    @cached_property
    def _connection(self) -> Any:
        # Most jobs need no DuckDB, nor does a machine that only submits such jobs.
        try:
            import duckdb
        except ImportError as error:
            raise InputError(
                f"cannot {self._purpose} without DuckDB: install the extra `prepare`"
            ) from error
        place = ":memory:" if self._folder is None else self._folder / "database"
        configuration: dict[str, str | bool | int | float | list[str]] = {
            "threads": n_usable_cores(),
            "memory_limit": self._memory_limit,
            "temp_directory": "" if self._folder is None else str(self._folder / "spilled"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "arrow_large_buffer_size": True,
            # A feed's size is unknown; the table on the right is the one to hold in memory.
            "disabled_optimizers": "join_order,build_side_probe_side",
        }
        connection = duckdb.connect(place, config=configuration)
        # The bar would go to stdout. Without external access, temp_directory must be set above.
        for setting in ("enable_progress_bar", "enable_external_access"):
            connection.execute(f"set {setting} = false").fetchall()
        return connection

    @contextmanager
    def _errors(self, feed: Feed | None) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            if feed is not None and feed.error is not None:
                raise feed.error from error
            reason = str(error).partition("\n")[0]
            is_at_limit = reason.endswith(" used)")  # of `memory_limit`: a retry would not help
            if is_memory_shortage(error) and not is_at_limit:
                raise unexpected(error) from error
            if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
                raise StorageRefused(f"cannot {self._purpose}: {reason}") from error
            raise
