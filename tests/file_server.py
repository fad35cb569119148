"""A web server for tests, which does as it is told: ranges or none, faults in turn. It logs what it was asked for."""

import hashlib
import http.server
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

BLOCK_BYTES = 16_384


@dataclass(frozen=True)
class Asked:
    """A request for a file."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    authorization: str | None = None


@dataclass
class Served:
    """A file and how it is served. `faults` are taken in turn by GETs, one each; None is none.

    A fault: a status; ("cut", bytes sent before the end); ("stall", bytes sent before silence); ("part", a wrong
    Content-Range); ("length", announced); ("redirect", target); ("slow", pause in seconds after each block).
    """

    content: bytes
    etag: str | None = ""
    modified: str | None = None
    has_ranges: bool = True
    has_head: bool = True
    is_chunked: bool = False
    says_length: bool = True
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    faults: deque[Any] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if self.etag == "":
            self.etag = f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


@dataclass
class FileServer:
    """`url` of the server; `files` by path with query; `log` of all requests but those for checksums."""

    url: str
    files: dict[str, Served] = field(default_factory=dict)
    log: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, content: bytes, **how: Any) -> str:
        """Serve a file and return its URL."""
        self.files[path] = Served(content, **how)
        return self.url + path

    def gets(self) -> list[str | None]:
        """The ranges that were asked for, in turn; None where all of a file was."""
        return [asked.range for asked in self.log if asked.method == "GET"]


@contextmanager
def file_server(context: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """Serve at 127.0.0.1 or, given the server's side of TLS, at https://localhost."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        httpd.daemon_threads = True
        port = httpd.server_address[1]
        served = FileServer(f"http://127.0.0.1:{port}")
        if context:
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
            served.url = f"https://localhost:{port}"
        httpd.served = served  # type: ignore[attr-defined]
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield served
        served.released.set()
        httpd.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        # whoever asked may hang up at any time
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def _answer(self, *, is_head: bool) -> None:
        served: FileServer = self.server.served  # type: ignore[attr-defined]
        headers = self.headers
        if not self.path.endswith((".sha256", "SHA256SUMS")):
            asked = Asked(self.command, self.path, headers["Range"], headers["If-Range"], headers["Authorization"])
            served.log.append(asked)
        file = served.files.get(self.path)
        if file is None or file.status != 200 or (is_head and not file.has_head):
            self._status(405 if file and file.status == 200 else file.status if file else 404, file)
            return
        fault = file.faults.popleft() if file.faults and not is_head else None
        if isinstance(fault, int):
            self._status(fault, file)
            return
        kind, detail = fault or (None, None)
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", detail)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start(file, headers)
        size = len(file.content)
        content = file.content[start or 0 :]
        if headers["Range"] == "bytes=0-0" and start is not None:
            content = content[:1]
        self.send_response(200 if start is None and kind != "part" else 206)
        if kind == "part":
            self.send_header("Content-Range", detail)
        elif start is not None:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
        if file.etag:
            self.send_header("ETag", file.etag)
        if file.modified:
            self.send_header("Last-Modified", file.modified)
        for name, value in file.headers.items():
            self.send_header(name, value)
        if file.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif file.says_length:
            self.send_header("Content-Length", str(detail if kind == "length" else len(content)))
        else:
            self.close_connection = True
        self.end_headers()
        if not is_head:
            self._send(content, kind, detail, is_chunked=file.is_chunked)

    def _start(self, file: Served, headers: Any) -> int | None:
        if not headers["Range"] or not file.has_ranges:
            return None
        if headers["If-Range"] not in (None, file.etag, file.modified):
            return None
        return int(headers["Range"].removeprefix("bytes=").split("-")[0])

    def _status(self, status: int, file: Served | None) -> None:
        self.send_response(status)
        for name, value in (file.headers if file else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, kind: str | None, detail: Any, *, is_chunked: bool) -> None:
        served: FileServer = self.server.served  # type: ignore[attr-defined]
        end = detail if kind in ("cut", "stall") else len(content)
        try:
            for place in range(0, end, BLOCK_BYTES):
                block = content[place : min(place + BLOCK_BYTES, end)]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if is_chunked else block)
                if kind == "slow":
                    time.sleep(detail)
            if kind == "stall":
                served.released.wait(60)
            if kind in ("cut", "stall", "length"):
                self.close_connection = True
            elif is_chunked:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # whoever asked is gone, or was killed
            self.close_connection = True
