"""Front side of embeddings: checks the folder of a model and says how the child is to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from moorage_common.facts import EngineFacts, LoadError
from moorage_runtime import machine
from moorage_runtime.embedding.config import ChildConfig
from moorage_runtime.engines.base import Plan
from moorage_runtime.errors import CONTEXT_NAMES, QUANTIZATION_NAMES, LoadFailure
from moorage_runtime.hf_folder import HFFolder, check_folder

if TYPE_CHECKING:
    from moorage_runtime.settings import Settings

TEXT_ROUTES: Final = frozenset({"/v1/embeddings", "/embeddings/text", "/similarity"})
IMAGE_ROUTES: Final = frozenset({"/embeddings/image", "/embeddings/fused"})

UNBOUNDED: Final = 4096
"""Tokens of an input where neither the model nor MAX_INPUT_TOKENS says how many; more takes much memory."""

MAX_SMALL_JSON: Final = 1024 * 1024


def plan(settings: Settings) -> Plan:
    """Check the model and decide how to load it."""
    folder = check_folder(settings.model_path)
    kind = _kind(folder)
    _check_quantization(settings.model_quantization, folder)
    max_tokens = _max_tokens(settings.max_input_tokens, folder)
    name = settings.model_name or folder.path.resolve().name
    config = ChildConfig(
        path=str(folder.path.resolve()),
        name=name,
        kind=kind,
        max_tokens=max_tokens,
        matryoshka=_is_matryoshka(folder),
        threads=settings.torch_num_threads or machine.usable_cpus(),
        batch_size=settings.max_batch_size if settings.enable_batching else 1,
        max_wait_ms=settings.max_wait_ms,
        image_url_hosts=settings.image_hosts,
    )
    return Plan(
        served_name=name,
        facts=EngineFacts(
            engine="transformers",
            quantization=folder.quantization,
            context_length=max_tokens,
            weights_bytes=folder.shape.stored_bytes,
        ),
        shape=folder.shape,
        config=b"embed\n" + msgspec.json.encode(config),
        smoke_path="/v1/embeddings",
        smoke_body=msgspec.json.encode({"model": name, "input": "Hi"}),
        probe_path="/probe",
        routes=TEXT_ROUTES | IMAGE_ROUTES if kind == "vision" else TEXT_ROUTES,
        refused=frozenset() if kind == "vision" else frozenset({"images"}),
        # A thread that waits for a GPU may sleep.
        works_on_cpu=not machine.has_accelerator(),
        notes=(f"loading {folder.path} for embeddings of at most {max_tokens} tokens, {config.batch_size} in a batch",),
    )


def _kind(folder: HFFolder) -> Any:
    if folder.config.get("model_type") == "qwen2_vl":
        return "vision"
    if (folder.path / "modules.json").is_file():
        return "sentence"
    raise LoadFailure(
        LoadError.INVALID_MODEL_CONFIG,
        f"{folder.path} has no modules.json, so nothing says how its tokens become one vector; MODEL_TASK=embed takes "
        "folders of sentence-transformers, and Qwen2-VL",
        folder.shape,
    )


def _check_quantization(asked: str | None, folder: HFFolder) -> None:
    if folder.quantization != "none" or asked not in {None, "none"}:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"{QUANTIZATION_NAMES} asked for is {asked or 'none'}, and the files hold {folder.quantization}; "
            "embeddings are computed with weights that are not quantized",
            folder.shape,
        )


def _max_tokens(asked: int | None, folder: HFFolder) -> int:
    """Give the tokens that an input may have: what is asked for, else what the model's files say."""
    config = folder.config
    possible = folder.trained_context
    if possible and config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
        possible -= int(config.get("pad_token_id") or 0) + 1  # their positions begin behind the padding's
    if asked is not None:
        if possible and asked > possible:
            raise LoadFailure(
                LoadError.INVALID_MODEL_CONFIG,
                f"the context length asked for is {asked} tokens, but the model has {possible} positions; "
                f"set {CONTEXT_NAMES} to at most {possible}",
                folder.shape,
            )
        return asked
    said = _json(folder.path / "sentence_bert_config.json").get("max_seq_length")
    if type(said) is int and said > 0:
        return min(said, possible or said)
    found = (_json(folder.path / "tokenizer_config.json").get("model_max_length"), possible)
    return min(UNBOUNDED, *(value for value in found if type(value) is int and value > 0))


def _is_matryoshka(folder: HFFolder) -> bool:
    """Say whether the model's files say that its vectors may be cut; the names are those that vLLM reads."""
    return any(
        config.get("is_matryoshka") is True or bool(config.get("matryoshka_dimensions"))
        for config in (folder.config, _json(folder.path / "config_sentence_transformers.json"))
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_SMALL_JSON + 1))
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
