"""Bridges what kopf lacks as a frame of our process: its settings, storages that store nothing, and a restart in place.

kopf 1.45
- keeps its last view of an object in annotations, which an object's author can forge to hide a change, and copies each
  object to compare it: storages that do nothing (`_NoDiffBase`, `_NoProgress`);
- removes its finalizer from each object that has it, although another kopf operator, or an object's author, has set it;
  without the right to, it tries for ever: a name here that no object can have;
- gives requests up after a dozen attempts: endless ones here, at most 2 s apart, as its watches do not tell each other
  that the API server is back;
- logs each attempt that it will repeat as an error;
- ends for good when one watch gets an error other than 410, and when another watch is in the middle of a request, it
  never ends (nolar/kopf#1168): the process is then executed anew, in place, with the same id.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import kopf

from moorage_operator.cluster.cache.scope import SELECTORS, Scope
from moorage_operator.cluster.client import PAGE
from moorage_operator.cluster.connection import connect
from moorage_operator.metrics import RESTARTS_IN_PLACE
from moorage_operator.settings import Settings
from moorage_operator.workqueue import backoffs

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 50
"""The API server ends a watch after this time, so that its renewal proves every so often that it is alive."""
SILENT_SECONDS: Final = 70.0
"""A watch that is silent for longer than it should last is dead."""
HANG_SECONDS: Final = 1.0
"""How long kopf may take to end when its cleanup is done."""
EXIT_SECONDS: Final = 8.0
"""The same when it was asked to."""
FIRST_PAUSE: Final = 2.0
"""Seconds before the second of two restarts in place that follow each other closely; it doubles with each."""
LONGEST_PAUSE: Final = 15.0
"""With a longer one /livez would be away for so long that the kubelet ends the container."""
LONG_LIFE: Final = 120.0
"""A process that has lived for so many seconds begins again at once."""
SHORT_LIVES: Final = "MOORAGE_SHORT_LIVES"
"""The environment variable in which a process tells the next one how many before it have ended soon."""
RESTARTS: Final = "MOORAGE_RESTARTS_IN_PLACE"
"""The same for all restarts in place."""

NO_FINALIZER: Final = "no finalizer"
"""The API server refuses a finalizer with a space in its name."""


class _Shared(kopf.Memo):
    """kopf copies it for each object, and ours keep nothing of their own: 5 MB for 25,000 objects."""

    def __copy__(self) -> "_Shared":
        return self


class _NoDiffBase(kopf.DiffBaseStorage):
    """Handlers of events need no difference to what was there before."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Handlers of events have no progress to be kept."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


class _Backoffs:
    """Every request begins a new series of delays."""

    def __iter__(self) -> Iterator[float]:
        return backoffs()


def configure(settings: kopf.OperatorSettings) -> None:
    """Makes kopf watch and nothing else."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = RENEW_SECONDS
    settings.watching.inactivity_timeout = SILENT_SECONDS
    settings.watching.connect_timeout = 10
    settings.networking.connect_timeout = 10
    # `handlers.requests` has a limit for each answer; a request that is refused waits there for as long as it takes.
    settings.networking.request_timeout = None
    settings.networking.error_backoffs = _Backoffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.finalizer = NO_FINALIZER
    # A worker keeps the last event of its object until it ends; with kopf's 5 s, a list is in memory as a whole.
    settings.queueing.idle_timeout = 0.1
    settings.process.ultimate_exiting_timeout = None
    for resource, selectors in SELECTORS.items():
        for name, selector in selectors.items():
            chosen = settings.watching.label_selectors if name == "labelSelector" else settings.watching.field_selectors
            chosen[resource.group, resource.name] = selector


class FrameworkErrorsAreWarnings(logging.Filter):
    """kopf logs as an error what is mended: a request that it will send again, a watch whose end restarts the process.

    Errors of handlers have loggers of their own and stay errors.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lowers the level; no record is dropped."""
        if record.levelno == logging.ERROR and record.name.startswith("kopf._"):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


async def run(settings: Settings) -> None:
    """Runs kopf until the process is told to end; if kopf ends by itself, it restarts in place. CredentialsError."""
    began = time.monotonic()
    RESTARTS_IN_PLACE.inc(restarts())
    scope = Scope(settings.watch_namespaces)
    stop, ready, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()
    memo = _Shared(api=await connect(), stop=stop, cleaned=cleaned)
    operator = asyncio.create_task(
        kopf.operator(
            clusterwide=scope.clusterwide,
            namespaces=scope.namespaces,
            standalone=True,
            liveness_endpoint=settings.liveness_endpoint,
            stop_flag=stop,
            ready_flag=ready,
            memo=memo,
        )
    )
    await _first(operator, ready)
    for number in (signal.SIGTERM, signal.SIGINT):
        # In place of kopf's own: only so can an end that was asked for be told from a fault.
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await _first(operator, cleaned)
    await asyncio.wait({operator}, timeout=EXIT_SECONDS if stop.is_set() else HANG_SECONDS)
    failed = operator.exception() if operator.done() and not operator.cancelled() else None
    if not stop.is_set() and (failed or not operator.done()):
        error = f"{type(failed).__name__}: {failed}"[:500] if failed else "it hangs"
        pause = _pause_before_restart(lived=time.monotonic() - began)
        log.warning("kopf has ended; beginning anew", extra={"error": error, "in_seconds": pause})
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        if not stop.is_set():
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the same program with the same arguments
    if not operator.done():
        _end_at_once()


def restarts() -> int:
    """How often the process has begun anew in place."""
    return int(os.environ.get(RESTARTS, "0"))


def _pause_before_restart(lived: float) -> float:
    """The seconds until the restart in place: none for the first time, for an operator that does not watch is of no
    use; ever more when that does not help, for each start lists everything. Counts the restart for the next process."""
    short_lives = 0 if lived >= LONG_LIFE else int(os.environ.get(SHORT_LIVES, "0"))
    os.environ[SHORT_LIVES] = str(short_lives + 1)
    os.environ[RESTARTS] = str(restarts() + 1)
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(short_lives - 1, 16)) if short_lives else 0.0


async def _first(task: "asyncio.Task[None]", event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _end_at_once() -> None:
    """Ends the process although tasks of kopf do not: the event loop would wait for them for ever."""
    logging.shutdown()
    os._exit(0)
