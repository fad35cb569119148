"""Files in a bucket: Amazon S3, or what speaks its protocol at AWS_ENDPOINT_URL.

Who asks is told by the variables and files every AWS tool reads; where there are none, the bucket is asked as anybody.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED, exceptions
from botocore.config import Config

from ingestion.download import (
    CONNECT_SECONDS,
    LARGEST_CHECKSUM_FILE_BYTES,
    READ_SECONDS,
    Body,
    TransferError,
    Version,
    refuse_readable_line,
)
from ingestion.spool import BLOCK_BYTES
from warehouse.errors import UserError


@dataclass(frozen=True)
class BucketFile:
    """An object of a bucket; see `download.RemoteFile`."""

    bucket: str
    key: str
    listed_as: str
    client: Any = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def where(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def version(self) -> Version:
        with _sentences(self.where):
            head = self.client.head_object(Bucket=self.bucket, Key=self.key, ChecksumMode="ENABLED")
        return Version(head["ContentLength"], head["ETag"], sha256=_sha256(head))

    @contextmanager
    def read(self, version: Version, start: int) -> Iterator[Body]:
        part = {"Range": f"bytes={start}-"} if start else {}
        with _sentences(self.where):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.key, IfMatch=version.etag, **part)
        with answer["Body"] as stream:
            sent = re.match(r"bytes ([0-9]+)-", answer.get("ContentRange", "bytes 0-"))
            sent_start = int(sent[1]) if sent else -1
            if sent_start not in (0, start):
                raise TransferError("the server sends another part than was asked for")
            yield Body(sent_start, self._blocks(stream))

    def checksum_files(self) -> Iterator[tuple[str, str | None]]:
        folder = self.key.rpartition("/")[0]
        for key in (self.key + ".sha256", f"{folder}/SHA256SUMS".lstrip("/")):
            yield f"s3://{self.bucket}/{key}", self._text_if_there(key)

    def _text_if_there(self, key: str) -> str | None:
        try:
            with _sentences(f"s3://{self.bucket}/{key}"):
                answer = self.client.get_object(Bucket=self.bucket, Key=key)
        except UserError:
            # who may not list a bucket is told that what is not there is forbidden
            return None
        with answer["Body"] as stream:
            content = b"".join(self._blocks(stream)) if answer["ContentLength"] <= LARGEST_CHECKSUM_FILE_BYTES else b""
        return content.decode(errors="replace")

    def _blocks(self, stream: Any) -> Iterator[bytes]:
        with _sentences(self.where):
            while block := stream.read(BLOCK_BYTES // 4):
                yield block


def bucket_files(location: str) -> tuple[list[BucketFile], bool]:
    """The files that ``s3://bucket/key`` means, and whether it is a folder: all objects directly in it.

    Raises:
        UserError: no such bucket, no right to see it, or an endpoint on a line that others can read.
        TransferError: the server failed.
    """
    parts = re.fullmatch(r"s3://([^/@]+)(?:/(.*))?", location, re.IGNORECASE | re.DOTALL)
    if parts is None:
        raise UserError("An s3:// address names a bucket and a key, as in s3://bucket/folder/2019-Oct.csv.gz.")
    bucket, key = parts[1], parts[2] or ""
    client = _client(location)
    if key and not key.endswith("/"):
        file = _object(client, bucket, key)
        if file:
            return [file], False
        key += "/"
    with _sentences(location):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, Delimiter="/")
        listed = [
            BucketFile(bucket, found["Key"], found["ETag"], client)
            for page in pages
            for found in page.get("Contents", [])
            # what consoles make for an empty folder
            if found["Key"] != key
        ]
    return listed, True


def _object(client: Any, bucket: str, key: str) -> BucketFile | None:
    try:
        with _sentences(f"s3://{bucket}/{key}"):
            head = client.head_object(Bucket=bucket, Key=key)
    except _NotThereError:
        return None
    return BucketFile(bucket, key, head["ETag"], client)


def _client(where: str) -> Any:
    with _sentences(where):
        session = boto3.session.Session()
        client = session.client(
            "s3",
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                # we try again ourselves, and tell
                retries={"total_max_attempts": 1},
                signature_version=None if session.get_credentials() else UNSIGNED,
            ),
        )
    endpoint = urlsplit(client.meta.endpoint_url)
    refuse_readable_line(f"The endpoint of {where}", endpoint.scheme, endpoint.hostname)
    return client


def _sha256(head: dict[str, Any]) -> str | None:
    """The object's own SHA-256 in hexadecimal digits; an upload in parts has only one made of theirs."""
    text = head.get("ChecksumSHA256", "")
    # not all that speak the protocol give the type
    if head.get("ChecksumType") == "COMPOSITE" or "-" in text or re.search(r'-[0-9]+"$', head["ETag"]):
        return None
    try:
        return base64.b64decode(text, validate=True).hex() or None
    except binascii.Error:
        return None


class _NotThereError(UserError):
    """There is no such object or bucket."""


@contextmanager
def _sentences(where: str) -> Iterator[None]:
    """Turn what boto raises into a TransferError or a sentence."""
    fault: TransferError | UserError
    try:
        yield
        return
    except exceptions.ClientError as error:
        fault = _refusal(where, error)
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
        fault = UserError(f"{where}: the credentials are incomplete: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    except exceptions.ProfileNotFound:
        fault = UserError(f"{where}: there is no profile of the name in AWS_PROFILE: check ~/.aws/config.")
    except exceptions.ConfigParseError:
        fault = UserError(f"{where}: the AWS configuration cannot be read: check AWS_CONFIG_FILE or ~/.aws/config.")
    except exceptions.SSLError as error:
        fault = TransferError("the encrypted connection failed")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            fault = UserError(
                f"{where}: the server's certificate is not one to trust: check AWS_ENDPOINT_URL, or name the authority "
                "that signed it in AWS_CA_BUNDLE."
            )
    except (exceptions.ParamValidationError, exceptions.UnsupportedS3ArnError, exceptions.InvalidRegionError):
        fault = UserError(f"{where} is no address of a bucket: write s3://bucket/folder/2019-Oct.csv.gz.")
    except ValueError:
        fault = UserError(f"{where}: AWS_ENDPOINT_URL is no address: write it like https://s3.example.org.")
    except (exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError):
        fault = TransferError("the server does not answer")
    except exceptions.EndpointConnectionError:
        fault = TransferError("the server cannot be reached")
    except (exceptions.BotoCoreError, OSError):
        fault = TransferError("the connection was cut")
    # raised here and not above: the library's own words may hold a key
    raise fault


def _refusal(where: str, error: exceptions.ClientError) -> TransferError | UserError:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    code = str(error.response.get("Error", {}).get("Code", status))
    if status == 404:
        return _NotThereError(f"There is no file {where} (the bucket answers 404): check bucket and key.")
    if status == 412:
        return TransferError("the file in the bucket is no longer the one it announced")
    if status >= 500 or status in (408, 409, 416, 429):
        return TransferError(f"the server answers {status}")
    return UserError(
        f"{where}: the bucket refuses it ({status} {code}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the "
        "rights that go with them."
    )
