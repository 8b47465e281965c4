"""The plan for a model that transformers generates with: what is checked before it is loaded."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage_common.estimate import Demand, estimate
from moorage_common.facts import LoadError
from moorage_common.tasks import Task
from moorage_runtime import machine
from moorage_runtime.body import read_body
from moorage_runtime.contract import Contract
from moorage_runtime.engines import load_engine
from moorage_runtime.engines.base import Plan
from moorage_runtime.errors import LoadFailure
from moorage_runtime.generation.config import PAGE, ChildConfig
from moorage_runtime.settings import Backend, Settings
from tests.unit.runtime.hf_folder import folder
from tests.unit.runtime.test_hf_shape import LLAMA_3_8B, QWEN2_7B_GPTQ

ENGINE = load_engine("transformers")
SMALL = {**LLAMA_3_8B, "num_hidden_layers": 2, "max_position_embeddings": 2048}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with all that a chat needs."""
    return complete(tmp_path / "tiny", SMALL)


def complete(path: Path, config: dict[str, Any]) -> Path:
    """Write a model with a tokenizer and a chat template."""
    folder(path, config)
    (path / "tokenizer.json").write_text("{}")
    (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


def plan(path: Path, **settings: Any) -> Plan:
    """Plan with settings."""
    return ENGINE.plan(Settings(model_backend=Backend.TRANSFORMERS, model_path=path, **settings))


def config(made: Plan) -> ChildConfig:
    """Give what the child is told."""
    task, _, rest = made.config.partition(b"\n")
    assert task.decode() == Task.GENERATE
    return msgspec.json.decode(rest, type=ChildConfig)


def refused(path: Path, **settings: Any) -> tuple[LoadError, str]:
    """Give reason and message of a refusal."""
    with pytest.raises(LoadFailure) as failure:
        plan(path, **settings)
    return failure.value.termination.reason, failure.value.termination.message


def test_a_plan_tells_name_context_and_routes(model: Path) -> None:
    made = plan(model)

    assert made.served_name == "tiny"
    assert made.facts.context_length == 2048
    assert made.facts.quantization == "none"
    assert made.routes == {"/v1/chat/completions", "/v1/completions"}
    assert made.shape is not None
    assert config(made).context == 2048


def test_settings_reach_the_child(model: Path) -> None:
    told = config(
        plan(
            model,
            max_input_tokens=100,
            torch_num_threads=3,
            compile_model=True,
            low_cpu_mem_usage=False,
            int8_threshold=4.5,
            max_concurrent_requests=7,
            model_name="other",
        )
    )

    assert (told.context, told.threads, told.slots, told.name) == (100, 3, 7, "other")
    assert (told.compile, told.low_memory, told.int8_threshold) == (True, False, 4.5)


@pytest.mark.parametrize(
    ("lacking", "room", "settings", "wide"),
    [
        (True, 1024**2 * 16, {}, True),
        (False, 1024**2 * 16, {}, False),
        (True, 0, {}, False),
        (True, 1024**2 * 16, {"model_quantization": "8bit"}, False),
    ],
    ids=["no instructions for bfloat16", "with them", "no room for float32", "smaller weights are asked for"],
)
def test_what_a_cpu_computes_faster_in_32_bits_is_computed_so_where_there_is_room(
    model: Path, monkeypatch: pytest.MonkeyPatch, *, lacking: bool, room: int, settings: dict[str, Any], wide: bool
) -> None:
    shape = plan(model).shape
    assert shape is not None
    needed = estimate(shape, Demand("transformers", 256, 1)).total
    monkeypatch.setattr(machine, "lacks", lambda *flags: lacking and "avx512_bf16" in flags)
    monkeypatch.setattr(machine, "memory_limit", lambda: machine.MemoryLimit(needed + room, "the memory limit"))

    made = plan(model, max_input_tokens=256, max_concurrent_requests=1, **settings)

    assert config(made).wide is wide
    assert ("float32" in "".join(made.notes)) is wide


def test_the_cache_holds_every_request_at_its_full_context(model: Path) -> None:
    told = config(plan(model, max_input_tokens=1000, max_concurrent_requests=5))

    # transformers keeps a tenth free before it takes in new requests.
    assert told.pages * 9 // 10 >= 5 * (1000 // PAGE + 1)


def test_without_a_chat_template_there_is_no_chat(tmp_path: Path) -> None:
    folder(tmp_path, SMALL)
    (tmp_path / "tokenizer.json").write_text("{}")

    made = plan(tmp_path)

    assert made.routes == {"/v1/completions"}
    assert any("no chat template" in note for note in made.notes)


def test_without_a_tokenizer_nothing_can_be_asked(tmp_path: Path) -> None:
    folder(tmp_path, SMALL)
    assert refused(tmp_path)[0] is LoadError.MODEL_FILE_INVALID


@pytest.mark.parametrize(
    ("asked", "quantize"),
    [
        (None, None),
        ("none", None),
        ("8bit", "bitsandbytes-8bit"),
        ("4bit", "bitsandbytes-4bit"),
        ("bitsandbytes-8bit", "bitsandbytes-8bit"),
        ("bitsandbytes-4bit", "bitsandbytes-4bit"),
    ],
)
def test_weights_as_trained_are_quantized_while_they_are_loaded(
    model: Path, asked: str | None, quantize: str | None
) -> None:
    made = plan(model, model_quantization=asked)

    assert config(made).quantize == quantize
    assert made.facts.quantization == (quantize or "none")


def test_weights_that_came_quantized_stay_as_they_are(tmp_path: Path) -> None:
    path = complete(tmp_path, {**QWEN2_7B_GPTQ, "num_hidden_layers": 2})

    assert plan(path).facts.quantization == "gptq"
    assert config(plan(path, model_quantization="gptq")).quantize is None
    for asked in ("8bit", "none", "awq"):
        reason, message = refused(path, model_quantization=asked)
        assert reason is LoadError.INVALID_MODEL_CONFIG
        assert "have gptq" in message


@pytest.mark.parametrize("asked", ["awq", "gptq", "fp8", "q4_k_m", "5bit"])
def test_a_quantization_that_cannot_be_had_is_refused(model: Path, asked: str) -> None:
    reason, message = refused(model, model_quantization=asked)
    assert (reason, asked in message) == (LoadError.INVALID_MODEL_CONFIG, True)


def test_bad_input_36_more_context_than_trained_is_refused(model: Path) -> None:
    reason, message = refused(model, max_input_tokens=4096)
    assert (reason, "4096" in message, "2048" in message) == (LoadError.INVALID_MODEL_CONFIG, True, True)


def test_bad_input_37_too_little_memory_is_told_before_loading(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "memory_limit", lambda: machine.MemoryLimit(100 * 1024**2, "the limit"))
    reason, message = refused(model)
    assert (reason, "the limit is 100 MiB" in message) == (LoadError.OUT_OF_MEMORY, True)


def test_bad_input_18_an_option_is_refused(model: Path) -> None:
    assert refused(model, extra_args=("--trust-remote-code",))[0] is LoadError.INVALID_MODEL_CONFIG


def test_bad_input_16_code_of_the_model_is_refused_before_an_engine_sees_it(tmp_path: Path) -> None:
    path = complete(tmp_path, {**SMALL, "auto_map": {"AutoConfig": "x.Y"}})
    assert refused(path)[0] is LoadError.REMOTE_CODE_REQUIRED


def test_what_the_engine_has_not_is_refused_by_name(model: Path) -> None:
    made = plan(model)
    contract = Contract(served="tiny", limit=4, refused=made.refused, renamed=made.renamed)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "response_format": {"type": "text"}}

    assert read_body("/v1/chat/completions", json.dumps(body).encode(), contract)
    assert "tools" in made.refused
    assert "response_format" not in made.refused


def test_a_prompt_over_the_context_gets_openais_code() -> None:
    error = {"type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 2048}
    answer = msgspec.json.decode(ENGINE.error(400, error).body)["error"]
    assert answer["code"] == "context_length_exceeded"
    assert "9000" in answer["message"] and "2048" in answer["message"]
