"""An imitation of the hub and of its CDN, for tests: a repository whose answers the test can spoil.

Each answer may be replaced by `Fault`s, which are used up one by one, and by path. What was asked is kept.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT: Final = "c" * 40
REPOSITORY: Final = "team/tiny"


@dataclass
class Fault:
    """What happens in place of one answer: a status, or a body that ends early or comes without end."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int = -1
    """Bytes of the right body after which the connection is broken."""
    stall_after: int = -1
    """Bytes after which nothing comes, until the client leaves."""
    flip: bool = False
    """The right length, another content."""
    no_range: bool = False
    range_of: int = -1
    """Bytes of a range, where the server keeps to less than was asked for."""
    total: int = -1
    """What Content-Range says of the whole in place of the truth."""
    drip: float = 0.0
    """Seconds between single bytes."""
    no_length: bool = False
    etag: str | None = None


@dataclass
class Seen:
    """One request."""

    host: str
    path: str
    headers: dict[str, str]


@dataclass
class HubImitation:
    """The repository; `files` by path. Files of more than `lfs_from` bytes are in LFS and come from the CDN."""

    files: dict[str, bytes] = field(default_factory=dict)
    lfs_from: int = 64
    token: str = ""
    page: int = 1000
    revisions: tuple[str, ...] = ("main", COMMIT)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the tree says of a file in place of the truth."""
    url: str = ""
    cdn: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end, so that no stalled answer is waited for."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Set when an answer has begun to stall."""

    def asked(self, part: str) -> list[Seen]:
        """The requests whose path holds `part`."""
        return [one for one in self.seen if part in one.path]

    def entries(self) -> list[dict[str, Any]]:
        """The tree, as the hub writes it."""
        found: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "size": 0, "oid": "0" * 40}]
        for path, content in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
            if self.is_lfs(path):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            found.append(entry | self.listed.get(path, {}))
        return found

    def is_lfs(self, path: str) -> bool:
        """Whether a file is in LFS."""
        return len(self.files[path]) > self.lfs_from


def git_oid(content: bytes) -> str:
    """The name that git has for a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serving(hub: HubImitation) -> Iterator[HubImitation]:
    """Run the hub on one port of the loopback, its CDN on another."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, answer)) for answer in (_hub_answer, _cdn_answer)]
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


Answering = Callable[[HubImitation, BaseHTTPRequestHandler], None]


def _handler(hub: HubImitation, answer: Answering) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.seen.append(Seen(headers.get("host", ""), self.path, headers))
            self.close_connection = True
            answer(hub, self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def cdn_handler(hub: HubImitation) -> type[BaseHTTPRequestHandler]:
    """A server of the files alone, for a listener of the test's own."""
    return _handler(hub, _cdn_answer)


def _hub_answer(hub: HubImitation, client: BaseHTTPRequestHandler) -> None:
    path = urlsplit(client.path).path
    fault = _fault(hub, path)
    api = f"/api/models/{REPOSITORY}"
    if fault and fault.status:
        _send(client, fault.status, fault.body, fault.headers)
    elif hub.token and client.headers.get("Authorization") != f"Bearer {hub.token}":
        _send(client, 401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound"})
    elif path.startswith(f"{api}/revision/"):
        if unquote(path.rpartition("/")[2]) in hub.revisions:
            _send(client, 200, json.dumps({"sha": COMMIT, "siblings": []}).encode())
        else:
            _send(client, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
    elif path == f"{api}/tree/{COMMIT}":
        _tree(hub, client)
    elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
        _resolve(hub, client, unquote(path.split(f"/{COMMIT}/", 1)[1]), fault)
    else:
        _send(client, 404, b"{}", {"X-Error-Code": "RepoNotFound"})


def _resolve(hub: HubImitation, client: BaseHTTPRequestHandler, name: str, fault: Fault | None) -> None:
    if name not in hub.files:
        _send(client, 404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
    elif hub.is_lfs(name):
        _send(client, 302, b"", {"Location": f"{hub.cdn}/lfs/{name}?signature=secret-of-the-cdn"})
    else:
        _content(hub, client, name, fault)


def _tree(hub: HubImitation, client: BaseHTTPRequestHandler) -> None:
    start = int(parse_qs(urlsplit(client.path).query).get("cursor", ["0"])[0])
    entries = hub.entries()
    more = f"{hub.url}{urlsplit(client.path).path}?recursive=true&cursor={start + hub.page}"
    link = {"Link": f'<{more}>; rel="next"'} if start + hub.page < len(entries) else {}
    _send(client, 200, json.dumps(entries[start : start + hub.page]).encode(), link)


def _cdn_answer(hub: HubImitation, client: BaseHTTPRequestHandler) -> None:
    path = urlsplit(client.path).path
    fault = _fault(hub, path)
    if fault and fault.status:
        return _send(client, fault.status, fault.body, fault.headers)
    return _content(hub, client, path.removeprefix("/lfs").lstrip("/"), fault)


def _fault(hub: HubImitation, path: str) -> Fault | None:
    waiting = next((faults for part, faults in hub.faults.items() if part in path and faults), None)
    return waiting.pop(0) if waiting else None


def _content(hub: HubImitation, client: BaseHTTPRequestHandler, name: str, fault: Fault | None) -> None:
    content = hub.files[name]
    etag = fault.etag if fault and fault.etag is not None else f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    start, asked = 0, client.headers.get("Range", "")
    same = client.headers.get("If-Range") in (None, etag)
    if asked and same and not (fault and fault.no_range):
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            return _send(client, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
    body = content[start:]
    if fault and start and fault.range_of >= 0:
        body = body[: fault.range_of]
    if fault and fault.flip:
        body = bytes(byte ^ 1 for byte in body)
    total = fault.total if fault and fault.total >= 0 else len(content)
    client.send_response(206 if start else 200)
    if not (fault and fault.no_length):
        client.send_header("Content-Length", str(len(body)))
    if etag:
        client.send_header("ETag", etag)
    if start:
        client.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{total}")
    client.end_headers()
    if fault and fault.drip:
        return _drip(hub, client, body, fault.drip)
    limits = (fault.cut_after, fault.stall_after) if fault else (-1, -1)
    end = max(limits) if max(limits) >= 0 else len(body)
    client.wfile.write(body[:end])
    client.wfile.flush()
    if fault and fault.stall_after >= 0:
        hub.stalled.set()
        hub.released.wait(30)
    return None


def _drip(hub: HubImitation, client: BaseHTTPRequestHandler, body: bytes, seconds: float) -> None:
    """Send byte by byte until the client leaves, or the test ends."""
    with suppress(OSError):
        for byte in body:
            if hub.released.wait(seconds):
                return
            client.wfile.write(bytes([byte]))


def _send(client: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    client.send_response(status)
    for name, value in (headers or {}).items():
        client.send_header(name, value)
    client.send_header("Content-Length", str(len(body)))
    client.end_headers()
    client.wfile.write(body)
