"""Bad InferenceModels, by the rows of reliability.md: refused by the API server itself, in words that help."""

import re
from typing import Any

import pytest

from tests.support.api import Api, ApiRefusedError, condition, reason
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess


def refusal(api: Api, spec: dict[str, Any], name: str = "bad") -> str:
    """What the API server says to a model with these fields."""
    with pytest.raises(ApiRefusedError) as refused:
        api.create(model(name, **spec))
    assert refused.value.status in (400, 422)
    return str(refused.value)


def assert_says(text: str, *parts: str) -> None:
    """The message names each of these."""
    assert [part for part in parts if part not in text] == [], text


@pytest.mark.parametrize("framework", ["vLLM", "ollama", ""])
def test_bad_input_01_unknown_framework(api: Api, framework: str) -> None:
    assert_says(
        refusal(api, {"framework": framework}), "spec.framework", f'"{framework}"', "vllm", "llamacpp", "transformers"
    )


def test_bad_input_02_unknown_field(api: Api) -> None:
    assert_says(refusal(api, {"gpuCount": 2}), 'unknown field "spec.gpuCount"')
    kept = api.create(model("pruned", gpuCount=2), validate="Warn")
    assert "gpuCount" not in kept["spec"]


@pytest.mark.parametrize(
    ("priority", "words"),
    [
        (0, ("0", "greater than or equal to 1")),
        (11, ("11", "less than or equal to 10")),
        (5.5, ("integer",)),
        ("5", ("integer",)),
    ],
)
def test_bad_input_03_priority(api: Api, priority: object, words: tuple[str, ...]) -> None:
    assert_says(refusal(api, {"priority": priority}), "spec.priority", *words)


@pytest.mark.parametrize(("count", "words"), [(-1, ("-1", "equal to 0")), (10**9, ("1000000000", "equal to 64"))])
def test_bad_input_04_gpu_count(api: Api, count: int, words: tuple[str, ...]) -> None:
    assert_says(refusal(api, {"gpu": {"count": count}}), "spec.gpu.count", *words)


def test_bad_input_05_no_image_for_the_device(api: Api, operator: OperatorProcess) -> None:
    api.create(model("no-image", framework="vllm"))
    seen = api.wait("InferenceModel", "no-image", lambda im: reason(im) == "NoImageForDevice", what="NoImageForDevice")
    assert_says(condition(seen, "Ready")["message"], "vllm/cpu", "runtime.images", "llamacpp/cpu")
    assert api.get("Deployment", "no-image") is None
    # It clears by itself once the spec asks for something that there is.
    api.patch("InferenceModel", "no-image", {"spec": {"framework": "llamacpp"}})
    api.wait("InferenceModel", "no-image", lambda im: reason(im) == "Serving", what="Serving")


@pytest.mark.parametrize(
    ("framework", "quantization", "allowed"),
    [("vllm", "q4_k_m", "gptq"), ("llamacpp", "awq", "q4_k_m"), ("transformers", "q8_0", "bitsandbytes-8bit")],
)
def test_bad_input_06_quantization_of_another_framework(
    api: Api, framework: str, quantization: str, allowed: str
) -> None:
    text = refusal(api, {"framework": framework, "quantization": quantization})
    assert_says(text, "spec.quantization", quantization, framework, allowed)


def test_bad_input_07_tensor_parallel_does_not_divide_gpus(api: Api) -> None:
    text = refusal(api, {"framework": "vllm", "gpu": {"count": 3}, "vllm": {"tensorParallelSize": 2}})
    assert_says(text, "spec.vllm.tensorParallelSize", "must divide gpu.count")
    api.create(model("divides", framework="vllm", gpu={"count": 4}, vllm={"tensorParallelSize": 2}))


@pytest.mark.parametrize("name", ["a" * 41, "with.dot", "1st"])
def test_bad_input_08_name(api: Api, name: str) -> None:
    assert_says(refusal(api, {}, name), "metadata.name", "at most 40 characters", "without dots")


def test_a_name_of_40_characters_is_fine(api: Api) -> None:
    api.create(model("a" * 40))


@pytest.mark.parametrize(
    "uri", ["", "oci://", "oci://a b", "oci://a\nb", "oci://a\x00b", "pvc://claim/a b", "oci://Upper/x", "x" * 1025]
)
def test_bad_input_09_model_address(api: Api, uri: str) -> None:
    text = refusal(api, {"source": {"uri": uri}})
    assert_says(text, "spec.source.uri")
    assert re.search(r"at least 7 chars|must be|longer than 1024|may not be more than 1024", text), text


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "/abs/path", "hostpath:///var", "FILE:///x", "git://host/x"])
def test_bad_input_10_scheme(api: Api, uri: str) -> None:
    assert_says(refusal(api, {"source": {"uri": uri}}), "spec.source.uri", uri, "oci://", "pvc://")


@pytest.mark.parametrize("path", ["../x", "a/../b", "a/%2e%2e/b", "a//b", "..", "a\\b", "./a", "a/..gguf/../x"])
def test_bad_input_11_pvc_path(api: Api, path: str) -> None:
    assert_says(refusal(api, {"source": {"uri": f"pvc://claim/{path}"}}), "spec.source.uri", "pvc://CLAIM/PATH", "'..'")


