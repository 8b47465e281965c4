"""Whether the volume has room: what is still to come, against what is free and what the volume may hold."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from moorage_common.download import size_in_words
from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

MARGIN: Final = 1 << 20
"""Bytes for the marker and what the file system needs."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def free_bytes(folder: Path) -> int:
    """Give the bytes that a user who is not root may still write."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Space:
    """The room on one volume, shared by all transfers."""

    def __init__(self, folder: Path, limit: int | None, free: Callable[[Path], int] = free_bytes) -> None:
        """Watch the volume of `folder`, which may hold `limit` bytes if there is one."""
        self._folder = folder
        self._limit = limit
        self._free = free
        self._lock = threading.Lock()
        self._there: dict[str, int] = {}
        self._left: dict[str, int] = {}

    def claim(self, name: str, *, there: int, left: int) -> None:
        """Reserve what a file still needs; raise LoadFailure if that does not fit beside the others."""
        with self._lock:
            self._there[name], self._left[name] = there, left
            self._check()

    def written(self, name: str, count: int) -> None:
        """Take in that a part of it is on the volume now; one whose size is not known must not go over the limit."""
        with self._lock:
            self._there[name] = self._there.get(name, 0) + count
            left = self._left.get(name, 0)
            self._left[name] = max(0, left - count)
            if left < count:
                self._check_limit()

    def _check(self) -> None:
        self._check_limit()
        left, free = sum(self._left.values()), self._free(self._folder)
        if left + MARGIN > free:
            raise LoadFailure(
                LoadError.DOWNLOAD_DISK_FULL,
                f"{size_in_words(left)} are still to come, {_needed(left + MARGIN, free)} free: free some of the "
                "node's disk, or set spec.source.size so that a node with enough is chosen",
            )

    def _check_limit(self) -> None:
        total = sum(self._there.values()) + sum(self._left.values())
        if self._limit is not None and total + MARGIN > self._limit:
            raise LoadFailure(
                LoadError.DOWNLOAD_DISK_FULL,
                f"the files have {size_in_words(total)}, {_needed(total + MARGIN, self._limit)} at most: raise "
                "spec.source.size (MODEL_SIZE_LIMIT), or name fewer files in spec.source.files",
            )

    def failure(self, error: OSError) -> LoadFailure:
        """Say why something cannot be written."""
        if error.errno in _FULL:
            with self._lock:
                left = sum(self._left.values())
            return LoadFailure(
                LoadError.DOWNLOAD_DISK_FULL,
                f"the volume is full, and {size_in_words(left)} were still to come: free some of the node's disk, or "
                "set spec.source.size so that a node with enough is chosen",
            )
        return LoadFailure(LoadError.DOWNLOAD_FAILED, f"{self._folder} cannot be written: {error.strerror or error}")


def _needed(needed: int, room: int) -> str:
    """Say what is needed and what is there, in words that differ as the numbers do."""
    words = size_in_words(needed), size_in_words(room)
    need, has = (f"{needed} bytes", f"{room} bytes") if words[0] == words[1] else words
    return f"{need} are needed with {size_in_words(MARGIN)} that is kept for the file system, and the volume has {has}"
