"""Finds uv: the one that the Makefile put into the cache in the version of uv.txt, else one in PATH."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from hack.cluster.paths import cache_root

PIN = Path(__file__).with_name("uv.txt")


class UvMissing(Exception):  # noqa: N818 - it names a state, as LookupError's children do
    """No uv is at hand."""


def pinned_version(text: str) -> str:
    """Read the version from the requirements file.

    >>> pinned_version("# why\\nuv==0.13.9 \\\\\\n    --hash=sha256:00")
    '0.13.9'
    """
    found = re.search(r"^uv==(\S+)", text, re.MULTILINE)
    if not found:
        raise UvMissing(f"{PIN} pins no uv")
    return found[1]


def find_uv() -> str:
    """Give the path of uv."""
    pinned = cache_root() / f"uv-{pinned_version(PIN.read_text(encoding='utf-8'))}" / "bin" / "uv"
    found = str(pinned) if os.access(pinned, os.X_OK) else shutil.which("uv")
    if not found:
        raise UvMissing("uv is neither in the cache nor in PATH: run `make venv`.")
    return found
