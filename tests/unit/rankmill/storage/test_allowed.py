"""Places outside of RANKMILL_ALLOWED_PREFIXES are refused, also by tricks."""

from __future__ import annotations

import os
import posixpath
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rankmill import storage
from rankmill.errors import InputError, NotAllowed, StorageRefused, StorageUnavailable
from rankmill.settings import Settings, settings
from rankmill.storage.allowed import check_key, is_under
from rankmill.storage.endpoint import check_endpoint

Allow = Callable[..., None]
NAME = "RANKMILL_ALLOWED_PREFIXES"


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Allow]:
    def set_prefixes(*prefixes: object) -> None:
        monkeypatch.setenv(NAME, ",".join(map(str, prefixes)))
        settings.cache_clear()

    yield set_prefixes
    settings.cache_clear()


@pytest.fixture
def place(tmp_path: Path, allow: Allow) -> Path:
    """Make an allowed folder, with a secret next to it and links that lead there."""
    for name in ("data/in", "data2", "out"):
        (tmp_path / name).mkdir(parents=True)
    for secret in ("secret", "data2/secret", "data-secret"):
        (tmp_path / secret).write_bytes(b"secret")
    (tmp_path / "data" / "in" / "file").write_bytes(b"fine")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "data" / "folder-link").symlink_to(tmp_path / "data2")
    (tmp_path / "data" / "up").symlink_to("..")
    (tmp_path / "data" / "good-link").symlink_to("in/file")
    allow(tmp_path / "data", tmp_path / "out/")
    return tmp_path


REACHING_OUT = [
    "{0}/secret",
    "{0}/data/../secret",
    "{0}/data/in/../../secret",
    "{0}/data/nowhere/../../secret",
    "{0}/data/link",
    "{0}/data/up/secret",
    "{0}/data/folder-link/secret",
    "{0}/data/folder-link/../secret",
    "{0}/data2/secret",
    "{0}/data-secret",
    "{0}//data2/secret",
    "file://{0}/secret",
    "FILE://{0}/secret",
    "file://{0}/data/../secret",
    "/proc/self/root{0}/secret",
    "relative/secret",
    "s3://data/in/file",
]


@pytest.mark.parametrize("pattern", REACHING_OUT)
def test_every_call_refuses_a_place_outside(place: Path, pattern: str) -> None:
    uri = pattern.format(place)
    file = storage.FileStat(uri, 6, "1")
    for touch in (
        lambda: storage.read_bytes(uri),
        lambda: storage.exists(uri),
        lambda: storage.stat(uri),
        lambda: storage.names(uri),
        lambda: storage.open_file(file),
        lambda: storage.find_files(uri, ("",)),
        lambda: storage.write_bytes(uri, b"x"),
        lambda: storage.write_bytes_once(uri, b"x"),
        lambda: storage.remove(uri),
        lambda: storage.remove_unfinished(uri),
        lambda: storage.absolute(uri),
        lambda: storage.lies_in(str(place / "data"), uri),
    ):
        with pytest.raises(NotAllowed, match=NAME) as caught:
            touch()
        assert "\n" not in str(caught.value) and str(place / "data") in str(caught.value)
    assert (place / "secret").read_bytes() == b"secret"
    assert sorted(path.name for path in (place / "data2").iterdir()) == ["secret"]


def test_places_inside_are_allowed(place: Path) -> None:
    for name in ("in/file", "good-link", "up/data/in/file", "./in/../in/file"):
        assert storage.read_bytes(f"{place}/data/{name}") == b"fine"
    storage.write_bytes(f"{place}/out/new/deep/file", b"x")
    assert storage.names(f"{place}/out") == ["new"]
    assert storage.find_files(f"{place}/data/in", ("",))[0].uri == f"{place}/data/in/file"
    assert storage.places(f"{place}/data/in,{place}/out") == [f"{place}/data/in", f"{place}/out"]


@pytest.mark.parametrize("scheme", ["http", "https", "hdfs", "ftp", "gs", "abfs", "file+x"])
def test_other_schemes_are_refused(allow: Allow, scheme: str) -> None:
    allow("/")
    with pytest.raises(InputError, match="is not supported"):
        storage.read_bytes(f"{scheme}://somewhere/file")


@pytest.mark.parametrize(
    "pattern", ["{0}/*/secret", "{0}/data/../*", "{0}/data/**", "{0}/data/*/*"]
)
def test_globs_and_folders_do_not_lead_outside(place: Path, pattern: str) -> None:
    with pytest.raises(NotAllowed, match=NAME):
        storage.find_files(pattern.format(place), ("",))


