"""Bad values of fields, by the rows of reliability.md: refused by the API server itself, in words that help."""

import re
from typing import Any

import pytest

from tests.support.api import Api, ApiRefusedError
from tests.support.models import model
from tests.support.refusals import assert_says, refusal


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


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "memory",
        "kubernetes.io/x",
        "requests.nvidia.com",
        "requests.nvidia.com/gpu",
        "nvidia.com/gpu/2",
        "nvidia.com/",
        "*",
    ],
)
def test_bad_input_04_a_resource_that_is_no_gpu(api: Api, name: str) -> None:
    text = refusal(api, {"gpu": {"count": 1, "resourceName": name}})
    assert_says(text, "spec.gpu.resourceName", name, "nvidia.com/gpu")


@pytest.mark.parametrize("name", ["a" * 41, "with.dot", "1st"])
def test_bad_input_08_name(api: Api, name: str) -> None:
    assert_says(refusal(api, {}, name), "metadata.name", "at most 40 characters", "without dots")


def test_a_name_of_40_characters_is_fine(api: Api) -> None:
    api.create(model("a" * 40))


@pytest.mark.parametrize("replicas", [-1, 10**6])
def test_bad_input_28_replicas(api: Api, replicas: int) -> None:
    assert_says(refusal(api, {"replicas": replicas}), "spec.replicas", str(replicas), "should be")
    # Nor by the way that `kubectl scale` and autoscalers take.
    api.create(model("scaled"))
    with pytest.raises(ApiRefusedError, match=r"spec\.replicas"):
        api.patch("InferenceModel", "scaled", {"spec": {"replicas": replicas}}, "scale")
    assert (api.get("InferenceModel", "scaled") or {})["spec"]["replicas"] == 1


@pytest.mark.parametrize("memory", ["16GB ", "-1", "0", "lots", "1 Gi", "1e-30", "9999999Ei", "1Mi"])
def test_bad_input_31_memory(api: Api, memory: str) -> None:
    text = refusal(api, {"resources": {"memory": memory}})
    assert_says(text, "spec.resources.memory", memory, "positive Kubernetes quantity")


@pytest.mark.parametrize("cpu", ["0.0100000001", "0.1n", "0", "1e3", "100000"])
def test_bad_input_31_cpu(api: Api, cpu: str) -> None:
    text = refusal(api, {"resources": {"cpu": cpu}})
    assert_says(text, "spec.resources.cpu", cpu, "positive Kubernetes quantity")


def test_quantities_may_be_numbers(api: Api) -> None:
    api.create(model("numbers", resources={"cpu": 2, "memory": "0.5Gi"}))


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("temperature", -0.1, ("-0.1", "equal to 0")),
        ("temperature", 2.1, ("2.1", "equal to 2")),
        ("temperature", "hot", ("number",)),
        ("topP", 1.5, ("1.5", "equal to 1")),
        ("topK", 0.5, ("integer",)),
        ("minP", -1, ("-1", "equal to 0")),
        ("maxTokens", 0, ("0", "equal to 1")),
        ("frequencyPenalty", -3, ("-3", "equal to -2")),
        ("presencePenalty", 3, ("3", "equal to 2")),
        ("repeatPenalty", 0, ("0", "at least 0.1")),
    ],
)
def test_parameters_out_of_range_are_refused(api: Api, parameter: str, value: object, words: tuple[str, ...]) -> None:
    assert_says(refusal(api, {"parameters": {parameter: value}}), f"spec.parameters.{parameter}", *words)


MANY: dict[str, list[Any]] = {
    "extraArgs": [f"--threads-batch={number + 1}" for number in range(1000)],
    "env": [{"name": f"LOG_LEVEL_{number}", "value": "INFO"} for number in range(1000)],
    "tolerations": [{"key": f"example.org/t{number}", "operator": "Exists"} for number in range(1000)],
}


@pytest.mark.parametrize("field", MANY)
def test_bad_input_34_lists_without_end(api: Api, field: str) -> None:
    most = 16 if field == "tolerations" else 32
    assert_says(refusal(api, {field: MANY[field]}), f"spec.{field}", "1000", f"at most {most} items")


def test_bad_input_34_maps_without_end(api: Api) -> None:
    text = refusal(api, {"nodeSelector": {f"example.org/l{number}": "x" for number in range(1000)}})
    assert_says(text, "spec.nodeSelector", "1000", "at most 16")


@pytest.mark.parametrize(
    ("field", "most"),
    [("displayName", 64), ("description", 1024), ("servedName", 128), ("runtimeImage", 512)],
)
def test_bad_input_34_a_megabyte_of_text(api: Api, field: str, most: int) -> None:
    text = refusal(api, {field: "a" * 1024 * 1024})
    assert_says(text, f"spec.{field}", str(most))
    assert len(text) < 2000, "the refusal does not repeat it all"


