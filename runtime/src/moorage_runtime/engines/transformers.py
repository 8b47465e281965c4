"""The engine `transformers`: models in the Hugging Face form, generation or embeddings by the setting MODEL_TASK.

Front side: `generation.front` and `embedding.front` check the folder and make the plan. Child side: the module of the
same package named `child` serves HTTP on loopback. Neither imports torch in the front.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from moorage_common.tasks import Task
from moorage_runtime.errors import context_exceeded, plain_engine_error

if TYPE_CHECKING:
    from moorage_common.http.message import Answer
    from moorage_runtime.engines.base import Announce, Plan
    from moorage_runtime.settings import Settings

PACKAGES = {Task.GENERATE: "moorage_runtime.generation", Task.EMBED: "moorage_runtime.embedding"}


class Transformers:
    """The engine `transformers`."""

    name = "transformers"
    # The front has put the model there; an engine that looks for more on the network hangs or leaks.
    environment: Mapping[str, str] = MappingProxyType(
        {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # How often an idle OpenMP thread looks before it sleeps: for some 50 µs, as long as the pause between two
            # operations. Sleeping at once costs a third of the speed, spinning on takes the cores from others.
            "GOMP_SPINCOUNT": "2000",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )

    def plan(self, settings: Settings) -> Plan:
        """Check the model for its task."""
        plan: Plan = importlib.import_module(f"{PACKAGES[settings.model_task]}.front").plan(settings)
        return plan

    def preload(self) -> None:
        """Import what both tasks need."""
        importlib.import_module("torch")
        importlib.import_module("transformers")

    def serve(self, config: bytes, announce: Announce) -> None:
        """Serve the task that the config begins with: its first line is the task, the rest is the task's own."""
        task, _, rest = config.partition(b"\n")
        importlib.import_module(f"{PACKAGES[Task(task.decode())]}.child").serve(rest, announce)

    def error(self, status: int, error: dict[str, Any]) -> Answer:
        """Give a prompt over the context its OpenAI code; the child says the rest in OpenAI's form."""
        if error.get("type") == "exceed_context_size_error":
            return context_exceeded(int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0)))
        return plain_engine_error(status, error)

    def log_line(self, line: str) -> tuple[int, str]:
        """Take lines as information; the child writes errors with their level in front."""
        if line.startswith("Timeout ("):  # faulthandler's first line, in a child that cannot write its own any more
            return logging.CRITICAL, f"{line.removesuffix('!')}: the chat template or the tokenizer does not come back"
        level, _, text = line.partition(" ")
        levels = logging.getLevelNamesMapping()
        return (levels[level], text) if level in levels else (logging.DEBUG, line)


ENGINE = Transformers()
