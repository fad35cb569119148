"""Landing from URLs and buckets, as a user does it: over TLS, killed on the way, refused, known again unread."""

import gzip
import hashlib
import os
import signal
import ssl
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from bucket_server import BUCKET, bucket_server
from file_server import FileServer, file_server
from support import HEADER, agora, execute, finish, one, rows_of, start

from ingestion import download
from ingestion.ecommerce.simulator import simulate
from ingestion.ecommerce.source import EVENTS
from ingestion.loader import FilesRefused, LoadResult, Progress, load
from orchestration import cli
from orchestration.drop import land_drop_folder
from warehouse.errors import UserError

SESSION = "72d76fde-8bb3-4e00-8c23-a032dfed738c"
SENT_AT_ONCE = 262_144

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("empty_warehouse")]


@pytest.fixture
def empty_warehouse(warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(download, "BACK_OFF_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    assert list((warehouse / "spool").glob("*")) == []
    execute(
        "truncate raw_ecommerce.events, raw_ecommerce.users, quarantine.rows, audit.load_slices, audit.built_loads, "
        "audit.loads restart identity cascade"
    )


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as served:
        yield served


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bucket_server(monkeypatch) as client:
        yield client


def events(count: int, month: str = "2019-10") -> bytes:
    """A file of the shop's log, not packed: its size grows with `count`."""
    lines = (
        f"{month}-05 00:00:{number % 60:02} UTC,view,{number},2103807459595387724,,b,1.50,541312140,{SESSION}\n"
        for number in range(count)
    )
    return (HEADER + "\n" + "".join(lines)).encode()


def load_one(location: str, **options: Any) -> LoadResult:
    (result,) = load(EVENTS, [location], **options)
    return result


def refuse(location: str, **options: Any) -> str:
    with pytest.raises(FilesRefused) as refusal:
        load(EVENTS, [location], **options)
    assert row_count() == 0
    return str(refusal.value)


def row_count() -> int:
    return int(one("select count(*) from raw_ecommerce.events"))


def all_that_is_written_down() -> str:
    """Every value of every audit table, as text."""
    tables = rows_of("select tablename from pg_tables where schemaname = 'audit'")
    return "\n".join(str(rows_of(f"select * from audit.{table}")) for (table,) in tables)


# URLs -------------------------------------------------------------------------------------------------------------


def test_a_file_over_tls_lands_once_and_is_known_again_unread(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    trust = {"REQUESTS_CA_BUNDLE": tmp_path / "authority.pem"}
    packed = gzip.compress(events(100), mtime=0)
    with file_server(context) as server:
        url = server.put("/logs/2019-Oct.csv.gz", packed)
        told = agora("load", "ecommerce.events", url, expect=2)
        assert told.strip() == (
            f"agora: {url}: the server's certificate is not one to trust: check the address, or name the authority "
            "that signed it in REQUESTS_CA_BUNDLE."
        )
        assert one("select count(*) from audit.loads") == 0
        told = agora("load", "ecommerce.events", url, **trust)
        assert "2019-Oct.csv.gz (2019-10): loaded as load 1: 100 rows read, 100 landed" in told
        assert rows_of("select file_name, sha256, period, status, length(version_id) from audit.loads") == [
            ("2019-Oct.csv.gz", hashlib.sha256(packed).hexdigest(), "2019-10", "loaded", 64)
        ]
        assert server.gets() == [None]
        told = agora("load", "ecommerce.events", url, **trust)
        assert "skipped. unchanged on its server since load 1" in told
        assert server.gets() == [None]
        # by force it is read and replaces itself
        assert "replaces load 1" in agora("load", "ecommerce.events", url, "--force", **trust)
        assert server.gets() == [None, None]
        server.put("/logs/2019-Oct.csv.gz", gzip.compress(events(50), mtime=0))
        assert "50 landed" in agora("load", "ecommerce.events", url, **trust)
        assert row_count() == 50
        assert [status for (status,) in rows_of("select status from audit.loads order by load_id")] == [
            "superseded",
            "skipped",
            "superseded",
            "loaded",
        ]


def test_rules_of_same_bytes_and_since_hold_for_urls_as_for_files(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "2019-Oct.csv").write_bytes(events(10))
    load_one(str(tmp_path))
    again = load_one(server.put("/elsewhere/2019-Oct.2.csv", events(10)))
    assert (again.status, again.message) == (
        "skipped",
        "the same bytes have landed as load 1 (2019-Oct.csv, 2019-10)",
    )
    november = server.put("/2019-Nov.csv", events(10, "2019-11"))
    december = server.put("/2019-Dec.csv", events(10, "2019-12"))
    server.log.clear()
    results = load(EVENTS, [december, november, str(tmp_path)], since="2019-12")
    assert [(result.file_name, result.status) for result in results] == [("2019-Dec.csv", "loaded")]
    # what is left out is not even asked for
    assert {asked.path for asked in server.log} == {"/2019-Dec.csv"}
    with pytest.raises(
        UserError, match=f"{server.url}/2019-Nov.csv and {server.url}/x/2019-Nov.csv have the same name"
    ):
        load(EVENTS, [november, server.put("/x/2019-Nov.csv", b"x")])


def test_a_presigned_address_is_written_down_nowhere(server: FileServer) -> None:
    url = server.put("/export?signature=s3cret", events(10))
    told = agora("load", "ecommerce.events", url, "--period", "2019-10")
    told += agora("load", "ecommerce.events", url, "--period", "2019-10")
    told += agora("loads")
    assert "export (2019-10): loaded as load 1" in told
    server.files["/export?signature=s3cret"].status = 403
    told += agora("load", "ecommerce.events", url, "--period", "2019-10", expect=2)
    told += agora("load", "ecommerce.events", url, expect=2)
    with_password = server.url.replace("//", "//ada:s3cret@") + "/2019-Oct.csv"
    told += agora("load", "ecommerce.events", with_password, expect=2)
    assert "s3cret" not in told + all_that_is_written_down()


def test_a_name_and_password_come_from_netrc(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password s3cret\n")
    (tmp_path / "netrc").chmod(0o600)
    agora("load", "ecommerce.events", server.put("/2019-Oct.csv", events(10)), NETRC=tmp_path / "netrc")
    assert {asked.authorization for asked in server.log} == {"Basic YWRhOnMzY3JldA=="}


def test_nothing_lands_if_one_of_the_files_is_not_there(server: FileServer) -> None:
    url = server.put("/2019-Oct.csv", events(10))
    told = agora("load", "ecommerce.events", url, f"{server.url}/2019-Nov.csv", expect=2)
    assert told.strip() == (
        f"agora: There is no file {server.url}/2019-Nov.csv (the server answers 404): check the address."
    )
    assert one("select count(*) from audit.loads") == 0


# Killed, cut, refused -----------------------------------------------------------------------------------------------


def test_a_download_killed_midway_goes_on_where_it_stopped(server: FileServer, warehouse: Path) -> None:
    content = events(20_000)
    url = server.put("/2019-Oct.csv", content, faults=deque([("slow", 0.02)]))
    loading = start("load", "ecommerce.events", url)
    spool = warehouse / "spool"
    while not (parts := list(spool.glob("*.part"))) or parts[0].stat().st_size < 2 * SENT_AT_ONCE:
        assert loading.poll() is None
        time.sleep(0.005)
    os.killpg(loading.pid, signal.SIGKILL)
    loading.wait()
    (part,) = spool.iterdir()
    size = part.stat().st_size
    # it was under way, and what it left is for its owner only and says nothing by its name
    assert 2 * SENT_AT_ONCE <= size < len(content)
    assert part.read_bytes() == content[:size]
    assert (part.stat().st_mode & 0o777, spool.stat().st_mode & 0o777) == (0o600, 0o700)
    server.log.clear()
    told = finish(start("load", "ecommerce.events", url))
    assert "20,000 rows read, 20,000 landed" in told
    assert server.gets() == [f"bytes={size}-"]
    assert rows_of("select status, sha256 from audit.loads order by load_id") == [
        ("abandoned", None),
        ("loaded", hashlib.sha256(content).hexdigest()),
    ]
    assert row_count() == 20_000


def test_a_server_that_fails_is_a_failure_and_loses_no_part(
    server: FileServer, warehouse: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = events(20_000)
    url = server.put("/2019-Oct.csv", content, faults=deque([("cut", 500_000), 500, 502, 503]))
    monkeypatch.setattr(sys, "argv", ["agora", "load", "ecommerce.events", url])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == (f"agora: {url}: the server answers 503, and 3 times again: load it again later.")
    assert "Traceback" not in said
    assert rows_of("select status, error like '%% answers 503%%' from audit.loads") == [("failed", True)]
    assert row_count() == 0
    (part,) = (warehouse / "spool").iterdir()
    assert part.stat().st_size == 500_000
    server.log.clear()
    assert load_one(url).rows_landed == 20_000
    assert server.gets() == ["bytes=500000-"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\n <!DOCTYPE html><html><body>Please log in</body></html>", "2019-Oct.csv.gz is a web page, not CSV text: "),
        (gzip.compress(b"<html></html>"), "2019-Oct.csv.gz is a web page, not CSV text: "),
        (gzip.compress(events(1000))[:-20], "2019-Oct.csv.gz: the gzip stream ends too early"),
        (b"", "2019-Oct.csv.gz is empty (0 bytes)"),
    ],
)
def test_what_is_no_log_is_refused_and_not_kept(server: FileServer, content: bytes, told: str) -> None:
    assert refuse(server.put("/2019-Oct.csv.gz", content, headers={"Content-Type": "text/html"})).startswith(told)
    assert rows_of("select status from audit.loads") == [("failed",)]


def test_a_part_that_was_spoilt_is_noticed_by_the_published_checksum(server: FileServer, warehouse: Path) -> None:
    content = events(20_000)
    url = server.put("/2019-Oct.csv", content)
    server.put("/2019-Oct.csv.sha256", f"{hashlib.sha256(content).hexdigest()}  2019-Oct.csv\n".encode())

    def stop(progress: Progress) -> None:
        if progress.bytes_done > SENT_AT_ONCE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_one(url, on_progress=stop)
    (part,) = (warehouse / "spool").iterdir()
    spoilt = part.read_bytes().replace(b"541312140", b"541312141", 1)
    part.write_bytes(spoilt)
    assert f"is not what {url}.sha256 says" in refuse(url)
    # the part is gone, so the next attempt begins anew
    assert load_one(url).rows_landed == 20_000


def test_a_checksum_may_be_given(server: FileServer, tmp_path: Path) -> None:
    content = events(10)
    sha256 = hashlib.sha256(content).hexdigest()
    url = server.put("/2019-Oct.csv", content)
    (tmp_path / "2019-Oct.csv").write_bytes(content)
    for place in (url, str(tmp_path / "2019-Oct.csv")):
        told = agora("load", "ecommerce.events", place, "--sha256", "0" * 64, expect=2)
        assert told.endswith(f"2019-Oct.csv is not the file that --sha256 names: its SHA-256 is {sha256}.\n")
    assert row_count() == 0
    assert "10 landed" in agora("load", "ecommerce.events", url, "--sha256", sha256.upper())
    # an unchanged file is not excused from being another than the one meant
    assert "--sha256 names" in agora("load", "ecommerce.events", url, "--sha256", "0" * 64, expect=2)
    assert "skipped" in agora("load", "ecommerce.events", url, "--sha256", sha256)
    assert "64 hexadecimal digits" in agora("load", "ecommerce.events", url, "--sha256", "abc", expect=2)
    (tmp_path / "2019-Nov.csv").write_bytes(content)
    assert "is about one file, and 2 are meant" in agora(
        "load", "ecommerce.events", tmp_path, "--sha256", sha256, expect=2
    )


def test_addresses_that_mean_nothing_are_told(server: FileServer) -> None:
    for address, told in (
        (
            "ftp://shop.example.org/2019-Oct.csv",
            "Nothing can be loaded from ftp://: name a path, an https:// URL",
        ),
        ("http://shop.example.org/2019-Oct.csv", "which anybody on the way can read and change: use https://"),
        (f"{server.url}/logs/", "names no file, and a folder on the web cannot be listed"),
    ):
        assert told in agora("load", "ecommerce.events", address, expect=2)


def test_an_old_part_is_swept_by_the_next_load(server: FileServer, warehouse: Path) -> None:
    old = warehouse / "spool" / "0123.part"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    load_one(server.put("/2019-Oct.csv", events(10)))
    assert not old.exists()


# Buckets ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_a_bucket_lands_like_a_folder(bucket: Any) -> None:
    for month, name in (("2019-10", "2019-Oct.csv"), ("2019-11", "2019-Nov.csv.gz"), ("2019-12", "2019-Dec.csv")):
        content = events(10, month)
        body = gzip.compress(content) if name.endswith(".gz") else content
        bucket.put_object(Bucket=BUCKET, Key=f"logs/{name}", Body=body, ChecksumAlgorithm="SHA256")
    bucket.put_object(Bucket=BUCKET, Key="logs/notes.csv", Body=b"x")
    told = agora("load", "ecommerce.events", "s3://shop/logs", "--since", "2019-11")
    assert "s3://shop/logs: left out, as their names are not like YYYY-Mon" in told
    assert rows_of("select file_name, status, rows_landed from audit.loads order by load_id") == [
        ("2019-Nov.csv.gz", "loaded", 10),
        ("2019-Dec.csv", "loaded", 10),
    ]
    told = agora("load", "ecommerce.events", "s3://shop/logs/2019-Dec.csv", "s3://shop/logs/2019-Oct.csv")
    assert "unchanged on its server since load 2" in told
    assert row_count() == 30
    told = agora("load", "ecommerce.events", "s3://shop/lost/", expect=2)
    assert told.endswith("agora: s3://shop/lost/ holds no file named like YYYY-Mon[-DD][.part].csv[.gz].\n")
    assert "s3cret" not in told + all_that_is_written_down()


def test_the_drop_folder_may_be_a_bucket(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGORA_DROP_ECOMMERCE", "s3://shop/logs")

    def land() -> list[tuple[str, str]]:
        return [(result.file_name, result.status) for result in land_drop_folder("ecommerce.events", on_notice=print)]

    assert land() == []
    bucket.put_object(Bucket=BUCKET, Key="logs/2019-Nov.csv", Body=events(10, "2019-11"))
    assert land() == [("2019-Nov.csv", "loaded")]
    bucket.put_object(Bucket=BUCKET, Key="logs/2019-Oct.csv", Body=events(10))
    bucket.put_object(Bucket=BUCKET, Key="logs/2019-Dec.csv", Body=b"no log")
    assert land() == [("2019-Oct.csv", "loaded"), ("2019-Nov.csv", "skipped"), ("2019-Dec.csv", "failed")]
    bucket.put_object(Bucket=BUCKET, Key="logs/2019-Dec.csv", Body=events(10, "2019-12"))
    assert [status for _, status in land()] == ["skipped", "skipped", "loaded"]
    assert row_count() == 30


def test_a_run_lands_a_bucket_and_publishes(bucket: Any, tmp_path: Path) -> None:
    simulation = simulate(tmp_path, seed=5, user_count=300, event_count=6000, month_count=2)
    for file in simulation.files:
        bucket.put_object(Bucket=BUCKET, Key=f"logs/{file.name}", Body=file.read_bytes())
    told = agora("run", "ecommerce", AGORA_DROP_ECOMMERCE="s3://shop/logs")
    assert "ecommerce: every row that came in (2 files)" in told
    assert one("select sum(rows_read) from audit.loads where status = 'loaded'") == 6000
    assert one("select count(*) from ecommerce.dim_users") > 250


# The public data set ------------------------------------------------------------------------------------------------


def test_a_plan_names_addresses_and_where_its_figures_come_from(tmp_path: Path) -> None:
    def plan() -> str:
        return agora("fetch-plan", "rees46", TMPDIR=tmp_path)

    told = plan()
    for month in ("2019-Oct", "2019-Nov", "2019-Dec", "2020-Jan", "2020-Feb", "2020-Mar", "2020-Apr"):
        assert f"https://data.rees46.com/datasets/marketplace/{month}.csv.gz" in told
    assert "411,709,736 events" in told
    assert "rows/s: measured now, on 600,000 simulated events in a throw-away warehouse" in told
    # neither there nor here is anything left of the measurement
    assert list(tmp_path.iterdir()) == []
    assert one("select count(*) from audit.loads") == 0
    execute(
        "insert into audit.loads (source, file_name, status, rows_read, seconds, version_id, started_at)"
        " values ('ecommerce.events', 'a', 'loaded', 1000000, 10, null, now()),"
        " ('ecommerce.events', 'b', 'superseded', 3000000, 10, null, now()),"
        " ('ecommerce.events', 'small', 'loaded', 499999, 9999, null, now()),"
        " ('ecommerce.events', 'downloaded', 'loaded', 1000000, 9999, 'x', now()),"
        " ('ecommerce.events', 'failed', 'failed', 1000000, 9999, null, now())"
    )
    # 4,000,000 rows in 20 s, and 411,709,736 in 34.3 minutes
    assert "34 min  land, at 200,000 rows/s: as the 2 files of 500,000 rows and more in audit.loads did" in plan()
    assert "rees46" in agora("fetch-plan", "other", expect=2)
