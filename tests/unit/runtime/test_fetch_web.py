"""Downloads by https:// from a server with a certificate of its own: what is checked, resumed, and not followed."""

from __future__ import annotations

import functools
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hack.cluster.host.pki import CertificateSpec, write_pki
from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch import run
from moorage_runtime.fetch.folder import MARKER
from moorage_runtime.fetch.http import Network
from moorage_runtime.fetch.run import Fetch
from moorage_runtime.fetch.secrets import Secrets
from moorage_runtime.fetch.settings import FetchSettings
from tests.unit.runtime.hub import Fault, HubImitation, cdn_handler

HOST = "files.example"
GGUF = b"GGUF" + bytes(range(256)) * 1000
PUBLIC = "93.184.216.34"
SHA256 = hashlib.sha256(GGUF).hexdigest()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server's key and certificate, and that of the authority that has signed it."""
    folder = tmp_path_factory.mktemp("tls")
    write_pki(folder, (CertificateSpec("server", HOST, dns_names=(HOST,)),))
    return folder


@pytest.fixture
def web(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubImitation]:
    """A server of files at files.example, on the loopback; `url` is its address."""
    files = HubImitation({"q4.gguf": GGUF, "config.json": b"{}", "model.safetensors": GGUF})
    server = ThreadingHTTPServer(("127.0.0.1", 0), cdn_handler(files))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "server.crt", certificate / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    files.url = f"https://{HOST}:{server.server_address[1]}"
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        return real("127.0.0.1" if host.endswith(HOST) else host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    trusting = ssl.create_default_context(cafile=str(certificate / "ca.crt"))
    monkeypatch.setattr(run, "Network", functools.partial(Network, loopback=True, tls=trusting))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield files
    files.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Bed:
    """A folder, and downloads into it."""

    def __init__(self, web: HubImitation, folder: Path) -> None:
        self.web, self.folder = web, folder

    def run(self, path: str = "/q4.gguf", **settings: Any) -> None:
        """Fetch."""
        fixed = {"model_source": self.web.url + path, "model_folder": self.folder, "fetch_stall_seconds": 0.5}
        secrets = Secrets({"HF_TOKEN": "hf_planted"}, "s")
        Fetch(FetchSettings(**{**fixed, **settings}), secrets, sleep=lambda _: None).run()

    def fails(self, path: str = "/q4.gguf", **settings: Any) -> tuple[LoadError, str]:
        """Fetch in vain."""
        with pytest.raises(LoadFailure) as failure:
            self.run(path, **settings)
        return failure.value.termination.reason, failure.value.termination.message

    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != MARKER)


@pytest.fixture
def bed(web: HubImitation, tmp_path: Path) -> Bed:
    """The folder."""
    return Bed(web, tmp_path / "models")


def test_one_file_is_fetched_and_checked_and_no_token_is_sent(bed: Bed) -> None:
    bed.run(model_sha256=SHA256)
    assert (bed.folder / "q4.gguf").read_bytes() == GGUF
    assert bed.names() == ["q4.gguf"]
    assert all("authorization" not in one.headers for one in bed.web.seen)


def test_a_file_that_is_not_what_was_asked_for(bed: Bed) -> None:
    reason, message = bed.fails(model_sha256="0" * 64)
    assert reason is LoadError.CHECKSUM_MISMATCH
    assert SHA256 in message
    assert "q4.gguf" not in bed.names()


