"""Downloads from a server that does as it is told: what is resumed, what begins anew, what is refused and how."""

import gzip
import hashlib
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer, file_server

from ingestion import download, https
from ingestion.audit import LoadError
from ingestion.download import downloaded, patiently, sha256_in, sweep_spool, version_id
from ingestion.https import web_file
from warehouse.errors import UserError

CONTENT = random.Random(7).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODIFIED = "Tue, 01 Oct 2019 00:00:00 GMT"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACK_OFF_SECONDS", (0.01, 0.01, 0.01))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as served:
        yield served


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class KilledError(BaseException):
    """The process is gone, as far as files and locks can tell."""


def fetch(url: str, spool: Path, *, kill_after_bytes: int | None = None, notices: list[str] | None = None) -> bytes:
    def on_bytes(done: int, total: int) -> None:
        if kill_after_bytes is not None and done >= kill_after_bytes:
            raise KilledError

    told = notices if notices is not None else []
    with downloaded(web_file(url), spool, on_bytes, told.append) as copy:
        assert copy.sha256 == hashlib.sha256(copy.stream.read() if copy.stream.seek(0) == 0 else b"").hexdigest()
        assert spool.stat().st_mode & 0o777 == 0o700
        assert all(part.stat().st_mode & 0o777 == 0o600 for part in spool.iterdir())
        copy.stream.seek(0)
        return copy.stream.read()


def leave_part(url: str, spool: Path) -> Path:
    """Download until about the middle; the part that is left."""
    with pytest.raises(KilledError):
        fetch(url, spool, kill_after_bytes=1_500_000)
    (part,) = spool.iterdir()
    return part


def test_a_whole_file_comes_as_it_is_and_leaves_nothing(server: FileServer, spool: Path) -> None:
    assert fetch(server.put("/a/2019-Oct.csv.gz", CONTENT), spool) == CONTENT
    assert server.gets() == [None]
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("how", [{}, {"etag": None, "modified": MODIFIED}, {"etag": 'W/"1"', "modified": MODIFIED}])
def test_a_cut_download_goes_on_where_it_stopped(server: FileServer, spool: Path, how: dict[str, Any]) -> None:
    url = server.put("/2019-Oct.csv", CONTENT, faults=deque([("cut", 1_000_000)]), **how)
    told: list[str] = []
    assert fetch(url, spool, notices=told) == CONTENT
    first, second = server.gets()
    assert first is None
    assert second == "bytes=1000000-"
    assert server.log[-1].if_range == (how.get("modified") or server.files["/2019-Oct.csv"].etag)
    assert told == [f"{url}: the connection was cut; trying again in 0.01 s"]


def test_a_killed_download_goes_on_where_it_stopped(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT)
    part = leave_part(url, spool)
    size = part.stat().st_size
    assert part.read_bytes() == CONTENT[:size]
    assert 1_500_000 <= size < 2_000_000
    assert "2019" not in part.name
    assert part.stat().st_mode & 0o777 == 0o600
    server.log.clear()
    assert fetch(url, spool) == CONTENT
    assert server.gets() == [f"bytes={size}-"]
    assert list(spool.iterdir()) == []


def test_a_part_of_another_version_is_not_continued(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT)
    part = leave_part(url, spool)
    changed = CONTENT[::-1]
    server.put("/2019-Oct.csv", changed)
    server.log.clear()
    assert fetch(url, spool) == changed
    assert server.gets() == [None]
    # nobody may ever ask for the old version again: it goes with the sweep
    assert list(spool.iterdir()) == [part]


def test_a_file_that_changes_between_two_tries_begins_anew(server: FileServer, spool: Path) -> None:
    changed = CONTENT[::-1]
    url = server.put("/2019-Oct.csv", CONTENT, faults=deque([("cut", 1_000_000)]))

    class Notices(list[str]):
        def append(self, text: str) -> None:
            super().append(text)
            server.put("/2019-Oct.csv", changed)

    assert fetch(url, spool, notices=Notices()) == changed
    assert server.gets() == [None, None]
    assert list(spool.iterdir()) == []


