"""What a spec asks of memory, where fields of an engine change what a GPU has to hold."""

from typing import Any

import pytest

from moorage_operator.demand import is_whole_on_gpus, usable_share
from tests.unit.operator.support import model

GPU = {"count": 1}


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({"framework": "vllm"}, 0.9),
        ({"framework": "vllm", "vllm": {"maxNumSeqs": 8}}, 0.9),
        ({"framework": "vllm", "vllm": {"gpuMemoryUtilization": 0.5}}, 0.5),
        ({"framework": "llamacpp"}, 1.0),
    ],
)
def test_the_share_of_a_gpu_is_the_one_that_is_asked_for(fields: dict[str, Any], share: float) -> None:
    assert usable_share(model(gpu=GPU, **fields).spec) == share


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({}, False),
        ({"gpu": GPU}, True),
        ({"gpu": GPU, "llamacpp": {"threads": 4}, "extraArgs": ["--flash-attn=on"]}, True),
        ({"gpu": GPU, "llamacpp": {"gpuLayers": 8}}, False),
        ({"gpu": GPU, "llamacpp": {"gpuLayers": 0}}, False),
        ({"gpu": GPU, "extraArgs": ["--no-kv-offload"]}, False),
        ({"gpu": GPU, "framework": "vllm", "extraArgs": ["--enforce-eager", "--cpu-offload-gb=4"]}, False),
        ({"gpu": GPU, "framework": "vllm", "extraArgs": ["--kv-cache-dtype=fp8"]}, False),
    ],
)
def test_what_is_kept_elsewhere_or_made_smaller_is_no_reason_to_warn(fields: dict[str, Any], whole: bool) -> None:
    assert is_whole_on_gpus(model(**fields).spec) is whole
