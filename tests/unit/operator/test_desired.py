"""What golden files do not say: storage by address, settings of the engines, names, and what does not change."""

from dataclasses import replace
from typing import Any

import pytest

from moorage_common.labels import RESTARTED_AT_ANNOTATION, REVISION_LABEL
from moorage_operator.api.source import Source
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired import desired, names
from moorage_operator.desired.config import DesiredConfig
from moorage_operator.desired.storage import storage
from moorage_operator.engines import ENGINES, environment
from moorage_operator.engines.base import image_key
from tests.unit.operator.support import CONFIG, MODEL_UID, model


@pytest.mark.parametrize(
    ("uri", "claim", "sub_path", "path"),
    [
        ("pvc://models", "models", None, "/models"),
        ("pvc://models/qwen2.gguf", "models", None, "/models/qwen2.gguf"),
        ("pvc://models/qwen2.GGUF", "models", None, "/models/qwen2.GGUF"),
        ("pvc://models/qwen2", "models", "qwen2", "/models"),
        ("pvc://models/qwen2/7b", "models", "qwen2/7b", "/models"),
        ("pvc://models/qwen2/q4.gguf", "models", "qwen2", "/models/q4.gguf"),
        ("pvc://team.models/a/b/q4-00001-of-00002.gguf", "team.models", "a/b", "/models/q4-00001-of-00002.gguf"),
        ("pvc://models/v1.5", "models", "v1.5", "/models"),
    ],
)
def test_a_claim_is_mounted_no_wider_than_the_folder_of_the_model(
    uri: str, claim: str, sub_path: str | None, path: str
) -> None:
    files = storage(Source(uri=uri), "IfNotPresent")
    assert files.volume == {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    assert files.mount.get("subPath") == sub_path
    assert files.path == path


@pytest.mark.parametrize(
    "reference", ["localhost/models/smollm2:135m-q4", "r.example:5000/a/b@sha256:" + "0" * 64, "models/x"]
)
def test_an_image_is_mounted_whole_and_with_the_pull_policy(reference: str) -> None:
    files = storage(Source(uri=f"oci://{reference}"), "Never")
    assert files.volume == {"name": "model", "image": {"reference": reference, "pullPolicy": "Never"}}
    assert "subPath" not in files.mount
    assert files.path == "/models"


@pytest.mark.parametrize("uri", ["oci://models/x", "pvc://models", "pvc://models/a.gguf", "pvc://models/a/b"])
def test_model_files_are_mounted_read_only(uri: str) -> None:
    mount = storage(Source(uri=uri), "IfNotPresent").mount
    assert (mount["name"], mount["mountPath"], mount["readOnly"]) == ("model", "/models", True)


def test_every_engine_is_told_its_model_name_and_limit() -> None:
    for framework in ENGINES:
        values = environment(model(framework=framework, maxConcurrency=7), "/models/x")
        assert values["MODEL_BACKEND"] == framework.value
        assert (values["MODEL_PATH"], values["MODEL_NAME"]) == ("/models/x", "tiny")
        assert values["MAX_CONCURRENT_REQUESTS"] == "7"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"framework": "llamacpp"}, "4"),
        ({"framework": "llamacpp", "task": "embed"}, "4"),
        ({"framework": "transformers", "task": "embed"}, "256"),
        ({"framework": "transformers", "task": "embed", "maxConcurrency": 8}, "8"),
    ],
)
def test_embeddings_by_transformers_take_many_requests_at_once(spec: dict[str, Any], expected: str) -> None:
    values = environment(model(**spec), "/models")
    assert values["MAX_CONCURRENT_REQUESTS"] == expected
    assert values.get("MODEL_TASK") == spec.get("task")


def test_an_idle_time_after_which_a_model_is_unloaded_is_both_settings() -> None:
    values = environment(model(unloadAfterSeconds=90), "/models")
    assert (values["MODEL_UNLOAD_ENABLED"], values["MODEL_IDLE_TIMEOUT"]) == ("true", "90")


