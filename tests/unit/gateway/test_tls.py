"""TLS: real handshakes, certificates that are exchanged as the kubelet does it, and files that cannot be used."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from prometheus_client import CollectorRegistry, generate_latest

from moorage_common.http.connections import Connections
from moorage_common.http.message import EVENT_STREAM, Answer, Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_gateway.tls import Certificate, CertificateError, CertificateExpiry
from tests.unit.common.support import Source, get

HOST = "gateway.example"
Body = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Mount:
    """A mounted Secret: both files are links into a folder, which the kubelet exchanges by one rename."""

    folder: Path
    authority: trustme.CA
    number: int = 0

    def put(self, certificate: bytes, key: bytes) -> None:
        """Exchange both files at once."""
        self.number += 1
        data = self.folder / f"..{self.number}"
        data.mkdir()
        (data / "tls.crt").write_bytes(certificate)
        (data / "tls.key").write_bytes(key)
        link = self.folder / "..new"
        link.symlink_to(data.name)
        link.rename(self.folder / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")

    def issue(self, days: int = 30) -> x509.Certificate:
        """Put a new certificate there."""
        end = datetime.now(UTC) + timedelta(days=days)
        made = self.authority.issue_cert(HOST, not_after=end)
        pem = made.cert_chain_pems[0].bytes()
        self.put(pem, made.private_key_pem.bytes())
        return x509.load_pem_x509_certificate(pem)

    def certificate(self) -> Certificate:
        """Read what is there."""
        return Certificate(self.folder / "tls.crt", self.folder / "tls.key")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Whom the clients trust."""
    return trustme.CA()


@pytest.fixture
def mount(tmp_path: Path, authority: trustme.CA) -> Mount:
    """A folder with nothing in it yet."""
    return Mount(tmp_path, authority)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Runs a test's body on a loop of asyncio's, and on the one that the gateway has."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def with_loop(body: Body) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(body())

    return with_loop


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client has."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@dataclass
class Client:
    """A connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def tls(self) -> ssl.SSLObject:
        """What was agreed upon."""
        found: ssl.SSLObject = self.writer.get_extra_info("ssl_object")
        return found

    @property
    def serial(self) -> int:
        """Of the certificate that was shown."""
        shown = self.tls.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number

    async def ask(self) -> bytes:
        """Send a request and read its answer."""
        self.writer.write(get("/"))
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        return await self.reader.readexactly(2)


@dataclass
class Server:
    """A server with that certificate."""

    port: int
    authority: trustme.CA

    @asynccontextmanager
    async def client(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
        """Connect to it."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context or trusting(self.authority), server_hostname=HOST
        )
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(mount: Mount, certificate: Certificate) -> AsyncIterator[Server]:
    """Answer `ok`, and at /stream with events without end."""
    connections = Connections()

    async def handle(request: Request, responder: Responder) -> None:
        if request.path != "/stream":
            responder.send(Answer(200, b"ok"))
            return
        responder.start(200, EVENT_STREAM, flow=Source())
        while True:
            responder.write(b"data: x\n\n")
            await asyncio.sleep(0.001)

    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(handle, limits=Limits(), connections=connections, is_draining=lambda: False),
        "127.0.0.1",
        0,
        ssl=certificate.context,
    )
    try:
        yield Server(server.sockets[0].getsockname()[1], mount.authority)
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()


