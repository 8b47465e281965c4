"""The engines: one module each, and one line in ENGINES. Nothing of an engine is imported before it is chosen."""

import importlib
from typing import Final

from moorage_runtime.engines.base import Engine

ENGINES: Final[dict[str, str]] = {
    "llamacpp": "moorage_runtime.engines.llamacpp",
    "transformers": "moorage_runtime.engines.transformers",
    "vllm": "moorage_runtime.engines.vllm",
    "dummy": "moorage_runtime.engines.dummy",
}


def load_engine(name: str) -> Engine:
    """Import the module of an engine and give its ENGINE."""
    engine: Engine = importlib.import_module(ENGINES[name]).ENGINE
    return engine
