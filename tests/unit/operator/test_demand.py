"""What a spec asks of memory, where fields of an engine change what a GPU has to hold."""

from typing import Any

import pytest

from moorage_operator.status.demand import usable_share
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
