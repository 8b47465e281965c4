"""What a request says of a model: each flat name of the platform before, and what the spec has of it."""

from typing import Any

import pytest

from moorage_gateway.manage.fields import FLAT, ModelBody, metadata_of, spec_of
from moorage_gateway.manage.problems import Problem
from moorage_operator.api.v1alpha1 import InferenceModelSpec

ROWS: list[tuple[str, Any, dict[str, Any]]] = [
    ("display_name", "Qwen2 7B", {"displayName": "Qwen2 7B"}),
    ("description", "For support.", {"description": "For support."}),
    ("framework", "vllm", {"framework": "vllm"}),
    ("framework", "llama.cpp", {"framework": "llamacpp"}),
    ("framework", "llama_cpp", {"framework": "llamacpp"}),
    ("source", "pvc://models/q.gguf", {"source": {"uri": "pvc://models/q.gguf"}}),
    ("source", {"uri": "hf://a/b@c", "secretName": "t"}, {"source": {"uri": "hf://a/b@c", "secretName": "t"}}),
    ("task", "embed", {"task": "embed"}),
    ("served_name", "qwen", {"servedName": "qwen"}),
    ("quantization", "q4_k_m", {"quantization": "q4_k_m"}),
    ("priority", 10, {"priority": 10}),
    ("replicas", 0, {"replicas": 0}),
    ("gpu_count", 2, {"gpu": {"count": 2}}),
    ("gpu_memory", "24Gi", {"gpu": {"memory": "24Gi"}}),
    ("cpu_cores", 4, {"resources": {"cpu": "4"}}),
    ("cpu_cores", 0.5, {"resources": {"cpu": "500m"}}),
    ("cpu_limit", 2, {"resources": {"cpuLimit": "2"}}),
    ("memory", "16Gi", {"resources": {"memory": "16Gi"}}),
    ("n_ctx", 4096, {"contextLength": 4096}),
    ("n_threads", 8, {"llamacpp": {"threads": 8}}),
    ("n_gpu_layers", 32, {"llamacpp": {"gpuLayers": 32}}),
    ("n_gpu_layers", -1, {}),
    ("temperature", 0.7, {"parameters": {"temperature": 0.7}}),
    ("top_p", 1, {"parameters": {"topP": 1}}),
    ("tensor_parallel_size", 2, {"vllm": {"tensorParallelSize": 2}}),
    ("max_num_seqs", 256, {"vllm": {"maxNumSeqs": 256}}),
    ("max_model_len", 8192, {"contextLength": 8192}),
    ("gpu_memory_utilization", 0.9, {"vllm": {"gpuMemoryUtilization": 0.9}}),
]


@pytest.mark.parametrize(("name", "value", "spec"), ROWS)
def test_a_flat_name_is_a_field_of_the_spec(name: str, value: Any, spec: dict[str, Any]) -> None:
    assert spec_of(ModelBody.model_validate({name: value})) == spec


def test_every_flat_name_has_a_row_and_its_field_is_there() -> None:
    assert {name for name, _, _ in ROWS} == set(FLAT)
    schema = InferenceModelSpec.model_json_schema(by_alias=True)
    for path, _ in FLAT.values():
        place = schema
        for part in path.split("."):
            place = place["properties"][part]
            refs = [place, *place.get("allOf", ()), *place.get("anyOf", ())]
            place = next((schema["$defs"][one["$ref"].rpartition("/")[2]] for one in refs if "$ref" in one), place)


def test_a_spec_and_flat_names_go_together_where_they_agree() -> None:
    body = {"spec": {"framework": "vllm", "vllm": {"maxNumSeqs": 8}}, "tensor_parallel_size": 2, "framework": "vllm"}
    parsed = ModelBody.model_validate(body)
    assert spec_of(parsed) == {"framework": "vllm", "vllm": {"maxNumSeqs": 8, "tensorParallelSize": 2}}
    # What the request said is left as it was.
    assert parsed.spec == body["spec"]
    with pytest.raises(Problem, match="framework says 'vllm'"):
        spec_of(ModelBody.model_validate({**body, "spec": {"framework": "llamacpp"}}))
    with pytest.raises(Problem, match="contextLength"):
        spec_of(ModelBody.model_validate({"n_ctx": 1, "max_model_len": 2}))


def test_metadata_may_stand_at_the_top_or_where_an_object_has_it() -> None:
    told = metadata_of(ModelBody.model_validate({"name": "a", "metadata": {"name": "a", "labels": {"x": "y"}}}))
    assert (told.name, told.labels) == ("a", {"x": "y"})
    with pytest.raises(Problem, match=r"metadata\.name"):
        metadata_of(ModelBody.model_validate({"name": "a", "metadata": {"name": "b"}}))
