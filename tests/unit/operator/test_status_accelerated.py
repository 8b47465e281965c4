"""Whether engines run on what was asked for: device and precision, of the pods of the spec as it is now."""

from typing import Any

import pytest

from moorage_common.facts import EngineFacts, Health, Phase
from moorage_operator.status import status
from moorage_operator.status.condition_events import condition_events
from moorage_operator.status.observe import Observation, PodState
from tests.unit.operator.situations import UNREADY, deployment, placed, ready
from tests.unit.operator.support import Object, by_type, model

NOW, LATER = "2026-01-02T03:04:05Z", "2026-01-02T04:00:00Z"
GPU: dict[str, Any] = {"gpu": {"count": 2}, "quantization": "q4_k_m"}


def engine(device: str | None, quantization: str | None = "q4_k_m") -> Health:
    """What a loaded engine says."""
    return Health(Phase.READY, EngineFacts("llama.cpp", device=device, quantization=quantization))


def seen(told: dict[str, Health | None], *pods: PodState, **fields: Any) -> Observation:
    """Pods that are ready and have told."""
    return Observation(deployment(**fields), pods or tuple(ready(name) for name in told), told)


def accelerated(observation: Observation, before: Object | None = None, **spec: Any) -> tuple[str, str, str] | None:
    """The condition in short."""
    found = by_type(status(model(status=before, **{**GPU, **spec}), observation, NOW)).get("Accelerated")
    return (found["status"], found["reason"], found["message"]) if found else None


def test_a_gpu_at_the_precision_that_was_asked_for() -> None:
    told = accelerated(seen({"a": engine("CUDA0")}))
    assert told == ("True", "Accelerated", "The engine runs on CUDA0 with quantization q4_k_m")


@pytest.mark.parametrize("device", ["cpu", "CPU", "cpu:0"])
def test_a_cpu_instead_of_gpus_is_a_fallback_with_both_named(device: str) -> None:
    asked = "Requested 2 nvidia.com/gpu, but the engine runs on"
    assert accelerated(seen({"a": engine(device)})) == ("False", "CPUFallback", f"{asked} {device}, in a")


def test_another_precision_is_a_fallback_with_both_named() -> None:
    told = accelerated(seen({"a": engine("CUDA0", "f16")}))
    words = "Requested quantization q4_k_m, but the engine runs with f16, in a"
    assert told == ("False", "PrecisionFallback", words)


@pytest.mark.parametrize(
    ("asked", "real", "same"),
    [
        ("q4_k_m", "Q4_K_M", True),
        ("none", "bfloat16", True),
        ("none", "f16", True),
        ("none", "gptq", False),
        ("gptq", "none", False),
        ("fp8", "fp8", True),
        (None, "gptq", True),
        ("gptq", None, True),
    ],
)
def test_precisions_are_compared_by_what_they_mean(asked: str | None, real: str | None, same: bool) -> None:
    told = accelerated(seen({"a": engine("cuda", real)}), framework="vllm", quantization=asked)
    assert told is not None
    assert told[0] == ("True" if same else "False")


def test_the_device_counts_for_more_than_the_precision() -> None:
    told = accelerated(seen({"a": engine("CUDA0", "f16"), "b": engine("cpu", "f16")}))
    assert told is not None
    assert told[1] == "CPUFallback"
    assert told[2].endswith(", in b")


def test_one_slow_pod_of_several_is_named_and_of_many_their_number() -> None:
    some = accelerated(seen({"a": engine("CUDA0"), "b": engine("cpu")}))
    assert some is not None
    assert some[2].endswith("runs on cpu, in b")
    many = accelerated(seen({name: engine("cpu") for name in "hgfedcba"}))
    assert many is not None
    assert many[2].endswith("in a, b, c, d, e and 3 more")


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(Observation(UNREADY, (placed("a", running=True),), {}), id="loading"),
        pytest.param(seen({"a": None}), id="asked in vain"),
        pytest.param(seen({"a": Health(Phase.READY)}), id="no facts"),
        pytest.param(seen({"a": engine(None)}), id="no device"),
        pytest.param(seen({"a": Health(Phase.LOADING, EngineFacts("llama.cpp", device="cpu"))}), id="not loaded"),
        pytest.param(Observation(deployment(), (ready("a"),), None), id="nobody is asked"),
        pytest.param(seen({"a": engine("cpu")}, ready("a", revision="1"), revision="2"), id="a pod of an earlier spec"),
    ],
)
def test_it_is_absent_while_nothing_is_known(observation: Observation) -> None:
    assert accelerated(observation) is None


def test_it_is_absent_where_no_gpu_is_asked_for() -> None:
    assert accelerated(seen({"a": engine("cpu")}), gpu={"count": 0}) is None


def test_it_goes_when_the_pods_go() -> None:
    before = status(model(**GPU), seen({"a": engine("cpu")}), NOW)
    assert accelerated(Observation(UNREADY, (placed("b"),), {}), before) is None


def test_an_operator_that_has_just_started_does_not_take_back_what_was_true() -> None:
    before = status(model(**GPU), seen({"a": engine("cpu")}), NOW)
    after = status(model(status=before, **GPU), Observation(deployment(), (ready("a"),), {}), LATER)
    assert after == before
    silent = status(model(status=before, **GPU), seen({"a": None}), LATER)
    assert "Accelerated" not in by_type(silent)
    assert "resolved" not in silent
    assert by_type(silent)["ModelLoaded"]["reason"] == "FactsUnavailable"


def test_what_an_operator_of_another_version_wrote_is_not_repeated() -> None:
    before = status(model(**GPU), seen({"a": engine("cpu")}), NOW)
    for condition in before["conditions"]:
        condition["reason"] = "Unheard" if condition["type"] == "Accelerated" else condition["reason"]
    assert accelerated(Observation(deployment(), (ready("a"),), {}), before) is None


def test_a_text_without_end_is_cut() -> None:
    told = accelerated(seen({"a": engine("cpu:" + "x" * 5000)}))
    assert told is not None
    assert len(told[2]) < 200


def warned(observation: Observation, before: Object | None = None) -> list[tuple[str, str]]:
    """Reason and cause of the warnings that go with a status."""
    judged = model(status=before, **GPU)
    return [
        (found.reason, found.cause) for found in condition_events(judged, observation, status(judged, observation, NOW))
    ]


def test_each_pod_that_falls_back_is_warned_of_once() -> None:
    one = seen({"a": engine("cpu")})
    assert warned(one) == [("CPUFallback", "a")]
    before = status(model(**GPU), one, NOW)
    assert warned(one, before) == []
    two = seen({"a": engine("cpu"), "b": engine("cpu"), "c": engine("CUDA0")})
    # The Event on `a` has its name already, and is not written twice.
    assert warned(two, before) == [("CPUFallback", "a"), ("CPUFallback", "b")]
    assert warned(seen({"c": engine("CUDA0")}), status(model(**GPU), two, NOW)) == []
