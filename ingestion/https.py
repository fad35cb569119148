"""Files by URL. What a server answers becomes a version, bytes, a TransferError or a sentence; nothing is kept here.

No message holds a URL's query or what a library says of the URL: a presigned one is a password.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3

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

MOST_REDIRECTS = 10
# too early, too many, and what others may mean by a timeout
PASSING_STATUSES = frozenset((408, 425, 429))

# it warns of odd headers by the whole URL
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True)
class WebFile:
    """A file by its URL, which has neither credentials nor fragment; see `download.RemoteFile`."""

    address: str

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.address).path.rpartition("/")[2])

    @property
    def listed_as(self) -> str:
        return ""

    @property
    def where(self) -> str:
        return urlunsplit(urlsplit(self.address)._replace(query=""))

    def version(self) -> Version:
        with self._answer("HEAD") as response:
            # a presigned URL may be for GET only
            if response.status_code not in (400, 403, 405, 501):
                self._refuse_status(response)
                return _version(response)
        with self._answer("GET", {"Range": "bytes=0-0"}) as response:
            if response.status_code != 416:
                self._refuse_status(response)
            return _version(response)

    @contextmanager
    def read(self, version: Version, start: int) -> Iterator[Body]:
        if start and version.validator:
            with self._answer("GET", {"Range": f"bytes={start}-", "If-Range": version.validator}) as response:
                if response.status_code == 206 and _content_range(response) == (start, version.size_bytes):
                    _refuse_other_version(response, version)
                    yield Body(start, _blocks(response))
                    return
                if response.status_code == 200:
                    yield self._whole(response, version)
                    return
                if response.status_code not in (206, 416):
                    self._refuse_status(response)
        # from the beginning, too, where the server answers with another part than was asked for
        with self._answer("GET") as response:
            self._refuse_status(response)
            if response.status_code == 206:
                raise TransferError("the server sends a part of the file, not all of it")
            yield self._whole(response, version)

    def checksum_files(self) -> Iterator[tuple[str, str | None]]:
        # a query is for this one address
        if not urlsplit(self.address).query:
            for beside in (self.address + ".sha256", urljoin(self.address, "SHA256SUMS")):
                yield beside, WebFile(beside)._text_if_there()

    def _text_if_there(self) -> str | None:
        with self._answer("GET") as response:
            if 400 <= response.status_code < 500 and response.status_code not in PASSING_STATUSES:
                return None
            self._refuse_status(response)
            content = b""
            for block in _blocks(response):
                content += block
                # whatever this is, it is no list of checksums
                if len(content) > LARGEST_CHECKSUM_FILE_BYTES:
                    return None
            return content.decode(errors="replace")

    def _whole(self, response: requests.Response, version: Version) -> Body:
        _refuse_other_version(response, version)
        is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if version.size_bytes is None and _length(response) is None and not is_chunked:
            raise UserError(
                f"{self.where}: the server does not say how long the file is, so one cut short would not be noticed: "
                "fetch it by other means and load the file."
            )
        return Body(0, _blocks(response))

    @contextmanager
    def _answer(self, method: str, headers: dict[str, str] | None = None) -> Iterator[requests.Response]:
        """The answer at the end of all redirects. Credentials for a host may stand in ~/.netrc."""
        url = self.address
        # the bytes as they lie there: what is checked, hashed and counted
        wanted = {"Accept-Encoding": "identity", **(headers or {})}
        with requests.Session() as session:
            for _ in range(MOST_REDIRECTS):
                with self._asked(session, method, url, wanted) as response:
                    target = session.get_redirect_target(response)
                    if target is None:
                        yield response
                        return
                    url = self._next_url(url, target)
        raise UserError(f"{self.where} leads from one address to the next and never to a file: check the address.")

    def _asked(self, session: requests.Session, method: str, url: str, headers: dict[str, str]) -> requests.Response:
        try:
            return session.request(
                method,
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
        except requests.exceptions.SSLError as error:
            fault = _tls_fault(self.where, str(error))
        except requests.exceptions.Timeout:
            fault = TransferError("the server does not answer")
        except requests.exceptions.ConnectionError:
            fault = TransferError("the server cannot be reached")
        except (requests.exceptions.RequestException, ValueError):
            fault = UserError(f"{self.where} is no address that can be asked: check it.")
        except OSError:
            fault = UserError(f"{self.where}: what REQUESTS_CA_BUNDLE names cannot be read: check its path.")
        # raised here and not above: the library's own words hold the whole URL
        raise fault

    def _next_url(self, url: str, target: str) -> str:
        target = urljoin(url, target)
        before, after = urlsplit(url), urlsplit(target)
        if after.scheme not in ("http", "https"):
            raise UserError(f"{self.where} leads on to no web address ({after.scheme}:): check the address.")
        if (before.scheme, after.scheme) == ("https", "http"):
            raise UserError(
                f"{self.where} leads on to {after.scheme}://{after.hostname}, where anybody on the way can read and "
                "change the file: ask for an https:// address."
            )
        refuse_readable_line(
            f"{after.scheme}://{after.hostname}, where {self.where} leads,", after.scheme, after.hostname
        )
        return target

    def _refuse_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status >= 500 or status in PASSING_STATUSES:
            raise TransferError(f"the server answers {status}")
        if status in (404, 410):
            raise UserError(f"There is no file {self.where} (the server answers {status}): check the address.")
        if status in (401, 403):
            raise UserError(
                f"{self.where}: the server refuses it ({status}): check that the address is whole and has not expired; "
                "a name and password for the host belong in ~/.netrc."
            )
        raise UserError(f"{self.where}: the server answers {status}, not with the file: check the address.")


def web_file(url: str) -> WebFile:
    """The file that a URL means.

    Raises:
        UserError: it names no file, holds credentials, or is http:// to another machine.
    """
    try:
        parts = urlsplit(url)
        host, has_credentials = parts.hostname, "@" in parts.netloc
        _ = parts.port
    except ValueError:
        raise UserError("One of the addresses is no URL: check it.") from None
    if has_credentials:
        raise UserError(
            f"The address of {host} holds a user name or password, which would be seen by others on this machine: put "
            "them into ~/.netrc and leave them out here."
        )
    file = WebFile(urlunsplit(parts._replace(fragment="")))
    if not host or not file.name or "/" in file.name or "\0" in file.name:
        raise UserError(f"{file.where} names no file, and a folder on the web cannot be listed: name its files.")
    refuse_readable_line(file.where, parts.scheme, host)
    return file


def _version(response: requests.Response) -> Version:
    """What an answer says of the file, by its headers."""
    etag = response.headers.get("ETag")
    return Version(
        size_bytes=_length(response),
        # a weak one stays when bytes change that do not matter to a reader
        etag=etag if etag and re.fullmatch(r'"[^"]*"', etag) else None,
        modified=response.headers.get("Last-Modified"),
    )


def _refuse_other_version(response: requests.Response, version: Version) -> None:
    now = _version(response)
    for said, told in (
        (now.size_bytes, version.size_bytes),
        (now.etag, version.etag),
        (now.modified, version.modified),
    ):
        if said is not None and told is not None and said != told:
            raise TransferError("the file on the server is no longer the one it announced")


def _length(response: requests.Response) -> int | None:
    """How long the whole file is, whether the answer holds all or a part of it."""
    if response.status_code in (206, 416):
        content_range = response.headers.get("Content-Range", "")
        total = re.fullmatch(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]{1,18})", content_range)
        return int(total[1]) if total else None
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _content_range(response: requests.Response) -> tuple[int, int] | None:
    """Where the part of an answer starts and how long the whole is, if the part goes to its end."""
    parts = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)", response.headers.get("Content-Range", ""))
    if parts is None or int(parts[2]) + 1 != int(parts[3]):
        return None
    return int(parts[1]), int(parts[3])


def _blocks(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.raw.stream(BLOCK_BYTES // 4, decode_content=False)
        return
    except urllib3.exceptions.ReadTimeoutError:
        fault = TransferError("the server has stopped sending")
    except (urllib3.exceptions.HTTPError, OSError):
        fault = TransferError("the connection was cut")
    raise fault


def _tls_fault(where: str, text: str) -> TransferError | UserError:
    """A certificate that is wrong stays wrong; a handshake that is cut may go well the next time."""
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        return UserError(
            f"{where}: the server's certificate is not one to trust: check the address, or name the authority that "
            "signed it in REQUESTS_CA_BUNDLE."
        )
    return TransferError("the encrypted connection failed")
