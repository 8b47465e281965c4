"""The life of the process: listen, supervise the engine, drain at SIGTERM, and say why when the model cannot be loaded.

The port answers from the first moment (liveness, phase); the routes that need the engine refuse until it is ready.
"""

import asyncio
import logging
import signal

from moorage_common.facts import LoadError, Termination
from moorage_common.http.connections import Connections
from moorage_common.http.message import Limits, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import ServerConnection
from moorage_runtime.errors import LoadFailure, report_termination
from moorage_runtime.process import Child
from moorage_runtime.routes import dispatch
from moorage_runtime.service import Service
from moorage_runtime.settings import Settings
from moorage_runtime.supervise import DEFAULT_POLICY, SupervisionPolicy

log = logging.getLogger(__name__)

BACKLOG = 1024


class Server:
    """One runtime that listens. `run` is its whole life; `stop` begins the end, as SIGTERM does."""

    def __init__(
        self,
        settings: Settings,
        *,
        policy: SupervisionPolicy = DEFAULT_POLICY,
        limits: Limits | None = None,
        first: Child | None = None,
    ) -> None:
        """Prepare to serve; nothing is opened yet. `first` is an engine's process that was started already."""
        self.service = Service.of(settings, policy=policy, first=first)
        self.port = 0
        self.listening = asyncio.Event()
        self._settings = settings
        self._limits = limits or Limits()
        self._connections = Connections()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until stopped (0), or until the model turns out not to be loadable (1)."""
        host, port = self._settings.host, self._settings.port
        try:
            listener = await asyncio.get_running_loop().create_server(self._connection, host, port, backlog=BACKLOG)
        except OSError as error:
            message = f"HOST and PORT are {host} and {port}: {error.strerror or error}"
            report_termination(Termination(LoadError.INVALID_MODEL_CONFIG, message), self._settings.termination_log)
            return 1
        self.port = listener.sockets[0].getsockname()[1]
        log.info("listening", extra={"host": host, "port": self.port})
        self.listening.set()
        engine = asyncio.create_task(self.service.supervisor.run())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({engine, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if engine.done():
                engine.result()  # it ends only by raising
            await self._drain()
        except LoadFailure as failure:
            report_termination(failure.termination, self._settings.termination_log)
            return 1
        except Exception as error:
            log.exception("the supervisor failed")
            message = f"an error in the runtime itself: {type(error).__name__}: {error}"
            report_termination(Termination(LoadError.ENGINE_FAILED, message), self._settings.termination_log)
            return 1
        finally:
            listener.close()
            for task in (engine, stopped):
                task.cancel()
            # Cancelling the supervisor ends the child before this returns.
            await asyncio.gather(engine, stopped, return_exceptions=True)
            await self._connections.end()
        log.info("stopped")
        return 0

    def stop(self) -> None:
        """Take no more requests, let the running ones finish, then end."""
        if not self.service.draining:
            self.service.draining = True
            log.info("draining", extra={"running": self.service.admission.running})
        self._stop.set()

    async def _drain(self) -> None:
        """Wait for the running requests, as long as the settings allow."""
        if not await self._connections.drain(self._settings.drain_timeout):
            log.warning("requests are cut off", extra={"running": self.service.admission.running})

    def _connection(self) -> ServerConnection:
        return ServerConnection(
            self._handle,
            limits=self._limits,
            connections=self._connections,
            is_draining=lambda: self.service.draining,
        )

    async def _handle(self, request: Request, responder: Responder) -> None:
        await dispatch(self.service, request, responder)


async def serve(settings: Settings, first: Child | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    server = Server(settings, first=first)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    return await server.run()
