"""A file that is being fetched: `NAME.part`, hashed as it grows, and renamed when it is whole and right.

Beside it, `NAME.part.json` says of what version it is a part, so that a later process can go on. That process hashes
what is there from the disk: a sum over what was received would not see what the disk has made of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from moorage_runtime.fetch.plan import Digest

SUFFIX: Final = ".part"
_PIECE: Final = 1 << 20


class _Note(msgspec.Struct, frozen=True):
    version: str
    validator: str


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, never through a link: who else can write the folder must not choose what is overwritten."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o644), "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(content)


class Part:
    """The part of one file that is there. Raises OSError where the disk fails."""

    def __init__(self, target: Path, *, version: str, digest: Digest | None, size: int | None) -> None:
        """Take up what an earlier process has left of the same version, or begin anew."""
        self.target = target
        self.path = target.with_name(target.name + SUFFIX)
        self.validator = ""
        """The server's name of what this is a part of (ETag, Last-Modified); empty while it has none."""
        self.size = 0
        self._note_path = target.with_name(target.name + SUFFIX + ".json")
        self._version = version
        self._digest = digest
        self._expected = size
        self._hash = self._new_hash()
        target.parent.mkdir(parents=True, exist_ok=True)
        note = self._read_note()
        fresh = note is None or note.version != version
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
        self._file = os.open(self.path, flags, 0o644)
        if fresh:
            self.begin("")
        elif note is not None:
            self.validator = note.validator
            self._take_up()

    def begin(self, validator: str) -> None:
        """Throw away what is there; the first bytes of what the server calls `validator` follow."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size = 0
        self._hash = self._new_hash()
        self.validator = validator
        write_whole(self._note_path, msgspec.json.encode(_Note(self._version, validator)))

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        view = memoryview(piece)
        while view:
            count = os.write(self._file, view)
            self._hash.update(view[:count])
            self.size += count
            view = view[count:]

    def sum(self) -> str:
        """Give the sum of what is there, by the digest's algorithm (sha256 where there is no digest)."""
        return str(self._hash.hexdigest())

    def finish(self) -> None:
        """Make it the file; it is on the disk before it has its name."""
        os.fsync(self._file)
        self.path.replace(self.target)
        self._note_path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave what is there for a later attempt."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take_up(self) -> None:
        while piece := os.read(self._file, _PIECE):
            self._hash.update(piece)
            self.size += len(piece)

    def _read_note(self) -> _Note | None:
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(self._note_path.read_bytes(), type=_Note)
        return None

    def _new_hash(self) -> Any:
        if self._digest and self._digest.algorithm == "git":
            # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
            return hashlib.sha1(f"blob {self._expected}\0".encode(), usedforsecurity=False)
        return hashlib.sha256()
