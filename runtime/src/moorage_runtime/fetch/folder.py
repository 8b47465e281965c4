"""The folder that files are fetched into, and its marker: what was asked for, which files are whole, whether all are.

With the marker, a start after a finished download costs neither time nor network, and one after a broken one goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from moorage_runtime.fetch.names import is_safe_path
from moorage_runtime.fetch.part import SUFFIX, write_whole
from moorage_runtime.fetch.plan import Remote, Wanted

MARKER: Final = ".moorage-fetch.json"
REJECTED_SECONDS: Final = 3600.0
"""How long a file that was not what it should be is not fetched again: a pod that is started again and again would."""


class _File(msgspec.Struct, frozen=True):
    size: int
    version: str


class _Marker(msgspec.Struct):
    request: str
    version: str = ""
    planned: tuple[str, ...] = ()
    files: dict[str, _File] = {}
    complete: bool = False
    rejection: str = ""
    rejected_at: float = 0.0


class Folder:
    """The folder for one request; `request` names all that was asked for. Raises OSError where the disk fails."""

    def __init__(self, path: Path, request: str) -> None:
        """Look at what is there; what was fetched for another request is removed when `begin` is called."""
        self.path = path
        self._lock = threading.Lock()
        self._marker = self._read() or _Marker(request)
        self._request = request

    @property
    def version(self) -> str:
        """The version of the whole, such as a commit."""
        return self._marker.version

    def is_complete(self) -> bool:
        """Tell whether all that is asked for is there."""
        marker = self._marker
        same = marker.complete and marker.request == self._request
        return same and all(self._has(name, file.size) for name, file in marker.files.items())

    def begin(self, wanted: Iterable[Wanted], version: str) -> None:
        """Take in what will be fetched."""
        planned = {file.target for file in wanted}
        kept = self._marker.files if self._marker.request == self._request else {}
        for name in {*self._marker.planned, *self._marker.files} - (planned if kept else set()):
            self._remove(name)
        files = {name: file for name, file in kept.items() if name in planned}
        self._marker = _Marker(self._request, version, tuple(sorted(planned)), files)
        self.path.mkdir(parents=True, exist_ok=True)
        self._write()

    def size_of(self, file: Wanted) -> int | None:
        """Give the size of a file that is there whole, in the version that is wanted; else None."""
        known = self._marker.files.get(file.target)
        fits = known and known.version == version_of(file.remote) and self._has(file.target, known.size)
        return known.size if known and fits else None

    def size_of_part(self, file: Wanted) -> int:
        """Give the size of what is there of a file that is not whole."""
        with contextlib.suppress(OSError):
            return (self.path / (file.target + SUFFIX)).stat().st_size
        return 0

    def finished(self, file: Wanted, size: int) -> None:
        """Take in that a file is whole."""
        with self._lock:
            self._marker.files[file.target] = _File(size, version_of(file.remote))
            self._write()

    def complete(self) -> None:
        """Take in that all files are."""
        self._marker.complete = True
        self._write()

    def reject(self, message: str) -> None:
        """Take in that a file was fetched whole and is not what it should be."""
        with self._lock:
            self._marker.rejection, self._marker.rejected_at = message, time.time()
            self._write()

    def rejection(self) -> str:
        """Say why the same request failed lately though all came; empty if it did not."""
        marker = self._marker
        recent = 0 <= time.time() - marker.rejected_at < REJECTED_SECONDS
        return marker.rejection if recent and marker.request == self._request else ""

    def _has(self, name: str, size: int) -> bool:
        path = self.path / name
        with contextlib.suppress(OSError):
            return path.is_file() and not path.is_symlink() and path.stat().st_size == size
        return False

    def _remove(self, name: str) -> None:
        if is_safe_path(name):
            for ending in ("", SUFFIX, SUFFIX + ".json"):
                (self.path / (name + ending)).unlink(missing_ok=True)

    def _read(self) -> _Marker | None:
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode((self.path / MARKER).read_bytes(), type=_Marker)
        return None

    def _write(self) -> None:
        unfinished = self.path / f"{MARKER}{SUFFIX}"
        write_whole(unfinished, msgspec.json.encode(self._marker))
        unfinished.replace(self.path / MARKER)


def version_of(remote: Remote) -> str:
    """Name the content of a file, as far as its source does."""
    return remote.digest.value if remote.digest else remote.version
