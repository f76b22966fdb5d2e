"""Known scores are reused exactly, wherever rows have moved, and only from the same model."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producer.reuse.earlier import find_earlier
from rankmill.contract.job_id import job_id_for
from rankmill.contract.results import Manifest
from rankmill.errors import InputError
from rankmill.output import cleanup
from rankmill.output.output import Output
from rankmill.report import write_report
from tests.support.inputs import control, pairs, part_bytes, read_output, read_rejected
from tests.support.reused import done, job_of
from worker.engine.scorer import PairWindow, Scorer, WindowScores
from worker.models import LoadedModel
from worker.null_scorer import NullScorer
from worker.shard.group_checks import check_queries


class Seen:
    """Has the model score and notes the pairs that it was given."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def __call__(self, model: LoadedModel) -> LoadedModel:
        # It has as much of a scorer as a shard needs.
        return replace(model, scorer=_Noting(model.scorer, self.pairs))


class _Noting:
    def __init__(self, scorer: Scorer | NullScorer, seen: list[tuple[str, str]]) -> None:
        self._scorer, self._seen = scorer, seen

    @property
    def stats(self) -> Any:
        return self._scorer.stats

    def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
        def noted() -> Iterator[PairWindow]:
            for window in windows:
                self._seen.extend(zip(window.queries, window.documents, strict=True))
                yield window

        return self._scorer.score(noted())

    def have_weights_changed(self) -> bool:
        return self._scorer.have_weights_changed()


def night_two(rows: list[dict[str, Any]], n_changed: int) -> list[dict[str, Any]]:
    """Change some documents and all ids, and shuffle queries and candidates."""
    rng = random.Random(7)
    changed = {id(row) for row in rng.sample(rows, n_changed)}
    queries: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        document = f"{row['document']}, changed" if id(row) in changed else row["document"]
        moved = {**row, "query_id": f"n{row['query_id']}", "doc_id": f"n{row['doc_id']}"}
        queries.setdefault(row["query_id"], []).append({**moved, "document": document})
    groups = list(queries.values())
    rng.shuffle(groups)
    for group in groups:
        rng.shuffle(group)
    return [row for group in groups for row in group]


def scores_bytes(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(control(folder).glob("scores/*"))]


def reuse_of(manifest: Manifest) -> tuple[int, int, str | None]:
    assert manifest.reuse is not None
    return manifest.reuse.n_reused, manifest.reuse.n_new, manifest.reuse.refused