def test_what_a_file_hashes_to_is_told_so_that_it_can_be_pinned(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        bed.run()
    assert [vars(record).get("sha256") for record in caplog.records if record.message == "fetched"] == [SHA256]


def test_files_that_are_named_are_fetched_from_a_folder(bed: Bed) -> None:
    bed.run("/", model_backend="transformers", model_files=("config.json", "model.safetensors"))
    assert bed.names() == ["config.json", "model.safetensors"]


def test_a_folder_without_names_has_no_files(bed: Bed) -> None:
    assert "spec.source.files" in bed.fails("/")[1]


def test_a_broken_download_goes_on_if_the_file_is_the_same(bed: Bed) -> None:
    bed.web.faults["q4"] = [Fault(cut_after=100_000)]
    bed.run()
    assert (bed.folder / "q4.gguf").read_bytes() == GGUF
    later = bed.web.seen[-1].headers
    assert (later["range"], later["if-range"][0]) == ("bytes=100000-", '"')


def test_a_file_that_has_changed_meanwhile_is_begun_anew(bed: Bed) -> None:
    bed.web.faults["q4"] = [Fault(cut_after=100_000, etag='"of-another-file"')]
    bed.run()
    assert (bed.folder / "q4.gguf").read_bytes() == GGUF
    assert bed.web.seen[-1].headers["if-range"] == '"of-another-file"'


def test_a_server_that_keeps_to_shorter_ranges_than_asked_for_is_asked_on(bed: Bed) -> None:
    bed.web.faults["q4"] = [Fault(cut_after=50), Fault(range_of=10), Fault(range_of=100_000), Fault(range_of=100_000)]
    bed.run()
    assert (bed.folder / "q4.gguf").read_bytes() == GGUF
    ranges = [one.headers.get("range") for one in bed.web.seen]
    assert ranges == [None, "bytes=50-", "bytes=60-", "bytes=100060-", "bytes=200060-"]


def test_shorter_ranges_for_ever_are_no_whole_file(bed: Bed) -> None:
    bed.web.faults["q4"] = [Fault(cut_after=50)] + [Fault(range_of=10)] * 50
    reason, message = bed.fails()
    assert (reason, f"of {len(GGUF)} bytes" in message) == (LoadError.DOWNLOAD_FAILED, True)
    assert bed.names() == ["q4.gguf.part", "q4.gguf.part.json"]
    assert not json.loads((bed.folder / MARKER).read_bytes())["complete"]


def test_a_range_of_a_file_of_another_size_is_begun_anew(bed: Bed) -> None:
    bed.web.faults["q4"] = [Fault(cut_after=50), Fault(range_of=10, total=60)]
    bed.run()
    assert (bed.folder / "q4.gguf").read_bytes() == GGUF
    assert [one.headers.get("range") for one in bed.web.seen] == [None, "bytes=50-", None]


def test_a_file_whose_length_nobody_tells_is_not_taken_for_whole(bed: Bed) -> None:
    bed.web.faults["q4"] = [Fault(no_length=True, cut_after=1000)]
    reason, message = bed.fails()
    assert (reason, "does not say how long q4.gguf is" in message) == (LoadError.DOWNLOAD_FAILED, True)
    assert "q4.gguf" not in bed.names()


def test_a_volume_that_is_a_little_too_small_is_told_with_what_is_needed_and_what_is_there(bed: Bed) -> None:
    message = bed.fails(model_size_limit=len(GGUF) + (1 << 20) - 1)[1]
    needed = f"{len(GGUF) + (1 << 20)} bytes are needed with 1.0 MiB that is kept for the file system"
    assert f"{needed}, and the volume has {len(GGUF) + (1 << 20) - 1} bytes at most" in message


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_name_of_the_version_a_broken_download_is_begun_anew(bed: Bed, etag: str) -> None:
    bed.web.faults["q4"] = [Fault(cut_after=100_000, etag=etag)]
    bed.run()
    assert "range" not in bed.web.seen[-1].headers
    assert (bed.folder / "q4.gguf").read_bytes() == GGUF


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (401, LoadError.DOWNLOAD_UNAUTHORIZED, "answers 401"),
        (403, LoadError.DOWNLOAD_UNAUTHORIZED, "answers 403"),
        (404, LoadError.MODEL_NOT_FOUND, "has no q4.gguf"),
        (418, LoadError.DOWNLOAD_FAILED, "answers 418"),
    ],
)
def test_refusals_are_told_apart(bed: Bed, status: int, reason: LoadError, words: str) -> None:
    bed.web.faults["q4"] = [Fault(status)]
    found, message = bed.fails()
    assert found is reason
    assert words in message


def test_a_disk_that_is_too_small_is_told_by_the_length_of_the_answer(bed: Bed) -> None:
    reason, message = bed.fails(model_size_limit=1_200_000)
    assert (reason, "250.0 KiB" in message) == (LoadError.DOWNLOAD_DISK_FULL, True)
    assert (bed.folder / "q4.gguf.part").stat().st_size == 0


def test_a_certificate_that_is_not_trusted_is_not_tried_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Network", functools.partial(Network, loopback=True))
    reason, message = bed.fails()
    assert reason is LoadError.DOWNLOAD_FAILED
    assert f"the certificate of {HOST} is not trusted" in message
    assert bed.web.seen == []


def test_a_certificate_of_another_host_is_not_trusted(bed: Bed) -> None:
    bed.web.url = bed.web.url.replace(HOST, f"other-{HOST}")
    assert "is not trusted" in bed.fails()[1]


def test_bad_input_12_a_name_that_leads_to_this_machine_is_not_connected_to(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Network", Network)
    reason, message = bed.fails()
    assert (reason, message) == (
        LoadError.DOWNLOAD_FAILED,
        f"{HOST} is 127.0.0.1, an address that nothing is fetched from",
    )
    assert bed.web.seen == []


def test_a_redirect_to_http_is_not_followed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.web.faults["q4"] = [Fault(302, {"Location": f"http://{PUBLIC}/q4.gguf"})]
    assert "without https" in bed.fails()[1]
