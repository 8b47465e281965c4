"""What a status says of memory: the shape, the estimate, what was measured, and whether it fits a GPU."""

from typing import Any

import pytest

from moorage_common.estimate import Demand, estimate
from moorage_common.facts import EngineFacts, Health, Phase
from moorage_common.shape import Shape
from moorage_operator.status import status
from moorage_operator.status.condition_events import condition_events
from moorage_operator.status.observe import Observation, PodState
from tests.unit.operator.situations import NO_GPU, UNREADY, deployment, placed, pod, ready
from tests.unit.operator.support import OCI, Object, by_type, model

NOW, LATER = "2026-01-02T03:04:05Z", "2026-01-02T04:00:00Z"
GIB = 1024**3
LLAMA = Shape(
    architecture="llama",
    stored_bytes=16_060_522_496,
    quantization="none",
    tensor_bytes={"BF16": 16_060_522_496},
    parameters=8_030_261_248,
    linear_parameters=6_979_321_856,
    context_length=131_072,
    layers=32,
    embedding=4096,
    feed_forward=14_336,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=128_256,
    kv_numbers=32 * 8 * 256,
)
VLLM: dict[str, Any] = {"framework": "vllm", "gpu": {"count": 1}, "contextLength": 8192, "maxConcurrency": 4}
LOADING = Observation(UNREADY, (placed("a", running=True),), {}, shapes={"a": LLAMA})
WAITING = Observation(UNREADY, (pod("b", unschedulable=NO_GPU),), {})


def found(seen: Observation, before: Object | None = None, **spec: Any) -> Object:
    """The status of a model."""
    return status(model(status=before, **{**VLLM, **spec}), seen, NOW)


def loaded(memory: int | None, *pods: PodState, **fields: Any) -> Observation:
    """A model whose engine has told what it holds."""
    facts = EngineFacts("vLLM", device="cuda", quantization="none", memory_bytes=memory)
    pods = pods or (ready("a"),)
    return Observation(
        deployment(**fields), pods, {pod.uid: Health(Phase.READY, facts) for pod in pods}, shapes={"a": LLAMA}
    )


def fits(status: Object) -> tuple[str, str, str] | None:
    """The condition FitsGPU in short."""
    condition = by_type(status).get("FitsGPU")
    return (condition["status"], condition["reason"], condition["message"]) if condition else None


def state(status: Object) -> str:
    """Whether it fits; empty where that is not told."""
    return (fits(status) or ("", "", ""))[0]


def words(status: Object) -> str:
    """What the condition says."""
    return (fits(status) or ("", "", ""))[2]


def test_the_terms_are_told_while_the_model_is_still_loading() -> None:
    weights, kv_cache, overhead = estimate(LLAMA, Demand("vllm", 8192, 4, gpus=1))
    assert found(LOADING)["estimate"] == {
        "weightsBytes": weights,
        "kvCacheBytes": kv_cache,
        "overheadBytes": overhead,
        "totalBytes": weights + kv_cache + overhead,
        "contextLength": 8192,
        "requests": 4,
    }
    assert (weights, kv_cache) == (16_060_522_496, 4 * GIB)


def test_the_shape_is_told_with_the_address_that_it_is_of() -> None:
    told = found(LOADING)["shape"]
    assert told["source"] == OCI
    assert (told["layers"], told["kvHeads"], told["parameters"]) == (32, 8, 8_030_261_248)
    assert "tensorBytes" not in told


def test_what_was_measured_is_told_with_the_error() -> None:
    total = found(LOADING)["estimate"]["totalBytes"]
    told = found(loaded(20 * GIB))["estimate"]
    assert (told["totalBytes"], told["measuredBytes"]) == (total, 20 * GIB)
    assert told["error"] == round((total - 20 * GIB) / (20 * GIB), 3)


@pytest.mark.parametrize("odd", [None, 0, -1, 2**63])
def test_an_engine_that_does_not_tell_what_it_holds_is_not_compared(odd: int | None) -> None:
    told = found(loaded(odd))["estimate"]
    assert "measuredBytes" not in told
    assert "error" not in told


