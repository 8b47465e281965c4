"""Quantized checkpoints in vLLM: what is in memory is what was asked for, and the answers are still right."""

from pathlib import Path

import httpx
import openai
import pytest

from hack.engines.quantized import quantized_folder
from tests.engines.vllm_runtime import MODEL, vllm

pytestmark = pytest.mark.timeout(1800)

SIXTEEN_BIT = 134_515_008 * 2
"""Bytes of the weights before they were quantized."""


def test_w8a8_is_served_in_8_bit(tmp_path: Path) -> None:
    folder = quantized_folder("smollm2-w8a8")
    with vllm(tmp_path, folder, MODEL_QUANTIZATION="compressed-tensors") as runtime:
        facts = runtime.health()["facts"]
        assert facts["quantization"] == "compressed-tensors"
        # Embeddings stay in 16 bit.
        assert facts["weightsBytes"] < 0.65 * SIXTEEN_BIT

        with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0) as client:
            answer = client.completions.create(
                model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0
            )
        assert "Paris" in answer.choices[0].text
        assert httpx.get(f"{runtime.url}/health/detailed").json()["requestedQuantization"] == "compressed-tensors"
