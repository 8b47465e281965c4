"""What vLLM's engine decides before it starts: command line, refusals, errors and log lines; vLLM is not imported."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage_common.facts import LoadError
from moorage_common.http.message import Refusal
from moorage_common.tasks import Task
from moorage_runtime import machine
from moorage_runtime.body import read_body
from moorage_runtime.contract import Contract
from moorage_runtime.engines.base import Plan
from moorage_runtime.engines.vllm import ENGINE, TOO_LONG, ChildConfig
from moorage_runtime.engines.vllm_server import device_used, quantization_used
from moorage_runtime.errors import LoadFailure
from moorage_runtime.settings import Settings
from tests.unit.runtime import hf_folder

GIB = 1024**3

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


@pytest.fixture(autouse=True)
def eight_gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = machine.MemoryLimit(8 * GIB, "the memory limit of this container")
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    monkeypatch.setattr(machine, "usable_cpus", lambda: 3)
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "lacks", lambda *_: False)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return hf_folder.folder(tmp_path / "tiny", LLAMA)


def quantized(folder: Path, method: str) -> Path:
    return hf_folder.folder(folder / method, {**LLAMA, "quantization_config": {"quant_method": method}})


def plan(**settings: Any) -> Plan:
    return ENGINE.plan(Settings(**settings))


def arguments(found: Plan) -> tuple[str, ...]:
    return msgspec.json.decode(found.config, type=ChildConfig).arguments


def failure(**settings: Any) -> tuple[LoadError, str]:
    with pytest.raises(LoadFailure) as raised:
        plan(**settings)
    return raised.value.termination.reason, raised.value.termination.message


def test_the_command_line_says_what_the_settings_and_the_folder_say(model: Path) -> None:
    found = plan(model_path=model, model_name="tiny one", max_input_tokens=1024, max_concurrent_requests=8)

    assert {
        f"--model={model}",
        "--served-model-name=tiny one",
        "--max-model-len=1024",
        "--max-num-seqs=8",
        "--tensor-parallel-size=1",
        "--gpu-memory-utilization=0.9",
        "--load-format=safetensors",
        "--runner=generate",
    } <= set(arguments(found))
    assert not [
        argument for argument in arguments(found) if argument.startswith(("--quantization", "--trust", "--dtype"))
    ]
    assert (found.facts.quantization, found.facts.context_length) == ("none", 1024)
    assert found.facts.weights_bytes == found.shape.stored_bytes if found.shape else False


def test_the_context_is_the_trained_one_where_nobody_asks(model: Path) -> None:
    assert "--max-model-len=2048" in arguments(plan(model_path=model))
    reason, message = failure(model_path=model, max_input_tokens=4096)

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "4096" in message
    assert "2048" in message


def test_on_the_cpu_it_is_told_how_large_its_cache_is_and_watched_by_its_cpu_time(model: Path) -> None:
    found = plan(model_path=model, max_input_tokens=1024, max_concurrent_requests=2)

    # 2 layers, 2 heads of 16 numbers, keys and values, 2 bytes; 2 requests of 8 blocks of 128 tokens, and 2 blocks.
    assert f"--kv-cache-memory-bytes={2 * 2 * 16 * 2 * 2 * 128 * (2 * 8 + 2)}" in arguments(found)
    assert "--enforce-eager" in arguments(found)
    assert found.works_on_cpu
    assert msgspec.json.decode(found.config, type=ChildConfig).threads == 2


@pytest.mark.usefixtures("on_gpu")
def test_on_gpus_it_takes_their_memory_itself(model: Path) -> None:
    found = plan(model_path=model, tensor_parallel_size=2, gpu_memory_utilization=0.5, max_num_seqs=32)

    assert {"--tensor-parallel-size=2", "--gpu-memory-utilization=0.5", "--max-num-seqs=32"} <= set(arguments(found))
    assert not [argument for argument in arguments(found) if argument.startswith(("--kv-cache", "--enforce"))]
    assert not found.works_on_cpu
    assert msgspec.json.decode(found.config, type=ChildConfig).threads is None


def test_what_does_not_fit_is_refused_with_the_numbers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = machine.MemoryLimit(GIB, "the memory limit of this container")
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    reason, message = failure(model_path=model)

    assert reason is LoadError.OUT_OF_MEMORY
    assert "1024 MiB" in message
    assert "KV cache" in message


def test_a_cache_of_a_size_that_is_asked_for_counts_too(model: Path) -> None:
    assert failure(model_path=model, vllm_cpu_kvcache_space=7)[0] is LoadError.OUT_OF_MEMORY
    assert plan(model_path=model, vllm_cpu_kvcache_space=4)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors"])
def test_vllm_finds_the_quantization_of_the_files_by_itself(tmp_path: Path, method: str) -> None:
    found = plan(model_path=quantized(tmp_path, method), model_quantization=method)

    assert not [argument for argument in arguments(found) if argument.startswith("--quantization")]
    assert found.facts.quantization == method


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_four_bits_on_a_processor_that_cannot_compute_them_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(machine, "lacks", lambda *_: True)

    reason, message = failure(model_path=quantized(tmp_path, method))
    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert f"have {method}" in message
    assert "AVX-512" in message

    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    assert plan(model_path=quantized(tmp_path, method)).facts.quantization == method


def test_fp8_is_made_while_loading_by_vllms_name_for_it(model: Path) -> None:
    found = plan(model_path=model, model_quantization="fp8")

    assert "--quantization=fp8_per_tensor" in arguments(found)
    assert found.facts.quantization == "fp8"


@pytest.mark.parametrize("asked", ["gptq", "bitsandbytes-4bit", "bitsandbytes-8bit"])
def test_a_quantization_that_is_neither_there_nor_can_be_made_is_refused(model: Path, asked: str) -> None:
    reason, message = failure(model_path=model, model_quantization=asked)

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert asked in message
    assert "have none" in message
    assert "fp8" in message


def test_files_that_are_quantized_are_not_what_none_asks_for(tmp_path: Path) -> None:
    assert "have awq" in failure(model_path=quantized(tmp_path, "awq"), model_quantization="none")[1]


def test_an_embedding_model_has_the_embeddings_route_only(model: Path) -> None:
    found = plan(model_path=model, model_task=Task.EMBED)

    assert {"--runner=pooling", "--convert=embed"} <= set(arguments(found))
    assert found.routes == {"/v1/embeddings"}
    assert found.smoke_path == "/v1/embeddings"
    assert found.refused == {"dimensions", "truncate"}
    cut = hf_folder.folder(model, {**LLAMA, "matryoshka_dimensions": [32, 64]})
    assert plan(model_path=cut, model_task=Task.EMBED).refused == {"truncate"}


def test_bad_input_16_code_in_the_folder_is_refused_before_vllm_starts(tmp_path: Path) -> None:
    config = {**LLAMA, "auto_map": {"AutoModel": "evil.py"}}

    assert failure(model_path=hf_folder.folder(tmp_path / "m", config))[0] is LoadError.REMOTE_CODE_REQUIRED


# -- requests ----------------------------------------------------------------------------------------------------------


def contract(found: Plan) -> Contract:
    return Contract(
        served=found.served_name, limit=4, refused=found.refused, renamed=found.renamed, capped=found.capped
    )


def passed(found: Plan, **fields: Any) -> dict[str, Any]:
    body = {"model": found.served_name, "prompt": "x", **fields}
    return dict(msgspec.json.decode(read_body("/v1/completions", msgspec.json.encode(body), contract(found)).content))


def refusal(found: Plan, **fields: Any) -> dict[str, Any]:
    chat = {"model": found.served_name, "messages": [{"role": "user", "content": "x"}], **fields}
    with pytest.raises(Refusal) as raised:
        read_body("/v1/chat/completions", msgspec.json.encode(chat), contract(found))
    assert raised.value.answer.status == 400
    return dict(msgspec.json.decode(raised.value.answer.body)["error"])


def test_names_and_numbers_become_those_that_vllm_takes(model: Path) -> None:
    found = plan(model_path=model, max_input_tokens=512)

    assert passed(found, repeat_penalty=1.5, max_tokens=2**31 - 1) == {
        "model": "tiny",
        "prompt": "x",
        "repetition_penalty": 1.5,
        "max_tokens": 512,
    }
    assert passed(found, max_tokens=511)["max_tokens"] == 511


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("prompt_embeds", "aaaa"), ("chat_template", "{{ 1 }}"), ("chat_template_kwargs", {}), ("guided_regex", "a")),
        *(("structured_outputs", {"regex": "(a+)+$"}), ("vllm_xargs", {}), ("kv_transfer_params", {}), ("logits", 1)),
        *(
            ("mm_processor_kwargs", {}),
            ("priority", 9),
            ("cache_salt", "x"),
            ("documents", []),
            ("use_beam_search", True),
        ),
    ],
)
def test_bad_input_49_fields_of_vllms_own_never_reach_it(model: Path, name: str, value: Any) -> None:
    assert refusal(plan(model_path=model), **{name: value})["param"] == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("typical_p", 0.5), ("n_probs", 1), ("cache_prompt", True), ("grammar", 'root ::= "a"')),
        *(("json_schema", {"type": "object"}), ("response_format", {"type": "json_object", "schema": {}})),
        *(("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "auto")),
    ],
)
def test_what_vllm_has_not_is_refused_by_name(model: Path, name: str, value: Any) -> None:
    error = refusal(plan(model_path=model), **{name: value})

    assert error["param"] == name
    assert "leave it out" in error["message"]


def test_tools_are_taken_where_there_is_a_parser_for_them(model: Path) -> None:
    options = ("--enable-auto-tool-choice", "--tool-call-parser=hermes")

    assert "tools" not in plan(model_path=model, extra_args=options).refused
    assert {*options} <= set(arguments(plan(model_path=model, extra_args=options)))


def test_a_schema_in_openais_place_is_taken(model: Path) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}

    assert passed(plan(model_path=model), response_format=wanted)["response_format"] == wanted


def test_bad_input_48_a_prompt_that_is_too_long_is_told_with_both_numbers() -> None:
    answer = ENGINE.error(400, {"type": TOO_LONG, "message": "…", "n_prompt_tokens": 2000, "n_ctx": 1024})
    error = msgspec.json.decode(answer.body)["error"]

    assert (answer.status, error["code"], error["type"]) == (400, "context_length_exceeded", "invalid_request_error")
    assert "1024 tokens" in error["message"]
    assert "has 2000" in error["message"]
    counted = ENGINE.error(400, {"type": TOO_LONG, "n_prompt_tokens": 1025, "n_ctx": 1024})
    assert b"at least 1025" in counted.body


def test_other_errors_have_openais_types_and_no_number_as_code() -> None:
    told = {"message": "no", "type": "BadRequestError", "param": "top_p", "code": 400}
    error = msgspec.json.decode(ENGINE.error(400, told).body)["error"]

    assert error == {"message": "no", "type": "invalid_request_error", "param": "top_p", "code": None}


# -- log ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("(EngineCore pid=7) INFO 11-21 19:25:29 [core.py:133] Initializing", logging.DEBUG, "Initializing"),
        ("(Worker pid=7) WARNING 11-21 19:25:57 [x.py:1] slow disk", logging.WARNING, "slow disk"),
        ("(EngineCore pid=7) ERROR 11-21 19:25:57 [core.py:9] no memory", logging.ERROR, "no memory"),
        ("(EngineCore pid=7) ERROR 11-21 19:25:57 [core.py:9] ValueError: no", logging.ERROR, "ValueError: no"),
        ('(EngineCore pid=7) ERROR 11-21 19:25:57 [core.py:9]   File "x.py", line 1', logging.DEBUG, None),
        ("WARNING 11-21 19:25:57 [x.py:1] early", logging.WARNING, "early"),
        ("ERROR:    Exception in ASGI application", logging.ERROR, "Exception in ASGI application"),
        ("(Worker pid=7) WARNING 11-21 19:25:57 [cpu.py:2] libiomp is not found in LD_PRELOAD.", logging.DEBUG, None),
        ("(APIServer pid=7) ERROR 11-21 19:25:57 [serving.py:9] Error in 'my secret prompt'", logging.DEBUG, None),
        ("my secret prompt", logging.DEBUG, None),
        ("terminate called after throwing", logging.ERROR, None),
    ],
)
def test_bad_input_58_log_lines_have_vllms_level_and_prompts_are_for_debug(
    line: str, level: int, text: str | None
) -> None:
    found = ENGINE.log_line(line)

    assert found[0] == level
    assert text is None or found[1] == text


# -- what the workers say ----------------------------------------------------------------------------------------------


def worker(device: str = "cpu", memory: int | None = None, **methods: int) -> dict[str, Any]:
    return {"device": device, "memory": memory, "bytes": {}, "methods": methods}


def test_the_device_is_what_the_workers_run_on() -> None:
    assert device_used([worker()]) == ("cpu", None)
    assert device_used([worker("cuda", 3), worker("cuda", 4)]) == ("cuda", 7)


def test_a_quantization_that_no_module_has_is_none() -> None:
    plain = worker(UnquantizedLinearMethod=4, UnquantizedEmbeddingMethod=1)

    assert quantization_used(None, [plain]) == "none"
    assert quantization_used("compressed-tensors", [plain]) == "none"
    there = worker(CompressedTensorsLinearMethod=4, UnquantizedEmbeddingMethod=1)
    assert quantization_used("compressed-tensors", [there]) == "compressed-tensors"
    assert quantization_used("gptq_marlin", [worker(AutoGPTQLinearMethod=4)]) == "gptq"
