"""Footers with wrong claims are refused in a line; some would end the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankmill import storage
from rankmill.errors import InputError
from rankmill.tables.parquet import read_footer
from tests.support.hostile import files
from tests.support.hostile.bounded import ending


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("footer-60-1.parquet", "row group 0: Definition level histogram size mismatch"),
        ("footer-78-1.parquet", "row group 0: Definition level histogram size mismatch"),
        ("footer-82-5.parquet", "the name of a column is not UTF-8"),
    ],
)
def test_a_wrong_claim_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    dict(files.monsters())[name](path)

    def read() -> None:
        with pytest.raises(InputError, match=f"{name}: damaged Parquet, {reason}"):
            read_footer(storage.find_files(str(path), (".parquet",))[0], ["query", "document"])

    end = ending(read, tmp_path)  # in a fork, since it may be ended
    assert end.kind == "ok", end
