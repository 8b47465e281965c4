"""TLS from a certificate and a key in files, such as a mounted Secret; read anew when the files change.

The kubelet changes a mounted Secret by one symlink, both files at once. Connections keep what they were made with; each
new one gets the newest pair that could be used. One that cannot is told in the log, and the last good one stays.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
"""How often the files are looked at; the kubelet itself takes up to a minute to bring a changed Secret."""


class CertificateError(Exception):
    """A certificate and key that cannot be used; the text says which files, and why."""


class Certificate:
    """What the gateway shows its clients."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both; CertificateError."""
        self._certificate = certificate
        self._key = key
        self._seen = self._state()
        self._current = self._load()
        self.expires = _not_after(certificate)
        """Seconds since 1970."""
        self.context = self._load()
        """For the listener. Each handshake begins with it, and goes on with the newest pair."""
        self.context.sni_callback = self._newest

    async def follow(self, every: float = LOOK_SECONDS) -> None:
        """Look for changed files until cancelled."""
        while True:
            await asyncio.sleep(every)
            self.look()

    def look(self) -> bool:
        """Read the files anew if they have changed; True where a new pair is in use."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            current, expires = self._load(), _not_after(self._certificate)
        except CertificateError as error:
            log.error("the new certificate cannot be used, the old one stays", extra={"why": str(error)})
            return False
        self._current, self.expires = current, expires
        log.info("a new certificate is in use", extra={"expires": datetime.fromtimestamp(expires, UTC).isoformat()})
        return True

    def _newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _state(self) -> tuple[object, ...]:
        """What changes with the files."""
        found: list[object] = []
        for path in (self._certificate, self._key):
            try:
                stat = path.stat()
            except OSError as error:
                found.append(error.errno)
            else:
                found.append((stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without the empty password a key that has one would make OpenSSL ask for it at the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise CertificateError(f"{self._certificate} and {self._key}: {why}") from error
        return context


class CertificateExpiry(Collector):
    """When the certificate in use expires, for the metrics."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        name, text = "moorage_gateway_certificate_expiry_timestamp_seconds", "When the certificate in use expires."
        yield GaugeMetricFamily(name, text, value=self._certificate.expires)


def _not_after(path: Path) -> float:
    """When the first certificate of a PEM file expires, in seconds since 1970; CertificateError.

    RFC 5280, section 4.1: a certificate is a sequence whose first element is a
    sequence of version (tagged 0, may be left out), serial number, algorithm, issuer, and validity, a pair of times.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
        begin = text.index(ssl.PEM_HEADER)
        der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)])
        parts = list(_elements(next(_elements(next(_elements(der))[1]))[1]))
        validity = parts[4 if parts[0][0] == _VERSION else 3][1]
        tag, content = list(_elements(validity))[1]
        year = "%y" if tag == _UTC_TIME else "%Y"
        return datetime.strptime(content.decode(), f"{year}%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise CertificateError(f"{path} does not say when it expires: {error}") from error


_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element of a DER sequence's content."""
    place = 0
    while place < len(der):
        tag, size = der[place], der[place + 1]
        place += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(der[place : place + count], "big")
            place += count
        yield tag, der[place : place + size]
        place += size
