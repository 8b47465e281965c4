"""Checks a model's folder in the Hugging Face form before any engine sees it; nothing in it is run or unpickled.

Flow: `check_folder(MODEL_PATH)` reads config.json and the other small files within bounds, refuses weights that are not
safetensors and files that name code to run, checks the headers of the safetensors, and gives what a plan needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from moorage_common.facts import LoadError
from moorage_common.shape import Shape
from moorage_runtime.errors import CONTEXT_NAMES, LoadFailure
from moorage_runtime.hf_shape import hf_shape
from moorage_runtime.safetensors import SafetensorsError

MAX_JSON: Final = 4 * 1024 * 1024
MAX_TEMPLATE: Final = 1024 * 1024
MAX_TOKENIZER: Final = 256 * 1024 * 1024
MAX_ENTRIES: Final = 10_000
MAX_NESTING: Final = 64
SHOWN: Final = 10

UNSAFE: Final = frozenset({".bin", ".ckpt", ".joblib", ".msgpack", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of weights that are pickles, or may be: loading them can run code (CVE-2025-32434)."""

_CONFIGS: Final = (
    "config.json",
    "generation_config.json",
    "image_processor_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_TEMPLATES: Final = ("chat_template.jinja", "chat_template.json")
_ATTENTION: Final = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})
"""Where these hold `owner/repository`, transformers fetches a kernel from there and runs it."""


