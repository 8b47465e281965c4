"""Small real models in the Hugging Face form: `model_folder("smollm2-hf")` converts what `hack.models` fetches."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.cluster.progress import step
from hack.engines.environments import HERE, ROOT, python_of
from hack.engines.errors import EngineError
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
    folder = model.folder()
    if not folder.exists():
        models_root().mkdir(parents=True, exist_ok=True)
        with (models_root() / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _convert(model, folder)
    return folder


def _convert(model: ConvertedModel, folder: Path) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    source, python = model_path(model.gguf), python_of("transformers")
    with step(f"convert {source.name} to {folder}"):
        done = subprocess.run(
            [str(python), str(CONVERTER), str(source), str(unfinished)],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise EngineError(f"{CONVERTER.name} failed:\n{done.stderr.strip()[-4000:]}")
    # Whole or absent: others look for the folder without taking the lock.
    unfinished.rename(folder)