def test_reuse_gives_the_bytes_of_a_full_run_and_scores_only_new_pairs(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = pairs(40, 10)
    done(job_of(rows, tmp_path / "one", model_folder, for_reuse=True, shard_pairs=170))
    second = night_two(rows, 20)
    options = {"for_reuse": True, "shard_pairs": 90}
    done(job_of(second, tmp_path / "full", model_folder, **options))
    seen = Seen()
    spec = job_of(second, tmp_path / "two", model_folder, **options)
    manifest = done(spec.model_copy(update={"reuse_from": str(tmp_path / "one/out")}), seen)
    assert reuse_of(manifest) == (380, 20, None) and manifest.n_scored == 400
    assert manifest.reuse and manifest.reuse.remarks == ()
    assert len(seen.pairs) == 20 and all("changed" in document for _, document in seen.pairs)
    assert part_bytes(tmp_path / "two/out") == part_bytes(tmp_path / "full/out")
    assert scores_bytes(tmp_path / "two/out") == scores_bytes(tmp_path / "full/out")

    # A third night reuses what the second has reused.
    third = job_of(second, tmp_path / "three", model_folder, **options)
    manifest = done(third.model_copy(update={"reuse_from": str(tmp_path / "two/out")}))
    assert reuse_of(manifest) == (400, 0, None)
    assert part_bytes(tmp_path / "three/out") == part_bytes(tmp_path / "full/out")


@pytest.mark.parametrize("by_hash", [True, False])
def test_documents_in_passages_are_reused_with_their_best_passage(
    tmp_path: Path, model_folder: Path, by_hash: bool
) -> None:
    rows = [{**row, "title": "fast search"} for row in pairs(8, 6)]
    for at, row in enumerate(rows):
        row["document"] = " ".join([f"{row['document']}."] * (1 + at % 5))
    for row in rows[:6]:
        row["query"] = "word " * 40  # leaves no room
    options = {"long_docs": "max-passage", "max_length": 32, "max_reject_rate": 1.0}
    options |= {"keep_cols": ("query", "document", "title")}
    options |= {"for_reuse": True} if by_hash else {}
    first = done(job_of(rows, tmp_path / "one", model_folder, **options))
    assert first.n_rejected == 6

    second = night_two(rows, 0)
    scored = [row for row in second if row["query_id"] != "nq0000"]
    long = sorted(scored, key=lambda row: -len(row["document"]))
    # The same text, but what is repeated before each passage is another title.
    long[0]["title"], long[0]["document"] = "fast", f"search {long[0]['document']}"
    long[1]["document"] += " Changed."
    done(job_of(second, tmp_path / "full", model_folder, **options))
    spec = job_of(second, tmp_path / "two", model_folder, **options)
    manifest = done(spec.model_copy(update={"reuse_from": str(tmp_path / "one/out")}))
    assert reuse_of(manifest) == (len(rows) - 8, 2, None)
    assert manifest.rejects_by_reason == first.rejects_by_reason
    assert part_bytes(tmp_path / "two/out") == part_bytes(tmp_path / "full/out")
    assert scores_bytes(tmp_path / "two/out") == scores_bytes(tmp_path / "full/out")
    assert max(row["n_passages"] for row in read_output(tmp_path / "two/out")) > 1
    spec = job_of(scored, tmp_path / "three", model_folder, **options)
    third = spec.model_copy(update={"reuse_from": str(tmp_path / "two/out")})
    assert reuse_of(done(third)) == (len(scored), 0, None)
    other = spec.model_copy(update={"passage_stride": 4, "reuse_from": str(tmp_path / "one/out")})
    assert find_earlier(other)[1] == ("the earlier job differs in passage_stride (0 then, 4 now)")


def test_truncation_and_token_counts_come_along(tmp_path: Path, model_folder: Path) -> None:
    rows = pairs(5, 8)
    options = {"max_length": 12, "for_reuse": True}
    first = done(job_of(rows, tmp_path / "one", model_folder, **options))
    spec = job_of(rows, tmp_path / "two", model_folder, **options)
    second = done(spec.model_copy(update={"reuse_from": str(tmp_path / "one/out")}))
    assert 0 < first.n_truncated == second.n_truncated
    assert (first.n_tokens, first.n_query_groups) == (second.n_tokens, second.n_query_groups)
    assert part_bytes(tmp_path / "one/out") == part_bytes(tmp_path / "two/out")


def test_rows_cut_by_top_k_are_reused_where_hashes_were_kept(tmp_path: Path) -> None:
    rows = pairs(6, 9)
    spec = job_of(rows, tmp_path / "one", "null", for_reuse=True, top_k=2)
    assert done(spec).n_written == 12
    spec = job_of(rows, tmp_path / "two", "null:1e6", reuse_from=str(tmp_path / "one/out"))
    assert reuse_of(done(spec)) == (54, 0, None)
    assert len(read_output(tmp_path / "two/out")) == 54


def test_kept_texts_serve_for_reuse_where_no_hashes_were_kept(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("query", "document")} for row in pairs(6, 9)]
    first = job_of(rows, tmp_path / "one", "null", top_k=2)
    done(first)
    assert not (tmp_path / "one/_rankmill/out/scores").exists()
    spec = job_of(rows, tmp_path / "two", "null", reuse_from=str(tmp_path / "one/out"))
    # The rows that top_k cut are scored again.
    assert reuse_of(done(spec)) == (12, 42, None)
    done(job_of(rows, tmp_path / "full", "null"))
    assert part_bytes(tmp_path / "two/out") == part_bytes(tmp_path / "full/out")


def test_pairs_that_come_several_times_are_all_known(tmp_path: Path) -> None:
    rows = [{**row, "document": f"text {n % 3}"} for n, row in enumerate(pairs(4, 9))]
    done(job_of(rows, tmp_path / "one", "null", for_reuse=True))
    rows += [{**row, "query_id": "again", "doc_id": f"again{n}"} for n, row in enumerate(rows)]
    spec = job_of(rows, tmp_path / "two", "null", reuse_from=str(tmp_path / "one/out"))
    assert reuse_of(done(spec)) == (72, 0, None)


def test_rows_that_cannot_be_scored_are_rejected_again(tmp_path: Path) -> None:
    rows = pairs(3, 6)
    for at, text in ((2, ""), (7, None), (11, "  ")):
        rows[at]["document"] = text
    options = {"for_reuse": True, "max_reject_rate": 0.5}
    first = done(job_of(rows, tmp_path / "one", "null", **options))
    spec = job_of(rows, tmp_path / "two", "null", **options)
    second = done(spec.model_copy(update={"reuse_from": str(tmp_path / "one/out")}))
    assert reuse_of(second) == (15, 0, None)
    assert second.rejects_by_reason == first.rejects_by_reason and second.n_rejected == 3
    assert [row["row"] for row in read_rejected(tmp_path / "two/out")] == [2, 7, 11]


