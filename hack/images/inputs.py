"""Turns what an image is made of into a short digest: the image is built again when, and only when, that changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

DIGEST_LENGTH = 12
# What Python and tools leave between the sources.
_IGNORED_SUFFIXES = (".pyc", ".swp", "~")

Input = tuple[str, bytes]


def digest_of(inputs: Iterable[Input]) -> str:
    """Hash named contents; neither their order nor where one ends and the next begins can be confused.

    >>> digest_of([("a", b"1"), ("b", b"2")]) == digest_of([("b", b"2"), ("a", b"1")])
    True
    >>> digest_of([("a", b"12"), ("b", b"")]) == digest_of([("a", b"1"), ("b", b"2")])
    False
    """
    total = hashlib.sha256()
    for name, content in sorted(inputs):
        total.update(f"{len(name)}:{name}:{len(content)}:".encode())
        total.update(content)
    return total.hexdigest()[:DIGEST_LENGTH]


def files_below(folder: Path, root: Path) -> list[Input]:
    """Read every source file below a folder; names are relative to the root."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not _is_litter(path.relative_to(folder)))
    return [(path.relative_to(root).as_posix(), path.read_bytes()) for path in paths]


def one_file(path: Path, root: Path) -> Input:
    """Read one file."""
    return path.relative_to(root).as_posix(), path.read_bytes()


def _is_litter(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or "__pycache__" in path.parts or path.name.endswith(_IGNORED_SUFFIXES)
