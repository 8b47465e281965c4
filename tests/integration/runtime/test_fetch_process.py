"""`moorage-runtime fetch` as a process: exit codes, progress, last words, and that no secret is in any of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from moorage_common.facts import Health, Phase, Termination
from tests.unit.runtime.hub import REPOSITORY, Fault, HubImitation, serving

TOKEN = "hf_planted_token_that_nobody_may_see"  # the canary
BIG = bytes(range(256)) * 8000


@pytest.fixture
def hub() -> Iterator[HubImitation]:
    """A repository that is shown to who has the token."""
    files = {"config.json": b'{"model_type": "llama"}', "model.safetensors": BIG}
    with serving(HubImitation(files, token=TOKEN)) as hub:
        yield hub


class Fetching:
    """A process that fetches."""

    def __init__(self, hub: HubImitation, folder: Path, **settings: str) -> None:
        self.folder, self.last_words = folder / "models", folder / "termination"
        self.log = folder / "fetch.log"
        environment = {
            "PATH": os.environ["PATH"],
            "MODEL_SOURCE": f"hf://{REPOSITORY}@main",
            "MODEL_FOLDER": str(self.folder),
            "MODEL_BACKEND": "transformers",
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "SECRET_NAME": "hf-token",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "TERMINATION_MESSAGE_PATH": str(self.last_words),
            "LOG_LEVEL": "DEBUG",
            **settings,
        }
        command = [sys.executable, "-m", "moorage_runtime", "fetch"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def text(self) -> str:
        """All that it has written."""
        words = self.last_words.read_text() if self.last_words.exists() else ""
        return self.log.read_text() + words

    def end(self) -> int:
        """Wait for its end; nothing that it has said or holds has the token in it."""
        status = self.process.wait(30)
        assert TOKEN not in self.text()
        assert f"Bearer {TOKEN}"[:14] not in self.text()
        for path in self.folder.rglob("*"):
            assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
        return status

    def termination(self) -> Termination:
        """Its last words."""
        found = Termination.decode(self.last_words.read_text())
        assert found is not None
        return found

    def health(self) -> Health:
        """What it says of its progress; waits until it listens."""
        for line in self.lines():
            if line["message"] == "listening":
                answer = httpx.get(f"http://127.0.0.1:{line['port']}/health/detailed", trust_env=False)
                return msgspec.json.decode(answer.content, type=Health)
        raise AssertionError(self.text())

    def lines(self) -> list[dict[str, object]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., Fetching]


@pytest.fixture
def start(hub: HubImitation, tmp_path: Path) -> Iterator[Start]:
    """Starts processes; none outlives the test."""
    started: list[Fetching] = []

    def run(**settings: str) -> Fetching:
        started.append(Fetching(hub, tmp_path, **settings))
        return started[-1]

    yield run
    for fetching in started:
        fetching.process.kill()
        fetching.process.wait()


def test_a_download_and_a_second_start_that_has_nothing_to_do(hub: HubImitation, start: Start) -> None:
    first = start()
    assert first.end() == 0
    assert (first.folder / "model.safetensors").read_bytes() == BIG
    assert not first.last_words.exists()
    asked = len(hub.seen)
    assert start(HF_ENDPOINT="http://127.0.0.1:1").end() == 0
    assert len(hub.seen) == asked


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(403, {"X-Error-Code": "GatedRepo"}), "DownloadUnauthorized"),
        (Fault(401, body=TOKEN.encode()), "DownloadUnauthorized"),
        (Fault(404, {"X-Error-Code": "RevisionNotFound"}), "ModelNotFound"),
        (Fault(200, body=f'{{"sha": "{TOKEN}"}}'.encode()), "DownloadFailed"),
        (Fault(302, {"Location": f"https://{TOKEN}.invalid/{TOKEN}"}), "DownloadFailed"),
    ],
)
def test_a_failure_leaves_its_reason_and_never_the_token(
    hub: HubImitation, start: Start, fault: Fault, reason: str
) -> None:
    hub.faults["/revision/"] = [fault]
    fetching = start(FETCH_ATTEMPTS="1")
    assert fetching.end() == 1
    assert fetching.termination().reason.value == reason
    assert fetching.lines()[-1]["reason"] == reason


@pytest.mark.parametrize("setting", [{"MODEL_SOURCE": f"hf://{TOKEN}"}, {"HF_ENDPOINT": f"https://{TOKEN}.example"}])
def test_a_wrong_setting_is_a_reason_too(start: Start, setting: dict[str, str]) -> None:
    fetching = start(**setting)
    assert fetching.end() == 1
    assert fetching.termination().reason.value == "InvalidModelConfig"


def test_a_token_that_is_none_is_not_shown_either(start: Start) -> None:
    fetching = start(HF_TOKEN=f"{TOKEN}\r\nX-Other: {TOKEN}")
    assert fetching.end() == 1
    assert fetching.termination().reason.value == "DownloadUnauthorized"


def test_progress_is_told_while_it_fetches_and_sigterm_ends_it_at_once(hub: HubImitation, start: Start) -> None:
    hub.faults["/lfs/model"] = [Fault(stall_after=1_000_000)]
    fetching = start()
    assert hub.stalled.wait(30)
    deadline = time.monotonic() + 20
    while (health := fetching.health()).download is None or health.download.bytes_done < 1_000_000:
        assert time.monotonic() < deadline, fetching.text()
    assert health.status is Phase.DOWNLOADING
    assert health.download.bytes_total == len(BIG) + len(hub.files["config.json"])
    assert health.download.files_done == 1
    began = time.monotonic()
    fetching.process.send_signal(signal.SIGTERM)
    assert fetching.end() == 143
    assert time.monotonic() - began < 5
    assert (fetching.folder / "model.safetensors.part").stat().st_size == 1_000_000
    again = start()
    assert again.end() == 0
    assert hub.asked("/lfs/model")[-1].headers["range"] == "bytes=1000000-"
    assert (again.folder / "model.safetensors").read_bytes() == BIG


def test_the_token_is_in_no_argument_of_the_process(hub: HubImitation, start: Start) -> None:
    hub.faults["/lfs/model"] = [Fault(stall_after=0)]
    fetching = start()
    assert hub.stalled.wait(30)
    assert TOKEN.encode() not in Path(f"/proc/{fetching.process.pid}/cmdline").read_bytes()
    fetching.process.terminate()
    assert fetching.end() == 143