def test_settings_that_the_spec_leaves_out_are_left_to_the_runtime() -> None:
    values = environment(model(), "/models")
    assert set(values) == {"MODEL_BACKEND", "MODEL_PATH", "MODEL_NAME", "MAX_CONCURRENT_REQUESTS"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"contextLength": 8192}, {"MAX_INPUT_TOKENS": "8192"}),
        ({"quantization": "q4_k_m"}, {"MODEL_QUANTIZATION": "q4_k_m"}),
        ({"servedName": "Qwen/Qwen2"}, {"MODEL_NAME": "Qwen/Qwen2"}),
        ({"llamacpp": {"threads": 3}}, {"LLAMA_THREADS": "3"}),
        ({"llamacpp": {"gpuLayers": 0}}, {"LLAMA_GPU_LAYERS": "0"}),
        ({"framework": "vllm"}, {"TENSOR_PARALLEL_SIZE": "1"}),
        ({"framework": "vllm", "gpu": {"count": 4}}, {"TENSOR_PARALLEL_SIZE": "4"}),
        ({"framework": "vllm", "gpu": {"count": 4}, "vllm": {"maxNumSeqs": 8}}, {"TENSOR_PARALLEL_SIZE": "4"}),
        ({"framework": "vllm", "vllm": {"tensorParallelSize": 4}}, {"TENSOR_PARALLEL_SIZE": "4"}),
        ({"framework": "vllm", "vllm": {"gpuMemoryUtilization": 0.9}}, {"GPU_MEMORY_UTILIZATION": "0.9"}),
        ({"framework": "vllm", "vllm": {"maxNumSeqs": 8}}, {"MAX_NUM_SEQS": "8"}),
        ({"framework": "transformers", "transformers": {"compile": True}}, {"COMPILE_MODEL": "true"}),
        ({"framework": "transformers", "transformers": {"int8Threshold": 0}}, {"INT8_THRESHOLD": "0.0"}),
        ({"extraArgs": ["--no-mmap", "--flash-attn=on"]}, {"EXTRA_ARGS": '["--flash-attn=on", "--no-mmap"]'}),
        ({"parameters": {"temperature": 0, "topP": 0.9}}, {"REQUEST_DEFAULTS": '{"temperature": 0.0, "top_p": 0.9}'}),
    ],
)
def test_a_field_of_the_spec_becomes_a_setting(spec: dict[str, Any], expected: dict[str, str]) -> None:
    values = environment(model(**spec), "/models")
    assert values | expected == values


def test_the_settings_are_sorted_so_that_their_order_never_restarts_a_pod() -> None:
    values = environment(model(contextLength=1024, quantization="q8_0", llamacpp={"threads": 1}), "/models")
    assert list(values) == sorted(values)


def test_no_child_while_there_is_no_image_for_framework_and_device() -> None:
    on_gpu = model(gpu={"count": 1})
    assert image_key(on_gpu.spec) == "llamacpp/gpu"
    assert desired(on_gpu, DesiredConfig({"llamacpp/cpu": "runtime:1"})) == []
    assert desired(on_gpu, DesiredConfig({"llamacpp/gpu": ""})) == []
    assert [child["kind"] for child in desired(on_gpu, CONFIG)] == ["Service", "Deployment", "PodDisruptionBudget"]


def test_the_image_of_the_spec_wins_and_is_enough() -> None:
    own = model(framework="transformers", runtimeImage="registry.example/x:1")
    for config in (CONFIG, DesiredConfig({}), DesiredConfig({"transformers/cpu": "theirs:1"})):
        assert container(own, config)["image"] == "registry.example/x:1"


