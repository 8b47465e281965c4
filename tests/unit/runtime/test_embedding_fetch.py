"""Images by URL: only from listed hosts, to the address that was judged, and no further."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moorage_runtime.addresses import is_public
from moorage_runtime.embedding import fetch as module
from moorage_runtime.embedding.config import InvalidInput
from moorage_runtime.embedding.fetch import fetch, parse
from moorage_runtime.embedding.images import MAX_BYTES

HOSTS = ("images.example.com", "127.0.0.1")


@asynccontextmanager
async def server(answer: bytes, *, hang: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that notes what it is asked and writes `answer`."""
    asked: list[bytes] = []
    served: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            if hang:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1], asked
    finally:
        made.close()
        await asyncio.gather(*(task for task in served if task is not None))


async def failure(url: str) -> str:
    with pytest.raises(InvalidInput) as raised:
        await fetch(url, HOSTS)
    return str(raised.value)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name have these addresses; note the names that are asked for."""
    names: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        names.append(host)
        families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
        return [(family, 1, 6, "", (one, port)) for family, one in zip(families, addresses, strict=True)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    return names


async def test_a_listed_address_is_fetched_from() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage") as (port, asked):
        assert await fetch(f"http://127.0.0.1:{port}/a.png?b=c", HOSTS) == b"image"
    assert asked[0].startswith(b"GET /a.png?b=c HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example.com/a", "http://images.example.com.evil.example/a", "http://x.images.example.com/a",
        "https://localhost/a", "http://169.254.169.254/latest", "http://[::1]/a", "http://2130706433/a",
        "http://127.1/a", "http://images.example.com./a",
    ],
)  # fmt: skip
async def test_bad_input_51_a_host_that_is_not_listed_is_not_asked_for(url: str) -> None:
    assert "images are not fetched from" in await failure(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.com@evil.example/a", "http://user:pw@images.example.com/a", "ftp://images.example.com/a",
        "http://evil.example\\@images.example.com/a", "http://images.example.com/a b",
        "http://images.example.com/\r\nX: y",
        "http://images.example.com/" + "a" * 2048, "http://\u00e4.example.com/a", "http:images.example.com/a",
        "http://images.example.com:99999/a", "http://[::1/a", "http://images.example.com/\t",
    ],
)  # fmt: skip
async def test_bad_input_51_a_url_that_two_parsers_could_read_differently_is_refused(url: str) -> None:
    said = await failure(url)
    assert "URL is not" in said or "not fetched from" in said


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"], ["127.0.0.2"], ["169.254.169.254"], ["::1"], ["fe80::1"], ["fd00::1"], ["::ffff:10.0.0.1"],
        ["0.0.0.0"], ["100.64.0.1"], ["224.0.0.1"], ["93.184.216.34", "192.168.0.1"], ["64:ff9b::a00:1"],  # noqa: S104
    ],
)  # fmt: skip
async def test_bad_input_51_a_name_at_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    resolving(monkeypatch, *addresses)
    assert await failure("http://images.example.com/a") == "images.example.com is at an address that is not public"


async def test_bad_input_51_the_address_that_was_judged_is_the_one_that_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (port, asked):
        names = resolving(monkeypatch, "127.0.0.1")  # listed as an address, so it may be private
        opened: list[str] = []
        original = asyncio.open_connection

        async def open_connection(host: str, *arguments: Any, **named: Any) -> Any:
            opened.append(host)
            return await original(host, *arguments, **named)

        monkeypatch.setattr(asyncio, "open_connection", open_connection)
        assert await fetch(f"http://images.example.com:{port}/a", HOSTS) == b"ok"
    assert names.count("images.example.com") == 1
    assert opened == ["127.0.0.1"]
    assert b"Host: images.example.com:" in asked[0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "302; redirects are not"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_BYTES + 200_000), "more than 4194304 bytes"),
        (b"not HTTP at all\r\n\r\n", "could not be fetched"),
        (b"", "status 0"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "ended before it was complete"),
    ],
)  # fmt: skip
async def test_bad_input_51_redirects_and_answers_without_end_are_refused(answer: bytes, said: str) -> None:
    async with server(answer) as (port, _):
        assert said in await failure(f"http://127.0.0.1:{port}/a")


async def test_bad_input_51_a_host_that_sends_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    async with server(b"HTTP/1.1 200 OK\r\n", hang=True) as (port, _):
        assert "did not send it in" in await failure(f"http://127.0.0.1:{port}/a")


def test_ports_and_paths_are_read() -> None:
    target = parse("https://Images.example.com/a?b", HOSTS)
    assert (target.tls, target.host, target.port, target.path) == (True, "images.example.com", 443, "/a?b")
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1::1")
