"""How the operator is: serves `/readyz`, with its reasons as JSON, and `/metrics`; kopf's probes serve `/livez`.

Alive means that no list or watch has been without an answer for too long, so that a restart mends what retries did not.
Ready means that all that can be watched is, and able to write: the Lease was read or renewed a moment ago and the last
writes were not refused. What the API server does not let us watch is named, and is no reason not to be ready, unless it
is everything.
"""

import time
from collections.abc import Callable, Hashable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from moorage_operator.cluster.cache.watches import Watches
from moorage_operator.cluster.lease import LEASE_SECONDS, Elector

SILENT_LIMIT: Final = 210.0


class WriteHealth:
    """Whether writes get through, model by model: set by the reconcile workers."""

    def __init__(self) -> None:
        self._refusals: dict[Hashable, str] = {}

    @property
    def refusal(self) -> str | None:
        """Why writes do not get through for the model that was refused first, and how many others there are."""
        first = next(iter(self._refusals.values()), None)
        others = len(self._refusals) - 1
        return f"{first} (and {others} more)" if first and others else first

    def succeeded(self, model: Hashable) -> None:
        """A reconcile went through."""
        self._refusals.pop(model, None)

    def refused(self, model: Hashable, error: Exception) -> None:
        """The API server did not let us write, or could not be reached."""
        self._refusals[model] = str(error)[:500]


class Health:
    """Joins what is known into the two answers; each is a list of reasons why not."""

    def __init__(
        self,
        watches: Watches,
        elector: Elector,
        writes: WriteHealth,
        *,
        synced: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watches, self._elector, self._writes = watches, elector, writes
        self._synced, self._clock = synced, clock

    def not_alive(self) -> list[str]:
        """Why the process should be started again."""
        silent = self._watches.silent_seconds()
        return [f"a watch has been silent for {silent:.0f} s"] if silent > SILENT_LIMIT else []

    def not_ready(self) -> list[str]:
        """Why the operator does not do its work now."""
        reasons = self.not_alive() + [f"not watching {path}" for path in self._watches.missing()]
        if self._watches.all_refused():
            reasons.append("nothing can be watched")
        if not self._synced():
            reasons.append("not every kind has been listed yet")
        contact = self._elector.contact_at
        if contact is None or self._clock() - contact > LEASE_SECONDS:
            reasons.append("the lease could not be read or renewed")
        if self._writes.refusal:
            reasons.append(f"the API server refuses writes: {self._writes.refusal}")
        return reasons

    def unwatched(self) -> list[str]:
        """What the API server does not let us watch: the rest is served."""
        return self._watches.unwatched()


async def serve(health: Health, port: int) -> web.AppRunner:
    """Serves readiness and metrics on `port`; the caller ends it with `cleanup()`."""
    app = web.Application()

    async def readyz(_request: web.Request) -> web.Response:
        reasons = health.not_ready()
        body = {"ok": not reasons, "reasons": reasons, "unwatched": health.unwatched()}
        return web.json_response(body, status=503 if reasons else 200)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
