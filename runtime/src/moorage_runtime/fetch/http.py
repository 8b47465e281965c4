"""GET over HTTPS: checked addresses, redirects that never take a token along, and a body that comes or fails.

The standard library's client, one connection a request. What may pass by itself (no connection, no bytes for a while, a
body that breaks off) is a `PassingFailure`; a status is for the caller to judge.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urljoin, urlsplit

from moorage_common.facts import LoadError
from moorage_runtime.addresses import is_forbidden
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.pace import PacedResponse

CONNECT_SECONDS: Final = 10.0
MAX_REDIRECTS: Final = 5
PIECE: Final = 1 << 20
AGENT: Final = "moorage-runtime-fetch"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class PassingFailure(Exception):  # noqa: N818 - it names what happened
    """What may be gone at the next attempt; `wait` is what the server asks to wait, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        """Say what happened."""
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One GET. `secret` is the Authorization header; it is sent to the host of `url` and to no other."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    follow: bool = True
    """Whether redirects are followed; a signed address holds for its own host only."""


@dataclass(frozen=True)
class Network:
    """How connections are made. `loopback` allows this machine, and http:// to it: for tests."""

    stall_seconds: float
    loopback: bool = False
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @contextlib.contextmanager
    def get(self, asked: Asked) -> Iterator[Reply]:
        """Ask, following redirects, and give the reply; its connection is closed at the end of the block."""
        for _ in range(MAX_REDIRECTS + 1):
            host = _host(asked.url)
            # The answer too: one that ends with its connection has taken the socket over.
            with (
                contextlib.closing(self._connect(asked.url)) as connection,
                contextlib.closing(_exchange(connection, asked, host)) as reply,
            ):
                location = reply.headers.get("location", "")
                if reply.status in _REDIRECTS and asked.follow and location:
                    asked = _redirected(asked, location)
                    continue
                yield reply
                return
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{host} redirects more than {MAX_REDIRECTS} times")

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        connection = http.client.HTTPConnection(host, port)
        connection.response_class = PacedResponse
        try:
            plain = self._reach(parts.scheme, host, port)
            try:
                tls = self.tls.wrap_socket(plain, server_hostname=host) if parts.scheme == "https" else plain
            except BaseException:
                plain.close()
                raise
            tls.settimeout(self.stall_seconds)
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate of {host} is not trusted: {error.verify_message}"
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, text) from error
        except OSError as error:
            raise PassingFailure(f"{host} cannot be reached: {_cause(error)}") from error
        connection.sock = tls
        return connection

    def _reach(self, scheme: str, host: str, port: int) -> socket.socket:
        """Connect to the first address of the name that answers; none of them may be a forbidden one."""
        # A label of more than 63 letters, say, is no error of the network to Python.
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{host[:100]!r} is no name of a host") from error
        addresses = [(family, address) for family, _, _, _, address in found]
        for _, address in addresses:
            self._check(scheme, host, str(address[0]))
        problem: OSError | None = None
        for family, address in addresses:
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(CONNECT_SECONDS)
                plain.connect(address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                plain.close()
                problem = error
            else:
                return plain
        raise problem or OSError("the name has no address")

    def _check(self, scheme: str, host: str, address: str) -> None:
        if is_forbidden(address, loopback=self.loopback):
            text = f"{host} is {address}, an address that nothing is fetched from"
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, text)
        if scheme != "https" and not (scheme == "http" and self.loopback and is_forbidden(address, loopback=False)):
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{host} is asked for without https, which is never done")


class Reply:
    """A status, headers with lower-case names, and the body as it comes."""

    def __init__(self, response: http.client.HTTPResponse, host: str) -> None:
        """Take over an answer whose head has been read."""
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.host = host
        self.length = response.length
        """Bytes of the body; None where the server does not say."""
        self.has_end = response.length is not None or response.chunked
        """Whether the end of the body can be told from a connection that breaks."""
        self._response = response
        self._received = 0

    def close(self) -> None:
        """Read no more of it."""
        self._response.close()

    def pieces(self, stop: threading.Event | None = None) -> Iterator[bytes]:
        """Give the body piece by piece, as it comes; raise PassingFailure where it stalls or breaks off."""
        while not (stop and stop.is_set()):
            try:
                piece = self._response.read1(PIECE)
            except TimeoutError as error:
                raise PassingFailure(f"{self.host} has stalled") from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise PassingFailure(f"{self.host} broke off: {_cause(error)}") from error
            if not piece:
                break
            self._received += len(piece)
            yield piece
        else:
            return
        if self.length is not None and self._received < self.length:
            raise PassingFailure(f"{self.host} broke off after {self._received} of {self.length} bytes")

    def read(self, limit: int) -> bytes:
        """Give the whole body, which must not be longer than `limit`."""
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{self.host} answers with more than {limit} bytes")
        return bytes(found)


def _exchange(connection: http.client.HTTPConnection, asked: Asked, host: str) -> Reply:
    parts = urlsplit(asked.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": AGENT, **asked.headers}
    if asked.secret:
        headers["Authorization"] = asked.secret
    try:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
    except TimeoutError as error:
        raise PassingFailure(f"{host} does not answer") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise PassingFailure(f"{host} does not answer: {_cause(error)}") from error
    except ValueError as error:
        # The text of the error may hold what it refuses: a header, or an address.
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{host} cannot be asked in that way") from error
    return Reply(response, host)


def _redirected(asked: Asked, location: str) -> Asked:
    """Give the request that a redirect leads to; a token does not leave the host that it is for."""
    try:
        url = urljoin(asked.url, location)
        same = _origin(url) == _origin(asked.url)
    except ValueError as error:
        text = f"{_host(asked.url)} redirects to what is no address"
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, text) from error
    if "@" in urlsplit(url).netloc:
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{_host(asked.url)} redirects to an address with a user in it")
    return replace(asked, url=url, secret=asked.secret if same else "")


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or ""), parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def same_origin(one: str, other: str) -> bool:
    """Tell whether two addresses are of the same scheme, host and port."""
    return _origin(one) == _origin(other)


def _host(url: str) -> str:
    """Name a host for a message; the rest of an address may hold a signature."""
    return urlsplit(url).hostname or "the server"


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text)[:200]