@dataclass(frozen=True, kw_only=True)
class HFFolder:
    """A folder that may be loaded."""

    path: Path
    config: Mapping[str, Any]
    """config.json as it is."""
    shape: Shape
    quantization: str
    """What the files hold, in the words of spec.quantization; `none` for weights as they were trained."""
    trained_context: int
    """Tokens that the model was trained with; 0 where the config does not say."""
    has_chat_template: bool
    has_tokenizer: bool

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes of transformers that config.json names."""
        names = self.config.get("architectures")
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def check_folder(path: Path | None) -> HFFolder:
    """Give what is in the folder; raise LoadFailure with the reason and what to mend."""
    folder = _folder(path)
    try:
        files = _files(folder)
        if "config.json" not in _names(folder, files):
            raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{folder} holds no config.json; it holds {_shown(folder)}")
        _refuse_unsafe(folder, files)
        configs = _refuse_code(folder, files)
        shape = hf_shape(folder)
        templates = _has_template(folder, configs.get("tokenizer_config.json", {}))
    except SafetensorsError as error:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, str(error)) from error
    except OSError as error:
        where = error.filename or folder
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"{where} cannot be read: {error.strerror or error}") from error
    if not shape.stored_bytes:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"the safetensors files of {folder} hold no tensor", shape)
    return HFFolder(
        path=folder,
        config=configs["config.json"],
        shape=shape,
        quantization=shape.quantization or "none",
        trained_context=shape.context_length,
        has_chat_template=templates,
        has_tokenizer=_has_tokenizer(folder),
    )


def check_small_files(folder: Path, names: Iterable[str]) -> None:
    """Refuse a model by its small files alone, before gigabytes are fetched: raise LoadFailure as `check_folder` does.

    `names` are those of the files that are there, by their path in the folder.
    """
    try:
        _refuse_code(folder, [folder / name for name in names])
    except SafetensorsError as error:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, str(error)) from error


def context_length(asked: int | None, folder: HFFolder, *, default: int) -> int:
    """Give the context length to load with; raise LoadFailure where more is asked for than the model was trained with.

    `default` is the most that is taken where nothing is asked for.
    """
    trained = folder.trained_context
    if asked is None:
        return min(trained or default, default)
    if trained and asked > trained:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"the context length asked for is {asked} tokens, but the model was trained with {trained}; "
            f"set {CONTEXT_NAMES} to at most {trained}",
            folder.shape,
        )
    return asked


def _folder(path: Path | None) -> Path:
    if path is None:
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, "MODEL_PATH is not set: name the folder of a model")
    try:
        if path.is_dir():
            return path
        exists = path.exists()
        nearest = next((parent for parent in path.parents if parent.is_dir()), None)
        there = "" if nearest is None else f"; {nearest} holds {_shown(nearest)}"
    except OSError as error:
        raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{path} cannot be read: {error.strerror or error}") from error
    if exists:
        message = f"{path} is not a folder: this engine loads a folder with config.json and safetensors files"
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, message)
    raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{path} does not exist{there}")


def _files(folder: Path) -> list[Path]:
    """Give the files of the folder and of those in it; hidden ones (a hub's cache) are nobody's to load."""
    found: list[Path] = []
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and not path.is_dir():
            found.append(path)
        if len(found) > MAX_ENTRIES:
            raise SafetensorsError(f"{folder} holds more than {MAX_ENTRIES} files")
    return sorted(found)


def _names(folder: Path, files: list[Path]) -> set[str]:
    return {path.name for path in files if path.parent == folder}


def _refuse_unsafe(folder: Path, files: list[Path]) -> None:
    """Refuse weights that are pickles where no safetensors lie beside them: engines would take those instead."""
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    unsafe = [path for path in files if path.suffix.lower() in UNSAFE and path.parent not in safe]
    if unsafe:
        names = _list([str(path.relative_to(folder)) for path in unsafe])
        raise LoadFailure(
            LoadError.UNSAFE_WEIGHTS,
            f"{folder} holds weights that can run code when they are loaded: {names}; only safetensors are loaded: "
            "convert the model, or choose a revision that has them",
        )
    if folder not in safe:
        raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{folder} holds no safetensors files; it holds {_shown(folder)}")


def _refuse_code(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Refuse files that name code to be run (CVE-2025-66448, CVE-2026-22807); give the configurations by their path."""
    configs = {str(path.relative_to(folder)): _read(path) for path in files if path.name in _CONFIGS}
    _refuse_remote_code(configs)
    _refuse_foreign_modules(folder)
    return configs


def _refuse_remote_code(configs: Mapping[str, Mapping[str, Any]]) -> None:
    for name, config in configs.items():
        for key, value in _members(name, config):
            if key == "auto_map" and value:
                raise LoadFailure(
                    LoadError.REMOTE_CODE_REQUIRED,
                    f"{name} has auto_map: the model wants Python code of its own to be run, which is never done here; "
                    "choose a model that the engine knows by itself",
                )
            if key in _ATTENTION and isinstance(value, str) and "/" in value:
                raise LoadFailure(
                    LoadError.REMOTE_CODE_REQUIRED,
                    f"{name} has {key} {value[:100]!r}: a kernel to be fetched and run, which is never done here",
                )


def _refuse_foreign_modules(folder: Path) -> None:
    """Refuse a sentence-transformers model whose parts are not of that library: their names are imported."""
    if not (folder / "modules.json").is_file():
        return
    for part in _decoded(folder / "modules.json", list[dict[str, Any]]):
        kind = part.get("type")
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise LoadFailure(
                LoadError.REMOTE_CODE_REQUIRED,
                f"modules.json has the type {str(kind)[:100]!r}: only classes of sentence_transformers are loaded",
            )


def _members(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Give every member of every object in a value."""
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                yield from one.items()
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return
        level = below
    raise SafetensorsError(f"{name} cannot be read: it is nested more than {MAX_NESTING} deep")


def _has_template(folder: Path, tokenizer: Mapping[str, Any]) -> bool:
    """Say whether there is a chat template; one of absurd length is refused."""
    found = tokenizer.get("chat_template")
    sizes = {"tokenizer_config.json": len(str(found)) if found else 0}
    sizes |= {name: (folder / name).stat().st_size for name in _TEMPLATES if (folder / name).is_file()}
    long = [name for name, size in sizes.items() if size > MAX_TEMPLATE]
    if long:
        raise SafetensorsError(f"{long[0]} has a chat template of more than {MAX_TEMPLATE} bytes")
    return any(sizes.values())


def _has_tokenizer(folder: Path) -> bool:
    there = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    long = [path.name for path in there if path.stat().st_size > MAX_TOKENIZER]
    if long:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"{long[0]} has more than {MAX_TOKENIZER} bytes")
    return bool(there)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = _decoded(path, dict[str, Any])
    return content


def _decoded(path: Path, kind: Any) -> Any:
    with path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise SafetensorsError(f"{path.name} has more than {MAX_JSON} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SafetensorsError(f"{path.name} cannot be read: {error}") from error


def _shown(folder: Path) -> str:
    return _list(sorted(entry.name for entry in folder.iterdir()))


def _list(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
