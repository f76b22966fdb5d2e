"""A slip of the keyboard is one line on stderr that names it, and exit 2."""

from __future__ import annotations

import sys

import pytest

from producer.cli.app import main


def typed(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Run a command line in this process, and return its exit code and what it prints."""
    monkeypatch.setattr(sys, "argv", ["rankmill", *line.split()])
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("runn a b", "No such command 'runn'. Did you mean 'run'?; see rankmill --help"),
        ("run a", "Missing argument 'OUTPUT'; see rankmill run --help"),
        ("run a b c", "unexpected extra argument(s) (c); see rankmill run --help"),
        ("run a b --tok-k 3", "No such option: --tok-k (Possible options: --top-k); see rankmill"),
        ("run a b --top-k ten", "'--top-k': 'ten' should be a valid integer; see rankmill run"),
        ("run a b --precision fp64", "'--precision': 'fp64' is not one of 'auto', 'fp32'"),
        ("run a b --model", "'--model' requires an argument; see rankmill"),
        ("run a b --model=", "--model '' is empty"),
        ("flower --port 70000", "'--port': '70000' should be less than or equal to 65535; see"),
        ("worker --role control --model x", "--role control scores nothing; leave out --model"),
        ("export out", "Missing option '--to'; see rankmill export --help"),
        ("eval out --qrels a --folds 3", "--folds 3 needs --tune-fusion"),
        ("eval out --qrels a --seed 3", "--seed 3 needs --tune-fusion"),
        ("eval out --qrels a --tune-fusion --recall-at 3", "--recall-at has no effect with"),
        ("schedule ad", "No such command 'ad'. Did you mean 'add'?; see rankmill schedule --help"),
        ("models pul x", "Did you mean 'pull'?; see rankmill models --help"),
    ],
)
def test_a_slip_is_one_line(
    line: str, error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(line, monkeypatch, capsys)
    assert (code, out) == (2, "")
    [shown] = err.splitlines()
    assert shown.startswith("rankmill: ") and error in shown


@pytest.mark.parametrize("line", ["-h", "run -h", "schedule add --help", "--version"])
def test_help_is_asked_for_in_two_ways(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(line, monkeypatch, capsys)
    assert (code, err) == (0, "")
    assert out.startswith("rankmill 0" if line == "--version" else "Usage: rankmill")


@pytest.mark.parametrize("line", ["", "schedule", "models"])
def test_nothing_shows_the_help(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(line, monkeypatch, capsys)
    assert code == 2 and (out + err).startswith("Usage: rankmill")
