"""The page says what the scores changed, in words, with texts, and next to an earlier run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from producer.cli.app import whole_app
from producer.quality.job_page import write_page
from rankmill.contract.drift import Comparison
from rankmill.contract.reordering import DEPTH, RankScores, Reordering
from rankmill.errors import InputError
from rankmill.output.output import Output
from rankmill.report.changes import Changes
from rankmill.report.commands import result_commands
from tests.support.finished import finished, planned
from tests.support.inputs import write
from tests.support.scored import scored
from worker.finalize import make_manifest

HOSTILE = ("</script><script>alert(1)</script>", "\u202eevil\u202c right to left", "x" * 2**20)


def reordering(**changes: Any) -> Reordering:
    """Return one shard's summary: 100 queries of 20 rows whose order meant something."""
    return Reordering(
        **{
            **{"first_stage": "rows", "n_queries": 100, "n_new_first": 60, "correlations": 40.0},
            **{"n_deep": 100, "n_new": 250, "by_rank": RankScores(), "slices": (), "moved": ()},
            **changes,
        }
    )


def headline(found: Reordering, judged: tuple[Comparison, ...] = ()) -> str:
    changes = Changes()
    changes.add(found)
    return ". ".join(changes.headline(judged, "bm25"))


def test_the_headline_counts_what_is_new() -> None:
    assert headline(reordering()) == (
        "25% of the top tens are new. 250 of 1,000 places went to documents from below place 10. "
        "60 of 100 queries have another first document. The order before is that of the input's "
        "rows"
    )
    judged = Comparison(
        **{"measure": "nDCG@10", "before": 0.6112, "after": 0.6691, "p_value": 0.01},
        **{"n_better": 3, "n_worse": 1, "n_equal": 0},
    )
    assert headline(reordering(), (judged,)).startswith("nDCG@10 went from 0.611 to 0.669. 25%")


def test_the_headline_claims_nothing_where_there_was_no_order() -> None:
    assert "nothing to do with the scores" in headline(reordering(correlations=1.0))
    by_score = headline(reordering(correlations=1.0, first_stage="score"))
    assert "25% of" in by_score and "that of the input's column bm25" in by_score
    single = reordering(n_queries=0, n_new_first=0, n_deep=0, n_new=0, correlations=0.0)
    assert headline(single) == "Each query has one candidate, so nothing was reordered"
    shallow = reordering(n_deep=0, n_new=0, n_queries=1, n_new_first=1)
    assert headline(shallow).startswith("1 of 1 query has another first document")


def job_of(folder: Path, scores: list[list[float]], **options: Any) -> Output:
    """Finish a job whose documents are these scores."""
    rows = [
        {"query_id": f"q{q}", "doc_id": f"d{q}-{d}", "query": f"query {q}", "document": f"{score}"}
        for q, row in enumerate(scores)
        for d, score in enumerate(row)
    ]
    folder.mkdir()
    job = planned(rows, folder, **options)
    output = finished(job)
    output.write_manifest(make_manifest(job, list(output.reports(job.job_id))))
    return output


def words(output: Output) -> str:
    page = Path(output.report_uri).read_text()
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(text).split())


def test_queries_that_moved_have_places_ids_and_texts_also_of_several_shards(
    tmp_path: Path,
) -> None:
    still, turned = [float(20 - n) for n in range(20)], [float(n) for n in range(20)]
    output = job_of(tmp_path / "a b", [still, turned, still], shard_pairs=20)
    write_page(output, price_per_hour=3600)
    said = words(output)
    assert "33% of the top tens are new 10 of 30 places" in said
    assert "1 of 3 queries has another first document" in said
    assert "query 1 q1 now was document score 1 20 ▲ d1-19 19.0 19 2 19 ▲ d1-18 18.0 18" in said
    assert "18 3 ▼ d1-2 2.0 2 19 2 ▼ d1-1 1.0 1 20 1 ▼ d1-0 0.0 0" in said
    assert "query 0 q0 now was" not in said  # it did not move
    assert "device hours at 3600" in said


