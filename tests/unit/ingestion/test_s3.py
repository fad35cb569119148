"""Buckets: what an address means, what is resumed, and what is told of a bucket that refuses or fails."""

import base64
import hashlib
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BUCKET, bucket_server
from file_server import FileServer, file_server

from ingestion import download
from ingestion.audit import LoadError
from ingestion.delivery import deliveries
from ingestion.download import downloaded
from ingestion.ecommerce.source import EVENTS, period_of_text
from ingestion.s3 import BucketFile, bucket_files
from warehouse.errors import UserError

CONTENT = random.Random(9).randbytes(2_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the caller's own accounts, and quick."""
    monkeypatch.setattr(download, "BACK_OFF_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bucket_server(monkeypatch) as client:
        yield client


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """What answers like a bucket, and fails when told to."""
    with file_server() as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        yield served


def fetch(file: BucketFile, spool: Path) -> bytes:
    with downloaded(file, spool, lambda done, total: None, print) as copy:
        copy.stream.seek(0)
        return copy.stream.read()


def one_file(location: str) -> BucketFile:
    (file,), is_folder = bucket_files(location)
    assert not is_folder
    return file


def names(location: str, since: str | None = None) -> list[str]:
    meant = deliveries(
        EVENTS, [location], since=period_of_text(since) if since else None, period=None, notice=lambda _: None
    )
    return [delivery.file.name for delivery in meant]


def test_a_key_that_is_no_object_means_the_files_directly_below_it(bucket: Any) -> None:
    for key in (
        "logs/",
        "logs/2020-Jan.csv.gz",
        "logs/2019-Oct.csv",
        "logs/2019-Dec.csv",
        "logs/notes.csv",
        "logs/old/2019-Sep.csv",
        "logs-of-others/2019-Aug.csv",
        "2019-Jul.csv",
    ):
        bucket.put_object(Bucket=BUCKET, Key=key, Body=b"x" if not key.endswith("/") else b"")
    for folder in ("s3://shop/logs", "s3://shop/logs/", "S3://shop/logs"):
        assert names(folder) == ["2019-Oct.csv", "2019-Dec.csv", "2020-Jan.csv.gz"]
    assert names("s3://shop/logs/", since="2019-12") == ["2019-Dec.csv", "2020-Jan.csv.gz"]
    assert names("s3://shop/logs/2019-Dec.csv") == ["2019-Dec.csv"]
    assert names("s3://shop") == names("s3://shop/") == ["2019-Jul.csv"]
    with pytest.raises(UserError, match="s3://shop/lost holds no file named like YYYY-Mon"):
        names("s3://shop/lost")
    with pytest.raises(UserError, match=r"There is no file s3://nobody/logs .*check bucket and key"):
        names("s3://nobody/logs")
    for nonsense in ("s3://", "s3:///logs", "s3://key:s3cret@shop/logs"):
        with pytest.raises(UserError, match="An s3:// address names a bucket") as refusal:
            names(nonsense)
        assert "s3cret" not in str(refusal.value)


def test_many_files_are_listed_to_the_last_page(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(7):
        bucket.put_object(Bucket=BUCKET, Key=f"parts/2019-Oct.{number}.csv", Body=b"x")
    assert len(bucket.list_objects_v2(Bucket=BUCKET, Prefix="parts/")["Contents"]) == 3
    assert len(bucket_files("s3://shop/parts")[0]) == 7


def test_a_file_comes_as_it_is_and_must_be_what_its_bucket_says(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Bucket=BUCKET, Key="2019-Oct.csv", Body=CONTENT, ChecksumAlgorithm="SHA256")
    file = one_file("s3://shop/2019-Oct.csv")
    assert file.version().sha256 == SHA256
    assert fetch(file, tmp_path / "spool") == CONTENT
    bucket.put_object(Bucket=BUCKET, Key="a/2019-Nov.csv", Body=CONTENT)
    file = one_file("s3://shop/a/2019-Nov.csv")
    assert file.version().sha256 is None
    assert fetch(file, tmp_path / "spool") == CONTENT
    for beside in ("a/2019-Nov.csv.sha256", "a/SHA256SUMS"):
        bucket.put_object(Bucket=BUCKET, Key=beside, Body=f"{SHA256}  2019-Nov.csv".encode())
        assert fetch(file, tmp_path / "spool") == CONTENT
        bucket.put_object(Bucket=BUCKET, Key=beside, Body=f"{'0' * 64}  2019-Nov.csv".encode())
        with pytest.raises(UserError, match=f"is not what s3://shop/{beside} says: its SHA-256 is {SHA256}"):
            fetch(file, tmp_path / "spool")
        bucket.delete_object(Bucket=BUCKET, Key=beside)


def test_a_checksum_of_parts_is_none_of_the_file(bucket: Any) -> None:
    upload = bucket.create_multipart_upload(Bucket=BUCKET, Key="2019-Oct.csv", ChecksumAlgorithm="SHA256")["UploadId"]
    where = {"Bucket": BUCKET, "Key": "2019-Oct.csv", "UploadId": upload}
    parts = [
        {"PartNumber": number, "ETag": bucket.upload_part(**where, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate((b"a" * 5_242_880, b"b"), start=1)
    ]
    bucket.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    version = one_file("s3://shop/2019-Oct.csv").version()
    assert (version.size_bytes, version.sha256) == (5_242_881, None)


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"x-amz-checksum-type": "FULL_OBJECT"}, True),
        ({"x-amz-checksum-type": "COMPOSITE"}, False),
        ({"x-amz-checksum-sha256": "tfmzeY9Xd41eXmxrtS4iDWlNINUTAFv0/csHs2lsoD8=-2"}, False),
        ({"x-amz-checksum-sha256": "?"}, False),
    ],
)
def test_a_checksum_is_taken_where_it_is_one(server: FileServer, headers: dict[str, str], taken: bool) -> None:
    own = {"x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(SHA256)).decode()}
    server.put("/shop/2019-Oct.csv", CONTENT, headers=own | headers)
    assert one_file("s3://shop/2019-Oct.csv").version().sha256 == (SHA256 if taken else None)


def test_a_cut_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.put("/shop/2019-Oct.csv", CONTENT, faults=deque([("cut", 1_000_000)]))
    assert fetch(one_file("s3://shop/2019-Oct.csv"), tmp_path / "spool") == CONTENT
    assert server.gets() == [None, "bytes=1000000-"]


def test_who_ignores_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.put("/shop/2019-Oct.csv", CONTENT, faults=deque([("cut", 1_000_000)]), has_ranges=False)
    assert fetch(one_file("s3://shop/2019-Oct.csv"), tmp_path / "spool") == CONTENT


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (("cut", 100), "the server ended after 400 of 2000000 bytes"),
        (503, "the server answers 503"),
        (412, "the file in the bucket is no longer the one it announced"),
        (("part", "bytes 7-9/10"), "the server sends another part"),
    ],
)
def test_a_bucket_that_fails_is_tried_again_and_told(
    server: FileServer, tmp_path: Path, fault: object, told: str
) -> None:
    server.put("/shop/2019-Oct.csv", CONTENT, faults=deque([fault] * 4))
    with pytest.raises(LoadError, match=f"s3://shop/2019-Oct.csv: {told}.*, and 3 times again") as failure:
        fetch(one_file("s3://shop/2019-Oct.csv"), tmp_path / "spool")
    assert (failure.value.__cause__, failure.value.__context__) == (None, None)


