"""Downloads from an imitation of the hub: what is fetched, what breaks, how it goes on, and what is said."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch import hub as hub_module
from moorage_runtime.fetch import pace
from moorage_runtime.fetch.folder import MARKER
from moorage_runtime.fetch.run import Fetch
from moorage_runtime.fetch.secrets import Secrets
from moorage_runtime.fetch.settings import FetchSettings
from moorage_runtime.fetch.transfer import Stopped
from tests.unit.runtime import hub as imitation
from tests.unit.runtime.hub import COMMIT, REPOSITORY, Fault, HubImitation, serving

BIG = random.Random(1).randbytes(600_000)  # noqa: S311 - any bytes do
SMALL = b'{"architectures": ["LlamaForCausalLM"]}'
WEIGHTS = "model.safetensors"
TOKEN = "hf_a-planted-token"
FILES = {"config.json": SMALL, "tokenizer.json": b"{}" * 200, WEIGHTS: BIG, "README.md": b"x", "modeling_x.py": b"x"}


@pytest.fixture
def hub() -> Iterator[HubImitation]:
    """A repository with one model."""
    with serving(HubImitation(dict(FILES))) as hub:
        yield hub


class Bed:
    """One folder, and downloads into it."""

    def __init__(self, hub: HubImitation, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.slept: list[float] = []
        self.settings = {
            "model_source": f"hf://{REPOSITORY}@main",
            "model_folder": folder,
            "model_backend": "transformers",
            "hf_endpoint": hub.url,
            "fetch_stall_seconds": 0.5,
        }
        self.secrets = Secrets()
        self.last: Fetch | None = None

    def fetch(self, **settings: Any) -> Fetch:
        """A download that does not sleep."""
        made = FetchSettings(**{**self.settings, **settings})
        self.last = Fetch(made, self.secrets, sleep=self.slept.append)
        return self.last

    def run(self, **settings: Any) -> None:
        """Fetch."""
        self.fetch(**settings).run()

    def fails(self, **settings: Any) -> tuple[LoadError, str]:
        """Fetch in vain: the reason and the message."""
        with pytest.raises(LoadFailure) as failure:
            self.run(**settings)
        termination = failure.value.termination
        return termination.reason, termination.message

    def files(self) -> dict[str, bytes]:
        """What is in the folder, but for what is ours."""
        found = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if name != MARKER}


@pytest.fixture
def bed(hub: HubImitation, tmp_path: Path) -> Bed:
    """The folder."""
    return Bed(hub, tmp_path / "models")


WANTED = {name: FILES[name] for name in ("config.json", "tokenizer.json", WEIGHTS)}


def test_what_an_engine_needs_is_fetched_and_nothing_else(bed: Bed) -> None:
    bed.run()
    assert bed.files() == WANTED
    assert bed.slept == []
    assert not bed.hub.asked("README") + bed.hub.asked("modeling")


def test_a_branch_is_looked_up_once_and_all_files_are_of_that_commit(bed: Bed) -> None:
    bed.run()
    assert len(bed.hub.asked("/revision/main")) == 1
    assert {one.path.split("/")[4] for one in bed.hub.asked("/resolve/")} == {COMMIT}


def test_bad_input_13_a_commit_need_not_be_looked_up(bed: Bed) -> None:
    bed.run(model_source=f"hf://{REPOSITORY}@{COMMIT}")
    assert bed.hub.asked("/revision/") == []
    assert bed.files() == WANTED


def test_a_finished_download_is_not_asked_for_again(bed: Bed) -> None:
    bed.run()
    bed.hub.seen.clear()
    bed.run(hf_endpoint="http://127.0.0.1:1")
    assert bed.hub.seen == []
    assert bed.files() == WANTED


def test_a_file_that_has_gone_is_fetched_again_and_no_other(bed: Bed) -> None:
    bed.run()
    (bed.folder / "config.json").unlink()
    bed.hub.seen.clear()
    bed.run()
    assert bed.files() == WANTED
    assert [one.path.rpartition("/")[2] for one in bed.hub.asked("/resolve/")] == ["config.json"]


def test_another_model_takes_the_place_of_the_one_before(bed: Bed) -> None:
    bed.run()
    bed.hub.files = {"config.json": b"{}", "model-00001-of-00001.safetensors": BIG[::-1]}
    bed.run(model_source=f"hf://{REPOSITORY}@{COMMIT}")
    assert bed.files() == bed.hub.files


def test_a_list_in_pages_is_read_to_its_end(bed: Bed) -> None:
    bed.hub.page = 1
    bed.run()
    assert bed.files() == WANTED


def test_a_list_that_goes_on_elsewhere_is_not_followed(bed: Bed) -> None:
    elsewhere = {"Link": f'<{bed.hub.cdn}/api/models/{REPOSITORY}/tree/{COMMIT}>; rel="next"'}
    bed.hub.faults["/tree/"] = [Fault(200, elsewhere, b"[]")]
    assert bed.fails() == (LoadError.DOWNLOAD_FAILED, "the hub's list of files goes on at another host")


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(bed: Bed) -> None:
    bed.hub.token = TOKEN
    bed.secrets = Secrets({"HF_TOKEN": TOKEN + "\n"}, "hf-token")
    bed.run()
    assert bed.files() == WANTED
    of_the_cdn = bed.hub.asked("/lfs/")
    assert of_the_cdn
    assert all("authorization" not in one.headers for one in of_the_cdn)
    others = [one for one in bed.hub.seen if one not in of_the_cdn]
    assert {one.headers["authorization"] for one in others} == {f"Bearer {TOKEN}"}


def test_a_token_that_has_left_its_host_does_not_come_back_with_a_redirect(bed: Bed) -> None:
    bed.secrets = Secrets({"HF_TOKEN": TOKEN}, "hf-token")
    back = {"Location": f"{bed.hub.url}/{REPOSITORY}/resolve/{COMMIT}/config.json"}
    bed.hub.faults["/lfs/model"] = [Fault(302, back)]
    bed.hub.files = {"config.json": SMALL, WEIGHTS: BIG}
    bed.fails(fetch_attempts=1)
    final = bed.hub.asked("/resolve/")[-1]
    assert "authorization" not in final.headers


@pytest.mark.parametrize("location", ["//192.0.2.1/", "http://169.254.169.254/latest", "ftp://h.example/", "//@"])
def test_bad_input_12_a_redirect_to_what_nothing_is_fetched_from_is_not_followed(bed: Bed, location: str) -> None:
    bed.hub.faults["/resolve/"] = [Fault(302, {"Location": location})]
    reason, message = bed.fails(fetch_attempts=1)
    assert reason is LoadError.DOWNLOAD_FAILED
    assert bed.hub.asked("/lfs/model") == [], message


def test_redirects_in_a_circle_come_to_an_end(bed: Bed) -> None:
    bed.hub.faults["/revision/"] = [Fault(307, {"Location": f"/api/models/{REPOSITORY}/revision/main"})] * 9
    assert bed.fails() == (LoadError.DOWNLOAD_FAILED, "127.0.0.1 redirects more than 5 times")


# -- what breaks, and goes on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut_after", "stall_after"])
def test_a_download_that_breaks_goes_on_where_it_stopped(bed: Bed, kind: str) -> None:
    faults = [Fault(**{kind: 300_000}), Fault(**{kind: 100_000})]  # type: ignore[arg-type]
    bed.hub.faults["/lfs/model"] = faults
    bed.run()
    assert bed.files() == WANTED
    ranges = [one.headers.get("range") for one in bed.hub.asked("/lfs/model")]
    assert ranges == [None, "bytes=300000-", "bytes=400000-"]
    assert len(bed.slept) == 2


def test_another_process_goes_on_and_hashes_what_is_there_from_the_disk(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000)]
    bed.fails(fetch_attempts=1)
    assert (bed.folder / f"{WEIGHTS}.part").stat().st_size == 300_000
    assert not (bed.folder / WEIGHTS).exists()
    bed.run()
    assert bed.files() == WANTED
    assert bed.hub.asked("/lfs/model")[-1].headers["range"] == "bytes=300000-"


def test_what_was_left_and_is_damaged_is_fetched_anew(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000)]
    bed.fails(fetch_attempts=1)
    with (bed.folder / f"{WEIGHTS}.part").open("r+b") as file:
        file.write(b"damaged")
    bed.run()
    assert bed.files() == WANTED
    assert bed.hub.asked("/lfs/model")[-1].headers.get("range") is None


def test_what_was_left_of_another_version_is_thrown_away(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000)]
    bed.fails(fetch_attempts=1)
    bed.hub.files[WEIGHTS] = BIG[::-1]
    bed.run()
    assert bed.files()[WEIGHTS] == BIG[::-1]
    assert bed.hub.asked("/lfs/model")[-1].headers.get("range") is None


def test_a_server_that_knows_no_ranges_is_begun_anew(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000), Fault(no_range=True)]
    bed.run()
    assert bed.files() == WANTED
    assert bed.last is not None
    assert bed.last.progress.now().bytes_done == sum(map(len, WANTED.values()))


def test_a_server_that_knows_no_ranges_and_always_breaks_off_is_given_up(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=500_000, no_range=True)] * 50
    reason, message = bed.fails()
    assert reason is LoadError.DOWNLOAD_FAILED
    assert "begun anew" in message
    assert len(bed.hub.asked("/lfs/model")) < 10


@pytest.mark.parametrize("answered", ["bytes 7-599999/600000", "bytes x", ""])
def test_another_range_than_was_asked_for_is_not_taken(bed: Bed, answered: str) -> None:
    wrong = Fault(206, {"Content-Range": answered}, b"x" * 299_999)
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000), wrong]
    bed.run()
    assert bed.files() == WANTED


def test_a_part_that_is_whole_already_is_not_asked_for(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000)]
    bed.fails(fetch_attempts=1)
    (bed.folder / f"{WEIGHTS}.part").write_bytes(BIG)
    bed.hub.seen.clear()
    bed.run()
    assert bed.files() == WANTED
    assert bed.hub.asked("/lfs/model") == []


def test_a_part_that_is_longer_than_the_file_is_thrown_away(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(cut_after=300_000)]
    bed.fails(fetch_attempts=1)
    (bed.folder / f"{WEIGHTS}.part").write_bytes(BIG * 2)
    bed.run()
    assert bed.files() == WANTED


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(bed: Bed, status: int) -> None:
    bed.hub.faults |= {part: [Fault(status)] for part in ("/revision/", "/tree/", "config.json", "/lfs/model")}
    bed.run()
    assert bed.files() == WANTED
    assert len(bed.slept) == 4
    assert all(0.5 <= pause <= 2 for pause in bed.slept)


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("86400", 300.0)])
def test_a_server_that_asks_to_wait_is_obeyed_within_bounds(bed: Bed, asked: str, waited: float) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(429, {"Retry-After": asked})]
    bed.run()
    assert bed.slept == [waited]


def test_a_server_that_fails_for_ever_is_given_up_and_the_pauses_grow(bed: Bed) -> None:
    bed.hub.faults["/revision/"] = [Fault(503)] * 100
    reason, message = bed.fails(fetch_attempts=6)
    assert reason is LoadError.DOWNLOAD_FAILED
    assert message == "127.0.0.1 answers 503; 6 attempts in a row got nothing on"
    assert len(bed.slept) == 5
    assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(bed.slept))


def test_a_server_that_stalls_for_ever_is_given_up(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(stall_after=10)] * 100
    reason, message = bed.fails(fetch_attempts=3, fetch_stall_seconds=0.1)
    assert reason is LoadError.DOWNLOAD_FAILED
    assert "stalled" in message
    assert len(bed.hub.asked("/lfs/model")) == 3


def test_a_host_that_cannot_be_reached_is_named(bed: Bed) -> None:
    reason, message = bed.fails(hf_endpoint="http://127.0.0.1:1", fetch_attempts=2)
    assert reason is LoadError.DOWNLOAD_FAILED
    assert "127.0.0.1 cannot be reached: Connection refused" in message


@pytest.mark.parametrize("part", ["/revision/", "/lfs/model"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up_like_a_silent_one(
    bed: Bed, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LEAST_SECONDS", 0.2)
    if part == "/revision/":
        monkeypatch.setattr(imitation, "_send", lambda client, *_: imitation._drip(bed.hub, client, b"HTTP" * 99, 0.02))
    bed.hub.faults["/lfs/model"] = [Fault(drip=0.02)] * 100
    reason, message = bed.fails(fetch_attempts=2)
    assert reason is LoadError.DOWNLOAD_FAILED
    assert ("does not answer" if part == "/revision/" else "has stalled") in message
    assert len(bed.hub.asked(part)) == 2


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("MAX_LISTED", 3, "more than 3 files"), ("_LISTING_LIMIT", 300, "a list of files of more than 300 bytes")],
)
def test_a_list_without_end_is_given_up_while_it_is_collected(
    bed: Bed, name: str, value: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, name, value)
    bed.hub.page = 1
    bed.hub.files = {f"{n}.json": b"{}" for n in range(50)}
    reason, message = bed.fails()
    assert (reason, told in message) == (LoadError.INVALID_MODEL_CONFIG, True)
    assert len(bed.hub.asked("/tree/")) < 6


@pytest.mark.parametrize("name", [f"{MARKER}.part", f"{WEIGHTS}.part", f"{WEIGHTS}.part.json"])
def test_nothing_is_written_through_a_link_that_somebody_else_has_put_there(
    bed: Bed, name: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"of somebody else")
    bed.folder.mkdir()
    (bed.folder / name).symlink_to(other)
    reason, message = bed.fails()
    assert (reason, "cannot be written" in message) == (LoadError.DOWNLOAD_FAILED, True)
    assert other.read_bytes() == b"of somebody else"


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_what_hashes_to_something_else_is_not_kept(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(flip=True)]
    reason, message = bed.fails()
    assert reason is LoadError.CHECKSUM_MISMATCH
    assert hashlib.sha256(BIG).hexdigest() in message
    assert WEIGHTS not in bed.files()


def test_small_files_are_checked_too_by_the_name_that_git_has_for_them(bed: Bed) -> None:
    bed.hub.faults["config.json"] = [Fault(flip=True)]
    assert bed.fails()[0] is LoadError.CHECKSUM_MISMATCH
    assert bed.hub.asked("/lfs/model") == [], "the weights are not begun"


def test_a_pod_that_starts_again_and_again_does_not_fetch_what_is_wrong_again_and_again(bed: Bed) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(flip=True)]
    first = bed.fails()[1]
    bed.hub.seen.clear()
    reason, message = bed.fails()
    assert reason is LoadError.CHECKSUM_MISMATCH
    assert first in message
    assert bed.hub.seen == []
    marker = json.loads((bed.folder / MARKER).read_bytes())
    (bed.folder / MARKER).write_text(json.dumps(marker | {"rejected_at": marker["rejected_at"] - 3601}))
    bed.run()
    assert bed.files() == WANTED


def test_a_sum_that_was_asked_for_is_held_against_what_the_hub_lists_before_anything_is_fetched(bed: Bed) -> None:
    reason, message = bed.fails(model_sha256="0" * 64)
    assert reason is LoadError.CHECKSUM_MISMATCH
    assert "0" * 64 in message
    assert bed.hub.asked("/resolve/") == []
    bed.run(model_sha256=hashlib.sha256(BIG).hexdigest().upper())
    assert bed.files() == WANTED


def test_a_size_that_is_not_the_listed_one_is_not_taken(bed: Bed) -> None:
    bed.hub.listed[WEIGHTS] = {"lfs": {"oid": hashlib.sha256(BIG).hexdigest(), "size": 7, "pointerSize": 1}}
    reason, message = bed.fails(fetch_attempts=2)
    assert reason is LoadError.DOWNLOAD_FAILED
    assert "600000 bytes" in message


def test_a_body_that_is_compressed_is_not_taken(bed: Bed) -> None:
    bed.hub.faults["config.json"] = [Fault(200, {"Content-Encoding": "gzip"}, SMALL)]
    assert "compressed" in bed.fails()[1]


@pytest.mark.parametrize("name", ["../escape.json", "/etc/escape.json", "a/../../escape.json", "a\\..\\b.json"])
def test_a_hub_that_names_files_outside_the_folder_is_not_believed(bed: Bed, name: str) -> None:
    bed.hub.files[name] = SMALL
    reason, message = bed.fails()
    assert (reason, "leave the folder" in message) == (LoadError.DOWNLOAD_FAILED, True)
    assert not bed.folder.exists()
    assert bed.hub.asked("/resolve/") == []


def test_bad_input_15_a_repository_with_pickles_only(bed: Bed) -> None:
    bed.hub.files = {"config.json": SMALL, "pytorch_model.bin": BIG}
    reason, message = bed.fails()
    assert reason is LoadError.UNSAFE_WEIGHTS
    assert "pytorch_model.bin" in message
    assert bed.hub.asked("/resolve/") == []


def test_bad_input_16_code_that_the_model_wants_to_run_is_refused_before_its_weights_are_fetched(bed: Bed) -> None:
    bed.hub.files["config.json"] = b'{"auto_map": {"AutoModel": "modeling_x.X"}}'
    reason, message = bed.fails()
    assert reason is LoadError.REMOTE_CODE_REQUIRED
    assert "auto_map" in message
    assert bed.hub.asked("/lfs/model") == []


# -- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "token", "told"),
    [
        (401, "RepoNotFound", "", (LoadError.DOWNLOAD_UNAUTHORIZED, "private, or does not exist")),
        (401, "", TOKEN, (LoadError.DOWNLOAD_UNAUTHORIZED, "it is wrong, expired")),
        (403, "", TOKEN, (LoadError.DOWNLOAD_UNAUTHORIZED, "may not read")),
        (401, "GatedRepo", "", (LoadError.DOWNLOAD_UNAUTHORIZED, "is gated, and no token is set")),
        (403, "GatedRepo", TOKEN, (LoadError.DOWNLOAD_UNAUTHORIZED, "ask for access")),
        (404, "RepoNotFound", TOKEN, (LoadError.MODEL_NOT_FOUND, "has no repository team/tiny")),
        (404, "RevisionNotFound", "", (LoadError.MODEL_NOT_FOUND, "has no revision 'main'")),
        (400, "", "", (LoadError.DOWNLOAD_FAILED, "answers 400")),
    ],
)
def test_the_hubs_refusals_are_told_apart(
    bed: Bed, status: int, code: str, token: str, told: tuple[LoadError, str]
) -> None:
    reason, words = told
    bed.hub.faults["/revision/"] = [Fault(status, {"X-Error-Code": code} if code else {})]
    bed.secrets = Secrets({"HF_TOKEN": token} if token else {}, "hf-token")
    found, message = bed.fails()
    assert found is reason
    assert words in message
    assert TOKEN not in message
    if reason is LoadError.DOWNLOAD_UNAUTHORIZED:
        assert "key HF_TOKEN of Secret hf-token" in message
    assert bed.slept == [], "trying again would not help"


def test_a_file_that_is_gone_while_it_is_listed(bed: Bed) -> None:
    bed.hub.faults["config.json"] = [Fault(404, {"X-Error-Code": "EntryNotFound"})]
    assert bed.fails() == (LoadError.MODEL_NOT_FOUND, "team/tiny has no file config.json at revision main")


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "naïve"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(bed: Bed, token: str) -> None:
    bed.secrets = Secrets({"HF_TOKEN": token}, "hf-token")
    reason, message = bed.fails()
    assert reason is LoadError.DOWNLOAD_UNAUTHORIZED
    assert token not in message
    assert bed.hub.seen == []


def test_an_answer_that_is_not_the_hubs(bed: Bed) -> None:
    bed.hub.faults["/tree/"] = [Fault(200, body=b"<html>")]
    assert bed.fails() == (LoadError.DOWNLOAD_FAILED, "the hub's answer cannot be read")


# -- room ------------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_told_with_both_numbers_before_the_first_byte(bed: Bed) -> None:
    fetch = bed.fetch()
    fetch.free = lambda _: 1_200_000
    with pytest.raises(LoadFailure) as failure:
        fetch.run()
    assert failure.value.termination.reason is LoadError.DOWNLOAD_DISK_FULL
    said = "586.4 KiB are still to come, 1.6 MiB are needed with 1.0 MiB that is kept for the file system, "
    assert said + "and the volume has 1.1 MiB free:" in failure.value.termination.message
    assert bed.hub.asked("/resolve/") == []


def test_files_that_are_larger_than_the_volume_may_be(bed: Bed) -> None:
    reason, message = bed.fails(model_size_limit=1_000_000)
    assert reason is LoadError.DOWNLOAD_DISK_FULL
    assert "spec.source.size" in message
    assert bed.hub.asked("/resolve/") == []
    bed.run(model_size_limit=2_000_000)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, LoadError.DOWNLOAD_DISK_FULL),
        (errno.EDQUOT, LoadError.DOWNLOAD_DISK_FULL),
        (errno.EIO, LoadError.DOWNLOAD_FAILED),
    ],
)
def test_a_disk_that_fails_in_the_middle(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, number: int, reason: LoadError
) -> None:
    real, written = os.write, [0]

    def write(file: int, data: bytes) -> int:
        written[0] += len(data)
        if written[0] > 300_000:
            raise OSError(number, os.strerror(number))
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    found, message = bed.fails()
    assert found is reason
    assert bed.slept == []
    monkeypatch.undo()
    bed.run()
    assert bed.files() == WANTED, message


def test_a_folder_that_cannot_be_made(bed: Bed) -> None:
    bed.folder.write_text("a file")
    reason, message = bed.fails()
    assert reason is LoadError.DOWNLOAD_FAILED
    assert str(bed.folder) in message


# -- progress and end -------------------------------------------------------------------------------------------------


def test_progress_counts_bytes_and_files(bed: Bed) -> None:
    bed.run()
    assert bed.last is not None
    now = bed.last.progress.now()
    total = sum(map(len, WANTED.values()))
    assert (now.bytes_done, now.bytes_total, now.files_done, now.files_total) == (total, total, 3, 3)


def test_a_download_that_is_told_to_stop_ends_and_keeps_what_has_come(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.hub.faults["/lfs/model"] = [Fault(stall_after=300_000)]
    fetch = bed.fetch(fetch_stall_seconds=5.0)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            fetch.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            ended.append(error)

    thread = threading.Thread(target=run)
    came = threading.Event()
    received = fetch.progress.received

    def count(name: str, size: int) -> None:
        received(name, size)
        if (bed.folder / f"{WEIGHTS}.part").exists() and (bed.folder / f"{WEIGHTS}.part").stat().st_size == 300_000:
            came.set()

    monkeypatch.setattr(fetch.progress, "received", count)
    thread.start()
    assert came.wait(10)
    fetch.stop.set()
    bed.hub.released.set()
    thread.join(10)
    assert [type(error) for error in ended] == [Stopped]
    assert (bed.folder / f"{WEIGHTS}.part").stat().st_size == 300_000
    bed.run()
    assert bed.files() == WANTED


def test_a_marker_that_cannot_be_read_is_none(bed: Bed) -> None:
    bed.run()
    (bed.folder / MARKER).write_bytes(b"\xff{")
    bed.run()
    assert bed.files() == WANTED
    assert msgspec.json.decode((bed.folder / MARKER).read_bytes())["complete"]
