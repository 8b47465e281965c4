"""The life of the process: watch the cluster, listen, and at SIGTERM finish what runs."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import Connections, ServerConnection
from moorage_common.kube.client import Kube, Login
from moorage_common.kube.watch import WatchHealth, watch_all
from moorage_gateway.access import Access
from moorage_gateway.front import Front
from moorage_gateway.keys import Keys
from moorage_gateway.metrics import Metrics
from moorage_gateway.reviews import KubeReviews
from moorage_gateway.routing import Table
from moorage_gateway.settings import Settings
from moorage_gateway.view import SELECTORS, View, watched

log = logging.getLogger(__name__)

NAME = "moorage-gateway"
BACKLOG = 4096
DEAF_SECONDS = 210.0
"""Without a word from the API server for so long a watch has been lost: liveness fails."""


class Gateway:
    """One process. `run` is its whole life; `stop` begins the end, as SIGTERM does."""

    def __init__(self, settings: Settings, login: Login) -> None:
        """Prepare to serve; nothing is opened yet."""
        self.port = 0
        self.admin_port = 0
        self.listening = asyncio.Event()
        self._settings = settings
        self._kube = Kube(login, NAME)
        self._table = Table()
        keys = Keys(time.time)
        wanted = watched(settings.served_namespaces, settings.key_namespace or None)
        self._wanted = wanted
        self._view = View(self._table, keys, wanted)
        self._health = WatchHealth(wanted)
        self._metrics = Metrics()
        clock = asyncio.get_running_loop().time
        access = Access(keys, KubeReviews(self._kube, settings.audience), clock)
        self._front = Front(self._table, access, self._metrics.ended)
        self._limits = Limits(body_bytes=settings.max_body_bytes)
        self._connections = Connections()
        self._admins = Connections()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until stopped (0), or until it turns out that it cannot listen (1)."""
        watching = asyncio.create_task(watch_all(self._kube, self._wanted, self._view, self._health, SELECTORS))
        listeners: list[asyncio.Server] = []
        try:
            admin = await self._listen(self._settings.admin_port, self._admin_connection)
            listeners.append(admin)
            front = await self._listen(self._settings.port, self._connection)
            listeners.append(front)
        except OSError as error:
            log.error("cannot listen", extra={"host": self._settings.host, "error": error.strerror or str(error)})
            await self._end(watching, listeners)
            return 1
        self.admin_port = admin.sockets[0].getsockname()[1]
        self.port = front.sockets[0].getsockname()[1]
        log.info("listening", extra={"host": self._settings.host, "port": self.port, "admin_port": self.admin_port})
        self.listening.set()
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            log.error("the watches have ended", exc_info=watching.exception())
        front.close()
        if not await self._connections.drain(self._settings.drain_seconds):
            log.warning("requests are cut off", extra={"connections": len(self._connections)})
        stopped.cancel()
        await self._end(watching, listeners)
        log.info("stopped")
        return int(watching.done() and not watching.cancelled())

    def stop(self) -> None:
        """Take no more connections, let what runs finish, then end."""
        if not self._stop.is_set():
            log.info("draining", extra={"connections": len(self._connections)})
        self._stop.set()

    @property
    def ready(self) -> bool:
        """Whether a request that comes now finds all models."""
        return self._view.complete and not self._stop.is_set()

    async def _listen(self, port: int, connection: Callable[[], ServerConnection]) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(connection, self._settings.host, port, backlog=BACKLOG)

    def _connection(self) -> ServerConnection:
        return ServerConnection(
            self._front,
            limits=self._limits,
            connections=self._connections,
            is_draining=self._stop.is_set,
            judge=self._front.judge,
        )

    def _admin_connection(self) -> ServerConnection:
        return ServerConnection(self._administer, limits=Limits(), connections=self._admins, is_draining=lambda: False)

    def _administer(self, request: Request, responder: Responder) -> None:
        if request.path == "/metrics":
            responder.send(self._metrics.page())
        elif request.path == "/livez":
            silent = self._health.silent_seconds()
            responder.send(_health(silent < DEAF_SECONDS, f"a watch has been silent for {silent:.0f} s"))
        elif request.path == "/readyz":
            missing = ", ".join(self._health.missing())
            responder.send(_health(self.ready, f"draining, or not listed yet: {missing}"))
        else:
            responder.send(Answer(404, b"There are /livez, /readyz and /metrics.\n", b"text/plain"))

    async def _end(self, watching: "asyncio.Task[None]", listeners: list[asyncio.Server]) -> None:
        for listener in listeners:
            listener.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await asyncio.gather(self._connections.end(), self._admins.end())
        await self._kube.close()


def _health(well: bool, problem: str) -> Answer:
    return Answer(200, b"ok\n", b"text/plain") if well else Answer(503, f"{problem}\n".encode(), b"text/plain")


async def serve(settings: Settings, login: Login) -> int:
    """Serve until SIGTERM or SIGINT."""
    gateway = Gateway(settings, login)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)
    return await gateway.run()