def test_a_link_that_appears_later_is_checked_when_it_is_opened(place: Path) -> None:
    uri = f"{place}/data/in/file"
    file = storage.stat(uri)
    Path(uri).unlink()
    Path(uri).symlink_to(place / "secret")
    with pytest.raises(NotAllowed, match=NAME):
        storage.open_file(file)


def test_of_several_places_each_must_be_allowed(place: Path) -> None:
    for inside, outside in [("data/in", "secret"), ("data", "data2")]:
        places = storage.places(f"{place}/{inside},{place}/{outside}")
        assert places == [f"{place}/{inside}", f"{place}/{outside}"]
        with pytest.raises(NotAllowed):
            storage.exists(places[1])


@pytest.mark.parametrize("name", ["/data/\0/file", "/data/\ud800"])
def test_an_impossible_file_name_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match="is not a file name"):
        storage.exists(name)


def test_a_very_long_name_is_clipped(allow: Allow) -> None:
    allow("/data")
    with pytest.raises(InputError) as caught:
        storage.exists("/" + "x" * 10**6)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/other/x",
        "s3://bucket/pre",
        "s3://bucket/prefix2/x",
        "s3://bucket-evil/prefix/x",
        "s3://bucket.evil/prefix/x",
        "s3://Bucket/prefix/x",
        "s3://bucket/prefix/../other/x",
        "s3://bucket/prefix/%2e%2e/other/x",
        "s3://bucket/prefix/./x",
        "s3://bucket/prefix/..",
        r"s3://bucket/prefix/..\other",
        "s3://bucket//prefix/x",
        "s3://bucket//etc/passwd",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/bucket/prefix/x",
        "s3://bucket",
        "s3://bucket/*/x",
        "s3://bucket/pre*/x",
    ],
)
def test_objects_outside_are_refused_before_a_request(allow: Allow, uri: str) -> None:
    allow("s3://bucket/prefix/", "/data")
    for touch in (
        lambda: storage.read_bytes(uri),
        lambda: storage.write_bytes(uri, b""),
        lambda: storage.names(uri),
        lambda: storage.find_files(uri, ("",)),
        lambda: storage.remove(uri),
        lambda: storage.open_file(storage.FileStat(uri, 1, "e")).read(),
        lambda: storage.absolute(uri),
    ):
        with pytest.raises(NotAllowed, match=NAME):
            touch()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://my bucket/x", "s3://my bucket/x: 'my bucket' is not a bucket name; write s3://"),
        ("s3://b*/k", "'b*' is not a bucket name"),
        ("s3://bucket@evil/prefix/x", "an s3:// place has no user, password or port"),
        ("s3://AKIA:SECRETKEY@bucket/x", "an s3:// place has no user, password or port"),
        ("s3://AKIA:SECRET/KEY@bucket/x", "an s3:// place has no user, password or port"),
    ],
)
def test_a_wrong_bucket_name_is_refused_without_repeating_a_secret(
    allow: Allow, uri: str, message: str
) -> None:
    for prefix in ("/data", "s3://bucket"):
        allow(prefix)
        for touch in (storage.exists, storage.names, storage.absolute):
            with pytest.raises(StorageRefused, match=re.escape(message)) as caught:
                touch(uri)
            assert "SECRET" not in str(caught.value)


def test_objects_inside_are_allowed(allow: Allow) -> None:
    allow("s3://bucket/prefix", "s3://whole")
    for uri in ("s3://bucket/prefix/a b/..x/%41", "s3://bucket/prefix", "s3://whole/any/thing"):
        assert storage.absolute(uri) == uri


SEGMENTS = st.sampled_from(["prefix", "prefix2", "..", ".", "", "other", "%2e%2e", "a", "..."])


@given(st.lists(SEGMENTS, max_size=6), st.sampled_from(["bucket", "bucket2", "buck"]))
def test_a_server_that_resolves_dots_is_not_led_outside(segments: list[str], bucket: str) -> None:
    key = "/".join(segments)
    settings.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NAME, "s3://bucket/prefix")
        try:
            check_key(bucket, key, "it")
        except NotAllowed:
            plain = posixpath.normpath("/" + key.replace("%2e", ".")).lstrip("/")
            is_inside = bucket == "bucket" and f"{plain}/".startswith("prefix/")
            assert not is_inside or plain != key.rstrip("/")
        else:
            resolved = posixpath.normpath(f"/{bucket}/{key}".replace("%2e", "."))
            assert f"{resolved}/".startswith("/bucket/prefix/")
    settings.cache_clear()


