"""How a folder for embeddings is checked and planned; nothing is loaded."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from moorage_common.facts import LoadError
from moorage_common.tasks import Task
from moorage_runtime.embedding.config import ChildConfig
from moorage_runtime.embedding.front import plan
from moorage_runtime.engines.base import Plan
from moorage_runtime.errors import LoadFailure
from moorage_runtime.settings import Backend, Settings
from tests.unit.runtime.hf_folder import folder as write_folder

BERT = {"model_type": "bert", "max_position_embeddings": 512, "hidden_size": 8, "architectures": ["BertModel"]}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def model(folder: Path, config: dict[str, Any] | None = None, **files: Any) -> Path:
    """Write a folder of sentence-transformers; other files by their names without `.json`, None for none."""
    write_folder(folder, config or BERT)
    for name, content in {"modules": MODULES, "tokenizer_config": {"model_max_length": 512}, **files}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def planned(folder: Path, **settings: Any) -> tuple[Plan, ChildConfig]:
    made = plan(Settings(model_backend=Backend.TRANSFORMERS, model_task=Task.EMBED, model_path=folder, **settings))
    task, _, config = made.config.partition(b"\n")
    assert task == b"embed"
    return made, msgspec.json.decode(config, type=ChildConfig)


def failure(folder: Path, **settings: Any) -> tuple[LoadError, str]:
    with pytest.raises(LoadFailure) as raised:
        planned(folder, **settings)
    return raised.value.termination.reason, raised.value.termination.message


def test_a_folder_of_sentence_transformers_embeds_text(tmp_path: Path) -> None:
    made, config = planned(model(tmp_path / "minilm", sentence_bert_config={"max_seq_length": 256}))

    assert (made.served_name, config.kind, config.max_tokens, config.batch_size) == ("minilm", "sentence", 256, 16)
    assert made.routes == {"/v1/embeddings", "/embeddings/text", "/similarity"}
    assert made.refused == {"images"}
    assert made.facts.context_length == 256


def test_qwen2_vl_embeds_images_too(tmp_path: Path) -> None:
    made, config = planned(model(tmp_path / "gme", {**BERT, "model_type": "qwen2_vl"}, modules=None), model_name="gme")

    assert (made.served_name, config.kind) == ("gme", "vision")
    assert {"/embeddings/image", "/embeddings/fused"} <= made.routes
    assert not made.refused


def test_the_settings_of_batches_reach_the_child(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    _, config = planned(folder, max_batch_size=3, max_wait_ms=7, image_url_hosts="a.example")
    assert (config.batch_size, config.max_wait_ms, config.image_url_hosts) == (3, 7, ("a.example",))
    assert planned(folder, max_batch_size=3, enable_batching=False)[1].batch_size == 1


@pytest.mark.parametrize(
    ("config", "files", "asked", "tokens"),
    [
        ({}, {}, None, 512),
        ({}, {"tokenizer_config": {"model_max_length": 10**30}}, None, 512),
        ({}, {"tokenizer_config": {"model_max_length": 128}}, None, 128),
        ({}, {"sentence_bert_config": {"max_seq_length": 256}}, 512, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, {}, None, 512),
        ({"max_position_embeddings": 32768}, {"tokenizer_config": {}}, None, 4096),
        ({"max_position_embeddings": 32768}, {"sentence_bert_config": {"max_seq_length": 8192}}, None, 8192),
        ({"max_position_embeddings": 32768}, {}, 16384, 16384),
    ],
)
def test_the_tokens_of_a_text_are_what_is_asked_for_or_what_the_files_say(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], asked: int | None, tokens: int
) -> None:
    folder = model(tmp_path / "m", {**BERT, **config}, **files)
    assert planned(folder, max_input_tokens=asked)[1].max_tokens == tokens


def test_more_tokens_than_positions_are_refused_with_both_numbers(tmp_path: Path) -> None:
    reason, message = failure(model(tmp_path / "m"), max_input_tokens=513)
    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "513" in message
    assert "512 positions" in message


@pytest.mark.parametrize("files", [{"config_sentence_transformers": {"matryoshka_dimensions": [4]}}, {}])
def test_vectors_may_be_cut_where_the_files_say_so(tmp_path: Path, files: dict[str, Any]) -> None:
    assert planned(model(tmp_path / "m", **files))[1].matryoshka is bool(files)
    assert planned(model(tmp_path / "n", {**BERT, "is_matryoshka": True}))[1].matryoshka


def test_a_folder_that_does_not_say_how_to_pool_is_refused(tmp_path: Path) -> None:
    reason, message = failure(model(tmp_path / "m", modules=None))
    assert reason is LoadError.INVALID_MODEL_CONFIG
    assert "modules.json" in message


def test_a_quantization_is_refused_by_its_name(tmp_path: Path) -> None:
    assert "4bit" in failure(model(tmp_path / "m"), model_quantization="4bit")[1]
    assert planned(model(tmp_path / "n"), model_quantization="none")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (folder / "sentence_bert_config.json").write_text("{")
    assert failure(folder)[0] is LoadError.MODEL_FILE_INVALID
