"""What pods say of themselves, from a real runtime (with its dummy engine) to status, Events and metrics.

The pods are played by the test; each has an address of the loopback, where its runtime listens on the port of all.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage_common.labels import RUNTIME_PORT
from tests.integration.runtime.conftest import Runtime, runtime_process
from tests.support.api import Api, ApiRefusedError, Object, condition, is_ready, reason
from tests.support.kubelet import RESOURCE, PlayedPod, played
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described
from tests.support.waiting import eventually

# 14.9 GiB of weights, 128 KiB of KV cache for each token: Llama 3 8B in 16 bits.
SHAPE: Object = {
    "architecture": "llama",
    "storedBytes": 16_060_522_496,
    "quantization": "bf16",
    "tensorBytes": {"BF16": 16_060_522_496},
    "contextLength": 8192,
    "layers": 32,
    "embedding": 4096,
    "feedForward": 14336,
    "heads": 32,
    "kvHeads": 8,
    "headSize": 128,
    "vocabulary": 128_256,
    "kvNumbers": 65_536,
}
GIB = 1024**3
_addresses = (f"127.{70 + os.getpid() % 100}.{os.getpid() // 100 % 250}.{number}" for number in itertools.count(2))

Listening = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def listening(tmp_path: Path) -> Listening:
    """Runs a runtime at an address of its own, which is given; its dummy engine is as the fields say."""

    @contextmanager
    def run(**fields: Any) -> Iterator[str]:
        address = next(_addresses)
        folder = tmp_path / address
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps({"shape": SHAPE, **fields}))
        settings = {"MODEL_BACKEND": "dummy", "MODEL_PATH": str(folder / "model.json")}
        with runtime_process(folder, **settings, HOST=address, PORT=str(RUNTIME_PORT)) as process:
            _wait_ready(process, address, loads=bool(fields.get("load_seconds")))
            yield address

    return run


def _wait_ready(process: Runtime, address: str, *, loads: bool) -> None:
    url = f"http://{address}:{RUNTIME_PORT}/health/detailed"
    wanted = {"loading"} if loads else {"ready"}
    eventually(lambda: httpx.get(url, trust_env=False).json()["status"] in wanted, f"{wanted} at {url}")
    assert process.process.poll() is None


@pytest.fixture
def operator(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that asks pods; that it logged no error is part of every test."""
    process = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log", MOORAGE_FACTS="true")
    process.start()
    yield process
    process.stop()
    assert process.errors() == []


def status(obj: Object | None) -> Object:
    """The status of a model."""
    found: Object = (obj or {}).get("status", {})
    return found


def fits(obj: Object | None) -> str:
    """The condition FitsGPU in two words."""
    found = condition(obj, "FitsGPU")
    return f"{found['status']} {found['reason']}" if found else ""


def warnings(api: Api, name: str, reason: str) -> list[Object]:
    """The Warning Events of that reason on a model. (Its pods are played, so it has one that no node takes them.)"""
    uid = (api.get("InferenceModel", name) or {})["metadata"]["uid"]
    selector = {"fieldSelector": f"involvedObject.uid={uid},type=Warning,reason={reason}"}
    items: list[Object] = api.request("GET", api.path("Event"), params=selector)["items"]
    return items


@pytest.mark.parametrize("memory", ["24GB ", "-1", "0", "lots", "24 Gi", "1e9", "65Ti", "1Mi"])
def test_bad_input_31_gpu_memory(api: Api, memory: str) -> None:
    with pytest.raises(ApiRefusedError) as refused:
        api.create(model("tiny", gpu={"count": 1, "memory": memory}))
    assert "spec.gpu.memory" in str(refused.value)
    assert memory in str(refused.value)
    assert "positive Kubernetes quantity" in str(refused.value)


@pytest.mark.parametrize("memory", ["24Gi", "81559Mi", "1.5Gi", 25_769_803_776])
def test_gpu_memory_is_a_quantity(api: Api, memory: str | int) -> None:
    assert api.create(model("tiny", gpu={"count": 1, "memory": memory}))["spec"]["gpu"]["memory"] == memory


def test_bad_input_37_a_model_that_cannot_fit_is_told_before_it_is_loaded_and_while_it_waits(
    api: Api, operator: OperatorProcess, audit: Audit, listening: Listening
) -> None:
    api.create(model("big", gpu=played(memory="16Gi"), contextLength=8192, maxConcurrency=4))
    pod = PlayedPod(api, "big")
    assert fits(api.get("InferenceModel", "big")) == ""

    with listening(load_seconds=300) as address:
        pod.runs(address)
        seen = api.wait("InferenceModel", "big", lambda im: fits(im) == "False InsufficientGPUMemory", what="told")
        assert reason(seen, "ModelLoaded") == "Loading"
        assert status(seen)["estimate"]["kvCacheBytes"] == 4 * GIB
        assert status(seen)["estimate"]["totalBytes"] > 19 * GIB
        assert "weights 15.0 GiB, KV cache 4.0 GiB" in condition(seen, "FitsGPU")["message"]
        eventually(lambda: warnings(api, "big", "InsufficientGPUMemory"), "a Warning")
        assert len(warnings(api, "big", "InsufficientGPUMemory")) == 1

    pod.vanishes()
    waits = api.wait("InferenceModel", "big", lambda im: reason(im) == "NoSuchResource", what="it waits again")
    assert status(waits)["estimate"] == status(seen)["estimate"]
    api.patch("InferenceModel", "big", {"spec": {"contextLength": 1024, "gpu": {"memory": "20Gi"}}})
    seen = api.wait("InferenceModel", "big", lambda im: fits(im) == "True Fits", what="it follows the spec")
    assert status(seen)["estimate"]["kvCacheBytes"] == GIB // 2
    api.patch("InferenceModel", "big", {"spec": {"source": {"uri": "oci://localhost/models/other:1"}}})
    api.wait("InferenceModel", "big", lambda im: "estimate" not in status(im), what="another model is not known yet")


