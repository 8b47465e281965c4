"""What llama.cpp's engine decides before it starts: which file, and whether it can work; no engine is imported."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage_common.facts import LoadError
from moorage_common.tasks import Task
from moorage_runtime import machine
from moorage_runtime.engines.base import Plan
from moorage_runtime.engines.llamacpp import ENGINE, ChildConfig, device_used
from moorage_runtime.errors import LoadFailure
from moorage_runtime.settings import Settings
from tests.unit.runtime.support import LLAMA, array, gguf, number, string, text

GIB = 1024**3


@pytest.fixture(autouse=True)
def one_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: machine.MemoryLimit(GIB, "the memory limit of this container"))
    monkeypatch.setattr(machine, "usable_cpus", lambda: 3)
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.Q4_K_M.gguf"
    path.write_bytes(gguf())
    return path


def plan(**settings: Any) -> Plan:
    return ENGINE.plan(Settings(**settings))


def config(found: Plan) -> ChildConfig:
    return msgspec.json.decode(found.config, type=ChildConfig)


def failure(**settings: Any) -> tuple[LoadError, str]:
    with pytest.raises(LoadFailure) as raised:
        plan(**settings)
    return raised.value.termination.reason, raised.value.termination.message


def test_defaults_come_from_the_file_and_the_machine(model: Path) -> None:
    found = plan(model_path=model)

    assert found.served_name == "tiny.Q4_K_M"
    assert config(found) == ChildConfig(
        path=str(model), alias="tiny.Q4_K_M", context=2048, slots=4, threads=3, accelerated_bytes=256
    )
    assert (found.facts.quantization, found.facts.context_length, found.facts.weights_bytes) == ("q4_k_m", 2048, 256)


def test_what_the_server_of_xllamacpp_cannot_do_is_in_the_plan(model: Path) -> None:
    found = plan(model_path=model)
    assert (found.chats_only, found.one_answer, found.formats_as_schemas) == (frozenset({"logprobs"}), True, True)
    assert found.vocabulary is None  # the file lists no tokens
    (model.parent / "tokens.gguf").write_bytes(
        gguf([*LLAMA, array("tokenizer.ggml.tokens", 8, [text("a"), text("b")])])
    )
    assert plan(model_path=model.parent / "tokens.gguf").vocabulary == 2
    assert not plan(model_path=model, llamacpp_driver="llama-cpp-python").one_answer
    assert not plan(model_path=model, model_task=Task.EMBED).one_answer


def test_a_folder_with_one_model_is_that_model(model: Path) -> None:
    (model.parent / "README.md").touch()

    assert config(plan(model_path=model.parent)).path == str(model)


def test_parts_of_one_model_are_one_model(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f"m-0000{part}-of-00002.gguf").write_bytes(gguf())

    assert config(plan(model_path=tmp_path)).path == str(tmp_path / "m-00001-of-00002.gguf")


def test_a_long_trained_context_is_not_taken_whole_by_default(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf([*LLAMA[:2], number("llama.context_length", 131072)]))

    assert config(plan(model_path=tmp_path)).context == 4096


def test_the_context_is_what_llama_cpp_makes_of_it(model: Path) -> None:
    found = plan(model_path=model, max_input_tokens=300)

    assert config(found).context == found.facts.context_length == 512


def test_settings_reach_the_child(model: Path) -> None:
    found = plan(model_path=model, model_name="x", llama_threads=7, max_concurrent_requests=2, log_level="DEBUG")

    assert config(found) == ChildConfig(
        path=str(model), alias="x", context=2048, slots=2, threads=7, accelerated_bytes=256, verbose=True
    )


def test_options_and_layers_reach_the_child(model: Path) -> None:
    found = config(plan(model_path=model, llama_gpu_layers=0, extra_args=("--no-mmap", "--threads-batch=2")))

    assert (found.gpu_layers, found.options) == (0, {"--no-mmap": "", "--threads-batch": "2"})


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--mlock", "it is not one of --flash-attn, "),
        ("--flash-at=on", "it is not one of"),
        ("--flash-attn", "its value is one of on, off, auto"),
        ("--flash-attn=", "it has no value"),
        ("--flash-attn=maybe", "its value is one of on, off, auto"),
        ("--no-mmap=1", "it has no value"),
        ("--no-mmap=", "it has no value"),
        ("--threads-batch=0", "from 1 to 1024"),
        ("--threads-batch=1025", "from 1 to 1024"),
        ("--threads-batch=99999999999", "from 1 to 1024"),
        ("--threads-batch=²", "from 1 to 1024"),
        ("--chat-template=x", "it is not one of"),
        ("--no-mmap --mlock", "it is not one of"),
    ],
)
def test_bad_input_18_an_option_that_is_not_possible_is_named(model: Path, argument: str, said: str) -> None:
    reason, message = failure(model_path=model, extra_args=(argument,))

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert argument in message
    assert said in message


def test_bad_input_18_an_option_that_comes_twice_is_refused(model: Path) -> None:
    assert "twice" in failure(model_path=model, extra_args=("--numa=isolate", "--numa=distribute"))[1]


def test_bad_input_15_16_files_that_could_run_code_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "model.pt").touch()
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Evil"}}')
    (tmp_path / "modeling.py").write_text("raise SystemExit")

    reason, message = failure(model_path=tmp_path)

    assert reason is LoadError.MODEL_NOT_FOUND
    assert "holds no GGUF model; it holds config.json, model.pt, modeling.py, pytorch_model.bin" in message
    assert failure(model_path=tmp_path / "pytorch_model.bin")[0] is LoadError.MODEL_FILE_INVALID


@pytest.mark.parametrize("asked", ["q4_k_m", "Q4_K_M"])
def test_the_asked_quantization_may_be_in_any_case(model: Path, asked: str) -> None:
    assert plan(model_path=model, model_quantization=asked).facts.quantization == "q4_k_m"


def test_bits_are_a_quantization_too(model: Path) -> None:
    assert plan(model_path=model, model_quantization="4bit").facts.quantization == "q4_k_m"
    assert failure(model_path=model, model_quantization="8bit")[0] is LoadError.INVALID_MODEL_CONFIG


def test_another_quantization_is_refused_with_both_names(model: Path) -> None:
    reason, message = failure(model_path=model, model_quantization="q8_0")

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "q8_0" in message
    assert "Q4_K_M" in message


def test_an_unknown_quantization_cannot_be_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf(LLAMA[:1]))

    reason, message = failure(model_path=tmp_path, model_quantization="q8_0")

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "does not say its quantization" in message


def test_bad_input_36_a_context_over_the_trained_one_is_refused_with_both_numbers(model: Path) -> None:
    reason, message = failure(model_path=model, max_input_tokens=4096)

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "4096" in message
    assert "2048" in message


def test_more_slots_than_llama_cpp_has_are_refused(model: Path) -> None:
    assert failure(model_path=model, max_concurrent_requests=257)[0] is LoadError.INVALID_MODEL_CONFIG


def test_bad_input_37_a_model_over_the_memory_limit_is_refused_with_all_numbers(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = machine.MemoryLimit(50 * 1024**2, "the memory limit of this container")
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)

    with pytest.raises(LoadFailure) as raised:
        plan(model_path=model)

    termination = raised.value.termination
    assert termination.reason is LoadError.OUT_OF_MEMORY
    # 45 MiB of the engine's process, 40 MiB of the front, 2.6 MiB of compute buffer.
    assert termination.message == (
        "tiny.Q4_K_M.gguf needs about 90 MiB (weights 1 MiB, KV cache 2 MiB, overhead 88 MiB) for 4 requests of 2048 "
        "tokens, and the memory limit of this container is 50 MiB; lower the context length (spec.contextLength, "
        "MAX_INPUT_TOKENS) or the concurrency (spec.maxConcurrency, MAX_CONCURRENT_REQUESTS), or raise the memory "
        "limit (spec.resources.memory) to at least 90 MiB"
    )
    assert termination.shape is not None
    assert termination.shape.layers == 2, "an estimate can be made of a model that cannot be loaded"


def test_no_path_is_told(tmp_path: Path) -> None:
    assert failure() == (
        LoadError.INVALID_MODEL_CONFIG,
        "MODEL_PATH is not set: name a .gguf file or its folder",
    )


def test_a_missing_file_is_told_with_what_is_there(model: Path) -> None:
    reason, message = failure(model_path=model.parent / "other.gguf")

    assert reason is LoadError.MODEL_NOT_FOUND
    assert message == f"{model.parent}/other.gguf does not exist; {model.parent} holds tiny.Q4_K_M.gguf"


def test_a_folder_without_a_model_is_told_with_at_most_ten_names(tmp_path: Path) -> None:
    for count in range(12):
        (tmp_path / f"{count:02}.txt").touch()

    reason, message = failure(model_path=tmp_path)

    assert reason is LoadError.MODEL_NOT_FOUND
    assert message.endswith("04.txt, 05.txt, 06.txt, 07.txt, 08.txt, 09.txt and 2 more")


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert failure(model_path=tmp_path)[1].endswith("it holds nothing")


def test_two_models_are_a_question(model: Path) -> None:
    (model.parent / "b.gguf").touch()

    reason, message = failure(model_path=model.parent)

    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "2 GGUF models: b.gguf, tiny.Q4_K_M.gguf" in message


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf()[:-1])

    reason, message = failure(model_path=tmp_path)

    assert reason is LoadError.MODEL_FILE_INVALID
    assert "truncated" in message


@pytest.mark.parametrize(
    ("before", "after", "device", "held"),
    [
        pytest.param({}, {}, "cpu", None, id="no accelerator was found"),
        pytest.param({"CUDA0": 80_000}, {"CUDA0": 78_000}, "CUDA0", 2_000, id="on one GPU"),
        pytest.param({"CUDA0": 9, "CUDA1": 80_000}, {"CUDA0": 9, "CUDA1": 79_000}, "CUDA1", 1_000, id="on the other"),
        pytest.param(
            {"CUDA0": 80_000, "CUDA1": 80_000}, {"CUDA0": 79_400, "CUDA1": 79_500}, "CUDA0+CUDA1", 1_100, id="on both"
        ),
        pytest.param({"CUDA0": 80_000}, {"CUDA0": 79_990}, "cpu", None, id="a GPU is there, the weights are not on it"),
        pytest.param({"CUDA0": 80_000}, {"CUDA0": 81_000}, "cpu", None, id="somebody else gave memory back"),
        pytest.param({"CUDA0": 80_000}, {}, "cpu", None, id="the GPU is gone"),
    ],
)
def test_the_device_is_where_the_weights_took_memory(
    before: dict[str, int], after: dict[str, int], device: str, held: int | None
) -> None:
    assert device_used(before, after, weights=1_000) == (device, held)


def test_no_layer_on_the_gpu_is_the_cpu_whatever_buffers_take() -> None:
    assert device_used({"CUDA0": 80_000}, {"CUDA0": 70_000}, weights=0) == ("cpu", None)


@pytest.mark.parametrize(("layers", "expected"), [(None, 256), (0, 0), (1, 85), (3, 256), (999, 256)])
def test_the_child_knows_how_much_of_the_weights_a_gpu_should_hold(
    model: Path, layers: int | None, expected: int
) -> None:
    assert config(plan(model_path=model, llama_gpu_layers=layers)).accelerated_bytes == expected


def test_on_a_gpu_the_memory_limit_of_the_container_does_not_decide(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: machine.MemoryLimit(1, "the memory limit of this container"))
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)

    assert config(plan(model_path=model)).slots == 4


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("0.00.004.911 E srv    load_model: failed", 40, "srv    load_model: failed"),
        ("0.00.004.911 W cmn  something", 30, "cmn  something"),
        ("0.00.004.911 I srv  step", 10, "srv  step"),
        (
            "0.14.774 E srv    send_error: task id = 16, error: too long",
            10,
            "srv    send_error: task id = 16, error: too long",
        ),
        ("0.14.774 E llg error: failed to parse", 10, "llg error: failed to parse"),
        ("0.14.774 E failed to parse grammar", 10, "failed to parse grammar"),
        ("terminate called after throwing", 40, "terminate called after throwing"),
        ("/src/ggml.c:5: GGML_ASSERT(x) failed", 40, "/src/ggml.c:5: GGML_ASSERT(x) failed"),
        ('root ::= "the content of a request"', 10, 'root ::= "the content of a request"'),
    ],
)
def test_lines_of_the_engine_keep_their_level(line: str, level: int, text: str) -> None:
    assert ENGINE.log_line(line) == (level, text)


@pytest.mark.parametrize(
    ("templates", "refused"),
    [
        ({}, True),
        ({"tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}"}, True),
        ({"tokenizer.chat_template": "{% if tools %}{{ tools }}{% endif %}"}, False),
        ({"tokenizer.chat_template": "x", "tokenizer.chat_template.tool_use": "{{ tools }}"}, False),
    ],
)
def test_tools_are_refused_of_a_model_whose_template_knows_none(
    tmp_path: Path, templates: dict[str, str], *, refused: bool
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([*LLAMA, *(string(name, value) for name, value in templates.items())]))

    assert ("tools" in plan(model_path=path).refused) is refused


@pytest.mark.parametrize(("stored", "pooling"), [(None, "MEAN"), (0, "MEAN"), (1, "MEAN"), (2, "CLS"), (3, "LAST")])
def test_embeddings_are_pooled_as_the_file_says(tmp_path: Path, stored: int | None, pooling: str) -> None:
    path = tmp_path / "m.gguf"
    said = () if stored is None else (number("llama.pooling_type", stored),)
    path.write_bytes(gguf([*LLAMA, *said]))

    found = plan(model_path=path, model_task=Task.EMBED)

    assert config(found).pooling == pooling
    assert found.routes == {"/v1/embeddings"}
    assert "dimensions" in found.refused


def test_a_model_that_ranks_makes_no_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([*LLAMA, number("llama.pooling_type", 4)]))

    assert failure(model_path=path, model_task=Task.EMBED)[0] is LoadError.INVALID_MODEL_CONFIG


def test_bad_input_48_an_input_over_the_batch_is_over_the_context() -> None:
    words = "input (3001 tokens) is too large to process. increase the physical batch size (current batch size: 1024)"
    answer = ENGINE.error(500, {"code": 500, "message": words, "type": "server_error"})

    assert answer.status == 400
    error = msgspec.json.decode(answer.body)["error"]
    assert error["code"] == "context_length_exceeded"
    assert "3001" in error["message"]
    assert "1024" in error["message"]
