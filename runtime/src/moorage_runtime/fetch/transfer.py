"""Fetches one file: as a stream into its part, going on where it stopped, checked before it gets its name."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.folder import Folder, version_of
from moorage_runtime.fetch.http import Network, PassingFailure, Reply
from moorage_runtime.fetch.origin import Origin
from moorage_runtime.fetch.part import Part
from moorage_runtime.fetch.patience import Patience, check_passing, persist
from moorage_runtime.fetch.plan import Wanted
from moorage_runtime.fetch.progress import Progress
from moorage_runtime.fetch.space import Space

log = logging.getLogger(__name__)

MAX_RESTARTS: Final = 5
"""How often a file is begun anew in one process: a server that always breaks off late would else be asked for ever."""
LEAST_RANGE: Final = 1024
"""Bytes of a range that is shorter than was asked for, above which the next one is asked for at once."""
ENOUGH: Final = 256 * 1024
"""Bytes that make an attempt a success of sorts, after which failures are counted anew."""

_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Stopped(Exception):  # noqa: N818 - it names a state
    """The download was told to end."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all transfers share. `wait` sleeps for seconds, or raises Stopped."""

    origin: Origin
    network: Network
    folder: Folder
    progress: Progress
    space: Space
    stop: threading.Event
    attempts: int
    wait: Callable[[float, str], None]