def test_all_of_it_stays_while_the_model_waits_again() -> None:
    before = found(loaded(20 * GIB))
    after = found(WAITING, before)
    assert (after["estimate"], after["shape"]) == (before["estimate"], before["shape"])


def test_the_estimate_follows_the_spec_at_once_also_while_it_waits() -> None:
    before = found(loaded(20 * GIB))
    after = found(WAITING, before, contextLength=16384)
    assert after["estimate"]["kvCacheBytes"] == 2 * before["estimate"]["kvCacheBytes"]
    assert after["estimate"]["contextLength"] == 16384
    assert "measuredBytes" not in after["estimate"], "it was of another context length"
    quantized = found(WAITING, before, quantization="bitsandbytes-4bit")
    assert quantized["estimate"]["weightsBytes"] < before["estimate"]["weightsBytes"] / 2


def test_without_a_context_length_it_is_that_of_the_model_up_to_4096() -> None:
    assert found(LOADING, contextLength=None)["estimate"]["contextLength"] == 4096


def test_another_address_is_another_model() -> None:
    after = found(WAITING, found(LOADING), source={"uri": "pvc://models/other"})
    assert "shape" not in after
    assert "estimate" not in after


def test_a_pod_of_an_earlier_spec_says_nothing_of_the_model_as_it_is_now() -> None:
    old = ready("a", revision="1")
    seen = loaded(20 * GIB, old, revision="2")
    assert "estimate" not in found(seen)
    new = placed("b", revision="2", running=True)
    seen = Observation(deployment(revision="2"), (old, new), seen.facts, shapes={"a": LLAMA, "b": LLAMA})
    assert "measuredBytes" not in found(seen)["estimate"]


def test_a_load_that_failed_at_once_has_left_the_shape() -> None:
    assert found(Observation(UNREADY, (placed("a", shape=LLAMA),)))["estimate"]["requests"] == 4


def test_facts_that_are_not_asked_leave_nothing_to_say() -> None:
    nothing = found(Observation(deployment(), (ready(),), None))
    assert not {"shape", "estimate", "startup"} & set(nothing)
    assert fits(nothing) is None


@pytest.mark.parametrize("odd", [{"storedBytes": -1}, {"storedBytes": "much"}, {}, {"architecture": "x" * 100}])
def test_a_shape_that_is_none_is_forgotten(odd: Object) -> None:
    kept = {"source": OCI, "architecture": "llama", "storedBytes": 1, **odd}
    if not odd:
        del kept["architecture"]
    assert "shape" not in found(WAITING, {"shape": kept})


def test_a_shape_beyond_all_bounds_has_no_estimate() -> None:
    absurd = Shape(architecture="llama", stored_bytes=2**62, kv_numbers=2**62)
    told = found(Observation(UNREADY, (placed("a", running=True),), {}, shapes={"a": absurd}), gpu={"count": 1})
    assert "estimate" not in told
    assert fits(told) is None


# -- FitsGPU: total = 15.0 + 4.0 + 2.4 GiB -----------------------------------------------------------------------------


def test_bad_input_37_a_model_over_the_memory_of_its_gpu_is_told_with_all_numbers() -> None:
    told = fits(found(LOADING, gpu={"count": 1, "memory": "16Gi"}))
    assert told == (
        "False",
        "InsufficientGPUMemory",
        "Requires about 21.4 GiB per GPU (weights 15.0 GiB, KV cache 4.0 GiB, overhead 2.4 GiB); gpu.memory is "
        "16.0 GiB, of which the engine uses 90%; lower contextLength or maxConcurrency, or use more or larger GPUs",
    )


def test_a_model_that_fits_is_told_with_the_same_numbers() -> None:
    told = fits(found(LOADING, gpu={"count": 1, "memory": "24Gi"}))
    assert told is not None
    assert told[:2] == ("True", "Fits")
    assert told[2].startswith("Requires about 21.4 GiB per GPU (weights 15.0 GiB,")


