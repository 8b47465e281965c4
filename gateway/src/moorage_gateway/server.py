"""The life of the process: watch the cluster, listen, and at SIGTERM finish what runs."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from moorage_common.http.connections import Connections
from moorage_common.http.handler import Running
from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_gateway.access import Access
from moorage_gateway.accesslog import AccessLogOutput
from moorage_gateway.addresses import Clients
from moorage_gateway.alias import Aliases
from moorage_gateway.demand import Demand
from moorage_gateway.demand_access import PATH as DEMAND
from moorage_gateway.demand_access import DemandAccess
from moorage_gateway.desk import Desk
from moorage_gateway.front import Front
from moorage_gateway.gauges import ModelGauges, Unwatched
from moorage_gateway.hold import Lobby
from moorage_gateway.keys import Keys
from moorage_gateway.kube.client import Kube, Login
from moorage_gateway.kube.watch import watch_all
from moorage_gateway.kube.watch_health import WatchHealth
from moorage_gateway.management import Management
from moorage_gateway.metrics import Metrics
from moorage_gateway.probes import probe_answer
from moorage_gateway.reviews import KubeReviews
from moorage_gateway.routing import ModelKey, Table
from moorage_gateway.settings import NAME, Settings
from moorage_gateway.supervisor import Supervisor
from moorage_gateway.templates import Templates
from moorage_gateway.tls import Certificate, CertificateError, CertificateExpiry
from moorage_gateway.trace import Traces
from moorage_gateway.view import View, selectors, watched
from moorage_gateway.workers import when_alone

log = logging.getLogger(__name__)

BACKLOG = 4096
WAITING_SHARE = 0.9
"""Of the time that requests have at the end, what they may wait for a pod."""
DEAF_SECONDS = 210.0
"""A watch that gets no answer for so long, not even a refusal, has been lost: liveness fails."""


class Gateway:
    """One process. `run` is its whole life; `stop` begins the end, as SIGTERM does."""

    def __init__(self, settings: Settings, login: Login, admin: socket.socket | None = None) -> None:
        """Prepare to serve; nothing is opened yet. CertificateError.

        A worker (`workers`) has `admin`, to tell of itself there rather than at a port.
        """
        self._inherited = admin
        self.port = 0
        self.admin_port = 0
        self.listening = asyncio.Event()
        self._settings = settings
        self._certificate = None
        if settings.tls_certificate:
            self._certificate = Certificate(Path(settings.tls_certificate), Path(settings.tls_key))
        self._kube = Kube(login, NAME)
        self._metrics = Metrics()
        self._demand = Demand()
        self._demand_access = None
        self._lobby = Lobby(settings.hold, self._demand.changed)
        self._metrics.watch(self._lobby)
        if self._certificate is not None:
            self._metrics.add(CertificateExpiry(self._certificate))
        self._table = Table(self._lobby)
        keys = self._keys = Keys(time.time)
        prompts = ModelKey(*settings.templates.split("/")) if settings.templates else None
        wanted = watched(settings.served_namespaces, settings.key_namespace or None, prompts)
        self._wanted = wanted
        self._selectors = selectors(prompts)
        aliases, templates = Aliases(self._table), Templates()
        self._view = View(self._table, keys, wanted, aliases=aliases, templates=templates)
        self._health = WatchHealth(wanted)
        self._metrics.add(templates)
        self._metrics.add(Unwatched(self._health))
        clock = asyncio.get_running_loop().time
        if admin is None:  # a worker is asked by its master only, which looks who asks that
            self._demand_access = DemandAccess(KubeReviews(self._kube, settings.audience), clock)
        self._metrics.add(ModelGauges(lambda: self._table))
        access = Access(keys, KubeReviews(self._kube, settings.audience), clock, settings.new_tokens_per_minute)
        self._log = AccessLogOutput(settings.access_log_per_second) if settings.access_log_per_second else None
        desk = Desk(
            clock,
            metrics=self._metrics,
            clients=Clients(settings.trusted_networks),
            traces=Traces(make=settings.make_traces),
            log=self._log.log if self._log is not None else None,
            failed_logins_per_minute=settings.failed_logins_per_minute,
        )
        self._front = Front(self._table, access, desk, aliases=aliases, templates=templates)
        self._supervisor: Supervisor | None = None
        if settings.management_socket:
            self._front.management = Management(settings.management_socket, keys.caller, self._front.go_on)
            if admin is None:  # of workers the master has the one process for all
                self._supervisor = Supervisor()
        self._limits = Limits(body_bytes=settings.max_body_bytes)
        self._connections = Connections()
        self._admins = Connections()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until stopped (0), or until it turns out that it cannot listen (1)."""
        watching = asyncio.create_task(watch_all(self._kube, self._wanted, self._view, self._health, self._selectors))
        following = asyncio.create_task(self._certificate.follow()) if self._certificate is not None else None
        listeners: list[asyncio.Server] = []
        try:
            listeners.append(await self._listen_admin())
            front = await self._listen(self._settings.port, self._connection, self._certificate)
            listeners.append(front)
        except OSError as error:
            log.error("cannot listen", extra={"host": self._settings.host, "error": error.strerror or str(error)})
            await self._end(watching, listeners)
            return 1
        self.port = front.sockets[0].getsockname()[1]
        if self._inherited is None:
            self.admin_port = listeners[0].sockets[0].getsockname()[1]
            if not self._settings.key_namespace:
                log.info("no API keys are taken, only tokens of Kubernetes: no key namespace is set")
            log.info("listening", extra={"host": self._settings.host, "port": self.port, "admin_port": self.admin_port})
        else:
            log.info("a worker listens", extra={"pid": os.getpid(), "port": self.port})
        self.listening.set()
        managing = asyncio.create_task(self._supervisor.run()) if self._supervisor is not None else None
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            log.error("the watches have ended", exc_info=watching.exception())
        front.close()
        # Whoever waits is answered before the end, and by then as one who can try elsewhere.
        self._lobby.end_by(asyncio.get_running_loop().time() + self._settings.drain_seconds * WAITING_SHARE)
        if managing is not None:
            # Logs that are followed have no end of their own; what else it does is done within seconds.
            managing.cancel()
        if not await self._connections.drain(self._settings.drain_seconds):
            log.warning("requests are cut off", extra={"connections": len(self._connections)})
        stopped.cancel()
        if following is not None:
            following.cancel()
        if managing is not None:
            await asyncio.gather(managing, return_exceptions=True)
        await self._end(watching, listeners)
        log.info("stopped")
        return int(watching.done() and not watching.cancelled())

    def stop(self) -> None:
        """Take no more connections, let what runs finish, then end."""
        if not self._stop.is_set():
            log.info("draining", extra={"connections": len(self._connections)})
        self._stop.set()

    async def _listen(
        self, port: int, connection: Callable[[], ServerConnection], certificate: Certificate | None = None
    ) -> asyncio.Server:
        loop, host, shared = asyncio.get_running_loop(), self._settings.host, self._inherited is not None
        if certificate is None:
            return await loop.create_server(connection, host, port, backlog=BACKLOG, reuse_port=shared)
        tls: dict[str, Any] = {"ssl": certificate.context, "ssl_handshake_timeout": self._limits.head_seconds}
        return await loop.create_server(connection, host, port, backlog=BACKLOG, reuse_port=shared, **tls)

    async def _listen_admin(self) -> asyncio.Server:
        if self._inherited is None:
            return await self._listen(self._settings.admin_port, self._admin_connection)
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(self._admin_connection, sock=self._inherited)

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

    def _administer(self, request: Request, responder: Responder) -> Coroutine[Any, Any, None] | Running | None:
        if request.path == DEMAND:
            if self._demand_access is not None:
                return self._demand_access.serve(request, responder, self._follow)
            return self._follow(responder)
        if request.path == "/metrics":
            models = {model.name for model in self._table}
            self._metrics.forget_gone(models.__contains__, self._keys.may_be_caller)
            responder.send(self._metrics.page())
        elif request.path == "/livez":
            responder.send(probe_answer(self._not_alive()))
        elif request.path == "/readyz":
            unwatched = [f"{one}: {refusal}" for one, refusal in self._health.unwatched().items()]
            responder.send(probe_answer(self._not_ready(), unwatched))
        else:
            responder.send(Answer(404, b"There are /livez, /readyz, /metrics and /demand.\n", b"text/plain"))
        return None

    def _follow(self, responder: Responder) -> Running | None:
        if self._view.complete:
            return self._demand.follow(responder)
        responder.send(probe_answer(self._not_ready()))
        return None

    def _not_alive(self) -> list[str]:
        """Why the process should be started again."""
        silent = self._health.silent_seconds()
        return [f"the API server has not answered a watch for {silent:.0f} s"] if silent >= DEAF_SECONDS else []

    def _not_ready(self) -> list[str]:
        """Why a request that comes now might miss a model that there is."""
        reasons = ["draining"] if self._stop.is_set() else []
        reasons += [f"not listed yet: {one}" for one in sorted(map(str, self._view.unlisted))]
        return [*reasons, "nothing can be watched"] if self._view.blind else reasons

    async def _end(self, watching: "asyncio.Task[None]", listeners: list[asyncio.Server]) -> None:
        for listener in listeners:
            listener.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        self._demand.end()
        await asyncio.gather(self._connections.end(), self._admins.end())
        if self._log is not None:
            self._log.close()
        await self._kube.close()


async def serve(settings: Settings, login: Login, admin: socket.socket | None = None) -> int:
    """Serve until SIGTERM or SIGINT; as a worker, where `admin` was inherited, also until the master has gone."""
    try:
        gateway = Gateway(settings, login, admin)
    except CertificateError as error:
        log.error("the certificate cannot be used", extra={"why": str(error)})
        return 1
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)
    if admin is not None:
        when_alone(gateway.stop)
    return await gateway.run()
