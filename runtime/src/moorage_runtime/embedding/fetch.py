"""Images by URL, where the operator of the service has listed hosts: nothing else is ever connected to.

The name is resolved once, each address is judged, and the connection goes to the address that was judged: a second
answer of the name server cannot send it elsewhere. Redirects are refused, size and time are bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httptools

from moorage_runtime.addresses import is_public
from moorage_runtime.embedding.config import InvalidInput
from moorage_runtime.embedding.images import MAX_BYTES

SECONDS: Final = 10.0
MAX_URL: Final = 2048


@dataclass(frozen=True)
class Target:
    """Where a URL leads."""

    tls: bool
    host: str
    port: int
    path: str
    header: str


async def fetch(url: str, hosts: Collection[str]) -> bytes:
    """Give the bytes behind a URL; raise InvalidInput with the reason where they are not to be had."""
    target = parse(url, hosts)
    try:
        async with asyncio.timeout(SECONDS):
            address = await resolve(target, hosts)
            return await _get(target, address)
    except TimeoutError:
        raise InvalidInput(f"{target.host} did not send it in {SECONDS:.0f} s") from None
    except (OSError, httptools.HttpParserError) as error:
        raise InvalidInput(f"it could not be fetched from {target.host}: {error}") from error


def parse(url: str, hosts: Collection[str]) -> Target:
    """Read a URL strictly, and refuse what is not on the list."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("its URL is not valid") from error
    host = (parts.hostname or "").lower()
    _check_form(url, parts)
    if host not in hosts:
        raise InvalidInput(f"images are not fetched from {host[:100]!r}; IMAGE_URL_HOSTS lists where from")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(tls, host, port or (443 if tls else 80), path, parts.netloc)


def _check_form(url: str, parts: SplitResult) -> None:
    """Refuse what two parsers could read in two ways."""
    plain = url.isascii() and url.isprintable() and not set(url) & set(' \\"<>^`{|}')
    if len(url) > MAX_URL or not plain or "@" in parts.netloc or parts.scheme not in {"http", "https"}:
        raise InvalidInput(f"its URL is not a plain http or https URL of at most {MAX_URL} characters")


async def resolve(target: Target, hosts: Collection[str]) -> tuple[int, str]:
    """Give family and address to connect to; all addresses of a name must be public."""
    try:
        literal = ipaddress.ip_address(target.host)
    except ValueError:
        literal = None
    if literal is not None:  # it is on the list, as this address
        return (socket.AF_INET6 if literal.version == 6 else socket.AF_INET), str(literal)
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [(family, str(place[0])) for family, _, _, _, place in found]
    for _, address in addresses:
        if not is_public(address) and address not in hosts:
            raise InvalidInput(f"{target.host} is at an address that is not public")
    if not addresses:
        raise InvalidInput(f"{target.host} has no address")
    return addresses[0]


class _Answer:
    """What httptools tells of an answer."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.headers: set[bytes] = set()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.add(name.lower())

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.complete = True


async def _get(target: Target, address: tuple[int, str]) -> bytes:
    context = ssl.create_default_context() if target.tls else None
    reader, writer = await asyncio.open_connection(
        address[1], target.port, ssl=context, server_hostname=target.host if target.tls else None, family=address[0]
    )
    try:
        head = f"GET {target.path} HTTP/1.1\r\nHost: {target.header}\r\nAccept: image/*\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        return await _read(reader, target)
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, target: Target) -> bytes:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    received = 0
    while not answer.complete and (data := await reader.read(64 * 1024)):
        received += len(data)
        if received > MAX_BYTES + 64 * 1024:
            raise InvalidInput(f"it has more than {MAX_BYTES} bytes")
        parser.feed_data(data)
    status = parser.get_status_code() if received else 0
    if status != 200:
        raise InvalidInput(f"{target.host} answered with status {status}; redirects are not followed")
    if not (answer.complete or until_end(answer.headers)):
        raise InvalidInput(f"what {target.host} sent ended before it was complete")
    return bytes(answer.content)


def until_end(headers: set[bytes]) -> bool:
    """Say whether an answer ends with its connection, because nothing else says where."""
    return headers.isdisjoint({b"content-length", b"transfer-encoding"})
