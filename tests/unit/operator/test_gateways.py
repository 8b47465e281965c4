"""Following gateways: what each says is heard as it comes, and one that is away is known to be."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from moorage_common.demand import News, Use, encode
from moorage_operator.api.key import Key
from moorage_operator.scaling import gateways
from moorage_operator.scaling.gateways import Gateways
from moorage_operator.scaling.usage import Usage
from tests.unit.common.support import until
from tests.unit.operator.support import Object

TINY = Key("team-a", "tiny")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"


@dataclass
class FakeGateway:
    """Says what a test says, to whoever asks."""

    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    first: bytes = HEAD + encode(News("one", {"team-a/tiny": Use()}))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One operator."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            self.writers.append(writer)
            writer.write(self.first)
            await reader.read()
        writer.close()

    def say(self, content: bytes) -> None:
        """Write to all."""
        for writer in self.writers:
            writer.write(content)

    def hang_up(self) -> None:
        """Cut all off."""
        while self.writers:
            self.writers.pop().close()


@dataclass
class Bed:
    """An operator that follows, and whom it follows."""

    usage: Usage
    gateways: Gateways
    fake: FakeGateway
    changed: list[set[Key] | None]

    async def until(self, known: bool, requests: int = 0) -> None:
        await until(lambda: (self.usage.use(TINY).known, self.usage.use(TINY).requests) == (known, requests))


def endpoint_slice(*ports: int, uid: str = "slice", name: str = "admin") -> Object:
    return {
        "metadata": {"uid": uid},
        "ports": [{"name": name, "port": port} for port in ports],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": False}}],
    }


@asynccontextmanager
async def following(fake: FakeGateway | None = None, token_file: str = "") -> AsyncIterator[Bed]:
    fake, changed = fake or FakeGateway(), list[set[Key] | None]()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    usage = Usage(asyncio.get_running_loop().time)

    def note(keys: Iterable[Key] | None) -> None:
        changed.append(None if keys is None else set(keys))

    followed = Gateways(usage, note, token_file)
    task = asyncio.create_task(followed.run())
    followed.event("ADDED", endpoint_slice(fake.port))
    try:
        yield Bed(usage, followed, fake, changed)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        fake.hang_up()
        server.close()


async def test_what_a_gateway_says_is_heard_line_by_line_however_it_is_cut() -> None:
    async with following() as bed:
        await bed.until(known=True)
        assert bed.fake.asked[0].startswith(b"GET /demand ")
        line = encode(News(models={"team-a/tiny": Use(held=2)}))
        bed.fake.say(line[:10])
        await asyncio.sleep(0.02)
        assert bed.usage.use(TINY).requests == 0
        bed.fake.say(line[10:] + encode(News()) + line)
        await bed.until(known=True, requests=2)
        assert {TINY} in bed.changed


async def test_one_that_hangs_up_is_unknown_and_asked_again() -> None:
    async with following() as bed:
        await bed.until(known=True)
        bed.fake.hang_up()
        await bed.until(known=False)
        await bed.until(known=True)
        assert len(bed.fake.asked) == 2


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /livez\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"[]\n",
        HEAD + b'{"models":{"a":{"held":-"}}}\n',
        b"nonsense\r\n\r\n",
    ],
)
async def test_one_that_answers_nonsense_is_unknown_and_harms_nobody(first: bytes) -> None:
    async with following(FakeGateway(first=first)) as bed:
        await until(lambda: len(bed.fake.asked) >= 2)
        assert not bed.usage.use(TINY).known
        bed.fake.first = FakeGateway.first
        await bed.until(known=True)


async def test_one_that_is_silent_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = gateways._TIMEOUT.__class__(total=None, sock_connect=2, sock_read=0.2)
    monkeypatch.setattr(gateways, "_TIMEOUT", quick)
    async with following() as bed:
        await bed.until(known=True)
        bed.fake.first = HEAD
        await bed.until(known=False)


async def test_only_those_in_slices_are_followed_and_by_the_port_of_that_name() -> None:
    async with following() as bed:
        await bed.until(known=True)
        bed.gateways.event("ADDED", endpoint_slice(1, uid="other", name="http"))
        assert bed.gateways.addresses == {("127.0.0.1", bed.fake.port)}
        bed.gateways.listed(["other"])
        assert not bed.usage.wakes(TINY)
        bed.gateways.event("MODIFIED", endpoint_slice(bed.fake.port))
        await bed.until(known=True)
        bed.gateways.event("DELETED", endpoint_slice(bed.fake.port))
        assert bed.gateways.addresses == set()


def answers(status: str) -> FakeGateway:
    return FakeGateway(first=f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())


def counted() -> dict[str, float | None]:
    """The metric."""
    states = ("connected", "refused", "unreachable")
    return {state: REGISTRY.get_sample_value("moorage_gateways", {"state": state}) for state in states}


async def test_the_token_is_read_again_for_every_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with following(token_file=str(file)) as bed:
        await bed.until(known=True)
        file.write_text("second")
        bed.fake.hang_up()
        await until(lambda: len(bed.fake.asked) == 2)
        assert b"\r\nAuthorization: Bearer first\r\n" in bed.fake.asked[0]
        assert b"\r\nAuthorization: Bearer second\r\n" in bed.fake.asked[1]


async def test_without_a_file_no_token_is_sent() -> None:
    async with following() as bed:
        await bed.until(known=True)
        assert b"uthorization" not in bed.fake.asked[0]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"a\xffb", b"a\nX-More: b"])
async def test_without_a_token_in_its_file_nobody_is_asked_and_it_is_tried_again(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "moorage_operator.scaling.gateways")
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    async with following(token_file=str(file)) as bed:
        await until(lambda: "a gateway does not report" in caplog.text)
        assert bed.fake.asked == []
        assert not bed.usage.use(TINY).known
        file.write_text("good")
        await bed.until(known=True)


@pytest.mark.parametrize(
    ("status", "words"), [("401 Unauthorized", "MOORAGE_GATEWAY_TOKEN_FILE"), ("403 Forbidden", "RBAC")]
)
async def test_one_that_refuses_is_told_once_counted_and_tried_again(
    status: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "moorage_operator.scaling.gateways")
    file = tmp_path / "token"
    file.write_text("s3cret")
    async with following(answers(status), str(file)) as bed:
        await until(lambda: len(bed.fake.asked) >= 3)
        (told,) = [record for record in caplog.records if "does not report" in record.getMessage()]
        assert told.levelname == "WARNING"
        assert words in told.__dict__["why"]
        assert "s3cret" not in caplog.text + str(told.__dict__)
        assert counted() == {"connected": 0, "refused": 1, "unreachable": 0}
        assert (bed.usage.use(TINY).known, bed.usage.wakes(TINY)) == (False, False)
        assert bed.changed.count(None) == 2, "who sleeps is looked at again: nobody would wake it"
        bed.fake.first = FakeGateway.first
        await bed.until(known=True)
        assert bed.usage.wakes(TINY)
        assert counted() == {"connected": 1, "refused": 0, "unreachable": 0}
        bed.fake.first = answers(status).first
        bed.fake.hang_up()
        await until(lambda: counted()["refused"] == 1)
        assert [record.levelname for record in caplog.records if "does not report" in record.getMessage()] == [
            *("WARNING", "INFO", "WARNING")
        ]
        bed.gateways.listed([])
        await until(lambda: sum(number or 0 for number in counted().values()) == 0)
