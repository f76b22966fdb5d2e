"""The contract of every store, on disk and on S3 servers over HTTP; then faults of S3."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Barrier, Thread
from typing import IO

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill import storage
from rankmill.errors import InputError, NoConditionalPuts, StorageRefused, StorageUnavailable
from rankmill.tables import parquet
from tests.conftest import forget_settings
from tests.support.s3 import BUCKET, SECRET, Faults


@pytest.fixture(params=["local", "s3", "localbucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a folder on disk, in moto (behind the proxy) and in LocalBucket."""
    if request.param == "local":
        return str(tmp_path)
    return str(request.getfixturevalue(request.param)) + "/a folder"


def test_a_written_file_is_read(folder: str) -> None:
    uri = storage.child(folder, "deep", "name with space.bin")
    assert storage.read_bytes(uri) is None and not storage.exists(uri)
    published = storage.publish(uri, lambda file: _write(file, b"content"))
    assert storage.read_bytes(uri) == b"content"
    assert published.n_bytes == storage.stat(uri).size_bytes == 7
    assert published.sha256 == hashlib.sha256(b"content").hexdigest()
    storage.write_bytes(uri, b"other")
    assert storage.read_bytes(uri) == b"other"


def test_a_failed_write_leaves_the_old_content(folder: str) -> None:
    uri = storage.child(folder, "file")
    storage.write_bytes(uri, b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.publish(uri, write)
    assert storage.read_bytes(uri) == b"old"
    assert storage.names(folder) == ["file"]


def test_one_of_many_writers_wins(folder: str) -> None:
    uri = storage.child(folder, "report")
    storage.write_bytes(storage.child(folder, "other"), b"")
    barrier, won = Barrier(6), []

    def write(n: int) -> None:
        barrier.wait()
        if storage.write_bytes_once(uri, b"%d" % n):
            won.append(n)

    threads = [Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_bytes(uri) == b"%d" % won[0]


def test_a_store_with_conditional_puts_is_accepted(folder: str) -> None:
    storage.check_conditional_puts(folder)
    assert storage.names(folder) == []


def test_a_store_without_conditional_puts_is_refused(rclone: str) -> None:
    with pytest.raises(NoConditionalPuts, match="two workers could commit one shard"):
        storage.check_conditional_puts(f"{rclone}/out")
    assert storage.names(rclone) == []


def test_names_are_directly_in_the_folder(folder: str) -> None:
    for name in ("b", "a", "sub/c", "sub/deeper/d"):
        storage.write_bytes(storage.child(folder, name), b"x")
    assert storage.names(folder) == ["a", "b", "sub"]
    assert storage.names(storage.child(folder, "sub")) == ["c", "deeper"]
    assert storage.names(storage.child(folder, "nowhere")) == []


def test_files_are_found_by_folder_glob_and_name(folder: str) -> None:
    for name in ("x/2.parquet", "x/1.parquet", "x/n.txt", "x/_own/3.parquet", "y/.h/4.parquet"):
        storage.write_bytes(storage.child(folder, name), b"x")

    def found(where: str) -> list[str]:
        files = storage.find_files(storage.child(folder, where), (".parquet",))
        return [file.uri.removeprefix(folder + "/") for file in files]

    assert (
        found("x")
        == found("x/?.parquet")
        == found("*/[0-9].par*")
        == [
            "x/1.parquet",
            "x/2.parquet",
        ]
    )
    assert found("**/*.parquet") == [
        "x/1.parquet",
        "x/2.parquet",
        "x/_own/3.parquet",
        "y/.h/4.parquet",
    ]
    assert found("x/n.txt") == ["x/n.txt"]
    for nothing in ("y", "x/9*", "nowhere"):
        with pytest.raises(InputError, match=r"no such file, and no \.parquet file under it"):
            found(nothing)


def test_commas_separate_places_if_the_whole_does_not_exist(folder: str) -> None:
    for name in ("a,b/x", "c/x"):
        storage.write_bytes(storage.child(folder, name), b"x")
    for one in ("a,b", "a,b/", "a,b/*", "c"):
        assert storage.places(f"{folder}/{one}") == [f"{folder}/{one}"]
    assert storage.places(f"{folder}/c,{folder}/a") == [f"{folder}/c", f"{folder}/a"]


def test_files_and_folders_are_removed(folder: str) -> None:
    for name in ("a", "alone", "sub/b", "sub/c/d", "subway"):
        storage.write_bytes(storage.child(folder, name), b"x")
    storage.remove(storage.child(folder, "sub"))
    storage.remove(storage.child(folder, "a"))
    storage.remove(storage.child(folder, "nothing"))
    storage.remove_file(storage.child(folder, "alone"))
    storage.remove_file(storage.child(folder, "nothing"))
    assert storage.names(folder) == ["subway"]


def test_a_file_is_read_at_any_position_until_it_changes(folder: str) -> None:
    uri = storage.child(folder, "file")
    content = bytes(range(256)) * 1000
    storage.write_bytes(uri, content)
    file = storage.stat(uri)
    with storage.open_file(file) as opened:
        for start, n_bytes in ((0, 10), (100_000, 7), (255_990, 100), (256_000, 5), (3, 0)):
            opened.seek(start)
            assert opened.read(n_bytes) == content[start : start + n_bytes]
    storage.write_bytes(uri, content[:-1] + b"!")
    if not folder.startswith("s3:"):  # a clock tick is too coarse for two writes in a row
        os.utime(uri, ns=(1, 1))
    with (
        pytest.raises(InputError, match="changed or was removed"),
        storage.open_file(file) as opened,
    ):
        opened.read(10)


def test_a_change_is_seen_in_a_store_without_conditions(s3: str, faults: Faults) -> None:
    storage.write_bytes(f"{s3}/file", b"content")
    file = storage.stat(f"{s3}/file")
    storage.write_bytes(f"{s3}/file", b"CONTENT")
    faults.ignores_conditions = True
    with (
        pytest.raises(InputError, match="changed or was removed"),
        storage.open_file(file) as opened,
    ):
        opened.read(3)


def test_lies_in(folder: str) -> None:
    assert storage.lies_in(storage.child(folder, "a", "b"), storage.child(folder, "a"))
    assert storage.lies_in(folder, folder)
    assert not storage.lies_in(storage.child(folder, "ab"), storage.child(folder, "a"))


def test_parquet_is_read_by_columns_and_rows(folder: str) -> None:
    table = pa.table({"a": range(10_000), "b": [f"text {n}" * 20 for n in range(10_000)]})
    uri = storage.child(folder, "t.parquet")
    storage.publish(uri, lambda file: pq.write_table(table, file, row_group_size=1500))
    file = storage.stat(uri)
    footer = parquet.read_footer(file, ["b"])
    assert footer.group_rows.tolist() == [1500] * 6 + [1000]
    read = pa.concat_tables(parquet.read_rows(file, ["a"], 4321, 1000))
    assert read["a"].to_pylist() == list(range(4321, 10_000))


def test_ranges_with_the_checksum_of_the_whole_need_a_setting(
    rclone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(checksums: str) -> None:
        monkeypatch.setenv("RANKMILL_S3_CHECKSUMS", checksums)
        forget_settings()
        storage.reconnect()

    uri = f"{rclone}/t.parquet"
    use("auto")  # the object is stored with its checksum
    storage.publish(uri, lambda file: pq.write_table(pa.table({"a": range(100_000)}), file, 1000))
    with pytest.raises(StorageUnavailable, match="set RANKMILL_S3_CHECKSUMS=when_required"):
        next(parquet.read_rows(storage.stat(uri), ["a"], 500, 4096))
    use("when_required")
    assert pa.concat_tables(parquet.read_rows(storage.stat(uri), ["a"], 500, 4096)).num_rows


@pytest.mark.parametrize("store", ["localbucket", "rclone"])
def test_any_name_is_read_back(request: pytest.FixtureRequest, store: str) -> None:
    bucket = request.getfixturevalue(store)
    named = ["a b", "a+b", "50%", "#1?", "é", "日本", "a&b=c", "x,y", "[z]", "it's"]
    for name in named:
        storage.write_bytes(f"{bucket}/names/{name}", name.encode())
    assert storage.names(f"{bucket}/names") == sorted(named)
    for file in storage.find_files(f"{bucket}/names/", ("",)):
        content = storage.read_bytes(file.uri)
        assert content is not None and content.decode() == file.uri.rpartition("/")[2]


def test_uploads_that_cannot_be_listed_are_left(rclone: str) -> None:
    storage.remove_unfinished(f"{rclone}/out")


@pytest.mark.parametrize("store", ["s3", "localbucket"])
def test_a_large_file_is_uploaded_in_parts(request: pytest.FixtureRequest, store: str) -> None:
    s3 = request.getfixturevalue(store)
    content = os.urandom(2**20) * 40
    uri = f"{s3}/large"
    storage.publish(uri, lambda file: _write(file, content))
    if store == "s3":  # LocalBucket's ETag does not show the parts
        assert storage.stat(uri).state.strip('"').endswith("-3")
    assert storage.read_bytes(uri) == content


def test_an_upload_that_fails_leaves_nothing(s3: str, faults: Faults) -> None:
    faults.planned = {"PUT": ["denied"] * 3}
    with pytest.raises(StorageRefused, match=f"cannot write {s3}/large: access is denied"):
        storage.publish(f"{s3}/large", lambda file: _write(file, b"x" * 2**25))
    assert storage.names(s3) == []
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)


def test_uploads_of_killed_writers_are_removed(s3: str) -> None:
    client = boto3.client("s3")
    client.create_multipart_upload(Bucket=BUCKET, Key="out/part-00000.parquet")
    client.create_multipart_upload(Bucket=BUCKET, Key="other")
    storage.remove_unfinished(f"{s3}/out")
    left = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [upload["Key"] for upload in left] == ["other"]


@pytest.mark.parametrize("fault", ["throttle", "reset", "cut"])
def test_transient_faults_are_retried(s3: str, faults: Faults, fault: str) -> None:
    storage.write_bytes(f"{s3}/file", b"content" * 1000)
    file = storage.stat(f"{s3}/file")
    faults.planned = {"GET": [fault, fault]}
    with storage.open_file(file) as opened:
        assert opened.read() == b"content" * 1000
    if fault != "cut":
        faults.planned = {"PUT": [fault, fault]}
        storage.write_bytes(f"{s3}/file", b"new")
        assert storage.read_bytes(f"{s3}/file") == b"new"


def test_a_lasting_throttle_is_a_transient_error(s3: str, faults: Faults) -> None:
    faults.planned = {"HEAD": ["throttle"] * 10}
    with pytest.raises(StorageUnavailable, match=f"cannot read {s3}/x"):
        storage.stat(f"{s3}/x")


def test_a_lost_answer_does_not_show_that_conditions_are_ignored(s3: str, faults: Faults) -> None:
    for planned in (["lost"], [None, "lost"]):
        faults.planned = {"PUT": planned}
        storage.check_conditional_puts(f"{s3}/out")
        assert not faults.planned["PUT"] and storage.names(s3) == []
    faults.ignores_conditions = True
    with pytest.raises(NoConditionalPuts):
        storage.check_conditional_puts(f"{s3}/out")
    assert storage.names(s3) == []


def test_expired_credentials_are_renewed(
    s3: str, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{s3}/file", b"content")
    faults.planned = {"GET": ["expired"]}
    with pytest.raises(StorageUnavailable, match="credentials have expired"):
        storage.read_bytes(f"{s3}/file")
    asked = []
    real = boto3.session.Session

    def session(**_: object) -> object:
        asked.append(True)
        return real()

    monkeypatch.setattr(boto3.session, "Session", session)
    assert storage.read_bytes(f"{s3}/file") == b"content"
    assert asked


def test_a_refusal_names_bucket_and_key(
    s3: str, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.planned = {"GET": ["denied"]}
    with pytest.raises(StorageRefused, match=rf"cannot read {s3}/a/b: access is denied"):
        storage.read_bytes(f"{s3}/a/b")
    with pytest.raises(StorageRefused, match=r"s3://no-such/x.*: there is no such bucket"):
        storage.find_files("s3://no-such/x/*", (".parquet",))
    with pytest.raises(InputError, match=r"s3:///x: no bucket"):
        storage.stat("s3:///x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    storage.reconnect()
    with pytest.raises(StorageRefused, match="Unable to locate credentials") as refused:
        storage.names(s3)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_ENDPOINT_URL_S3", f"me:{SECRET}@localhost:9000", "the S3 endpoint is not a URL; set"),
        ("AWS_ENDPOINT_URL_S3", f"http://me:{SECRET}@localhost:9x", "the S3 endpoint is not a URL"),
        ("AWS_ENDPOINT_URL_S3", "ftp://localhost", "the S3 endpoint is not a URL"),
        ("AWS_REGION", "no region", "Provided region_name 'no region' doesn't match"),
        ("AWS_CONFIG_FILE", "broken", "Unable to parse config file: .*broken$"),
        ("AWS_PROFILE", "unknown", r"The config profile \(unknown\) could not be found"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "x", "Unsupported .* for request_checksum_calc"),
    ],
)
def test_a_wrong_environment_is_one_line(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, message: str
) -> None:
    (tmp_path / "broken").write_text("[default\nregion = x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    storage.reconnect()
    with pytest.raises(StorageRefused, match=message) as refused:
        storage.stat(f"{s3}/x")
    assert "\n" not in str(refused.value) and SECRET not in str(refused.value)


def test_a_request_that_boto3_refuses_is_one_line(s3: str) -> None:
    with pytest.raises(StorageRefused, match=r"cannot read s3://arn:.*: .*"):
        storage.read_bytes("s3://arn:aws:nothing/x")


def test_a_footer_costs_one_request(s3: str, faults: Faults) -> None:
    table = pa.table({"a": range(200_000)})
    storage.publish(f"{s3}/t.parquet", lambda file: pq.write_table(table, file))
    [file] = storage.find_files(f"{s3}/*.parquet", (".parquet",))
    faults.n_requests = 0
    assert parquet.read_footer(file).n_rows == 200_000
    assert faults.n_requests == 1


@pytest.mark.parametrize("columns, n_requests", [(["a", "b", "c"], 1), (["b"], 1), (["a", "c"], 2)])
def test_a_row_group_costs_a_request_for_neighbouring_columns(
    s3: str, faults: Faults, columns: list[str], n_requests: int
) -> None:
    table = pa.table({name: np.random.default_rng(0).random(200_000) for name in "abc"})
    storage.publish(f"{s3}/t.parquet", lambda file: pq.write_table(table, file, 50_000))
    file = storage.stat(f"{s3}/t.parquet")
    faults.n_requests = 0
    read = pa.concat_tables(parquet.read_rows(file, columns, 60_000, 4096))
    assert read.equals(table.select(columns).slice(60_000))
    assert faults.n_requests == 1 + 3 * n_requests  # the footer, and three of four row groups


def test_only_a_large_file_costs_a_question_before_it_is_sent(s3: str, faults: Faults) -> None:
    for n_bytes, n_asked in ((1000, 0), (4 * 2**20, 0), (4 * 2**20 + 1, 1)):
        storage.write_bytes(f"{s3}/{n_bytes}", bytes(n_bytes))
        assert storage.read_bytes(f"{s3}/{n_bytes}") == bytes(n_bytes)
        assert faults.n_asked == n_asked


def test_another_scheme_is_refused() -> None:
    with pytest.raises(InputError, match=r"gs:// is not supported; give a path, file://, s3://"):
        storage.stat("gs://bucket/key")


def _write(file: IO[bytes], content: bytes) -> None:
    file.write(content)