@given(st.lists(st.sampled_from("ab"), max_size=4), st.lists(st.sampled_from("ab"), max_size=4))
def test_is_under_agrees_with_pathlib(inner: list[str], outer: list[str]) -> None:
    place, folder = "/" + "/".join(inner), "/" + "/".join(outer)
    assert is_under(place, folder) == Path(place).is_relative_to(folder)
    assert is_under(place + "/", folder + "/") == is_under(place, folder)


NAMES = st.sampled_from(["a", "b", "inside", "outside", "file", "..", "."])
LINKS = st.dictionaries(
    st.tuples(st.sampled_from(["inside", "outside", "inside/a"]), st.sampled_from(["b", "c"])),
    st.lists(NAMES, min_size=1, max_size=4),
    max_size=4,
)


@hypothesis_settings(max_examples=150)
@given(LINKS, st.lists(st.one_of(NAMES, st.just("c")), min_size=1, max_size=6), st.booleans())
def test_links_never_lead_a_read_outside(
    links: dict[tuple[str, str], list[str]], path: list[str], is_relative: bool
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        top = Path(os.path.realpath(name))
        for folder in ("inside/a", "outside/a"):
            (top / folder).mkdir(parents=True)
            for place in (top / folder, (top / folder).parent):
                (place / "file").write_bytes(folder.partition("/")[0].encode())
        for (folder, link), target in links.items():
            start = "" if is_relative else f"{top}/"
            (top / folder / link).symlink_to(start + "/".join(target))
        patch.setenv(NAME, f"{top}/inside")
        settings.cache_clear()
        _check_reading(f"{top}/inside/{'/'.join(path)}")
    settings.cache_clear()


def _check_reading(path: str) -> None:
    """Compare with what the system itself reads by that name."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        content = None
    try:
        found = storage.read_bytes(path)
    except NotAllowed:
        assert content != b"inside"
    except (StorageRefused, StorageUnavailable):
        assert content is None
    else:
        assert found == content and content != b"outside"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (" , ", "is empty"),
        ("data", "data is neither"),
        ("/data,../x", "../x is neither"),
        ("http://host/x", "http://host/x is neither"),
        ("s3://", "s3:// is neither"),
        ("s3:///prefix", "s3:///prefix is neither"),
    ],
)
def test_a_wrong_prefix_is_refused(allow: Allow, value: str, message: str) -> None:
    allow(value)
    with pytest.raises(InputError, match=f"^{NAME}: {message}"):
        settings()


def test_without_the_setting_everything_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert Settings().allowed_prefixes is None


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "169.254.170.2:80",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "[fe80::1%25eth0]",
        "2852039166",
        "0xa9fea9fe",
        "169.254.43518",
        "0251.0376.0251.0376",
        "metadata.google.internal",
        "METADATA.google.internal",
        "user@169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "[fd20:ce::254]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[::a9fe:a9fe]",
        "[::ffff:a9fe:a9fe%25eth0]",
        "\uff11\uff16\uff19.254.169.254",
        "169\u3002254\u3002169\uff0e254",
        "%31%36%39.254.169.254",
        "0xa9.254.0251.0xfe",
        "Metadata.goog.",
        "instance-data.ec2.internal",
    ],
)
def test_metadata_addresses_are_refused_as_endpoints(host: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(StorageRefused, match="metadata service"):
            check_endpoint(f"{scheme}://{host}/latest")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9000", "minio", "10.0.0.8", "s3.eu-west-1.amazonaws.com", "[fd12::1]:9"]
)
def test_other_endpoints_are_allowed(host: str) -> None:
    check_endpoint(f"http://{host}")


def test_a_name_that_resolves_to_a_metadata_address_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("64:ff9b::a9fe:a9fe", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    with pytest.raises(StorageRefused, match=r"store\.example is the address of a cloud"):
        check_endpoint("http://store.example:9000")


def test_an_endpoint_is_reported_without_its_password() -> None:
    for url in ("http://me:SECRET@169.254.169.254", "http://me:SECRET@[::1", "me:SECRET@host"):
        with pytest.raises(StorageRefused, match="AWS_ENDPOINT_URL_S3") as caught:
            check_endpoint(url)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_no_request_goes_to_a_metadata_endpoint(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv(variable, "http://169.254.169.254")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    storage.reconnect()
    with pytest.raises(StorageRefused, match="metadata service"):
        storage.read_bytes("s3://bucket/x")
    storage.reconnect()
