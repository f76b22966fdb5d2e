"""An estimate's arithmetic worked out on paper, and its sample on real files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from producer.cli.estimate_view import estimate_view
from producer.estimates import groups as groups_module
from producer.estimates.estimate import Estimate
from producer.estimates.forecast import (
    Pace,
    SeenRows,
    Spread,
    Tokens,
    histogram,
    padding_share,
    tokens_of,
)
from producer.estimates.groups import counted, group_sizes
from producer.estimates.sample import Sample, read_sample, sample_places
from producer.inputs.source import Source, read_source
from rankmill.contract.estimate import Calibration, Measurement
from rankmill.contract.plan import Columns
from rankmill.errors import InputError
from rankmill.tables.row_bytes import decoded_bytes
from tests.support.inputs import pairs, write

BY_ID = Columns(query="query", document="document", query_id="query_id", doc_id=None, kept={})
BY_TEXT = BY_ID.model_copy(update={"query_id": None})


def measured(n_tokens: list[int], **changes: object) -> Measurement:
    values: dict[str, object] = {
        "refused": {},
        "n_tokens": n_tokens,
        "truncated": [n == max(n_tokens) for n in n_tokens],
        "path": "packed",
        "path_reason": "",
        "precision": "fp32",
        "max_length": 64,
        "device": "cpu",
        "calibration": None,
    }
    return Measurement.model_validate(values | changes)


def sampled(rows: list[tuple[str | None, str]], sizes: tuple[int, ...], n_rows: int) -> Sample:
    queries, documents = zip(*rows, strict=True)
    table = pa.table({"query": pa.array(queries, pa.string()), "document": list(documents)})
    return Sample(table, sizes, n_rows)


@given(n_rows=st.integers(0, 10**7), n_wanted=st.integers(1, 10**5))
@example(n_rows=42, n_wanted=41)
def test_places_are_apart_in_order_and_hold_what_was_asked(n_rows: int, n_wanted: int) -> None:
    places = sample_places(n_rows, n_wanted)
    assert sum(map(len, places)) == min(n_rows, n_wanted)
    edges = [0, *(edge for place in places for edge in (place.start, place.stop)), n_rows]
    assert edges == sorted(edges)
    if n_rows > n_wanted:
        sizes = [len(place) for place in places]
        gaps = [b.start - a.stop for a, b in pairwise(places)]
        assert max(sizes) - min(sizes) <= 1
        assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize("row_group_size", [29, 1000])
def test_a_sample_is_the_rows_of_its_places_through_all_files_and_row_groups(
    tmp_path: Path, row_group_size: int
) -> None:
    rows = pairs(40, 25)
    for at, part in enumerate((rows[:333], rows[333:340], rows[340:])):
        path = tmp_path / f"lang={'de' if at else 'en'}" / f"{at}.parquet"
        write(part, path, row_group_size=row_group_size)
    source = read_source(str(tmp_path))
    ordered = rows[333:] + rows[:333]  # de comes before en
    for n_wanted in (1, 7, 100, 999, 1000, 5000):
        sample = read_sample(source, ["doc_id", "lang"], n_wanted, "fail")
        numbers = [row for place in sample_places(1000, n_wanted) for row in place]
        assert sample.table["doc_id"].to_pylist() == [ordered[row]["doc_id"] for row in numbers]
        assert sample.table["lang"].to_pylist() == ["de" if row < 667 else "en" for row in numbers]
        assert sample.is_all == (n_wanted >= 1000)
        assert sum(sample.sizes) == len(numbers)


@pytest.mark.parametrize("use_dictionary", [False, True])  # which hides how large the rows are
def test_a_sample_has_as_many_bytes_as_it_may_from_all_places(
    tmp_path: Path, use_dictionary: bool
) -> None:
    rows = [{"n": n, "document": str(n % 7) * 1000} for n in range(5000)]
    path = write(rows, tmp_path / "in.parquet", use_dictionary=use_dictionary)
    source = read_source(str(path))
    sample = read_sample(source, ["n", "document"], 4096, "fail", max_bytes=320_000)
    assert 250 <= sample.table.num_rows <= 320
    assert decoded_bytes(sample.table) <= 320_000
    assert len(sample.sizes) == 16 and not sample.is_all
    for place in sample.places():
        numbers = sample.table["n"][place].to_pylist()
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert sample.table["n"].to_pylist()[-1] > 4000


def test_a_key_that_the_folder_names_is_counted(tmp_path: Path) -> None:
    for name, n_rows in (("a", 3), ("b", 5)):
        rows = [{"query": "q", "document": "d"}] * n_rows
        write(rows, tmp_path / f"query_id={name}" / "0.parquet")
    source = read_source(str(tmp_path))
    sample = read_sample(source, ["query_id"], 8, "fail")
    found = group_sizes(source, BY_ID, sample, "fail", cluster=False)
    assert found.sizes is not None
    assert found.sizes.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("chunks", "sizes", "n_returning"),
    [
        ([["a", "a", "b"], ["b", "b", "c"]], [2, 3, 1], 0),
        ([["a", None, "a"], [None], [None, "b"]], [5, 1], 0),  # no key goes with the one before
        ([[None, None, "a"]], [2, 1], 0),
        ([["a", "b", "a"], ["a", "b"]], [1, 1, 2, 1], 2),
        ([[]], [], 0),
    ],
)
def test_groups_are_runs_of_equal_keys(
    chunks: list[list[str | None]], sizes: list[int], n_returning: int
) -> None:
    keys = [pa.chunked_array([pa.array(chunk, pa.string())]) for chunk in chunks]
    found = counted(keys, BY_ID)
    assert found.sizes is not None
    assert (found.n_groups, found.sizes.tolist()) == (len(sizes), sizes)
    assert found.n_returning == n_returning


def test_scattered_rows_of_a_query_are_one_group_where_the_job_clusters() -> None:
    keys = pa.chunked_array([["b", "a", "b", "b", "a", "c"]])
    found = counted([keys], BY_ID, cluster=True)
    assert found.sizes is not None
    assert sorted(found.sizes.tolist()) == [1, 2, 3]
    assert found.n_returning == 2


def test_a_blank_query_is_no_key_where_its_text_is_the_key() -> None:
    keys = pa.chunked_array([["a", " ", "", "b"]])
    by_text, by_id = counted([keys], BY_TEXT), counted([keys], BY_ID)
    assert (by_text.n_groups, by_id.n_groups) == (2, 4)


def test_groups_of_a_huge_input_are_inferred_from_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_source(str(write(pairs(200, 10), tmp_path / "in.parquet")))
    sample = read_sample(source, ["query_id"], 640, "fail")
    monkeypatch.setattr(groups_module, "_MAX_SCANNED_ROWS", 1999)
    found = group_sizes(source, BY_ID, sample, "fail", cluster=False)
    assert found.sizes is None
    assert found.n_groups == pytest.approx(200, rel=0.03)


def test_groups_are_inferred_only_from_neighbours_within_a_place() -> None:
    sample = Sample(pa.table({"query_id": list("aabbcc")}), (3, 3), 101)
    source = Source((), pa.schema([]), np.array([10**9]), np.array([0]))
    found = group_sizes(source, BY_ID, sample, "fail", cluster=False)
    assert found.n_groups == 1 + 100 * 2 // 4  # aa|b, b|cc: 2 begin at 4 neighbours


def test_totals_are_the_samples_and_shares_are_of_what_is_scored() -> None:
    rows = [("q", "aaaa"), ("q", "bb"), (None, "c"), ("q", "aaaa"), ("q", "ccc"), ("q", "d")]
    sample = sampled(rows, (3, 3), 60)
    measurement = measured([10, 6, 10, 8, 6], refused={2: "query is null"})
    seen = SeenRows.of(sample, BY_TEXT, measurement)
    assert seen.n_tokens.tolist() == [10, 6, 0, 10, 8, 6]
    assert seen.n_chars.tolist() == [5, 3, 0, 5, 4, 2]
    assert seen.duplicate_share == 1 / 6
    tokens = tokens_of(sample, seen, measurement)
    assert tokens is not None
    assert tokens.n_tokens == 400  # 40 of 6 rows, of 60
    assert tokens.lengths == Spread(min=6, median=8, max=10)
    assert tokens.truncated_share == 0.4
    # The places' means are 16/3 and 24/3: a deviation of 8/3 / √2, over √2, over their mean 20/3.
    assert tokens.error_share == pytest.approx(2 * (8 / 3) / 2 / (20 / 3))


def test_the_error_is_nothing_for_all_rows_and_unknown_for_one_place() -> None:
    rows = [("q", "a"), ("q", "bb")]
    for n_rows, error in ((2, 0.0), (3, None)):
        sample = sampled(rows, (2,), n_rows)
        measurement = measured([3, 4])
        tokens = tokens_of(sample, SeenRows.of(sample, BY_TEXT, measurement), measurement)
        assert tokens is not None
        assert tokens.error_share == error


def test_a_calibrated_pace_goes_by_tokens_and_counts_equal_pairs_once() -> None:
    sample = sampled([("q", "a"), ("q", "a"), ("q", "bb"), ("q", "c")], (4,), 400)
    measurement = measured([10, 10, 20, 30])
    seen = SeenRows.of(sample, BY_TEXT, measurement)
    calibration = Calibration(n_pairs=5, n_tokens=900, seconds=3.0)
    # 60 tokens make 4 rows, and 300 tokens pass in a second.
    assert seen.pairs_per_s(calibration, 4.0) == pytest.approx(20)
    pace = Pace.of(20.0, 400, 4, calibration)
    assert (pace.tokens_per_s, pace.n_calibrated_pairs) == (300, 5)
    assert pace.device_hours == pytest.approx(400 / 20 / 3600)
    assert pace.hours == pytest.approx(pace.device_hours / 4)


@pytest.mark.parametrize(
    ("candidates", "max_batch_tokens", "n_computed"), [(1, 10**6, 30), (4, 10**6, 15), (9, 40, 20)]
)
def test_a_shared_prefix_counts_once_for_a_query_in_a_batch(
    candidates: float, max_batch_tokens: int, n_computed: float
) -> None:
    """A pair has 30 tokens, 20 of them shared; a batch of 40 tokens holds a prefix and two more."""
    sample = sampled([("q", "a"), ("q", "bb")], (2,), 400)
    measurement = measured([30, 30], n_shared=[20, 20])
    seen = SeenRows.of(sample, BY_TEXT, measurement)
    calibration = Calibration(
        n_pairs=5,
        n_tokens=900,
        seconds=3.0,
        n_computed=600,
        max_batch_tokens=max_batch_tokens,
    )
    assert seen.pairs_per_s(calibration, candidates) == pytest.approx(200 / n_computed)


def test_padding_is_to_the_longest_of_32_by_characters() -> None:
    # Longest texts first: 32 pairs padded to 10 tokens, then the one of 20 on its own.
    lengths = np.array([5] + [10] * 31 + [20])
    n_chars = np.array([60] + [50] * 31 + [40])
    assert padding_share(lengths, n_chars) == pytest.approx(1 - 335 / (32 * 10 + 20))
    assert padding_share(np.array([7]), np.array([3])) == 0


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=200))
def test_bins_hold_every_pair_once(lengths: list[int]) -> None:
    bins = histogram(np.array(lengths))
    assert len(bins) <= 12
    assert (bins[0].start, bins[-1].stop) == (min(lengths), max(lengths) + 1)
    assert all(a.stop == b.start for a, b in pairwise(bins))
    for each in bins:
        assert each.n_pairs == sum(each.start <= n < each.stop for n in lengths)


def large() -> Estimate:
    return Estimate(
        input_uri="s3://bucket/in",
        n_files=12_345,
        n_bytes=4 * 10**12,
        n_rows=2_000_000_000,
        n_query_groups=20_000_000,
        candidates=Spread(min=1, median=99.5, max=1_000_000),
        n_returning_groups=1234,
        n_shards=61_036,
        n_sample_rows=4096,
        n_sample_places=16,
        rejected_by_reason={"query is null": 12, "document is not UTF-8": 7},
        duplicate_share=0.123,
        model_id="a-rather-long-owner/and-a-very-long-name-for-a-reranker-of-many-languages",
        path="padded",
        path_reason="no packed forward for megatron-bert",
        precision="bf16",
        device="NVIDIA H200",
        tokens=Tokens(
            n_tokens=1_024_000_000_000,
            error_share=0.034,
            max_length=8192,
            lengths=Spread(min=5, median=512.5, max=8192),
            histogram=histogram(np.array([5, 700, 8192, 8192])),
            truncated_share=0.0567,
            padding_share=0.345,
        ),
        pace=Pace(
            pairs_per_s=4321.5,
            tokens_per_s=2_000_000,
            n_calibrated_pairs=4096,
            device_hours=128.55,
            n_devices=8,
            hours=16.07,
        ),
    )


def shown(estimate: Estimate) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(estimate_view(estimate))
    return capture.get()


def test_the_view_of_a_large_estimate_fits_in_80_columns() -> None:
    text = shown(large())
    assert all(len(line) <= 80 for line in text.splitlines())
    together = " ".join(text.split())
    for fact in (
        "1,024,000,000,000 ± 3.4%",
        "16 h 04 min on 8 devices",
        "5.7%",
        "12 to be",
        "4.0 TB",
    ):
        assert fact in together
    assert "█" in text and "50.0%" in text


def test_what_is_not_known_is_said() -> None:
    changes = {"candidates": None, "tokens": None, "pace": None, "n_returning_groups": 0}
    text = " ".join(shown(large().model_copy(update=changes)).split())
    assert "about 20,000,000, with 100.0 candidates on average" in text
    assert "nothing is tokenized" in text
    assert "--pairs-per-s" in text


def test_a_damaged_file_is_named_or_its_rows_set_aside(tmp_path: Path) -> None:
    path = write(pairs(6, 5), tmp_path / "in.parquet", row_group_size=10)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    source = read_source(str(path))
    with pytest.raises(InputError, match=r"row group 0 cannot be read.*--damaged reject"):
        read_sample(source, ["query_id"], 30, "fail")
    sample = read_sample(source, ["query_id"], 30, "reject")
    assert sample.table["_refusal"].to_pylist() == ["row group 0 is damaged"] * 10 + [None] * 20
    found = group_sizes(source, BY_ID, sample, "reject", cluster=False)
    assert found.sizes is not None
    assert found.sizes.tolist() == [10, 5, 5, 5, 5]


def test_a_pace_that_was_given_needs_no_tokens() -> None:
    pace = Pace.of(100.0, 720_000, 2, None)
    assert (pace.device_hours, pace.hours, pace.tokens_per_s) == (2.0, 1.0, None)
