"""The driver llama-cpp-python: what the plan says of it, and how stops are found; the contract suite has the rest."""

from pathlib import Path

import pytest

from moorage_common.facts import LoadError
from moorage_common.tasks import Task
from moorage_runtime import machine
from moorage_runtime.engines.llamacpp_binding import Stopper
from tests.unit.runtime.support import gguf
from tests.unit.runtime.test_llamacpp_plan import config, failure, plan


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "memory_limit", lambda: None)
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf())
    return path


def test_the_driver_generates_for_one_at_a_time_and_refuses_what_it_has_not(model: Path) -> None:
    found = plan(model_path=model, llamacpp_driver="llama-cpp-python")

    assert (config(found).driver, config(found).slots) == ("llama-cpp-python", 1)
    assert {"response_format", "tools", "logprobs"} <= found.refused
    other = plan(model_path=model)
    assert (config(other).driver, config(other).slots) == ("xllamacpp", 4)
    assert "response_format" not in other.refused


@pytest.mark.parametrize("setting", [{"model_task": Task.EMBED}, {"extra_args": ("--no-mmap",)}])
def test_what_the_driver_cannot_do_is_a_reason(model: Path, setting: dict[str, object]) -> None:
    reason, message = failure(model_path=model, llamacpp_driver="llama-cpp-python", **setting)

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "LLAMACPP_DRIVER" in message


@pytest.mark.parametrize(
    ("stops", "pieces", "given", "rest"),
    [
        ([], ["a", "b"], ["a", "b"], ""),
        (["x"], ["a", "bxc"], ["a", "b"], None),
        (["xyz"], ["ax", "y", "zb"], ["a", "", ""], None),
        (["xyz"], ["ax", "y", "b"], ["a", "", "xyb"], ""),
        (["xyz"], ["ax"], ["a"], "x"),
        (["b", "ab"], ["a", "b"], ["", ""], None),
        ([""], ["a"], ["a"], ""),
    ],
)
def test_a_stop_is_found_across_pieces_and_never_given(
    *, stops: list[str], pieces: list[str], given: list[str], rest: str | None
) -> None:
    stopper = Stopper(stops)

    assert [stopper.take(piece) for piece in pieces] == given
    assert stopper.stopped is (rest is None)
    assert stopper.rest() == (rest or "")