def test_the_commands_of_the_page_run_as_they_are(tmp_path: Path) -> None:
    old = job_of(tmp_path / "o l d", [[3.0, 2.0, 1.0]])
    output = job_of(tmp_path / "it's $new", [[1.0, 2.0, 3.0]])
    qrels = tmp_path / "the judgments.qrels"
    qrels.write_text("q0 0 d0-2 1\n")
    written = write_page(output, qrels=str(qrels), compare=old, price_per_hour=1.25)
    page = Path(written).read_text()
    commands = [unescape(each) for each in re.findall(r"<dd><code>(.*?)</code>", page)]
    assert [command.split()[1] for command in commands] == [
        *("-c", "eval", "export", "diff", "report"),
    ]
    first, *others = commands
    options = shlex.split(others[-1])[3:]
    assert options == [
        *("--qrels", str(qrels), "--compare", old.uri, "--price-per-hour", "1.25"),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", first], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0 and done.stdout.count("\n") == 3, done.stderr
    assert "'doc_id': 'd0-2'" in done.stdout.splitlines()[0]
    for command in others:
        program, *arguments = shlex.split(command)
        ended = CliRunner().invoke(whole_app(), arguments, catch_exceptions=False)
        assert (program, ended.exit_code) == ("rankmill", 0), command
    assert Path(written).read_text() == page


def test_a_page_offers_what_its_result_can_do(tmp_path: Path) -> None:
    rows = [{"query": "q", "document": str(n)} for n in range(3)]
    nameless = finished(planned(rows, tmp_path))
    commands = dict(result_commands(nameless.uri, nameless.read_plan()))
    assert list(commands.values()) == [f"rankmill export {nameless.uri} --to jsonl"]
    named = job_of(tmp_path / "named", [[1.0, 2.0]])
    assert [command for _, command in result_commands(named.uri, named.read_plan())] == [
        f"rankmill eval {named.uri} --qrels JUDGMENTS",
        f"rankmill export {named.uri} --to trec",
    ]


def test_the_page_leaves_out_a_measure_that_is_deeper_than_the_job_kept(tmp_path: Path) -> None:
    output = job_of(tmp_path / "cut", [[float(n) for n in range(12)]], top_k=10)
    qrels = tmp_path / "judgments.qrels"
    qrels.write_text("q0 0 d0-11 1\n")
    write_page(output, qrels=str(qrels))
    assert "R@10 0.0000 1.0000" in words(output) and "R@100: left out" in words(output)


def test_two_runs_are_side_by_side(tmp_path: Path) -> None:
    rising = [float(n) for n in range(12)]
    old = job_of(tmp_path / "old", [rising, rising])
    new = job_of(tmp_path / "new", [rising[::-1], rising], top_k=5)
    write_page(new, compare=old)
    said = words(new)
    assert f"output {old.uri} {new.uri}" in said and "top_k None 5" in said
    assert "Equal: model_id null" in said and "scored 24" in said
    assert f"before {old.uri}, model null" in said and "rank-biased overlap" in said
    assert "q0 # before after was" in said
    with pytest.raises(InputError, match=r"--compare .*: is the job of the page"):
        write_page(new, compare=new)


def test_hostile_texts_are_text_and_large_ones_are_cut(tmp_path: Path) -> None:
    job = scored(tmp_path)
    source = Path(job.spec.input_uri)
    rows = pq.read_table(source).to_pylist()
    for n, text in enumerate(HOSTILE * 10):
        rows[n].update(document=text, query=text)
    # The page reads the input again: give it another of the same shape.
    write(rows, source, row_group_size=4)
    stat = source.stat()
    plan = job.plan.model_copy(
        update={
            "files": tuple(
                each.model_copy(update={"size_bytes": stat.st_size, "state": str(stat.st_mtime_ns)})
                for each in job.plan.files
            )
        }
    )
    job.output.write_plan(plan)
    page = Path(write_page(job.output)).read_text()
    assert "<script" not in page and "x" * 1000 in page
    assert len(page) < 400_000
    assert "1,048,576 characters" in page


def test_an_input_that_has_gone_leaves_a_page_without_texts(tmp_path: Path) -> None:
    output = job_of(tmp_path / "job", [[1.0, 2.0, 3.0]])
    (tmp_path / "job" / "in.parquet").unlink()
    write_page(output)
    said = words(output)
    assert "a query of 3 rows, from row 0 of the input" in said
    assert "1 3 ▲ row 2 of the input 3" in said


def test_depth_is_the_ten_of_the_page() -> None:
    assert DEPTH == 10  # the page's words have it