def test_the_label_of_a_node_says_what_a_gpu_has(api: Api, operator: OperatorProcess, listening: Listening) -> None:
    api.create(model("big", gpu=played(2), contextLength=8192, maxConcurrency=4))
    pod = PlayedPod(api, "big")
    with listening(load_seconds=300) as address:
        pod.runs(address)
        api.wait("InferenceModel", "big", lambda im: status(im).get("estimate"), what="an estimate")
    assert fits(api.get("InferenceModel", "big")) == ""

    # Cordoned: nothing is to be placed on it.
    name, offer = f"with-gpus-of-{api.namespace}", {RESOURCE: "4", "cpu": "1", "memory": "1Gi", "pods": "1"}
    node = {"metadata": {"name": name, "labels": {f"{RESOURCE}.memory": "8192"}}, "spec": {"unschedulable": True}}
    api.request("POST", "/api/v1/nodes", json={**node, "status": {"capacity": offer, "allocatable": offer}})
    try:
        seen = api.wait("InferenceModel", "big", lambda im: fits(im).startswith("False"), what="8 GiB are too little")
        assert f"the largest {RESOURCE} on a node with at least 2 has 8.0 GiB" in condition(seen, "FitsGPU")["message"]
        headers = {"Content-Type": "application/merge-patch+json"}
        label = {"metadata": {"labels": {f"{RESOURCE}.memory": "81559"}}}
        api.request("PATCH", f"/api/v1/nodes/{name}", json=label, headers=headers)
        api.wait("InferenceModel", "big", lambda im: fits(im) == "True Fits", what="80 GiB are enough")
    finally:
        api.request("DELETE", f"/api/v1/nodes/{name}")
    api.wait("InferenceModel", "big", lambda im: fits(im) == "", what="nobody says what a GPU has")


def test_a_start_a_cpu_instead_of_a_gpu_and_a_restart_that_takes_nothing_back(
    api: Api, operator: OperatorProcess, audit: Audit, listening: Listening
) -> None:
    before = starts(operator)
    api.create(model("slow", gpu=played()))
    pod = PlayedPod(api, "slow")
    with listening(device="cpu", quantization="bf16", memory_bytes=16 * GIB) as address:
        pod.runs(address, scheduled=3, began=10)
        pod.runs(address, scheduled=3, began=10, ready=40)
        seen = api.wait("InferenceModel", "slow", lambda im: condition(im, "Accelerated"), what="told")
        assert is_ready(seen)
        assert (condition(seen, "Accelerated")["status"], reason(seen, "Accelerated")) == ("False", "CPUFallback")
        words = f"Requested 1 {RESOURCE}, but the engine runs on cpu, in {pod.name}"
        assert condition(seen, "Accelerated")["message"] == words
        assert status(seen)["resolved"]["device"] == "cpu"
        eventually(lambda: warnings(api, "slow", "CPUFallback"), "a Warning")
        assert len(warnings(api, "slow", "CPUFallback")) == 1

        told = status(seen)["startup"]
        assert (told.pop("pod"), told.pop("startedAt")) == (pod.name, pod.at(10))
        assert told == {"queuedSeconds": 3, "imageSeconds": 7, "loadSeconds": 30, "totalSeconds": 40}
        estimate = status(seen)["estimate"]
        assert estimate["measuredBytes"] == 16 * GIB
        assert estimate["error"] == round(estimate["totalBytes"] / (16 * GIB) - 1, 3)
        assert starts(operator) == before + 1

        operator.stop()
        since = audit.position()
        operator.start()
        # Whatever it would write, it has written once it has asked the pod again and told of another change.
        api.patch("InferenceModel", "slow", {"spec": {"gpu": {"memory": "80Gi"}}})
        api.wait("InferenceModel", "slow", lambda im: fits(im) == "True Fits", what="the change is told")

        def writes() -> list[str]:
            return [write for write in described(audit.writes(since)) if api.namespace in write]

        # The API server tells a watch first, and its audit log a moment later.
        eventually(writes, "a line in the audit log")
        assert writes() == [f"patch {api.namespace}/inferencemodels/status/slow 200"]
        assert starts(operator) == 0, "the start was told by the operator before"


def starts(operator: OperatorProcess) -> int:
    """How many starts the operator has observed."""
    text = httpx.get(f"http://127.0.0.1:{operator.port}/metrics", trust_env=False).text
    found = re.search(r'^moorage_model_startup_seconds_count\{phase="total"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def test_the_start_of_a_pod_that_the_scheduler_placed_adds_up(
    api: Api, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    operator = OperatorProcess(operator_kubeconfig, tmp_path / "quiet.log")
    operator.start()
    try:
        api.create(model("tiny", replicas=2))
        api.wait("InferenceModel", "tiny", lambda im: status(im).get("readyReplicas") == 2, what="2 replicas")
        told = status(api.get("InferenceModel", "tiny"))["startup"]
        phases = [told[f"{phase}Seconds"] for phase in ("queued", "image", "load")]
        assert told["totalSeconds"] == sum(phases)
        assert 0 <= told["totalSeconds"] < 30
        assert "downloadSeconds" not in told
        assert starts(operator) == 2
    finally:
        operator.stop()
    assert operator.errors() == []
