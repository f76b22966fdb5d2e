"""A template comes from a file: its text goes into the job, a wrong file is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from producer.cli.app import whole_app
from producer.cli.template_file import read_template
from rankmill.errors import InputError


def test_the_line_end_of_the_last_line_is_not_part_of_a_template(tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    file.write_bytes("\ufeffQ: {query}\r\nD: {document}\r\n\r\n".encode())
    assert read_template("--input-template", str(file)) == "Q: {query}\nD: {document}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff{query}{document}", "not UTF-8 text"),
        (b"x" * 400_001, "more than 400,000 bytes"),
    ],
)
def test_a_wrong_file_is_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_template("--input-template", str(file))
    assert str(caught.value).startswith(f"--input-template {file}: ")


def test_a_folder_is_no_template(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        read_template("--chat-template", str(tmp_path))


def test_the_command_line_names_the_flag_and_the_placeholder(tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    file.write_text("{query} {passage}")
    done = CliRunner().invoke(whole_app(), ["run", "in", "out", "--input-template", str(file)])
    assert "--input-template: unknown placeholder {passage}" in str(done.exception)