class Transfer:
    """The fetching of one file."""

    def __init__(self, file: Wanted, setting: Setting) -> None:
        """Prepare; nothing is opened yet."""
        self._file = file
        self._remote = file.remote
        self._all = setting
        self._total = file.remote.size
        self._end = 0
        """Where the body of the answer that is being read ends; 0 where that is not known."""
        self._patience = Patience(setting.attempts)
        self._restarts = 0
        self._came = 0
        self._part: Part

    def run(self) -> None:
        """Fetch it, however many attempts it takes; raise LoadFailure where it cannot be had."""
        name, remote = self._file.target, self._remote
        target = self._all.folder.path / name
        try:
            self._part = Part(target, version=version_of(remote), digest=remote.digest, size=remote.size)
        except OSError as error:
            raise self._all.space.failure(error) from error
        try:
            self._all.progress.there(name, self._part.size)
            resumed = self._part.size > 0
            persist(self._attempt, self._patience, self._all.wait)
            if not self._is_right() and resumed:
                # What an earlier process has left may be damaged; that is no fault of the source.
                log.warning("what was left of an earlier download is damaged; it begins anew", extra={"file": name})
                self._begin("")
                persist(self._attempt, self._patience, self._all.wait)
            self._finish()
        finally:
            self._part.close()

    def _attempt(self) -> None:
        while not self._ask():
            pass

    def _ask(self) -> bool:
        """Ask for what is missing and take it; False where the server kept to a shorter range, as it may."""
        part, remote = self._part, self._remote
        if remote.size is not None and part.size == remote.size:
            return True
        if part.size and (not self._can_go_on() or (remote.size is not None and part.size > remote.size)):
            self._begin("")
        asked = self._all.origin.asked(remote)
        headers = dict(asked.headers)
        self._came = 0
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.validator and not remote.digest:
                headers["If-Range"] = part.validator
        with self._all.network.get(replace(asked, headers=headers)) as reply:
            check_passing(reply)
            self._take_head(reply)
            for piece in reply.pieces(self._all.stop):
                self._take(piece)
        if self._all.stop.is_set():
            raise Stopped
        if self._total is None or part.size == self._total:
            return True
        if part.size == self._end and self._came >= LEAST_RANGE:
            return False
        raise PassingFailure(f"{reply.host} sent {part.size} of {self._total} bytes of {remote.name}")

    def _can_go_on(self) -> bool:
        """A part can be gone on with if its end is checked by a sum, or the server knows what it is a part of."""
        return self._remote.digest is not None or bool(self._part.validator) or "If-Match" in self._headers()

    def _headers(self) -> dict[str, str]:
        return dict(self._all.origin.asked(self._remote).headers)

    def _take_head(self, reply: Reply) -> None:
        """Judge the head of an answer, and be ready for its body."""
        if reply.headers.get("content-encoding", "identity") != "identity":
            text = f"{reply.host} sends {self._remote.name} compressed, which was not asked for"
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, text)
        if reply.status == 200:
            self._begin(_validator(reply))  # also where a range was asked for: the server does not know ranges
            self._take_length(reply)
        elif reply.status == 206 and self._part.size:
            self._take_range(reply)
        elif reply.status == 416:
            self._begin("")
            raise PassingFailure(f"{reply.host} has fewer bytes of {self._remote.name} than are here already")
        else:
            raise self._all.origin.refusal(reply.status, reply.headers, self._remote.name)
        if self._total is not None:
            there = self._part.size
            self._all.space.claim(self._file.target, there=there, left=self._total - there)

    def _take_length(self, reply: Reply) -> None:
        """Learn the length of a whole file, which must be known in some way: a break would look like its end."""
        self._end = reply.length or 0
        if reply.length is not None:
            self._learn_total(reply.length, reply)
        elif self._total is None and not reply.has_end:
            text = (
                f"{reply.host} does not say how long {self._remote.name} is, so that nobody can tell if it came whole"
            )
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, text)

    def _take_range(self, reply: Reply) -> None:
        """Check which part comes; it may be less than was asked for, and only Content-Range knows the whole."""
        found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
        first, last = (int(found[1]), int(found[2])) if found else (-1, -1)
        total = self._total if not found or found[3] == "*" else int(found[3])
        fits = first == self._part.size and total is not None and first <= last < total
        if total is None or not fits or reply.length not in (None, last + 1 - first):
            self._begin("")
            raise PassingFailure(f"{reply.host} answers with another range of {self._remote.name} than was asked for")
        self._learn_total(total, reply)
        self._end = last + 1

    def _learn_total(self, total: int, reply: Reply) -> None:
        known = self._total
        if known is not None and total != known:
            self._begin("")
            said = "are listed" if known == self._remote.size else "were told before"
            raise PassingFailure(f"{reply.host} has {total} bytes of {self._remote.name}, where {known} {said}")
        if self._total != total:
            self._total = total
            self._all.progress.learn(self._file.target, total)

    def _take(self, piece: bytes) -> None:
        end = self._end or self._total
        if end is not None and self._part.size + len(piece) > end:
            self._begin("")
            raise PassingFailure(f"more bytes of {self._remote.name} come than it has")
        try:
            self._part.write(piece)
        except OSError as error:
            raise self._all.space.failure(error) from error
        self._all.space.written(self._file.target, len(piece))
        self._all.progress.received(self._file.target, len(piece))
        self._came += len(piece)
        if self._came >= ENOUGH:
            self._patience.progress()

    def _begin(self, validator: str) -> None:
        self._restarts += self._part.size > 0
        if self._restarts > MAX_RESTARTS:
            text = f"{self._remote.name} had to be begun anew {MAX_RESTARTS} times, and never came whole"
            raise LoadFailure(LoadError.DOWNLOAD_FAILED, text)
        try:
            self._part.begin(validator)
        except OSError as error:
            raise self._all.space.failure(error) from error
        self._all.progress.there(self._file.target, 0)
        # What another answer said of the length is of what was thrown away.
        self._total, self._end = self._remote.size, 0

    def _is_right(self) -> bool:
        digest = self._remote.digest
        return digest is None or self._part.sum() == digest.value

    def _finish(self) -> None:
        name, digest, found = self._file.target, self._remote.digest, self._part.sum()
        if digest and found != digest.value:
            message = f"{name} hashes to {found}, where {digest.value} is asked for or listed; nothing of it is kept"
            self._begin("")
            self._all.folder.reject(message)
            raise LoadFailure(LoadError.CHECKSUM_MISMATCH, message)
        try:
            self._part.finish()
            self._all.folder.finished(self._file, self._part.size)
        except OSError as error:
            raise self._all.space.failure(error) from error
        self._all.progress.finished(name, self._part.size)
        said = {} if digest else {"sha256": found}
        log.info("fetched", extra={"file": name, "bytes": self._part.size, "checked": bool(digest), **said})


def _validator(reply: Reply) -> str:
    """Give what If-Range may be told: a strong ETag, else the time of the last change; else nothing."""
    etag = reply.headers.get("etag", "")
    if etag.startswith('"') and etag.isascii() and etag.isprintable():
        return etag
    changed = reply.headers.get("last-modified", "")
    return changed if changed.isascii() and changed.isprintable() else ""
