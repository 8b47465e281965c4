"""The watches: kopf lists and watches, and every event goes to a `Sink`. Nothing is decided here.

kopf runs in our event loop and may end after an API fault; `watch` starts it again. Its list requests are noticed,
because a list may hide that objects have gone while nobody was watching.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import kopf

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL
from moorage_operator.kube import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    INFERENCE_MODELS,
    NODES,
    PAGE,
    PODS,
    SERVICES,
    Login,
    Resource,
)
from moorage_operator.preemption import EVENT_REASON

log = logging.getLogger(__name__)

CHILDREN: Final = (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, PODS)
WATCHED: Final = (INFERENCE_MODELS, *CHILDREN, EVENTS)
EVERYWHERE: Final = (None,)
"""The namespaces of an operator that serves all of them; it sees the nodes too."""

CHILD_SELECTOR: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
RENEW_SECONDS: Final = 150
"""The API server ends a watch after this time, so that its renewal proves every so often that it is alive."""

LONG_LIVED_SECONDS: Final = 60.0
"""After so long, an end of the watches is the first of a new series."""

END_ATTEMPTS: Final = 10
_KOPF: Final = str(Path(kopf.__file__).parent)


def watches(namespaces: tuple[str | None, ...]) -> list[tuple[Resource, str | None]]:
    """What is watched to serve `namespaces`, kind by kind and namespace by namespace."""
    nodes = [(NODES, None)] if namespaces == EVERYWHERE else []
    return [(resource, namespace) for resource in WATCHED for namespace in namespaces] + nodes


class Sink(Protocol):
    """Takes in what the watches see."""

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An object was listed (None), ADDED, MODIFIED or DELETED."""

    def listed(self, resource: Resource, namespace: str | None) -> None:
        """A list was answered: objects that were seen before and are not in it are gone."""


class WatchHealth:
    """When each list or watch was last answered."""

    def __init__(self, namespaces: tuple[str | None, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self.requests = {resource.path(namespace): (resource, namespace) for resource, namespace in watches(namespaces)}
        self._watches: dict[str, float | None] = dict.fromkeys(self.requests)

    def answered(self, path: str) -> None:
        """A list or watch of `path` was answered with success."""
        if path in self._watches:
            self._watches[path] = self._clock()

    def silent_seconds(self) -> float:
        """How long the most silent of all watches has said nothing."""
        return self._clock() - min(self._started if at is None else at for at in self._watches.values())

    def missing(self) -> list[str]:
        """Watches that have never been answered."""
        return [path for path, at in self._watches.items() if at is None]


def _registry(
    sink: Sink, session: Callable[[], kopf.AiohttpSession], resources: Iterable[Resource]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return session()

    for resource in resources:
        # kopf asks a handler's filter before it prepares to call the handler, and that is half the cost of an event; so
        # the filter takes the event in, and the handler is never called.
        def take_in(event: kopf.RawEvent, watched: Resource = resource, **_: Any) -> bool:
            sink.event(watched, event["type"], dict(event["object"]))
            return False

        kopf.on.event(
            resource.group, resource.version, resource.plural, registry=registry, id=resource.plural, when=take_in
        )(_never_called)

    return registry


async def _never_called(**_: Any) -> None:
    raise AssertionError


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = RENEW_SECONDS
    settings.watching.connect_timeout = 10
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDiffBase()
    # A worker keeps the last event of its object until it ends; with kopf's 5 s, a list is in memory as a whole.
    settings.queueing.idle_timeout = 0.1
    settings.process.ultimate_exiting_timeout = None
    for resource in CHILDREN:
        settings.watching.label_selectors[resource.group, resource.plural] = CHILD_SELECTOR
    settings.watching.field_selectors[EVENTS.group, EVENTS.plural] = f"reason={EVENT_REASON}"
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """We handle events, not differences: without this, kopf copies the whole object with each event to compare it."""

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
    """Endless delays in seconds, doubling up to 8, with jitter; every request begins a new series."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.25
        while True:
            yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter is no secret
            delay = min(8.0, delay * 2)


def _traced_session(login: Login, sink: Sink, health: WatchHealth) -> kopf.AiohttpSession:
    connection = login()

    async def answered(_session: object, _context: object, params: aiohttp.TraceRequestEndParams) -> None:
        watched = health.requests.get(params.url.path)
        if watched is None or params.response.status >= 400:
            return
        health.answered(params.url.path)
        if "watch" not in params.url.query and "continue" not in params.url.query:
            sink.listed(*watched)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    return kopf.AiohttpSession(
        server=connection.server,
        default_namespace=connection.default_namespace,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
            headers=connection.as_http_headers(),
            trace_configs=[trace],
        ),
    )


async def watch(login: Login, namespaces: tuple[str | None, ...], sink: Sink, health: WatchHealth) -> None:
    """Watches until the process is told to end; starts kopf anew whenever it ends for another reason."""
    resources = {resource: None for resource, _ in watches(namespaces)}
    backoffs = iter(_Backoffs())
    while True:
        began = time.monotonic()
        try:
            await _run_kopf(
                registry=_registry(sink, lambda: _traced_session(login, sink, health), resources),
                settings=_settings(),
                clusterwide=namespaces == EVERYWHERE,
                namespaces=[namespace for namespace in namespaces if namespace],
                standalone=True,
            )
        except Exception as error:  # noqa: BLE001 - whatever ends the watches, they must start again
            log.warning("the watches ended; starting them again", extra={"error": f"{type(error).__name__}: {error}"})
            if time.monotonic() - began > LONG_LIVED_SECONDS:
                backoffs = iter(_Backoffs())
            await asyncio.sleep(next(backoffs))
        else:
            return


async def _run_kopf(**arguments: Any) -> None:
    """Runs kopf until it is told to end (and returns) or fails (and raises).

    `kopf.operator` does the same, but it waits without limit for its tasks to end, and a watcher that is cancelled
    together with what it waits for takes that for an order to go on (seen with 1.45.2 after a watch was answered 410).
    """
    others = asyncio.all_tasks()
    roots = await kopf.spawn_tasks(**arguments)
    try:
        done, _ = await asyncio.wait(roots, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end({task for task in asyncio.all_tasks() - others if _is_kopfs(task)})
    for task in done:
        task.result()


def _is_kopfs(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_KOPF)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Ends tasks of kopf: first those that watch, then the rest, which the former need to end well."""
    watchers = {task for task in tasks if task.get_name().startswith("watcher for ")}
    for group in (watchers, tasks):
        for _ in range(END_ATTEMPTS):
            left = {task for task in group if not task.done()}
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)
    if names := [task.get_name() for task in tasks if not task.done()]:
        log.warning("tasks of the watches do not end", extra={"tasks": names})
