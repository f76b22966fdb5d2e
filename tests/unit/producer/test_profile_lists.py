"""Lists of a profile are written as flags take them."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer import profile


@pytest.mark.parametrize("name", ["columns", "keep_cols"])
@pytest.mark.parametrize("value", ['["a", "b"]', '"a,b"'])
def test_a_list_may_be_a_list_or_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    (tmp_path / "rankmill.toml").write_text(f"[job]\n{name} = {value}\n")
    monkeypatch.chdir(tmp_path)
    found = profile.current()
    assert found is not None and found.options == {name: "a,b"}
