"""Quantized checkpoints of SmolLM2: `quantized_folder("smollm2-w8a8")` makes one of what `models` converts."""

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
from hack.engines.models import MODELS, model_folder
from hack.images.inputs import digest_of, one_file
from hack.models import models_root


@dataclass(frozen=True)
class QuantizedModel:
    """A checkpoint, and the script that writes it: `SCRIPT SOURCE FOLDER` in an environment."""

    name: str
    source: str
    environment: str
    script: Path

    def folder(self) -> Path:
        """Give where it is, or will be."""
        source = MODELS[self.source].folder().name
        digest = digest_of([one_file(self.script, ROOT), ("source", source.encode())])
        return models_root() / f"{self.name}-{digest}"


QUANTIZED: Final[dict[str, QuantizedModel]] = {
    "smollm2-w8a8": QuantizedModel("smollm2-w8a8", "smollm2-hf", "llmcompressor", HERE / "quantize_w8a8.py"),
}


def quantized_folder(name: str) -> Path:
    """Give a checkpoint's folder, which is made first where it is not there."""
    if name not in QUANTIZED:
        raise EngineError(f"There is no checkpoint {name}; there are {', '.join(QUANTIZED)}.")
    model = QUANTIZED[name]
    folder = model.folder()
    if not folder.exists():
        source = model_folder(model.source)
        with (models_root() / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _quantize(model, source, folder)
    return folder


def _quantize(model: QuantizedModel, source: Path, folder: Path) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with step(f"quantize {source.name} to {folder}"):
        done = subprocess.run(
            [str(python_of(model.environment)), str(model.script), str(source), str(unfinished)],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise EngineError(f"{model.script.name} failed:\n{done.stderr.strip()[-4000:]}")
    # Whole or absent: others look for the folder without taking the lock.
    unfinished.rename(folder)