def container(of: InferenceModel, config: DesiredConfig = CONFIG) -> dict[str, Any]:
    found: dict[str, Any] = desired(of, config)[1]["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"displayName": "Tiny", "description": "A model."},
        {"parameters": {}},
        {"llamacpp": {}},
        {"extraArgs": []},
        {"env": []},
        {"nodeSelector": {}},
        {"tolerations": []},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_has_no_effect_changes_nothing(fields: dict[str, Any]) -> None:
    assert desired(model(**fields), CONFIG) == desired(model(), CONFIG)


def test_the_order_of_options_and_variables_does_not_restart_a_pod() -> None:
    options, variables = ["--no-mmap", "--numa=isolate"], [{"name": n, "value": "1"} for n in ("OMP_PLACES", "A")]
    one = model(extraArgs=options, env=variables)
    other = model(extraArgs=options[::-1], env=variables[::-1])
    assert desired(one, CONFIG) == desired(other, CONFIG)


def test_bad_input_20_a_variable_never_replaces_a_setting_of_the_operator() -> None:
    # The API server refuses such a variable; should one get past it, it must not have the last word.
    names_of_ours = [entry["name"] for entry in container(model())["env"]]
    taken = container(model(env=[{"name": name, "value": "theirs"} for name in names_of_ours]))["env"]
    assert {entry["name"]: entry["value"] for entry in taken} == {
        entry["name"]: entry["value"] for entry in container(model())["env"]
    }
    assert len(taken) == len(names_of_ours)


def test_the_configuration_names_pull_policy_and_priority_class() -> None:
    config = DesiredConfig({"llamacpp/cpu": "runtime:1"}, image_pull_policy="Never", priority_class_prefix="ours-")
    pod = desired(model(priority=3), config)[1]["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == "ours-3"
    assert pod["containers"][0]["imagePullPolicy"] == "Never"
    assert pod["volumes"][0]["image"]["pullPolicy"] == "Never"


def test_replicas_do_not_change_the_pods() -> None:
    one, five = desired(model(replicas=1), CONFIG)[1], desired(model(replicas=5), CONFIG)[1]
    assert (one["spec"].pop("replicas"), five["spec"].pop("replicas")) == (1, 5)
    assert one == five


def test_the_selector_is_the_same_for_every_spec_because_it_is_immutable() -> None:
    first, second = model(), model(framework="vllm", servedName="x", gpu={"count": 1}, priority=9)
    service, deployment, budget = desired(second, CONFIG)
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == names.selector("tiny")
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert desired(first, CONFIG)[1]["spec"]["selector"] == deployment["spec"]["selector"]
    assert names.selector("tiny").items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_every_child_is_owned_by_the_model_and_has_its_name() -> None:
    for child in desired(model(), CONFIG):
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "InferenceModel",
            "tiny",
            MODEL_UID,
            True,
        )
        assert (child["metadata"]["name"], child["metadata"]["namespace"]) == ("tiny", "team-a")


def test_gpus_are_requested_and_limited_alike_and_not_named_when_there_are_none() -> None:
    def resources(**gpu: Any) -> dict[str, Any]:
        container = desired(model(gpu=gpu), CONFIG)[1]["spec"]["template"]["spec"]["containers"][0]
        found: dict[str, Any] = container["resources"]
        return found

    with_gpu = resources(count=2, resourceName="amd.com/gpu")
    assert with_gpu["requests"]["amd.com/gpu"] == with_gpu["limits"]["amd.com/gpu"] == "2"
    assert resources(count=0)["limits"] == {"memory": "2Gi"}
    assert "cpu" not in with_gpu["limits"]


def test_the_address_is_that_of_the_service() -> None:
    assert names.url(model()) == "http://tiny.team-a.svc/v1"


@pytest.mark.parametrize(
    "told", ["", "now", "2026-07-01", "2026-07-01T12:00:00", "2026-07-01T12:00:00Z\n", "9" * 1000, "${HOME}"]
)
def test_what_is_no_time_of_a_restart_changes_no_pod(told: str) -> None:
    plain = model()
    asked = plain.model_copy(
        update={"metadata": plain.metadata.model_copy(update={"annotations": {RESTARTED_AT_ANNOTATION: told}})}
    )
    assert desired(asked, CONFIG) == desired(plain, CONFIG)


def test_another_time_of_a_restart_is_another_revision() -> None:
    plain = model()
    revisions = {
        desired(
            plain.model_copy(
                update={"metadata": plain.metadata.model_copy(update={"annotations": {RESTARTED_AT_ANNOTATION: told}})}
            ),
            CONFIG,
        )[1]["spec"]["template"]["metadata"]["labels"][REVISION_LABEL]
        for told in ("", "2026-07-01T12:00:00Z", "2026-07-01T12:00:01.5Z", "2026-07-01T14:00:00+02:00")
    }
    assert len(revisions) == 4


def pod_spec(config: DesiredConfig, **spec: Any) -> dict[str, Any]:
    """The pod of a model's Deployment."""
    (made,) = [child for child in desired(model(**spec), config) if child["kind"] == "Deployment"]
    pod: dict[str, Any] = made["spec"]["template"]["spec"]
    return pod


def test_cluster_05_without_a_user_of_ours_the_pods_are_as_restricted_as_with_it() -> None:
    ours, none = pod_spec(CONFIG), pod_spec(replace(CONFIG, set_user=False))
    assert {name: ours["securityContext"].pop(name) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
    }
    assert ours == none
    assert none["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_cluster_06_each_device_has_the_runtime_class_that_is_set_for_it() -> None:
    config = replace(CONFIG, runtime_classes={"gpu": "nvidia"})
    assert pod_spec(config, gpu={"count": 1})["runtimeClassName"] == "nvidia"
    assert "runtimeClassName" not in pod_spec(config)
    assert pod_spec(replace(CONFIG, runtime_classes={"cpu": "gvisor"}))["runtimeClassName"] == "gvisor"


def test_cluster_06_pull_secrets_are_for_the_whole_pod() -> None:
    assert "imagePullSecrets" not in pod_spec(CONFIG)
    made = pod_spec(replace(CONFIG, image_pull_secrets=("registry", "hub")))
    assert made["imagePullSecrets"] == [{"name": "registry"}, {"name": "hub"}]