def test_a_server_that_ignores_ranges_sends_all_again(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT, has_ranges=False)
    leave_part(url, spool)
    assert fetch(url, spool) == CONTENT


@pytest.mark.parametrize(
    "wrong", ["bytes 0-99/3000000", "bytes 1572864-2999999/4000000", "bytes 5-2999999/3000000", "?"]
)
def test_a_part_that_is_not_the_one_asked_for_begins_anew(server: FileServer, spool: Path, wrong: str) -> None:
    url = server.put("/2019-Oct.csv", CONTENT)
    leave_part(url, spool)
    server.files["/2019-Oct.csv"].faults.append(("part", wrong))
    server.log.clear()
    assert fetch(url, spool) == CONTENT
    assert server.gets()[1:] == [None]


def test_without_a_validator_nothing_is_resumed_or_kept(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT, etag=None, faults=deque([("cut", 1_000_000)]))
    assert fetch(url, spool) == CONTENT
    assert server.gets() == [None, None]
    with pytest.raises(KilledError):
        fetch(url, spool, kill_after_bytes=1)
    assert list(spool.iterdir()) == []


def test_retries_end_unless_they_gain(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT, faults=deque([500, 503, 429, 500]))
    with pytest.raises(LoadError) as failure:
        fetch(url, spool)
    assert str(failure.value) == f"{url}: the server answers 500, and 3 times again: load it again later."
    assert (failure.value.__cause__, failure.value.__context__) == (None, None)
    # cut six times, but a megabyte further each time
    many = random.Random(8).randbytes(8_000_000)
    url = server.put("/2019-Nov.csv", many, faults=deque([("cut", 1_400_000)] * 6))
    assert fetch(url, spool) == many


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"faults": deque([("cut", 100)] * 4)}, "the connection was cut"),
        ({"faults": deque([("length", 3_000_001)] * 4)}, "no longer the one it announced"),
        ({"faults": deque([("length", 2_999_999)] * 4)}, "no longer the one it announced"),
        ({"faults": deque([("part", "bytes 0-9/3000000")] * 4)}, "sends a part of the file, not all"),
        ({"status": 500}, "the server answers 500"),
        ({"is_chunked": True, "faults": deque([("cut", 100_000)] * 4)}, "the connection was cut"),
    ],
)
def test_what_a_server_does_wrong_is_told(server: FileServer, spool: Path, how: dict[str, Any], told: str) -> None:
    with pytest.raises(LoadError, match=told):
        fetch(server.put("/2019-Oct.csv", CONTENT, **how), spool)


