"""A model that its pod fetches, from the spec to the status: a real fetcher and an imitated hub, the pod played.

The fetcher listens at an address of the loopback, on the port of all runtimes, as in test_facts.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_common.facts import LoadError, Termination
from moorage_common.labels import RUNTIME_PORT
from tests.support.api import Api, Object, condition, is_ready, reason
from tests.support.kubelet import PlayedPod, played
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described
from tests.support.waiting import eventually
from tests.truth import Truth
from tests.unit.runtime.hub import COMMIT, REPOSITORY, Fault, HubImitation, serving

BIG = bytes(range(256)) * 8192
SOURCE: Object = {"uri": f"hf://{REPOSITORY}@{COMMIT}", "secretName": "hf-token"}
_addresses = (f"127.{170 + os.getpid() % 80}.{os.getpid() // 80 % 250}.{number}" for number in itertools.count(2))


@pytest.fixture
def operator(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that asks pods; that it logged no error is part of every test."""
    process = OperatorProcess(operator_kubeconfig, tmp_path / "operator.log", MOORAGE_FACTS="true")
    process.start()
    yield process
    process.stop()
    assert process.errors() == []


@pytest.fixture
def hub() -> Iterator[HubImitation]:
    """A repository with 2 MiB of weights, whose answer stalls in the middle."""
    files = {"config.json": b'{"model_type": "llama"}', "model.safetensors": BIG}
    with serving(HubImitation(files)) as hub:
        hub.faults["/lfs/model"] = [Fault(stall_after=1 << 20)]
        yield hub


def environment_of(api: Api, name: str) -> dict[str, str]:
    """What the operator sets for the fetching container of a model."""
    pod = (api.get("Deployment", name) or {})["spec"]["template"]["spec"]
    return {entry["name"]: entry["value"] for entry in pod["initContainers"][0]["env"] if "value" in entry}


def words(obj: Object | None, kind: str = "ModelLoaded") -> str:
    """The message of a condition."""
    return str(condition(obj, kind).get("message", ""))


def test_how_far_a_download_is_is_in_the_status_and_then_how_long_it_took(
    api: Api, operator: OperatorProcess, hub: HubImitation, truth: Truth, tmp_path: Path
) -> None:
    api.create(model("fetched", framework="vllm", source=SOURCE, gpu=played(), runtimeImage="localhost/vllm:1"))
    pod, address = PlayedPod(api, "fetched"), next(_addresses)
    settings = environment_of(api, "fetched") | {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.url,
        "HOST": address,
        "MODEL_FOLDER": str(tmp_path / "models"),
    }
    assert settings["PORT"] == str(RUNTIME_PORT)
    with (tmp_path / "fetch.log").open("wb") as log:
        fetcher = subprocess.Popen([sys.executable, "-m", "moorage_runtime", "fetch"], env=settings, stderr=log)
    try:
        assert hub.stalled.wait(30)
        pod.fetches(address, {"running": {"startedAt": pod.at(2)}})
        told = api.wait("InferenceModel", "fetched", lambda im: "1.0 of 2.0 MiB" in words(im), what="progress")
        assert reason(told, "ModelLoaded") == "Downloading"
        assert (reason(told), "1.0 of 2.0 MiB" in words(told, "Ready")) == ("Starting", True)
        truth.hold()
        hub.released.set()
        assert fetcher.wait(60) == 0, (tmp_path / "fetch.log").read_text()
    finally:
        fetcher.kill()
        fetcher.wait()
    assert (tmp_path / "models" / "model.safetensors").read_bytes() == BIG

    pod.has_fetched(2, 42)
    api.wait("InferenceModel", "fetched", lambda im: reason(im, "ModelLoaded") == "Unloaded", what="fetched")
    pod.runs(address, began=45)
    api.wait("InferenceModel", "fetched", lambda im: reason(im, "ModelLoaded") == "Loading", what="loading")
    truth.hold()
    pod.runs(address, began=45, ready=60)
    seen = api.wait("InferenceModel", "fetched", is_ready, what="ready")
    startup = (seen or {})["status"]["startup"]
    assert (startup["downloadSeconds"], startup["imageSeconds"], startup["loadSeconds"]) == (40, 5, 15)


@pytest.mark.parametrize(
    "ended",
    [
        LoadError.DOWNLOAD_UNAUTHORIZED,
        LoadError.DOWNLOAD_DISK_FULL,
        LoadError.CHECKSUM_MISMATCH,
        LoadError.UNSAFE_WEIGHTS,
        LoadError.MODEL_NOT_FOUND,
    ],
)
def test_bad_input_22_a_download_that_fails_says_why_and_is_tried_again(
    api: Api, operator: OperatorProcess, truth: Truth, ended: LoadError
) -> None:
    api.create(model("gated", framework="vllm", source=SOURCE, gpu=played(), runtimeImage="localhost/vllm:1"))
    pod, address = PlayedPod(api, "gated"), next(_addresses)
    text = "set key HF_TOKEN of Secret hf-token"
    message = Termination(ended, text).encode().decode()
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    pod.fetches(address, {"waiting": {"reason": "CrashLoopBackOff"}}, last)
    seen = api.wait("InferenceModel", "gated", lambda im: reason(im) == ended.value, what="the reason")
    assert reason(seen, "ModelLoaded") == ended.value
    assert words(seen) == words(seen, "Ready") == text
    assert (seen or {})["status"]["phase"] == "Failed"
    truth.hold()
    pod.fetches(address, {"waiting": None, "running": {"startedAt": pod.at(9)}}, last)
    truth.hold()
    assert reason(api.get("InferenceModel", "gated")) == ended.value, "a new attempt alone mends nothing"


def test_the_api_server_takes_the_pods_of_a_model_that_is_fetched_under_the_strictest_rules(
    api: Api, operator: OperatorProcess
) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
    patch = {"metadata": {"labels": label}}
    headers = {"Content-Type": "application/merge-patch+json"}
    api.request("PATCH", f"/api/v1/namespaces/{api.namespace}", json=patch, headers=headers)
    api.create(model("tiny", source={**SOURCE, "size": "1Gi", "files": ["x.gguf"]}))
    eventually(lambda: api.find("Pod", "moorage.dev/model=tiny"), "a pod")
    (pod,) = api.find("Pod", "moorage.dev/model=tiny")
    (fetching,) = pod["spec"]["initContainers"]
    assert fetching["env"][-1]["valueFrom"]["secretKeyRef"] == {"name": "hf-token", "key": "HF_TOKEN", "optional": True}
    assert fetching["resources"]["requests"]["ephemeral-storage"] == "1Gi"
    assert "hf-token" not in str(pod["spec"]["containers"])


def test_a_restart_with_nothing_to_do_writes_nothing_of_models_that_are_fetched(
    api: Api, operator: OperatorProcess, audit: Audit
) -> None:
    api.create(model("tiny", source=SOURCE))
    api.wait("InferenceModel", "tiny", is_ready, what="serving")
    api.wait("InferenceModel", "tiny", lambda im: reason(im, "Progressing") == "Complete", what="complete")
    operator.stop()
    since = audit.position()
    operator.start()
    api.patch("InferenceModel", "tiny", {"spec": {"displayName": "Tiny"}})
    generation = (api.get("InferenceModel", "tiny") or {})["metadata"]["generation"]
    api.wait(
        "InferenceModel",
        "tiny",
        lambda im: (im or {})["status"]["observedGeneration"] == generation,
        what="the change is told",
    )
    writes = [write for write in described(audit.writes(since)) if api.namespace in write]
    assert writes == [f"patch {api.namespace}/inferencemodels/status/tiny 200"]
