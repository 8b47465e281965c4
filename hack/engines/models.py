"""Small real models in the Hugging Face form: `model_folder("smollm2-hf")` converts what `hack.models` fetches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.engines.environments import HERE, ROOT, python_of
from hack.engines.errors import EngineError
from hack.engines.made import made_once, run_offline
from hack.images.inputs import digest_of, one_file
from hack.models import MODELS as GGUF_MODELS
from hack.models import model_path, models_root

CONVERTER: Final = HERE / "convert_gguf.py"


@dataclass(frozen=True)
class ConvertedModel:
    """A model made of a GGUF file."""

    name: str
    gguf: str

    def folder(self) -> Path:
        """Give where it is, or will be."""
        digest = digest_of([one_file(CONVERTER, ROOT), ("gguf", GGUF_MODELS[self.gguf].sha256.encode())])
        return models_root() / f"{self.name}-{digest}"


MODELS: Final[dict[str, ConvertedModel]] = {"smollm2-hf": ConvertedModel("smollm2-hf", "smollm2")}


def model_folder(name: str) -> Path:
    """Give a model's folder, which is made first where it is not there."""
    if name not in MODELS:
        raise EngineError(f"There is no model {name}; there are {', '.join(MODELS)}.")
    model = MODELS[name]
    return made_once(
        model.folder(), lambda folder: run_offline(python_of("transformers"), CONVERTER, model_path(model.gguf), folder)
    )