def test_another_model_reuses_nothing_and_says_why(tmp_path: Path, model_folder: Path) -> None:
    rows = pairs(6, 9)
    done(job_of(rows, tmp_path / "one", model_folder, for_reuse=True, max_length=64))
    spec = job_of(rows, tmp_path / "two", model_folder, reuse_from=str(tmp_path / "one/out"))
    reason = "the earlier job differs in max_length (64 then, "
    for options in ({"max_length": 16}, {"max_length": 32}):
        (n_reused, n_new, refused) = reuse_of(done(spec.model_copy(update=options)))
        assert (n_reused, n_new) == (0, 54) and refused and refused.startswith(reason)
        cleanup.remove_result(Output(spec.output_uri))
    n_reused, n_new, refused = reuse_of(done(spec.model_copy(update={"model_id": "null"})))
    assert (n_reused, n_new) == (0, 54)
    assert refused and refused.startswith("the earlier job differs in the weights, the tokenizer")


def test_of_two_ways_of_scoring_the_most_common_is_reused(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = pairs(30, 10)
    spec = job_of(rows, tmp_path / "one", model_folder, for_reuse=True, shard_pairs=100)
    done(spec)
    output = Output(spec.output_uri)
    report = output.read_report(1)
    manifest = output.read_manifest()
    assert report and manifest
    on_gpu = report.scoring.model_copy(update={"device": "cuda"})
    output.forget_shard(1)
    output.commit(report.model_copy(update={"scoring": on_gpu}))
    both = (*manifest.scoring, on_gpu)
    output.write_manifest(manifest.model_copy(update={"scoring": both}))
    again = job_of(rows, tmp_path / "two", model_folder, reuse_from=spec.output_uri)
    assert reuse_of(done(again)) == (200, 100, None)
    assert read_output(tmp_path / "two/out") == read_output(tmp_path / "one/out")


def test_reuse_does_not_change_which_job_it_is(tmp_path: Path) -> None:
    spec = job_of(pairs(1, 2), tmp_path, "null")
    assert job_id_for(spec, ()) == job_id_for(spec.model_copy(update={"reuse_from": "x"}), ())
    assert job_id_for(spec, ()) != job_id_for(spec.model_copy(update={"for_reuse": True}), ())


def test_windows_grow_so_that_the_model_gets_as_many_pairs_as_ever(tmp_path: Path) -> None:
    rows = pairs(60, 20)
    done(job_of(rows, tmp_path / "one", "null", for_reuse=True))
    for row in rows[::5]:
        row["document"] += ", changed"
    spec = job_of(rows, tmp_path / "two", "null", reuse_from=str(tmp_path / "one/out"))
    sizes: list[int] = []

    class Sized(NullScorer):
        def score(self, windows: Iterable[PairWindow]) -> Iterator[WindowScores]:
            def sized() -> Iterator[PairWindow]:
                for window in windows:
                    sizes.append(len(window.queries))
                    yield window

            return super().score(sized())

    manifest = done(spec, lambda model: replace(model, scorer=Sized(None)))
    assert manifest.n_scored == 1200 and sum(sizes) == 240
    # 64 rows fill a window of 64 where all are new, five times as many where a fifth is. A window
    # may be half full, so as to end where what was read does.
    assert min(sizes[:-1]) >= 32 and max(sizes) <= 64


def test_scattered_queries_are_found_although_something_was_prepared(tmp_path: Path) -> None:
    rows = pairs(8, 5)
    done(job_of(rows, tmp_path / "one", "null", for_reuse=True))
    rows = [*rows[:3], *rows[5:], *rows[3:5]]
    options = {"reuse_from": str(tmp_path / "one/out"), "shard_pairs": 10}
    spec = job_of(rows, tmp_path / "two", "null", **options)
    done(spec)
    with pytest.raises(InputError, match="'q0000' has rows in shards 0 and 3"):
        check_queries(Output(spec.output_uri).load_job())


def test_the_report_page_says_what_was_reused_or_why_nothing(
    tmp_path: Path, model_folder: Path
) -> None:
    rows = pairs(5, 4)
    done(job_of(rows, tmp_path / "one", model_folder, for_reuse=True))
    rows[0]["document"] = "changed"
    spec = job_of(rows, tmp_path / "two", model_folder, reuse_from=str(tmp_path / "one/out"))
    done(spec)
    assert "reused 19 95.0% not scored again" in words_on_page(Output(spec.output_uri))
    spec = job_of(rows, tmp_path / "three", "null", reuse_from=str(tmp_path / "one/out"))
    done(spec)
    assert "reused 0 the earlier job differs in the weights" in words_on_page(
        Output(spec.output_uri)
    )


def words_on_page(output: Output) -> str:
    write_report(output)
    return " ".join(re.sub(r"<[^>]+>", " ", Path(output.report_uri).read_text()).split())