def test_a_bucket_that_refuses_is_told(server: FileServer) -> None:
    server.put("/shop/2019-Oct.csv", CONTENT, status=403)
    with pytest.raises(UserError, match=r"the bucket refuses it \(403 403\): check AWS_ACCESS_KEY_ID") as refusal:
        one_file("s3://shop/2019-Oct.csv")
    assert "s3cret" not in str(refusal.value)


def test_without_credentials_a_bucket_is_asked_as_anybody(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.put("/shop/2019-Oct.csv", CONTENT)
    one_file("s3://shop/2019-Oct.csv")
    assert "ours" in (server.log[-1].authorization or "")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert fetch(one_file("s3://shop/2019-Oct.csv"), tmp_path / "spool") == CONTENT
    assert server.log[-1].authorization is None


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("AWS_ENDPOINT_URL", "http://minio.example.org:9000", "The endpoint of s3://shop/x is http://, which anybody"),
        ("AWS_ENDPOINT_URL", "minio", "AWS_ENDPOINT_URL is no address"),
        ("AWS_PROFILE", "nobody", "there is no profile of the name in AWS_PROFILE"),
        ("AWS_CONFIG_FILE", __file__, "the AWS configuration cannot be read"),
    ],
)
def test_settings_that_are_wrong_are_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=told):
        bucket_files("s3://shop/x")


def test_absence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(LoadError, match="s3://shop/x: the server cannot be reached, and 3 times again"):
        names("s3://shop/x")
