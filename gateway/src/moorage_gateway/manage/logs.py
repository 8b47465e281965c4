"""The logs of a model's pods as one stream of lines, as they come."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from moorage_common.labels import MODEL_LABEL, MODEL_UID_LABEL
from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.errors import ApiError, UnavailableError
from moorage_gateway.kube.resources import PODS
from moorage_gateway.manage.problems import Problem

MOST_PODS: Final = 10
LONGEST_LINE: Final = 64 * 1024
"""A longer line is passed on in parts."""

_WAITING: Final = 16
"""Pieces that wait for a client that reads slowly; then the API server is not read either. Each may be a long line."""


MOST_READ: Final = 32
"""Logs that one user reads at a time, or all service accounts of a namespace together: a quarter of what is let through
to this process, so that who follows logs keeps nobody else out."""

_ACCOUNT: Final = "system:serviceaccount:"


class Readers:
    """Who reads logs now."""

    def __init__(self) -> None:
        """Nobody."""
        self._reading: Counter[str] = Counter()

    async def counted(self, who: str, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Give `lines`, counted as read by `who` until their end; Problem where that is one too many."""
        group = who.rpartition(":")[0] if who.startswith(_ACCOUNT) else who
        if self._reading[group] >= MOST_READ:
            raise Problem(429, f"You read {MOST_READ} logs already; end one of them.", "too_many_logs")
        self._reading[group] += 1
        try:
            async for line in lines:
                yield line
        finally:
            self._reading[group] -= 1
            self._reading += Counter()  # drops those at zero


class LogOptions(NamedTuple):
    """What is wanted of each log."""

    container: str
    tail: int
    follow: bool
    since_seconds: int | None
    timestamps: bool
    previous: bool

    def query(self) -> dict[str, str]:
        """As the API server takes it."""
        asked = {"container": self.container, "tailLines": str(self.tail)}
        if self.since_seconds is not None:
            asked["sinceSeconds"] = str(self.since_seconds)
        switches = (("follow", self.follow), ("timestamps", self.timestamps), ("previous", self.previous))
        return {**asked, **{name: "true" for name, on in switches if on}}


async def pods_of(kube: Kube, model: dict[str, Any]) -> list[str]:
    """The pods of this very model, the youngest first; labels that somebody has forged name the wrong uid."""
    metadata = model["metadata"]
    selector = f"{MODEL_LABEL}={metadata['name']},{MODEL_UID_LABEL}={metadata['uid']}"
    page = await kube.page(PODS, metadata["namespace"], {"labelSelector": selector}, limit=500)
    pods = sorted(page["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)
    return [pod["metadata"]["name"] for pod in pods]


async def log_lines(kube: Kube, namespace: str, pods: Sequence[str], options: LogOptions) -> AsyncIterator[bytes]:
    """Lines of the logs; of several pods each begins with the pod's name.

    Raises what the API server refuses if that is so of all pods; where it is of some, a line says so.
    """
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(_WAITING)
    chosen = pods[:MOST_PODS]

    async def read(pod: str) -> None:
        prefix = f"[{pod}] ".encode() if len(chosen) > 1 else b""
        try:
            async for line in _lines(kube.logs(namespace, pod, options.query())):
                await queue.put(prefix + line)
        except Exception as error:  # noqa: BLE001 - it is raised, or told, where the lines are read
            await queue.put(error)
        await queue.put(None)

    tasks = [asyncio.create_task(read(pod)) for pod in chosen]
    going, told = len(chosen), False
    failed: list[Exception] = []
    try:
        while going:
            piece = await queue.get()
            if piece is None:
                going -= 1
            elif isinstance(piece, ApiError | UnavailableError):
                failed.append(piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                told = True
                yield piece
        if failed and not told and len(failed) == len(chosen):
            raise failed[0]
        for error in failed:
            yield f"[moorage] a log ended: {error}\n".encode()
    finally:
        for task in tasks:
            task.cancel()


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest + b"\n"