def test_the_share_that_the_engine_uses_decides() -> None:
    # 21.4 GiB are less than 23, but more than 90 % of it, which is all that vLLM takes.
    assert state(found(LOADING, gpu={"count": 1, "memory": "23Gi"})) == "False"
    llamacpp = found(LOADING, framework="llamacpp", gpu={"count": 1, "memory": "20Gi"})
    assert state(llamacpp) == "True"


def test_vllm_may_be_given_more_of_a_gpu() -> None:
    told = fits(found(LOADING, gpu={"count": 1, "memory": "23Gi"}, vllm={"gpuMemoryUtilization": 0.95}))
    assert told is not None
    assert told[0] == "True"
    assert "of which the engine uses 95%" in told[2]


def test_layers_on_the_cpu_make_room_on_the_gpu() -> None:
    small: dict[str, Any] = {"framework": "llamacpp", "gpu": {"count": 1, "memory": "12Gi"}}
    assert state(found(LOADING, **small)) == "False"
    assert state(found(LOADING, **small, llamacpp={"gpuLayers": 8})) == "True"


def test_two_gpus_halve_what_each_needs() -> None:
    two = {"gpu": {"count": 2, "memory": "16Gi"}}
    assert state(found(LOADING, **two, vllm={"tensorParallelSize": 2})) == "True"
    assert "on 2 GPUs" in words(found(LOADING, **two, vllm={"tensorParallelSize": 2}))


def test_without_a_word_in_the_spec_the_nodes_say_how_much_a_gpu_has() -> None:
    seen = Observation(UNREADY, LOADING.pods, {}, shapes=LOADING.shapes, gpu_memory={"nvidia.com/gpu": {8: 16 * GIB}})
    told = fits(found(seen))
    assert told is not None
    assert told[0] == "False"
    assert "the largest nvidia.com/gpu on a node with at least 1 has 16.0 GiB" in told[2]
    assert state(found(seen, gpu={"count": 1, "memory": "80Gi"})) == "True"


def test_only_nodes_with_enough_gpus_count() -> None:
    memory = {"nvidia.com/gpu": {1: 80 * GIB, 4: 16 * GIB}, "amd.com/gpu": {8: 192 * GIB}}
    seen = Observation(UNREADY, LOADING.pods, {}, shapes=LOADING.shapes, gpu_memory=memory)
    assert state(found(seen)) == "True"
    llamacpp: dict[str, Any] = {"framework": "llamacpp", "maxConcurrency": 64}
    assert state(found(seen, gpu={"count": 2}, **llamacpp)) == "False"
    assert fits(found(seen, gpu={"count": 8})) is None
    assert state(found(seen, gpu={"count": 2, "resourceName": "amd.com/gpu"})) == "True"


def test_it_is_absent_while_something_is_not_known() -> None:
    assert fits(found(LOADING)) is None, "nobody says how much a GPU has"
    assert fits(found(WAITING, gpu={"count": 1, "memory": "16Gi"})) is None, "nobody has read the files"
    assert fits(found(LOADING, framework="llamacpp", gpu={"count": 0, "memory": "16Gi"})) is None


def test_it_follows_the_spec_while_the_model_waits_and_blocks_nothing() -> None:
    before = found(LOADING, gpu={"count": 1, "memory": "16Gi"})
    after = found(WAITING, before, gpu={"count": 1, "memory": "16Gi"}, contextLength=1024, quantization="fp8")
    assert state(after) == "True"
    assert by_type(before)["Ready"]["reason"] == "Starting"
    assert by_type(after)["Ready"]["reason"] == "WaitingForGPU"


def test_that_it_does_not_fit_is_warned_of_once() -> None:
    small = model(**{**VLLM, "gpu": {"count": 1, "memory": "16Gi"}})
    first = status(small, LOADING, NOW)
    told = condition_events(small, LOADING, first)
    assert [(warned.reason, warned.message) for warned in told] == [("InsufficientGPUMemory", words(first))]
    again = model(status=first, **{**VLLM, "gpu": {"count": 1, "memory": "16Gi"}})
    assert condition_events(again, LOADING, status(again, LOADING, LATER)) == []
    assert condition_events(model(**VLLM), LOADING, found(LOADING)) == []
