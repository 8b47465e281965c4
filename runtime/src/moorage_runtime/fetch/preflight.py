"""Looks at the small files before gigabytes are fetched: a model that no engine here would load is refused now.

The engine's front checks the whole folder again, and more of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

_LARGEST: Final = 4 * 1024 * 1024
_CONFIGS: Final = frozenset(
    {"config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"}
    | {"tokenizer_config.json", "video_preprocessor_config.json"}
)


def check_configs(folder: Path, names: list[str]) -> None:
    """Refuse a model whose configuration names code to be run (CVE-2025-66448, CVE-2026-22807)."""
    for name in names:
        path = folder / name
        if path.name not in _CONFIGS or path.stat().st_size > _LARGEST:
            continue
        try:
            config = msgspec.json.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"{name} is no JSON: {error}") from error
        if _wants_code(config):
            raise LoadFailure(
                LoadError.REMOTE_CODE_REQUIRED,
                f"{name} has auto_map: the model wants Python code of its own to be run, which is never done here; "
                "choose a model that the engine knows by itself",
            )


def _wants_code(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("auto_map")) or any(_wants_code(inner) for inner in value.values())
    return isinstance(value, list) and any(_wants_code(inner) for inner in value)
