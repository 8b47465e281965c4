"""Finds the one GGUF model that MODEL_PATH means; where there is none, or more than one, says what there is."""

import re
from pathlib import Path
from typing import Final

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

SHOWN: Final = 10

_LATER_PART: Final = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


def find_gguf(path: Path | None) -> Path:
    """Give the path of the model's file, of a model in several files the first."""
    if path is None:
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, "MODEL_PATH is not set: name a .gguf file or its folder")
    try:
        return _in_folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{path} cannot be read: {error.strerror or error}") from error


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    if path.exists():
        raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{path} is neither a file nor a folder")
    nearest = next((parent for parent in path.parents if parent.is_dir()), None)
    there = "" if nearest is None else f"; {nearest} holds {_names(_entries(nearest))}"
    raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{path} does not exist{there}")


def _in_folder(folder: Path) -> Path:
    entries = _entries(folder)
    models = [name for name in entries if name.endswith(".gguf") and not _LATER_PART.search(name)]
    if len(models) == 1:
        return folder / models[0]
    if models:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"{folder} holds {len(models)} GGUF models: {_names(models)}; name one of them in MODEL_PATH",
        )
    raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{folder} holds no GGUF model; it holds {_names(entries)}")


def _entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _names(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