def test_a_client_gets_tls_1_3_and_http_1_1(mount: Mount, run: Callable[[Body], None]) -> None:
    mount.issue()

    async def body() -> None:
        async with serving(mount, mount.certificate()) as server, server.client() as client:
            assert (client.tls.version(), client.tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            assert await client.ask() == b"ok"

    run(body)


def test_tls_1_2_is_taken_and_1_1_is_not(mount: Mount, run: Callable[[Body], None]) -> None:
    mount.issue()
    old = trusting(mount.authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    older = trusting(mount.authority)
    older.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        older.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning):
        older.maximum_version = ssl.TLSVersion.TLSv1_1

    async def body() -> None:
        async with serving(mount, mount.certificate()) as server:
            async with server.client(old) as client:
                assert (client.tls.version(), await client.ask()) == ("TLSv1.2", b"ok")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with server.client(older):
                    pass

    run(body)


def test_a_new_certificate_is_shown_and_no_connection_is_dropped(mount: Mount, run: Callable[[Body], None]) -> None:
    first = mount.issue()

    async def body() -> None:
        certificate = mount.certificate()
        async with serving(mount, certificate) as server, server.client() as kept, server.client() as stream:
            stream.writer.write(get("/stream"))
            await stream.reader.readuntil(b"data: x\n\n")
            following = asyncio.create_task(certificate.follow(0.01))
            second = mount.issue()
            assert first.serial_number != second.serial_number
            async with asyncio.timeout(10):
                while True:
                    async with server.client() as fresh:
                        assert await fresh.ask() == b"ok"
                        if fresh.serial == second.serial_number:
                            break
            following.cancel()
            assert await kept.ask() == b"ok"
            assert kept.serial == first.serial_number
            for _ in range(50):
                await stream.reader.readuntil(b"data: x\n\n")

    run(body)


def test_handshakes_go_well_while_certificates_change(mount: Mount, run: Callable[[Body], None]) -> None:
    mount.issue()

    async def body() -> None:
        certificate, changing = mount.certificate(), True
        async with serving(mount, certificate) as server:

            async def clients() -> int:
                served = 0
                while changing:
                    async with server.client() as client:
                        assert await client.ask() == b"ok"
                        served += 1
                return served

            load = [asyncio.create_task(clients()) for _ in range(8)]
            for _ in range(10):
                mount.issue()
                assert certificate.look()
                await asyncio.sleep(0.02)
            changing = False
            assert all([await task for task in load])

    run(body)


def test_a_pair_that_does_not_fit_is_told_and_the_old_one_stays(
    mount: Mount, run: Callable[[Body], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = mount.issue()
    other = mount.authority.issue_cert(HOST)
    strange = mount.authority.issue_cert(HOST)

    async def body() -> None:
        certificate = mount.certificate()
        async with serving(mount, certificate) as server:
            mount.put(other.cert_chain_pems[0].bytes(), strange.private_key_pem.bytes())
            assert not certificate.look()
            assert not certificate.look()  # told once
            async with server.client() as client:
                assert client.serial == first.serial_number
            mount.put(other.cert_chain_pems[0].bytes(), other.private_key_pem.bytes())
            assert certificate.look()
            async with server.client() as client:
                assert client.serial != first.serial_number

    run(body)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in told] == ["the new certificate cannot be used, the old one stays"]
    assert "tls.key" in told[0].__dict__["why"]


@pytest.mark.parametrize("broken", ["no certificate", "no key", "nothing", "a key that is encrypted"])
def test_what_cannot_be_used_at_the_start_is_named(mount: Mount, broken: str) -> None:
    made = mount.authority.issue_cert(HOST)
    certificate, key = made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes()
    if broken == "no certificate":
        mount.put(b"x", key)
    elif broken == "no key":
        mount.put(certificate, b"x")
    elif broken == "a key that is encrypted":
        secret = serialization.load_pem_private_key(key, None)
        how = serialization.BestAvailableEncryption(b"secret")
        encrypted = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        mount.put(certificate, encrypted)
    with pytest.raises(CertificateError, match=r"tls\.crt and .*tls\.key: \S+"):
        mount.certificate()


@pytest.mark.parametrize("days", [3, 365 * 40])
def test_the_metric_says_when_the_certificate_expires(mount: Mount, days: int) -> None:
    # The format of the time changes in 2050.
    issued = mount.issue(days)
    registry = CollectorRegistry()
    registry.register(CertificateExpiry(mount.certificate()))
    name, value = generate_latest(registry).decode().splitlines()[-1].split()
    assert name == "moorage_gateway_certificate_expiry_timestamp_seconds"
    assert float(value) == issued.not_valid_after_utc.timestamp()
