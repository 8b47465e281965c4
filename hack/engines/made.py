"""Folders of models that something of ours makes: once, under a lock, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from hack.cluster.progress import step
from hack.engines.errors import EngineError
from hack.models import models_root


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Give `folder`; where it is not there, `make` fills it first, under another name until it is whole."""
    if folder.exists():
        return folder
    models_root().mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            with step(f"make {folder}"):
                make(unfinished)
            # Whole or absent: others look for the folder without taking the lock.
            unfinished.rename(folder)
    return folder


def run_offline(*command: str | Path) -> None:
    """Run a command that must find everything here; raise EngineError with the end of what it said."""
    words = [str(word) for word in command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise EngineError(f"{' '.join(words)} failed:\n{done.stderr.strip()[-4000:]}")
