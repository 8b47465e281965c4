"""File locks: whoever comes second waits, and says so."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.errors import ClusterError
from hack.cluster.progress import step


@contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold a lock that ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step(f"wait for {waiting_for}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def first_unlocked(paths: Iterable[Path]) -> Iterator[Path]:
    """Hold the first of these locks that nobody holds, and say which."""
    tried = []
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tried.append(str(path))
                continue
            yield path
            return
    raise ClusterError(f"Other processes hold all of {', '.join(tried)}.", hint="Wait until one of them has ended.")
