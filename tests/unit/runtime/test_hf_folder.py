"""The check of a folder in the Hugging Face form: what may be loaded, and why the rest may not."""

import json
from pathlib import Path
from typing import Any

import pytest

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.hf_folder import MAX_JSON, MAX_TEMPLATE, check_folder, check_small_files, context_length
from tests.unit.runtime.hf_folder import folder, safetensors
from tests.unit.runtime.test_hf_shape import LLAMA_3_8B, QWEN2_7B_GPTQ

CODE = {"AutoModelForCausalLM": "modeling_evil.EvilForCausalLM"}


def write(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content))


def refused(path: Path | None) -> tuple[LoadError, str]:
    """Give the reason and the message of a refusal."""
    with pytest.raises(LoadFailure) as failure:
        check_folder(path)
    return failure.value.termination.reason, failure.value.termination.message


def test_a_good_folder_gives_what_plans_need(tmp_path: Path) -> None:
    folder(tmp_path, {**LLAMA_3_8B, "architectures": ["LlamaForCausalLM", 5]})
    write(tmp_path / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    write(tmp_path / "tokenizer.json", {})

    found = check_folder(tmp_path)

    assert (found.quantization, found.trained_context) == ("none", 8192)
    assert (found.has_chat_template, found.has_tokenizer) == (True, True)
    assert found.architectures == ("LlamaForCausalLM",)
    assert found.config["model_type"] == found.shape.architecture == "llama"


def test_a_folder_says_what_it_has_not(tmp_path: Path) -> None:
    found = check_folder(folder(tmp_path, QWEN2_7B_GPTQ))

    assert (found.quantization, found.has_chat_template, found.has_tokenizer) == ("gptq", False, False)


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_a_chat_template_may_be_a_file_of_its_own(tmp_path: Path, name: str) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / name).write_text("{{ messages }}")
    assert check_folder(tmp_path).has_chat_template


def test_what_is_there_instead_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")

    assert refused(None) == (
        LoadError.INVALID_MODEL_CONFIG,
        "MODEL_PATH is not set: name the folder of a model",
    )
    reason, message = refused(tmp_path / "gone" / "model")
    assert reason is LoadError.MODEL_NOT_FOUND
    assert f"{tmp_path} holds model.gguf" in message
    assert refused(tmp_path / "model.gguf")[0] is LoadError.INVALID_MODEL_CONFIG
    reason, message = refused(tmp_path)
    assert (reason, "no config.json; it holds model.gguf" in message) == (LoadError.MODEL_NOT_FOUND, True)


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "model.safetensors").unlink()
    reason, message = refused(tmp_path)
    assert (reason, "no safetensors files; it holds config.json" in message) == (LoadError.MODEL_NOT_FOUND, True)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.PKL", "model.ckpt", "w.pth", "x.pickle"])
def test_bad_input_15_a_folder_with_pickles_only_is_refused(tmp_path: Path, name: str) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    reason, message = refused(tmp_path)
    assert reason is LoadError.UNSAFE_WEIGHTS
    assert name in message


def test_bad_input_15_a_part_whose_weights_are_pickles_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"\x80")
    assert refused(tmp_path)[0] is LoadError.UNSAFE_WEIGHTS


def test_pickles_beside_safetensors_are_never_opened_and_no_reason_to_refuse(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    assert check_folder(tmp_path).quantization == "none"


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"],
)
@pytest.mark.parametrize("inside", [(), ("vision_config",), ("text_config", "deeper")])
def test_bad_input_16_auto_map_is_refused_wherever_it_is(tmp_path: Path, name: str, inside: tuple[str, ...]) -> None:
    found: dict[str, Any] = {"auto_map": CODE}
    for part in reversed(inside):
        found = {part: found}
    folder(tmp_path, LLAMA_3_8B)
    write(tmp_path / name, {**LLAMA_3_8B, **found})
    reason, message = refused(tmp_path)
    assert reason is LoadError.REMOTE_CODE_REQUIRED
    assert message.startswith(name)


def test_bad_input_16_auto_map_in_a_folder_below_is_refused_before_and_after_the_fetch(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "0_Transformer").mkdir()
    write(tmp_path / "0_Transformer" / "config.json", {**LLAMA_3_8B, "auto_map": CODE})
    assert refused(tmp_path)[0] is LoadError.REMOTE_CODE_REQUIRED
    with pytest.raises(LoadFailure) as failure:
        check_small_files(tmp_path, ["config.json", "0_Transformer/config.json"])
    assert failure.value.termination.reason is LoadError.REMOTE_CODE_REQUIRED


def test_bad_input_16_a_kernel_from_elsewhere_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {**LLAMA_3_8B, "_attn_implementation": "someone/kernel"})
    assert refused(tmp_path)[0] is LoadError.REMOTE_CODE_REQUIRED


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "os.system", None, 5])
def test_bad_input_16_parts_of_another_library_are_refused(tmp_path: Path, kind: object) -> None:
    folder(tmp_path, LLAMA_3_8B)
    write(tmp_path / "modules.json", [{"type": "sentence_transformers.models.Transformer"}, {"type": kind}])
    assert refused(tmp_path)[0] is LoadError.REMOTE_CODE_REQUIRED


def test_parts_of_sentence_transformers_are_taken(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    write(tmp_path / "modules.json", [{"type": "sentence_transformers.models.Transformer"}])
    assert check_folder(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "5", '{"a":' * 70 + "1" + "}" * 70, " " * (MAX_JSON + 1)], ids=range(6)
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_bad_input_17_a_config_that_is_none_is_told(tmp_path: Path, name: str, content: str) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / name).write_text(content)
    reason, message = refused(tmp_path)
    assert (reason, message.startswith(name)) == (LoadError.MODEL_FILE_INVALID, True)


def test_bad_input_17_weights_that_lie_are_told_by_their_file(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "model.safetensors").write_bytes(safetensors({"a": ("F16", [8])})[:-1])
    reason, message = refused(tmp_path)
    assert (reason, message.startswith("model.safetensors is truncated")) == (LoadError.MODEL_FILE_INVALID, True)


def test_bad_input_17_weights_without_a_tensor_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B, {})
    assert refused(tmp_path)[0] is LoadError.MODEL_FILE_INVALID


def test_bad_input_17_a_template_of_absurd_length_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "chat_template.jinja").write_text("x" * (MAX_TEMPLATE + 1))
    assert refused(tmp_path)[0] is LoadError.MODEL_FILE_INVALID


def test_bad_input_36_more_context_than_trained_is_refused_with_both_numbers(tmp_path: Path) -> None:
    found = check_folder(folder(tmp_path, LLAMA_3_8B))

    with pytest.raises(LoadFailure, match=r"9000 tokens.*8192") as failure:
        context_length(9000, found, default=4096)

    assert failure.value.termination.reason is LoadError.INVALID_MODEL_CONFIG
    assert context_length(8192, found, default=4096) == 8192
    assert context_length(None, found, default=4096) == 4096
    assert context_length(None, found, default=10_000) == 8192