@pytest.mark.parametrize("memory", ["16GB ", "-1", "0", "lots", "1 Gi", "1e-30", "9999999Ei", "1Mi"])
def test_bad_input_31_memory(api: Api, memory: str) -> None:
    text = refusal(api, {"resources": {"memory": memory}})
    assert_says(text, "spec.resources.memory", memory, "positive Kubernetes quantity")


@pytest.mark.parametrize("cpu", ["0.0100000001", "0.1n", "0", "1e3", "100000"])
def test_bad_input_31_cpu(api: Api, cpu: str) -> None:
    text = refusal(api, {"resources": {"cpu": cpu}})
    assert_says(text, "spec.resources.cpu", cpu, "positive Kubernetes quantity")


@pytest.mark.parametrize("resources", [{"cpu": "0.1", "memory": "1.5Gi"}, {"cpu": "1000m", "memory": "1024Mi"}])
def test_a_quantity_that_the_api_server_writes_otherwise_is_no_drift(
    api: Api, operator: OperatorProcess, audit: Audit, resources: dict[str, str]
) -> None:
    api.create(model("same", resources=resources))
    api.wait("InferenceModel", "same", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    start = audit.position()
    live = api.patch("Deployment", "same", {"metadata": {"labels": {"example.org/touched": "yes"}}})
    # Whatever the operator does about the label comes before what it does about the model that is made after it.
    api.create(model("later"))
    api.wait("InferenceModel", "later", lambda im: reason(im) == "Serving", what="Serving")
    # The last write of the status may get into the log after its event has reached us; the Deployment's are meant.
    targets = [write["objectRef"] for write in audit.writes(start)]
    assert [t for t in targets if (t["resource"], t.get("name")) == ("deployments", "same")] == []
    assert (api.get("Deployment", "same") or {})["metadata"]["generation"] == live["metadata"]["generation"]


def test_more_slots_than_llama_cpp_has_are_refused(api: Api) -> None:
    assert_says(refusal(api, {"maxConcurrency": 257}), "spec.maxConcurrency", "at most 256")


def test_quantities_may_be_numbers(api: Api) -> None:
    api.create(model("numbers", resources={"cpu": 2, "memory": "0.5Gi"}))


def test_bad_input_38_forged_annotations_change_nothing(api: Api, operator: OperatorProcess) -> None:
    forged = model("forged")
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"}
    forged["metadata"] |= {
        "annotations": {
            "kopf.zalando.org/last-handled-configuration": '{"spec":{}}',
            "kopf.zalando.org/create": '{"success":true}',
            "moorage.dev/applied-hash": "0000",
        },
        "labels": {"moorage.dev/model": "another", "app.kubernetes.io/managed-by": "moorage"},
    }
    api.create(forged)
    api.create(model("honest"))
    for name in ("forged", "honest"):
        api.wait("InferenceModel", name, lambda im: reason(im) == "Serving", what="Serving")
    specs = [(api.get("Deployment", name) or {})["spec"] for name in ("forged", "honest")]
    assert _without_identity(specs[0]) == _without_identity(specs[1])
    # A finalizer of the author's is the author's: the children go all the same, by the garbage collector.
    api.patch(
        "InferenceModel", "forged", {"metadata": {"finalizers": ["example.org/mine"], "ownerReferences": [stranger]}}
    )
    api.delete("InferenceModel", "forged")
    api.patch("InferenceModel", "forged", {"metadata": {"finalizers": []}})
    api.wait("Deployment", "forged", lambda found: found is None, what="the children are gone")


IDENTITY = {"moorage.dev/model-uid", "moorage.dev/revision"}


def _without_identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_identity(item) for key, item in value.items() if key not in IDENTITY}
    if isinstance(value, list):
        return [_without_identity(item) for item in value]
    return value.replace("forged", "NAME").replace("honest", "NAME") if isinstance(value, str) else value


def test_bad_input_39_status_written_by_a_user(api: Api, operator: OperatorProcess) -> None:
    lie = model("liar") | {"status": {"phase": "Running", "url": "http://elsewhere.example"}}
    assert "status" not in api.create(lie), "a status given at creation is dropped"
    complete = api.wait("InferenceModel", "liar", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    # Somebody with the right to write a status, which our roles give to nobody, is corrected.
    api.patch("InferenceModel", "liar", {"status": {"phase": "Failed", "url": "http://elsewhere.example"}}, "status")
    api.wait(
        "InferenceModel", "liar", lambda im: (im or {})["status"] == (complete or {})["status"], what="the truth again"
    )


def test_roles_for_people_do_not_grant_status(api: Api) -> None:
    for role in ("moorage-edit", "moorage-view"):
        rules = api.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}")["rules"]
        writable = [r for rule in rules if {"update", "patch"} & set(rule["verbs"]) for r in rule["resources"]]
        assert "inferencemodels/status" not in writable
