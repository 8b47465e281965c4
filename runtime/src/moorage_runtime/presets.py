"""Named presets by memory: what a setting is that nobody has set. Each single setting overrides its preset."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from moorage_common.estimate.terms import GIB


class Preset(StrEnum):
    """The presets of the small-model server; `auto` chooses one by the memory that there is."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    AUTO = "auto"


VALUES: Final[dict[Preset, dict[str, Any]]] = {
    Preset.SMALL: {
        "model_quantization": "4bit",
        "max_concurrent_requests": 2,
        "max_input_tokens": 512,
        "model_idle_timeout": 300.0,
    },
    Preset.MEDIUM: {
        "model_quantization": "8bit",
        "max_concurrent_requests": 5,
        "max_input_tokens": 1024,
        "model_idle_timeout": 1800.0,
    },
    Preset.LARGE: {"max_concurrent_requests": 10, "max_input_tokens": 2048, "model_idle_timeout": 3600.0},
}


def preset_values(preset: Preset, *, quantizes: bool, memory: Callable[[], int | None]) -> dict[str, Any]:
    """Give the settings of a preset. Only an engine that quantizes while it loads is told to: files are as they are."""
    chosen = _by_memory(memory()) if preset is Preset.AUTO else preset
    values = {**VALUES[chosen], "model_unload_enabled": True}
    return values if quantizes else {name: value for name, value in values.items() if name != "model_quantization"}


def _by_memory(size: int | None) -> Preset:
    if size is None:
        return Preset.MEDIUM
    if size < 8 * GIB:
        return Preset.SMALL
    return Preset.MEDIUM if size <= 16 * GIB else Preset.LARGE