def test_bad_input_34_a_long_option_or_variable(api: Api) -> None:
    assert_says(refusal(api, {"extraArgs": ["--numa=" + "a" * 1000]}), "spec.extraArgs[0]", "128")
    assert_says(refusal(api, {"env": [{"name": "LOG_LEVEL", "value": "a" * 1000}]}), "spec.env[0].value", "256")
    assert_says(refusal(api, {"env": [{"name": "A" * 1000, "value": "a"}]}), "spec.env[0].name", "64")


@pytest.mark.parametrize(
    "name",
    ["qw\u0435n", "qwen\uff12", "qwen\u202e", "\u200bqwen", "QWEN", "qwen_2", "qwen/2", ".."],
)
def test_bad_input_40_names_are_plain_dns_labels(api: Api, name: str) -> None:
    assert_says(refusal(api, {}, name), "metadata.name")


@pytest.mark.parametrize("name", ["qw\u0435n", "qwen\u202e2", "qwen 2", "-qwen", ""])
def test_bad_input_40_served_names_are_plain(api: Api, name: str) -> None:
    assert_says(refusal(api, {"servedName": name}), "spec.servedName")


@pytest.mark.parametrize("text", ["a\u202eb", "a\u2066b", "a\x1b[31mb", "a\x00b", "a\x07b", "a\u0085b", "a\u2028b"])
@pytest.mark.parametrize("field", ["displayName", "description"])
def test_bad_input_40_texts_for_people_do_not_turn_what_follows(api: Api, field: str, text: str) -> None:
    assert_says(refusal(api, {field: text}), f"spec.{field}", "without control characters", "for example")


def test_bad_input_40_texts_for_people_may_be_in_any_language(api: Api) -> None:
    fields = {"displayName": "مدل فارسی می‌خواهم 模型 🧑‍🔬", "description": "Первая строка\nand <b>a second</b>\n"}
    kept = api.create(model("texts", **fields))
    assert {name: kept["spec"][name] for name in fields} == fields
    assert re.search("one line", refusal(api, {"displayName": "one\ntwo"}))


@pytest.mark.parametrize(
    ("toleration", "words"),
    [
        ({"operator": "Exists"}, ("spec.tolerations[0].key", "Required")),
        ({"key": "", "operator": "Exists"}, ("spec.tolerations[0].key", "at least 1")),
        ({"key": "node.kubernetes.io/unreachable"}, ("spec.tolerations[0].key", "unreachable", "nvidia.com/gpu")),
        ({"key": "node.kubernetes.io/unschedulable"}, ("spec.tolerations[0].key", "unschedulable", "drained")),
        ({"key": "node-role.kubernetes.io/control-plane"}, ("spec.tolerations[0].key", "control-plane")),
        ({"key": "a b"}, ("spec.tolerations[0].key", '"a b"', "for example nvidia.com/gpu")),
        ({"key": "a", "operator": "In"}, ("spec.tolerations[0].operator", '"In"', "Equal", "Exists")),
        ({"key": "a", "operator": "Exists", "value": "x"}, ("spec.tolerations[0].value", "x", "remove value")),
        ({"key": "a", "value": "x y"}, ("spec.tolerations[0].value", '"x y"', "letters, digits")),
        ({"key": "a", "effect": "Never"}, ("spec.tolerations[0].effect", '"Never"', "NoSchedule")),
        ({"key": "a", "tolerationSeconds": 5}, ("spec.tolerations[0].tolerationSeconds", "NoExecute")),
        ({"key": "a", "effect": "NoExecute", "tolerationSeconds": -1}, ("tolerationSeconds", "-1", "equal to 0")),
    ],
)
def test_tolerations_that_say_nothing_clear_are_refused(
    api: Api, toleration: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert_says(refusal(api, {"tolerations": [toleration]}), *words)


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ({"a b": "x"}, ("spec.nodeSelector", "a b", "for example nvidia.com/gpu.product")),
        ({"": "x"}, ("spec.nodeSelector", "for example nvidia.com/gpu.product")),
        ({"a" * 400: "x"}, ("spec.nodeSelector", "for example nvidia.com/gpu.product")),
        ({"a/b/c": "x"}, ("spec.nodeSelector", "a/b/c")),
        ({"a": "x y"}, ("spec.nodeSelector[a]", '"x y"', "letters, digits")),
        ({"a": "x" * 64}, ("spec.nodeSelector", "63")),
    ],
)
def test_node_selectors_that_no_node_can_have_are_refused(
    api: Api, selector: dict[str, str], words: tuple[str, ...]
) -> None:
    assert_says(refusal(api, {"nodeSelector": selector}), *words)
