"""Settings that the engine itself has to follow: defaults of requests and options, with llama.cpp and SmolLM2."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.runtime.conftest import Runtime, runtime_process

OPTIONS = ["--flash-attn=on", "--no-mmap", "--threads-batch=1", "--numa=distribute", "--split-mode=none"]
GPU_OPTIONS = ["--no-kv-offload", "--no-op-offload"]


@pytest.fixture(scope="module")
def tuned(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A runtime whose requests get three of the likeliest tokens unless they ask for something else."""
    settings = {
        "MODEL_PATH": str(smollm2),
        "MODEL_NAME": "smollm2",
        "MAX_INPUT_TOKENS": "512",
        "LLAMA_THREADS": "2",
        "LLAMA_GPU_LAYERS": "1",
        "EXTRA_ARGS": json.dumps([*OPTIONS, *GPU_OPTIONS]),
        "REQUEST_DEFAULTS": json.dumps({"temperature": 0, "max_tokens": 3, "top_k": 1}),
    }
    with runtime_process(tmp_path_factory.mktemp("tuned"), **settings) as process:
        process.wait_ready()
        yield process


def complete(runtime: Runtime, **fields: Any) -> dict[str, Any]:
    """A completion."""
    body = {"model": "smollm2", "prompt": "Once upon a time", **fields}
    response = httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def chat(runtime: Runtime, **fields: Any) -> dict[str, Any]:
    """A chat."""
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Tell me a story."}], **fields}
    response = httpx.post(f"{runtime.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_requests_get_the_defaults_for_what_they_leave_out(tuned: Runtime) -> None:
    assert complete(tuned)["usage"]["completion_tokens"] == 3
    assert chat(tuned)["usage"]["completion_tokens"] == 3
    # With the engine's own temperature, eight answers are not all alike.
    assert len({complete(tuned, max_tokens=12)["choices"][0]["text"] for _ in range(8)}) == 1


def test_what_a_request_says_is_what_it_gets(tuned: Runtime) -> None:
    assert complete(tuned, max_tokens=5)["usage"]["completion_tokens"] == 5
    assert chat(tuned, max_completion_tokens=4)["usage"]["completion_tokens"] == 4
    hot = {"temperature": 2, "top_k": 0, "max_tokens": 12}
    assert len({complete(tuned, **hot, seed=seed)["choices"][0]["text"] for seed in range(8)}) > 1


def test_options_reach_the_engine(tuned: Runtime, runtime: Runtime) -> None:
    # What can be seen from outside: without mmap, the file is not mapped.
    assert not _maps(tuned, r"\.gguf$")
    assert _maps(runtime, r"\.gguf$")


def _maps(runtime: Runtime, pattern: str) -> bool:
    (engine,) = psutil.Process(runtime.process.pid).children()
    return any(re.search(pattern, line) for line in Path(f"/proc/{engine.pid}/maps").read_text().splitlines())


def test_every_option_is_a_parameter_of_the_engine() -> None:
    import xllamacpp

    from moorage_runtime.engines.llamacpp import ChildConfig, server_parameters
    from moorage_runtime.engines.llamacpp_options import OPTIONS as KNOWN
    from moorage_runtime.engines.llamacpp_options import read_options

    options = read_options((*OPTIONS, *GPU_OPTIONS))
    assert set(options) == set(KNOWN)
    plain = ChildConfig(path="x", alias="x", context=256, slots=1, threads=4)
    before, after = (
        server_parameters(plain),
        server_parameters(
            ChildConfig(path="x", alias="x", context=256, slots=1, threads=4, gpu_layers=7, options=options)
        ),
    )
    assert (before.n_gpu_layers, after.n_gpu_layers) == (-1, 7)
    assert (before.cpuparams_batch.n_threads, after.cpuparams_batch.n_threads) == (4, 1)
    assert (before.no_kv_offload, after.no_kv_offload) == (False, True)
    assert (before.no_op_offload, after.no_op_offload) == (False, True)
    assert after.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert after.load_mode == xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    assert after.numa == xllamacpp.ggml_numa_strategy.GGML_NUMA_STRATEGY_DISTRIBUTE
    assert after.split_mode == xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE
