"""SmolLM2 quantized, or in 32 bits: `quantized_folder("smollm2-w8a8")` makes a checkpoint of what `models` converts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.engines.environments import HERE, ROOT, python_of
from hack.engines.errors import EngineError
from hack.engines.made import made_once, run_offline
from hack.engines.models import MODELS, model_folder
from hack.images.inputs import digest_of, one_file
from hack.models import models_root


@dataclass(frozen=True)
class QuantizedModel:
    """A checkpoint, and the script that writes it: `SCRIPT SOURCE FOLDER MORE…` in an environment."""

    name: str
    source: str
    environment: str
    script: Path
    more: tuple[str, ...] = ()

    def folder(self) -> Path:
        """Give where it is, or will be."""
        source = MODELS[self.source].folder().name
        digest = digest_of([one_file(self.script, ROOT), ("source", source.encode())])
        return models_root() / f"{self.name}-{digest}"


QUANTIZED: Final[dict[str, QuantizedModel]] = {
    "smollm2-awq": QuantizedModel("smollm2-awq", "smollm2-hf", "gptqmodel", HERE / "quantize_4bit.py", ("awq",)),
    "smollm2-float32": QuantizedModel("smollm2-float32", "smollm2-hf", "transformers", HERE / "widen.py"),
    "smollm2-gptq": QuantizedModel("smollm2-gptq", "smollm2-hf", "gptqmodel", HERE / "quantize_4bit.py", ("gptq",)),
    "smollm2-w8a8": QuantizedModel("smollm2-w8a8", "smollm2-hf", "llmcompressor", HERE / "quantize_w8a8.py"),
}


def quantized_folder(name: str) -> Path:
    """Give a checkpoint's folder, which is made first where it is not there."""
    if name not in QUANTIZED:
        raise EngineError(f"There is no checkpoint {name}; there are {', '.join(QUANTIZED)}.")
    model = QUANTIZED[name]
    return made_once(
        model.folder(),
        lambda folder: run_offline(
            python_of(model.environment), model.script, model_folder(model.source), folder, *model.more
        ),
    )