def test_silence_and_absence_are_told(server: FileServer, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "READ_SECONDS", 0.2)
    url = server.put("/2019-Oct.csv", CONTENT, faults=deque([("stall", 100)] * 4))
    with pytest.raises(LoadError, match="the server has stopped sending"):
        fetch(url, spool)
    with pytest.raises(LoadError, match="the server cannot be reached"):
        # nobody listens at port 1
        fetch("http://127.0.0.1:1/2019-Oct.csv", spool)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"status": 404}, r"There is no file .*\(the server answers 404\): check the address\."),
        ({"status": 403}, r"the server refuses it \(403\): .* has not expired; .* ~/\.netrc\."),
        ({"status": 401}, r"the server refuses it \(401\)"),
        ({"status": 418}, "the server answers 418, not with the file"),
        ({"etag": None, "says_length": False}, "does not say how long the file is"),
        ({"status": 302, "headers": {"Location": "/2019-Oct.csv?s3cret"}}, "never to a file"),
        (
            {"status": 302, "headers": {"Location": "http://shop.example.org/x?s3cret"}},
            "http://shop.example.org, where",
        ),
        (
            {"status": 302, "headers": {"Location": "ftp://shop.example.org/x?s3cret"}},
            r"leads on to no web address \(ftp:\)",
        ),
        ({"status": 304}, "the server answers 304"),
    ],
)
def test_what_will_not_pass_is_refused_in_a_sentence(
    server: FileServer, spool: Path, how: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as refusal:
        fetch(server.put("/2019-Oct.csv?s3cret", CONTENT, **how), spool)
    assert "s3cret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert (refusal.value.__cause__, refusal.value.__context__) == (None, None)
    assert list(spool.iterdir()) == []


def test_a_bundle_of_certificates_that_is_not_there_is_told(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(spool / "none"))
    with pytest.raises(UserError, match="what REQUESTS_CA_BUNDLE names cannot be read"):
        fetch("https://127.0.0.1:1/2019-Oct.csv", spool)


def test_a_redirect_is_followed_and_its_range_too(server: FileServer, spool: Path) -> None:
    server.put("/far/away?token=1", CONTENT, faults=deque([("cut", 1_000_000)]))
    url = server.put("/2019-Oct.csv", b"", status=302, headers={"Location": "/far/away?token=1"})
    assert fetch(url, spool) == CONTENT
    assert [range_ for range_ in server.gets() if range_] == ["bytes=1000000-"] * 2


def test_a_server_may_not_know_head_or_length(server: FileServer, spool: Path) -> None:
    assert fetch(server.put("/2019-Oct.csv", CONTENT, has_head=False), spool) == CONTENT
    assert fetch(server.put("/2019-Oct.csv", CONTENT, has_head=False, has_ranges=False), spool) == CONTENT
    assert fetch(server.put("/2019-Oct.csv", CONTENT, is_chunked=True), spool) == CONTENT


def test_packed_bytes_stay_packed(server: FileServer, spool: Path) -> None:
    packed = gzip.compress(CONTENT)
    assert fetch(server.put("/2019-Oct.csv.gz", packed, headers={"Content-Encoding": "gzip"}), spool) == packed


@pytest.mark.parametrize("beside", ["/a/2019-Oct.csv.sha256", "/a/SHA256SUMS"])
def test_a_published_checksum_must_be_the_files(server: FileServer, spool: Path, beside: str) -> None:
    url = server.put("/a/2019-Oct.csv", CONTENT)
    server.put(beside, f"{'0' * 64}  other.csv\n{SHA256.upper()} *./2019-Oct.csv\n".encode())
    assert fetch(url, spool) == CONTENT
    server.put(beside, f"{'0' * 64}  2019-Oct.csv\n".encode())
    with pytest.raises(UserError) as refusal:
        fetch(url, spool)
    assert str(refusal.value) == (
        f"{url} is not what {server.url}{beside} says: its SHA-256 is {SHA256} and should be {'0' * 64}: load it "
        "again, and if that does not help, tell those who publish it."
    )
    assert list(spool.iterdir()) == []
    server.put(beside, b"<html>404, says a server that always says 200</html>")
    assert fetch(url, spool) == CONTENT
    server.put(beside, b"", status=500)
    with pytest.raises(LoadError, match="the server answers 500"):
        fetch(url, spool)


def test_checksums_are_read_as_tools_write_them() -> None:
    other = "1" * 64
    assert sha256_in(f"{SHA256}\n", "a.csv") == SHA256
    assert sha256_in(f"{other}  b.csv\n{SHA256}  a.csv\n", "a.csv") == SHA256
    assert sha256_in(f"{other}  b.csv\n{SHA256} *months/a.csv\r\n", "a.csv") == SHA256
    assert sha256_in(f"SHA256 (b.csv) = {other}\nSHA256 (a.csv) = {SHA256}", "a.csv") == SHA256
    assert sha256_in(f"SHA2-256(a.csv)= {SHA256}", "a.csv") == SHA256
    for none in ("", f"{other}  b.csv", SHA256[:-1], "<!doctype html>", f"{'z' * 64}  a.csv"):
        assert sha256_in(none, "a.csv") is None


def test_two_that_download_one_file_take_turns(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT, faults=deque([("slow", 0.002)]))
    told: list[str] = []
    results: list[bytes] = []
    first = threading.Thread(target=lambda: results.append(fetch(url, spool)))
    first.start()
    while not server.gets():
        time.sleep(0.001)
    results.append(fetch(url, spool, notices=told))
    first.join()
    assert results == [CONTENT, CONTENT]
    assert told == [f"{url}: waiting for another process that downloads it"]
    assert list(spool.iterdir()) == []


def test_parts_are_swept_after_a_week(server: FileServer, spool: Path) -> None:
    part = leave_part(server.put("/2019-Oct.csv", CONTENT), spool)
    written = datetime.fromtimestamp(part.stat().st_mtime, UTC)
    sweep_spool(spool, written + timedelta(days=6, hours=23))
    assert part.exists()
    sweep_spool(spool, written + timedelta(days=7, hours=1))
    assert not part.exists()
    sweep_spool(spool / "nowhere", written)


def test_a_part_in_use_is_not_swept(server: FileServer, spool: Path) -> None:
    url = server.put("/2019-Oct.csv", CONTENT)
    with downloaded(web_file(url), spool, lambda done, total: None, print):
        (part,) = spool.iterdir()
        os.utime(part, (0, 0))
        sweep_spool(spool, datetime.now(UTC))
        assert part.exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "https://ada:s3cret@shop.example.org/2019-Oct.csv",
            "address of shop.example.org holds a user name or password",
        ),
        ("https://ada@shop.example.org/2019-Oct.csv", "~/.netrc"),
        (
            "http://shop.example.org/2019-Oct.csv?s3cret",
            "http://shop.example.org/2019-Oct.csv is http://, which anybody",
        ),
        ("https://shop.example.org/logs/?s3cret", "names no file, and a folder on the web cannot be listed"),
        ("https://shop.example.org", "names no file"),
        ("https:///2019-Oct.csv", "names no file"),
        ("https://shop.example.org/a%2Fb?s3cret", "names no file"),
        ("https://shop.example.org:port/s3cret", "One of the addresses is no URL"),
        ("https://[::1/s3cret", "One of the addresses is no URL"),
    ],
)
def test_addresses_that_are_refused_are_not_repeated(url: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refusal:
        web_file(url)
    assert "s3cret" not in str(refusal.value)


def test_addresses_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    file = web_file("https://shop.example.org/logs/2019%2DOct.csv.gz?signature=s3cret#part")
    assert (file.name, file.where) == ("2019-Oct.csv.gz", "https://shop.example.org/logs/2019%2DOct.csv.gz")
    for url in ("http://localhost:8000/2019-Oct.csv", "http://127.0.0.1/2019-Oct.csv", "http://[::1]:80/2019-Oct.csv"):
        assert web_file(url).name == "2019-Oct.csv"
    monkeypatch.setenv("AGORA_ALLOW_HTTP", "1")
    assert web_file("http://shop.example.org/2019-Oct.csv").name == "2019-Oct.csv"


def test_a_version_is_known_by_a_strong_etag_only(server: FileServer) -> None:
    def known_as(path: str, **how: Any) -> str | None:
        file = web_file(server.put(path, CONTENT, **how))
        return version_id(file, file.version())

    first = known_as("/2019-Oct.csv")
    assert first is not None
    assert first == known_as("/2019-Oct.csv")
    assert first not in (known_as("/2019-Oct.csv", etag='"2"'), known_as("/2019-Nov.csv"))
    assert known_as("/2019-Oct.csv", etag='W/"1"', modified=MODIFIED) is None
    assert known_as("/2019-Oct.csv", etag=None, modified=MODIFIED) is None


def test_only_what_may_pass_is_tried_again() -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise UserError("no")

    with pytest.raises(UserError):
        patiently(ask, "there", print)
    assert len(asked) == 1
